//! What an event of the journal asks of its room's actor. Pure, but for the bots that are asked.

use std::sync::Arc;

use crate::{
    bots::{Bot, Intent, Said},
    ids::EventId,
    store::StoredInbound,
};

use super::{
    Body,
    bots::{Bots, Panicked, Speaker},
};

/// What is to be done about an event.
pub(super) enum Meaning {
    /// Work for a bot.
    Ask(Ask),
    /// The running turn is to end.
    Stop,
    /// An order to a bot.
    Order(Order),
    /// An earlier message is changed.
    Change(Change),
    /// Something that nobody here can work with; what.
    Unsupported(String),
    /// No bot wants it.
    Nothing,
    /// It cannot be read, or the bot that should have said what it means has failed.
    Broken,
}

/// What somebody asks for, and what that brings along.
#[derive(Clone)]
pub(super) struct Ask {
    /// Of whom.
    pub(super) bot: Arc<dyn Bot>,
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

/// An order that needs no turn.
pub(super) struct Order {
    /// To whom.
    pub(super) bot: Arc<dyn Bot>,
    /// Its words.
    pub(super) text: String,
    /// Whether it waits until the bot's running turn has ended.
    pub(super) between_turns: bool,
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
    /// Reads an event, said by somebody who sits at this machine if `local`; also returns the thread in which it was said.
    pub(super) fn of(event: &StoredInbound, bots: &Bots, local: bool) -> (Self, Option<EventId>) {
        let body = match serde_json::from_value(event.body.clone()) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(event = %event.event, %error, "a journaled event cannot be read");
                return (Self::Broken, None);
            }
        };
        let speaker = if local { Speaker::Local } else { Speaker::Person(&event.sender) };
        let wanted = |text: String, file: Option<FileSent>, about| {
            let said = Said { text: &text, has_file: file.is_some() };
            match bots.wants(speaker, &said) {
                Err(Panicked) => Self::Broken,
                Ok(None) => Self::Nothing,
                Ok(Some((_, Intent::Stop))) => Self::Stop,
                Ok(Some((bot, Intent::Work))) => Self::Ask(Ask { bot, text, file, about }),
                Ok(Some((bot, Intent::Order))) => Self::Order(Order { bot, text, between_turns: false }),
                Ok(Some((bot, Intent::OrderBetweenTurns))) => Self::Order(Order { bot, text, between_turns: true }),
            }
        };
        match body {
            Body::Said { text, thread, about } => (wanted(text, None, about), thread),
            Body::File { name, mime, size, source, caption, thread, about } => {
                (wanted(caption, Some(FileSent { name, mime, size, source }), about), thread)
            }
            Body::Unsupported { what, thread } => (Self::Unsupported(what), thread),
            Body::Edited { target, text } => (Self::Change(Change { target, text: Some(text) }), None),
            Body::Redacted { target } => (Self::Change(Change { target, text: None }), None),
            Body::Stop => (Self::Stop, None),
            Body::Locked { .. } => (Self::Broken, None),
        }
    }

    /// Returns whether it is said to a bot's model.
    pub(super) fn is_work(&self) -> bool {
        matches!(self, Self::Ask(_))
    }
}

/// Returns the thread in which a stored body was said.
pub(super) fn thread(body: &serde_json::Value) -> Option<EventId> {
    match serde_json::from_value(body.clone()).ok()? {
        Body::Said { thread, .. } | Body::File { thread, .. } | Body::Unsupported { thread, .. } => thread,
        _ => None,
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
