//! Who somebody is to the server. Pure.

use std::collections::HashMap;

use crate::ids::{Address, is_at_github};

/// How entitled somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Somebody whom a bot may hear and who is not listed.
    Guest,
    /// One of `ALLOWED_USERS`.
    User,
    /// One of `ADMIN_USERS`, or whoever sits at this machine.
    Admin,
}

/// The people of one account, as the operator has listed them.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// `ALLOWED_USERS`: names and patterns.
    pub users: Vec<String>,
    /// `ADMIN_USERS`: names.
    pub admins: Vec<String>,
}

/// The people of all accounts.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    /// By the account's name.
    pub accounts: HashMap<String, Listed>,
    /// The beginnings of the keys of rooms whose people sit at this machine.
    pub local: Vec<&'static str>,
}

impl Roles {
    /// Returns the role of a person in a room.
    pub fn of(&self, at: &Address, person: &str) -> Role {
        if is_at_github(person) {
            // They may write to the repository of which they speak: nobody else's words get here from there.
            return Role::User;
        }
        if self.local.iter().any(|prefix| at.room.as_str().starts_with(prefix)) {
            return Role::Admin;
        }
        match self.accounts.get(&at.account) {
            Some(listed) if listed.admins.iter().any(|admin| admin == person) => Role::Admin,
            Some(listed) if listed.users.iter().any(|pattern| is_meant(pattern, person)) => Role::User,
            _ => Role::Guest,
        }
    }

    /// Returns the least role that may grant something in a room: where nobody is an administrator, whoever is listed.
    pub fn grantor(&self, at: &Address) -> Role {
        match self.accounts.get(&at.account) {
            Some(listed) if listed.admins.is_empty() => Role::User,
            _ => Role::Admin,
        }
    }

    /// Returns the administrators of an account.
    pub fn admins(&self, account: &str) -> &[String] {
        self.accounts.get(account).map_or(&[], |listed| &listed.admins)
    }
}

/// Returns whether an entry of a list means a person; `@*:server` means everybody on a Matrix homeserver.
pub fn is_meant(pattern: &str, person: &str) -> bool {
    match pattern.strip_prefix("@*:") {
        // A server name may contain a port, but a user's local part no colon.
        Some(server) => person.split_once(':').is_some_and(|(_, of)| of == server),
        None => person == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(users: &[&str], admins: &[&str]) -> Roles {
        let owned = |list: &[&str]| list.iter().map(|entry| (*entry).to_owned()).collect();
        let listed = Listed { users: owned(users), admins: owned(admins) };
        Roles { accounts: [("coder".to_owned(), listed)].into(), local: vec!["terminal:"] }
    }

    #[test]
    fn a_person_is_what_the_lists_of_that_account_say_and_whoever_sits_here_runs_the_server() {
        let (room, here) = (Address::of_first("!a:a.org"), Address::of_first("terminal:one"));
        let talk = Address { account: "talk".into(), ..room.clone() };
        let roles = roles(&["@*:a.org"], &["@ann:a.org", "@root:b.org"]);
        for (at, person, role) in [
            (&room, "@ann:a.org", Role::Admin),
            (&room, "@root:b.org", Role::Admin),
            (&room, "@ben:a.org", Role::User),
            (&room, "@ben:a.org.evil", Role::Guest),
            (&room, "anybody", Role::Guest),
            (&here, "anybody", Role::Admin),
            (&here, "github:ann", Role::User),
            (&room, "github:ann", Role::User),
            (&talk, "@ann:a.org", Role::Guest),
        ] {
            assert_eq!(roles.of(at, person), role, "{at} {person}");
        }
        assert!(Role::Guest < Role::User && Role::User < Role::Admin);
    }

    #[test]
    fn only_administrators_grant_unless_there_are_none() {
        let room = Address::of_first("!a:a.org");
        assert_eq!(roles(&["@ben:a.org"], &["@ann:a.org"]).grantor(&room), Role::Admin);
        assert_eq!(roles(&["@ben:a.org"], &[]).grantor(&room), Role::User);
        assert_eq!(Roles::default().grantor(&room), Role::Admin, "an account that nobody knows grants nothing");
    }
}
