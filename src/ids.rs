//! The names that travel through every layer: rooms, turns, calls.
//!
//! They are plain strings in newtypes, so that one cannot be passed for another. Knows nothing of any protocol.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

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
    /// One turn: from the claimed event to its one terminal reply.
    TurnId
);
name!(
    /// One tool call of one turn. Unlike the model's own call id it is unique in the whole store; it is also the
    /// command's id in the sandbox, so that a call can be found again after a crash.
    CallId
);

/// A room as one account knows it: what one actor owns, and the key of nearly every table. Two accounts in one room share
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// The account's name: `coder`.
    pub account: String,
    /// The room.
    pub room: RoomKey,
}

/// Returns the first `bytes` bytes of the SHA-256 of `parts`, in hex. Each part is closed by a NUL, so that
/// `["ab", "c"]` and `["a", "bc"]` differ.
pub fn digest(parts: &[&str], bytes: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hex(&hash.finalize()[..bytes.min(32)])
}

/// Returns `bytes` random bytes from the operating system, in hex: for nonces, boot ids and instance ids.
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
