//! The outbox: what must reach a room exactly once. A row's payload is frozen when it is written, and the row stays
//! unsent until the chat protocol has confirmed it.

use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde_json::Value;

use super::{Store, StoreError, restored};
use crate::ids::{Address, EventId, RoomKey, TurnId};

/// A row that is to be sent.
#[derive(Clone, Debug)]
pub struct NewOutbox {
    /// The transaction id: always the same for the same answer, so that it is sent once.
    pub txn: String,
    /// The hub's JSON of what is to be sent.
    pub payload: Value,
    /// The name of its file, from [`Store::keep_file`].
    pub file: Option<String>,
}

/// A row of the outbox, sent or not.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxRow {
    /// The order in which a room's rows are sent.
    pub seq: i64,
    /// The transaction id.
    pub txn: String,
    /// The account and room to which it goes.
    pub address: Address,
    /// The turn to which it belongs, if any.
    pub turn: Option<TurnId>,
    /// The hub's JSON of what is to be sent.
    pub payload: Value,
    /// The name of its file ([`Store::kept_file`]), which is removed once it is sent.
    pub file: Option<String>,
    /// The file's bytes, in rows of older versions, until they are sent.
    pub data: Option<Vec<u8>>,
    /// The first attempt to send it, if any; the row may have reached the room then.
    pub tried: Option<Tried>,
}

/// An attempt to send a row. A homeserver recognises a transaction id only from the same device, and not for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The id of the device that tried.
    pub device: String,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

/// The columns that [`read`] expects.
const COLUMNS: &str = "seq, txn, bot, room, payload, data, tried_by, tried_at, file, turn";

impl Store {
    /// Adds a row without ending a turn: a file or screenshot of `turn`, or a notice to the room.
    pub async fn post(&self, address: &Address, turn: Option<&TurnId>, row: NewOutbox) -> Result<(), StoreError> {
        let (address, turn, now) = (address.clone(), turn.cloned(), self.clock.millis());
        self.write(move |tx| put(tx, &address, turn.as_ref(), &[row], now)).await
    }

    /// Returns a room's oldest unsent row.
    pub async fn next_unsent(&self, address: &Address) -> Result<Option<OutboxRow>, StoreError> {
        let address = address.clone();
        self.read(move |tx| {
            let mut select = tx.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM outbox WHERE bot = ?1 AND room = ?2 AND sent IS NULL ORDER BY seq LIMIT 1"
            ))?;
            select.query_row([&address.account, &address.room.0], read).optional()?.transpose()
        })
        .await
    }

    /// Returns the rows of a turn, sent or not, oldest first.
    pub async fn rows_of_turn(&self, turn: &TurnId) -> Result<Vec<OutboxRow>, StoreError> {
        let turn = turn.clone();
        self.read(move |tx| {
            let mut select =
                tx.prepare_cached(&format!("SELECT {COLUMNS} FROM outbox WHERE turn = ?1 ORDER BY seq"))?;
            let rows = select.query_map([turn.as_str()], read)?;
            rows.map(|row| row?).collect()
        })
        .await
    }

    /// Returns the row of a transaction id, sent or not.
    pub async fn row(&self, txn: &str) -> Result<Option<OutboxRow>, StoreError> {
        let txn = txn.to_owned();
        self.read(move |tx| {
            let mut select = tx.prepare_cached(&format!("SELECT {COLUMNS} FROM outbox WHERE txn = ?1"))?;
            select.query_row([&txn], read).optional()?.transpose()
        })
        .await
    }

    /// Returns whether the row of a transaction id waits to be sent.
    pub async fn is_unsent(&self, txn: &str) -> Result<bool, StoreError> {
        let txn = txn.to_owned();
        self.read(move |tx| {
            let mut select =
                tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM outbox WHERE txn = ?1 AND sent IS NULL)")?;
            Ok(select.query_row([&txn], |row| row.get(0))?)
        })
        .await
    }

    /// Returns whether an event is one that was sent for the account into this room: a row, or a message that a note holds
    /// because it is changed later.
    pub async fn is_own(&self, address: &Address, event: &EventId) -> Result<bool, StoreError> {
        let (address, event) = (address.clone(), event.clone());
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM outbox WHERE bot = ?1 AND room = ?2 AND sent IS NOT NULL AND sent = ?3)
                     OR EXISTS (SELECT 1 FROM notes WHERE bot = ?1 AND value = ?3)",
            )?;
            Ok(select.query_row(params![address.account, address.room.as_str(), event.as_str()], |row| row.get(0))?)
        })
        .await
    }

    /// Notes that a device is about to send a row. Only the first attempt is kept.
    pub async fn trying(&self, txn: &str, device: &str) -> Result<(), StoreError> {
        let (txn, device, now) = (txn.to_owned(), device.to_owned(), self.clock.millis());
        self.write(move |tx| {
            tx.prepare_cached("UPDATE outbox SET tried_by = ?2, tried_at = ?3 WHERE txn = ?1 AND tried_by IS NULL")?
                .execute(params![txn, device, now])?;
            Ok(())
        })
        .await
    }

    /// Returns the rooms with unsent rows.
    pub async fn rooms_with_unsent(&self, account: &str) -> Result<Vec<Address>, StoreError> {
        let account = account.to_owned();
        self.read(move |tx| {
            let mut select = tx.prepare_cached("SELECT DISTINCT room FROM outbox WHERE bot = ?1 AND sent IS NULL")?;
            let rows = select.query_map([&account], |row| row.get::<_, String>(0))?;
            rows.map(|room| Ok(Address { account: account.clone(), room: room?.into() })).collect()
        })
        .await
    }

    /// Notes that a row was sent, and as which event; removes its file. Its turn is closed if that was its last
    /// unsent row.
    pub async fn sent(&self, seq: i64, event: &EventId) -> Result<(), StoreError> {
        let (event, now) = (event.clone(), self.clock.millis());
        let sent = self.write(move |tx| {
            let mut sent =
                tx.prepare_cached("UPDATE outbox SET sent = ?2, data = NULL WHERE seq = ?1 RETURNING file")?;
            let file: Option<Option<String>> =
                sent.query_row(params![seq, event.as_str()], |row| row.get(0)).optional()?;
            tx.prepare_cached(
                "UPDATE turns SET state = 'closed', closed = ?2
                 WHERE state = 'answered' AND turn = (SELECT turn FROM outbox WHERE seq = ?1)
                   AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.turn = turns.turn AND o.sent IS NULL)",
            )?
            .execute(params![seq, now])?;
            Ok(file.flatten())
        });
        let file = sent.await?;
        self.remove_files(file.into_iter().collect()).await;
        Ok(())
    }
}

/// Inserts rows; those whose transaction id is there already are left out.
pub(super) fn put(
    tx: &Transaction<'_>,
    address: &Address,
    turn: Option<&TurnId>,
    rows: &[NewOutbox],
    now: i64,
) -> Result<(), StoreError> {
    let (device, at) =
        if restored::may_have_sent(tx, turn, now)? { (Some(restored::DEVICE), Some(0)) } else { (None, None) };
    let mut insert = tx.prepare_cached(
        "INSERT INTO outbox (txn, bot, room, turn, payload, file, created, tried_by, tried_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (txn) DO NOTHING",
    )?;
    for row in rows {
        let payload = serde_json::to_string(&row.payload)?;
        let turn = turn.map(TurnId::as_str);
        let room = address.room.as_str();
        insert.execute(params![row.txn, address.account, room, turn, payload, row.file, now, device, at])?;
    }
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Result<OutboxRow, StoreError>> {
    let payload: String = row.get(4)?;
    let (seq, txn, data, file) = (row.get(0)?, row.get(1)?, row.get(5)?, row.get(8)?);
    let turn: Option<String> = row.get(9)?;
    let address = Address { account: row.get(2)?, room: RoomKey(row.get(3)?) };
    let tried = match (row.get(6)?, row.get(7)?) {
        (Some(device), Some(at)) => Some(Tried { device, at }),
        _ => None,
    };
    Ok(serde_json::from_str(&payload).map_err(StoreError::from).map(|payload| OutboxRow {
        seq,
        txn,
        address,
        turn: turn.map(TurnId),
        payload,
        file,
        data,
        tried,
    }))
}
