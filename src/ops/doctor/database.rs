//! Looks at the database: does it open, can it be written, is it whole, and who works with it now?

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::Check;
use crate::{config::Config, text};

const NAME: &str = "database";
/// A large file is not read to its end: what was seen until then is told.
const LIMIT: Duration = Duration::from_secs(20);

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let path = config.paths.database();
    let owner = owner(&config.paths.state_dir);
    // SQLite blocks; a panic in it is caught where this check's task is awaited.
    let database = tokio::task::spawn_blocking(move || look(&path)).await;
    let database = database.unwrap_or_else(|_| Check::bad(NAME, "the check itself failed", "Try again"));
    let server = match owner {
        Some(pid) => Check::good("server", format!("runs as process {pid}")),
        None => Check::good("server", "none runs on this state directory"),
    };
    vec![database, server]
}

fn look(path: &Path) -> Check {
    let shown = path.display();
    let Ok(metadata) = fs::metadata(path) else {
        return Check::good(NAME, format!("{shown} (made at the first start)"));
    };
    let size = text::human_bytes(metadata.len());
    match whole(path).or_else(damage) {
        Ok(Verdict::Whole) => Check::good(NAME, format!("{shown}, {size}, whole and writable")),
        Ok(Verdict::Unread) => Check::good(
            NAME,
            format!("{shown}, {size}, writable; too large to be read through in {} s", LIMIT.as_secs()),
        ),
        Ok(Verdict::Damaged(what)) => Check::bad(
            NAME,
            format!("{shown} is damaged: {what}"),
            "Stop the server, keep a copy of the file, and restore the last backup or move the file away to begin anew",
        ),
        Err(error) => Check::bad(
            NAME,
            format!("{shown} cannot be used ({})", text::one_line(&error.to_string(), 200)),
            "Check that the file and its folder belong to this user and that the disk is not full",
        ),
    }
}

enum Verdict {
    Whole,
    Unread,
    Damaged(String),
}

fn whole(path: &Path) -> rusqlite::Result<Verdict> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(Duration::from_secs(2))?;
    match connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK;") {
        // Somebody writes just now, so it can be written.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
        other => other?,
    }
    match limited(&connection, || connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))) {
        Ok(said) if said == "ok" => Ok(Verdict::Whole),
        Ok(said) => Ok(Verdict::Damaged(text::one_line(&said, 200))),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(Verdict::Unread),
        Err(error) => Err(error),
    }
}

/// Tells damage, which any query may meet, from trouble around the file.
fn damage(error: rusqlite::Error) -> rusqlite::Result<Verdict> {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Ok(Verdict::Damaged(text::one_line(&error.to_string(), 200)))
        }
        _ => Err(error),
    }
}

/// Runs `query` on the connection, and interrupts it at the limit.
fn limited<T>(connection: &Connection, query: impl FnOnce() -> T) -> T {
    let interrupt = connection.get_interrupt_handle();
    let (done, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if ended.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                interrupt.interrupt();
            }
        });
        let result = query();
        drop(done);
        result
    })
}

/// Returns the process that holds the lock of a state directory. The kernel's list is read, because to try the lock
/// would turn away a server that starts at that instant.
fn owner(state: &Path) -> Option<u32> {
    let lock = fs::metadata(state.join("lock")).ok()?;
    let (major, minor) = (nix::sys::stat::major(lock.dev()), nix::sys::stat::minor(lock.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", lock.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let line = locks.lines().find(|line| line.contains("FLOCK") && line.split_whitespace().any(|word| word == file))?;
    // `1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF`
    line.split_whitespace().nth(4)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::doctor::Status;

    #[test]
    fn a_whole_database_is_good_and_a_missing_one_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("matrix-agent.db");
        assert_eq!(look(&path).status, Status::Good);
        assert!(!path.exists(), "looking makes nothing");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1);").unwrap();
        let check = look(&path);
        assert_eq!((check.status, check.what.contains("whole")), (Status::Good, true), "{}", check.what);
    }

    #[test]
    fn a_damaged_one_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("matrix-agent.db");
        fs::write(&path, b"this is no database, but it is long enough to look like one at first sight".repeat(20))
            .unwrap();
        let check = look(&path);
        assert_eq!(check.status, Status::Bad);
        assert!(check.what.contains("damaged"), "{}", check.what);
    }

    #[test]
    fn damage_inside_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("matrix-agent.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("CREATE TABLE t (x TEXT); CREATE INDEX i ON t (x);").unwrap();
        let fill = "INSERT INTO t WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
                    SELECT 'value ' || i FROM n";
        connection.execute(fill, []).unwrap();
        drop(connection);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 4096].fill(0xa5);
        fs::write(&path, bytes).unwrap();
        assert_eq!(look(&path).status, Status::Bad);
    }

    #[test]
    fn the_owner_of_the_lock_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(owner(folder.path()), None);
        let file = fs::File::create(folder.path().join("lock")).unwrap();
        file.lock().unwrap();
        assert_eq!(owner(folder.path()), Some(std::process::id()));
        drop(file);
        assert_eq!(owner(folder.path()), None);
    }
}
