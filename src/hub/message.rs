//! The types that pass between a chat protocol and the hub. The journal and the outbox store them as JSON, so
//! variants and fields may be added, never renamed.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::Span;

use crate::{
    bots::{Addressed, Ending, Thoughts},
    ids::{Address, EventId, RoomKey, TurnId},
    store::Sealed,
};

/// Something that happened in a room, as the chat protocol read it.
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound {
    /// The room.
    pub room: RoomKey,
    /// The event's id; the journal takes each id once.
    pub event: EventId,
    /// Who did it, by their name in that protocol.
    pub sender: String,
    /// What somebody did there.
    pub body: Body,
    /// The ciphertext from which it was decrypted, if it was: each ciphertext is taken once, whatever the event's id.
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
        /// What tells that the account is meant.
        #[serde(default, skip_serializing_if = "Addressed::is_nothing")]
        addressed: Addressed,
    },
    /// Sent a file.
    File {
        /// Its name as the sender gave it: not to be trusted as a path.
        name: String,
        /// Its media type as the sender gave it.
        mime: String,
        /// Its size in bytes, if the sender gave one.
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
        /// What tells that the account is meant.
        #[serde(default, skip_serializing_if = "Addressed::is_nothing")]
        addressed: Addressed,
    },
    /// Sent something that no bot can work with: a voice message, a location, a poll.
    Unsupported {
        /// Its kind, as it stands in "I cannot work with …": `voice messages`.
        what: String,
        /// The thread in which it was sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
    },
    /// Edited an earlier message of their own.
    Edited {
        /// The message.
        target: EventId,
        /// Its new text.
        text: String,
        /// What tells now that the account is meant.
        #[serde(default, skip_serializing_if = "Addressed::is_nothing")]
        addressed: Addressed,
    },
    /// Redacted an earlier message of their own.
    Redacted {
        /// The message.
        target: EventId,
    },
    /// Pressed the button that stops the running turn.
    Stop,
    /// Sent something that cannot be decrypted yet. No bot is asked before its key comes.
    Locked {
        /// What the protocol needs to try again.
        raw: serde_json::Value,
        /// The deadline, in milliseconds since 1970, of an event whose key is there but whose sending device is not
        /// verified. If the device is not verified by then, the event is given up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<i64>,
    },
}

impl Body {
    /// Returns a message of these words and nothing else.
    pub fn said(text: impl Into<String>) -> Self {
        Self::Said { text: text.into(), thread: None, about: None, addressed: Addressed::default() }
    }
}

/// What must reach a room exactly once. It is frozen when the outbox stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outbound {
    /// A turn's one terminal reply.
    Answer {
        /// Markdown.
        text: String,
        /// What the turn used, such as tools, tokens and time, in a few words.
        footer: String,
        /// How the turn ended.
        ending: Ending,
        /// The event that asked.
        asked: EventId,
        /// The other events that it answers: messages that steered the turn.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        others: Vec<EventId>,
        /// Who asked.
        sender: String,
        /// The thread of the event that asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
        /// Whether it was shown as it came: it takes the place of that message, if there is one.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        streamed: bool,
        /// What the model has thought.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thoughts: Option<Thoughts>,
    },
    /// The final text of a turn's progress message, if the protocol made one. Sent after the answer.
    Closing {
        /// The event that asked.
        asked: EventId,
        /// How the turn ended.
        ending: Ending,
        /// What the turn used, in a few words: `7 tools · 1:12`.
        footer: String,
        /// The thread of the event that asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
    },
    /// A message that answers nobody: a greeting, what became of the sandbox, news of a turn.
    Notice {
        /// Markdown.
        text: String,
        /// Set if it calls people, as a card does and news of a turn, or ends a card.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        card: Option<CardPlace>,
    },
    /// The reply to a command.
    Reply {
        /// Markdown.
        text: String,
        /// The event that asked.
        asked: EventId,
        /// The thread of the event that asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
        /// The transaction id of what was replied meanwhile, and in whose place this stands.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<String>,
    },
    /// The detailed log of a turn's call, which is sent where it disturbs nobody: into the thread of the question or,
    /// if that was asked in a thread, there as a file.
    Log {
        /// Plain lines under a title.
        text: String,
        /// The event that asked.
        asked: EventId,
        /// The thread of the event that asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
    },
    /// A file, whose bytes the outbox keeps beside the row.
    File {
        /// Its name, without a path.
        name: String,
        /// Its media type.
        mime: String,
        /// The thread of the turn that made it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
    },
}

/// Where a card is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardPlace {
    /// The thread of the turn for which it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<EventId>,
    /// The transaction id of the card that has ended, and in whose place this stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Whom it calls in particular, by their name in the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<String>,
}

/// What is worth seeing while a turn works. Live events are never stored: a client that misses one waits for the
/// next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Live {
    /// A turn has begun for this event.
    Started {
        /// The event that asked.
        asked: EventId,
        /// The thread of the event that asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
    },
    /// The turn waits for a permit, because as many turns run as may, or none may begin.
    Queued {
        /// The event that asked.
        asked: EventId,
        /// The thread of the event that asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
        /// How many wait before it.
        before: usize,
        /// Whether no turn begins now, however few wait: an administrator wants it so.
        #[serde(default)]
        held: bool,
    },
    /// A message that was sent during a turn was handed to it. The turn takes it in at its next step; if it has no
    /// further step, the message begins a turn of its own.
    Heard {
        /// The message.
        said: EventId,
    },
    /// The running turn took a message in.
    Seen {
        /// The message.
        said: EventId,
    },
    /// A piece of the model's text.
    Text {
        /// The piece.
        delta: String,
    },
    /// The turn's answer is shown as it comes: this is all of it so far, and may be empty.
    Draft {
        /// Markdown.
        text: String,
    },
    /// The model is asked, for the first time or again. Text that was shown since the last call or answer is void.
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
        /// The call's id.
        call: String,
        /// The line, without control characters. A coding agent's may be two lines with a line break between them.
        line: String,
    },
    /// A program in the sandbox (a coding agent's hook, a script) reports what it does.
    Told {
        /// One line, without control characters.
        line: String,
    },
    /// A tool has ended.
    ToolEnded {
        /// The call's id.
        call: String,
        /// Its result, in one line.
        summary: String,
        /// Whether it succeeded.
        ok: bool,
    },
    /// Something the person should know now (the model is slow, the context was compacted).
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

/// A request to a chat protocol: for what a message brings along, made when the bot is about to need it, or for a room.
#[derive(Debug)]
pub enum Fetch {
    /// A file that somebody sent.
    File(FetchFile),
    /// The message to which it replies.
    Quote(FetchQuote),
    /// A room that is to be there.
    Room(MakeRoom),
}

/// A room that is to be made, unless it was before.
#[derive(Debug)]
pub struct MakeRoom {
    /// Names it among all rooms that this account makes, for ever: letters, digits and `-`.
    pub key: String,
    /// What people see as its name.
    pub name: String,
    /// Who is to come, by their names in that protocol.
    pub people: Vec<String>,
    /// Gets the room, or why there is none.
    pub done: oneshot::Sender<Result<RoomKey, NotMade>>,
}

/// Why there is no room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMade {
    /// The chat server does not answer now.
    #[error("the chat server does not answer now")]
    Away,
    /// It refuses.
    #[error("the chat server makes no room: {0}")]
    Refused(String),
    /// No protocol is served in which there could be one.
    #[error("there is no chat in which a room could be made")]
    Nowhere,
}

/// A file that somebody sent.
#[derive(Debug)]
pub struct FetchFile {
    /// The file's [`Body::File::source`].
    pub source: serde_json::Value,
    /// The most bytes to fetch.
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
    /// Gets the message as it reads now, or why it is not known.
    pub done: oneshot::Sender<Result<Quoted, NotQuoted>>,
}

/// A message to which somebody replies, as it reads now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Who wrote it.
    pub sender: String,
    /// How far the author is to be trusted.
    pub author: Author,
    /// What they wrote or sent.
    pub body: Body,
}

/// How far the author of a quoted message is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// The bot itself wrote it.
    Bot,
    /// Somebody whom the bot hears.
    Listed,
    /// Somebody whom the bot does not hear.
    Stranger,
    /// It was sent unencrypted in an encrypted room, so anybody may have written it under that name.
    Unproven,
}

/// Why a quoted message is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotQuoted {
    /// It was redacted.
    TakenBack,
    /// It does not exist, cannot be decrypted, or is of a kind that cannot be quoted.
    Unreadable,
    /// The chat server does not answer now.
    Away,
}

/// Why a file was not fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFetched {
    /// It is larger than the limit: it has at least so many bytes.
    TooLarge(u64),
    /// Another reason, as a sentence for the sender.
    Failed(String),
}

/// A [`Live`] event with its room and turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveIn {
    /// The account and the room.
    pub address: Address,
    /// The turn that is open in the room, if any.
    pub turn: Option<TurnId>,
    /// What happened.
    pub live: Live,
}

impl LiveIn {
    /// Returns the log span of its room, and of its turn within it.
    pub fn span(&self) -> Span {
        span_of(&self.address, self.turn.as_ref())
    }
}

/// Returns the log span of work in a room, within it that of a turn if the work is for one.
pub(super) fn span_of(address: &Address, turn: Option<&TurnId>) -> Span {
    let room = address.span();
    match turn {
        Some(turn) => room.in_scope(|| turn.span()),
        None => room,
    }
}
