//! How a room's container ends: by itself, or stopped, killed or removed. Called under the room's lock.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

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

/// How long a container's PID 1 must be gone until it is believed that Podman will not notice: of one that has just ended it
/// learns within moments.
const GONE: Duration = Duration::from_secs(2);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(200);

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
        Ok(seen) if seen.condition == Condition::Gone => match discard_if_gone(fleet, room, container).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(container = name, %error, "a sandbox whose processes are gone cannot be removed");
                return;
            }
        },
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
            killed => {
                if !discard_if_gone(fleet, room, container).await? {
                    killed?;
                }
            }
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

/// Removes a container of which Podman goes on believing that it runs, although its processes are gone, and returns whether it
/// was one. Podman can neither stop nor start it; the next start makes another one, with the same files.
pub(super) async fn discard_if_gone(
    fleet: &Fleet,
    room: &Room,
    container: &mut Container,
) -> Result<bool, SandboxError> {
    let Some(name) = container.name.clone() else { return Ok(false) };
    let since = Instant::now();
    while matches!(fleet.engine.inspect(&name).await, Ok(seen) if seen.condition == Condition::Gone) {
        if since.elapsed() >= GONE {
            tracing::warn!(
                container = name,
                "a sandbox's processes are gone, and Podman does not know: it is made anew"
            );
            discard(fleet, room, container).await?;
            return Ok(true);
        }
        sleep(LOOK).await;
    }
    Ok(false)
}
