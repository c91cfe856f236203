//! The journal: inbound events, written down before anything acts on them.

use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde_json::Value;

use super::{Store, StoreError, known};
use crate::ids::{Address, EventId, RoomKey, TurnId};

/// The most locked events that are kept for each room; the oldest go. A client that has lost its keys sends them
/// without end.
const LOCKED: i64 = 100;

/// An event on its way into the journal.
#[derive(Clone, Debug)]
pub struct NewInbound {
    /// The room in which it was sent.
    pub room: RoomKey,
    /// Its id; the journal takes each id once.
    pub event: EventId,
    /// Who sent it.
    pub sender: String,
    /// The hub's JSON of what was sent.
    pub body: Value,
    /// The event that this one changes, if it is an edit or a redaction.
    pub target: Option<EventId>,
}

/// An event that cannot be read until its key comes.
#[derive(Clone, Debug, PartialEq)]
pub struct LockedInbound {
    /// The room in which it was sent.
    pub room: RoomKey,
    /// Its id; the journal takes each id once.
    pub event: EventId,
    /// Who sent it.
    pub sender: String,
    /// The hub's JSON with what the protocol needs to decrypt it later.
    pub body: Value,
}

/// An event of the journal with what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundEvent {
    /// The event.
    pub inbound: StoredInbound,
    /// The room in which it was sent.
    pub room: RoomKey,
    /// How far it was handled.
    pub standing: Standing,
}

/// How far an event was handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has acted on it.
    Waiting,
    /// A turn has claimed it and answers it.
    Claimed(TurnId),
    /// It was handled without a turn.
    Done,
    /// Nobody wanted it.
    PassedOver,
}

/// What the column `done` holds for an event that nobody wanted; 1 for one that was handled.
const PASSED_OVER: i64 = 2;

/// An event in the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredInbound {
    /// Its place in the journal, in order of arrival.
    pub seq: i64,
    /// Its id.
    pub event: EventId,
    /// Who sent it.
    pub sender: String,
    /// The hub's JSON of what was sent.
    pub body: Value,
    /// When it was admitted, in milliseconds since 1970.
    pub received: i64,
}

impl Store {
    /// Stores events and the protocol's sync position in one transaction. Returns the ids that were new; events that
    /// the journal has already are left out. A locked event that comes again decrypted is new.
    pub async fn admit(
        &self,
        account: &str,
        events: Vec<NewInbound>,
        locked: Vec<LockedInbound>,
        position: Option<String>,
    ) -> Result<Vec<EventId>, StoreError> {
        let (account, now) = (account.to_owned(), self.clock.millis());
        self.write(move |tx| {
            let mut fresh = Vec::with_capacity(events.len() + locked.len());
            for new in events {
                if insert(tx, &account, &new, now)? {
                    tx.prepare_cached("DELETE FROM locked WHERE bot = ?1 AND event = ?2")?
                        .execute([&account, &new.event.0])?;
                    fresh.push(new.event);
                }
            }
            for new in locked {
                if known::has_event(tx, &account, &new.event)? {
                    continue;
                }
                let body = serde_json::to_string(&new.body)?;
                let added = tx
                    .prepare_cached(
                        "INSERT INTO locked (bot, room, event, sender, body, received) SELECT ?1, ?2, ?3, ?4, ?5, ?6
                         WHERE NOT EXISTS (SELECT 1 FROM inbound WHERE bot = ?1 AND event = ?3)
                         ON CONFLICT (bot, event) DO NOTHING",
                    )?
                    .execute(params![account, new.room.as_str(), new.event.as_str(), new.sender, body, now])?;
                if added == 1 {
                    fresh.push(new.event);
                    tx.prepare_cached(
                        "DELETE FROM locked WHERE bot = ?1 AND room = ?2 AND seq <=
                             (SELECT seq FROM locked WHERE bot = ?1 AND room = ?2 ORDER BY seq DESC LIMIT 1 OFFSET ?3)",
                    )?
                    .execute(params![account, new.room.as_str(), LOCKED])?;
                }
            }
            if let Some(token) = position {
                tx.execute(
                    "INSERT INTO positions (bot, token) VALUES (?1, ?2)
                     ON CONFLICT (bot) DO UPDATE SET token = excluded.token",
                    [&account, &token],
                )?;
            }
            Ok(fresh)
        })
        .await
    }

    /// Returns the newest locked events, at most `limit`, oldest first.
    pub async fn locked(&self, account: &str, limit: usize) -> Result<Vec<LockedInbound>, StoreError> {
        let account = account.to_owned();
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT room, event, sender, body FROM
                     (SELECT * FROM locked WHERE bot = ?1 ORDER BY seq DESC LIMIT ?2) ORDER BY seq",
            )?;
            let rows = select.query_map(params![account, limit as i64], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get::<_, String>(3)?))
            })?;
            rows.map(|row| {
                let (room, event, sender, body) = row?;
                Ok(LockedInbound { room: room.into(), event: event.into(), sender, body: serde_json::from_str(&body)? })
            })
            .collect()
        })
        .await
    }

    /// Returns the room and the sender of a locked event.
    pub async fn locked_event(&self, account: &str, event: &EventId) -> Result<Option<(RoomKey, String)>, StoreError> {
        let (account, event) = (account.to_owned(), event.clone());
        self.read(move |tx| {
            let mut select = tx.prepare_cached("SELECT room, sender FROM locked WHERE bot = ?1 AND event = ?2")?;
            let found =
                select.query_row([&account, &event.0], |row| Ok((RoomKey(row.get(0)?), row.get(1)?))).optional()?;
            Ok(found)
        })
        .await
    }

    /// Removes a locked event. With `new` it is appended to the journal as an ordinary event; without, it is given up
    /// for good. Returns whether it was still locked; if not, nothing changes.
    pub async fn unlock(&self, account: &str, event: &EventId, new: Option<NewInbound>) -> Result<bool, StoreError> {
        let (account, event, now) = (account.to_owned(), event.clone(), self.clock.millis());
        self.write(move |tx| {
            let given_up = tx
                .prepare_cached("SELECT room, sender, body FROM locked WHERE bot = ?1 AND event = ?2")?
                .query_row([&account, &event.0], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))
                .optional()?;
            let Some((room, sender, body)) = given_up else { return Ok(false) };
            tx.execute("DELETE FROM locked WHERE bot = ?1 AND event = ?2", [&account, &event.0])?;
            if let Some(new) = new {
                insert(tx, &account, &new, now)?;
            } else {
                let body = serde_json::from_str(&body)?;
                insert(
                    tx,
                    &account,
                    &NewInbound { room: RoomKey(room), event: event.clone(), sender, body, target: None },
                    now,
                )?;
                done(tx, &account, &[event])?;
            }
            Ok(true)
        })
        .await
    }

    /// Returns the account's sync position as of the last [`Store::admit`].
    pub async fn position(&self, account: &str) -> Result<Option<String>, StoreError> {
        let account = account.to_owned();
        self.read(move |tx| {
            Ok(tx.query_row("SELECT token FROM positions WHERE bot = ?1", [&account], |row| row.get(0)).optional()?)
        })
        .await
    }

    /// Returns the event that a room handles next: the oldest waiting edit or redaction, else the oldest waiting
    /// event.
    pub async fn next_waiting(&self, address: &Address) -> Result<Option<StoredInbound>, StoreError> {
        let address = address.clone();
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT seq, event, sender, body, received FROM inbound
                 WHERE bot = ?1 AND room = ?2 AND turn IS NULL AND done = 0 ORDER BY target IS NULL, seq LIMIT 1",
            )?;
            select.query_row([&address.account, &address.room.0], read).optional()?.transpose()
        })
        .await
    }

    /// Returns the waiting events of a room after `seq`, oldest first, at most `limit`.
    pub async fn waiting(&self, address: &Address, seq: i64, limit: usize) -> Result<Vec<StoredInbound>, StoreError> {
        let address = address.clone();
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT seq, event, sender, body, received FROM inbound
                 WHERE bot = ?1 AND room = ?2 AND turn IS NULL AND done = 0 AND seq > ?3 ORDER BY seq LIMIT ?4",
            )?;
            let rows = select.query_map(params![address.account, address.room.as_str(), seq, limit as i64], read)?;
            rows.map(|row| row?).collect()
        })
        .await
    }

    /// Returns an event and how far it was handled.
    pub async fn find(&self, account: &str, event: &EventId) -> Result<Option<FoundEvent>, StoreError> {
        let (account, event) = (account.to_owned(), event.clone());
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT seq, event, sender, body, received, room, turn, done FROM inbound WHERE bot = ?1 AND event = ?2",
            )?;
            let mut rows = select.query([&account, &event.0])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            let standing = match (row.get::<_, Option<String>>(6)?, row.get::<_, i64>(7)?) {
                (Some(turn), _) => Standing::Claimed(turn.into()),
                (None, 0) => Standing::Waiting,
                (None, PASSED_OVER) => Standing::PassedOver,
                (None, _) => Standing::Done,
            };
            Ok(Some(FoundEvent { inbound: read(row)??, room: RoomKey(row.get(5)?), standing }))
        })
        .await
    }

    /// Returns whether an event was taken before, also if its row was pruned since.
    pub async fn knows(&self, account: &str, event: &EventId) -> Result<bool, StoreError> {
        let (account, event) = (account.to_owned(), event.clone());
        self.read(move |tx| has(tx, &account, &event)).await
    }

    /// Replaces the body of an event that waits, or that nobody wanted, which waits again then; marks the event `change` as
    /// done.
    pub async fn rewrite(
        &self,
        account: &str,
        event: &EventId,
        body: Value,
        change: &EventId,
    ) -> Result<(), StoreError> {
        let (account, event, change) = (account.to_owned(), event.clone(), change.clone());
        self.write(move |tx| {
            let body = serde_json::to_string(&body)?;
            tx.execute(
                "UPDATE inbound SET body = ?3, done = 0
                 WHERE bot = ?1 AND event = ?2 AND turn IS NULL AND done IN (0, ?4)",
                params![account, event.as_str(), body, PASSED_OVER],
            )?;
            done(tx, &account, &[change])
        })
        .await
    }

    /// Marks events as done.
    pub async fn done(&self, account: &str, events: Vec<EventId>) -> Result<(), StoreError> {
        let account = account.to_owned();
        self.write(move |tx| done(tx, &account, &events)).await
    }

    /// Marks an event that nobody wants.
    pub async fn pass_over(&self, account: &str, event: &EventId) -> Result<(), StoreError> {
        let (account, event) = (account.to_owned(), event.clone());
        self.write(move |tx| {
            tx.prepare_cached(
                "UPDATE inbound SET done = ?3 WHERE bot = ?1 AND event = ?2 AND turn IS NULL AND done = 0",
            )?
            .execute(params![account, event.as_str(), PASSED_OVER])?;
            Ok(())
        })
        .await
    }

    /// Returns the newest events of a room, oldest first, at most `most`, of those among the account's newest 20,000.
    pub async fn newest(&self, address: &Address, most: usize) -> Result<Vec<StoredInbound>, StoreError> {
        const SEARCHED: i64 = 20_000;
        let address = address.clone();
        self.read(move |tx| {
            // By their places in the journal, backwards: that ends with the last one needed.
            let mut select = tx.prepare_cached(
                "SELECT seq, event, sender, body, received FROM inbound NOT INDEXED
                 WHERE seq > (SELECT coalesce(max(seq), 0) FROM inbound) - ?3 AND bot = ?1 AND room = ?2
                 ORDER BY seq DESC LIMIT ?4",
            )?;
            let parameters = params![address.account, address.room.as_str(), SEARCHED, most as i64];
            let rows = select.query_map(parameters, read)?;
            let mut newest = rows.map(|row| row?).collect::<Result<Vec<_>, StoreError>>()?;
            newest.reverse();
            Ok(newest)
        })
        .await
    }

    /// Returns whether anybody else than `sender` has written in a room.
    pub async fn others_spoke(&self, address: &Address, sender: &str) -> Result<bool, StoreError> {
        let (address, sender) = (address.clone(), sender.to_owned());
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM inbound WHERE bot = ?1 AND room = ?2 AND sender < ?3)
                     OR EXISTS (SELECT 1 FROM inbound WHERE bot = ?1 AND room = ?2 AND sender > ?3)",
            )?;
            Ok(select.query_row([&address.account, &address.room.0, &sender], |row| row.get(0))?)
        })
        .await
    }

    /// Returns the events that a turn has claimed, oldest first.
    pub async fn claimed(&self, turn: &TurnId) -> Result<Vec<StoredInbound>, StoreError> {
        let turn = turn.clone();
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT seq, event, sender, body, received FROM inbound WHERE turn = ?1 ORDER BY seq",
            )?;
            let rows = select.query_map([turn.as_str()], read)?;
            rows.map(|row| row?).collect()
        })
        .await
    }

    /// Returns the rooms with waiting events or open turns, in which work goes on after a start.
    pub async fn rooms_with_work(&self, account: &str) -> Result<Vec<Address>, StoreError> {
        let account = account.to_owned();
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT DISTINCT room FROM inbound INDEXED BY inbound_waiting WHERE bot = ?1 AND turn IS NULL AND done = 0
                 UNION SELECT room FROM turns INDEXED BY turns_open WHERE bot = ?1 AND state = 'open'",
            )?;
            let rows = select.query_map([&account], |row| row.get::<_, String>(0))?;
            rows.map(|room| Ok(Address { account: account.clone(), room: room?.into() })).collect()
        })
        .await
    }
}

/// Inserts an event; returns whether it is new.
fn insert(tx: &Transaction<'_>, account: &str, new: &NewInbound, now: i64) -> Result<bool, StoreError> {
    if known::has_event(tx, account, &new.event)? {
        return Ok(false);
    }
    let body = serde_json::to_string(&new.body)?;
    let target = new.target.as_ref().map(EventId::as_str);
    let mut insert = tx.prepare_cached(
        "INSERT INTO inbound (bot, room, event, sender, body, received, target) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (bot, event) DO NOTHING",
    )?;
    let row = params![account, new.room.as_str(), new.event.as_str(), new.sender, body, now, target];
    Ok(insert.execute(row)? == 1)
}

/// Returns whether the journal has, or ever had, an event.
pub(super) fn has(tx: &Transaction<'_>, account: &str, event: &EventId) -> Result<bool, StoreError> {
    let mut select = tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM inbound WHERE bot = ?1 AND event = ?2)")?;
    let has: bool = select.query_row([account, event.as_str()], |row| row.get(0))?;
    Ok(has || known::has_event(tx, account, event)?)
}

/// Returns whether an event of a room is still waiting.
pub(super) fn waits(tx: &Transaction<'_>, address: &Address, event: &EventId) -> Result<bool, StoreError> {
    let mut select = tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM inbound
         WHERE bot = ?1 AND event = ?2 AND room = ?3 AND turn IS NULL AND done = 0)",
    )?;
    Ok(select.query_row([&address.account, &event.0, &address.room.0], |row| row.get(0))?)
}

pub(super) fn done(tx: &Transaction<'_>, account: &str, events: &[EventId]) -> Result<(), StoreError> {
    let mut update = tx.prepare_cached("UPDATE inbound SET done = 1 WHERE bot = ?1 AND event = ?2")?;
    for event in events {
        update.execute([account, event.as_str()])?;
    }
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Result<StoredInbound, StoreError>> {
    let body: String = row.get(3)?;
    let (seq, event, sender, received) = (row.get(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(4)?);
    Ok(serde_json::from_str(&body).map_err(StoreError::from).map(|body| StoredInbound {
        seq,
        event: event.into(),
        sender,
        body,
        received,
    }))
}
