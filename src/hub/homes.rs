//! Whose sandbox and conversation a room uses: its own, or after an upgrade those of the room before it.
//!
//! Everything inside the hub and below it uses the *home*: the room in which a conversation began. Here, at the hub's
//! edge, rooms are translated: inwards to the home, outwards to the room in which people are now. This holds state
//! only; the store keeps it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{ids::RoomKey, store::Alias};

/// Maps rooms to homes, and homes to rooms.
#[derive(Debug, Default)]
pub(super) struct Homes {
    maps: Mutex<Maps>,
    encrypted: Encrypted,
}

/// The rooms and homes that were encrypted once, as any account saw them. The accounts share the set because a
/// homeserver may tell each of them something else. Clones share one set.
#[derive(Clone, Debug, Default)]
pub(super) struct Encrypted {
    rooms: Arc<Mutex<HashSet<RoomKey>>>,
}

impl Encrypted {
    pub(super) fn load(rooms: Vec<RoomKey>) -> Self {
        Self { rooms: Arc::new(Mutex::new(rooms.into_iter().collect())) }
    }

    fn rooms<T>(&self, work: impl FnOnce(&mut HashSet<RoomKey>) -> T) -> T {
        work(&mut self.rooms.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug, Default)]
struct Maps {
    /// Room to home; a room that is its own home is not in it.
    homes: HashMap<RoomKey, RoomKey>,
    /// Home to the newest room that uses it.
    current: HashMap<RoomKey, RoomKey>,
    /// Rooms that claimed to follow another room and were refused.
    refused: HashSet<RoomKey>,
}

impl Homes {
    /// Builds the maps from the stored aliases, which come oldest first.
    pub(super) fn load(aliases: Vec<Alias>, encrypted: Encrypted) -> Self {
        let homes = Self { encrypted, ..Self::default() };
        for alias in aliases {
            homes.set(&alias.room, &alias.home);
        }
        homes
    }

    /// Returns a room's home.
    pub(super) fn home(&self, room: &RoomKey) -> RoomKey {
        self.maps(|maps| maps.homes.get(room).unwrap_or(room).clone())
    }

    /// Returns the room in which the people of a home are.
    pub(super) fn current(&self, home: &RoomKey) -> RoomKey {
        self.maps(|maps| maps.current.get(home).unwrap_or(home).clone())
    }

    /// Returns whether a room, or its home, was encrypted once.
    pub(super) fn is_encrypted(&self, room: &RoomKey) -> bool {
        let home = self.home(room);
        self.encrypted.rooms(|rooms| rooms.contains(room) || rooms.contains(&home))
    }

    /// Marks rooms and homes as encrypted.
    pub(super) fn encrypt(&self, rooms: impl IntoIterator<Item = RoomKey>) {
        self.encrypted.rooms(|noted| noted.extend(rooms));
    }

    /// Notes that a room was refused to follow another one; returns whether that is new.
    pub(super) fn refuse(&self, room: &RoomKey) -> bool {
        self.maps(|maps| maps.refused.insert(room.clone()))
    }

    /// Lets a room use `home` from now on.
    pub(super) fn set(&self, room: &RoomKey, home: &RoomKey) {
        self.maps(|maps| {
            maps.homes.insert(room.clone(), home.clone());
            maps.current.insert(home.clone(), room.clone());
        });
    }

    /// Forgets a home with all rooms that used it.
    pub(super) fn forget(&self, home: &RoomKey) {
        self.maps(|maps| {
            maps.homes.retain(|_, used| used != home);
            maps.current.remove(home);
        });
    }

    fn maps<T>(&self, work: impl FnOnce(&mut Maps) -> T) -> T {
        work(&mut self.maps.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_upgrades_leads_to_the_first_room_and_back_to_the_last() {
        let (a, b, c) = (RoomKey::from("!a"), RoomKey::from("!b"), RoomKey::from("!c"));
        let homes = Homes::default();
        assert_eq!((homes.home(&a), homes.current(&a)), (a.clone(), a.clone()));
        homes.set(&b, &a);
        homes.set(&c, &homes.home(&b));
        assert_eq!((homes.home(&c), homes.home(&b)), (a.clone(), a.clone()));
        assert_eq!(homes.current(&a), c);
        homes.forget(&a);
        assert_eq!((homes.home(&c), homes.current(&a)), (c, a));
    }

    #[test]
    fn what_one_account_has_seen_encrypted_is_encrypted_for_all() {
        let encrypted = Encrypted::default();
        let [one, other] = [(); 2].map(|()| Homes::load(vec![], encrypted.clone()));
        let room = RoomKey::from("!a");
        one.encrypt([room.clone()]);
        assert!(other.is_encrypted(&room));
    }

    #[test]
    fn a_room_is_encrypted_when_its_home_is_and_stays_so() {
        let (a, b, c) = (RoomKey::from("!a"), RoomKey::from("!b"), RoomKey::from("!c"));
        let homes = Homes::load(vec![], Encrypted::load(vec![a.clone()]));
        homes.set(&b, &a);
        assert!(homes.is_encrypted(&a) && homes.is_encrypted(&b) && !homes.is_encrypted(&c));
        homes.encrypt([c.clone()]);
        homes.forget(&a);
        assert!(homes.is_encrypted(&a) && homes.is_encrypted(&c));
    }
}
