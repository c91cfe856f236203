//! Disk: no sandbox takes more than its share, and the host keeps its reserve.
//!
//! Where the file system knows quotas, Podman sets them (`spec.rs`) and writing simply fails. Everywhere the free
//! space is asked for each second while anything runs, which costs nothing; only when it fell are files counted. The
//! commands of a sandbox above its share are ended; below the host's reserve what works is frozen, and both are told.

use std::{collections::HashMap, io, path::Path, sync::Arc, time::Duration};

use futures_util::future::join_all;
use nix::sys::statvfs::statvfs;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    KillCause, SandboxError,
    engine::Inspected,
    engine_info::EngineInfo,
    files::Kind,
    fleet::Shared,
    life,
    room::Room,
    usage::{self, Places},
};
use crate::ids::RoomKey;

/// Between two looks at the free space.
const PERIOD: Duration = Duration::from_secs(1);

/// The least growth on disk that is worth a count, so that a log file does not cause one each second.
const STEP: u64 = 8 << 20;

/// How long the count of one sandbox may take.
const COUNT_LIMIT: Duration = Duration::from_mins(1);

/// So much more than the reserve must be free before what was frozen runs on: a tenth.
const RELIEF: u64 = 10;

/// What the watch remembers between two looks.
#[derive(Default)]
struct Watch {
    /// What each sandbox took when it was counted last.
    taken: HashMap<RoomKey, u64>,
    /// Bytes in use on the file systems at the last count, or less if some were freed since.
    base: Option<u64>,
    /// Below the reserve.
    low: bool,
}

/// The file systems that sandboxes write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// Bytes in use.
    pub(super) used: u64,
    /// Bytes that may still be written, on the fuller one.
    pub(super) free: u64,
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
    let mut watch = Watch::default();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match space(&info.graph_root, &shared.options.state_dir) {
            Ok(space) => watch.look(&shared, &info, space).await,
            Err(error) => tracing::debug!(%error, "cannot see the free disk space"),
        }
    }
}

impl Watch {
    async fn look(&mut self, shared: &Arc<Shared>, info: &EngineInfo, space: Space) {
        self.guard_reserve(shared, space).await;
        let running: Vec<_> = shared.all().into_iter().filter(|room| room.is_running()).collect();
        self.taken.retain(|key, _| running.iter().any(|room| room.key == *key));
        if running.is_empty() {
            self.base = None;
            return;
        }
        if !self.due(space.used, running.len(), shared.options.disk) {
            return;
        }
        self.base = Some(space.used);
        for room in running {
            if !works(&room).await {
                continue; // nothing in it writes
            }
            if let Err(error) = self.count(shared, info, &room).await {
                tracing::warn!(room = %room.key, %error, "cannot count a sandbox's files");
            }
        }
    }

    /// Tells whether the disk filled so much that a sandbox may be above its share: none can be unless at least its
    /// own headroom was written, whoever wrote it. Half of that is taken, for files that were freed at the same time.
    fn due(&mut self, used: u64, running: usize, share: u64) -> bool {
        let base = *self.base.get_or_insert(used);
        if used < base {
            self.base = Some(used);
            return false;
        }
        let most = self.taken.values().max().copied().unwrap_or_default();
        let mut headroom = share.saturating_sub(most) / 2;
        if self.taken.len() < running {
            headroom = headroom.min(share / 8); // one has not been counted yet
        }
        used - base >= headroom.max(STEP)
    }

    /// Counts one sandbox, and ends its commands if it is above its share and growing.
    async fn count(&mut self, shared: &Arc<Shared>, info: &EngineInfo, room: &Arc<Room>) -> Result<(), SandboxError> {
        let Some(name) = room.container_name() else { return Ok(()) };
        let places = places(shared, info, room, &shared.engine.inspect(&name).await?);
        let now = usage::measure(&places, COUNT_LIMIT).await.map_err(|source| SandboxError::Counting { source })?.bytes;
        let before = self.taken.insert(room.key.clone(), now).unwrap_or_default();
        if now <= shared.options.disk || now <= before {
            return Ok(()); // above it, but not growing: whoever cleans up must be able to
        }
        let Some(sandbox) = room.connection() else { return Ok(()) };
        let commands = sandbox.running().await?;
        let ends = commands.iter().map(|command| sandbox.end(&command.id, KillCause::DiskFull));
        if join_all(ends).await.iter().any(Result::is_ok) {
            shared.tell(
                &room.key,
                format!(
                    "the sandbox's disk is full ({} of {}): what was running in it was ended; delete something, or \
                     have the operator raise SANDBOX_DISK",
                    size(now),
                    size(shared.options.disk)
                ),
            );
        }
        Ok(())
    }

    /// Freezes what works while the host is below its reserve, and lets it run on afterwards.
    async fn guard_reserve(&mut self, shared: &Arc<Shared>, space: Space) {
        let reserve = shared.options.host_disk_reserve;
        let low = if self.low { space.free < reserve + reserve / RELIEF } else { space.free < reserve };
        if low != self.low {
            self.low = low;
            shared.set_disk_low(low);
            let (free, reserve) = (size(space.free), size(reserve));
            if low {
                tracing::error!(free, reserve, "the host's disk is nearly full: sandboxes are paused");
            } else {
                tracing::info!(free, "the host's disk has room again: sandboxes run on");
            }
        }
        for room in shared.all() {
            if low && room.is_running() && !room.is_frozen() && works(&room).await {
                freeze(shared, &room).await;
            } else if !low && room.is_running() && room.is_frozen() {
                thaw(shared, &room).await;
            }
        }
    }
}

async fn works(room: &Room) -> bool {
    match room.connection() {
        Some(sandbox) => sandbox.running().await.is_ok_and(|commands| !commands.is_empty()),
        None => false,
    }
}

async fn freeze(shared: &Shared, room: &Room) {
    let Ok(container) = room.container.try_lock() else { return };
    let Some(name) = &container.name else { return };
    match shared.engine.pause(name).await {
        Ok(()) => {
            life::set_frozen(shared, room, true);
            shared.tell(
                &room.key,
                format!("{}; what runs in the sandbox is paused until then", SandboxError::HostDiskLow),
            );
        }
        Err(error) => tracing::warn!(room = %room.key, %error, "a sandbox cannot be paused"),
    }
}

async fn thaw(shared: &Shared, room: &Room) {
    let Ok(container) = room.container.try_lock() else { return };
    let Some(name) = &container.name else { return };
    match shared.engine.unpause(name).await {
        Ok(()) => {
            life::set_frozen(shared, room, false);
            shared.tell(&room.key, "the host has disk again: the sandbox runs on".to_owned());
        }
        Err(error) => tracing::warn!(room = %room.key, %error, "a paused sandbox cannot run on"),
    }
}

/// Returns where a container's files are.
pub(super) fn places(shared: &Shared, info: &EngineInfo, room: &Room, seen: &Inspected) -> Places {
    let rootless = info.rootless.then(|| shared.options.podman_path.clone());
    let files = shared.files.of(&room.key);
    let (directory, image) = match files.kind() {
        Some(Kind::Image) => (None, Some(files.image)),
        Some(Kind::Directory) => (Some(files.directory), None),
        None => (seen.volume.clone(), None),
    };
    let directories = directory.into_iter().chain(seen.writable_layer.clone()).collect();
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
fn space(graph_root: &Path, files: &Path) -> io::Result<Space> {
    let ask = |path: &Path| -> io::Result<(u64, Space)> {
        let stat = statvfs(path)?;
        let unit = stat.fragment_size();
        let used = stat.blocks().saturating_sub(stat.blocks_free()) * unit;
        Ok((stat.filesystem_id(), Space { used, free: stat.blocks_available() * unit }))
    };
    let (id, graph) = ask(graph_root)?;
    match ask(files) {
        Ok((other, files)) if other != id => {
            Ok(Space { used: graph.used + files.used, free: graph.free.min(files.free) })
        }
        Ok(_) | Err(_) => Ok(graph),
    }
}

/// Writes a number of bytes for people.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn files_are_counted_only_once_enough_was_written() {
        let mut watch = Watch::default();
        assert!(!watch.due(1000 * MIB, 1, 800 * MIB), "the first look has nothing to compare with");
        assert!(!watch.due(1099 * MIB, 1, 800 * MIB));
        assert!(watch.due(1100 * MIB, 1, 800 * MIB), "an eighth of the share: it was never counted");

        watch.base = Some(1100 * MIB);
        watch.taken.insert("a".into(), 100 * MIB);
        assert!(!watch.due(1400 * MIB, 1, 800 * MIB));
        assert!(watch.due(1450 * MIB, 1, 800 * MIB), "half of its headroom");
        assert!(!watch.due(1099 * MIB, 1, 800 * MIB));
        assert!(watch.due(1449 * MIB, 1, 800 * MIB), "what was freed between is not held against growth");
    }

    #[test]
    fn one_at_its_limit_is_counted_at_every_step() {
        let mut watch = Watch { base: Some(0), ..Watch::default() };
        watch.taken.insert("a".into(), 900 * MIB);
        assert!(!watch.due(STEP - 1, 1, 800 * MIB));
        assert!(watch.due(STEP, 1, 800 * MIB));
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(size(512), "512 B");
        assert_eq!(size(1_610_612_736), "1.5 GiB");
    }
}
