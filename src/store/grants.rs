//! What people have granted to rooms, and the latest time that was seen, by which grants end.

use rusqlite::{Transaction, params};

use super::{Store, StoreError};
use crate::ids::{Address, RoomKey, TurnId};

/// Where the latest time is kept, in milliseconds since 1970.
pub(super) const LATEST: &str = "latest_time";

/// A grant as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGrant {
    /// The account and the room to which it was given.
    pub at: Address,
    /// What kind of thing it is about: `host`, `repository`.
    pub kind: String,
    /// The name of that thing.
    pub what: String,
    /// Whether things may be changed there.
    pub writes: bool,
    /// Who gave it.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub since: i64,
    /// When it ends; `None`: when it is taken back.
    pub until: Option<i64>,
    /// The turn with which it ends.
    pub turn: Option<TurnId>,
}

impl Store {
    /// Stores a grant, in place of one for the same thing, and the latest time.
    pub async fn grant(&self, grant: StoredGrant, latest: i64) -> Result<(), StoreError> {
        self.write(move |tx| {
            put(tx, &grant)?;
            note_latest(tx, latest)
        })
        .await
    }

    /// Deletes the grants of a room for one thing; for all things without `what`. Returns how many there were.
    pub async fn revoke(&self, at: &Address, what: Option<(String, String)>) -> Result<usize, StoreError> {
        let at = at.clone();
        self.write(move |tx| {
            let room = at.room.as_str();
            Ok(match what {
                Some((kind, what)) => tx
                    .prepare_cached("DELETE FROM grants WHERE bot = ?1 AND room = ?2 AND kind = ?3 AND what = ?4")?
                    .execute([&at.account, room, &kind, &what])?,
                None => tx
                    .prepare_cached("DELETE FROM grants WHERE bot = ?1 AND room = ?2")?
                    .execute([&at.account, room])?,
            })
        })
        .await
    }

    /// Deletes the grants that ended before the latest time or with a turn that is not open, and stores that time.
    pub async fn end_grants(&self, latest: i64) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.prepare_cached(
                "DELETE FROM grants WHERE until <= ?1
                 OR turn > '' AND NOT EXISTS (SELECT 1 FROM turns t WHERE t.turn = grants.turn AND t.state = 'open')",
            )?
            .execute([latest])?;
            note_latest(tx, latest)
        })
        .await
    }

    /// Returns all grants, in the order of their rooms and names.
    pub async fn grants(&self) -> Result<Vec<StoredGrant>, StoreError> {
        self.read(all).await
    }

    /// Returns whether the model of a turn has been shown more than the words of those who speak in it: an earlier turn, or the
    /// result of a call.
    pub async fn has_read_more(&self, address: &Address, turn: &TurnId) -> Result<bool, StoreError> {
        let (address, turn) = (address.clone(), turn.clone());
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM calls WHERE turn = ?3 AND ended IS NOT NULL)
                     OR EXISTS (SELECT 1 FROM messages WHERE bot = ?1 AND room = ?2 AND turn <> ?3
                          AND answerer IS (SELECT answerer FROM turns WHERE turn = ?3)
                          AND seq > coalesce((SELECT upto FROM contexts c WHERE c.bot = ?1 AND c.room = ?2), 0))
                     OR EXISTS (SELECT 1 FROM contexts c WHERE c.bot = ?1 AND c.room = ?2 AND c.messages <> '[]')",
            )?;
            Ok(select.query_row(params![address.account, address.room.as_str(), turn.as_str()], |row| row.get(0))?)
        })
        .await
    }
}

/// Returns all grants, in the order of their rooms and names.
pub(super) fn all(tx: &Transaction<'_>) -> Result<Vec<StoredGrant>, StoreError> {
    let mut select = tx.prepare_cached(
        "SELECT bot, room, kind, what, turn, writes, granter, since, until FROM grants
         ORDER BY bot, room, kind, what, turn",
    )?;
    let rows = select.query_map([], |row| {
        let turn: String = row.get(4)?;
        Ok(StoredGrant {
            at: Address { account: row.get(0)?, room: RoomKey(row.get(1)?) },
            kind: row.get(2)?,
            what: row.get(3)?,
            turn: (!turn.is_empty()).then_some(TurnId(turn)),
            writes: row.get(5)?,
            by: row.get(6)?,
            since: row.get(7)?,
            until: row.get(8)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Stores a grant, in place of one for the same thing.
pub(super) fn put(tx: &Transaction<'_>, grant: &StoredGrant) -> Result<(), StoreError> {
    let StoredGrant { at, kind, what, writes, by, since, until, turn } = grant;
    let turn = turn.as_ref().map_or("", TurnId::as_str);
    tx.prepare_cached(
        "INSERT INTO grants (bot, room, kind, what, turn, writes, granter, since, until)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (bot, room, kind, what, turn) DO UPDATE SET writes = excluded.writes,
           granter = excluded.granter, since = excluded.since, until = excluded.until",
    )?
    .execute(params![at.account, at.room.as_str(), kind, what, turn, writes, by, since, until])?;
    Ok(())
}

/// Stores a time, if it is later than the one that is stored.
pub(super) fn note_latest(tx: &Transaction<'_>, latest: i64) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value
         WHERE CAST(excluded.value AS INTEGER) > CAST(meta.value AS INTEGER)",
    )?
    .execute(params![LATEST, latest.to_string()])?;
    Ok(())
}
