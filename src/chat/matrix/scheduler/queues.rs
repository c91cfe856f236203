//! The queues of waiting sends, and which send may start now. A state machine without I/O: the time is passed in.
//! Used by the scheduler alone, under its lock.
//!
//! `P` lets a caller send, `A` sends a state of a progress message. No `A` is dropped here: it holds foreign code,
//! and is returned to be dropped without the lock.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    super::pace::{AccountPace, Edits},
    Class,
};
use crate::ids::RoomKey;

/// The most progress edits in flight. The other places are kept for answers.
const PROGRESS_IN_FLIGHT: usize = 4;
/// A progress message that nobody settles is forgotten after so long without a new state.
const FORGOTTEN: Duration = Duration::from_hours(1);
/// Settled messages that are remembered, in case a state comes late.
const SETTLED: usize = 256;

/// A room's progress message.
type Key = (RoomKey, String);

/// The queues of an account.
pub(super) struct Queues<P, A> {
    account: AccountPace,
    /// The waiting callers, one queue for each [`Class`]. Each entry belongs to a task that awaits it, so the tasks
    /// bound it.
    callers: [VecDeque<Waiting<P>>; 3],
    /// The progress messages whose turns have not ended.
    messages: HashMap<Key, Message<A>>,
    /// The last messages that were settled, oldest first.
    settled: VecDeque<Key>,
    /// The rooms with a send in flight. Nothing else goes to such a room, so that order is kept.
    busy: HashSet<RoomKey>,
    /// Sends in flight, progress included.
    in_flight: usize,
    /// Progress in flight.
    progressing: usize,
    /// Whether the program ends and nothing is let go any more.
    ended: bool,
}

struct Waiting<P> {
    room: RoomKey,
    go: oneshot::Sender<P>,
}

struct Message<A> {
    edits: Edits,
    /// When its last state was sent; before that, when its first one was queued.
    since: Instant,
    /// Its newest state, if that has not been sent yet.
    queued: Option<A>,
    in_flight: bool,
    /// The tasks that wait for the end of the send in flight, after which no further state goes out.
    settling: Vec<oneshot::Sender<()>>,
}

/// A send in flight.
pub(super) struct InFlight {
    /// The room that it keeps busy.
    room: Option<RoomKey>,
    /// The progress message of which it sends a state.
    message: Option<Key>,
    since: Instant,
}

/// What may go now.
pub(super) enum Next<P, A> {
    /// A caller's send.
    Caller(oneshot::Sender<P>, InFlight),
    /// The newest state of a progress message.
    Progress(A, InFlight),
    /// Nothing, before this time or before something is queued or ends.
    Nothing(Option<Instant>),
}

impl<P, A> Queues<P, A> {
    /// Returns the queues of an account in which nothing waits.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            account: AccountPace::new(now),
            callers: [VecDeque::new(), VecDeque::new(), VecDeque::new()],
            messages: HashMap::new(),
            settled: VecDeque::new(),
            busy: HashSet::new(),
            in_flight: 0,
            progressing: 0,
            ended: false,
        }
    }

    /// Puts a caller in its queue, or in front of it. The receiver fails once all has ended.
    pub(super) fn wait(&mut self, class: Class, room: &RoomKey, first: bool) -> oneshot::Receiver<P> {
        let (go, turn) = oneshot::channel();
        if !self.ended {
            let queue = &mut self.callers[class as usize];
            queue.retain(|waiting| !waiting.go.is_closed());
            let waiting = Waiting { room: room.clone(), go };
            if first { queue.push_front(waiting) } else { queue.push_back(waiting) }
        }
        turn
    }

    /// Queues a state of a progress message; returns what is dropped for it.
    pub(super) fn queue(&mut self, key: Key, state: A, now: Instant) -> Option<A> {
        if self.ended || self.settled.contains(&key) {
            return Some(state);
        }
        if !self.messages.contains_key(&key) {
            self.messages.retain(|_, message| {
                message.queued.is_some() || message.in_flight || now.duration_since(message.since) < FORGOTTEN
            });
        }
        let message = self.messages.entry(key).or_insert_with(|| Message {
            edits: Edits::new(now),
            since: now,
            queued: None,
            in_flight: false,
            settling: Vec::new(),
        });
        if message.edits.due().is_none() { Some(state) } else { message.queued.replace(state) }
    }

    /// Forgets a progress message; returns the state that is dropped, and what ends with the one in flight.
    pub(super) fn settle(&mut self, key: Key) -> (Option<A>, Option<oneshot::Receiver<()>>) {
        let (dropped, in_flight) = match self.messages.get_mut(&key) {
            Some(message) if message.in_flight => {
                let (settled, in_flight) = oneshot::channel();
                message.settling.push(settled);
                (message.queued.take(), Some(in_flight))
            }
            _ => (self.messages.remove(&key).and_then(|message| message.queued), None),
        };
        if !self.settled.contains(&key) {
            if self.settled.len() == SETTLED {
                self.settled.pop_front();
            }
            self.settled.push_back(key);
        }
        (dropped, in_flight)
    }

    /// Picks what may go `now`, and counts it as in flight.
    pub(super) fn next(&mut self, now: Instant) -> Next<P, A> {
        if self.in_flight >= self.account.window() {
            return Next::Nothing(None);
        }
        if self.account.open() > now {
            return Next::Nothing(Some(self.account.open()));
        }
        for queue in &mut self.callers {
            let free = |waiting: &Waiting<P>| !waiting.go.is_closed() && !self.busy.contains(&waiting.room);
            if let Some(waiting) = queue.iter().position(free).and_then(|at| queue.remove(at)) {
                return Next::Caller(waiting.go, self.begin(Some(waiting.room), None, now));
            }
        }
        self.next_progress(now)
    }

    /// Picks the progress message that may go `now`: one that is not sent yet, then the one that was edited longest
    /// ago.
    fn next_progress(&mut self, now: Instant) -> Next<P, A> {
        if self.progressing >= PROGRESS_IN_FLIGHT {
            return Next::Nothing(None);
        }
        let ready = self.messages.iter_mut().filter_map(|(key, message)| {
            let waits = message.queued.is_some() && !message.in_flight && !self.busy.contains(&key.0);
            let due = message.edits.due().filter(|_| waits)?.max(self.account.progress()).max(now);
            Some((due, key, message))
        });
        let first = ready.min_by_key(|(due, _, message)| (*due, !message.edits.is_new(), message.since));
        let Some((due, key, message)) = first else { return Next::Nothing(None) };
        if due > now {
            return Next::Nothing(Some(due));
        }
        let Some(state) = message.queued.take() else { return Next::Nothing(None) };
        message.in_flight = true;
        self.progressing += 1;
        let room = message.edits.is_new().then(|| key.0.clone());
        let key = key.clone();
        Next::Progress(state, self.begin(room, Some(key), now))
    }

    fn begin(&mut self, room: Option<RoomKey>, message: Option<Key>, now: Instant) -> InFlight {
        self.in_flight += 1;
        self.account.begun(now);
        self.busy.extend(room.clone());
        InFlight { room, message, since: now }
    }

    /// Notes that a send ended and was not refused for its rate.
    pub(super) fn taken(&mut self, sending: &InFlight, now: Instant) {
        self.account.taken(now.duration_since(sending.since));
        if let Some(message) = sending.message.as_ref().and_then(|key| self.messages.get_mut(key)) {
            message.edits.sent(now);
            message.since = now;
        }
    }

    /// Notes that a send was refused for its rate; `again` is the state to try again. Returns that state if there is
    /// a newer one or none is wanted any more.
    pub(super) fn limited(&mut self, sending: &InFlight, pause: Duration, again: Option<A>, now: Instant) -> Option<A> {
        self.account.limited(now, pause);
        match sending.message.as_ref().and_then(|key| self.messages.get_mut(key)) {
            Some(message) if message.queued.is_none() && message.settling.is_empty() => {
                message.queued = again;
                None
            }
            _ => again,
        }
    }

    /// Notes that a send is no longer in flight.
    pub(super) fn free(&mut self, sending: &InFlight) {
        self.in_flight -= 1;
        if let Some(room) = &sending.room {
            self.busy.remove(room);
        }
        let Some(key) = &sending.message else { return };
        self.progressing -= 1;
        if let Some(message) = self.messages.get_mut(key) {
            message.in_flight = false;
            // Then no state is queued; those who wait are woken by the drop.
            if !message.settling.is_empty() {
                self.messages.remove(key);
            }
        }
    }

    /// Stops all sends; returns what waits, to be dropped.
    pub(super) fn end(&mut self) -> impl Sized + use<P, A> {
        self.ended = true;
        (std::mem::take(&mut self.callers), std::mem::take(&mut self.messages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Plain = Queues<(), u32>;

    fn key(name: &str) -> Key {
        (RoomKey::from("a"), name.to_owned())
    }

    #[test]
    fn nothing_grows_without_bound() {
        let now = Instant::now();
        let mut queues = Plain::new(now);
        // Removes callers that no longer wait.
        (0..100).for_each(|_| drop(queues.wait(Class::Answer, &RoomKey::from("a"), false)));
        assert_eq!(queues.callers[0].len(), 1);
        // Forgets messages whose turns have ended.
        (0..2 * SETTLED).for_each(|n| assert!(queues.settle(key(&n.to_string())).0.is_none()));
        assert_eq!(queues.settled.len(), SETTLED);
        // A message that was never settled is forgotten when another one comes after its last state.
        assert!(queues.queue(key("never settled"), 1, now).is_none());
        let Next::Progress(1, sending) = queues.next(now) else { panic!("it did not go") };
        queues.taken(&sending, now);
        queues.free(&sending);
        queues.queue(key("soon"), 2, now + FORGOTTEN / 2);
        assert_eq!(queues.messages.len(), 2);
        queues.queue(key("later"), 3, now + FORGOTTEN);
        assert!(queues.messages.len() == 2 && !queues.messages.contains_key(&key("never settled")), "what waits stays");
    }

    #[test]
    fn a_message_has_as_many_states_as_its_pace_gives_and_no_more() {
        let mut now = Instant::now();
        let mut queues = Plain::new(now);
        let mut states = 0;
        while queues.queue(key("turn"), states, now).is_none() {
            let mut next = queues.next(now);
            if let Next::Nothing(Some(due)) = next {
                now = due;
                next = queues.next(now);
            }
            let Next::Progress(_, sending) = next else { panic!("it did not go") };
            queues.taken(&sending, now);
            queues.free(&sending);
            states += 1;
        }
        assert_eq!(states, 99);
    }
}
