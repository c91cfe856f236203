//! Which sandboxes may run: as many as fit into the memory that they may use together, up to a high number, and none
//! that is unused for long. For a new one the least recently used is stopped, but never one at work; if all are, the
//! start waits in a queue and its room is told. `ending.rs` stops a container, `memory.rs` knows what it uses.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};
use tracing::Instrument;

use super::{
    SandboxError, ending,
    error::{Full, Short},
    fleet::Fleet,
    room::Room,
};
use crate::strings::sandboxes as words;

/// A sandbox that was used so recently counts as being at work, since its caller is about to run something.
const GRACE: Duration = Duration::from_secs(1);

/// How long a start waits for a place among the running ones.
const ADMIT_LIMIT: Duration = Duration::from_mins(2);

/// A room is told when its start waits longer than this.
const TELL_AFTER: Duration = Duration::from_secs(2);

/// How long a sandbox may take to say what runs in it.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// How long one must have been silent that is taken to hang. On a machine under load an answer may come late, and what runs in the sandbox
/// must not be lost for that.
const SILENCE: Duration = Duration::from_secs(20);

/// How often idle sandboxes are looked for: a tenth of the idle time, within these bounds.
const SWEEP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How often the memory that all use together is checked.
const LOOK: Duration = Duration::from_secs(1);

/// What runs in a sandbox.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Nothing, or sandboxd has not answered for a while.
    None,
    /// Sandboxd does not answer just now.
    Unknown,
    /// Background commands only.
    Background,
    /// A command that somebody waits for.
    Foreground,
}

/// Waits until `room` may run, stopping another sandbox if need be, and counts it as running. The room is told if
/// that takes long.
pub(super) async fn admit(fleet: &Arc<Fleet>, room: &Arc<Room>) -> Result<(), SandboxError> {
    let deadline = Instant::now() + ADMIT_LIMIT;
    let why = &fleet.queue.why;
    let waiting = async {
        let Ok(_first) = timeout_at(deadline, fleet.queue.first.lock()).await else {
            let full = *why.borrow();
            return Err(full.unwrap_or(Full::Number(fleet.options.max_running)));
        };
        let admitted = admit_first(fleet, room, deadline).await;
        why.send_replace(None);
        admitted
    };
    let told = async {
        sleep(TELL_AFTER).await;
        if let Ok(Some(full)) = why.subscribe().wait_for(Option::is_some).await.as_deref() {
            fleet.notify_room(&room.address, words::waits_for_others(&full.to_string()));
        }
        std::future::pending().await
    };
    tokio::select! {
        admitted = waiting => admitted.map_err(SandboxError::AllAtWork),
        never = told => never,
    }
}

/// Waits until the first of the queue may run.
async fn admit_first(fleet: &Arc<Fleet>, room: &Arc<Room>, deadline: Instant) -> Result<(), Full> {
    loop {
        let freed = fleet.freed.notified(); // registered before the check, so that no freed place is missed
        let Err(full) = try_admit(fleet, room) else { return Ok(()) };
        let missing = if let Full::Memory(short) = full { short.missing } else { 0 };
        if stop_least_used(fleet, Some(room), missing).await {
            continue;
        }
        fleet.queue.why.send_replace(Some(full));
        if Instant::now() >= deadline {
            return Err(full);
        }
        // A command that ends does not notify `freed`, so the check is repeated.
        let _ = timeout_at(deadline.min(Instant::now() + GRACE), freed).await;
    }
}

/// Stops sandboxes that were not used for the idle time, also if background commands run in them: people who start a
/// server and leave do not come back to stop it.
pub(super) async fn sweep(fleet: Arc<Fleet>) {
    let idle = fleet.options.idle;
    let pause = (idle / 10).clamp(SWEEP.0, SWEEP.1);
    loop {
        sleep(pause).await;
        for room in fleet.all() {
            if room.is_running() && !room.is_held() && room.idle() >= idle {
                let stopping = async {
                    if stop_if(&fleet, &room, idle, Work::Background).await {
                        tracing::info!("stopped an idle sandbox");
                    }
                };
                stopping.instrument(room.address.span()).await;
            }
        }
    }
}

/// Stops idle sandboxes when all together use more memory than they may, since they grow also without a new start.
pub(super) async fn hold_memory(fleet: Arc<Fleet>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        while let Err(short) = check_memory(&fleet, 0, None) {
            if !stop_least_used(&fleet, None, short.missing).await {
                break;
            }
        }
    }
}

fn try_admit(fleet: &Fleet, room: &Arc<Room>) -> Result<(), Full> {
    let running = fleet.all().iter().filter(|room| room.is_running()).count();
    if running >= fleet.options.max_running {
        return Err(Full::Number(fleet.options.max_running));
    }
    let expected = fleet.memory.expected(fleet.options.memory);
    check_memory(fleet, expected, Some(room)).map_err(Full::Memory)?;
    room.memory_used.store(expected, Ordering::SeqCst);
    room.set_running(true);
    Ok(())
}

/// Checks whether `more` bytes of memory fit beside what all sandboxes but `wanting` use.
fn check_memory(fleet: &Fleet, more: u64, wanting: Option<&Arc<Room>>) -> Result<(), Short> {
    let running = running(fleet, wanting);
    if running.is_empty() {
        return Ok(());
    }
    fleet.memory.refresh(&running);
    fleet.memory.room_for(more, &running)
}

fn running(fleet: &Fleet, but: Option<&Arc<Room>>) -> Vec<Arc<Room>> {
    let counts = |room: &Arc<Room>| room.is_running() && but.is_none_or(|but| !Arc::ptr_eq(room, but));
    fleet.all().into_iter().filter(counts).collect()
}

/// Stops the least recently used sandbox that is not at work. Returns `false` if there is none, or if stopping all of
/// those would not free the `missing` bytes: then their rooms would lose them for nothing.
async fn stop_least_used(fleet: &Arc<Fleet>, wanting: Option<&Arc<Room>>, missing: u64) -> bool {
    let mut spare: Vec<_> =
        running(fleet, wanting).into_iter().filter(|room| room.idle() >= GRACE && !room.is_held()).collect();
    spare.sort_by_key(|room| std::cmp::Reverse(room.idle()));
    let used = |room: &Room| room.memory_used.load(Ordering::SeqCst);
    let mut freed: u64 = spare.iter().map(|room| used(room)).sum();
    for room in spare {
        if freed < missing {
            return false;
        }
        freed -= used(&room);
        let stopping = async {
            let stopped = stop_if(fleet, &room, GRACE, Work::None).await;
            if stopped {
                tracing::info!("stopped the least used sandbox to make room for others");
            }
            stopped
        };
        if stopping.instrument(room.address.span()).await {
            return true;
        }
    }
    false
}

/// Stops the room's sandbox unless it was used within `idle`, is being changed, or more runs in it than `tolerated`.
async fn stop_if(fleet: &Arc<Fleet>, room: &Arc<Room>, idle: Duration, tolerated: Work) -> bool {
    // The holder of the lock is starting or stopping it, and may itself wait for a place: waiting here could
    // deadlock.
    let Ok(container) = room.container.try_lock() else { return false };
    room.set_stopping(true);
    let work = work(room).await;
    let spare = match work {
        Work::None => true,
        Work::Background => tolerated == Work::Background,
        Work::Unknown => false,
        Work::Foreground => {
            room.touch();
            false
        }
    };
    // Whoever uses the sandbox touches it first and reads `stopping` then, so that one of the two sees the other.
    let stopped = spare && room.is_running() && room.idle() >= idle && {
        let stopped = ending::stop(fleet, room, &container).await;
        if let Err(error) = &stopped {
            tracing::warn!(%error, "a sandbox cannot be stopped");
        }
        stopped.is_ok()
    };
    room.set_stopping(false);
    stopped
}

async fn work(room: &Room) -> Work {
    let Some(sandbox) = room.connection() else { return Work::None };
    let answer = timeout(ANSWER_LIMIT, sandbox.running()).await;
    let silent = room.silent(answer.is_ok(), SILENCE);
    match answer {
        Ok(Ok(commands)) if commands.iter().any(|command| !command.background) => Work::Foreground,
        Ok(Ok(commands)) if !commands.is_empty() => Work::Background,
        Err(_) if silent < SILENCE => Work::Unknown,
        Ok(Ok(_) | Err(_)) | Err(_) => Work::None,
    }
}
