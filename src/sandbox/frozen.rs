//! Frozen sandboxes: those that this server froze for want of disk, and those that somebody else paused.

use std::{fs, io, path::PathBuf, time::Duration};

use tokio::time::timeout;

use super::{SandboxError, engine::Condition, fleet::Fleet, room::Room};
use crate::strings::sandboxes as words;

/// How long Podman may take to say whether a container is paused. Shorter than the limit of the request to sandboxd
/// that waits meanwhile.
const LOOK_LIMIT: Duration = Duration::from_secs(4);

/// Returns the reason if the room's container is frozen, by this server or by somebody else.
pub(super) async fn held(fleet: &Fleet, room: &Room) -> Option<SandboxError> {
    if room.is_frozen() {
        return Some(SandboxError::HostDiskLow);
    }
    let container = room.container_name()?;
    // If Podman is away or slow, its last answer counts.
    if let Ok(Ok(seen)) = timeout(LOOK_LIMIT, fleet.engine.inspect(&container)).await {
        room.set_paused(seen.condition == Condition::Paused);
    }
    room.is_held().then_some(SandboxError::Paused { container })
}

/// Stores whether this server froze the room's container, so that the next server, too, leaves alone what somebody
/// else paused.
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

/// Returns whether this server or an earlier one has stored that it froze the container.
pub(super) fn is_marked(fleet: &Fleet, room: &Room) -> bool {
    frozen_mark(fleet, room).exists()
}

/// Returns the path of the file that marks the container as frozen by the server.
fn frozen_mark(fleet: &Fleet, room: &Room) -> PathBuf {
    fleet.directory(room).with_extension("frozen")
}

/// Freezes a room's sandbox and tells the room.
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

/// Unfreezes a room's sandbox and tells the room.
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
