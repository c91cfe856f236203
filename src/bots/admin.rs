//! `!admin …`: how people write it. What it does, it does for the whole server, which is not a bot's: whoever runs the server carries
//! it out ([`Administrator`]).

use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ids::Address, strings::admin as words, text::amount};

/// What may stand around a word.
const AROUND: &[char] = &['`', '*', '_', '"', '“', '”', '<', '>', '(', ')', '.', ',', ';', '?'];

/// Where an order is given, which is where the answer's further orders would be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a room.
    Room,
    /// On the command line.
    CommandLine,
}

impl Place {
    /// Returns a name as it is set apart in a list there.
    pub(crate) fn code(self, text: &str) -> String {
        match self {
            Self::Room => format!("`{text}`"),
            Self::CommandLine => text.to_owned(),
        }
    }

    /// Returns the order that lists rooms.
    pub(crate) fn rooms(self) -> &'static str {
        match self {
            Self::Room => words::ROOMS,
            Self::CommandLine => words::ROOMS_AT_TERMINAL,
        }
    }

    /// Returns the order that lets turns begin again.
    pub(crate) fn drain_off(self) -> &'static str {
        match self {
            Self::Room => words::DRAIN_OFF,
            Self::CommandLine => words::DRAIN_OFF_AT_TERMINAL,
        }
    }
}

/// What is asked of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(crate) enum AdminOrder {
    /// How it stands.
    Status,
    /// Its rooms.
    Rooms,
    /// To end the turn that runs in a room.
    Stop {
        /// The room as [`AdminOrder::Rooms`] shows it, or a part of that which no other has.
        room: String,
    },
    /// To begin no turn any more, or again.
    Drain {
        /// Whether turns may begin again.
        off: bool,
    },
    /// What rooms have used of today's tokens, or to let a room have so many.
    Budget {
        /// The room, and its tokens.
        allow: Option<(String, u64)>,
    },
    /// What is granted to rooms.
    Grants,
    /// The newest lines of the log.
    Logs,
    /// To let a room have so many tokens, and how many cannot be read.
    NoAmount,
    /// Something that cannot be read.
    Unclear,
}

impl AdminOrder {
    /// Returns its words without the mark of a command, as the audit log has them.
    pub(crate) fn words(&self) -> &'static str {
        match self {
            Self::Status => "admin status",
            Self::Rooms => "admin rooms",
            Self::Stop { .. } => "admin stop",
            Self::Drain { .. } => "admin drain",
            Self::Budget { .. } | Self::NoAmount => "admin budget",
            Self::Grants => "admin grants",
            Self::Logs => "admin logs",
            Self::Unclear => "admin",
        }
    }

    /// Returns whether it changes something.
    pub(crate) fn changes(&self) -> bool {
        matches!(self, Self::Stop { .. } | Self::Drain { .. } | Self::Budget { allow: Some(_) })
    }

    /// Returns the room that it names.
    pub(crate) fn room(&self) -> Option<&str> {
        match self {
            Self::Stop { room } | Self::Budget { allow: Some((room, _)) } => Some(room),
            _ => None,
        }
    }
}

/// The answer: for people, and for programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// For people, in Markdown's plainest form.
    pub(crate) text: String,
    /// For programs.
    pub(crate) value: Value,
}

/// Whoever runs the server.
pub(crate) trait Administrator: Send + Sync {
    /// Carries an order out. `by` is who gave it, and `place` where, as the answer names further orders. The error is a sentence.
    fn carry_out<'a>(&'a self, order: &'a AdminOrder, by: &'a str, place: Place)
    -> BoxFuture<'a, Result<Told, String>>;

    /// Returns the room that somebody on the command line names. The error is a sentence.
    fn room_named<'a>(&'a self, named: &'a str) -> BoxFuture<'a, Result<Address, String>>;
}

/// The way to the administrator, which is there once the server serves. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Administration(Arc<OnceLock<Arc<dyn Administrator>>>);

impl Administration {
    /// Sets who carries orders out. The first one stays.
    pub(crate) fn opens(&self, administrator: Arc<dyn Administrator>) {
        let _ = self.0.set(administrator);
    }

    /// Returns who carries orders out.
    pub(super) fn administrator(&self) -> Option<&dyn Administrator> {
        self.0.get().map(|administrator| &**administrator)
    }
}

/// Reads what follows the mark of a command; `None`: it is another one, or work.
pub(super) fn order(rest: &str) -> Option<AdminOrder> {
    let words = rest.split_whitespace().map(|word| word.trim_matches(AROUND));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let [admin, words @ ..] = &words[..] else { return None };
    if !admin.eq_ignore_ascii_case("admin") {
        return None;
    }
    let verb = words.first().map(|word| word.to_lowercase());
    let order = match (verb.as_deref(), &words[words.len().min(1)..]) {
        (Some("status"), []) => AdminOrder::Status,
        (Some("rooms"), []) => AdminOrder::Rooms,
        // People know rooms by names, which may have several words.
        (Some("stop"), room @ [_, ..]) => AdminOrder::Stop { room: room.join(" ") },
        (Some("drain"), []) => AdminOrder::Drain { off: false },
        (Some("drain"), [off]) if off.eq_ignore_ascii_case("off") => AdminOrder::Drain { off: true },
        (Some("budget"), []) => AdminOrder::Budget { allow: None },
        (Some("budget"), [room @ .., tokens]) if !room.is_empty() => match amount(tokens) {
            Some(tokens) => AdminOrder::Budget { allow: Some((room.join(" "), tokens)) },
            None => AdminOrder::NoAmount,
        },
        (Some("grants"), []) => AdminOrder::Grants,
        (Some("logs"), []) => AdminOrder::Logs,
        _ => AdminOrder::Unclear,
    };
    Some(order)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn orders_are_read_as_people_write_them() {
        let stop = |room: &str| AdminOrder::Stop { room: room.into() };
        for (text, read) in [
            ("admin status", AdminOrder::Status),
            ("Admin  Status.", AdminOrder::Status),
            ("admin `rooms`", AdminOrder::Rooms),
            ("admin stop !r:example.org", stop("!r:example.org")),
            ("admin stop `talk/!R:x`.", stop("talk/!R:x")),
            ("admin stop `The new site`", stop("The new site")),
            ("admin drain", AdminOrder::Drain { off: false }),
            ("admin drain OFF", AdminOrder::Drain { off: true }),
            ("admin budget", AdminOrder::Budget { allow: None }),
            ("admin budget !r:x 1.5M", AdminOrder::Budget { allow: Some(("!r:x".into(), 1_500_000)) }),
            ("admin budget The new site 20k", AdminOrder::Budget { allow: Some(("The new site".into(), 20_000)) }),
            ("admin grants?", AdminOrder::Grants),
            ("admin logs", AdminOrder::Logs),
            ("admin budget !r:x lots", AdminOrder::NoAmount),
            ("admin budget !r:x 1.5", AdminOrder::NoAmount),
        ] {
            assert_eq!(order(text), Some(read), "{text}");
        }
        for unclear in ["admin", "admin help", "admin stop", "admin budget !r:x"] {
            assert_eq!(order(unclear), Some(AdminOrder::Unclear), "{unclear}");
        }
        for other in ["", "status", "administrate it", "stop admin"] {
            assert_eq!(order(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(text in any::<String>()) {
            order(&text);
            order(&format!("admin {text}"));
        }
    }
}
