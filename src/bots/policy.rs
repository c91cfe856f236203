//! Whom a bot hears, and where. Fail-closed: a person who is not listed is not heard, nor is one who is ignored. Pure.

use std::{fmt, sync::Arc};

use crate::rights::is_meant;

/// The policy of one bot, from the settings.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whom it hears.
    pub people: People,
    /// Whom of these it does not hear all the same, such as other bots; patterns as in [`People::Listed`].
    pub ignored: Vec<String>,
    /// Whose words it wants to know though it does not hear them: they are kept, and mean nothing. Patterns, too.
    pub overheard: Vec<String>,
    /// Where it works.
    pub places: Places,
    /// Whether it leaves a room in which it does not work, once it is mentioned there.
    pub leaves: bool,
}

/// Where a bot works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Places {
    /// In every room to which somebody whom it hears has invited it.
    Anywhere,
    /// In these rooms alone, by id or alias; without one it works nowhere.
    Listed(Vec<String>),
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

impl People {
    /// Returns whether this person is among them.
    pub fn include(&self, person: &str) -> bool {
        match self {
            Self::Everybody => true,
            Self::Passing(_) => false,
            Self::Listed(listed) => listed.iter().any(|pattern| is_meant(pattern, person)),
        }
    }
}

impl Places {
    fn listed(&self) -> &[String] {
        match self {
            Self::Anywhere => &[],
            Self::Listed(rooms) => rooms,
        }
    }
}

impl Policy {
    /// Returns the policy of a bot that hears these people, ignores nobody, works in these places and stays in others.
    pub fn new(people: People, places: Places) -> Self {
        Self { people, ignored: vec![], overheard: vec![], places, leaves: false }
    }

    /// Returns whether it hears this person.
    pub fn hears(&self, person: &str) -> bool {
        self.people.include(person) && !self.ignored.iter().any(|pattern| is_meant(pattern, person))
    }

    /// Returns whether it wants to know this person's words without hearing them.
    pub fn overhears(&self, person: &str) -> bool {
        !self.hears(person) && self.overheard.iter().any(|pattern| is_meant(pattern, person))
    }

    /// Returns whether it works in this room. `named` are the rooms to which its aliases lead.
    pub fn opens(&self, room: &str, named: &[&str]) -> bool {
        self.places == Places::Anywhere
            || self.places.listed().iter().any(|listed| listed == room)
            || self.aliases().next().is_some() && named.contains(&room)
    }

    /// Returns whether it takes these words from anybody in this room.
    pub fn takes(&self, room: &str, words: &str) -> bool {
        matches!(&self.people, People::Passing(passers) if (passers.words)(words) && (passers.rooms)(room))
    }

    /// Returns the aliases among its rooms.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        self.places.listed().iter().map(String::as_str).filter(|room| room.starts_with('#'))
    }
}

/// Returns the key under which an account's store notes the room to which an alias last led.
pub(crate) fn note_of_alias(alias: &str) -> String {
    format!("alias:{alias}")
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

    /// Returns whether no bot hears this person, and one wants to know their words.
    pub fn overhears(&self, person: &str) -> bool {
        !self.hears(person) && self.all.iter().any(|policy| policy.overhears(person))
    }

    /// Returns whether none of the bots wants to stay in a room in which none works, once one is mentioned there.
    pub fn leave_others(&self) -> bool {
        self.all.iter().all(|policy| policy.leaves)
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

    fn owned(list: &[&str]) -> Vec<String> {
        list.iter().map(|entry| (*entry).to_owned()).collect()
    }

    fn hearing(people: &[&str]) -> Policy {
        Policy::new(People::Listed(owned(people)), Places::Anywhere)
    }

    fn working_in(rooms: &[&str]) -> Policy {
        Policy::new(People::Everybody, Places::Listed(owned(rooms)))
    }

    #[test]
    fn only_listed_people_are_heard_and_a_pattern_is_a_whole_server() {
        let listed = hearing(&["@anna:a.org", "@*:b.org", "@*:c.org:8448"]);
        for heard in ["@anna:a.org", "@any:b.org", "@any:c.org:8448"] {
            assert!(listed.hears(heard), "{heard}");
        }
        for stranger in
            ["@bert:a.org", "@anna:a.org.evil", "@anna:b.org.evil", "@any:c.org", "@b.org", "b.org", "", "@x:y:b.org"]
        {
            assert!(!listed.hears(stranger), "{stranger}");
        }
        assert!(!hearing(&[]).hears("@anna:a.org"), "no list is nobody");
        assert!(working_in(&[]).hears("@anna:a.org"));
    }

    #[test]
    fn whoever_passes_by_may_say_certain_words_in_certain_rooms_and_nothing_follows_from_it() {
        let passers = Passers { rooms: Arc::new(|room| room == "!open:a.org"), words: |text| text == "!again" };
        let all = Policies::new([
            Policy { places: Places::Listed(owned(&["!b:a.org"])), ..hearing(&["@anna:a.org"]) },
            Policy::new(People::Passing(passers), Places::Listed(vec![])),
        ]);
        assert!(all.takes("!open:a.org", "!again"));
        assert!(!all.takes("!open:a.org", "hello") && !all.takes("!b:a.org", "!again"));
        assert!(!all.hears("@bert:a.org"), "an invitation of theirs does not count");
        assert!(!all.opens("!open:a.org", &[]), "the room is not opened by it");
    }

    #[test]
    fn whoever_is_ignored_is_not_heard_whatever_else_holds() {
        let everybody = Policy { ignored: owned(&["@qwen:a.org", "@*:bots.org"]), ..working_in(&[]) };
        assert!(everybody.hears("@anna:a.org"));
        assert!(!everybody.hears("@qwen:a.org") && !everybody.hears("@any:bots.org"));
        let listed = Policy { ignored: owned(&["@qwen:a.org"]), ..hearing(&["@*:a.org"]) };
        assert!(listed.hears("@anna:a.org") && !listed.hears("@qwen:a.org"));
    }

    #[test]
    fn whoever_is_overheard_is_not_heard() {
        let bots = || owned(&["@qwen:a.org", "@*:bots.org"]);
        let policy = Policy { ignored: bots(), overheard: bots(), ..working_in(&[]) };
        assert!(policy.overhears("@qwen:a.org") && policy.overhears("@any:bots.org"));
        assert!(!policy.hears("@qwen:a.org") && !policy.overhears("@anna:a.org"));
        let both = Policies::new([policy.clone(), hearing(&["@qwen:a.org"])]);
        assert!(both.hears("@qwen:a.org") && !both.overhears("@qwen:a.org"), "one of the bots hears it");
    }

    #[test]
    fn where_rooms_are_listed_no_other_is_open_and_no_list_is_no_room() {
        assert!(hearing(&[]).opens("!a:a.org", &[]), "anywhere");
        assert!(!working_in(&[]).opens("!a:a.org", &["!a:a.org"]), "nowhere");
        assert!(working_in(&["!a:a.org"]).opens("!a:a.org", &[]));
        let by_alias = working_in(&["#work:a.org", "!b:a.org"]);
        assert!(by_alias.opens("!a:a.org", &["!a:a.org"]) && !by_alias.opens("!a:a.org", &[]));
        assert_eq!(by_alias.aliases().collect::<Vec<_>>(), ["#work:a.org"]);
        assert!(!by_alias.opens("!c:a.org", &["!a:a.org"]));
    }
}
