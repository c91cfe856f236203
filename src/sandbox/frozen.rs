//! Sandboxes in which nothing runs on: those that we froze for want of disk, and those that somebody else paused.

use std::{fs, io, path::PathBuf, time::Duration};

use tokio::time::timeout;

use super::{SandboxError, engine::Condition, fleet::Fleet, room::Room};
use crate::strings::sandboxes as words;

/// How long Podman may take to say whether a container is paused, for somebody who waits for an answer of its sandboxd:
/// less than they wait for that.
const LOOK_LIMIT: Duration = Duration::from_secs(4);

/// Looks whether the room's container is frozen, by us or by somebody else, and says so then.
pub(super) async fn held(fleet: &Fleet, room: &Room) -> Option<SandboxError> {
    if room.is_frozen() {
        return Some(SandboxError::HostDiskLow);
    }
    let container = room.container_name()?;
    // Podman away, or slow: what it said last holds.
    if let Ok(Ok(seen)) = timeout(LOOK_LIMIT, fleet.engine.inspect(&container)).await {
        room.set_paused(seen.condition == Condition::Paused);
    }
    room.is_held().then_some(SandboxError::Paused { container })
}

/// Notes that we froze the room's container, or that it is not frozen by us: also for the next server, which must leave
/// alone what somebody else paused.
pub(super) fn set_frozen(fleet: &Fleet, room: &Room, frozen: bool) {
    let mark = frozen_mark(fleet, room);
    let noted = if frozen { fs::write(&mark, b"") } else { fs::remove_file(&mark) };
    if let Err(error) = noted
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "cannot note whether a sandbox is frozen");
    }
    room.set_frozen(frozen);
}

/// Tells whether this server, or one before it, has noted that it froze the room's container.
pub(super) fn is_marked(fleet: &Fleet, room: &Room) -> bool {
    frozen_mark(fleet, room).exists()
}

/// A file that tells that we froze the room's container.
fn frozen_mark(fleet: &Fleet, room: &Room) -> PathBuf {
    fleet.directory(room).with_extension("frozen")
}

/// Freezes what runs in a room's sandbox, and tells the room.
pub(super) async fn freeze(fleet: &Fleet, room: &Room) {
    let Ok(container) = room.container.try_lock() else { return };
    let Some(name) = &container.name else { return };
    match fleet.engine.pause(name).await {
        Ok(()) => {
            set_frozen(fleet, room, true);
            fleet.notify_room(&room.address, words::frozen());
        }
        Err(error) => tracing::warn!(%error, "a sandbox cannot be paused"),
    }
}

/// Lets a frozen sandbox run on, and tells the room.
pub(super) async fn thaw(fleet: &Fleet, room: &Room) {
    let Ok(container) = room.container.try_lock() else { return };
    let Some(name) = &container.name else { return };
    match fleet.engine.unpause(name).await {
        Ok(()) => {
            set_frozen(fleet, room, false);
            fleet.notify_room(&room.address, words::DISK_AGAIN.to_owned());
        }
        Err(error) => tracing::warn!(%error, "a paused sandbox cannot run on"),
    }
}
