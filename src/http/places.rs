//! The places for connections. Whoever sends slowly loses theirs to the next that comes, so that nobody keeps others out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// As many places as there are.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    taken: Mutex<Taken>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// By number, so that the oldest is first.
    all: BTreeMap<u64, Holder>,
}

#[derive(Debug)]
struct Holder {
    lost: CancellationToken,
    /// Whether a whole request is being answered.
    answered: bool,
}

/// A connection's place, until it is dropped or lost.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    lost: CancellationToken,
}

/// A request of the connection is being answered, as long as this lives; the place is not lost meanwhile.
#[derive(Debug)]
pub(super) struct Answering<'a>(&'a Place);

impl Places {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default(), changed: Notify::new() })
    }

    /// Takes a place for a connection that has just come. If none is free, whoever has held one longest without a whole request
    /// loses it; while all of them are answered, this waits.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        loop {
            let changed = self.changed.notified();
            if let Some(place) = self.try_take() {
                return place;
            }
            changed.await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<Place> {
        let mut taken = self.lock();
        if taken.all.len() >= self.most {
            let number = *taken.all.iter().find(|(_, holder)| !holder.answered)?.0;
            taken.all.remove(&number)?.lost.cancel();
        }
        let (number, lost) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.all.insert(number, Holder { lost: lost.clone(), answered: false });
        Some(Place { places: Arc::clone(self), number, lost })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Returns once the place is another connection's.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Notes that a request is being answered, which came whole.
    pub(super) fn answering(&self) -> Answering<'_> {
        self.set(true);
        Answering(self)
    }

    fn set(&self, answered: bool) {
        if let Some(holder) = self.places.lock().all.get_mut(&self.number) {
            holder.answered = answered;
        }
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.set(false);
        // One place alone has changed.
        self.0.places.changed.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().all.remove(&self.number);
        self.places.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_oldest_that_is_not_answered_gives_way() {
        let places = Places::new(3);
        let take = || places.take().now_or_never();
        let [first, second, third] = [(); 3].map(|()| take().expect("a free place"));
        let answering = first.answering();
        let fourth = take().expect("the second one's");
        let is_lost = |place: &Place| place.lost().now_or_never().is_some();
        assert_eq!([&first, &second, &third, &fourth].map(is_lost), [false, true, false, false]);
        let all = [&third, &fourth].map(Place::answering);
        assert!(take().is_none(), "all are answered");
        drop(second);
        assert!(take().is_none(), "what was lost frees nothing");
        drop(answering);
        assert!(take().is_some() && is_lost(&first), "it is answered no more");
        drop(all);
        drop((third, fourth));
        assert!(take().is_some_and(|place| !is_lost(&place)));
    }
}
