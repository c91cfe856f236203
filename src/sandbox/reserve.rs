//! The host's reserve of disk. Below it the sandbox that grew is ended and told, and the others work on; if it grows
//! again before there is room, it is frozen until there is. If none grew, so that somebody else filled the disk, what
//! works is frozen until there is room. Called by the watch of `disk.rs` each second.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    SandboxError,
    disk::{STEP, Space, end_all, size, works},
    fleet::Shared,
    life,
    room::Room,
    usage::Usage,
};
use crate::ids::RoomKey;

/// So much more than the reserve must be free before what was frozen runs on: a tenth.
const RELIEF: u64 = 10;

/// What was written before the reserve was reached is looked back at for this long, up to twice.
const LOOK_BACK: Duration = Duration::from_secs(30);

/// What is known of who grew.
#[derive(Default)]
pub(super) struct Reserve {
    low: bool,
    /// All were counted since the disk is low.
    counted: bool,
    /// What each sandbox had written at the last two marks.
    marks: HashMap<RoomKey, [Mark; 2]>,
    /// Bytes that were in use then.
    used: [u64; 2],
    marked: Option<Instant>,
    /// How often each was ended since the disk is low.
    ended: HashMap<RoomKey, u32>,
}

#[derive(Clone, Copy, Default)]
struct Mark {
    /// By its processes, as the kernel counts.
    written: u64,
    /// Taken by its image.
    image: u64,
}

impl Mark {
    fn of(shared: &Shared, room: &Room) -> Self {
        let image = fs::metadata(shared.files.of(&room.key).image).map_or(0, |image| image.blocks() * 512);
        Self { written: room.written(), image }
    }

    fn growth(self, since: Self) -> u64 {
        self.written.saturating_sub(since.written).max(self.image.saturating_sub(since.image))
    }
}

impl Reserve {
    /// Looks once; `true`: the files of all should be counted, as nothing else tells who it was. `idle`: no count is
    /// under way.
    pub(super) async fn guard(
        &mut self,
        shared: &Arc<Shared>,
        space: Space,
        running: &[Arc<Room>],
        taken: &HashMap<RoomKey, Usage>,
        idle: bool,
    ) -> bool {
        let (reserve, inodes) = (shared.options.host_disk_reserve, space.inode_reserve);
        let low = self.short(space.free.bytes, reserve) || self.short(space.free.inodes, inodes);
        if low != self.low {
            let (free, files) = (size(space.free.bytes), space.free.inodes);
            if low {
                tracing::error!(free, files, reserve = size(reserve), "the host's disk is nearly full");
            } else {
                tracing::info!(free, files, "the host's disk has room again: sandboxes run on");
                shared.set_disk_low(false);
                self.ended.clear();
                self.marks.clear();
                self.marked = None;
            }
            (self.low, self.counted) = (low, false);
        }
        self.mark(shared, running, space.used.bytes);
        if !low {
            for room in running.iter().filter(|room| room.is_frozen()) {
                thaw(shared, room).await;
            }
            return false;
        }
        // Also one whose command is over: what it wrote may reach the disk only now.
        let free: Vec<_> = running.iter().filter(|room| !room.is_frozen()).collect();
        let mut working = Vec::new();
        for &room in &free {
            if works(room).await {
                working.push(room);
            }
        }
        if let Some((room, wrote)) = self.worst(shared, &free, taken, space) {
            self.blame(shared, room, &wrote, space.used.bytes).await;
            return false;
        }
        if !self.ended.is_empty() {
            return false; // it was found; the others work on
        }
        if !(working.is_empty() || self.counted && idle) {
            return !std::mem::replace(&mut self.counted, true);
        }
        shared.set_disk_low(true);
        for room in working {
            freeze(shared, room).await;
        }
        false
    }

    /// Notes what has been written so far, now and then while the disk is not short, and of those that are new.
    fn mark(&mut self, shared: &Shared, running: &[Arc<Room>], used: u64) {
        self.marks.retain(|key, _| running.iter().any(|room| room.key == *key));
        let turn = !self.low && self.marked.is_none_or(|marked| marked.elapsed() > LOOK_BACK);
        if turn {
            self.used = if self.marked.is_some() { [self.used[1], used] } else { [used; 2] };
            self.marked = Some(Instant::now());
        }
        for room in running {
            match self.marks.get_mut(&room.key) {
                Some(marks) if turn => *marks = [marks[1], Mark::of(shared, room)],
                Some(_) => {}
                None => {
                    self.marks.insert(room.key.clone(), [Mark::of(shared, room); 2]);
                }
            }
        }
    }

    /// Finds the one that grew most, and says by how much: by a quarter of what the disk did, or it was somebody else.
    /// Where inodes are short, it is the one with the most files.
    fn worst<'a>(
        &self,
        shared: &Shared,
        rooms: &[&'a Arc<Room>],
        taken: &HashMap<RoomKey, Usage>,
        space: Space,
    ) -> Option<(&'a Arc<Room>, String)> {
        if self.short(space.free.bytes, shared.options.host_disk_reserve) {
            let disk = space.used.bytes.saturating_sub(self.used[0]);
            let grew =
                |room: &Room| self.marks.get(&room.key).map_or(0, |since| Mark::of(shared, room).growth(since[0]));
            let most = rooms.iter().map(|room| (grew(room), *room)).max_by_key(|(grew, _)| *grew);
            if let Some((grew, room)) = most.filter(|(grew, _)| *grew >= STEP.bytes.max(disk / 4)) {
                return Some((room, size(grew)));
            }
        }
        if self.short(space.free.inodes, space.inode_reserve) {
            let files = |room: &Room| taken.get(&room.key).map_or(0, |taken| taken.inodes);
            let most = rooms.iter().map(|room| (files(room), *room)).max_by_key(|(files, _)| *files);
            return most
                .filter(|(files, _)| *files >= STEP.inodes)
                .map(|(files, room)| (room, format!("{files} files")));
        }
        None
    }

    /// Tells whether what is free is below the reserve, or was and is not yet clear of it.
    fn short(&self, free: u64, reserve: u64) -> bool {
        free < if self.low { reserve + reserve / RELIEF } else { reserve }
    }

    /// Ends what runs in the sandbox that grew, or freezes it if that was done before.
    async fn blame(&mut self, shared: &Arc<Shared>, room: &Arc<Room>, wrote: &str, used: u64) {
        let times = self.ended.entry(room.key.clone()).or_default();
        *times += 1;
        self.marks.insert(room.key.clone(), [Mark::of(shared, room); 2]);
        self.used = [used; 2];
        if *times > 1 {
            return freeze(shared, room).await;
        }
        tracing::warn!(room = %room.key, wrote, "a sandbox grew while the host's disk ran short: it is ended");
        if end_all(room).await {
            shared.tell(
                &room.key,
                format!(
                    "the host's disk is nearly full, and this sandbox wrote most of late ({wrote}): what was running in it \
                     was ended. Delete what is not needed; more has to wait until the operator has made room \
                     (HOST_DISK_RESERVE)"
                ),
            );
        }
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
