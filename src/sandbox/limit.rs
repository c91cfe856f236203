//! Who may run: at most so many sandboxes at once, and none that nobody uses. The one that was used least recently
//! makes room for another, but never one at work. Knows when and whom, not how a container stops (`room.rs`).

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{SandboxError, fleet::Shared, life, room::Room};

/// Somebody who was just given a sandbox is about to use it: for so long it counts as being at work.
const GRACE: Duration = Duration::from_secs(1);

/// How long a start waits for a place among the running ones.
const ADMIT_LIMIT: Duration = Duration::from_mins(1);

/// How long a sandbox may take to tell what runs in it.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Between two looks for idle ones: a tenth of the idle time, within these.
const SWEEP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// What runs in a sandbox.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Nothing, or nobody can tell.
    None,
    /// Background commands only.
    Background,
    /// A command that somebody waits for.
    Foreground,
}

/// Waits until `room` may count among the running ones, and counts it. Stops another one if need be.
pub(super) async fn admit(shared: &Arc<Shared>, room: &Arc<Room>) -> Result<(), SandboxError> {
    let deadline = Instant::now() + ADMIT_LIMIT;
    loop {
        let freed = shared.freed.notified(); // from here on no place that becomes free is missed
        if try_admit(shared, room) {
            return Ok(());
        }
        if stop_least_used(shared, room).await {
            continue;
        }
        if Instant::now() >= deadline {
            return Err(SandboxError::AllAtWork { limit: shared.options.max_running });
        }
        // A command's end frees no place by itself: looked at again.
        let _ = timeout_at(deadline.min(Instant::now() + GRACE), freed).await;
    }
}

/// Counts `room` no longer among the running ones.
pub(super) fn release(shared: &Shared, room: &Room) {
    room.set_running(false);
    room.set_paused(false);
    life::set_frozen(shared, room, false);
    shared.freed.notify_waiters();
}

/// Stops sandboxes that nobody used for the idle time. Commands in the background do not hold it up: who starts a
/// server and leaves has left.
pub(super) async fn sweep(shared: Arc<Shared>) {
    let idle = shared.options.idle;
    let pause = (idle / 10).clamp(SWEEP.0, SWEEP.1);
    loop {
        sleep(pause).await;
        for room in shared.all() {
            if room.is_running() && !room.is_held() && room.idle() >= idle {
                let stopped = stop_if(&shared, &room, idle, Work::Background).await;
                if stopped {
                    tracing::info!(room = %room.key, "stopped an idle sandbox");
                }
            }
        }
    }
}

fn try_admit(shared: &Shared, room: &Room) -> bool {
    let rooms = shared.rooms(); // held: two starts must not take one place
    let running = rooms.values().filter(|room| room.is_running()).count();
    let free = running < shared.options.max_running;
    if free {
        room.set_running(true);
    }
    free
}

/// Stops the one that was used least recently and is not at work. `false`: there is none.
async fn stop_least_used(shared: &Arc<Shared>, wanting: &Arc<Room>) -> bool {
    let mut running: Vec<_> =
        shared.all().into_iter().filter(|room| room.is_running() && !Arc::ptr_eq(room, wanting)).collect();
    running.sort_by_key(|room| std::cmp::Reverse(room.idle()));
    for room in running {
        if room.idle() >= GRACE && !room.is_held() && stop_if(shared, &room, GRACE, Work::None).await {
            tracing::info!(room = %room.key, "stopped the least used sandbox to make room for another");
            return true;
        }
    }
    false
}

/// Stops the room's sandbox unless it was used within `idle`, is being changed, or more runs in it than `tolerated`.
async fn stop_if(shared: &Arc<Shared>, room: &Arc<Room>, idle: Duration, tolerated: Work) -> bool {
    // Whoever holds the lock starts or stops it; waiting for the lock could wait in a circle.
    let Ok(container) = room.container.try_lock() else { return false };
    room.set_stopping(true);
    let work = work(room).await;
    let spare = match work {
        Work::None => true,
        Work::Background => tolerated == Work::Background,
        Work::Foreground => {
            room.touch();
            false
        }
    };
    // Used meanwhile? Whoever uses it touches it first and looks at `stopping` then.
    let stopped = spare && room.is_running() && room.idle() >= idle && {
        let stopped = life::stop(shared, room, &container).await;
        if let Err(error) = &stopped {
            tracing::warn!(room = %room.key, %error, "a sandbox cannot be stopped");
        }
        stopped.is_ok()
    };
    room.set_stopping(false);
    stopped
}

async fn work(room: &Room) -> Work {
    let Some(sandbox) = room.connection() else { return Work::None };
    match timeout(ANSWER_LIMIT, sandbox.running()).await {
        Ok(Ok(commands)) if commands.iter().any(|command| !command.background) => Work::Foreground,
        Ok(Ok(commands)) if !commands.is_empty() => Work::Background,
        Ok(Ok(_) | Err(_)) | Err(_) => Work::None,
    }
}
