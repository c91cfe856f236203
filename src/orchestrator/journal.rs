//! A turn's lines in the store: what each becomes there, and how they are read back.
//!
//! A message with calls and its calls are one transaction; so are a person's message and the claim of its event. A
//! result is kept with its call. Knows no rule of a turn; called by the driver, and for calls by `hands`.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    crash,
    ids::{CallId, TurnId},
    ledger::Spender,
    llm::{Message, Part},
    pictures::Gallery,
    store::{Conversation, EndedCall, History, Store, StoreError},
};

use super::line::{Line, Origin};

/// One turn's place in the store.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    pub(super) store: Store,
    pub(super) at: Conversation,
    pub(super) turn: TurnId,
    /// Who gave the message that began the turn, by their chat protocol's name.
    pub(super) person: String,
    pub(super) gallery: Gallery,
}

/// What the store has of a turn.
#[derive(Debug)]
pub(super) struct Loaded {
    /// What the model is shown.
    pub(super) history: Vec<Line>,
    /// How many lines at its start the last compaction has written.
    pub(super) base: usize,
    /// This turn's lines.
    pub(super) stored: Vec<Line>,
    /// The boot ids of calls with an intent and no result.
    pub(super) boots: HashMap<CallId, String>,
}

impl Journal {
    /// Returns who uses the tokens of a request to a model.
    pub(super) fn spender(&self, agent: &str, model: &str) -> Spender {
        let (address, person) = (self.at.address.clone(), Some(self.person.clone()));
        Spender { address, person, agent: agent.to_owned(), model: model.to_owned() }
    }

    /// Reads what the turn begins or goes on with.
    pub(super) async fn load(&self, resumed: bool) -> Result<Loaded, StoreError> {
        let history = self.store.history(&self.at).await?;
        // A compaction within the turn has hidden some of its lines; a new turn has had none.
        let own: Vec<History> = if resumed {
            self.store.turn_history(&self.at.address, &self.turn).await?
        } else {
            history.iter().filter(|row| row.turn.as_ref() == Some(&self.turn)).cloned().collect()
        };
        let boots = own.iter().flat_map(|row| &row.calls).filter(|call| call.ended.is_none());
        let boots = boots.filter_map(|call| Some((call.call.clone(), call.boot.clone()?))).collect();
        let after = history.iter().position(|row| row.turn.is_some()).unwrap_or(history.len());
        let (base, said) = history.split_at(after);
        let mut history = lines(base);
        let base = history.len();
        history.extend(lines(said));
        let mut stored = lines(&own);
        self.hang_up(history.iter_mut().chain(&mut stored)).await;
        Ok(Loaded { history, base, stored, boots })
    }

    /// Stores a picture of type `mime` for this room and returns it as a part of a message.
    pub(super) async fn keep_picture(&self, mime: &str, data: Bytes) -> io::Result<Part> {
        let base64 = BASE64_STANDARD.encode(&data).into();
        let name = self.gallery.keep(&self.at.address, data).await?;
        Ok(Part::Picture { name, mime: mime.to_owned(), data: Some(base64) })
    }

    /// Reads the pictures that lines name from their files. One that cannot be read stays without data.
    async fn hang_up(&self, lines: impl Iterator<Item = &mut Line>) {
        let mut frames: Vec<_> = lines.flat_map(Line::pictures).collect();
        if frames.is_empty() {
            return;
        }
        let names: BTreeSet<_> = frames.iter().map(|(name, _)| (*name).clone()).collect();
        let found = self.gallery.read(&self.at.address, names.into_iter().collect()).await;
        let found: HashMap<String, Arc<str>> =
            found.into_iter().map(|(name, data)| (name, BASE64_STANDARD.encode(data).into())).collect();
        for (name, data) in &mut frames {
            **data = found.get(*name).cloned();
        }
    }

    /// Stores a line.
    pub(super) async fn keep(&self, line: Line) -> Result<(), StoreError> {
        let (store, address, turn) = (&self.store, &self.at.address, &self.turn);
        match &line.origin {
            Origin::Person { event, .. } => {
                let event = event.clone();
                store.steer_turn(address, turn, event, serde_json::to_value(line)?).await
            }
            Origin::Model { calls, .. } if !calls.is_empty() => {
                let calls = calls.clone();
                store.append_calls(address, turn, serde_json::to_value(line)?, calls).await?;
                crash::point("stored");
                Ok(())
            }
            Origin::Result { call, .. } => {
                let details = serde_json::to_value(&line.origin)?;
                let text = match line.message {
                    Message::Tool { text, .. } => text,
                    _ => String::new(),
                };
                crash::point("ran");
                store.end_call(call, EndedCall { text, details }).await?;
                crash::point("ended");
                Ok(())
            }
            _ => store.append_message(address, turn, serde_json::to_value(line)?).await,
        }
    }

    /// Stores the intent to run a call.
    pub(super) async fn intend(&self, call: &CallId, boot: &str) -> Result<(), StoreError> {
        self.store.start_call(call, boot).await?;
        crash::point("started");
        Ok(())
    }

    /// Stores what the model is shown from now on.
    pub(super) async fn rebase(&self, lines: Vec<Line>) -> Result<(), StoreError> {
        let lines = lines.into_iter().map(serde_json::to_value).collect::<Result<Vec<Value>, _>>()?;
        self.store.replace_context(&self.at, lines).await
    }
}

/// Returns the lines that rows stand for: each message, followed by the results of its calls.
fn lines(rows: &[History]) -> Vec<Line> {
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        let line = match Line::deserialize(&row.message) {
            Ok(line) => line,
            Err(error) => {
                // One line less is better than a room that answers no more.
                tracing::error!(turn = ?row.turn, %error, "a stored message cannot be read and is left out");
                continue;
            }
        };
        let ids: Vec<String> = match &line.message {
            Message::Assistant(message) => message.calls.iter().map(|call| call.id.clone()).collect(),
            _ => vec![],
        };
        lines.push(line);
        for (call_id, call) in ids.into_iter().zip(&row.calls) {
            let Some(ended) = &call.ended else { continue };
            let message = Message::Tool { call_id, text: ended.text.clone() };
            match Origin::deserialize(&ended.details) {
                Ok(origin) => lines.push(Line { message, origin }),
                Err(error) => tracing::error!(call = %call.call, %error, "a stored result cannot be read"),
            }
        }
    }
    lines
}
