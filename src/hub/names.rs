//! What people call the rooms of an account, as far as its protocols have told: for those who look on, who know no ids by heart.
//! Nothing is decided by a name, and none is stored.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::AccountHub;
use crate::{ids::RoomKey, text};

/// The most rooms whose names are kept, and the most characters of each.
const ROOMS: usize = 10_000;
const LONGEST: usize = 120;

/// The names by room.
#[derive(Debug, Default)]
pub(super) struct RoomNames {
    names: Mutex<HashMap<RoomKey, String>>,
}

impl RoomNames {
    fn set(&self, room: &RoomKey, name: Option<&str>) {
        let name = name.map(|name| text::one_line(name, LONGEST)).filter(|name| !name.trim().is_empty());
        let mut names = self.names();
        match name {
            Some(name) if names.len() < ROOMS || names.contains_key(room) => drop(names.insert(room.clone(), name)),
            Some(_) => {}
            None => drop(names.remove(room)),
        }
    }

    fn of(&self, room: &RoomKey) -> Option<String> {
        self.names().get(room).cloned()
    }

    fn names(&self) -> MutexGuard<'_, HashMap<RoomKey, String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccountHub {
    /// Notes what people call a room now; `None` if that is not known any more.
    pub fn name_room(&self, room: &RoomKey, name: Option<&str>) {
        self.inner.names.set(room, name);
    }

    /// Returns what people call the room in which those of a home are, if that is known.
    pub(super) fn name_of(&self, home: &RoomKey) -> Option<String> {
        self.inner.names.of(&self.inner.homes.current(home))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_has_its_newest_name_on_one_line_and_not_all_names_are_kept() {
        let names = RoomNames::default();
        let room = RoomKey::from("!a");
        names.set(&room, Some("one\ntwo\u{202e}"));
        assert_eq!(names.of(&room).as_deref(), Some("one two"));
        names.set(&room, Some(&"x".repeat(10_000)));
        assert!(names.of(&room).unwrap().chars().count() <= LONGEST);
        for nameless in [Some(" \n "), None] {
            names.set(&room, Some("a name"));
            names.set(&room, nameless);
            assert_eq!(names.of(&room), None);
        }
        for number in 0..ROOMS + 10 {
            names.set(&RoomKey(format!("!{number}")), Some("a name"));
        }
        assert_eq!(names.names().len(), ROOMS);
        names.set(&RoomKey::from("!1"), Some("another"));
        assert_eq!(names.of(&RoomKey::from("!1")).as_deref(), Some("another"));
    }
}
