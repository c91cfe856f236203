//! The bots of the server know each other: none answers what another one says, and what is said to one of them in a room is not
//! meant for those that hear all that is said there.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

/// The names by which the server's accounts are called, as they are now. Cheap to clone; all clones know the same.
#[derive(Clone, Debug, Default)]
pub struct Neighbours {
    names: Arc<RwLock<BTreeMap<String, Vec<String>>>>,
}

impl Neighbours {
    /// Notes by which names an account is called: its whole name in its chat protocol, and `@name` in short.
    pub fn moves_in(&self, account: String, names: impl IntoIterator<Item = String>) {
        let names = names.into_iter().map(|name| name.to_lowercase()).collect();
        self.names.write().unwrap_or_else(PoisonError::into_inner).insert(account, names);
    }

    /// Forgets an account that is served no more.
    pub fn moves_out(&self, account: &str) {
        self.names.write().unwrap_or_else(PoisonError::into_inner).remove(account);
    }

    /// Returns whether whoever has this name is a bot of the server.
    pub(crate) fn is_one(&self, called: &str) -> bool {
        let called = called.to_lowercase();
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.values().flatten().any(|name| *name == called)
    }
}
