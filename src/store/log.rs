//! SQLite's write-ahead log: how it is folded back into the database's file, so that it stays small.
//!
//! Folding costs flushes to the disk, so a thread with a connection of its own does it beside the writer. It never
//! catches up with a writer that always writes, and only a log that is folded back whole begins anew. So the writer
//! itself tells the thread when the log is large, and folds back the little that is left then, between two transactions.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::time;

use super::BUSY;

/// Bytes of the log that are kept to be written over.
const KEPT: i64 = 4 << 20;
/// A log of so many bytes is folded back at once and begins anew.
const LARGE: u64 = 8 << 20;
/// How often a smaller one is folded back.
const EVERY: Duration = Duration::from_secs(5);
/// So few frames are left to the writer if the thread can make it so in some tries: they take it a few milliseconds.
const REST: i64 = 128;
const TRIES: usize = 5;
/// What the writer may take for it. Longer is told in the log.
const HOLD: Duration = Duration::from_millis(20);
/// The longest that somebody in no hurry waits for the thread.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the thread and the writer say to each other. Cheap to clone; the thread ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub(super) struct Log {
    path: Arc<Path>,
    state: Arc<LogState>,
    /// Tells the thread that the log is large.
    grown: mpsc::SyncSender<()>,
}

#[derive(Debug, Default)]
struct LogState {
    /// The thread is at work.
    folding: AtomicBool,
    /// The writer shall fold back what is left.
    rest: AtomicBool,
}

impl Log {
    /// Starts the thread for the database at `path`.
    pub(super) fn watch(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        let state = Arc::new(LogState::default());
        let (grown, grows) = mpsc::sync_channel(1);
        let watched = state.clone();
        thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || watch(&connection, &watched, &grows))
            .map_err(|_| rusqlite::Error::InvalidPath(path.to_owned()))?;
        Ok(Self { path: log_of(path).into(), state, grown })
    }

    /// Tells the thread when the log is large, and folds back what the thread has left, if it asked for it. Called by the
    /// writer after each transaction: a fast one fills the log faster than the thread could look at it now and then.
    pub(super) fn has_grown(&self, connection: &Connection) {
        if !self.state.rest.swap(false, Ordering::Relaxed) {
            if fs::metadata(&self.path).is_ok_and(|log| log.len() >= LARGE) {
                // Where it cannot be sent, the thread is told already.
                let _ = self.grown.try_send(());
            }
            return;
        }
        let begun = Instant::now();
        let folded = restart(connection);
        let took = begun.elapsed();
        match folded {
            Ok(()) if took > HOLD => {
                tracing::info!(
                    milliseconds = took.as_millis(),
                    "writing stood still while the database's log was folded back"
                );
            }
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "the database's log could not be folded back by the writer"),
        }
    }

    /// Waits until the thread is not at work. For what is in no hurry and would only make more work for it.
    pub(super) async fn folded(&self) {
        let until = Instant::now() + PATIENCE;
        while self.state.folding.load(Ordering::Relaxed) && Instant::now() < until {
            time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Leaves folding to the thread, and lets a log that has grown give its space back when it begins anew.
pub(super) fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", KEPT)
}

/// Returns the log's file.
fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn watch(connection: &Connection, state: &LogState, grows: &mpsc::Receiver<()>) {
    loop {
        let is_large = match grows.recv_timeout(EVERY) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        state.folding.store(true, Ordering::Relaxed);
        let mut folded = fold(connection);
        for _ in 1..TRIES {
            if !is_large || !matches!(folded, Ok(rest) if rest > REST) {
                break;
            }
            folded = fold(connection);
        }
        match folded {
            Ok(_) => state.rest.store(is_large, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "the database's log could not be folded back; it grows until it can"),
        }
        state.folding.store(false, Ordering::Relaxed);
    }
}

/// Folds all back and lets the next transaction begin the log anew. Waits for those who still read from the log, for as
/// long as the writer may stand still.
fn restart(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(HOLD)?;
    let folded = connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
    connection.busy_timeout(BUSY)?;
    folded
}

/// Folds back as much as can be without waiting for anybody; returns how many frames are left.
fn fold(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (frames, folded): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok(frames - folded)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::{
        clock::Clock,
        store::{Durability, Store},
    };

    /// Bytes that are written without a pause, several times what the log may have.
    const WRITTEN: u64 = 160 << 20;
    const MOST: u64 = 64 << 20;

    #[test]
    fn what_the_writer_folds_back_at_the_threads_word_lets_the_log_begin_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        set_up(&connection).unwrap();
        connection.execute_batch("CREATE TABLE t (x BLOB)").unwrap();
        let size = || fs::metadata(log_of(&path)).unwrap().len();
        let write = || connection.execute("INSERT INTO t VALUES (zeroblob(1000))", []).unwrap();
        let (grown, grows) = mpsc::sync_channel(1);
        let log = Log { path: log_of(&path).into(), state: Arc::default(), grown };
        while size() < 2 * LARGE {
            connection.execute("INSERT INTO t VALUES (zeroblob(1000000))", []).unwrap();
        }
        log.has_grown(&connection);
        write();
        assert!(size() >= 2 * LARGE, "nobody has asked for it");
        assert!(grows.try_recv().is_ok(), "the thread is told");
        log.state.rest.store(true, Ordering::Relaxed);
        log.has_grown(&connection);
        write();
        assert!(size() <= KEPT as u64, "{}", size());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_log_stays_small_also_when_somebody_always_writes_and_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let store = Store::open(&path, Durability::Normal, Clock::default()).unwrap();
        let (log, written, largest) = (log_of(&path), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let writers = (0..4).map(|writer| {
            let (store, log, written, largest) = (store.clone(), log.clone(), written.clone(), largest.clone());
            tokio::spawn(async move {
                let value = "x".repeat(100_000);
                let mut number = 0;
                while written.fetch_add(value.len() as u64, Ordering::Relaxed) < WRITTEN {
                    number += 1;
                    store.note("coder", &format!("{writer}-{}", number % 8), &value).await.unwrap();
                    largest.fetch_max(fs::metadata(&log).unwrap().len(), Ordering::Relaxed);
                }
            })
        });
        let readers = (0..4).map(|_| {
            let (store, written) = (store.clone(), written.clone());
            tokio::spawn(async move {
                while written.load(Ordering::Relaxed) < WRITTEN {
                    store.noted("coder", "0-1").await.unwrap();
                }
            })
        });
        let readers: Vec<_> = readers.collect();
        futures_util::future::join_all(writers.chain(readers)).await.into_iter().for_each(Result::unwrap);
        let largest = largest.load(Ordering::Relaxed);
        assert!(largest < MOST, "{} MB", largest >> 20);
    }
}
