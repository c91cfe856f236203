//! Who may run: as many sandboxes as fit into the memory that they may use together, and a number far above that; and
//! none that nobody uses. The one that was used least recently makes room for another, but never one at work: then
//! whoever wants to start queues, and is told. Knows when and whom, not how a container stops (`life.rs`) nor what it
//! uses (`memory.rs`).

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{Mutex, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at},
};
use tracing::Instrument;

use super::{SandboxError, fleet::Shared, life, memory::Short, room::Room};
use crate::strings::sandboxes as words;

/// Somebody who was just given a sandbox is about to use it: for so long it counts as being at work.
const GRACE: Duration = Duration::from_secs(1);

/// How long a start waits for a place among the running ones.
const ADMIT_LIMIT: Duration = Duration::from_mins(2);

/// Whoever waits longer than this is told.
const TELL_AFTER: Duration = Duration::from_secs(2);

/// How long a sandbox may take to tell what runs in it.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Between two looks for idle ones: a tenth of the idle time, within these.
const SWEEP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Between two looks at the memory that all use together.
const LOOK: Duration = Duration::from_secs(1);

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

/// Why no further sandbox may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// So many run, which is all that may.
    Number(usize),
    /// All of them together leave too little memory.
    Memory(Short),
}

impl Full {
    /// Returns the setting that allows more.
    pub(super) fn setting(&self) -> &'static str {
        match self {
            Self::Number(_) => "MAX_RUNNING_SANDBOXES",
            Self::Memory(_) => "SANDBOX_MEMORY_TOTAL",
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(limit) => f.write_str(&words::all_at_work(*limit)),
            Self::Memory(short) => write!(f, "{short}"),
        }
    }
}

/// Those who want to start, in order of their coming.
pub(super) struct Queue {
    /// Held by the first.
    first: Mutex<()>,
    /// Why the first has to wait, if it does.
    why: watch::Sender<Option<Full>>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { first: Mutex::default(), why: watch::Sender::new(None) }
    }
}

/// Waits until `room` may count among the running ones, and counts it. Stops another one if need be. Whoever waits long
/// is told why.
pub(super) async fn admit(shared: &Arc<Shared>, room: &Arc<Room>) -> Result<(), SandboxError> {
    let deadline = Instant::now() + ADMIT_LIMIT;
    let why = &shared.queue.why;
    let waiting = async {
        let Ok(_first) = timeout_at(deadline, shared.queue.first.lock()).await else {
            let full = *why.borrow();
            return Err(full.unwrap_or(Full::Number(shared.options.max_running)));
        };
        let admitted = admit_first(shared, room, deadline).await;
        why.send_replace(None);
        admitted
    };
    let told = async {
        sleep(TELL_AFTER).await;
        if let Ok(Some(full)) = why.subscribe().wait_for(Option::is_some).await.as_deref() {
            shared.tell(&room.address, words::waits_for_others(&full.to_string()));
        }
        std::future::pending().await
    };
    tokio::select! {
        admitted = waiting => admitted.map_err(SandboxError::AllAtWork),
        never = told => never,
    }
}

/// Waits until the first in the queue may run.
async fn admit_first(shared: &Arc<Shared>, room: &Arc<Room>, deadline: Instant) -> Result<(), Full> {
    loop {
        let freed = shared.freed.notified(); // from here on no place that becomes free is missed
        let Err(full) = try_admit(shared, room) else { return Ok(()) };
        let missing = if let Full::Memory(short) = full { short.missing } else { 0 };
        if stop_least_used(shared, Some(room), missing).await {
            continue;
        }
        shared.queue.why.send_replace(Some(full));
        if Instant::now() >= deadline {
            return Err(full);
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
                let stopping = async {
                    if stop_if(&shared, &room, idle, Work::Background).await {
                        tracing::info!("stopped an idle sandbox");
                    }
                };
                stopping.instrument(room.address.span()).await;
            }
        }
    }
}

/// Stops idle sandboxes when all together use more than they may: they grow while nobody starts.
pub(super) async fn hold_memory(shared: Arc<Shared>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        while let Err(short) = look(&shared, 0, None) {
            if !stop_least_used(&shared, None, short.missing).await {
                break;
            }
        }
    }
}

fn try_admit(shared: &Shared, room: &Arc<Room>) -> Result<(), Full> {
    let running = shared.all().iter().filter(|room| room.is_running()).count();
    if running >= shared.options.max_running {
        return Err(Full::Number(shared.options.max_running));
    }
    let expected = shared.memory.expected(shared.options.memory);
    look(shared, expected, Some(room)).map_err(Full::Memory)?;
    room.memory_used.store(expected, Ordering::SeqCst);
    room.set_running(true);
    Ok(())
}

/// Looks whether `more` memory fits beside what all but `wanting` use.
fn look(shared: &Shared, more: u64, wanting: Option<&Arc<Room>>) -> Result<(), Short> {
    let running = running(shared, wanting);
    if running.is_empty() {
        return Ok(());
    }
    shared.memory.look(&running);
    shared.memory.room_for(more, &running)
}

fn running(shared: &Shared, but: Option<&Arc<Room>>) -> Vec<Arc<Room>> {
    let counts = |room: &Arc<Room>| room.is_running() && but.is_none_or(|but| !Arc::ptr_eq(room, but));
    shared.all().into_iter().filter(counts).collect()
}

/// Stops the one that was used least recently and is not at work. `false`: there is none, or all that could be stopped
/// would not free the memory that is `missing`, so that their rooms would wait too and nobody be helped.
async fn stop_least_used(shared: &Arc<Shared>, wanting: Option<&Arc<Room>>, missing: u64) -> bool {
    let mut spare: Vec<_> =
        running(shared, wanting).into_iter().filter(|room| room.idle() >= GRACE && !room.is_held()).collect();
    spare.sort_by_key(|room| std::cmp::Reverse(room.idle()));
    let used = |room: &Room| room.memory_used.load(Ordering::SeqCst);
    let mut freed: u64 = spare.iter().map(|room| used(room)).sum();
    for room in spare {
        if freed < missing {
            return false;
        }
        freed -= used(&room);
        let stopping = async {
            let stopped = stop_if(shared, &room, GRACE, Work::None).await;
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
            tracing::warn!(%error, "a sandbox cannot be stopped");
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
