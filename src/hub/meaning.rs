//! What an event of the journal asks of its room's actor. Pure.

use crate::{
    bots::{Command, Intent},
    ids::EventId,
    store::StoredInbound,
};

use super::Body;

/// What is to be done about an event.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Meaning {
    /// Work.
    Ask(Ask),
    /// The running turn is to end.
    Stop,
    /// Something that needs no model.
    Command(Command),
    /// An earlier message is changed.
    Change(Change),
    /// Something that nobody here can work with; what.
    Unsupported(String),
    /// It cannot be read.
    Broken,
}

/// What somebody asks for, and what that brings along.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ask {
    /// The words; may be empty beside a file.
    pub(super) text: String,
    pub(super) file: Option<FileSent>,
    /// The message to which it replies.
    pub(super) about: Option<EventId>,
}

impl Ask {
    /// Returns whether the words are all.
    pub(super) fn is_plain(&self) -> bool {
        self.file.is_none() && self.about.is_none()
    }
}

/// A file that waits to be fetched.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FileSent {
    pub(super) name: String,
    pub(super) mime: String,
    pub(super) size: Option<u64>,
    pub(super) source: serde_json::Value,
}

/// An edit or a redaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The message.
    pub(super) target: EventId,
    /// Its new text; `None`: it is taken back.
    pub(super) text: Option<String>,
}

impl Meaning {
    /// Reads an event; also returns the thread in which it was said.
    pub(super) fn of(event: &StoredInbound) -> (Self, Option<EventId>) {
        let body = match serde_json::from_value(event.body.clone()) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(event = %event.event, %error, "a journaled event cannot be read");
                return (Self::Broken, None);
            }
        };
        match body {
            Body::Said { text, thread, about } => match Intent::of(&text) {
                Intent::Ask(text) => (Self::Ask(Ask { text, file: None, about }), thread),
                Intent::Command(Command::Stop) => (Self::Stop, thread),
                Intent::Command(command) => (Self::Command(command), thread),
            },
            Body::File { name, mime, size, source, caption, thread, about } => {
                let file = FileSent { name, mime, size, source };
                (Self::Ask(Ask { text: caption, file: Some(file), about }), thread)
            }
            Body::Unsupported { what, thread } => (Self::Unsupported(what), thread),
            Body::Edited { target, text } => (Self::Change(Change { target, text: Some(text) }), None),
            Body::Redacted { target } => (Self::Change(Change { target, text: None }), None),
            Body::Stop => (Self::Stop, None),
            // Never journaled before it was unlocked.
            Body::Locked { .. } => (Self::Broken, None),
        }
    }

    /// Returns the thread of an event.
    pub(super) fn thread(event: &StoredInbound) -> Option<EventId> {
        Self::of(event).1
    }

    /// Returns whether it is said to the model.
    pub(super) fn is_work(&self) -> bool {
        matches!(self, Self::Ask(_))
    }
}

/// Returns a stored body with another text, and its old one; `None` if it has no text that could be changed.
pub(super) fn with_text(body: &serde_json::Value, text: &str) -> Option<Body> {
    match serde_json::from_value(body.clone()).ok()? {
        Body::Said { thread, about, .. } => Some(Body::Said { text: text.to_owned(), thread, about }),
        Body::File { name, mime, size, source, thread, about, .. } => {
            Some(Body::File { name, mime, size, source, caption: text.to_owned(), thread, about })
        }
        _ => None,
    }
}

/// Returns a stored body's words, or the name of its file.
pub(super) fn words(body: &serde_json::Value) -> String {
    match serde_json::from_value(body.clone()) {
        Ok(Body::Said { text, .. }) => text,
        Ok(Body::File { name, caption, .. }) => {
            if caption.trim().is_empty() {
                name
            } else {
                caption
            }
        }
        _ => String::new(),
    }
}
