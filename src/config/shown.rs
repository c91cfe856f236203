//! The Matrix accounts as `config` shows them.

use serde::Serialize;

use super::{Loaded, Matrix, People, Source, accounts::hears_nobody, keys};

/// A Matrix account as `config` shows it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ShownAccount {
    /// Its name.
    pub name: String,
    /// Its user id.
    pub user: String,
    /// Its homeserver.
    pub homeserver: String,
    /// Where its password comes from, if it has one.
    pub password: Option<Source>,
    /// Whom it hears.
    pub hears: Vec<String>,
    /// The rooms in which it works; if empty, every room to which somebody whom it hears invites it.
    pub rooms: Vec<String>,
    /// What to do about it if it hears nobody.
    pub mend: Option<String>,
}

impl Loaded {
    /// Returns the Matrix accounts as `config` shows them.
    pub(crate) fn accounts(&self) -> Vec<ShownAccount> {
        let set = |name: &str| match self.config.accounts.iter().find(|account| account.name == name) {
            Some(account) => Some(account.source.clone()),
            None => self.source(keys::MATRIX_PASSWORD.about.name),
        };
        let shown = |(name, matrix, people): (&str, &Matrix, &People)| ShownAccount {
            name: name.to_owned(),
            user: matrix.user.clone(),
            homeserver: matrix.homeserver.to_string(),
            password: matrix.password.as_ref().and_then(|_| set(name)),
            hears: people.allowed.clone(),
            rooms: people.rooms.clone(),
            mend: hears_nobody(name, people).map(|wrong| wrong.mend),
        };
        self.config.all_accounts().map(shown).collect()
    }
}
