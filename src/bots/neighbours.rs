//! The bots of the server know each other: none answers what another one says, and what is said to one of them in a room is not
//! meant for those that hear all that is said there. One that talks with bots is answered by those that only chat.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

/// The names by which the server's accounts are called, as they are now. Cheap to clone; all clones know the same.
#[derive(Clone, Debug, Default)]
pub struct Neighbours {
    names: Arc<RwLock<BTreeMap<String, Names>>>,
}

#[derive(Debug)]
struct Names {
    all: Vec<String>,
    talks: bool,
}

impl Neighbours {
    /// Notes by which names an account is called: its whole name in its chat protocol, and `@name` in short.
    pub fn moves_in(&self, account: String, names: impl IntoIterator<Item = String>) {
        self.insert(account, names, false);
    }

    /// The same for an account that talks with bots now and then, so seldom that no loop comes of it.
    pub fn moves_in_to_talk(&self, account: String, names: impl IntoIterator<Item = String>) {
        self.insert(account, names, true);
    }

    fn insert(&self, account: String, names: impl IntoIterator<Item = String>, talks: bool) {
        let all = names.into_iter().map(|name| name.to_lowercase()).collect();
        self.names.write().unwrap_or_else(PoisonError::into_inner).insert(account, Names { all, talks });
    }

    /// Forgets an account that is served no more.
    pub fn moves_out(&self, account: &str) {
        self.names.write().unwrap_or_else(PoisonError::into_inner).remove(account);
    }

    /// Returns whether whoever has this name is a bot of the server.
    pub(crate) fn is_one(&self, called: &str) -> bool {
        self.any(called, |_| true)
    }

    /// Returns whether whoever has this name is a bot of the server that a bot which only chats does not answer.
    pub(crate) fn is_unanswered(&self, called: &str) -> bool {
        self.any(called, |names| !names.talks)
    }

    fn any(&self, called: &str, counts: impl Fn(&Names) -> bool) -> bool {
        let called = called.to_lowercase();
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.values().filter(|names| counts(names)).flat_map(|names| &names.all).any(|name| *name == called)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_talks_with_bots_is_one_and_is_answered() {
        let neighbours = Neighbours::default();
        neighbours.moves_in("coder".to_owned(), ["@Coder:a.org".to_owned()]);
        neighbours.moves_in_to_talk("exobot".to_owned(), ["@exobot:a.org".to_owned()]);
        for (name, is_one, is_unanswered) in
            [("@coder:a.org", true, true), ("@ExoBot:a.org", true, false), ("@anna:a.org", false, false)]
        {
            assert_eq!((neighbours.is_one(name), neighbours.is_unanswered(name)), (is_one, is_unanswered), "{name}");
        }
        neighbours.moves_out("coder");
        assert!(!neighbours.is_one("@coder:a.org"));
    }
}
