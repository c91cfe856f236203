//! `[accounts.NAME]` in `matrix-agent.toml`: further Matrix accounts besides that of `MATRIX_USER`.

use std::collections::BTreeMap;

use super::{
    Matrix, MatrixAccount, Mistakes, People, Source, Wrong,
    parse::{self, Parsed},
};
use crate::{ids::FIRST_ACCOUNT, text};

/// The table's name.
pub(super) const TABLE: &str = "accounts";
/// The longest name in bytes: it becomes a part of file names.
const LONGEST: usize = 32;

/// The settings of one account as typed: values by key, as they would be in the environment.
#[derive(Clone, Debug)]
pub(super) struct Typed {
    pub(super) name: String,
    pub(super) values: BTreeMap<String, String>,
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
        for (key, value) in &account.values {
            let parsed = match key.as_str() {
                "user" => parse::user(value).map(|parsed| user = Some(parsed)),
                "homeserver" => parse::url(value).map(|parsed| matrix.homeserver = parsed),
                "password" => parse::password(value).map(|parsed| matrix.password = Some(parsed)),
                "allowed_users" => parse::user_patterns(value).map(|parsed| people.allowed = parsed),
                "allowed_rooms" => parse::rooms(value).map(|parsed| people.rooms = parsed),
                _ => unknown(),
            };
            if let Err(mistake) = parsed {
                wrong(Some(&text::one_line(key, 40)), mistake);
            }
        }
        match &user {
            None if !account.values.contains_key("user") => {
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
