//! The messages of a conversation that the model is shown.

use rusqlite::{OptionalExtension, Row, ToSql, Transaction, params};
use serde_json::Value;

use super::{CallRecord, Conversation, Store, StoreError, answerer, calls, prune};
use crate::ids::{Address, TurnId};

/// A stored message with the state of its calls.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// The turn to which it belongs; `None` for the messages of a compaction.
    pub turn: Option<TurnId>,
    /// The message.
    pub message: Value,
    /// The calls that it asked for, in their order. Empty for the messages of a compaction, in which results are
    /// messages of their own.
    pub calls: Vec<CallRecord>,
}

impl Store {
    /// Returns a conversation's context, oldest first: the messages of the last compaction, then all that came after
    /// it.
    pub async fn history(&self, at: &Conversation) -> Result<Vec<History>, StoreError> {
        let at = at.clone();
        self.read(move |tx| history(tx, &at)).await
    }

    /// Returns all messages of a turn, oldest first, including those that a compaction during it hides from the
    /// model.
    pub async fn turn_history(&self, address: &Address, turn: &TurnId) -> Result<Vec<History>, StoreError> {
        let (address, turn) = (address.clone(), turn.clone());
        self.read(move |tx| {
            let mut history = Vec::new();
            let key = params![address.account, address.room.as_str(), turn.as_str()];
            read(tx, "m.turn = ?3", key, &mut history)?;
            Ok(history)
        })
        .await
    }

    /// Returns those of `names` that occur in no text of a home. The names must be such that they do not occur in a
    /// text by chance, like a hash.
    pub async fn unnamed(&self, home: &Address, names: Vec<String>) -> Result<Vec<String>, StoreError> {
        if names.is_empty() {
            return Ok(names);
        }
        let home = home.clone();
        self.read(move |tx| {
            let mut unnamed = names;
            for texts in TEXTS {
                let mut select = tx.prepare_cached(texts)?;
                let mut rows = select.query([&home.account, &home.room.0])?;
                while let Some(row) = rows.next()? {
                    let text = row.get_ref(0)?.as_str().unwrap_or_default();
                    unnamed.retain(|name| !text.contains(name.as_str()));
                }
            }
            Ok(unnamed)
        })
        .await
    }

    /// Replaces the context of a conversation by `messages`, as a compaction does. The older messages stay until
    /// [`Store::prune`] deletes them. Without `messages` the conversation is given up, and is deleted soon
    /// ([`Store::finish_forgetting`]).
    pub async fn replace_context(&self, at: &Conversation, messages: Vec<Value>) -> Result<(), StoreError> {
        let (at, now) = (at.clone(), self.clock.millis());
        let is_over = messages.is_empty();
        self.write(move |tx| replace(tx, &at, &messages, now)).await?;
        if is_over {
            self.forgetting.notify_one();
        }
        Ok(())
    }

    /// Replaces the context of a conversation by what `edit` makes of its messages, with nothing in between; `None` leaves it as
    /// it is. Returns whether it was replaced.
    pub async fn edit_context(
        &self,
        at: &Conversation,
        edit: impl FnOnce(Vec<Value>) -> Option<Vec<Value>> + Send + 'static,
    ) -> Result<bool, StoreError> {
        let (at, now) = (at.clone(), self.clock.millis());
        let (edited, is_over) = self
            .write(move |tx| {
                let messages = history(tx, &at)?.into_iter().map(|line| line.message).collect();
                let Some(messages) = edit(messages) else { return Ok((false, false)) };
                replace(tx, &at, &messages, now)?;
                Ok((true, messages.is_empty()))
            })
            .await?;
        if is_over {
            self.forgetting.notify_one();
        }
        Ok(edited)
    }

    /// Gives a conversation up unless one of its turns is open, whose messages belong together. Returns whether it did.
    pub async fn end_conversation(&self, at: &Conversation) -> Result<bool, StoreError> {
        let (at, now) = (at.clone(), self.clock.millis());
        let ended = self.write(move |tx| {
            let works: bool = tx
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM turns
                     WHERE bot = ?1 AND room = ?2 AND answerer IS ?3 AND state = 'open')",
                )?
                .query_row(params![at.address.account, at.address.room.as_str(), answerer(&at.bot)], |row| {
                    row.get(0)
                })?;
            if !works {
                replace(tx, &at, &[], now)?;
            }
            Ok(!works)
        });
        let ended = ended.await?;
        if ended {
            self.forgetting.notify_one();
        }
        Ok(ended)
    }
}

/// Reads a conversation's context.
fn history(tx: &Transaction<'_>, at: &Conversation) -> Result<Vec<History>, StoreError> {
    let (account, room, bot) = (&at.address.account, at.address.room.as_str(), answerer(&at.bot));
    let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let base: Option<(i64, String)> = match bot {
        None => tx
            .prepare_cached("SELECT upto, messages FROM contexts WHERE bot = ?1 AND room = ?2")?
            .query_row(params![account, room], row),
        Some(bot) => tx
            .prepare_cached(
                "SELECT upto, messages FROM contexts_of_bots WHERE bot = ?1 AND room = ?2 AND answerer = ?3",
            )?
            .query_row(params![account, room, bot], row),
    }
    .optional()?;
    let (upto, kept) = match base {
        Some((upto, text)) => (upto, serde_json::from_str::<Vec<Value>>(&text)?),
        None => (0, Vec::new()),
    };
    // A conversation that was given up is not shown, also while it is still being deleted.
    let upto = upto.max(prune::forgotten_until(tx, at)?);
    let mut history: Vec<History> =
        kept.into_iter().map(|message| History { turn: None, message, calls: Vec::new() }).collect();
    read(tx, "m.seq > ?3 AND m.answerer IS ?4", params![account, room, upto, bot], &mut history)?;
    Ok(history)
}

/// Replaces a conversation's context; without messages it is given up.
fn replace(tx: &Transaction<'_>, at: &Conversation, messages: &[Value], now: i64) -> Result<(), StoreError> {
    let (account, room) = (&at.address.account, at.address.room.as_str());
    let text = serde_json::to_string(messages)?;
    match answerer(&at.bot) {
        None => tx.execute(
            "INSERT INTO contexts (bot, room, upto, messages)
             VALUES (?1, ?2, (SELECT coalesce(max(seq), 0) FROM messages WHERE bot = ?1 AND room = ?2), ?3)
             ON CONFLICT (bot, room) DO UPDATE SET upto = excluded.upto, messages = excluded.messages",
            params![account, room, text],
        )?,
        Some(bot) => tx.execute(
            "INSERT INTO contexts_of_bots (bot, room, answerer, upto, messages)
             VALUES (?1, ?2, ?4, (SELECT coalesce(max(seq), 0) FROM messages WHERE bot = ?1 AND room = ?2), ?3)
             ON CONFLICT (bot, room, answerer)
             DO UPDATE SET upto = excluded.upto, messages = excluded.messages",
            params![account, room, text, bot],
        )?,
    };
    if messages.is_empty() { prune::forget(tx, &at.address, Some(&at.bot), now) } else { Ok(()) }
}

/// All texts of a room that may name a picture: messages, results of calls, and the messages of compactions.
const TEXTS: [&str; 4] = [
    "SELECT body FROM messages WHERE bot = ?1 AND room = ?2",
    "SELECT c.details FROM messages m JOIN calls c ON c.message = m.seq
     WHERE m.bot = ?1 AND m.room = ?2 AND c.details IS NOT NULL",
    "SELECT messages FROM contexts WHERE bot = ?1 AND room = ?2",
    "SELECT messages FROM contexts_of_bots WHERE bot = ?1 AND room = ?2",
];

/// Reads messages with their calls. `which` is the condition that selects them; its first two parameters are account
/// and room.
pub(super) fn read(
    tx: &Transaction<'_>,
    which: &'static str,
    key: &[&dyn ToSql],
    history: &mut Vec<History>,
) -> Result<(), StoreError> {
    let mut select = tx.prepare_cached(&format!(
        "SELECT m.seq, m.turn, m.body, c.call, c.boot, c.result, c.details
         FROM messages m LEFT JOIN calls c ON c.message = m.seq
         WHERE m.bot = ?1 AND m.room = ?2 AND {which} ORDER BY m.seq, c.position"
    ))?;
    let mut rows = select.query(key)?;
    let mut last = 0;
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(0)?;
        if seq != last {
            last = seq;
            let message = serde_json::from_str(&row.get::<_, String>(2)?)?;
            let turn = Some(row.get::<_, String>(1)?.into());
            history.push(History { turn, message, calls: Vec::new() });
        }
        if row.get_ref(3)? != rusqlite::types::ValueRef::Null
            && let Some(entry) = history.last_mut()
        {
            entry.calls.push(calls::read(row, 3)??);
        }
    }
    Ok(())
}
