//! What an event of the journal asks of its room's actor. Does no I/O; the bots are asked.

use serde_json::Value;

use crate::{
    bots::{Addressed, Intent, Said},
    hub::{
        Body,
        bots::{Bots, Panicked, Speaker},
    },
    ids::{BotName, EventId, is_at_github},
    store::{Standing, StoredInbound},
    strings, text,
};

/// The most characters of an earlier message that are repeated when it is changed.
const SHOWN: usize = 80;

/// An event of the journal with its meaning.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its place in the journal, in order of arrival.
    pub(super) seq: i64,
    /// Its id.
    pub(super) event: EventId,
    /// Who said it.
    pub(super) sender: String,
    /// The thread in which it was said.
    pub(super) thread: Option<EventId>,
    /// Its text, or the name of its file.
    pub(super) words: String,
    /// What is to be done about it.
    pub(super) meaning: Meaning,
}

/// What is to be done about an event.
#[derive(Clone, Debug)]
pub(super) enum Meaning {
    /// Work for a bot.
    Work(Work),
    /// The running turn is to end.
    Stop {
        /// The messages before it that nobody has acted on; the stop covers them, too.
        before: Vec<EventId>,
    },
    /// An order to a bot.
    Order(Order),
    /// An earlier message is changed.
    Change(Change),
    /// Something that no bot can work with; its kind, as in [`Body::Unsupported`].
    Unsupported(String),
    /// Nothing is to be done: no bot wants it.
    Nothing,
    /// The stored body cannot be parsed, or the bot that was asked panicked.
    Broken,
}

/// What somebody asks a bot for, with what the message brings along.
#[derive(Clone, Debug)]
pub(super) struct Work {
    /// The bot that wants it.
    pub(super) bot: BotName,
    /// The text; may be empty beside a file.
    pub(super) text: String,
    /// The file.
    pub(super) file: Option<FileSent>,
    /// The message to which it replies.
    pub(super) about: Option<EventId>,
}

impl Work {
    /// Returns whether the message brings nothing along but its text.
    pub(super) fn is_plain(&self) -> bool {
        self.file.is_none() && self.about.is_none()
    }
}

/// An order that needs no turn.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// The bot that takes it.
    pub(super) bot: BotName,
    /// Its text.
    pub(super) text: String,
    /// Whether it waits until the bot's running turn has ended, as a new conversation does.
    pub(super) between_turns: bool,
}

/// A file that waits to be fetched.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FileSent {
    pub(super) name: String,
    pub(super) mime: String,
    pub(super) size: Option<u64>,
    pub(super) source: Value,
}

/// An edit or a redaction.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// The message that is changed.
    pub(super) target: EventId,
    /// Its new text; `None` if it is redacted.
    pub(super) text: Option<String>,
    /// What tells now that the account is meant.
    pub(super) addressed: Addressed,
    /// Whether the new text asks for a stop.
    pub(super) stops: bool,
    /// What the journal knows of that message.
    pub(super) found: Found,
}

impl Change {
    /// Returns whether it takes this message back.
    pub(super) fn takes_back(&self, event: &EventId) -> bool {
        self.text.is_none() && self.target == *event
    }

    /// Returns what the model is told of the change that `sender` made to a message with these words.
    pub(super) fn told(&self, sender: &str, words: &str) -> String {
        let old = text::one_line(words, SHOWN);
        match &self.text {
            Some(new) => strings::told::changed(sender, &old, new),
            None => strings::told::taken_back(sender, &old),
        }
    }
}

/// What the journal knows of a message that is to be changed.
#[derive(Clone, Debug, Default)]
pub(super) enum Found {
    /// The sender of the change has sent no such message in this room.
    #[default]
    Nothing,
    /// The message is theirs and still locked.
    Locked,
    /// The message is theirs.
    Message(Target),
}

/// A message that is to be changed.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// What became of it.
    pub(super) standing: Standing,
    /// The thread in which it was said.
    pub(super) thread: Option<EventId>,
    /// Its current text, or the name of its file.
    pub(super) words: String,
    /// Its body with the new text; `None` if it has no text or is redacted.
    pub(super) edited: Option<Value>,
}

impl Entry {
    /// Reads an event's meaning; `local` if its sender sits at this machine. The target of a change and the messages
    /// before a stop are left empty, since the event alone does not tell them.
    pub(super) fn read(event: &StoredInbound, bots: &Bots, local: bool) -> Self {
        let (meaning, thread) = Meaning::of(event, bots, local);
        Self {
            seq: event.seq,
            event: event.event.clone(),
            sender: event.sender.clone(),
            thread,
            words: words(&event.body),
            meaning,
        }
    }
}

impl Meaning {
    fn of(event: &StoredInbound, bots: &Bots, local: bool) -> (Self, Option<EventId>) {
        let body = match serde_json::from_value(event.body.clone()) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(event = %event.event, %error, "a journaled event cannot be read");
                return (Self::Broken, None);
            }
        };
        let speaker = match &*event.sender {
            sender if is_at_github(sender) => Speaker::AtGitHub,
            _ if local => Speaker::Local,
            sender => Speaker::Person(sender),
        };
        let sender = &*event.sender;
        let stops = |text: &str, addressed: &Addressed| {
            let wanted = bots.wants(speaker, &Said { text, has_file: false, sender, addressed });
            matches!(wanted, Ok(Some((_, Intent::Stop))))
        };
        let wanted = |text: String, file: Option<FileSent>, about, addressed: &Addressed| {
            let said = Said { text: &text, has_file: file.is_some(), sender, addressed };
            let (bot, intent, text) = match bots.wants(speaker, &said) {
                Err(Panicked) => return Self::Broken,
                Ok(None) => return Self::Nothing,
                Ok(Some((bot, intent))) => (bot.name().clone(), intent, bot.words(&said)),
            };
            match intent {
                Intent::Stop => Self::Stop { before: vec![] },
                Intent::Work => Self::Work(Work { bot, text, file, about }),
                Intent::Order => Self::Order(Order { bot, text, between_turns: false }),
                Intent::OrderBetweenTurns => Self::Order(Order { bot, text, between_turns: true }),
            }
        };
        match body {
            Body::Said { text, thread, about, addressed } => (wanted(text, None, about, &addressed), thread),
            Body::File { name, mime, size, source, caption, thread, about, addressed } => {
                (wanted(caption, Some(FileSent { name, mime, size, source }), about, &addressed), thread)
            }
            Body::Unsupported { what, thread } => (Self::Unsupported(what), thread),
            Body::Edited { target, text, addressed } => {
                // A message without words asks for nothing any more.
                let text = (!text.trim().is_empty()).then_some(text);
                let stops = text.as_deref().is_some_and(|text| stops(text, &addressed));
                (Self::Change(Change { target, text, addressed, stops, found: Found::Nothing }), None)
            }
            Body::Redacted { target } => {
                let addressed = Addressed::default();
                (Self::Change(Change { target, text: None, addressed, stops: false, found: Found::Nothing }), None)
            }
            Body::Stop => (Self::Stop { before: vec![] }, None),
            Body::Locked { .. } => (Self::Broken, None),
        }
    }

    /// Returns whether it is work for a bot.
    pub(super) fn is_work(&self) -> bool {
        matches!(self, Self::Work(_))
    }
}

/// Returns the thread in which a stored body was said.
pub(super) fn thread(body: &Value) -> Option<EventId> {
    match serde_json::from_value(body.clone()).ok()? {
        Body::Said { thread, .. } | Body::File { thread, .. } | Body::Unsupported { thread, .. } => thread,
        _ => None,
    }
}

/// Returns a stored body with another text, and with what tells now that the account is meant; `None` if its kind has no
/// text. What it replies to stays, which an edit does not tell.
pub(super) fn with_text(body: &Value, text: &str, addressed: &Addressed) -> Option<Body> {
    let now = |before: Addressed| Addressed { replied: before.replied, ..addressed.clone() };
    match serde_json::from_value(body.clone()).ok()? {
        Body::Said { thread, about, addressed, .. } => {
            Some(Body::Said { text: text.to_owned(), thread, about, addressed: now(addressed) })
        }
        Body::File { name, mime, size, source, thread, about, addressed, .. } => {
            let (caption, addressed) = (text.to_owned(), now(addressed));
            Some(Body::File { name, mime, size, source, caption, thread, about, addressed })
        }
        _ => None,
    }
}

/// Returns a stored body's text, or the name of its file.
pub(super) fn words(body: &Value) -> String {
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
