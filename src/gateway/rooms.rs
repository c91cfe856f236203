//! How many connections and name lookups one account's room may have.
//!
//! It must not know what goes over the connections. Called by `Gateway::serve` and by `web`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

use super::{hosts::Host, waiting::Waiting};
use crate::ids::Address;

/// When so many rooms are remembered, those without connections are forgotten.
const REMEMBERED: usize = 256;

/// Refused hosts that are remembered of a room.
const REFUSED: usize = 32;

/// Requests of a room's `gh` in an hour: GitHub takes 5000 with a key, which the server needs for its own.
pub(super) const READS_AN_HOUR: u32 = 600;
const HOUR: Duration = Duration::from_hours(1);

/// The bounds of all rooms.
#[derive(Debug)]
pub(super) struct Rooms {
    per_room: usize,
    lookups: usize,
    overall: Arc<Semaphore>,
    known: Mutex<HashMap<Address, Room>>,
}

#[derive(Debug)]
struct Room {
    connections: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    pushes: Arc<Semaphore>,
    refused: RefusedHosts,
    waiting: Waiting,
    reads: Reads,
}

/// Hosts that a room was refused because they are not allowed, as many as are remembered. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct RefusedHosts(Arc<Mutex<BTreeSet<String>>>);

impl RefusedHosts {
    pub(super) fn note(&self, host: &Host) {
        let mut hosts = self.lock();
        if hosts.len() < REFUSED {
            hosts.insert(host.to_string());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often a room's `gh` may still ask GitHub in this hour. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads(Arc<Mutex<Option<(Instant, u32)>>>);

impl Reads {
    /// Counts a request; `false`: it is one too many.
    pub(super) fn count(&self) -> bool {
        let mut hour = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = hour.filter(|(since, _)| since.elapsed() < HOUR).unwrap_or((Instant::now(), 0));
        *hour = Some((since, (count + 1).min(READS_AN_HOUR + 1)));
        count < READS_AN_HOUR
    }

    /// Whether there is anything to remember.
    fn is_used(&self) -> bool {
        let hour = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hour.is_some_and(|(since, _)| since.elapsed() < HOUR)
    }
}

/// The right to one connection, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    /// Permits for name lookups. Each is held until the system's resolver has really ended.
    pub(super) lookups: Arc<Semaphore>,
    /// The permit for a push that is held in memory.
    pub(super) pushes: Arc<Semaphore>,
    /// Takes the hosts that the room is refused.
    pub(super) refused: RefusedHosts,
    /// What the room is being asked.
    pub(super) waiting: Waiting,
    /// Counts what `gh` asks.
    pub(super) reads: Reads,
    _overall: tokio::sync::OwnedSemaphorePermit,
    _room: tokio::sync::OwnedSemaphorePermit,
}

impl Rooms {
    pub(super) fn new(per_room: usize, overall: usize, lookups: usize) -> Self {
        let overall = Arc::new(Semaphore::new(overall));
        Self { per_room, lookups, overall, known: Mutex::default() }
    }

    /// Takes a slot for a connection of the room; `None` if all are taken.
    pub(super) fn enter(&self, address: &Address) -> Option<Slot> {
        let mut rooms = self.lock();
        let room = self.room(&mut rooms, address);
        let own = Arc::clone(&room.connections).try_acquire_owned().ok()?;
        let overall = Arc::clone(&self.overall).try_acquire_owned().ok()?;
        let (lookups, pushes) = (Arc::clone(&room.lookups), Arc::clone(&room.pushes));
        let (refused, waiting, reads) = (room.refused.clone(), room.waiting.clone(), room.reads.clone());
        Some(Slot { lookups, pushes, waiting, refused, reads, _overall: overall, _room: own })
    }

    /// Returns the hosts that the room was refused, in the order of their names. A room that was idle for long has none.
    pub(super) fn refused_hosts(&self, address: &Address) -> Vec<String> {
        let rooms = self.lock();
        rooms.get(address).map(|room| room.refused.lock().iter().cloned().collect()).unwrap_or_default()
    }

    fn room<'a>(&self, rooms: &'a mut HashMap<Address, Room>, address: &Address) -> &'a mut Room {
        if rooms.len() >= REMEMBERED && !rooms.contains_key(address) {
            rooms.retain(|_, room| {
                room.connections.available_permits() < self.per_room
                    || room.lookups.available_permits() < self.lookups
                    || room.reads.is_used()
            });
        }
        rooms.entry(address.clone()).or_insert_with(|| Room {
            connections: Arc::new(Semaphore::new(self.per_room)),
            lookups: Arc::new(Semaphore::new(self.lookups)),
            pushes: Arc::new(Semaphore::new(1)),
            refused: RefusedHosts::default(),
            waiting: Waiting::default(),
            reads: Reads::default(),
        })
    }

    /// Nothing panics while the lock is held, so the counts behind a poisoned lock are right.
    fn lock(&self) -> MutexGuard<'_, HashMap<Address, Room>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_bounded_by_room_and_overall_and_come_back() {
        let rooms = Rooms::new(2, 3, 1);
        let (a, b) = (Address::of_first("a"), Address::of_first("b"));
        let first = rooms.enter(&a).unwrap();
        let _second = rooms.enter(&a).unwrap();
        assert!(rooms.enter(&a).is_none(), "the room is full");
        let _third = rooms.enter(&b).unwrap();
        assert!(rooms.enter(&b).is_none(), "the house is full");
        drop(first);
        assert!(rooms.enter(&b).is_some(), "a slot came back");
    }

    #[test]
    fn an_account_takes_no_slot_of_another_in_the_same_room() {
        let rooms = Rooms::new(1, 3, 1);
        let coder = Address::of_first("!r:x");
        let talk = Address { account: "talk".into(), ..coder.clone() };
        let ours = rooms.enter(&coder).unwrap();
        let theirs = rooms.enter(&talk).unwrap();
        assert!(rooms.enter(&coder).is_none() && rooms.enter(&talk).is_none(), "each has had its one");
        let _lookup = Arc::clone(&ours.lookups).try_acquire_owned().unwrap();
        assert_eq!((ours.lookups.available_permits(), theirs.lookups.available_permits()), (0, 1));
    }

    #[test]
    fn refused_hosts_are_remembered_each_once_and_not_without_end() {
        let rooms = Rooms::new(1, 3, 1);
        let room = Address::of_first("a");
        let slot = rooms.enter(&room).unwrap();
        for number in (0..REFUSED * 2).chain([0, 1]) {
            slot.refused.note(&Host::Name(format!("h{number:02}.org")));
        }
        let hosts = rooms.refused_hosts(&room);
        assert_eq!((hosts.len(), hosts[0].as_str()), (REFUSED, "h00.org"));
        assert!(rooms.refused_hosts(&Address::of_first("b")).is_empty());
    }

    #[test]
    fn idle_rooms_are_forgotten() {
        let rooms = Rooms::new(1, 1000, 1);
        let kept = rooms.enter(&Address::of_first("busy")).unwrap();
        for number in 0..REMEMBERED - 1 {
            drop(rooms.enter(&Address::of_first(format!("{number}"))));
        }
        drop(rooms.enter(&Address::of_first("new")));
        assert_eq!(rooms.lock().len(), 2);
        assert!(rooms.enter(&Address::of_first("busy")).is_none(), "its slot is still taken");
        drop(kept);
    }
}
