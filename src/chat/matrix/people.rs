//! Who may command the bot, and in which rooms. Fail-closed: nobody who is not listed. Pure.

use matrix_sdk::ruma::{OwnedRoomId, RoomId, UserId};

/// The lists, as they were set.
#[derive(Clone, Debug)]
pub struct People {
    /// Users, and `@*:server` for all of a server.
    pub users: Vec<String>,
    /// Rooms by id or alias; empty: every room into which a listed user invited the bot.
    pub rooms: Vec<String>,
}

impl People {
    /// Returns whether this user may command the bot.
    pub fn lists(&self, user: &UserId) -> bool {
        self.users.iter().any(|pattern| match pattern.strip_prefix("@*:") {
            Some(server) => user.server_name() == server,
            None => user == pattern,
        })
    }

    /// Returns whether the bot may work in this room. `named` are the rooms to which the listed aliases lead.
    pub fn opens<'a>(&self, room: &RoomId, named: impl IntoIterator<Item = &'a OwnedRoomId>) -> bool {
        self.rooms.is_empty()
            || self.rooms.iter().any(|listed| listed == room)
            || named.into_iter().any(|id| id == room)
    }

    /// Returns the aliases among the listed rooms.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        self.rooms.iter().map(String::as_str).filter(|room| room.starts_with('#'))
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::{owned_room_id, room_id, user_id};

    use super::*;

    fn people(users: &[&str], rooms: &[&str]) -> People {
        let owned = |list: &[&str]| list.iter().map(|entry| (*entry).to_owned()).collect();
        People { users: owned(users), rooms: owned(rooms) }
    }

    #[test]
    fn only_listed_users_count_and_a_pattern_is_a_whole_server() {
        let listed = people(&["@anna:a.org", "@*:b.org"], &[]);
        assert!(listed.lists(user_id!("@anna:a.org")) && listed.lists(user_id!("@any:b.org")));
        for stranger in [user_id!("@bert:a.org"), user_id!("@anna:a.org.evil"), user_id!("@anna:b.org.evil")] {
            assert!(!listed.lists(stranger), "{stranger}");
        }
        assert!(!people(&[], &[]).lists(user_id!("@anna:a.org")), "no list is nobody");
    }

    #[test]
    fn rooms_are_open_unless_some_are_listed() {
        let (room, named) = (room_id!("!a:a.org"), owned_room_id!("!a:a.org"));
        assert!(people(&[], &[]).opens(room, []));
        assert!(people(&[], &["!a:a.org"]).opens(room, []));
        let by_alias = people(&[], &["#work:a.org", "!b:a.org"]);
        assert!(by_alias.opens(room, [&named]) && !by_alias.opens(room, []));
        assert_eq!(by_alias.aliases().collect::<Vec<_>>(), ["#work:a.org"]);
        assert!(!by_alias.opens(room_id!("!c:a.org"), [&named]));
    }
}
