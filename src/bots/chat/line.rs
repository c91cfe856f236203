//! What a conversation stores: one line for each message. Fields and variants may be added, never renamed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::modes::{self, Mode};
use crate::{
    bots::UserMessage,
    ids::EventId,
    llm::{self, AssistantMessage, Part},
};

/// One stored line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub(super) enum Line {
    /// What somebody said to the bot.
    Asked {
        /// Words and pictures.
        parts: Vec<Part>,
        /// The thread in which they said it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
        /// The word of the mode that they chose.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<String>,
        /// The event by which it came; older lines do not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        event: Option<EventId>,
    },
    /// What the bot answered.
    Answered {
        /// The model's message, without its reasoning.
        message: AssistantMessage,
        /// The thread in which it was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
        /// How many tokens the request had.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        counted: Option<Counted>,
    },
    /// What was asked last came to nothing, and is not asked again.
    Void {
        /// The thread in which it was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thread: Option<EventId>,
    },
}

/// What a stored line says, for who looks at it later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spoken {
    /// Whether the bot has said it.
    pub(crate) by_bot: bool,
    /// The words.
    pub(crate) text: String,
}

/// Returns what a stored line of a bot that chats says; `None` if it is none, or says nothing.
pub(crate) fn spoken(line: &Value) -> Option<Spoken> {
    match serde_json::from_value(line.clone()).ok()? {
        Line::Asked { parts, .. } => Some(Spoken { by_bot: false, text: llm::words(&parts) }),
        Line::Answered { message, .. } => Some(Spoken { by_bot: true, text: message.text }),
        Line::Void { .. } => None,
    }
}

/// How many tokens a request had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counted {
    /// As they were guessed.
    pub(super) guessed: u64,
    /// As the provider has told.
    pub(super) told: u64,
}

impl Line {
    /// Returns what is stored of what somebody said to a bot with these modes.
    pub(super) fn asked(message: &UserMessage, modes: &[Mode]) -> Self {
        let (mode, words) = modes::read(&message.text, modes);
        let words = if mode.is_some() { words } else { message.text.as_str() };
        let text = match &message.speaker {
            Some(speaker) => format!("{speaker}: {words}"),
            None => words.to_owned(),
        };
        let parts = std::iter::once(Part::Text { text }).chain(message.pictures.iter().cloned()).collect();
        let (thread, mode) = (message.thread.clone(), mode.map(|mode| mode.word.to_owned()));
        Self::Asked { parts, thread, mode, event: Some(message.event.clone()) }
    }

    /// Returns the thread to which it belongs.
    pub(super) fn thread(&self) -> Option<&EventId> {
        match self {
            Self::Asked { thread, .. } | Self::Answered { thread, .. } | Self::Void { thread } => thread.as_ref(),
        }
    }

    /// Returns the word of the mode in which something is asked.
    pub(super) fn mode(&self) -> Option<&str> {
        match self {
            Self::Asked { mode, .. } => mode.as_deref(),
            Self::Answered { .. } | Self::Void { .. } => None,
        }
    }

    /// Returns whether it came by this event.
    pub(super) fn came_by(&self, sought: &EventId) -> bool {
        matches!(self, Self::Asked { event: Some(event), .. } if event == sought)
    }

    /// Returns whether a picture belongs to it.
    pub(super) fn shows(&self) -> bool {
        let Self::Asked { parts, .. } = self else { return false };
        parts.iter().any(|part| !matches!(part, Part::Text { .. }))
    }

    /// Returns it as it is stored.
    pub(super) fn to_json(&self) -> Value {
        // Lines are plain data: nothing in them can fail to become JSON.
        serde_json::to_value(self).unwrap_or_default()
    }
}
