//! The pool of connections that only read.
//!
//! SQLite's write-ahead log lets them read while the writer writes, so no read waits for a write, nor for a long read
//! in another room. A read sees everything that was committed before it began, so whoever has waited for a write
//! reads it. What is read in order to be changed is read by the writer, in the same transaction.

use std::{
    panic::Location,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, InterruptHandle, OpenFlags, Transaction};
use tokio::{sync::Semaphore, task, time};

use super::StoreError;

/// Reads that run at the same time; more wait.
const AT_ONCE: usize = 4;
/// The most time a read may take, including its wait for a connection. The longest read, a room's whole conversation,
/// takes some milliseconds; but a disk or a machine that stands still for a while must not cost anybody their turn.
const LIMIT: Duration = Duration::from_mins(2);
/// The log tells of a read that takes longer.
const LONG: Duration = Duration::from_secs(10);
/// The same for who looks on: a transaction that is open for long keeps the log from being folded.
const LOOKING: Duration = Duration::from_secs(3);
/// The page cache of each connection, in KiB.
const CACHE: i64 = 512;

/// A bounded pool of connections, each opened when it is first needed.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    places: Arc<Semaphore>,
    limit: Duration,
}

impl Readers {
    /// Returns a pool for the database at `path`, which must exist in WAL mode by the first read.
    pub(super) fn new(path: &Path) -> Arc<Self> {
        Self::of(path, AT_ONCE, LIMIT)
    }

    /// Returns one connection for whoever looks on: it takes none from those who work.
    pub(super) fn looking_on(path: &Path) -> Arc<Self> {
        Self::of(path, 1, LOOKING)
    }

    fn of(path: &Path, at_once: usize, limit: Duration) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(at_once));
        Arc::new(Self { path: path.to_owned(), idle: Mutex::default(), places, limit })
    }

    /// Runs `work` in one read transaction. A read that takes longer than the pool allows, or whose caller is gone, is
    /// interrupted. `asks` names the read in the log.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        asks: &'static Location<'static>,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let caller = Caller::default();
        let reading = caller.0.clone();
        let mut read = pin!(self.read_as(&caller, work));
        let read = async {
            if let Ok(read) = time::timeout(LONG, &mut read).await {
                return read;
            }
            let waits = matches!(*lock(&reading), Reading::Ahead);
            tracing::warn!(%asks, waits_for_a_connection = waits, "a read of the database takes long; it goes on");
            read.await
        };
        time::timeout(self.limit, read).await.unwrap_or(Err(StoreError::Slow))
    }

    async fn read_as<T: Send + 'static>(
        self: &Arc<Self>,
        caller: &Caller,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reading = caller.0.clone();
        let place = self.places.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let readers = self.clone();
        let read = task::spawn_blocking(move || {
            let _place = place;
            readers.run(&reading, work)
        });
        read.await.map_err(|_| StoreError::Closed)?
    }

    fn run<T>(
        &self,
        reading: &Mutex<Reading>,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let idle = lock(&self.idle).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => open(&self.path)?,
        };
        let result = in_transaction(&mut connection, reading, work);
        // Set before another read gets the connection: a late interruption must not hit that one.
        *lock(reading) = Reading::Over;
        lock(&self.idle).push(connection);
        result
    }
}

/// The state of a read.
#[derive(Default)]
enum Reading {
    /// It waits for a connection or a thread.
    #[default]
    Ahead,
    /// It runs; the handle interrupts it.
    Running(InterruptHandle),
    /// It has ended, or its caller is gone.
    Over,
}

/// The caller of a read; interrupts the read when it is dropped.
#[derive(Default)]
struct Caller(Arc<Mutex<Reading>>);

impl Drop for Caller {
    fn drop(&mut self) {
        let mut reading = lock(&self.0);
        if let Reading::Running(interrupt) = &*reading {
            interrupt.interrupt();
        }
        *reading = Reading::Over;
    }
}

/// Notes that a read runs; returns whether its caller still waits for it.
fn begin(reading: &Mutex<Reading>, interrupt: InterruptHandle) -> bool {
    let mut reading = lock(reading);
    if let Reading::Over = *reading {
        return false;
    }
    *reading = Reading::Running(interrupt);
    true
}

fn in_transaction<T>(
    connection: &mut Connection,
    reading: &Mutex<Reading>,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let interrupt = connection.get_interrupt_handle();
    let transaction = connection.transaction()?;
    // SQLite forgets an interruption that comes while no statement runs. This statement stays open until the end, so
    // that an interruption between two statements of `work` counts.
    let mut under_way = transaction.prepare_cached("SELECT 1 UNION ALL SELECT 2")?;
    let mut rows = under_way.query([])?;
    rows.next()?;
    if begin(reading, interrupt) { work(&transaction) } else { Err(StoreError::Slow) }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    // Each connection is used by one thread at a time, so it needs no mutex.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "cache_size", -CACHE)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicUsize, Ordering},
            mpsc,
        },
        time::Instant,
    };

    use super::*;

    const ENDLESS: &str = "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    /// Longer than anything here takes, and shorter than a test may hang.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn pool(limit: Duration) -> (tempfile::TempDir, Arc<Readers>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.execute_batch("CREATE TABLE t (x INTEGER); INSERT INTO t VALUES (1)").unwrap();
        let readers = Readers::of(&path, AT_ONCE, limit);
        (folder, readers)
    }

    #[track_caller]
    fn here() -> &'static Location<'static> {
        Location::caller()
    }

    fn number(tx: &Transaction<'_>, query: &str) -> Result<i64, StoreError> {
        Ok(tx.query_row(query, [], |row| row.get(0))?)
    }

    #[tokio::test]
    async fn a_read_that_takes_too_long_is_interrupted_and_its_connection_serves_the_next() {
        let (_folder, readers) = pool(Duration::from_millis(20));
        for _ in 0..2 * AT_ONCE {
            let ended = readers.read(here(), |tx| number(tx, ENDLESS)).await;
            assert!(matches!(ended, Err(StoreError::Slow)), "{ended:?}");
        }
        let next = async {
            // On a busy machine this one may not end in time either.
            while readers.read(here(), |tx| number(tx, "SELECT x FROM t")).await.is_err() {}
        };
        time::timeout(PATIENCE, next).await.expect("a connection is free again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_outlasts_a_minute_in_which_nothing_gets_on() {
        let (_folder, readers) = pool(LIMIT);
        let (held, holds) = mpsc::channel();
        let (releases, ended): (Vec<_>, Vec<_>) = (0..AT_ONCE)
            .map(|_| {
                let (release, released) = mpsc::channel::<()>();
                let (held, readers) = (held.clone(), readers.clone());
                let hold = async move {
                    let hold = readers.read(here(), move |_| {
                        held.send(()).unwrap();
                        let _ = released.recv();
                        Ok(())
                    });
                    hold.await
                };
                (release, tokio::spawn(hold))
            })
            .unzip();
        task::spawn_blocking(move || (0..AT_ONCE).for_each(|_| holds.recv_timeout(PATIENCE).unwrap())).await.unwrap();
        let waiting = readers.read(here(), |tx| number(tx, "SELECT x FROM t"));
        tokio::pin!(waiting);
        assert!(time::timeout(Duration::ZERO, &mut waiting).await.is_err(), "all connections are taken");
        time::advance(Duration::from_mins(1)).await;
        assert!(time::timeout(Duration::ZERO, &mut waiting).await.is_err(), "it has given up");
        drop(releases);
        assert_eq!(waiting.await.unwrap(), 1);
        for ended in ended {
            ended.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_read_that_nobody_waits_for_any_more_ends() {
        let (_folder, readers) = pool(LIMIT);
        let (begun, has_begun) = mpsc::channel();
        let (ended, has_ended) = mpsc::channel();
        let read = tokio::spawn({
            let readers = readers.clone();
            async move {
                let read = readers.read(here(), move |tx| {
                    begun.send(()).unwrap();
                    let found = number(tx, ENDLESS);
                    ended.send(matches!(found, Err(StoreError::Slow))).unwrap();
                    found
                });
                read.await
            }
        });
        task::spawn_blocking(move || has_begun.recv_timeout(PATIENCE)).await.unwrap().unwrap();
        read.abort();
        // It does not matter whether the query itself has started by now.
        let interrupted = task::spawn_blocking(move || has_ended.recv_timeout(PATIENCE)).await.unwrap();
        assert_eq!(interrupted, Ok(true));
    }

    #[tokio::test]
    async fn no_more_than_so_many_read_at_once_and_none_can_write() {
        let (_folder, readers) = pool(LIMIT);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let reads = (0..4 * AT_ONCE).map(|_| {
            let (now, most) = (now.clone(), most.clone());
            readers.read(here(), move |tx| {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let until = Instant::now() + Duration::from_millis(5);
                while Instant::now() < until {
                    number(tx, "SELECT x FROM t")?;
                }
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            })
        });
        for read in futures_util::future::join_all(reads).await {
            read.unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
        assert_eq!(lock(&readers.idle).len(), AT_ONCE);
        let written = readers.read(here(), |tx| Ok(tx.execute("INSERT INTO t VALUES (2)", [])?)).await;
        assert!(matches!(written, Err(StoreError::Sqlite(_))), "{written:?}");
    }
}
