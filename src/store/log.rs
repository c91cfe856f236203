//! Checkpoints of SQLite's write-ahead log, which keep it small.
//!
//! A checkpoint waits for the disk, so a thread with a connection of its own does it beside the writer. That thread
//! never catches up with a writer that writes all the time, and only a log that was checkpointed whole starts again
//! at its beginning. So the writer tells the thread when the log is large, and checkpoints the little that is left
//! itself, between two transactions.

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

/// Bytes to which a log that grew is truncated when it starts again.
const KEPT: i64 = 4 << 20;
/// A log of at least so many bytes is checkpointed at once.
const LARGE: u64 = 8 << 20;
/// How often a smaller log is checkpointed.
const EVERY: Duration = Duration::from_secs(5);
/// The thread tries to leave at most so many frames to the writer, which needs a few milliseconds for them.
const REST: i64 = 128;
const TRIES: usize = 5;
/// How long the writer may take for its checkpoint; more is logged.
const HOLD: Duration = Duration::from_millis(20);
/// How long [`Log::folded`] waits for the thread.
const PATIENCE: Duration = Duration::from_secs(2);

/// The state that the thread and the writer share. Cheap to clone; the thread ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub(super) struct Log {
    path: Arc<Path>,
    state: Arc<LogState>,
    /// Tells the thread that the log is large.
    grown: mpsc::SyncSender<()>,
}

#[derive(Debug, Default)]
struct LogState {
    /// Whether the thread is checkpointing now.
    folding: AtomicBool,
    /// Whether the writer is to checkpoint what is left.
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

    /// Tells the thread when the log is large; if the thread has asked for it, checkpoints the rest. The writer calls
    /// this after each transaction, because a fast writer fills the log faster than the thread would notice by
    /// itself.
    pub(super) fn has_grown(&self, connection: &Connection) {
        if !self.state.rest.swap(false, Ordering::Relaxed) {
            if fs::metadata(&self.path).is_ok_and(|log| log.len() >= LARGE) {
                // A full channel means that the thread is told already.
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

    /// Waits until the thread is idle, for work in no hurry that would only make more work for it.
    pub(super) async fn folded(&self) {
        let until = Instant::now() + PATIENCE;
        while self.state.folding.load(Ordering::Relaxed) && Instant::now() < until {
            time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Leaves all checkpoints to the thread, and limits the size of a log that starts again.
pub(super) fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", KEPT)
}

/// Returns the path of the log.
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

/// Checkpoints the whole log, so that the next transaction starts it again. Waits for readers of the log, at most as
/// long as the writer may stand still.
fn restart(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(HOLD)?;
    let folded = connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
    connection.busy_timeout(BUSY)?;
    folded
}

/// Checkpoints as much as possible without waiting; returns how many frames are left.
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
