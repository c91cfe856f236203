//! The journal: what people said, written down before anything acts on it.

use rusqlite::{OptionalExtension, Row, params};
use serde_json::Value;

use super::{Address, Store, StoreError};
use crate::ids::{EventId, RoomKey, TurnId};

/// An event on its way into the journal.
#[derive(Clone, Debug)]
pub struct NewInbound {
    /// Where it was said.
    pub room: RoomKey,
    /// Its id; the journal takes it once.
    pub event: EventId,
    /// Who said it.
    pub sender: String,
    /// What was said, as the hub wrote it down.
    pub body: Value,
}

/// An event in the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredInbound {
    /// The order of arrival.
    pub seq: i64,
    /// Its id.
    pub event: EventId,
    /// Who said it.
    pub sender: String,
    /// What was said.
    pub body: Value,
    /// When it was admitted, in milliseconds since 1970.
    pub received: i64,
}

impl Store {
    /// Writes events down, and how far the protocol's stream was read, in one transaction. Returns the ids that were
    /// new: an event that comes again is left out.
    pub async fn admit(
        &self,
        bot: &str,
        events: Vec<NewInbound>,
        position: Option<String>,
    ) -> Result<Vec<EventId>, StoreError> {
        let (bot, now) = (bot.to_owned(), self.clock.millis());
        self.write(move |tx| {
            let mut fresh = Vec::with_capacity(events.len());
            {
                let mut insert = tx.prepare_cached(
                    "INSERT INTO inbound (bot, room, event, sender, body, received) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT (bot, event) DO NOTHING",
                )?;
                for new in events {
                    let body = serde_json::to_string(&new.body)?;
                    let row = params![bot, new.room.as_str(), new.event.as_str(), new.sender, body, now];
                    if insert.execute(row)? == 1 {
                        fresh.push(new.event);
                    }
                }
            }
            if let Some(token) = position {
                tx.execute(
                    "INSERT INTO positions (bot, token) VALUES (?1, ?2)
                     ON CONFLICT (bot) DO UPDATE SET token = excluded.token",
                    [&bot, &token],
                )?;
            }
            Ok(fresh)
        })
        .await
    }

    /// Returns how far the bot's stream was read.
    pub async fn position(&self, bot: &str) -> Result<Option<String>, StoreError> {
        let bot = bot.to_owned();
        self.write(move |tx| {
            Ok(tx.query_row("SELECT token FROM positions WHERE bot = ?1", [&bot], |row| row.get(0)).optional()?)
        })
        .await
    }

    /// Returns the events of a room that no turn has claimed yet, oldest first, at most `limit`.
    pub async fn waiting(&self, address: &Address, limit: usize) -> Result<Vec<StoredInbound>, StoreError> {
        let address = address.clone();
        self.write(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT seq, event, sender, body, received FROM inbound
                 WHERE bot = ?1 AND room = ?2 AND turn IS NULL AND done = 0 ORDER BY seq LIMIT ?3",
            )?;
            let rows = select.query_map(params![address.bot, address.room.as_str(), limit as i64], read)?;
            rows.map(|row| row?).collect()
        })
        .await
    }

    /// Returns the events that a turn has claimed, oldest first.
    pub async fn claimed(&self, turn: &TurnId) -> Result<Vec<StoredInbound>, StoreError> {
        let turn = turn.clone();
        self.write(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT seq, event, sender, body, received FROM inbound WHERE turn = ?1 ORDER BY seq",
            )?;
            let rows = select.query_map([turn.as_str()], read)?;
            rows.map(|row| row?).collect()
        })
        .await
    }

    /// Returns the rooms in which events wait or turns are unfinished: where work goes on after a start.
    pub async fn rooms_with_work(&self, bot: &str) -> Result<Vec<Address>, StoreError> {
        let bot = bot.to_owned();
        self.write(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT DISTINCT room FROM inbound WHERE bot = ?1 AND turn IS NULL AND done = 0
                 UNION SELECT room FROM turns WHERE bot = ?1 AND state = 'open'",
            )?;
            let rows = select.query_map([&bot], |row| row.get::<_, String>(0))?;
            rows.map(|room| Ok(Address { bot: bot.clone(), room: room?.into() })).collect()
        })
        .await
    }
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
