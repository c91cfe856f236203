//! The names used in every layer: rooms, turns, calls.
//!
//! They are strings in newtypes, so that one cannot be passed for another. Knows nothing of any protocol.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::{Span, error_span};

/// The target of the spans that name accounts, rooms and turns in the log. Their level is `error`, so that any filter that
/// enables the target enables all of them.
pub const SPANS: &str = "matrix_agent::spans";

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }
    };
}

name!(
    /// A room as its chat protocol names it (`!abc:example.org`, `terminal:default`).
    RoomKey
);
name!(
    /// A bot of an account: the one who answers (`coder`).
    BotName
);
name!(
    /// An inbound event's id, unique within its room's protocol; the journal's key.
    EventId
);
name!(
    /// A turn: from the claimed event to its one terminal reply.
    TurnId
);
name!(
    /// A tool call of a turn. Unlike the model's own call id it is unique in the whole store. It is also the
    /// command's id in the sandbox, by which the command is found again after a crash.
    CallId
);

impl TurnId {
    /// Returns the log span of this turn, below the current span.
    pub fn span(&self) -> Span {
        error_span!(target: SPANS, "turn", turn = %self)
    }
}

/// The name of the first account. For a long time it was the only one, so what is named after a room alone belongs to
/// it.
pub const FIRST_ACCOUNT: &str = "coder";

/// Returns the log span of an account's work that belongs to none of its rooms. It is a root span, as a room's is.
pub fn span_of_account(account: &str) -> Span {
    error_span!(target: SPANS, parent: None, "account", %account)
}

/// A room as one account knows it: what an actor owns, the key of most tables, and the owner of a sandbox. Two
/// accounts in one room share nothing.
///
/// As text and as JSON it names the account only if that is not the first one, so that values from the time of only
/// one account keep their meaning.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// The account's name: `coder`.
    #[serde(default = "first_account", skip_serializing_if = "is_first_account")]
    pub account: String,
    /// The room.
    pub room: RoomKey,
}

impl Address {
    /// Returns a room of the first account.
    pub fn of_first(room: impl Into<RoomKey>) -> Self {
        Self { account: first_account(), room: room.into() }
    }

    /// Tells whether the account is the first one.
    pub fn is_of_first(&self) -> bool {
        is_first_account(&self.account)
    }

    /// Returns the log span of this room. It is a root span, since the caller may be working for another room.
    pub fn span(&self) -> Span {
        error_span!(target: SPANS, parent: None, "room", room = %self)
    }

    /// Returns `bytes` bytes of a digest, in hex, for the names of files that belong to this account's room.
    pub fn digest(&self, bytes: usize) -> String {
        if self.is_of_first() {
            return digest(&[self.room.as_str()], bytes);
        }
        // The empty part makes it differ from all rooms of the first account, since no room's key begins with a NUL.
        digest(&["", &self.account, self.room.as_str()], bytes)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_of_first() {
            return fmt::Display::fmt(&self.room, f);
        }
        write!(f, "{}/{}", self.account, self.room)
    }
}

fn first_account() -> String {
    FIRST_ACCOUNT.to_owned()
}

fn is_first_account(account: &str) -> bool {
    account == FIRST_ACCOUNT
}

/// Begins the name of a person at GitHub among the senders of messages; no name of a chat protocol begins so.
const AT_GITHUB: &str = "github:";

/// Returns the name of a person at GitHub, or of a repository that speaks for itself, as the sender of a message.
pub fn at_github(login: &str) -> String {
    format!("{AT_GITHUB}{login}")
}

/// Returns whether the sender of a message is somebody at GitHub. Only the server itself says such a thing of anybody.
pub fn is_at_github(sender: &str) -> bool {
    sender.starts_with(AT_GITHUB)
}

/// Returns the name at GitHub of the sender of a message, if it is a person there.
pub fn login(sender: &str) -> Option<&str> {
    let login = sender.strip_prefix(AT_GITHUB)?;
    login.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-').then_some(login)
}

/// Returns the first `bytes` bytes (at most 32) of the SHA-256 of `parts`, in hex. Each part ends with a NUL, so that
/// `["ab", "c"]` and `["a", "bc"]` differ.
pub fn digest(parts: &[&str], bytes: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hex(&hash.finalize()[..bytes.min(32)])
}

/// Returns `bytes` random bytes in hex, for nonces, secrets and unique names.
pub fn random(bytes: usize) -> String {
    let mut buffer = vec![0_u8; bytes];
    rand::fill(&mut buffer[..]);
    hex(&buffer)
}

/// Returns `bytes` in hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads bytes in hex, of either case; `None` if it is none.
pub fn of_hex(hex: &str) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_hex_are_read_again() {
        assert_eq!(of_hex(&hex(b"\x00\xffab")).as_deref(), Some(&b"\x00\xffab"[..]));
        assert_eq!(of_hex("AbCd"), Some(vec![0xab, 0xcd]));
        assert_eq!(of_hex(""), Some(vec![]));
        for none in ["a", "zz", "+1", "é", "a b "] {
            assert_eq!(of_hex(none), None, "{none}");
        }
    }

    fn talk(room: &str) -> Address {
        Address { account: "talk".into(), room: room.into() }
    }

    #[test]
    fn what_the_first_account_has_is_named_after_the_room_alone() {
        let address = Address::of_first("!r:x");
        assert_eq!(address.to_string(), "!r:x");
        assert_eq!(serde_json::to_string(&address).unwrap(), r#"{"room":"!r:x"}"#);
        assert_eq!(serde_json::from_str::<Address>(r#"{"room":"!r:x"}"#).unwrap(), address);
        assert_eq!(address.digest(16), "3979f211e1caad0ca11590ab62ceaf89");
        assert_eq!(address.digest(4), "3979f211");
    }

    #[test]
    fn what_another_account_has_names_it() {
        let address = talk("!r:x");
        assert_eq!(address.to_string(), "talk/!r:x");
        let json = r#"{"account":"talk","room":"!r:x"}"#;
        assert_eq!(serde_json::to_string(&address).unwrap(), json);
        assert_eq!(serde_json::from_str::<Address>(json).unwrap(), address);
        let others = ["!r:x", "talk/!r:x", "talk", "talk\0!r:x"];
        assert!(others.iter().all(|room| Address::of_first(*room).digest(16) != address.digest(16)));
        assert_ne!(Address { account: "talk!".into(), room: "r:x".into() }.digest(16), address.digest(16));
    }
}
