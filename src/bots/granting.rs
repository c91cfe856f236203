//! `!grants`, `!grant` and `!revoke`: how people write them, and what they do.

use std::time::Duration;

use super::{Order, replied::Replied};
use crate::{
    gateway::Host,
    ids::Address,
    rights::{Grant, Lasts, Repository, Rights, Subject},
    store::StoreError,
    strings::rights,
    text,
};

/// How long a grant lasts whose time nobody says.
const USUAL: Duration = Duration::from_hours(1);
/// The longest time, in seconds; longer ones last until they are taken back.
const LONGEST: u64 = 366 * 24 * 60 * 60;
/// Grants that a room may have.
const MOST: usize = 100;
/// Words that say nothing.
const SIDE: &[&str] = &["for", "to", "a", "an", "one", "the", "this", "please", "read", "access"];
/// What may stand around and behind a word.
const AROUND: &[char] = &['`', '*', '_', '"', '\'', '“', '”', '(', ')', '<', '>', '.', ',', ';', '!', '?'];

/// What is asked about grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Granting {
    /// To see them.
    Show,
    /// To grant something.
    Grant {
        /// What.
        subject: Subject,
        /// Whether things may be changed there.
        writes: bool,
        /// How long.
        lasts: Lasts,
    },
    /// To take one back.
    Revoke(Subject),
    /// To take all back.
    RevokeAll,
    /// Something that cannot be read.
    Unclear,
}

impl Granting {
    /// Reads what follows the mark of a command; `None`: it is another one, or work.
    pub(super) fn of(rest: &str) -> Option<Self> {
        let words: Vec<String> = rest.split_whitespace().map(bare).collect();
        let mut words = words.iter().map(String::as_str).filter(|word| !word.is_empty());
        let verb = words.next()?;
        let words: Vec<String> = words.filter(|word| !SIDE.contains(word)).fold(vec![], |mut words, word| {
            // A number is written with its unit, or before it.
            match words.last_mut().filter(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
                Some(number) => number.push_str(word),
                None => words.push(word.to_owned()),
            }
            words
        });
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match (verb, &words[..]) {
            ("grants", []) => Some(Self::Show),
            ("revoke", ["all"]) => Some(Self::RevokeAll),
            ("revoke", [what]) => Some(subject(what).map_or(Self::Unclear, Self::Revoke)),
            ("revoke", several) if several.iter().all(|word| *word == "all" || subject(word).is_some()) => {
                Some(Self::Unclear)
            }
            ("grant", [what, how @ ..]) if how.len() <= 2 => Some(grant(what, how).unwrap_or(Self::Unclear)),
            ("grant" | "revoke", []) | ("grants", _) => Some(Self::Unclear),
            _ => None,
        }
    }
}

fn grant(what: &str, how: &[&str]) -> Option<Granting> {
    let subject = subject(what)?;
    let (mut writes, mut lasts) = (false, None);
    for word in how {
        match *word {
            "push" | "write" if matches!(subject, Subject::Repository(_)) => writes = true,
            // Of two times nobody knows which is meant.
            word => lasts = Some(lasting(word).filter(|_| lasts.is_none())?),
        }
    }
    Some(Granting::Grant { subject, writes, lasts: lasts.unwrap_or(Lasts::For(USUAL)) })
}

/// Returns a word without what may stand around it. The star of a pattern stays: there are no grants for patterns.
fn bare(word: &str) -> String {
    let bare = word.trim_matches(AROUND);
    let star = if word.contains("*.") { "*." } else { "" };
    format!("{star}{}", bare.to_lowercase())
}

fn subject(word: &str) -> Option<Subject> {
    if let Some(repository) = Repository::named(word) {
        return Some(Subject::Repository(repository));
    }
    let host = word.strip_prefix("https://").or_else(|| word.strip_prefix("http://")).unwrap_or(word);
    // Others are the operator's to open.
    let host = Host::parse(host.trim_end_matches('/')).filter(Host::may_be_public)?;
    Some(Subject::Host(host.to_string()))
}

/// Reads how long something lasts: `2h`, `room`.
pub(super) fn lasting(word: &str) -> Option<Lasts> {
    match word {
        "room" | "always" | "forever" => Some(Lasts::Room),
        word => duration(word).map(Lasts::For),
    }
}

fn duration(word: &str) -> Option<Duration> {
    let (number, unit) = match word {
        "hour" => (1, "h"),
        "day" => (1, "d"),
        _ => {
            let end = word.find(|c: char| !c.is_ascii_digit())?;
            (word[..end].parse().ok()?, &word[end..])
        }
    };
    let seconds: u64 = match unit {
        "m" | "min" | "minutes" => 60,
        "h" | "hour" | "hours" => 60 * 60,
        "d" | "day" | "days" => 24 * 60 * 60,
        _ => return None,
    };
    let seconds = seconds.checked_mul(number).filter(|seconds| (1..=LONGEST).contains(seconds))?;
    Some(Duration::from_secs(seconds))
}

/// Carries it out, and returns the reply.
pub(super) async fn carry_out(rights: &Rights, order: &Order, granting: Granting) -> Result<Replied, StoreError> {
    let (at, sender) = (&order.at.address, &order.sender);
    Ok(match granting {
        Granting::Show => Replied::done(show(rights, at)),
        Granting::Unclear => Replied::refused(rights::UNCLEAR),
        // Whoever may speak here may take a right away.
        Granting::Revoke(subject) => Replied::done(rights::revoked(rights.revoke(at, Some(&subject)).await?)),
        Granting::RevokeAll => Replied::done(rights::revoked(rights.revoke(at, None).await?)),
        Granting::Grant { .. } if rights.roles().of(at, sender) < rights.roles().grantor(at) => {
            Replied::refused(rights::not_yours(rights.roles().admins(&at.account)))
        }
        Granting::Grant { .. } if rights.granted(at).len() >= MOST => Replied::refused(rights::TOO_MANY),
        Granting::Grant { subject, writes, lasts } => {
            let time = if let Lasts::For(time) = lasts { Some(time) } else { None };
            let grant = rights.grant(at, subject, writes, sender, lasts).await?;
            Replied::done(rights::grant(&grant.subject, writes, &left(&grant, time)))
        }
    })
}

fn show(rights: &Rights, at: &Address) -> String {
    let all = rights.granted(at);
    let lines =
        all.iter().map(|(grant, time)| rights::granted(&grant.subject, grant.writes, &grant.by, &left(grant, *time)));
    let lines: String = lines.collect();
    let granted = if lines.is_empty() { rights::NONE.to_owned() } else { format!("{}{lines}", rights::GRANTED) };
    format!("{}{granted}", open(rights, at))
}

/// Says what the room is being asked, for whoever has come since or has lost sight of the card; empty if nothing.
pub(super) fn open(rights: &Rights, at: &Address) -> String {
    rights.questions_at(at).iter().map(|(what, code)| rights::open(what, code)).collect()
}

/// Says how long a grant lasts that has this much time left.
fn left(grant: &Grant, time: Option<Duration>) -> String {
    match time {
        _ if grant.turn.is_some() => rights::LEFT_OF_TURN.to_owned(),
        Some(time) => rights::left(&text::human_duration(time)),
        None => rights::LEFT_FOR_EVER.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(name: &str) -> Subject {
        Subject::Repository(Repository::parse(name).expect(name))
    }

    #[test]
    fn a_grant_is_read_as_people_write_it() {
        let host = || Subject::Host("example.org".to_owned());
        let hours = |hours| Lasts::For(Duration::from_hours(hours));
        for (text, subject, writes, lasts) in [
            ("grant Acme/Site 2h", repository("acme/site"), false, hours(2)),
            ("Grant `acme/site` push for 2 hours", repository("acme/site"), true, hours(2)),
            ("grant acme/site push 2h.", repository("acme/site"), true, hours(2)),
            ("grant https://github.com/acme/site", repository("acme/site"), false, hours(1)),
            ("grant acme/site room push", repository("acme/site"), true, Lasts::Room),
            ("grant example.org for an hour", host(), false, hours(1)),
            ("grant https://Example.org/ 1d", host(), false, hours(24)),
            ("grant example.org this room", host(), false, Lasts::Room),
        ] {
            assert_eq!(Granting::of(text), Some(Granting::Grant { subject, writes, lasts }), "{text}");
        }
        assert_eq!(Granting::of("grants?"), Some(Granting::Show));
        assert_eq!(Granting::of("revoke example.org"), Some(Granting::Revoke(host())));
        assert_eq!(Granting::of("revoke all!"), Some(Granting::RevokeAll));
        for unclear in [
            "grant",
            "revoke",
            "grant localhost",
            "grant 127.0.0.1 2h",
            "grant a/b 2x",
            "grant a/b 0h",
            "grant x.org push",
            "grant a/b 999999h",
            "grant a/b 2h room",
            "grant *.example.org 2h",
            "grant `*.example.org`",
            "grants of acme/site",
            "revoke all all",
            "revoke acme/site acme/tools",
        ] {
            assert_eq!(Granting::of(unclear), Some(Granting::Unclear), "{unclear}");
        }
        for work in
            ["grant all users write access in the database: the SQL", "revoke the old keys in vault", "granted", "help"]
        {
            assert_eq!(Granting::of(work), None, "{work}");
        }
    }
}
