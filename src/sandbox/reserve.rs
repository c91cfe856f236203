//! The host's disk reserve. When free space falls below it, the commands of the sandbox that grew are ended and its
//! room is told, while the others go on; if that sandbox grows again before there is space, it is frozen until there
//! is. If no sandbox grew, so that somebody else filled the disk, all that work are frozen until there is space. The
//! watch in `disk.rs` calls this each second.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::Instant;
use tracing::Instrument;

use super::{
    fleet::Fleet,
    frozen::{freeze, thaw},
    room::Room,
    space::{STEP, Space, Usage},
    work::{end_all, works},
};
use crate::{ids::Address, strings::sandboxes as words, text::human_bytes};

/// Before frozen sandboxes run again, a tenth more than the reserve must be free.
const RELIEF: u64 = 10;

/// How far growth is looked back at from the moment when the reserve is reached: once to twice this.
const LOOK_BACK: Duration = Duration::from_secs(30);

/// What is known of who filled the disk.
#[derive(Default)]
pub(super) struct Reserve {
    low: bool,
    /// Whether all sandboxes were counted since the disk is low.
    counted: bool,
    marks: HashMap<Address, Marks>,
    marked: Option<Instant>,
    /// How often the commands of each sandbox were ended since the disk is low.
    ended: HashMap<Address, u32>,
}

/// What a sandbox had taken at earlier times.
#[derive(Clone, Copy)]
struct Marks {
    /// When it was first seen, or when some sandbox was last ended.
    first: Mark,
    /// At the last two times of looking back.
    late: [Mark; 2],
}

/// A sandbox's figures at one time, in bytes.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// In use on the whole disk.
    disk: u64,
    /// Written by its processes as the kernel counts: without those that ended and were not waited for.
    written: u64,
    /// Taken by its image.
    image: u64,
    /// The result of its last count.
    taken: Option<Usage>,
}

impl Mark {
    fn of(fleet: &Fleet, room: &Room, taken: &HashMap<Address, Usage>, disk: u64) -> Self {
        let image = fs::metadata(fleet.files.of(&room.address).image).map_or(0, |image| image.blocks() * 512);
        Self { disk, written: room.written(), image, taken: taken.get(&room.address).copied() }
    }

    /// Returns by how much written or taken bytes have grown, whichever is more.
    fn growth(self, since: Self) -> u64 {
        self.written.saturating_sub(since.written).max(self.kept(since))
    }

    /// Returns by how much the taken bytes have grown; what was written twice in one place counts once.
    fn kept(self, since: Self) -> u64 {
        self.image.saturating_sub(since.image).max(self.counted(since, |taken| taken.bytes))
    }

    fn counted(self, since: Self, of: fn(Usage) -> u64) -> u64 {
        self.taken.zip(since.taken).map_or(0, |(now, since)| of(now).saturating_sub(of(since)))
    }

    /// Returns the growth from which on a sandbox counts as having filled the disk: a quarter of what was written
    /// since by anybody.
    fn blame(self, since: Self) -> u64 {
        STEP.bytes.max(self.disk.saturating_sub(since.disk) / 4)
    }
}

impl Reserve {
    /// Acts on the free space. Returns `true` if the files of all should be counted, since nothing else tells who
    /// filled the disk. `idle` says that no count is running.
    pub(super) async fn guard(
        &mut self,
        fleet: &Arc<Fleet>,
        space: Space,
        running: &[Arc<Room>],
        taken: &HashMap<Address, Usage>,
        idle: bool,
    ) -> bool {
        let (reserve, inodes) = (fleet.options.host_disk_reserve, space.inode_reserve);
        let low = self.short(space.free.bytes, reserve) || self.short(space.free.inodes, inodes);
        if low != self.low {
            let (free, files) = (human_bytes(space.free.bytes), space.free.inodes);
            if low {
                tracing::error!(free, files, reserve = human_bytes(reserve), "the host's disk is nearly full");
            } else {
                tracing::info!(free, files, "the host's disk has room again: sandboxes run on");
                fleet.set_disk_low(false);
                self.ended.clear();
                self.marks.clear();
                self.marked = None;
            }
            (self.low, self.counted) = (low, false);
        }
        self.mark(fleet, running, taken, space.used.bytes);
        if !low {
            for room in running.iter().filter(|room| room.is_frozen()) {
                thaw(fleet, room).instrument(room.address.span()).await;
            }
            return false;
        }
        // Sandboxes without a running command are included: what one wrote may reach the disk only now.
        let free: Vec<_> = running.iter().filter(|room| !room.is_frozen()).collect();
        let work = join_all(free.iter().map(|room| works(room))).await;
        let working: Vec<_> = free.iter().zip(work).filter_map(|(room, works)| works.then_some(*room)).collect();
        if let Some((room, wrote)) = self.worst(fleet, &free, taken, space) {
            self.blame(fleet, room, &wrote).instrument(room.address.span()).await;
            self.marks.clear();
            self.mark(fleet, running, taken, space.used.bytes); // growth counts from here on
            return false;
        }
        if !self.ended.is_empty() {
            return false; // the cause was found, so the others go on
        }
        if !(working.is_empty() || self.counted && idle) {
            return !std::mem::replace(&mut self.counted, true);
        }
        fleet.set_disk_low(true);
        for room in working {
            freeze(fleet, room).instrument(room.address.span()).await;
        }
        false
    }

    /// Notes what the sandboxes have taken: of new ones at once, of all now and then while the disk is not low.
    fn mark(&mut self, fleet: &Fleet, running: &[Arc<Room>], taken: &HashMap<Address, Usage>, disk: u64) {
        self.marks.retain(|key, _| running.iter().any(|room| room.address == *key));
        let turn = !self.low && self.marked.is_none_or(|marked| marked.elapsed() > LOOK_BACK);
        if turn {
            self.marked = Some(Instant::now());
        }
        for room in running {
            let now = || Mark::of(fleet, room, taken, disk);
            let marks =
                self.marks.entry(room.address.clone()).or_insert_with(|| Marks { first: now(), late: [now(); 2] });
            if turn {
                marks.late = [marks.late[1], now()];
            }
            // The first count tells what was there before.
            for mark in [&mut marks.first].into_iter().chain(&mut marks.late) {
                mark.taken = mark.taken.or_else(|| taken.get(&room.address).copied());
            }
        }
    }

    fn worst<'a>(
        &self,
        fleet: &Fleet,
        rooms: &[&'a Arc<Room>],
        taken: &HashMap<Address, Usage>,
        space: Space,
    ) -> Option<(&'a Arc<Room>, String)> {
        let seen = rooms.iter().filter_map(|&room| {
            let marks = *self.marks.get(&room.address)?;
            Some((room, Mark::of(fleet, room, taken, space.used.bytes), marks))
        });
        let bytes = self.short(space.free.bytes, fleet.options.host_disk_reserve);
        let inodes = self.short(space.free.inodes, space.inode_reserve);
        worst(&seen.collect::<Vec<_>>(), bytes, inodes)
    }

    /// Returns whether the disk is low.
    pub(super) fn is_low(&self) -> bool {
        self.low
    }

    /// Returns whether the free space is below the reserve, or was and has not risen enough above it.
    fn short(&self, free: u64, reserve: u64) -> bool {
        free < if self.low { reserve + reserve / RELIEF } else { reserve }
    }

    /// Ends the commands of the sandbox that grew; freezes it if they were ended before.
    async fn blame(&mut self, fleet: &Arc<Fleet>, room: &Arc<Room>, wrote: &str) {
        let times = self.ended.entry(room.address.clone()).or_default();
        *times += 1;
        if *times > 1 {
            return freeze(fleet, room).await;
        }
        tracing::warn!(wrote, "a sandbox grew while the host's disk ran short: it is ended");
        if end_all(fleet, room).await {
            fleet.notify_room(&room.address, words::wrote_most(wrote));
        }
    }
}

/// Returns the sandbox that grew most, and by how much in words, if it grew by a quarter of what the disk did:
/// recently or, for slow growth, since it was first seen. If inodes are short and none has made more, returns the one
/// with the most files.
fn worst<T: Copy>(seen: &[(T, Mark, Marks)], bytes: bool, inodes: bool) -> Option<(T, String)> {
    let most = |grew: &dyn Fn(Mark, Marks) -> u64, enough: &dyn Fn(Mark, Marks) -> u64| {
        let grew = seen.iter().map(|&(room, now, marks)| (grew(now, marks), room, enough(now, marks)));
        let most = grew.max_by_key(|(grew, _, _)| *grew).filter(|(grew, _, enough)| grew >= enough);
        most.map(|(grew, room, _)| (room, grew))
    };
    let late = || most(&|now, marks| now.growth(marks.late[0]), &|now, marks| now.blame(marks.late[0]));
    let slow = || most(&|now, marks| now.kept(marks.first), &|now, marks| now.blame(marks.first));
    if bytes && let Some((room, grew)) = late().or_else(slow) {
        return Some((room, human_bytes(grew)));
    }
    let enough = |_, _| STEP.inodes;
    let made = || most(&|now, marks| now.counted(marks.first, |taken| taken.inodes), &enough);
    let has = || most(&|now, _| now.taken.unwrap_or_default().inodes, &enough);
    let worst = inodes.then(|| made().or_else(has)).flatten();
    worst.map(|(room, files)| (room, format!("{files} files")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Makes a mark: in use on the disk, written, taken by the image and counted, in MiB, and the number of files.
    fn mark(disk: u64, written: u64, image: u64, taken: u64, inodes: u64) -> Mark {
        let taken = Some(Usage { bytes: taken * MIB, inodes });
        Mark { disk: disk * MIB, written: written * MIB, image: image * MIB, taken }
    }

    fn since(first: Mark, late: Mark) -> Marks {
        Marks { first, late: [late; 2] }
    }

    #[test]
    fn who_fills_the_disk_is_found_however_slowly_or_hidden_it_writes() {
        let start = mark(1000, 0, 0, 0, 0);
        let quiet = ("quiet", mark(2000, 1, 0, 0, 0), since(start, start));
        let found = |other| worst(&[quiet, other], true, false).map(|(name, _)| name);
        let slow = ("slow", mark(2000, 900, 900, 900, 0), since(start, mark(1995, 896, 896, 896, 0)));
        assert_eq!(found(slow), Some("slow"));
        let unseen = ("unseen", mark(2000, 0, 0, 600, 0), since(start, start));
        assert_eq!(found(unseen), Some("unseen"), "nobody waited for the processes that wrote it");
        let busy = ("busy", mark(2000, 200, 0, 0, 0), since(start, start));
        assert_eq!(found(busy), None, "somebody else than the sandboxes filled the disk");
    }

    #[test]
    fn who_makes_files_is_found_before_who_has_many() {
        let start = mark(0, 0, 0, 0, 50_000);
        let old = ("old", mark(0, 0, 0, 0, 50_000), since(start, start));
        let new = ("new", mark(0, 0, 0, 0, 20_000), since(mark(0, 0, 0, 0, 10), start));
        assert_eq!(worst(&[old, new], false, true), Some(("new", "19990 files".to_owned())));
        assert_eq!(worst(&[old], false, true), Some(("old", "50000 files".to_owned())));
    }
}
