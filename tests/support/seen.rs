//! What reached a person's client: each event as it came, and what a room shows after edits and redactions.

use std::{collections::BTreeMap, fmt, time::Instant};

use matrix_sdk::{
    deserialized_responses::{TimelineEvent, TimelineEventKind, VerificationLevel, VerificationState},
    ruma::OwnedRoomId,
};
use serde_json::Value;

/// How an event came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// Unencrypted.
    Plain,
    /// Encrypted, and read.
    Opened {
        /// A client shows it with a red shield: its device is not signed by its owner.
        shield: bool,
    },
    /// Encrypted, and its key is not here (yet).
    Locked,
}

/// One event.
#[derive(Clone)]
pub struct Seen {
    /// The room.
    pub room: OwnedRoomId,
    /// Its id; empty for what is no event of the timeline (typing, receipts).
    pub id: String,
    /// Who sent it; empty as above.
    pub sender: String,
    /// Its type, of what was inside if it was encrypted.
    pub kind: String,
    /// Its content, likewise.
    pub content: Value,
    /// The whole of it, likewise.
    pub raw: Value,
    /// How it came.
    pub seal: Seal,
    /// Its key came after it.
    pub late: bool,
    /// When its sync response was read.
    pub at: Instant,
}

impl Seen {
    pub(super) fn new(room: OwnedRoomId, raw: Value, seal: Seal, at: Instant) -> Self {
        let text = |key: &str| raw[key].as_str().unwrap_or_default().to_owned();
        let (id, sender, kind) = (text("event_id"), text("sender"), text("type"));
        Self { room, id, sender, kind, content: raw["content"].clone(), raw, seal, late: false, at }
    }

    pub(super) fn of(room: OwnedRoomId, event: &TimelineEvent, at: Instant) -> Self {
        let seal = match &event.kind {
            TimelineEventKind::PlainText { .. } => Seal::Plain,
            TimelineEventKind::UnableToDecrypt { .. } => Seal::Locked,
            TimelineEventKind::Decrypted(event) => Seal::Opened {
                shield: match &event.encryption_info.verification_state {
                    VerificationState::Verified => false,
                    VerificationState::Unverified(level) => !matches!(level, VerificationLevel::UnverifiedIdentity),
                },
            },
        };
        Self::new(room, serde_json::from_str(event.raw().json().get()).unwrap(), seal, at)
    }

    /// Its text, of an edit the new one.
    pub fn body(&self) -> &str {
        self.content["m.new_content"]["body"].as_str().or(self.content["body"].as_str()).unwrap_or_default()
    }

    /// `m.text`, `m.notice`, `m.file` …; empty for what is no message.
    pub fn msgtype(&self) -> &str {
        self.content["msgtype"].as_str().unwrap_or_default()
    }

    /// Its relation's type (`m.replace`, `m.thread`, `m.annotation`); empty if it has none.
    pub fn relation(&self) -> &str {
        self.content["m.relates_to"]["rel_type"].as_str().unwrap_or_default()
    }

    /// The event that it changes, reacts to, or in whose thread it stands; empty if there is none.
    pub fn target(&self) -> &str {
        self.content["m.relates_to"]["event_id"].as_str().unwrap_or_default()
    }

    /// The event that it answers; empty if there is none.
    pub fn reply_to(&self) -> &str {
        self.content["m.relates_to"]["m.in_reply_to"]["event_id"].as_str().unwrap_or_default()
    }

    /// Whether it is a message that stands for itself, and no edit.
    pub fn is_message(&self) -> bool {
        self.kind == "m.room.message" && self.relation() != "m.replace"
    }

    /// Whether it names this person in `m.mentions`.
    pub fn mentions(&self, person: &str) -> bool {
        self.content["m.mentions"]["user_ids"].as_array().is_some_and(|named| named.iter().any(|id| id == person))
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, sender, kind, content, seal, .. } = self;
        write!(f, "{id} {sender} {kind} {seal:?} {content}")
    }
}

/// A message as a room shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The id of its first event.
    pub id: String,
    /// Who sent it.
    pub sender: String,
    /// `m.text`, `m.notice`, `m.file` …, of its newest form.
    pub msgtype: String,
    /// Its newest text; empty when it was taken back.
    pub body: String,
    /// Its newest HTML, if it has some.
    pub html: Option<String>,
    /// How often it was edited.
    pub edits: usize,
    /// It was taken back.
    pub redacted: bool,
    /// The thread in which it stands; empty if in none.
    pub thread: String,
    /// Who reacted with what, without the reactions that were taken back.
    pub reactions: Vec<(String, String)>,
    /// How its first event came.
    pub seal: Seal,
}

/// What a client makes of a room's events: its messages in order, each in its newest form.
pub(super) fn show<'a>(events: impl Iterator<Item = &'a Seen> + Clone) -> Vec<Shown> {
    let redacted: Vec<_> = events
        .clone()
        .filter(|event| event.kind == "m.room.redaction")
        .filter_map(|event| event.raw["redacts"].as_str().or(event.content["redacts"].as_str()))
        .collect();
    let mut shown: Vec<Shown> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for event in events {
        let gone = redacted.contains(&event.id.as_str());
        if event.is_message() || event.kind == "m.room.encrypted" {
            places.insert(&event.id, shown.len());
            shown.push(Shown {
                id: event.id.clone(),
                sender: event.sender.clone(),
                msgtype: event.msgtype().to_owned(),
                body: if gone { String::new() } else { event.body().to_owned() },
                html: event.content["formatted_body"].as_str().filter(|_| !gone).map(ToOwned::to_owned),
                edits: 0,
                redacted: gone,
                thread: if event.relation() == "m.thread" { event.target().to_owned() } else { String::new() },
                reactions: Vec::new(),
                seal: event.seal,
            });
            continue;
        }
        let Some(message) = places.get(event.target()).map(|place| &mut shown[*place]) else { continue };
        if gone {
            continue;
        }
        match event.relation() {
            "m.replace" if event.sender == message.sender && !message.redacted => {
                message.edits += 1;
                event.body().clone_into(&mut message.body);
                if let Some(kind) = event.content["m.new_content"]["msgtype"].as_str() {
                    kind.clone_into(&mut message.msgtype);
                }
                message.html = event.content["m.new_content"]["formatted_body"].as_str().map(ToOwned::to_owned);
            }
            "m.annotation" => {
                let key = event.content["m.relates_to"]["key"].as_str().unwrap_or_default();
                message.reactions.push((event.sender.clone(), key.to_owned()));
            }
            _ => {}
        }
    }
    shown
}
