//! Disk limits: no sandbox takes more than its share, in bytes and in inodes.
//!
//! The size of a room's image is a hard limit, and where the file system has quotas, Podman sets one for the writable
//! layer: there a write simply fails. Everything else is watched. While sandboxes run, the free space is read each
//! second, which costs nothing; only when it has fallen are files counted, in tasks beside the watch. If a sandbox is
//! above its share, or cannot be counted in time, its commands are ended and its room is told. Disk that has gone and
//! is in no count is held against a sandbox that wrote as much and passes open files between processes. The host's
//! reserve is kept by `reserve.rs`.

use std::{collections::HashMap, fs, io, os::unix::fs::MetadataExt, sync::Arc, time::Duration};

use nix::sys::statvfs::statvfs;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::Instrument;

use super::{
    SandboxError, ending,
    engine::{EngineError, Inspected},
    engine_info::EngineInfo,
    events,
    files::Kind,
    fleet::Fleet,
    image,
    reserve::Reserve,
    room::Room,
    space::{STEP, Space, Usage, space},
    usage::{self, Places},
    work::{end_all, works},
};
use crate::{ids::Address, strings::sandboxes as words, text::human_bytes};

/// How often the free space is read.
const PERIOD: Duration = Duration::from_secs(1);

/// How long the count of one sandbox may take.
const COUNT_LIMIT: Duration = Duration::from_mins(1);

/// The time over which growth that no count explains is added up.
const WINDOW: Duration = Duration::from_mins(10);

/// What the watch remembers from one look to the next.
struct Watch {
    /// What each sandbox took at its last count.
    taken: HashMap<Address, Usage>,
    /// What was in use on the file systems at the last count; lowered when space is freed.
    base: Option<Usage>,
    /// The running counts.
    counts: JoinSet<(Arc<Room>, Result<Usage, SandboxError>)>,
    round: Option<Round>,
    unexplained: Unexplained,
    reserve: Reserve,
}

/// A round: counts of all running sandboxes that were started together.
struct Round {
    /// Bytes in use on the disk when the round began.
    used: u64,
    /// The sum by which the counts have grown.
    explained: i128,
}

/// Disk growth that is in no count, such as unnamed files that are being passed between processes.
struct Unexplained {
    since: Instant,
    bytes: i128,
    /// Bytes in use on the disk at the end of the last round.
    used: Option<u64>,
    /// What each sandbox had written when the window began.
    written: HashMap<Address, u64>,
}

/// Runs the watch until the fleet ends.
pub(super) async fn run(fleet: Arc<Fleet>) {
    if !fleet.engine.up().await {
        return;
    }
    let info = loop {
        match fleet.info().await {
            Ok(info) => break info,
            Err(_) => tokio::time::sleep(PERIOD).await, // Podman is away; it is asked again
        }
    };
    let mut watch = Watch {
        taken: HashMap::new(),
        base: None,
        counts: JoinSet::new(),
        round: None,
        unexplained: Unexplained { since: Instant::now(), bytes: 0, used: None, written: HashMap::new() },
        reserve: Reserve::default(),
    };
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match space(&info.graph_root, &fleet.options.state_dir, fleet.options.host_disk_reserve) {
            Ok(space) => watch.check(&fleet, &info, space).await,
            Err(error) => tracing::debug!(%error, "cannot see the free disk space"),
        }
    }
}

impl Watch {
    async fn check(&mut self, fleet: &Arc<Fleet>, info: &EngineInfo, space: Space) {
        while let Some(counted) = self.counts.try_join_next() {
            if let Ok((room, counted)) = counted {
                self.judge(fleet, &room, counted).instrument(room.address.span()).await;
            }
        }
        self.close_round(fleet).await;
        let running: Vec<_> = fleet.all().into_iter().filter(|room| room.is_running()).collect();
        self.taken.retain(|key, _| running.iter().any(|room| room.address == *key));
        let promised = running.iter().map(|room| promised(fleet, room)).sum();
        let free = Usage { bytes: space.free.bytes.saturating_sub(promised), ..space.free };
        let idle = self.counts.is_empty();
        let count_all = self.reserve.guard(fleet, Space { free, ..space }, &running, &self.taken, idle).await;
        if running.is_empty() {
            self.base = None;
            return;
        }
        if !self.reserve.is_low() {
            let failed = |room: &&Arc<Room>| room.workspace_has_failed() && has_image(fleet, room);
            for room in running.iter().filter(failed) {
                let closing = ending::close(Arc::clone(fleet), Arc::clone(room));
                fleet.supervise(closing.instrument(room.address.span()));
            }
        }
        self.unexplained.notice(&running);
        let due = self.due(space.used, share(fleet));
        if !self.counts.is_empty() {
            return;
        }
        let all = due || count_all;
        if all {
            self.base = Some(space.used);
            self.round = Some(Round { used: space.used.bytes, explained: 0 });
        }
        for room in running {
            // A new sandbox is counted once it has started, so that what it had before is not taken for growth.
            let new = !self.taken.contains_key(&room.address) && room.connection().is_some();
            if new || all && works(&room).await {
                let (fleet, info) = (Arc::clone(fleet), info.clone());
                let span = room.address.span();
                let counting = async move {
                    let counted = count(&fleet, &info, &room).await;
                    (room, counted)
                };
                self.counts.spawn(counting.instrument(span));
            }
        }
    }

    /// Returns whether so much was written that a sandbox may be above its share: at least the headroom of one. Half
    /// of that counts, since files may have been freed at the same time.
    fn due(&mut self, used: Usage, share: Usage) -> bool {
        let base = self.base.get_or_insert(used);
        base.bytes = base.bytes.min(used.bytes);
        base.inodes = base.inodes.min(used.inodes);
        let base = *base;
        let full = |of: fn(&Usage) -> u64| {
            let most = self.taken.values().map(of).max().unwrap_or_default();
            let headroom = of(&share).saturating_sub(most) / 2;
            of(&used) - of(&base) >= headroom.max(of(&STEP))
        };
        full(|usage| usage.bytes) || full(|usage| usage.inodes)
    }

    /// Ends the commands of a sandbox that is above its share and growing, or that cannot be counted.
    async fn judge(&mut self, fleet: &Fleet, room: &Room, counted: Result<Usage, SandboxError>) {
        let share = share(fleet);
        let now = match counted {
            Ok(now) => now,
            // Podman is away, which is not the sandbox's fault; it is counted again at the next growth.
            Err(SandboxError::Engine(EngineError::Away(_))) => return,
            Err(error) if room.is_running() => {
                let why = words::counts_as_full(&error.to_string());
                tracing::warn!(%error, "a sandbox cannot be counted");
                return full(fleet, room, &why).await;
            }
            Err(_) => return, // the sandbox ended meanwhile
        };
        // The first count is only what later ones are compared with.
        let Some(before) = self.taken.insert(room.address.clone(), now) else { return };
        if let Some(round) = &mut self.round {
            round.explained += i128::from(now.bytes) - i128::from(before.bytes);
        }
        // A sandbox above its share that does not grow is left alone, so that it can be cleaned up.
        if now.bytes > share.bytes && now.bytes > before.bytes {
            full(fleet, room, &words::bytes_of(&human_bytes(now.bytes), &human_bytes(share.bytes))).await;
        } else if now.inodes > share.inodes && now.inodes > before.inodes {
            full(fleet, room, &words::files_of(now.inodes, share.inodes)).await;
        }
    }

    /// When all counts of a round are done, compares their growth with that of the disk.
    async fn close_round(&mut self, fleet: &Fleet) {
        let Some(round) = self.round.take_if(|_| self.counts.is_empty()) else { return };
        let missing = &mut self.unexplained;
        if let Some(used) = missing.used.replace(round.used) {
            missing.bytes += i128::from(round.used) - i128::from(used) - round.explained;
        }
        if missing.bytes > i128::from(share(fleet).bytes) {
            let (room, wrote) = fleet
                .all()
                .into_iter()
                .filter(|room| room.is_running())
                .map(|room| (missing.wrote(&room), room))
                .max_by_key(|(wrote, _)| *wrote)
                .map_or((None, 0), |(wrote, room)| (Some(room), wrote));
            let wrote_most = i128::from(wrote) >= missing.bytes / 2;
            if let Some(room) = room.filter(|room| wrote_most && room.sends_files()) {
                let hidden = human_bytes(u64::try_from(missing.bytes).unwrap_or(u64::MAX));
                let what = words::hidden_bytes(&hidden);
                full(fleet, &room, &what).instrument(room.address.span()).await;
            }
            missing.begin();
        } else if missing.bytes <= 0 || missing.since.elapsed() > WINDOW {
            missing.begin();
        }
    }
}

impl Unexplained {
    fn begin(&mut self) {
        self.since = Instant::now();
        self.bytes = 0;
        self.written.clear();
    }

    /// Notes what sandboxes that are new to the watch have written before.
    fn notice(&mut self, running: &[Arc<Room>]) {
        self.written.retain(|key, _| running.iter().any(|room| room.address == *key));
        for room in running {
            self.written.entry(room.address.clone()).or_insert_with(|| room.written());
        }
    }

    fn wrote(&self, room: &Room) -> u64 {
        let before = self.written.get(&room.address).copied().unwrap_or(u64::MAX);
        room.written().saturating_sub(before)
    }
}

/// Returns the bytes that a room's image holds but has not taken on the host's disk yet: the kernel may keep writes
/// in memory for half a minute.
fn promised(fleet: &Fleet, room: &Room) -> u64 {
    let Ok(container) = room.container.try_lock() else { return 0 }; // it is being started or stopped
    let Some(volume) = container.volume.as_ref().filter(|volume| volume.image.is_some()) else { return 0 };
    let image = fleet.files.of(&room.address).image;
    let (Ok(image), Ok(inside)) = (fs::metadata(image), statvfs(&volume.mountpoint)) else { return 0 };
    let mounted = inside.blocks() * inside.fragment_size() <= image.len(); // else this is the host's file system
    let held = inside.blocks().saturating_sub(inside.blocks_free()) * inside.fragment_size();
    if mounted { held.saturating_sub(image.blocks() * 512) } else { 0 }
}

fn has_image(fleet: &Fleet, room: &Room) -> bool {
    fleet.files.of(&room.address).kind() == Some(Kind::Image)
}

/// Returns the share of one sandbox.
fn share(fleet: &Fleet) -> Usage {
    let bytes = fleet.options.disk;
    Usage { bytes, inodes: bytes / image::BYTES_AN_INODE }
}

/// Counts what a sandbox takes, and notes it for those who look on.
pub(super) async fn count(fleet: &Fleet, info: &EngineInfo, room: &Room) -> Result<Usage, SandboxError> {
    let failed = |source| SandboxError::Counting { source };
    let name = room.container_name().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let places = places(fleet, info, room, &fleet.engine.inspect(&name).await?);
    let taken = usage::measure(&places, COUNT_LIMIT).await.map_err(failed)?;
    room.note_disk(Some(taken.bytes));
    Ok(taken)
}

/// Ends the commands of a sandbox that is above its share, and tells its room.
async fn full(fleet: &Fleet, room: &Room, what: &str) {
    if end_all(fleet, room).await {
        fleet.notify_room(&room.address, words::disk_full(what));
    }
}

/// Returns where the container's files are on the host.
pub(super) fn places(fleet: &Fleet, info: &EngineInfo, room: &Room, seen: &Inspected) -> Places {
    let rootless = info.rootless.then(|| fleet.options.podman_path.clone());
    let files = fleet.files.of(&room.address);
    let (directory, image) = match files.kind() {
        Some(Kind::Image) => (None, Some(files.image)),
        Some(Kind::Directory) => (Some(files.directory), None),
        None => (seen.volume.clone(), None),
    };
    let events = room.container_name().and_then(|name| events::directory(fleet, room, &name));
    let directories = directory.into_iter().chain(events).chain(seen.writable_layer.clone()).collect();
    Places { directories, image, pid: seen.pid, rootless }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn watch(base: Option<Usage>, taken: &[(&str, u64, u64)]) -> Watch {
        let taken = taken.iter().map(|(room, mib, inodes)| (Address::of_first(*room), bytes(*mib, *inodes)));
        Watch {
            taken: taken.collect(),
            base,
            counts: JoinSet::new(),
            round: None,
            unexplained: Unexplained { since: Instant::now(), bytes: 0, used: None, written: HashMap::new() },
            reserve: Reserve::default(),
        }
    }

    fn bytes(mib: u64, inodes: u64) -> Usage {
        Usage { bytes: mib * MIB, inodes }
    }

    #[tokio::test]
    async fn files_are_counted_only_once_enough_was_written() {
        let (share, mut new) = (bytes(800, 100_000), watch(None, &[]));
        assert!(!new.due(bytes(1000, 0), share), "the first look has nothing to compare with");
        assert!(!new.due(bytes(1399, 0), share));
        assert!(new.due(bytes(1400, 0), share), "half of the share");

        let mut known = watch(Some(bytes(1100, 50_000)), &[("a", 100, 90_000)]);
        assert!(!known.due(bytes(1400, 50_000), share));
        assert!(known.due(bytes(1450, 50_000), share), "half of its headroom");
        assert!(known.due(bytes(1100, 55_000), share), "half of its inodes");
        assert!(!known.due(bytes(1099, 50_000), share));
        assert!(known.due(bytes(1449, 50_000), share), "what was freed between is not held against growth");
    }

    #[tokio::test]
    async fn one_at_its_limit_is_counted_at_every_step() {
        let mut full = watch(Some(Usage::default()), &[("a", 900, 0)]);
        let share = bytes(800, 100_000);
        assert!(!full.due(Usage { bytes: STEP.bytes - 1, inodes: 0 }, share));
        assert!(full.due(STEP, share));
    }
}
