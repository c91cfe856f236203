//! Whom a bot hears, and where. Fail-closed: a person who is not listed is not heard. Pure.

use std::{fmt, sync::Arc};

use crate::rights::is_meant;

/// The policy of one bot, from the settings.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whom it hears.
    pub people: People,
    /// The rooms by id or alias; if empty, every room to which somebody whom it hears has invited it.
    pub rooms: Vec<String>,
}

/// Whom a bot hears.
#[derive(Clone, Debug)]
pub enum People {
    /// Everybody in one of its rooms.
    Everybody,
    /// These people, as their protocol names them; `@*:server` is everybody on a Matrix homeserver.
    Listed(Vec<String>),
    /// Nobody in particular: whoever passes by in certain rooms may say certain words there, and nothing else. That opens no
    /// room, and no invitation counts by it.
    Passing(Passers),
}

/// Rooms and words that are open to everybody.
#[derive(Clone)]
pub struct Passers {
    /// Whether a room is one of them.
    pub rooms: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// Whether a message is one of them.
    pub words: fn(&str) -> bool,
}

impl fmt::Debug for Passers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passers")
    }
}

impl Policy {
    /// Returns whether it hears this person.
    pub fn hears(&self, person: &str) -> bool {
        match &self.people {
            People::Everybody => true,
            People::Passing(_) => false,
            People::Listed(listed) => listed.iter().any(|pattern| is_meant(pattern, person)),
        }
    }

    /// Returns whether it works in this room. `named` are the rooms to which its aliases lead.
    pub fn opens(&self, room: &str, named: &[&str]) -> bool {
        if matches!(self.people, People::Passing(_)) {
            return false;
        }
        self.rooms.is_empty() || self.rooms.iter().any(|listed| listed == room) || named.contains(&room)
    }

    /// Returns whether it takes these words from anybody in this room.
    pub fn takes(&self, room: &str, words: &str) -> bool {
        matches!(&self.people, People::Passing(passers) if (passers.words)(words) && (passers.rooms)(room))
    }

    /// Returns the aliases among its rooms.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        self.rooms.iter().map(String::as_str).filter(|room| room.starts_with('#'))
    }
}

/// The policies of all bots of an account: what one of them hears goes into the journal. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Policies {
    all: Arc<[Policy]>,
}

impl Policies {
    /// Returns the policies of an account's bots.
    pub fn new(all: impl IntoIterator<Item = Policy>) -> Self {
        Self { all: all.into_iter().collect() }
    }

    /// Returns whether a bot hears this person.
    pub fn hears(&self, person: &str) -> bool {
        self.all.iter().any(|policy| policy.hears(person))
    }

    /// Returns whether a bot takes these words from anybody in this room.
    pub fn takes(&self, room: &str, words: &str) -> bool {
        self.all.iter().any(|policy| policy.takes(room, words))
    }

    /// Returns whether a bot works in this room. `named` are the rooms to which the aliases lead.
    pub fn opens(&self, room: &str, named: &[&str]) -> bool {
        self.all.iter().any(|policy| policy.opens(room, named))
    }

    /// Returns the aliases among the rooms.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        self.all.iter().flat_map(Policy::aliases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(people: &[&str], rooms: &[&str]) -> Policy {
        let owned = |list: &[&str]| list.iter().map(|entry| (*entry).to_owned()).collect();
        Policy { people: People::Listed(owned(people)), rooms: owned(rooms) }
    }

    #[test]
    fn only_listed_people_are_heard_and_a_pattern_is_a_whole_server() {
        let listed = policy(&["@anna:a.org", "@*:b.org", "@*:c.org:8448"], &[]);
        for heard in ["@anna:a.org", "@any:b.org", "@any:c.org:8448"] {
            assert!(listed.hears(heard), "{heard}");
        }
        for stranger in
            ["@bert:a.org", "@anna:a.org.evil", "@anna:b.org.evil", "@any:c.org", "@b.org", "b.org", "", "@x:y:b.org"]
        {
            assert!(!listed.hears(stranger), "{stranger}");
        }
        assert!(!policy(&[], &[]).hears("@anna:a.org"), "no list is nobody");
        assert!(Policy { people: People::Everybody, rooms: vec![] }.hears("@anna:a.org"));
    }

    #[test]
    fn whoever_passes_by_may_say_certain_words_in_certain_rooms_and_nothing_follows_from_it() {
        let passers = Passers { rooms: Arc::new(|room| room == "!open:a.org"), words: |text| text == "!again" };
        let all = Policies::new([
            policy(&["@anna:a.org"], &["!b:a.org"]),
            Policy { people: People::Passing(passers), rooms: vec![] },
        ]);
        assert!(all.takes("!open:a.org", "!again"));
        assert!(!all.takes("!open:a.org", "hello") && !all.takes("!b:a.org", "!again"));
        assert!(!all.hears("@bert:a.org"), "an invitation of theirs does not count");
        assert!(!all.opens("!open:a.org", &[]), "the room is not opened by it");
    }

    #[test]
    fn rooms_are_open_unless_some_are_listed() {
        assert!(policy(&[], &[]).opens("!a:a.org", &[]));
        assert!(policy(&[], &["!a:a.org"]).opens("!a:a.org", &[]));
        let by_alias = policy(&[], &["#work:a.org", "!b:a.org"]);
        assert!(by_alias.opens("!a:a.org", &["!a:a.org"]) && !by_alias.opens("!a:a.org", &[]));
        assert_eq!(by_alias.aliases().collect::<Vec<_>>(), ["#work:a.org"]);
        assert!(!by_alias.opens("!c:a.org", &["!a:a.org"]));
    }
}
