//! Checks a database's file from outside, also while a server uses it: can it be written, and is it intact? For
//! `doctor`; the running store never does that.

use std::{
    path::Path,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{StoreError, schema};
use crate::text;

/// How long another process may hold the write lock before the check takes that for a sign that the file can be
/// written.
const BUSY: Duration = Duration::from_secs(2);

/// The result of the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// The file can be written, and all of it was read and is intact.
    Whole,
    /// The file can be written; there was no time to read all of it.
    Unread,
    /// The file is no database, or parts of it are damaged; holds what SQLite says.
    Damaged(String),
}

impl Health {
    /// Checks the file, which must exist; stops reading it after `limit`. Blocks.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, read or written, or a newer version of the program has marked it as incompatible with
    /// this one. Damage is no error but a [`Health::Damaged`].
    pub fn of(path: &Path, limit: Duration) -> Result<Self, StoreError> {
        let open = |cause| StoreError::Open { path: path.to_owned(), cause };
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(open)?;
        connection.busy_timeout(BUSY)?;
        match schema::usable(&connection).and_then(|usable| usable.then(|| check(&connection, limit)).transpose()) {
            Ok(Some(health)) => Ok(health),
            Ok(None) => Err(StoreError::Newer { path: path.to_owned() }),
            Err(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                    Ok(Self::Damaged(shown(&error.to_string())))
                }
                Some(ErrorCode::OperationInterrupted) => Ok(Self::Unread),
                _ => Err(open(error)),
            },
        }
    }
}

/// What an account's people are still waiting for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// The account.
    pub account: String,
    /// Messages that no turn has claimed and nobody has answered.
    pub messages: u64,
    /// Rows of the outbox that were not sent.
    pub answers: u64,
}

impl Waiting {
    /// Returns what waits in a database's file, by account. Blocks.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or is no database of this program.
    pub(crate) fn of(path: &Path) -> Result<Vec<Self>, StoreError> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY)?;
        let mut select = connection.prepare(
            "SELECT bot, sum(message), sum(1 - message) FROM (
                 SELECT bot, 1 AS message FROM inbound WHERE turn IS NULL AND done = 0
                 UNION ALL SELECT bot, 0 FROM outbox WHERE sent IS NULL
             ) GROUP BY bot ORDER BY bot",
        )?;
        let count = |row: &rusqlite::Row<'_>, index| row.get::<_, i64>(index).map(|count| count as u64);
        let rows = select.query_map([], |row| {
            Ok(Self { account: row.get(0)?, messages: count(row, 1)?, answers: count(row, 2)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn check(connection: &Connection, limit: Duration) -> rusqlite::Result<Health> {
    // SQLite falls back to reading where it must not write, and lets a transaction that writes nothing begin even then.
    if connection.is_readonly("main")? {
        let read_only = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY);
        return Err(rusqlite::Error::SqliteFailure(read_only, None));
    }
    match connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK;") {
        // Another process writes at the moment, so the file can be written.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
        other => other?,
    }
    let said: String =
        limited(connection, limit, || connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
    Ok(if said == "ok" { Health::Whole } else { Health::Damaged(shown(&said)) })
}

fn shown(said: &str) -> String {
    text::one_line(said, 200)
}

/// Runs `query` and interrupts the connection after `limit`.
fn limited<T>(connection: &Connection, limit: Duration, query: impl FnOnce() -> T) -> T {
    let interrupt = connection.get_interrupt_handle();
    let (done, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                interrupt.interrupt();
            }
        });
        let result = query();
        drop(done);
        result
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn filled(path: &Path) -> Connection {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch("CREATE TABLE t (x TEXT); CREATE INDEX i ON t (x);").unwrap();
        let fill = "INSERT INTO t WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
                    SELECT 'value ' || i FROM n";
        connection.execute(fill, []).unwrap();
        connection
    }

    #[test]
    fn a_whole_one_is_whole_also_while_somebody_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        let connection = filled(&path);
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        assert_eq!(Health::of(&path, LIMIT).unwrap(), Health::Whole);
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert_eq!(Health::of(&path, LIMIT).unwrap(), Health::Whole);
    }

    #[test]
    fn damage_is_found_at_the_beginning_and_inside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        drop(filled(&path));
        let whole = fs::read(&path).unwrap();
        for at in [0, whole.len() / 2] {
            let mut bytes = whole.clone();
            bytes[at..at + 4096].fill(0xa5);
            fs::write(&path, bytes).unwrap();
            assert!(matches!(Health::of(&path, LIMIT).unwrap(), Health::Damaged(_)), "{at}");
        }
    }

    #[test]
    fn one_that_can_only_be_read_is_not_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("test.db");
        drop(filled(&path));
        // As SQLite opens it where the file system takes no writes.
        let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let error = check(&connection, LIMIT).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::ReadOnly), "{error}");
    }

    #[test]
    fn one_that_cannot_be_opened_is_told_and_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.db");
        assert!(matches!(Health::of(&missing, LIMIT), Err(StoreError::Open { .. })));
        assert!(!missing.exists());
    }
}
