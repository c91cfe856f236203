//! Permits bound how many turns run at the same time, over all rooms: first come, first served.
//!
//! Knows no turn. A [`Permit`] is taken for each turn and given back when it is dropped.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// A bot's permits. Cheap to clone.
#[derive(Clone)]
pub struct Permits {
    queue: Arc<Queue>,
}

struct Queue {
    state: Mutex<Taken>,
    /// Changes whenever the place of somebody in the queue may have changed.
    moved: watch::Sender<()>,
}

struct Taken {
    limit: usize,
    /// Whether none is given out now.
    held: bool,
    running: usize,
    /// The id of the next permit.
    next: u64,
    waiting: VecDeque<u64>,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePlace {
    /// How many wait before it.
    pub before: usize,
    /// Whether no permit is given out now.
    pub held: bool,
}

/// A permit, or a place in the queue for one.
pub struct Permit {
    queue: Arc<Queue>,
    moved: watch::Receiver<()>,
    id: u64,
    runs: bool,
}

impl Permits {
    /// Returns `limit` permits.
    pub fn new(limit: usize) -> Self {
        let state = Taken { limit, held: false, running: 0, next: 0, waiting: VecDeque::new() };
        Self { queue: Arc::new(Queue { state: Mutex::new(state), moved: watch::Sender::new(()) }) }
    }

    /// Gives none out from now on, or again. Those that are taken stay.
    pub(crate) fn hold(&self, held: bool) {
        self.queue.state().held = held;
        self.queue.moved.send_replace(());
    }

    /// Joins the queue at its end.
    pub fn enter(&self) -> Permit {
        let mut state = self.queue.state();
        let id = state.next;
        state.next += 1;
        state.waiting.push_back(id);
        Permit { queue: Arc::clone(&self.queue), moved: self.queue.moved.subscribe(), id, runs: false }
    }
}

impl Permit {
    /// Takes the permit if one is free and nobody waits before; then returns `None`, otherwise its place.
    pub fn place(&mut self) -> Option<QueuePlace> {
        if self.runs {
            return None;
        }
        self.moved.borrow_and_update();
        {
            let mut state = self.queue.state();
            // A permit that is not taken yet is in the queue.
            let before = state.waiting.iter().position(|id| *id == self.id)?;
            if state.held || before >= state.limit.saturating_sub(state.running) {
                return Some(QueuePlace { before, held: state.held });
            }
            state.waiting.remove(before);
            state.running += 1;
        }
        self.runs = true;
        self.queue.moved.send_replace(());
        None
    }

    /// Waits until [`Permit::place`] may return something else.
    pub async fn moved(&mut self) {
        // The sender cannot be gone: this permit keeps it alive.
        let _ = self.moved.changed().await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        {
            let mut state = self.queue.state();
            if self.runs {
                state.running -= 1;
            } else {
                state.waiting.retain(|id| *id != self.id);
            }
        }
        self.queue.moved.send_replace(());
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, Taken> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(permit: &mut Permit) -> Option<usize> {
        permit.place().map(|place| place.before)
    }

    #[test]
    fn whoever_came_first_begins_first() {
        let all = Permits::new(2);
        let mut places: Vec<Permit> = (0..5).map(|_| all.enter()).collect();
        let ahead = |places: &mut Vec<Permit>| places.iter_mut().map(before).collect::<Vec<_>>();
        assert_eq!(ahead(&mut places), [None, None, Some(0), Some(1), Some(2)]);
        drop(places.remove(3));
        assert_eq!(ahead(&mut places), [None, None, Some(0), Some(1)], "one who goes away lets the others up");
        drop(places.remove(0));
        assert_eq!(before(&mut places[2]), Some(1), "the last one does not overtake");
        assert_eq!(places[1].place(), None);
        assert_eq!(before(&mut places[2]), Some(0));
    }

    #[test]
    fn none_is_given_out_while_they_are_held() {
        let all = Permits::new(2);
        let (mut first, mut second) = (all.enter(), all.enter());
        assert_eq!(first.place(), None);
        assert_eq!(second.place(), None);
        let mut third = all.enter();
        assert_eq!(third.place(), Some(QueuePlace { before: 0, held: false }));
        all.hold(true);
        drop(first);
        assert_eq!((second.place(), third.place()), (None, Some(QueuePlace { before: 0, held: true })));
        all.hold(false);
        assert_eq!(third.place(), None);
    }

    #[tokio::test]
    async fn who_waits_is_told_when_a_place_is_free() {
        let all = Permits::new(1);
        let (mut first, mut second) = (all.enter(), all.enter());
        assert_eq!((first.place(), before(&mut second)), (None, Some(0)));
        let freed = tokio::spawn(async move {
            second.moved().await;
            second.place()
        });
        drop(first);
        assert_eq!(freed.await.unwrap(), None);
    }
}
