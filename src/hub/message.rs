//! What passes between a chat protocol and the hub. What is stored is JSON of these types: a variant or a field may be
//! added, never renamed.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{EventId, RoomKey},
    store::Address,
};

/// Something that happened in a room, as the chat protocol read it.
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound {
    /// The room.
    pub room: RoomKey,
    /// The event's id: the journal takes each once.
    pub event: EventId,
    /// Who did it, as people of that protocol are named.
    pub sender: String,
    /// What.
    pub body: Body,
}

/// What somebody did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// Wrote a message.
    Said {
        /// The text as it was written.
        text: String,
    },
    /// Pressed the button that stops the running turn.
    Stop,
}

/// What must reach the room once; frozen in the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outbound {
    /// A turn's one terminal reply.
    Answer {
        /// Markdown.
        text: String,
        /// What it took: turns, tools, tokens, time.
        footer: String,
        /// How the turn ended.
        ending: Ending,
        /// The event that asked.
        asked: EventId,
        /// Who asked.
        sender: String,
    },
    /// The reply to a command.
    Reply {
        /// Markdown.
        text: String,
        /// The event that asked.
        asked: EventId,
    },
    /// A file; its bytes stand beside this in the outbox.
    File {
        /// Its name, without a path.
        name: String,
        /// Its type.
        mime: String,
    },
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The model said that it is done.
    Done,
    /// Somebody stopped it.
    Stopped,
    /// It could not go on.
    Failed,
    /// One of its limits was reached.
    Limit,
}

/// What is worth seeing while a turn works. Never durable: a client that misses some sees the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Live {
    /// A turn has begun for this event.
    Started {
        /// The event that asked.
        asked: EventId,
    },
    /// A message was taken into the running turn.
    Seen {
        /// That message.
        said: EventId,
    },
    /// A piece of the model's text.
    Text {
        /// The piece.
        delta: String,
    },
    /// The model thinks.
    Thinking,
    /// A tool has begun.
    ToolStarted {
        /// The call.
        call: String,
        /// The tool.
        name: String,
        /// What it does, in a line.
        detail: String,
    },
    /// A tool's newest line of output.
    ToolOutput {
        /// The call.
        call: String,
        /// The line, without control characters.
        line: String,
    },
    /// A tool has ended.
    ToolEnded {
        /// The call.
        call: String,
        /// What came of it, in a line.
        summary: String,
        /// Whether it went well.
        ok: bool,
    },
    /// Something the person should know now (the model is slow, the context was summarised).
    Notice {
        /// A plain sentence.
        text: String,
    },
    /// The turn has ended; its answer follows through the outbox.
    Ended {
        /// How.
        ending: Ending,
    },
}

/// A [`Live`] event with where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveIn {
    /// The bot and the room.
    pub address: Address,
    /// What happened.
    pub live: Live,
}
