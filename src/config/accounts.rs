//! `[accounts.NAME]` in `matrix-agent.toml`: further Matrix accounts besides that of `MATRIX_USER`; and how an account's
//! settings are called.

use super::{
    Config, Matrix, MatrixAccount, Mistakes, People, Source, Wrong,
    parse::{self, Parsed},
    value,
};
use crate::{ids::FIRST_ACCOUNT, text};

/// The table's name.
pub(super) const TABLE: &str = "accounts";
/// The longest name in bytes: it becomes a part of file names.
const LONGEST: usize = 32;

/// The settings of one account as typed. They hold its password, so there is no `Debug`.
#[derive(Clone)]
pub(super) struct Typed {
    pub(super) name: String,
    pub(super) entries: toml::Table,
    pub(super) source: Source,
}

/// Returns the typed accounts. Settings that an account lacks are those of the account of `MATRIX_USER` (`first`), or
/// the defaults. An account with a mistake is left out.
pub(super) fn read(
    typed: &[Typed],
    first: Option<&Matrix>,
    defaults: &Matrix,
    people: &People,
    mistakes: &mut Mistakes,
) -> Vec<MatrixAccount> {
    let mut users: Vec<String> = first.iter().map(|first| first.user.clone()).collect();
    let mut accounts = Vec::new();
    for account in typed {
        let before = mistakes.iter().count();
        let mut wrong = |key: Option<&str>, wrong: Wrong| {
            let name = text::one_line(&account.name, LONGEST);
            let key = key.map(|key| format!(".{key}")).unwrap_or_default();
            mistakes.add(&format!("{TABLE}.{name}{key}"), Some(account.source.clone()), wrong);
        };
        if !is_name(&account.name) {
            let mend =
                "Use small letters, digits and `-`, 32 at most, and not `coder`, which is the account of MATRIX_USER";
            wrong(None, Wrong::new("that cannot be an account's name", mend));
        }
        let mut user = None;
        let mut matrix = Matrix { password: None, admin_user: None, admin_password: None, ..defaults.clone() };
        let mut people = People { rooms: vec![], ..people.clone() };
        for (key, value) in &account.entries {
            let parsed = match key.as_str() {
                "user" => parsed(value, parse::user).map(|parsed| user = Some(parsed)),
                "homeserver" => parsed(value, parse::url).map(|parsed| matrix.homeserver = parsed),
                "password" => parsed(value, parse::password).map(|parsed| matrix.password = Some(parsed)),
                "allowed_users" => parsed_list(value, parse::user_patterns).map(|parsed| people.allowed = parsed),
                "allowed_rooms" => parsed_list(value, parse::rooms).map(|parsed| people.rooms = parsed),
                _ => unknown(),
            };
            if let Err(mistake) = parsed {
                wrong(Some(&text::one_line(key, 40)), mistake);
            }
        }
        match &user {
            None if !account.entries.contains_key("user") => {
                wrong(None, Wrong::new("it has no `user`", "Write `user = \"@name:example.org\"`"));
            }
            Some(user) if users.contains(user) => {
                let what = format!("{user} is an account already");
                wrong(Some("user"), Wrong::new(what, "Two accounts of one user would answer twice; remove one"));
            }
            _ => {}
        }
        if let Some(user) = user.filter(|_| mistakes.iter().count() == before) {
            users.push(user.clone());
            let (name, source) = (account.name.clone(), account.source.clone());
            accounts.push(MatrixAccount { name, matrix: Matrix { user, ..matrix }, people, source });
        }
    }
    accounts
}

fn parsed<T>(value: &toml::Value, parse: fn(&str) -> Parsed<T>) -> Parsed<T> {
    parse(&value::text(value, false)?)
}

fn parsed_list<T>(value: &toml::Value, parse: fn(&str) -> Parsed<T>) -> Parsed<T> {
    parse(&value::text(value, true)?)
}

fn unknown() -> Parsed<()> {
    let known = "`user`, `homeserver`, `password`, `allowed_users` and `allowed_rooms`";
    Err(Wrong::new("there is no such setting of an account", format!("An account has {known}")))
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty()
        && name.len() <= LONGEST
        && !name.starts_with('-')
        && name.chars().all(plain)
        && name != FIRST_ACCOUNT
}

/// Returns the name of one of an account's settings, such as `MATRIX_PASSWORD` or `accounts.two.password`.
pub(crate) fn account_setting(account: &str, key: &str) -> String {
    match key {
        _ if account != FIRST_ACCOUNT => format!("{TABLE}.{account}.{key}"),
        "allowed_users" | "allowed_rooms" => key.to_uppercase(),
        _ => format!("MATRIX_{}", key.to_uppercase()),
    }
}

/// Returns what to do about an account whose homeserver is reached in plain HTTP.
pub(crate) fn use_https(account: &str) -> String {
    let setting = account_setting(account, "homeserver");
    format!("Set {setting} to an https:// address, or to http://127.0.0.1:8008 if it runs on this machine")
}

/// Returns what is wrong with an account that hears nobody.
pub(crate) fn hears_nobody(account: &str, people: &People) -> Option<Wrong> {
    let setting = account_setting(account, "allowed_users");
    let mend = match account {
        FIRST_ACCOUNT => format!("Set {setting} to those who may command the bot"),
        _ => format!("Set {setting} to those who may command the bot there, or ALLOWED_USERS for all accounts"),
    };
    people.allowed.is_empty().then(|| Wrong::new(format!("the account `{account}` hears nobody"), mend))
}

impl Config {
    /// Returns all Matrix accounts: their names, how they log in, and whom they hear.
    pub(crate) fn all_accounts(&self) -> impl Iterator<Item = (&str, &Matrix, &People)> {
        let first = self.matrix.iter().map(|matrix| (FIRST_ACCOUNT, matrix, &self.people));
        first.chain(self.accounts.iter().map(|account| (account.name.as_str(), &account.matrix, &account.people)))
    }
}
