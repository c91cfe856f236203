//! What one room may take of the gateway: connections, lookups and lines in the log.
//!
//! It must not know what goes over the connections. Called by `Gateway::serve` and by `web`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

use crate::ids::RoomKey;

/// A room may fill so many lines of the log with denials in each [`WINDOW`].
const DENIAL_LINES: u32 = 60;
const WINDOW: Duration = Duration::from_mins(1);

/// When so many rooms are remembered, the idle ones are forgotten.
const REMEMBERED: usize = 256;

/// The bounds for all rooms.
#[derive(Debug)]
pub(super) struct Rooms {
    per_room: usize,
    lookups: usize,
    overall: Arc<Semaphore>,
    known: Mutex<HashMap<RoomKey, Room>>,
}

#[derive(Debug)]
struct Room {
    connections: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    /// When the current window of denials began, and how many were met in it.
    window: Instant,
    denials: u32,
}

/// One connection's place. Dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    /// Permits for name lookups, of which each is held until the system's resolver has really ended.
    pub(super) lookups: Arc<Semaphore>,
    _overall: tokio::sync::OwnedSemaphorePermit,
    _room: tokio::sync::OwnedSemaphorePermit,
}

/// How loudly a denial is to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loudness {
    Line,
    /// The last line of the window: it says that more are left out.
    LastLine,
    Quiet,
}

impl Rooms {
    pub(super) fn new(per_room: usize, overall: usize, lookups: usize) -> Self {
        let overall = Arc::new(Semaphore::new(overall));
        Self { per_room, lookups, overall, known: Mutex::default() }
    }

    /// Takes a place for a connection of `room`, if there is one.
    pub(super) fn enter(&self, room: &RoomKey) -> Option<Place> {
        let mut rooms = self.lock();
        let room = self.room(&mut rooms, room);
        let own = Arc::clone(&room.connections).try_acquire_owned().ok()?;
        let overall = Arc::clone(&self.overall).try_acquire_owned().ok()?;
        Some(Place { lookups: Arc::clone(&room.lookups), _overall: overall, _room: own })
    }

    /// Counts a denial. A sandbox in a loop must not fill the operator's disk.
    pub(super) fn count_denial(&self, room: &RoomKey) -> Loudness {
        let mut rooms = self.lock();
        let room = self.room(&mut rooms, room);
        if room.window.elapsed() >= WINDOW {
            room.window = Instant::now();
            room.denials = 0;
        }
        room.denials = room.denials.saturating_add(1);
        match room.denials.cmp(&DENIAL_LINES) {
            std::cmp::Ordering::Less => Loudness::Line,
            std::cmp::Ordering::Equal => Loudness::LastLine,
            std::cmp::Ordering::Greater => Loudness::Quiet,
        }
    }

    fn room<'a>(&self, rooms: &'a mut HashMap<RoomKey, Room>, room: &RoomKey) -> &'a mut Room {
        if rooms.len() >= REMEMBERED && !rooms.contains_key(room) {
            rooms.retain(|_, room| {
                room.connections.available_permits() < self.per_room
                    || room.lookups.available_permits() < self.lookups
                    || room.window.elapsed() < WINDOW
            });
        }
        rooms.entry(room.clone()).or_insert_with(|| Room {
            connections: Arc::new(Semaphore::new(self.per_room)),
            lookups: Arc::new(Semaphore::new(self.lookups)),
            window: Instant::now(),
            denials: 0,
        })
    }

    /// Nothing in here can panic half-way, so a poisoned lock holds sound counts.
    fn lock(&self) -> MutexGuard<'_, HashMap<RoomKey, Room>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_by_room_and_overall_and_come_back() {
        let rooms = Rooms::new(2, 3, 1);
        let (a, b) = (RoomKey::from("a"), RoomKey::from("b"));
        let first = rooms.enter(&a).unwrap();
        let _second = rooms.enter(&a).unwrap();
        assert!(rooms.enter(&a).is_none(), "the room is full");
        let _third = rooms.enter(&b).unwrap();
        assert!(rooms.enter(&b).is_none(), "the house is full");
        drop(first);
        assert!(rooms.enter(&b).is_some(), "a place came back");
    }

    #[tokio::test(start_paused = true)]
    async fn denials_grow_quiet_until_the_next_window() {
        let rooms = Rooms::new(1, 1, 1);
        let room = RoomKey::from("a");
        for _ in 1..DENIAL_LINES {
            assert_eq!(rooms.count_denial(&room), Loudness::Line);
        }
        assert_eq!(rooms.count_denial(&room), Loudness::LastLine);
        assert_eq!(rooms.count_denial(&room), Loudness::Quiet);
        assert_eq!(rooms.count_denial(&RoomKey::from("b")), Loudness::Line);
        tokio::time::advance(WINDOW).await;
        assert_eq!(rooms.count_denial(&room), Loudness::Line);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_rooms_are_forgotten() {
        let rooms = Rooms::new(1, 1000, 1);
        let kept = rooms.enter(&RoomKey::from("busy")).unwrap();
        for number in 0..REMEMBERED - 1 {
            drop(rooms.enter(&RoomKey::from(format!("{number}"))));
        }
        tokio::time::advance(WINDOW).await;
        drop(rooms.enter(&RoomKey::from("new")));
        assert_eq!(rooms.lock().len(), 2);
        assert!(rooms.enter(&RoomKey::from("busy")).is_none(), "its place is still taken");
        drop(kept);
    }
}
