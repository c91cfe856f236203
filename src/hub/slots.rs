//! How many turns run at the same time, over all rooms: whoever comes first begins first.
//!
//! Pure waiting; knows no turn. An actor takes a [`Place`] for each turn and gives it back by dropping it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// All places. Cheap to clone.
#[derive(Clone)]
pub(super) struct Slots {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Changes whenever somebody's number may have changed.
    moved: watch::Sender<()>,
}

struct State {
    limit: usize,
    running: usize,
    /// Counts those who came, to tell them apart.
    next: u64,
    waiting: VecDeque<u64>,
}

/// A place among those who run, or in the queue for one.
pub(super) struct Place {
    shared: Arc<Shared>,
    moved: watch::Receiver<()>,
    id: u64,
    runs: bool,
}

impl Slots {
    /// Returns `limit` free places.
    pub(super) fn new(limit: usize) -> Self {
        let state = State { limit, running: 0, next: 0, waiting: VecDeque::new() };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), moved: watch::Sender::new(()) }) }
    }

    /// Joins the end of the queue.
    pub(super) fn enter(&self) -> Place {
        let mut state = self.shared.state();
        let id = state.next;
        state.next += 1;
        state.waiting.push_back(id);
        Place { shared: Arc::clone(&self.shared), moved: self.shared.moved.subscribe(), id, runs: false }
    }
}

impl Place {
    /// Takes a free place, if it is this one's turn: `None`. Else returns how many wait before it.
    pub(super) fn before(&mut self) -> Option<usize> {
        if self.runs {
            return None;
        }
        self.moved.borrow_and_update();
        {
            let mut state = self.shared.state();
            // Whoever waits is in the queue.
            let before = state.waiting.iter().position(|id| *id == self.id)?;
            if before >= state.limit.saturating_sub(state.running) {
                return Some(before);
            }
            state.waiting.remove(before);
            state.running += 1;
        }
        self.runs = true;
        self.shared.moved.send_replace(());
        None
    }

    /// Waits until [`Place::before`] may say something else.
    pub(super) async fn moved(&mut self) {
        // The sender lives as long as this.
        let _ = self.moved.changed().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state();
            if self.runs {
                state.running -= 1;
            } else {
                state.waiting.retain(|id| *id != self.id);
            }
        }
        self.shared.moved.send_replace(());
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_came_first_begins_first() {
        let slots = Slots::new(2);
        let mut places: Vec<Place> = (0..5).map(|_| slots.enter()).collect();
        let ahead = |places: &mut Vec<Place>| places.iter_mut().map(Place::before).collect::<Vec<_>>();
        assert_eq!(ahead(&mut places), [None, None, Some(0), Some(1), Some(2)]);
        drop(places.remove(3));
        assert_eq!(ahead(&mut places), [None, None, Some(0), Some(1)], "one who goes away lets the others up");
        drop(places.remove(0));
        assert_eq!(places[2].before(), Some(1), "the last one does not overtake");
        assert_eq!(places[1].before(), None);
        assert_eq!(places[2].before(), Some(0));
    }

    #[tokio::test]
    async fn who_waits_is_told_when_a_place_is_free() {
        let slots = Slots::new(1);
        let (mut first, mut second) = (slots.enter(), slots.enter());
        assert_eq!((first.before(), second.before()), (None, Some(0)));
        let freed = tokio::spawn(async move {
            second.moved().await;
            second.before()
        });
        drop(first);
        assert_eq!(freed.await.unwrap(), None);
    }
}
