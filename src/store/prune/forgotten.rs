//! Conversations that were given up: a bot's in a room (`!new`), or all of a room that was left. All their rows go,
//! whatever their age, once their turns have ended.

use rusqlite::{Transaction, params};

use super::{
    rows::{delete_inbound, delete_message, delete_outbox, delete_turn, has_ended},
    steps::{PAGE, Page},
};
use crate::{
    ids::{Address, BotName, RoomKey},
    store::{Conversation, Store, StoreError, answerer},
};

const FORGOTTEN: &str =
    "SELECT seq, bot, room, answerer, whole, at, messages, inbound, outbox FROM forgotten ORDER BY seq";
pub(super) const FORGOTTEN_MESSAGES: &str = "SELECT m.seq, t.state, m.answerer FROM
     (SELECT seq, turn, answerer FROM messages WHERE bot = ?1 AND room = ?2 AND seq > ?3 AND seq <= ?4 ORDER BY seq LIMIT ?5) m
     LEFT JOIN turns t ON t.turn = m.turn";
pub(super) const FORGOTTEN_INBOUND: &str = "SELECT i.seq, i.sender, i.event, i.done, i.turn, t.state, t.answerer FROM
     (SELECT seq, sender, event, done, turn FROM inbound
      WHERE bot = ?1 AND room = ?2 AND (sender, seq) > (?3, ?4) ORDER BY sender, seq LIMIT ?5) i
     LEFT JOIN turns t ON t.turn = i.turn";
pub(super) const FORGOTTEN_OUTBOX: &str = "SELECT o.seq, t.state, t.answerer FROM
     (SELECT seq, turn FROM outbox
      WHERE bot = ?1 AND room = ?2 AND sent IS NOT NULL AND seq > ?3 AND seq <= ?4 ORDER BY seq LIMIT ?5) o
     LEFT JOIN turns t ON t.turn = o.turn";
pub(super) const FORGOTTEN_UNSENT: &str =
    "SELECT EXISTS (SELECT 1 FROM outbox WHERE bot = ?1 AND room = ?2 AND sent IS NULL AND seq <= ?3)";
pub(super) const FORGOTTEN_TURNS: &str =
    "SELECT turn, state, opened, answerer FROM turns WHERE bot = ?1 AND room = ?2 AND turn > ?3 ORDER BY turn LIMIT ?4";

/// A conversation that was given up, and up to which rows.
#[derive(Clone, Debug)]
pub(super) struct Forgotten {
    seq: i64,
    pub(super) address: Address,
    /// The bot whose conversation it was, as in the column `answerer`.
    answerer: Option<String>,
    /// Whether it is the conversations of all bots of the room.
    whole: bool,
    at: i64,
    messages: i64,
    inbound: i64,
    outbox: i64,
}

impl Store {
    /// Deletes those of its rows whose turns have ended, and its own row once nothing is left.
    pub(super) async fn forget_room_rows(&self, forgotten: &Forgotten) -> Result<(), StoreError> {
        let at = forgotten.clone();
        let mut left =
            self.walk(0, move |tx, seq| messages_of(tx, &at, *seq), |tx, seq| delete_message(tx, *seq)).await?;
        let at = forgotten.clone();
        let account = forgotten.address.account.clone();
        left += self
            .walk(
                (String::new(), 0),
                move |tx, from| inbound_of(tx, &at, from),
                move |tx, (seq, event): &(i64, String)| delete_inbound(tx, *seq, &account, event),
            )
            .await?;
        let at = forgotten.clone();
        left += self.walk(0, move |tx, seq| outbox_of(tx, &at, *seq), |tx, seq| delete_outbox(tx, *seq)).await?;
        let at = forgotten.clone();
        left += self
            .walk(String::new(), move |tx, turn| turns_of(tx, &at, turn), |tx, turn: &String| delete_turn(tx, turn))
            .await?;
        let at = forgotten.clone();
        self.write(move |tx| {
            let unsent: bool = tx.query_row(
                FORGOTTEN_UNSENT,
                params![at.address.account, at.address.room.as_str(), at.outbox],
                |row| row.get(0),
            )?;
            if left == 0 && !unsent {
                tx.execute("DELETE FROM forgotten WHERE seq = ?1", [at.seq])?;
            }
            Ok(())
        })
        .await
    }
}

impl Forgotten {
    /// Returns whether a bot's row belongs to it.
    fn has(&self, answerer: Option<&str>) -> bool {
        self.whole || self.answerer.as_deref() == answerer
    }
}

/// Notes that a bot's conversation in a room, or all of the room, is given up to this point. Waiting events do not
/// belong to it.
pub(in crate::store) fn forget(
    tx: &Transaction<'_>,
    address: &Address,
    bot: Option<&BotName>,
    now: i64,
) -> Result<(), StoreError> {
    let key = params![address.account, address.room.as_str(), bot.and_then(answerer), bot.is_none(), now];
    // What was given up before is part of this.
    tx.execute(
        "DELETE FROM forgotten WHERE bot = ?1 AND room = ?2 AND (?4 OR whole = 0 AND answerer IS ?3)",
        &key[..4],
    )?;
    tx.execute(
        "INSERT INTO forgotten (bot, room, answerer, whole, at, messages, inbound, outbox) VALUES (?1, ?2, ?3, ?4, ?5,
             (SELECT coalesce(max(seq), 0) FROM messages),
             coalesce((SELECT min(seq) - 1 FROM inbound WHERE bot = ?1 AND room = ?2 AND turn IS NULL AND done = 0),
                      (SELECT max(seq) FROM inbound), 0),
             (SELECT coalesce(max(seq), 0) FROM outbox))",
        key,
    )?;
    Ok(())
}

/// Returns the `seq` of the last message of a conversation that was given up; 0 if there is none.
pub(in crate::store) fn forgotten_until(tx: &Transaction<'_>, at: &Conversation) -> Result<i64, StoreError> {
    let mut select = tx.prepare_cached(
        "SELECT coalesce(max(messages), 0) FROM forgotten
         WHERE bot = ?1 AND room = ?2 AND (whole = 1 OR answerer IS ?3)",
    )?;
    let key = params![at.address.account, at.address.room.as_str(), answerer(&at.bot)];
    Ok(select.query_row(key, |row| row.get(0))?)
}

/// Returns all conversations that were given up and may have rows left.
pub(super) fn forgotten(tx: &Transaction<'_>) -> Result<Vec<Forgotten>, StoreError> {
    let mut select = tx.prepare_cached(FORGOTTEN)?;
    let rows = select.query_map([], |row| {
        Ok(Forgotten {
            seq: row.get(0)?,
            address: Address { account: row.get(1)?, room: RoomKey(row.get(2)?) },
            answerer: row.get(3)?,
            whole: row.get(4)?,
            at: row.get(5)?,
            messages: row.get(6)?,
            inbound: row.get(7)?,
            outbox: row.get(8)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn messages_of(tx: &Transaction<'_>, of: &Forgotten, from: i64) -> Result<Page<i64, i64>, StoreError> {
    let mut select = tx.prepare_cached(FORGOTTEN_MESSAGES)?;
    let key = params![of.address.account, of.address.room.as_str(), from, of.messages, PAGE as i64];
    let mut page = Page::new();
    let mut rows = select.query(key)?;
    while let Some(row) = rows.next()? {
        let seq = row.get(0)?;
        page.see(seq);
        if of.has(row.get::<_, Option<String>>(2)?.as_deref()) {
            page.sort(seq, has_ended(row.get(1)?));
        }
    }
    Ok(page)
}

fn outbox_of(tx: &Transaction<'_>, of: &Forgotten, from: i64) -> Result<Page<i64, i64>, StoreError> {
    let mut select = tx.prepare_cached(FORGOTTEN_OUTBOX)?;
    let key = params![of.address.account, of.address.room.as_str(), from, of.outbox, PAGE as i64];
    let mut page = Page::new();
    let mut rows = select.query(key)?;
    while let Some(row) = rows.next()? {
        let (seq, state): (i64, Option<String>) = (row.get(0)?, row.get(1)?);
        page.see(seq);
        // A row without a turn, or whose turn is gone, belongs to no bot.
        if state.is_none() || of.has(row.get::<_, Option<String>>(2)?.as_deref()) {
            page.sort(seq, has_ended(state));
        }
    }
    Ok(page)
}

type InboundPage = Page<(String, i64), (i64, String)>;

fn inbound_of(tx: &Transaction<'_>, of: &Forgotten, from: &(String, i64)) -> Result<InboundPage, StoreError> {
    let mut page = Page::new();
    let mut select = tx.prepare_cached(FORGOTTEN_INBOUND)?;
    let mut rows = select.query(params![of.address.account, of.address.room.as_str(), from.0, from.1, PAGE as i64])?;
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(0)?;
        page.see((row.get(1)?, seq));
        if seq > of.inbound {
            continue;
        }
        let state: Option<String> = row.get(5)?;
        let ended = match row.get::<_, Option<String>>(4)? {
            Some(_) if state.is_some() && !of.has(row.get::<_, Option<String>>(6)?.as_deref()) => continue,
            Some(_) => has_ended(state),
            None => row.get(3)?,
        };
        page.sort((seq, row.get(2)?), ended);
    }
    Ok(page)
}

fn turns_of(tx: &Transaction<'_>, of: &Forgotten, from: &str) -> Result<Page<String, String>, StoreError> {
    let mut page = Page::new();
    let mut select = tx.prepare_cached(FORGOTTEN_TURNS)?;
    let mut rows = select.query(params![of.address.account, of.address.room.as_str(), from, PAGE as i64])?;
    while let Some(row) = rows.next()? {
        let turn: String = row.get(0)?;
        page.see(turn.clone());
        if row.get::<_, i64>(2)? <= of.at && of.has(row.get::<_, Option<String>>(3)?.as_deref()) {
            page.sort(turn, has_ended(row.get(1)?));
        }
    }
    Ok(page)
}
