//! What passes over the socket between a terminal client and the server: JSON, a frame a line.

use serde::{Deserialize, Serialize};

use crate::{
    hub::{Ending, Live},
    ids::EventId,
};

/// The version of this protocol. A client and a server of different versions do not talk.
pub(super) const PROTOCOL: u32 = 3;
/// The longest line a client may send: a prompt of 256 KiB, JSON-escaped.
pub(super) const CLIENT_LINE: usize = 2 << 20;
/// The longest line a server sends: a file of 20 MiB in base64, and its name.
pub(super) const SERVER_LINE: usize = 32 << 20;
/// The longest message.
pub(super) const MESSAGE: usize = 256 << 10;

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Say {
    /// Says something in the room.
    Say {
        /// The client's id for it: sent again after a broken connection, it is taken once.
        id: EventId,
        /// What.
        text: String,
    },
    /// Stops the running turn.
    Stop {
        /// The client's id for it.
        id: EventId,
    },
    /// Asks what became of something that the client has said: it comes back, or has waited for a while.
    Open {
        /// The client's id for it.
        id: EventId,
    },
    /// Confirms that something was shown.
    Shown {
        /// Its transaction id.
        txn: String,
    },
}

/// What the server says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the server.
    pub protocol: u32,
    /// The server's version, for people.
    pub version: String,
}

impl Hello {
    /// Returns this program's greeting.
    pub fn ours() -> Self {
        Self { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").into() }
    }
}

/// What the server sends, and what `chat --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ServerFrame {
    /// A message is in the journal: it will be answered, come what may.
    Admitted {
        /// The client's id.
        id: EventId,
    },
    /// What happens in the running turn.
    Live {
        /// What.
        #[serde(flatten)]
        live: Live,
    },
    /// A turn's one answer.
    Answer {
        /// The transaction id, to be confirmed.
        txn: String,
        /// Markdown.
        text: String,
        /// What it took.
        footer: String,
        /// How the turn ended.
        ending: Ending,
        /// The message that asked.
        asked: EventId,
        /// The other messages that it answers: those that were taken into the turn.
        #[serde(default)]
        others: Vec<EventId>,
    },
    /// The reply to a command.
    Reply {
        /// The transaction id, to be confirmed.
        txn: String,
        /// Markdown.
        text: String,
        /// The message that asked.
        asked: EventId,
    },
    /// A file for the person.
    File {
        /// The transaction id, to be confirmed.
        txn: String,
        /// Its name.
        name: String,
        /// Its type.
        mime: String,
        /// Its bytes in base64 on the wire, or nothing if another client has saved the same file; the path under which it
        /// lies in `chat --json`.
        #[serde(default)]
        data: Option<String>,
    },
    /// What the client has confirmed is noted: it will not be sent again.
    Noted {
        /// Its transaction id.
        txn: String,
    },
    /// What the client has asked for with [`Say::Open`] is not answered yet.
    Open {
        /// The client's id for it.
        id: EventId,
    },
    /// What the client has asked for with [`Say::Open`] is not known here.
    Unknown {
        /// The client's id for it.
        id: EventId,
    },
    /// Something the client did was refused.
    Refused {
        /// The client's id for what is not taken, if it was something to be answered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<EventId>,
        /// A plain sentence.
        text: String,
    },
}
