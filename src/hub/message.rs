//! What passes between a chat protocol and the hub. What is stored is JSON of these types: a variant or a field may be
//! added, never renamed.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::Span;

use crate::{
    bots::Ending,
    ids::{Address, EventId, RoomKey, TurnId},
    store::Sealed,
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
    /// What somebody did there.
    pub body: Body,
    /// The ciphertext that it was read from, where the protocol encrypts: each is taken once, whatever its event is called.
    pub sealed: Option<Sealed>,
}

/// What somebody did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// Wrote a message.
    Said {
        /// The text as it was written.
        text: String,
        /// The thread in which it was written.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
        /// The message to which it replies, if the person chose one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        about: Option<EventId>,
    },
    /// Sent a file.
    File {
        /// Its name as the sender gave it: not to be trusted as a path.
        name: String,
        /// Its type as the sender gave it.
        mime: String,
        /// Its size in bytes, if the sender told it.
        size: Option<u64>,
        /// What the protocol needs to fetch it ([`Fetch`]).
        source: serde_json::Value,
        /// What was written with it; may be empty.
        caption: String,
        /// The thread in which it was sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
        /// The message to which it replies, if the person chose one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        about: Option<EventId>,
    },
    /// Sent something that nobody here can work with: a voice message, a location, a poll.
    Unsupported {
        /// What, as in "I cannot work with ….": `voice messages`.
        what: String,
        /// The thread in which it was sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
    },
    /// Changed an earlier message of the same sender.
    Edited {
        /// That message.
        target: EventId,
        /// Its new text.
        text: String,
    },
    /// Took an earlier message of the same sender back.
    Redacted {
        /// That message.
        target: EventId,
    },
    /// Pressed the button that stops the running turn.
    Stop,
    /// Something that cannot be read until its key comes; nobody acts on it before.
    Locked {
        /// What the protocol needs to try again.
        raw: serde_json::Value,
        /// Its key is there, and nobody vouches for the device that has sent it. Until when, in milliseconds since 1970,
        /// that may change; then it is given up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<i64>,
    },
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
        /// The other events that it answers: what was said during the turn and taken into it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        others: Vec<EventId>,
        /// Who asked.
        sender: String,
        /// The thread in which they did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
    },
    /// What a turn's progress message says in the end, if the protocol made one. Follows the answer.
    Closing {
        /// The event that asked.
        asked: EventId,
        /// How the turn ended.
        ending: Ending,
        /// What it took, in a few words: `7 tools · 1:12`.
        footer: String,
        /// The thread in which it was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
    },
    /// A sentence to the room that answers nobody: a greeting, what became of its sandbox.
    Notice {
        /// Markdown.
        text: String,
    },
    /// The reply to a command.
    Reply {
        /// Markdown.
        text: String,
        /// The event that asked.
        asked: EventId,
        /// The thread in which it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
    },
    /// A file; its bytes stand beside this in the outbox.
    File {
        /// Its name, without a path.
        name: String,
        /// Its type.
        mime: String,
        /// The thread of the turn that made it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
    },
}

/// What is worth seeing while a turn works. Never durable: a client that misses some sees the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Live {
    /// A turn has begun for this event.
    Started {
        /// The event that asked.
        asked: EventId,
        /// The thread in which it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
    },
    /// All turns that may run at once are running; this one waits.
    Queued {
        /// The event that asked.
        asked: EventId,
        /// The thread in which it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
        /// How many wait before it.
        before: usize,
    },
    /// A message that was said during a turn has reached it. It is taken in with the next step, or begins a turn of its
    /// own should there be none.
    Heard {
        /// That message.
        said: EventId,
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
    /// The model is asked, for the first time or again: text that was not followed by a call or the answer is void.
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
        /// The line, without control characters; a coding agent's may be two, parted by a line break.
        line: String,
    },
    /// A program in the sandbox tells what it does: a coding agent's hook, a script.
    Told {
        /// One line, without control characters.
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

/// What a message brings along, to be fetched by its protocol when its turn has come.
#[derive(Debug)]
pub enum Fetch {
    /// A file.
    File(FetchFile),
    /// The message to which it replies.
    Quote(FetchQuote),
}

/// A file that somebody sent.
#[derive(Debug)]
pub struct FetchFile {
    /// The file's [`Body::File::source`].
    pub source: serde_json::Value,
    /// The most bytes that are wanted.
    pub limit: u64,
    /// Gets the bytes, or why there are none.
    pub done: oneshot::Sender<Result<Vec<u8>, NotFetched>>,
}

/// A message to which somebody replies.
#[derive(Debug)]
pub struct FetchQuote {
    /// The room.
    pub room: RoomKey,
    /// The message.
    pub event: EventId,
    /// Gets what it says, or why that is not known.
    pub done: oneshot::Sender<Result<Quoted, NotQuoted>>,
}

/// A message to which somebody replies, as it reads now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Who wrote it.
    pub sender: String,
    /// What their word counts for.
    pub author: Author,
    /// What they wrote or sent.
    pub body: Body,
}

/// What the word of a quoted message's author counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// The bot itself wrote it.
    Bot,
    /// Somebody who may command the bot.
    Listed,
    /// Somebody who may not.
    Stranger,
    /// It stands in the clear in an encrypted room: anybody may have written it under that name.
    Unproven,
}

/// Why a quoted message is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotQuoted {
    /// It was taken back.
    TakenBack,
    /// It is not there, cannot be decrypted, or is none that could be read.
    Unreadable,
    /// The chat server does not answer now.
    Away,
}

/// Why a file was not fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFetched {
    /// It has more bytes than are wanted, as far as that is known: this many at least.
    TooLarge(u64),
    /// Something else, in words for who sent it.
    Failed(String),
}

/// A [`Live`] event with where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveIn {
    /// The account and the room.
    pub address: Address,
    /// The turn that is open there, if one is.
    pub turn: Option<TurnId>,
    /// What happened.
    pub live: Live,
}

impl LiveIn {
    /// Returns the span in which it is shown: its room's, and its turn's.
    pub fn span(&self) -> Span {
        span_of(&self.address, self.turn.as_ref())
    }
}

/// Returns the span of what is done in a room, and for a turn if it is for one.
pub(super) fn span_of(address: &Address, turn: Option<&TurnId>) -> Span {
    let room = address.span();
    match turn {
        Some(turn) => room.in_scope(|| turn.span()),
        None => room,
    }
}
