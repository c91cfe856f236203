//! Who may command the bot, and in which rooms. Fail-closed: nobody who is not listed. Pure.

use matrix_sdk::ruma::{RoomAliasId, RoomId, UserId};

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

    /// Returns whether the bot may work in this room.
    pub fn opens<'a>(&self, room: &RoomId, aliases: impl IntoIterator<Item = &'a RoomAliasId>) -> bool {
        if self.rooms.is_empty() {
            return true;
        }
        let listed = |name: &str| self.rooms.iter().any(|room| room == name);
        listed(room.as_str()) || aliases.into_iter().any(|alias| listed(alias.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::{room_alias_id, room_id, user_id};

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
        let (room, alias) = (room_id!("!a:a.org"), room_alias_id!("#work:a.org"));
        assert!(people(&[], &[]).opens(room, []));
        assert!(people(&[], &["!a:a.org"]).opens(room, []));
        assert!(people(&[], &["#work:a.org"]).opens(room, [alias]));
        assert!(!people(&[], &["#work:a.org"]).opens(room, []));
    }
}
