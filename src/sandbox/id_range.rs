//! Which ids on the host belong to a room: 65,536 of its own for as long as its files live.
//!
//! `--userns=auto` alone would choose a range for each new *container*; the files of a room whose container is made
//! anew (for a new image) would then belong to another range. So the range is chosen here, once for each room, stored
//! in the room's record and as a label on its volume, and given to Podman as the mapping of its `auto` mode; Podman
//! keeps it apart from the ranges that it gives to others. Rootless Podman has one range for all, so none of this
//! applies.

use std::{collections::BTreeSet, fs, io, path::Path};

/// The volume's label that holds the first host id of its room.
pub(super) const LABEL: &str = "matrix-agent.ids";

/// The number of ids in a range.
const SIZE: u64 = 65_536;

/// The user in `/etc/subuid` from whose ranges Podman takes those for `--userns=auto`.
const OWNER: &str = "containers";

/// A room's range of ids on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IdRange {
    /// The host id that is 0 inside.
    first: u32,
}

impl IdRange {
    /// Parses the label that [`IdRange::label`] makes.
    pub(super) fn from_label(text: &str) -> Option<Self> {
        text.parse().ok().map(|first| Self { first })
    }

    /// Returns the range with this first id.
    pub(super) fn from_first(first: u32) -> Self {
        Self { first }
    }

    /// Returns the range as the text of the volume's label.
    pub(super) fn label(self) -> String {
        self.first.to_string()
    }

    /// Returns the host's id for the id `inside`.
    pub(super) fn on_host(self, inside: u32) -> u32 {
        self.first + inside
    }

    /// Returns Podman's user namespace mode for exactly this range.
    pub(super) fn userns_mode(self) -> String {
        let map = format!("0:{}:{SIZE}", self.first);
        format!("auto:size={SIZE},uidmapping={map},gidmapping={map}")
    }
}

/// The ranges of the host, and which of them rooms have.
#[derive(Debug, Default)]
pub(super) struct IdRanges {
    /// What the host has set aside: the first id and the number of ranges.
    pools: Vec<(u64, u64)>,
    taken: BTreeSet<IdRange>,
}

impl IdRanges {
    /// Reads what the host has set aside for `--userns=auto`. uids and gids must agree, since Podman maps both alike.
    pub(super) fn of_host() -> io::Result<Self> {
        let read = |path| fs::read_to_string(Path::new(path)).map(|text| pools(&text));
        let (uids, gids) = (read("/etc/subuid")?, read("/etc/subgid")?);
        Ok(Self { pools: uids.into_iter().filter(|pool| gids.contains(pool)).collect(), taken: BTreeSet::new() })
    }

    /// Marks a range as taken.
    pub(super) fn reserve(&mut self, range: IdRange) {
        self.taken.insert(range);
    }

    /// Marks a range as free.
    pub(super) fn free(&mut self, range: IdRange) {
        self.taken.remove(&range);
    }

    /// Takes the first free range after the one to which `seed` points; `None` if there is none. The seed spreads
    /// servers that share a Podman, and avoids the low end, where Podman takes its own.
    pub(super) fn choose(&mut self, seed: u64) -> Option<IdRange> {
        let total: u64 = self.pools.iter().map(|(_, count)| count).sum();
        let free =
            (0..total).map(|step| self.nth((seed % total + step) % total)).find(|range| !self.taken.contains(range))?;
        self.taken.insert(free);
        Some(free)
    }

    /// Returns the range with this number, counted over all pools; `index` must be below their sum.
    fn nth(&self, mut index: u64) -> IdRange {
        let mut first = 0;
        for (start, count) in &self.pools {
            if index < *count {
                first = start + index * SIZE;
                break;
            }
            index -= count;
        }
        IdRange { first: u32::try_from(first).unwrap_or(u32::MAX) }
    }
}

/// Returns the pools of [`OWNER`] in the text of `/etc/subuid` or `/etc/subgid`.
fn pools(text: &str) -> Vec<(u64, u64)> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let (owner, start, count) = (fields.next()?, fields.next()?, fields.next()?);
            let (start, count): (u64, u64) = (start.parse().ok()?, count.parse().ok()?);
            let count = count.min(u64::from(u32::MAX).saturating_sub(start)) / SIZE; // the last id means "none"
            (owner == OWNER && count > 0).then_some((start, count))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(text: &str) -> IdRanges {
        IdRanges { pools: pools(text), taken: BTreeSet::new() }
    }

    #[test]
    fn a_range_survives_its_label_and_becomes_podmans_mode() {
        let range = ranges("containers:2147483647:2147483648").choose(2).unwrap();
        assert_eq!(IdRange::from_label(&range.label()), Some(range));
        assert_eq!(range.userns_mode(), "auto:size=65536,uidmapping=0:2147614719:65536,gidmapping=0:2147614719:65536");
        assert_eq!(range.on_host(1000), 2_147_615_719);
    }

    #[test]
    fn every_room_gets_another_range_until_none_is_left() {
        let mut ranges = ranges("root:1:65536\ncontainers:100000:131072\ncontainers:900000:70000\n");
        let firsts: BTreeSet<_> = (0..3).map(|_| ranges.choose(7).unwrap().first).collect();
        assert_eq!(firsts, BTreeSet::from([100_000, 165_536, 900_000]));
        assert_eq!(ranges.choose(7), None);
        ranges.free(IdRange { first: 165_536 });
        assert_eq!(ranges.choose(7), Some(IdRange { first: 165_536 }));
    }

    #[test]
    fn a_host_without_ranges_has_none() {
        assert_eq!(ranges("anna:100000:65536\ncontainers:5:1000").choose(1), None);
    }
}
