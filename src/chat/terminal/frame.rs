//! The frames between a terminal client and the server: JSON, one frame a line.

use serde::{Deserialize, Serialize};

use crate::{
    hub::{Ending, Live},
    ids::EventId,
};

/// The version of this protocol. Client and server must have the same.
pub(super) const PROTOCOL: u32 = 3;
/// The longest line of a client in bytes: a prompt of 256 KiB, JSON-escaped.
pub(super) const CLIENT_LINE: usize = 2 << 20;
/// The longest line of a server in bytes: a file of 20 MiB in base64, and its name.
pub(super) const SERVER_LINE: usize = 32 << 20;
/// The longest message in bytes.
pub(super) const MESSAGE: usize = 256 << 10;

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(crate) enum ClientFrame {
    /// Says something in the room.
    Say {
        /// The client's id for it. If it is sent again after a broken connection, it is taken once.
        id: EventId,
        /// The message.
        text: String,
    },
    /// Stops the running turn.
    Stop {
        /// The client's id for it.
        id: EventId,
    },
    /// Asks what became of a message, after a reconnect or a long wait.
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
pub(crate) struct Hello {
    /// The version of the server's protocol.
    pub protocol: u32,
    /// The server's version, for display.
    pub version: String,
}

impl Hello {
    /// Returns this program's greeting.
    pub(crate) fn ours() -> Self {
        Self { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").into() }
    }
}

/// What the server sends, and what `chat --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum ServerFrame {
    /// A message is in the journal and will be answered.
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
        /// What the turn used, in a few words.
        footer: String,
        /// How the turn ended.
        ending: Ending,
        /// The message that asked.
        asked: EventId,
        /// The other messages that it answers: those that steered the turn.
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
        /// Its media type.
        mime: String,
        /// On the wire, its bytes in base64, or nothing if another client has saved the file; in `chat --json`, the
        /// path under which it was saved.
        #[serde(default)]
        data: Option<String>,
    },
    /// A confirmation was stored: the part is not sent again.
    Noted {
        /// Its transaction id.
        txn: String,
    },
    /// The message of a [`ClientFrame::Open`] is not answered yet.
    Open {
        /// The client's id for it.
        id: EventId,
    },
    /// The message of a [`ClientFrame::Open`] is unknown.
    Unknown {
        /// The client's id for it.
        id: EventId,
    },
    /// Something that the client sent was refused.
    Refused {
        /// The client's id of the message that is refused, if it was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<EventId>,
        /// A plain sentence.
        text: String,
    },
}
