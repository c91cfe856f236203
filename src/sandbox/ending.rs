//! How a room's container ends: by itself, or stopped, killed or removed. Called under the room's lock.

use std::{sync::Arc, time::Duration};

use super::{
    SandboxError,
    engine::{Condition, EngineError},
    fleet::Fleet,
    frozen,
    room::{Container, Room},
};
use crate::strings::sandboxes as words;

/// How long a stop waits before it kills. sandboxd needs a second at most.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// Notes that `room` does not run any more, and wakes those who wait for a place.
pub(super) fn release(fleet: &Fleet, room: &Room) {
    room.set_running(false);
    room.set_paused(false);
    frozen::set_frozen(fleet, room, false);
    fleet.freed.notify_waiters();
}

/// Checks whether a container that counts as running has ended, and notes it.
pub(super) async fn note_if_ended(fleet: &Fleet, room: &Room, container: &mut Container) {
    let Some(name) = container.name.clone().filter(|_| room.is_running()) else { return };
    match fleet.engine.inspect(&name).await {
        Ok(seen) if seen.condition == Condition::Stopped => {
            tracing::warn!(container = name, exit_code = seen.exit_code, "a sandbox ended by itself");
        }
        Err(EngineError::NotFound(_)) => {
            tracing::warn!(container = name, "a sandbox was removed by somebody else");
            room.note_container(container, None);
        }
        Ok(_) | Err(_) => return,
    }
    room.forget_link();
    release(fleet, room);
}

/// Stops the container, which can be started again. The caller has made sure that nobody uses it.
pub(super) async fn stop(fleet: &Fleet, room: &Room, container: &Container) -> Result<(), SandboxError> {
    if let Some(name) = &container.name {
        fleet.engine.stop(name, STOP_GRACE).await?;
    }
    room.forget_link();
    release(fleet, room);
    Ok(())
}

/// Stops a sandbox in whose image writes have failed for want of disk, and tells the room. The next start checks the
/// image.
pub(super) async fn close(fleet: Arc<Fleet>, room: Arc<Room>) {
    let Ok(container) = room.container.try_lock() else { return }; // it is being stopped or started already
    match stop(&fleet, &room, &container).await {
        Ok(()) => fleet.notify_room(&room.address, words::DISK_FAILED.to_owned()),
        Err(error) => tracing::warn!(%error, "a sandbox whose disk has failed cannot be stopped"),
    }
}

/// Kills the container.
pub(super) async fn end(fleet: &Fleet, room: &Room, container: &mut Container) -> Result<(), SandboxError> {
    room.forget_link();
    if let Some(name) = container.name.clone() {
        match fleet.engine.kill(&name).await {
            Err(EngineError::NotFound(_)) => room.note_container(container, None),
            killed => killed?,
        }
    }
    release(fleet, room);
    Ok(())
}

/// Kills what a failed start has left.
pub(super) async fn abandon(fleet: &Fleet, room: &Room, container: &Container) {
    room.forget_link();
    if let Some(name) = &container.name
        && let Err(error) = fleet.engine.kill(name).await
    {
        tracing::warn!(%error, "a sandbox that failed to start cannot be killed");
    }
    release(fleet, room);
}

/// Removes the container; its files stay.
pub(super) async fn discard(fleet: &Fleet, room: &Room, container: &mut Container) -> Result<(), SandboxError> {
    if let Some(name) = container.name.clone() {
        fleet.engine.remove(&name).await?;
        room.note_container(container, None);
    }
    Ok(())
}
