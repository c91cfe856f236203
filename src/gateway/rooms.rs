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

/// So many lines of the log a room may fill in each [`WINDOW`], with what it was refused and with what it was granted:
/// apt alone asks for hundreds of files.
const DENIED_LINES: u32 = 60;
const ALLOWED_LINES: u32 = 1000;
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
    /// When the current window began, and how many decisions of each kind fell in it.
    window: Instant,
    denied: u32,
    allowed: u32,
}

/// One connection's place. Dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    /// Permits for name lookups, of which each is held until the system's resolver has really ended.
    pub(super) lookups: Arc<Semaphore>,
    _overall: tokio::sync::OwnedSemaphorePermit,
    _room: tokio::sync::OwnedSemaphorePermit,
}

/// How loudly a decision is to be logged.
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

    /// Counts a decision. A sandbox in a loop must not fill the operator's disk.
    pub(super) fn count(&self, room: &RoomKey, allowed: bool) -> Loudness {
        let mut rooms = self.lock();
        let room = self.room(&mut rooms, room);
        if room.window.elapsed() >= WINDOW {
            room.window = Instant::now();
            (room.denied, room.allowed) = (0, 0);
        }
        let (count, lines) =
            if allowed { (&mut room.allowed, ALLOWED_LINES) } else { (&mut room.denied, DENIED_LINES) };
        *count = count.saturating_add(1);
        match (*count).cmp(&lines) {
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
            denied: 0,
            allowed: 0,
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
    async fn decisions_grow_quiet_until_the_next_window() {
        let rooms = Rooms::new(1, 1, 1);
        let room = RoomKey::from("a");
        for _ in 1..DENIED_LINES {
            assert_eq!(rooms.count(&room, false), Loudness::Line);
        }
        assert_eq!(rooms.count(&room, false), Loudness::LastLine);
        assert_eq!(rooms.count(&room, false), Loudness::Quiet);
        assert_eq!(rooms.count(&room, true), Loudness::Line);
        assert_eq!(rooms.count(&RoomKey::from("b"), false), Loudness::Line);
        tokio::time::advance(WINDOW).await;
        assert_eq!(rooms.count(&room, false), Loudness::Line);
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
