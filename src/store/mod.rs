//! The one SQLite file: journal, turns, conversation, tool calls, outbox, tokens.
//!
//! One thread owns the connection that writes. Each writing method sends it a closure and waits for the result, so
//! that every method is one transaction and nothing blocks the async runtime. Reads have connections of their own
//! (`readers.rs`). The store knows ids and JSON; it must not know what a message means.

mod asks;
mod calls;
mod cards;
mod compact;
mod context;
mod copy;
mod encrypted;
mod files;
mod grants;
mod health;
mod home;
mod journal;
mod known;
mod log;
mod looking;
mod notes;
mod outbox;
mod prune;
mod readers;
mod restored;
mod rooms;
mod schema;
mod sealed;
mod spending;
mod tasks;
mod times;
mod turns;

use std::{
    panic::Location,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use nix::sys::statvfs::statvfs;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Notify, oneshot};

use log::Log;
use readers::Readers;

pub use asks::{Ceilings, MayAsk, Span};
pub(crate) use calls::CallRecord;
pub use calls::EndedCall;
pub use cards::{CardState, StoredCard};
pub use compact::Size;
pub(crate) use context::History;
pub(crate) use copy::copy;
pub use grants::StoredGrant;
pub use health::Health;
pub(crate) use health::Waiting;
pub(crate) use home::copied_from;
pub use journal::{LockedInbound, NewInbound};
pub(crate) use journal::{Standing, StoredInbound};
pub use known::Sealed;
pub(crate) use looking::{Overview, RoomCounts, ShownTurn};
#[cfg(test)]
pub(crate) use looking::{ShownDay, ShownRoom};
pub use outbox::NewOutbox;
pub(crate) use outbox::{OutboxRow, Tried};
pub(crate) use rooms::{Alias, LeftRoom};
#[cfg(test)]
pub(crate) use spending::Sum;
pub use spending::{DayLimits, DaySums, ORCHESTRATOR, Spender, Spending, Tokens, Verdict, Whose};
pub use tasks::{StoredHook, StoredPull, StoredTask, Taken};
pub(crate) use turns::{OpenTurn, TurnState};

use crate::{
    clock::{Clock, Lasting},
    ids::{self, Address, BotName},
    strings::database,
};

/// Closures that may be queued for the writer; then callers wait.
const QUEUE: usize = 256;

/// How long a write waits while another process holds the lock.
const BUSY: Duration = Duration::from_secs(5);

/// A bot's conversation in a room: the key of its messages and its context.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Conversation {
    /// The account and the room.
    pub address: Address,
    /// The bot.
    pub bot: BotName,
}

/// The bot whose rows have null in the column `answerer`, which is newer than they are.
const FIRST_BOT: &str = "coder";

/// Returns a bot as the column `answerer` holds it.
fn answerer(bot: &BotName) -> Option<&str> {
    Some(bot.as_str()).filter(|name| *name != FIRST_BOT)
}

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database could not be opened or migrated.
    #[error("{}", database::not_opened(.path, .cause))]
    Open {
        /// The database's file.
        path: PathBuf,
        /// What SQLite said.
        cause: rusqlite::Error,
    },
    /// A newer version of the program has marked the database as incompatible with this one.
    #[error("{}", database::newer(.path))]
    Newer {
        /// The database's file.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("{}", database::FULL)]
    Full,
    /// A read was interrupted at its time limit.
    #[error("{}", database::SLOW)]
    Slow,
    /// SQLite failed.
    #[error("{}", database::failed(.0))]
    Sqlite(rusqlite::Error),
    /// A file that is to be sent could not be stored or read.
    #[error("{}", database::file_not_kept(.0))]
    File(std::io::Error),
    /// A stored value is not the JSON that it should be.
    #[error("{}", database::corrupt(.0))]
    Corrupt(#[from] serde_json::Error),
    /// The writer's thread has ended, because the program ends.
    #[error("{}", database::CLOSED)]
    Closed,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            // Only reads are ever interrupted: at their time limit, or when nobody waits for them.
            Some(rusqlite::ErrorCode::OperationInterrupted) => Self::Slow,
            _ => Self::Sqlite(error),
        }
    }
}

/// How much a commit waits for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A killed process loses nothing; a power cut may lose the last transactions.
    #[default]
    Normal,
    /// A power cut loses nothing either; each commit waits for the disk.
    Full,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The database. Cheap to clone; the file is closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    /// The connections that read. They are closed before the writer: the last connection checkpoints the log.
    readers: Arc<Readers>,
    /// The connection of those who look on.
    looking_on: Arc<Readers>,
    /// The writer's queue.
    jobs: mpsc::SyncSender<Job>,
    /// The checkpoints of the write-ahead log.
    log: Log,
    /// Notified when a conversation was given up, so that it is deleted soon.
    forgetting: Arc<Notify>,
    /// Rung when tokens were settled, so that who waits for them asks again.
    settled: Arc<Notify>,
    /// Stamps rows.
    clock: Clock,
    /// Tells by when what lasts for a time has ended.
    lasting: Lasting,
    /// The directory for files that are to be sent.
    files: Arc<Path>,
    /// The id of this installation, which its containers carry as a label.
    instance: Arc<str>,
    /// Random bytes that only this installation knows, in hex.
    secret: SecretString,
}

impl Store {
    /// Opens or creates the database and migrates it. Blocks; call it before serving.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, is no database, cannot be migrated, or a newer version marked it
    /// ([`StoreError::Newer`]).
    pub fn open(path: &Path, durability: Durability, clock: Clock) -> Result<Self, StoreError> {
        let fail = |cause| StoreError::Open { path: path.to_owned(), cause };
        let mut connection = connect(path, durability).map_err(fail)?;
        if !schema::migrate(&mut connection).map_err(fail)? {
            return Err(StoreError::Newer { path: path.to_owned() });
        }
        spending::settle_left(&mut connection).map_err(fail)?;
        restored::note(path, &mut connection, &clock)?;
        let lasting = times::begin(&connection, &clock).map_err(fail)?;
        let instance = made_once(&connection, "instance", 8).map_err(fail)?;
        let secret = made_once(&connection, "secret", 32).map_err(fail)?;
        home::settle(&connection, path).map_err(fail)?;
        let files = files::folder(path);
        files::tidy(&files, &connection)?;
        let (jobs, queue) = mpsc::sync_channel::<Job>(QUEUE);
        let log = Log::watch(path).map_err(fail)?;
        let folds = log.clone();
        thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                while let Ok(job) = queue.recv() {
                    job(&mut connection);
                    folds.has_grown(&connection);
                }
            })
            .map_err(|_| StoreError::Closed)?;
        Ok(Self {
            readers: Readers::new(path),
            looking_on: Readers::looking_on(path),
            jobs,
            log,
            forgetting: Arc::default(),
            settled: Arc::default(),
            clock,
            lasting,
            files: files.into(),
            instance: instance.into(),
            secret: secret.into(),
        })
    }

    /// Returns the id of this installation, which is created once.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Returns whether the disk that holds the database has space for some more rows; yes, if it does not say.
    pub(crate) fn has_space(&self) -> bool {
        const SOME: u64 = 1 << 20;
        // The folder of files is made when there is one; it lies beside the database.
        let folder = self.files.parent().unwrap_or(&self.files);
        statvfs(folder).map_or(true, |disk| disk.blocks_available() * disk.fragment_size() >= SOME)
    }

    /// Returns the secret of this installation, from which keys are derived that stay the same after a restart.
    pub(crate) fn secret(&self) -> &str {
        self.secret.expose_secret()
    }

    /// Returns the clock that stamps the rows.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns the time by which what lasts for a time ends: it never goes back.
    pub(crate) fn lasting(&self) -> &Lasting {
        &self.lasting
    }

    /// Waits until the writer's thread has run what was queued before; changes nothing.
    pub async fn take_turn(&self) -> Result<(), StoreError> {
        self.write(|_| Ok(())).await
    }

    /// Runs a transaction that only reads, beside the writer.
    #[track_caller]
    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send {
        self.readers.read(Location::caller(), work)
    }

    /// The same for who only looks on, on a connection of its own, so that nobody who works waits for it.
    #[track_caller]
    fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send {
        self.looking_on.read(Location::caller(), work)
    }

    /// Runs a transaction on the writer's thread.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = connection.transaction().map_err(StoreError::from).and_then(|transaction| {
                let value = work(&transaction)?;
                transaction.commit()?;
                Ok(value)
            });
            // The caller may be gone; the transaction is committed all the same.
            let _ = reply.send(result);
        });
        if let Err(refused) = self.jobs.try_send(job) {
            let job = match refused {
                mpsc::TrySendError::Full(job) => job,
                mpsc::TrySendError::Disconnected(_) => return Err(StoreError::Closed),
            };
            let jobs = self.jobs.clone();
            tokio::task::spawn_blocking(move || jobs.send(job))
                .await
                .map_err(|_| StoreError::Closed)?
                .map_err(|_| StoreError::Closed)?;
        }
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

fn connect(path: &Path, durability: Durability) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    // A transaction that begins with a read and writes later does not wait for the writer's lock: SQLite fails it at
    // once. Whoever reads the head of a log that is being written, a reader or a checkpoint, holds that lock for a moment.
    connection.set_transaction_behavior(TransactionBehavior::Immediate);
    // `auto_vacuum` must be set before the first table is made; on an existing database it changes nothing.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", if durability == Durability::Full { "FULL" } else { "NORMAL" })?;
    connection.pragma_update(None, "foreign_keys", true)?;
    log::set_up(&connection)?;
    connection.pragma_update(None, "cache_size", -2048)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Returns the random hex text under `key`, made of `bytes` random bytes when it is first asked for.
fn made_once(connection: &Connection, key: &str, bytes: usize) -> rusqlite::Result<String> {
    let found = connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()?;
    if let Some(found) = found {
        return Ok(found);
    }
    let made = ids::random(bytes);
    connection.execute("INSERT INTO meta (key, value) VALUES (?1, ?2)", [key, &made])?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ids::{EventId, TurnId};

    /// Longer than anything here takes, and shorter than a test may hang.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Blocks the writer in the middle of a transaction until the sender is dropped.
    async fn held(store: &Store) -> mpsc::Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let (begun, has_begun) = oneshot::channel();
        let writer = store.clone();
        tokio::spawn(async move {
            let held = writer.write(move |tx| {
                tx.execute("INSERT INTO meta (key, value) VALUES ('held', '')", [])?;
                let _ = begun.send(());
                let _ = released.recv();
                Ok(())
            });
            held.await
        });
        has_begun.await.unwrap();
        release
    }

    #[tokio::test]
    async fn a_write_that_reads_first_waits_for_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let store = Store::open(&path, Durability::Normal, Clock::fixed_at(1_000)).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let write = store.write(|tx| {
            let rooms: i64 = tx.query_row("SELECT count(*) FROM rooms", [], |row| row.get(0))?;
            tx.execute("INSERT INTO meta (key, value) VALUES ('rooms', ?1)", [rooms])?;
            Ok(())
        });
        tokio::pin!(write);
        let early = tokio::time::timeout(Duration::from_millis(100), &mut write).await;
        assert!(early.is_err(), "it did not wait: {early:?}");
        other.execute_batch("COMMIT").unwrap();
        write.await.unwrap();
    }

    #[tokio::test]
    async fn no_read_waits_for_a_write() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), Durability::Normal, Clock::fixed_at(1_000)).unwrap();
        let at = Address { account: "coder".into(), room: "terminal:one".into() };
        let (event, turn) = (EventId::from("e1"), TurnId::from("t1"));
        let new = NewInbound {
            room: at.room.clone(),
            event: event.clone(),
            sender: "anna".into(),
            body: json!("hi"),
            target: None,
        };
        store.admit("coder", vec![new], vec![], Some("here".into())).await.unwrap();
        let conversation = Conversation { address: at.clone(), bot: FIRST_BOT.into() };
        store.open_turn(&conversation, &turn, vec![event.clone()], json!("hi")).await.unwrap();

        let release = held(&store).await;
        let reads = async {
            // A read sees what was committed, though the writer is blocked.
            assert_eq!(store.position("coder").await.unwrap().as_deref(), Some("here"));
            assert_eq!(store.claimed(&turn).await.unwrap().len(), 1);
            assert_eq!(store.find("coder", &event).await.unwrap().unwrap().standing, Standing::Claimed(turn.clone()));
            assert_eq!(store.history(&conversation).await.unwrap().len(), 1);
            assert_eq!(store.turn_history(&at, &turn).await.unwrap().len(), 1);
            assert!(store.is_open(&turn).await.unwrap());
            assert_eq!(store.open_turns(&at).await.unwrap().len(), 1);
            assert_eq!(store.rooms_with_work("coder").await.unwrap().len(), 1);
            assert_eq!(store.homes_in_use().await.unwrap().len(), 1);
            assert_eq!(store.next_waiting(&at).await.unwrap(), None);
            assert_eq!(store.waiting(&at, 0, 10).await.unwrap(), []);
            assert!(!store.others_spoke(&at, "anna").await.unwrap());
            assert_eq!(store.locked("coder", 10).await.unwrap(), []);
            assert_eq!(store.locked_event("coder", &event).await.unwrap(), None);
            assert_eq!(store.noted("coder", "key").await.unwrap(), None);
            assert_eq!(store.next_unsent(&at).await.unwrap(), None);
            assert_eq!(store.rows_of_turn(&turn).await.unwrap(), []);
            assert_eq!(store.row("txn").await.unwrap(), None);
            assert!(!store.is_unsent("txn").await.unwrap());
            assert_eq!(store.rooms_with_unsent("coder").await.unwrap(), []);
            assert_eq!(store.joined_rooms("coder").await.unwrap(), []);
            assert_eq!(store.left_rooms("coder").await.unwrap(), []);
            assert!(!store.is_left("coder", &at.room).await.unwrap());
            assert_eq!(store.homes("coder").await.unwrap(), []);
            assert_eq!(store.encrypted().await.unwrap(), []);
            assert_eq!(store.spending(&at, 7).await.unwrap(), []);
            assert_eq!(store.day_sums(&at, "anna").await.unwrap(), DaySums::default());
        };
        tokio::time::timeout(PATIENCE, reads).await.expect("a read waits for the writer");
        drop(release);
    }
}
