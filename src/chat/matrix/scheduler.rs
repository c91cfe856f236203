//! The send scheduler, one for each account: who may send now, since homeservers limit accounts, not rooms.
//!
//! Answers go first, then greetings, then reactions; within a class, first come, first served. A room has one of
//! these in flight at a time, so that they arrive in order. Progress comes last: of each message only the newest
//! state is kept, the message that was edited longest ago goes first, and [`pace`](super::pace) says when. A refusal
//! (429) pauses everything; the refused send is the next one of its class.
//!
//! An edit of progress does not count as its room's send in flight, so an answer does not wait for it; it does wait
//! for the first state, which makes the message. Progress never takes all places in flight.
//!
//! Knows Matrix only by its limits. Used by whatever in the Matrix adapter sends into a room. A send runs in the
//! caller's task and must end by itself, so its request needs a time limit.

mod queues;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{Notify, oneshot},
    time::{self, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::queues::{InFlight, Next, Queues};
use crate::{ids::RoomKey, metrics};

/// The classes of sends, by priority. Progress has [`Scheduler::progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// What must reach the room: answers, replies, files, and the end of a progress message.
    Answer,
    /// Messages that answer nobody: greetings, notices.
    Greeting,
    /// Reactions.
    Reaction,
}

/// Why an attempt to send failed.
#[derive(Debug)]
pub(super) enum Failed<E> {
    /// The homeserver refused it for its rate and asks to wait this long. Nothing was sent; the scheduler tries
    /// again.
    Limited(Duration),
    /// Another error, which goes to the caller.
    Other(E),
}

/// Why something was not sent, for the caller.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsent<E> {
    /// The scheduler ended before the send could start.
    #[error("the program ends")]
    Ended,
    /// The send failed.
    #[error(transparent)]
    Failed(E),
}

/// Sends a state of a progress message; returns the pause if the homeserver asks for one.
type Attempt = Box<dyn Fn() -> BoxFuture<'static, Option<Duration>> + Send>;

/// Schedules an account's sends. Cheap to clone.
#[derive(Clone)]
pub(super) struct Scheduler {
    shared: Arc<SchedulerInner>,
}

struct SchedulerInner {
    queues: Mutex<Queues<Pass, Attempt>>,
    /// Notified when something may be sent that could not be before.
    wake: Notify,
}

/// The right to send one thing; when it is dropped, its place is free again.
struct Pass {
    shared: Arc<SchedulerInner>,
    sending: InFlight,
}

impl Scheduler {
    /// Starts the scheduler of an account, with its tasks in `tasks`. It ends with `cancel`.
    pub(super) fn start(tasks: &TaskTracker, cancel: CancellationToken) -> Self {
        let queues = Mutex::new(Queues::new(Instant::now()));
        let shared = Arc::new(SchedulerInner { queues, wake: Notify::new() });
        tasks.spawn(run(shared.clone(), tasks.clone(), cancel));
        Self { shared }
    }

    /// Waits until it may send, and returns the result of `send`. After a 429 it waits and calls `send` again, which
    /// must use the same transaction id. Nothing is sent if this is dropped while it waits.
    pub(super) async fn send<T, E, F, Fut>(&self, class: Class, room: &RoomKey, mut send: F) -> Result<T, Unsent<E>>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, Failed<E>>>,
    {
        let mut turn = self.shared.wait(class, room, false);
        loop {
            let pass = turn.await.map_err(|_| Unsent::Ended)?;
            let pause = match send().await {
                Ok(sent) => {
                    pass.taken();
                    return Ok(sent);
                }
                Err(Failed::Other(error)) => {
                    pass.taken();
                    return Err(Unsent::Failed(error));
                }
                Err(Failed::Limited(pause)) => pause,
            };
            // Queued in front before the room is free for another send.
            turn = self.shared.wait(class, room, true);
            pass.limited(pause, None);
        }
    }

    /// Queues the newest state of the progress message `key`, replacing one that is queued. Never waits. The state is
    /// dropped if the message was settled, has had all its edits, or the program ends; failures are not reported.
    pub(super) fn progress<E, F, Fut>(&self, room: &RoomKey, key: &str, send: F)
    where
        F: Fn() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Failed<E>>> + Send + 'static,
    {
        let attempt: Attempt = Box::new(move || {
            let sending = send();
            Box::pin(async move {
                match sending.await {
                    Err(Failed::Limited(pause)) => Some(pause),
                    Ok(()) | Err(Failed::Other(_)) => None,
                }
            })
        });
        let replaced = self.shared.queues().queue((room.clone(), key.to_owned()), attempt, Instant::now());
        self.shared.wake.notify_one();
        if replaced.is_some() {
            metrics::edit_held_back();
        }
        // Foreign code in a dropped state is run here, where no lock is held; so everywhere below.
        drop(replaced);
    }

    /// Makes sure that no state of the progress message `key` is sent any more, and waits for one in flight: the
    /// caller sends its final text next.
    pub(super) async fn settle(&self, room: &RoomKey, key: &str) {
        let (dropped, in_flight) = self.shared.queues().settle((room.clone(), key.to_owned()));
        drop(dropped);
        if let Some(in_flight) = in_flight {
            // Nothing is ever sent on this channel; the caller is woken when the sender is dropped.
            let _ = in_flight.await;
        }
    }
}

/// Lets sends start until `cancel`.
async fn run(shared: Arc<SchedulerInner>, tasks: TaskTracker, cancel: CancellationToken) {
    let pass = |sending| Pass { shared: shared.clone(), sending };
    while !cancel.is_cancelled() {
        let next = shared.queues().next(Instant::now());
        let until = match next {
            Next::Caller(go, sending) => {
                // If the caller is gone, the pass is dropped here and its place is free again.
                let _ = go.send(pass(sending));
                continue;
            }
            Next::Progress(attempt, sending) => {
                let (pass, cancel) = (pass(sending), cancel.clone());
                tasks.spawn(async move {
                    match cancel.run_until_cancelled(attempt()).await {
                        Some(Some(pause)) => pass.limited(pause, Some(attempt)),
                        Some(None) => pass.taken(),
                        None => {}
                    }
                });
                continue;
            }
            Next::Nothing(until) => until,
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = shared.wake.notified() => {}
            () = time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
        }
    }
    let dropped = shared.queues().end();
    drop(dropped);
}

impl SchedulerInner {
    fn queues(&self) -> MutexGuard<'_, Queues<Pass, Attempt>> {
        // Nothing that can panic is called while the lock is held.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, class: Class, room: &RoomKey, first: bool) -> oneshot::Receiver<Pass> {
        let turn = self.queues().wait(class, room, first);
        self.wake.notify_one();
        turn
    }
}

impl Pass {
    /// Notes that the send ended and was not refused for its rate.
    fn taken(self) {
        self.shared.queues().taken(&self.sending, Instant::now());
    }

    /// Notes that the send was refused for its rate; `again` is the state of progress to try again.
    fn limited(self, pause: Duration, again: Option<Attempt>) {
        metrics::send_refused();
        let dropped = self.shared.queues().limited(&self.sending, pause, again, Instant::now());
        drop(dropped);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.shared.queues().free(&self.sending);
        self.shared.wake.notify_one();
    }
}
