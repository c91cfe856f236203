//! Disk: no sandbox takes more than its share, in bytes and in inodes.
//!
//! A room's image is limited by its own size, and where the file system knows quotas, Podman sets one for the writable
//! layer: there writing simply fails. Everything else is watched: the free space is asked for each second while anything
//! runs, which costs nothing; only when it fell are files counted, beside the watch. The commands of a sandbox above
//! its share are ended, and it is told. One that cannot be counted, or not in time, is above it. What is missing on
//! the disk and in no count is held against who wrote as much and has files on their way between processes. The host's reserve is `reserve.rs`.

use std::{collections::HashMap, fs, io, os::unix::fs::MetadataExt, path::Path, sync::Arc, time::Duration};

use futures_util::future::join_all;
use nix::sys::statvfs::statvfs;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::Instrument;

use super::{
    KillCause, SandboxError,
    engine::{EngineError, Inspected},
    engine_info::EngineInfo,
    events,
    files::Kind,
    fleet::Shared,
    image, life,
    reserve::Reserve,
    room::Room,
    usage::{self, Places, Usage},
};
use crate::{ids::Address, strings::sandboxes as words, text::human_bytes};

/// Between two looks at the free space.
const PERIOD: Duration = Duration::from_secs(1);

/// The least growth on disk that is worth a count, so that a log file does not cause one each second.
pub(super) const STEP: Usage = Usage { bytes: 8 << 20, inodes: 1000 };

/// How long the count of one sandbox may take.
const COUNT_LIMIT: Duration = Duration::from_mins(1);

/// How long a sandbox may take to say what runs in it, and to end that.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const END_LIMIT: Duration = Duration::from_secs(5);

/// For so long growth that no count explains is added up.
const WINDOW: Duration = Duration::from_mins(10);

/// What the watch remembers between two looks.
struct Watch {
    /// What each sandbox took when it was counted last.
    taken: HashMap<Address, Usage>,
    /// In use on the file systems at the last count, or less if some was freed since.
    base: Option<Usage>,
    /// Counts under way.
    counts: JoinSet<(Arc<Room>, Result<Usage, SandboxError>)>,
    round: Option<Round>,
    unexplained: Unexplained,
    reserve: Reserve,
}

/// Counts of all sandboxes that work, begun together.
struct Round {
    /// Bytes in use when it began.
    used: u64,
    /// By how much the counts have grown.
    explained: i128,
}

/// Growth of the disk that is in no count: files that are only on their way between processes.
struct Unexplained {
    since: Instant,
    bytes: i128,
    /// Bytes in use at the end of the last round.
    used: Option<u64>,
    /// What each sandbox had written when this began.
    written: HashMap<Address, u64>,
}

/// The file systems that sandboxes write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// In use.
    pub(super) used: Usage,
    /// What may still be written, on the fuller one.
    pub(super) free: Usage,
    /// The part of the bytes that the reserve is, taken of the inodes.
    pub(super) inode_reserve: u64,
}

/// Watches until the fleet ends.
pub(super) async fn run(shared: Arc<Shared>) {
    if !shared.engine.up().await {
        return;
    }
    let info = loop {
        match shared.info().await {
            Ok(info) => break info,
            Err(_) => tokio::time::sleep(PERIOD).await, // Podman away: nothing can write either
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
        match space(&info.graph_root, &shared.options.state_dir, shared.options.host_disk_reserve) {
            Ok(space) => watch.look(&shared, &info, space).await,
            Err(error) => tracing::debug!(%error, "cannot see the free disk space"),
        }
    }
}

impl Watch {
    async fn look(&mut self, shared: &Arc<Shared>, info: &EngineInfo, space: Space) {
        while let Some(counted) = self.counts.try_join_next() {
            if let Ok((room, counted)) = counted {
                self.judge(shared, &room, counted).instrument(room.address.span()).await;
            }
        }
        self.close_round(shared).await;
        let running: Vec<_> = shared.all().into_iter().filter(|room| room.is_running()).collect();
        self.taken.retain(|key, _| running.iter().any(|room| room.address == *key));
        let promised = running.iter().map(|room| promised(shared, room)).sum();
        let free = Usage { bytes: space.free.bytes.saturating_sub(promised), ..space.free };
        let idle = self.counts.is_empty();
        let count_all = self.reserve.guard(shared, Space { free, ..space }, &running, &self.taken, idle).await;
        if running.is_empty() {
            self.base = None;
            return;
        }
        if !self.reserve.is_low() {
            let failed = |room: &&Arc<Room>| room.workspace_has_failed() && has_image(shared, room);
            for room in running.iter().filter(failed) {
                let closing = life::close(Arc::clone(shared), Arc::clone(room));
                shared.supervise(closing.instrument(room.address.span()));
            }
        }
        self.unexplained.notice(&running);
        let due = self.due(space.used, share(shared));
        if !self.counts.is_empty() {
            return;
        }
        let all = due || count_all;
        if all {
            self.base = Some(space.used);
            self.round = Some(Round { used: space.used.bytes, explained: 0 });
        }
        for room in running {
            // Whoever is new is counted once it has started, so that what it had is not held against it.
            let new = !self.taken.contains_key(&room.address) && room.connection().is_some();
            if new || all && works(&room).await {
                let (shared, info) = (Arc::clone(shared), info.clone());
                let span = room.address.span();
                let counting = async move {
                    let counted = count(&shared, &info, &room).await;
                    (room, counted)
                };
                self.counts.spawn(counting.instrument(span));
            }
        }
    }

    /// Tells whether the disk filled so much that a sandbox may be above its share: none can be unless at least its
    /// own headroom was written, whoever wrote it. Half of that is taken, for files that were freed at the same time.
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

    /// Ends the commands of a sandbox that is above its share and growing, or cannot be counted.
    async fn judge(&mut self, shared: &Shared, room: &Room, counted: Result<Usage, SandboxError>) {
        let share = share(shared);
        let now = match counted {
            Ok(now) => now,
            // Podman is away, which is none of the sandbox's doing; counted again with the next growth.
            Err(SandboxError::Engine(EngineError::Away(_))) => return,
            Err(error) if room.is_running() => {
                let why = words::counts_as_full(&error.to_string());
                tracing::warn!(%error, "a sandbox cannot be counted");
                return full(shared, room, &why).await;
            }
            Err(_) => return, // it ended meanwhile
        };
        // The first count is what later ones are compared with.
        let Some(before) = self.taken.insert(room.address.clone(), now) else { return };
        if let Some(round) = &mut self.round {
            round.explained += i128::from(now.bytes) - i128::from(before.bytes);
        }
        // Above it, but not growing: whoever cleans up must be able to.
        if now.bytes > share.bytes && now.bytes > before.bytes {
            full(shared, room, &words::bytes_of(&human_bytes(now.bytes), &human_bytes(share.bytes))).await;
        } else if now.inodes > share.inodes && now.inodes > before.inodes {
            full(shared, room, &words::files_of(now.inodes, share.inodes)).await;
        }
    }

    /// Looks, once all counts of a round are there, whether they explain what is in use.
    async fn close_round(&mut self, shared: &Shared) {
        let Some(round) = self.round.take_if(|_| self.counts.is_empty()) else { return };
        let missing = &mut self.unexplained;
        if let Some(used) = missing.used.replace(round.used) {
            missing.bytes += i128::from(round.used) - i128::from(used) - round.explained;
        }
        if missing.bytes > i128::from(share(shared).bytes) {
            let (room, wrote) = shared
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
                full(shared, &room, &what).instrument(room.address.span()).await;
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

    /// Notes what the sandboxes that are new to it had written.
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

/// Returns the bytes that a room's image holds but has not yet taken of the host's disk: what is written to it may stay
/// in memory for half a minute.
fn promised(shared: &Shared, room: &Room) -> u64 {
    let Ok(container) = room.container.try_lock() else { return 0 }; // it starts or stops
    let Some(volume) = container.volume.as_ref().filter(|volume| volume.image.is_some()) else { return 0 };
    let image = shared.files.of(&room.address).image;
    let (Ok(image), Ok(inside)) = (fs::metadata(image), statvfs(&volume.mountpoint)) else { return 0 };
    let mounted = inside.blocks() * inside.fragment_size() <= image.len(); // else it is the host's file system
    let held = inside.blocks().saturating_sub(inside.blocks_free()) * inside.fragment_size();
    if mounted { held.saturating_sub(image.blocks() * 512) } else { 0 }
}

fn has_image(shared: &Shared, room: &Room) -> bool {
    shared.files.of(&room.address).kind() == Some(Kind::Image)
}

/// Returns what one sandbox may take.
fn share(shared: &Shared) -> Usage {
    let bytes = shared.options.disk;
    Usage { bytes, inodes: bytes / image::BYTES_AN_INODE }
}

async fn count(shared: &Shared, info: &EngineInfo, room: &Room) -> Result<Usage, SandboxError> {
    let failed = |source| SandboxError::Counting { source };
    let name = room.container_name().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let places = places(shared, info, room, &shared.engine.inspect(&name).await?);
    usage::measure(&places, COUNT_LIMIT).await.map_err(failed)
}

/// Ends what runs in a sandbox that is above its share, and tells it so.
async fn full(shared: &Shared, room: &Room, what: &str) {
    if end_all(shared, room).await {
        shared.tell(&room.address, words::disk_full(what));
    }
}

/// Ends every command of a sandbox for what it takes of the disk; `false`: there was none. One that does not answer is
/// killed with all that is in it.
pub(super) async fn end_all(shared: &Shared, room: &Room) -> bool {
    let Some(sandbox) = room.connection() else { return false };
    let end = async {
        let commands = sandbox.running().await.unwrap_or_default();
        let ends = commands.iter().map(|command| sandbox.end(&command.id, KillCause::DiskFull));
        join_all(ends).await.iter().any(Result::is_ok)
    };
    if let Ok(ended) = timeout(END_LIMIT, end).await {
        return ended;
    }
    let Some(name) = room.container_name() else { return false };
    tracing::warn!("a sandbox that takes too much of the disk does not answer, so it is killed");
    shared.engine.kill(&name).await.is_ok()
}

/// Tells whether a command runs in a sandbox. One that does not answer may well be at work.
pub(super) async fn works(room: &Room) -> bool {
    let Some(sandbox) = room.connection() else { return false };
    let running = timeout(ANSWER_LIMIT, sandbox.running()).await;
    running.map_or(true, |running| running.is_ok_and(|commands| !commands.is_empty()))
}

/// Returns where a container's files are.
pub(super) fn places(shared: &Shared, info: &EngineInfo, room: &Room, seen: &Inspected) -> Places {
    let rootless = info.rootless.then(|| shared.options.podman_path.clone());
    let files = shared.files.of(&room.address);
    let (directory, image) = match files.kind() {
        Some(Kind::Image) => (None, Some(files.image)),
        Some(Kind::Directory) => (Some(files.directory), None),
        None => (seen.volume.clone(), None),
    };
    let events = room.container_name().and_then(|name| events::directory(shared, room, &name));
    let directories = directory.into_iter().chain(events).chain(seen.writable_layer.clone()).collect();
    Places { directories, image, pid: seen.pid, rootless }
}

/// Fails where `bytes` more on the state directory's file system would leave less than the host's reserve.
pub(super) fn room_for(shared: &Shared, bytes: u64) -> io::Result<()> {
    let stat = statvfs(&shared.options.state_dir)?;
    if stat.blocks_available() * stat.fragment_size() >= bytes.saturating_add(shared.options.host_disk_reserve) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::StorageFull, "too little disk is free for a copy"))
}

/// Asks for the space where writable layers and rooms' files lie.
fn space(graph_root: &Path, files: &Path, reserve: u64) -> io::Result<Space> {
    let ask = |path: &Path| -> io::Result<(u64, Space)> {
        let stat = statvfs(path)?;
        let unit = stat.fragment_size();
        let used = stat.blocks().saturating_sub(stat.blocks_free()) * unit;
        // A file system that makes inodes as it needs them names none.
        let inodes = if stat.files() == 0 { u64::MAX } else { stat.files_available() };
        let part = u128::from(stat.files()) * u128::from(reserve) / u128::from((stat.blocks() * unit).max(1));
        let space = Space {
            used: Usage { bytes: used, inodes: stat.files().saturating_sub(stat.files_free()) },
            free: Usage { bytes: stat.blocks_available() * unit, inodes },
            inode_reserve: u64::try_from(part).unwrap_or(u64::MAX),
        };
        Ok((stat.filesystem_id(), space))
    };
    let (id, graph) = ask(graph_root)?;
    match ask(files) {
        Ok((other, files)) if other != id => {
            let used =
                Usage { bytes: graph.used.bytes + files.used.bytes, inodes: graph.used.inodes + files.used.inodes };
            let free = Usage {
                bytes: graph.free.bytes.min(files.free.bytes),
                inodes: graph.free.inodes.min(files.free.inodes),
            };
            Ok(Space { used, free, inode_reserve: graph.inode_reserve.min(files.inode_reserve) })
        }
        Ok(_) | Err(_) => Ok(graph),
    }
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
