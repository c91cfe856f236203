//! What a database that comes from a backup does not know: what was sent after the backup was made.
//!
//! Rows of the outbox that belong to that time may be in their rooms already, sent by a device that is no more. They are stored as
//! tried by it, so that the chat protocol looks for them in the room before it sends them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::StoreError;
use crate::{clock::Clock, ids::TurnId};

/// Stands for the device that may have sent a row before the backup came back.
pub(super) const DEVICE: &str = "restored backup";
/// The key in `meta`: when the backup came back, in milliseconds since 1970.
const META: &str = "restored";
/// How long after a restore a question counts as one that may have been answered before it: what people have said since the backup
/// was made comes from the homeserver again within that time.
const CATCHING_UP: Duration = Duration::from_hours(1);

/// Returns the file by which `scripts/restore.sh` says that a database comes from a backup.
fn mark(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".restored");
    name.into()
}

/// Notes that the database comes from a backup, if the file beside it says so, and removes the file.
pub(super) fn note(database: &Path, connection: &mut Connection, clock: &Clock) -> Result<(), StoreError> {
    let mark = mark(database);
    if !mark.exists() {
        return Ok(());
    }
    let tx = connection.transaction()?;
    tx.execute(
        "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
        params![META, clock.millis().to_string()],
    )?;
    let rows =
        tx.execute("UPDATE outbox SET tried_by = ?1, tried_at = 0 WHERE sent IS NULL AND tried_by IS NULL", [DEVICE])?;
    tx.commit()?;
    tracing::info!(rows, "the database comes from a backup: what was to be sent is looked for in its room first");
    let removed = fs::remove_file(&mark);
    removed
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
        .map_err(StoreError::File)
}

/// Returns whether what is to be sent now, for a turn if there is one, may have been sent after the backup was made: that holds for
/// turns that are older than the restore, and for those that begin while the account catches up.
pub(super) fn may_have_sent(tx: &Transaction<'_>, turn: Option<&TurnId>, now: i64) -> rusqlite::Result<bool> {
    let mut select = tx.prepare_cached(
        "SELECT CAST(value AS INTEGER) + ?1 > COALESCE((SELECT opened FROM turns WHERE turn = ?2), ?3)
         FROM meta WHERE key = ?4",
    )?;
    let catching_up = i64::try_from(CATCHING_UP.as_millis()).unwrap_or(i64::MAX);
    let found = select.query_row(params![catching_up, turn.map(TurnId::as_str), now, META], |row| row.get(0));
    Ok(found.optional()?.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        ids::Address,
        store::{Durability, NewOutbox, Store},
    };

    fn row(txn: &str) -> NewOutbox {
        NewOutbox { txn: txn.into(), payload: json!({}), file: None }
    }

    #[tokio::test]
    async fn what_a_backup_was_to_send_and_what_is_said_soon_after_it_came_back_may_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("matrix-agent.db");
        let room = Address::of_first("!r:x");
        let tried = async |store: &Store, txn: &str| store.row(txn).await.unwrap().unwrap().tried.map(|it| it.device);
        let clock = Clock::fixed_at(1_000_000);
        let open = || Store::open(&path, Durability::default(), clock.clone()).unwrap();
        let store = open();
        store.post(&room, None, row("before")).await.unwrap();
        assert_eq!(tried(&store, "before").await, None);
        drop(store);

        fs::write(mark(&path), "").unwrap();
        let store = open();
        assert!(!mark(&path).exists(), "it is noted once");
        assert_eq!(tried(&store, "before").await.as_deref(), Some(DEVICE));
        store.post(&room, None, row("soon")).await.unwrap();
        assert_eq!(tried(&store, "soon").await.as_deref(), Some(DEVICE));
        drop(store);

        clock.advance(i64::try_from(CATCHING_UP.as_millis()).unwrap());
        let store = open();
        store.post(&room, None, row("later")).await.unwrap();
        assert_eq!(tried(&store, "later").await, None);
    }
}
