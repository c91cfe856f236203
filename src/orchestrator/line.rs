//! What a turn writes down: messages with where they came from. The journal keeps lines as JSON, one after the other;
//! a turn's whole state is a fold over its lines, so that a resumed turn decides as the first one would have.
//!
//! Fields and variants may be added, never renamed. Knows no store; called by everything in `orchestrator`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ids::{CallId, EventId},
    llm::{Message, Part, Usage},
    strings::turns,
    tools::Word,
};

use super::{limits::Limit, words};

/// One stored message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The message as the model is shown it.
    pub message: Message,
    /// Where it came from.
    pub origin: Origin,
}

/// Where a line came from, with what the model is not told of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Origin {
    /// The standing instructions. Made anew for every turn, never stored.
    System,
    /// Somebody in the room.
    Person {
        /// The event that this line answers for: its claim and the line are one transaction.
        event: EventId,
        /// The call that took it while it ran, and passed it on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        taken_by: Option<CallId>,
    },
    /// The program, in the person's place.
    Program {
        /// Why it spoke.
        note: Note,
    },
    /// The model: calls, or a text that the program did not take for the answer.
    Model {
        /// The ids of its calls, in their order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        calls: Vec<CallId>,
        /// Why a call must not run, for each call; such a call has no other result.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        refused: Vec<Option<String>>,
        /// The tokens that the request used.
        #[serde(default)]
        usage: Usage,
    },
    /// A call's result.
    Result {
        /// The call.
        call: CallId,
        /// Whether it ran at all.
        ran: bool,
        /// Whether it did what was asked.
        ok: bool,
        /// The facts by which a later claim of "done" is checked.
        facts: CallFacts,
        /// Pictures that it made: shown to the model after all results of the batch.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pictures: Vec<Part>,
    },
    /// The pictures of a batch's results, as one message: stored by a compaction alone, and else made from the results.
    Pictures,
    /// The turn's last line: the answer, or the program's note of an end without one.
    Final {
        /// How the turn ended.
        #[serde(rename = "status")]
        ending: Ending,
    },
    /// What compaction made of everything before it.
    Summary {
        /// The people's own words, so that the next compaction still has them.
        words: Vec<String>,
    },
}

/// Why the program spoke to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Note {
    /// The model's message was empty, or ran away, or held a call that its provider could not read; it was dropped.
    Empty,
    /// The model's message was a call written as text, and was dropped.
    CallInText,
    /// The model goes in circles.
    Stuck,
    /// The model claims success that no test run shows.
    Unproven,
    /// A limit is reached.
    WrapUp {
        /// The limit.
        limit: Limit,
    },
}

/// Facts about a call, by which a later claim of "done" is checked, and what it used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallFacts {
    /// Files that it changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<Edit>,
    /// Whether the tests passed, if it was a test run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tests: Option<bool>,
    /// Whether it only waited for something that runs on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
    /// Tokens that it used of models other than the orchestrator's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used: Vec<ModelUse>,
}

/// Tokens that were used of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelUse {
    /// The model.
    pub model: String,
    /// Its tokens.
    #[serde(flatten)]
    pub usage: Usage,
}

/// A changed file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// Its path as the tool knows it.
    pub path: String,
    /// The number of lines added.
    pub added: u32,
    /// The number of lines removed.
    pub removed: u32,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The model gave its answer.
    Done,
    /// The person stopped it.
    Stopped,
    /// It could not go on.
    Failed,
    /// It reached a limit.
    Limit,
}

impl Ending {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Done, Self::Stopped, Self::Failed, Self::Limit];

    /// Returns it in a word, as it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Limit => "limit",
        }
    }
}

/// What a person said.
#[derive(Clone, Debug, PartialEq)]
pub struct UserMessage {
    /// The event by which it came.
    pub event: EventId,
    /// Who said it, where the model should be told: only if more than one person speaks in the room.
    pub speaker: Option<String>,
    /// The words.
    pub text: String,
    /// The pictures that came with them, as [`Part::Picture`]s.
    pub pictures: Vec<Part>,
    /// The thread in which they were said.
    pub thread: Option<EventId>,
}

impl UserMessage {
    /// Returns what the conversation stores of it.
    pub fn to_line(&self) -> Line {
        let text = match &self.speaker {
            Some(speaker) => format!("{speaker}: {}", self.text),
            None => self.text.clone(),
        };
        let parts = std::iter::once(Part::Text { text }).chain(self.pictures.iter().cloned()).collect();
        Line { message: Message::User { parts }, origin: Origin::Person { event: self.event.clone(), taken_by: None } }
    }

    /// Returns what the conversation stores of it when a running call takes it.
    pub(super) fn to_line_of(&self, call: &CallId) -> Line {
        let origin = Origin::Person { event: self.event.clone(), taken_by: Some(call.clone()) };
        Line { origin, ..self.to_line() }
    }
}

impl Line {
    /// Returns what the conversation stores of it.
    pub fn to_json(&self) -> Value {
        // Lines are plain data: nothing in them can fail to become JSON.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Returns the last line of a turn that the program ended in the model's place. What the person reads is more than
    /// that, and would be taken for the model's own words; it is not stored.
    pub(super) fn ended(ending: Ending, note: String) -> Self {
        let message = Message::User { parts: vec![Part::Text { text: note }] };
        Self { message, origin: Origin::Final { ending } }
    }

    /// Returns the program's note in place of a sentence that an older version stored as the model's own.
    pub(super) fn mended(self) -> Self {
        let (Message::Assistant(message), Origin::Final { ending }) = (&self.message, &self.origin) else {
            return self;
        };
        // A message of a model carries the model's name; the program's sentences carry none.
        let program = message.model.is_empty() && message.calls.is_empty();
        let note = match ending {
            Ending::Stopped if program => words::NOTE_STOPPED,
            Ending::Failed if program => words::NOTE_FAILED,
            Ending::Limit if program && message.text.starts_with(turns::STOPPED_AT) => words::NOTE_LIMIT,
            _ => return self,
        };
        Self::ended(*ending, note.to_owned())
    }

    /// Returns the names of the pictures whose files are kept, each with the place for its data.
    pub(super) fn pictures(&mut self) -> Vec<(&String, &mut Option<Arc<str>>)> {
        let said = match &mut self.message {
            Message::User { parts } => &mut parts[..],
            _ => &mut [],
        };
        let made = match &mut self.origin {
            Origin::Result { pictures, .. } => &mut pictures[..],
            _ => &mut [],
        };
        let frames = said.iter_mut().chain(made).filter_map(|part| match part {
            Part::Picture { name, data, .. } => Some((&*name, data)),
            _ => None,
        });
        frames.collect()
    }

    /// Returns the words as a call gets them that has taken this line; `None` if no person said it.
    pub(super) fn word(&self) -> Option<Word> {
        let (Message::User { parts }, Origin::Person { event, .. }) = (&self.message, &self.origin) else {
            return None;
        };
        let texts = parts.iter().filter_map(|part| match part {
            Part::Text { text } => Some(text.as_str()),
            Part::Image { .. } | Part::Picture { .. } => None,
        });
        Some(Word { event: event.clone(), text: texts.collect::<Vec<_>>().join("\n") })
    }

    /// Returns a line in which the program speaks to the model.
    pub(super) fn program(note: Note, text: String) -> Self {
        Self { message: Message::User { parts: vec![Part::Text { text }] }, origin: Origin::Program { note } }
    }
}
