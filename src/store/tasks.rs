//! Issues that are worked on, pull requests with the rooms that they come from, and what GitHub has sent of both.

use rusqlite::{OptionalExtension, Row, params};
use serde_json::Value;

use super::{Store, StoreError, known};
use crate::ids::{Address, EventId, RoomKey};

/// In the place of an account's name among what is known for ever.
const GITHUB: &str = "github";
/// Events that may wait; more are not taken.
const WAITING: i64 = 1000;

/// An issue that became a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTask {
    /// `owner/name`.
    pub repository: String,
    /// The issue's number.
    pub issue: u64,
    /// The room in which it is worked on.
    pub at: Address,
    /// Whose label made it a task, by their name at GitHub.
    pub labeller: String,
    /// The last row of the outbox of which the issue was told.
    pub told: i64,
}

/// A pull request that was opened from a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPull {
    /// `owner/name`.
    pub repository: String,
    /// Its number.
    pub number: u64,
    /// Its branch: `agent/login`.
    pub branch: String,
    /// Its page.
    pub url: String,
    /// The room.
    pub at: Address,
    /// The thread in which it was asked for.
    pub thread: Option<EventId>,
    /// Turns that failed checks have begun.
    pub rounds: u32,
    /// The commit over which the last of them was begun.
    pub head: Option<String>,
}

/// An event that GitHub has sent and that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredHook {
    /// Its place in the order in which they came.
    pub seq: i64,
    /// What it is about: `owner/name#12`, an issue or a pull request, or else a branch.
    pub about: String,
    /// The event.
    pub event: Value,
    /// When it came, in milliseconds since 1970.
    pub received: i64,
}

/// What became of an event that GitHub has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is stored, and will be acted on.
    New,
    /// It came before.
    Known,
    /// Too many wait.
    Full,
}

impl Store {
    /// Stores an event that GitHub has sent, unless one of its `names` (digests, a delivery's id) was taken before.
    pub async fn take_hook(&self, names: Vec<String>, event: Value) -> Result<Taken, StoreError> {
        let now = self.clock.millis();
        self.write(move |tx| {
            for name in &names {
                if known::has_event(tx, GITHUB, &EventId::from(&**name))? {
                    return Ok(Taken::Known);
                }
            }
            if tx.query_row("SELECT count(*) FROM hooks", [], |row| row.get::<_, i64>(0))? >= WAITING {
                return Ok(Taken::Full);
            }
            for name in &names {
                known::keep_event(tx, GITHUB, name)?;
            }
            tx.execute(
                "INSERT INTO hooks (event, received) VALUES (?1, ?2)",
                params![serde_json::to_string(&event)?, now],
            )?;
            Ok(Taken::New)
        })
        .await
    }

    /// Returns the oldest event that waits and is about none of `but`.
    pub async fn next_hook(&self, but: Vec<String>) -> Result<Option<StoredHook>, StoreError> {
        self.read(move |tx| {
            // A check names a branch, of which the pull request may be known.
            let mut select = tx.prepare_cached(
                "SELECT seq, about, event, received FROM (
                     SELECT seq, event, received, coalesce(event ->> '$.repository', '') || '#' || coalesce(
                         event ->> '$.issue', event ->> '$.pull',
                         (SELECT max(number) FROM pulls
                          WHERE repository = event ->> '$.repository' AND branch = event ->> '$.branch'),
                         event ->> '$.branch', '') AS about
                     FROM hooks)
                 WHERE about NOT IN (SELECT value FROM json_each(?1)) ORDER BY seq LIMIT 1",
            )?;
            let row = select
                .query_row([serde_json::to_string(&but)?], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?, row.get(3)?))
                })
                .optional()?;
            row.map(|(seq, about, event, received)| {
                Ok(StoredHook { seq, about, event: serde_json::from_str(&event)?, received })
            })
            .transpose()
        })
        .await
    }

    /// Deletes an event that was acted on.
    pub async fn hook_done(&self, seq: i64) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute("DELETE FROM hooks WHERE seq = ?1", [seq])?;
            Ok(())
        })
        .await
    }

    /// Stores a task, unless its issue is one already. Returns the one that is stored; `None` if its room is another task's.
    pub async fn add_task(&self, task: StoredTask) -> Result<Option<StoredTask>, StoreError> {
        let now = self.clock.millis();
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO tasks (repository, issue, bot, room, labeller, since, told)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6, coalesce((SELECT max(seq) FROM outbox WHERE bot = ?3 AND room = ?4), 0)
                 ON CONFLICT DO NOTHING",
                params![task.repository, task.issue as i64, task.at.account, task.at.room.as_str(), task.labeller, now],
            )?;
            let mut select = tx.prepare_cached(
                "SELECT repository, issue, bot, room, labeller, told FROM tasks WHERE repository = ?1 AND issue = ?2",
            )?;
            Ok(select.query_row(params![task.repository, task.issue as i64], read_task).optional()?)
        })
        .await
    }

    /// Returns the task of an issue.
    pub async fn task(&self, repository: &str, issue: u64) -> Result<Option<StoredTask>, StoreError> {
        let repository = repository.to_owned();
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT repository, issue, bot, room, labeller, told FROM tasks WHERE repository = ?1 AND issue = ?2",
            )?;
            Ok(select.query_row(params![repository, issue as i64], read_task).optional()?)
        })
        .await
    }

    /// Returns all tasks.
    pub async fn tasks(&self) -> Result<Vec<StoredTask>, StoreError> {
        self.read(|tx| {
            let mut select =
                tx.prepare_cached("SELECT repository, issue, bot, room, labeller, told FROM tasks ORDER BY since")?;
            select.query_map([], read_task)?.map(|row| Ok(row?)).collect()
        })
        .await
    }

    /// Returns the tasks in whose rooms turns have ended of which their issues were not told.
    pub async fn tasks_with_news(&self) -> Result<Vec<StoredTask>, StoreError> {
        self.read(|tx| {
            // Both halves have an index of their own.
            let mut select = tx.prepare_cached(
                "SELECT repository, issue, bot, room, labeller, told FROM tasks
                 WHERE EXISTS (SELECT 1 FROM outbox WHERE outbox.bot = tasks.bot AND outbox.room = tasks.room
                               AND seq > told AND sent IS NULL AND payload ->> '$.kind' = 'answer')
                    OR EXISTS (SELECT 1 FROM outbox WHERE outbox.bot = tasks.bot AND outbox.room = tasks.room
                               AND seq > told AND sent IS NOT NULL AND payload ->> '$.kind' = 'answer')
                 ORDER BY since",
            )?;
            select.query_map([], read_task)?.map(|row| Ok(row?)).collect()
        })
        .await
    }

    /// Returns the rows of the outbox that end turns in a room, after a row: each with its number, transaction id and payload.
    pub async fn answers_after(&self, at: &Address, seq: i64) -> Result<Vec<(i64, String, Value)>, StoreError> {
        let at = at.clone();
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                // Both halves have an index of their own.
                "SELECT seq, txn, payload FROM (
                     SELECT seq, txn, payload FROM outbox WHERE bot = ?1 AND room = ?2 AND seq > ?3 AND sent IS NULL
                     UNION ALL
                     SELECT seq, txn, payload FROM outbox WHERE bot = ?1 AND room = ?2 AND seq > ?3 AND sent IS NOT NULL)
                 WHERE payload ->> '$.kind' = 'answer' ORDER BY seq",
            )?;
            let rows = select.query_map(params![at.account, at.room.as_str(), seq], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?))
            })?;
            rows.map(|row| {
                let (seq, txn, payload) = row?;
                Ok((seq, txn, serde_json::from_str(&payload)?))
            })
            .collect()
        })
        .await
    }

    /// Notes up to which row of the outbox a task's issue was told.
    pub async fn task_told(&self, repository: &str, issue: u64, seq: i64) -> Result<(), StoreError> {
        let repository = repository.to_owned();
        self.write(move |tx| {
            tx.execute(
                "UPDATE tasks SET told = max(told, ?3) WHERE repository = ?1 AND issue = ?2",
                params![repository, issue as i64, seq],
            )?;
            Ok(())
        })
        .await
    }

    /// Stores where a pull request comes from, unless that is known.
    pub async fn add_pull(&self, pull: StoredPull) -> Result<(), StoreError> {
        let now = self.clock.millis();
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO pulls (repository, number, branch, url, bot, room, thread, opened)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
                params![
                    pull.repository,
                    pull.number as i64,
                    pull.branch,
                    pull.url,
                    pull.at.account,
                    pull.at.room.as_str(),
                    pull.thread.as_ref().map(EventId::as_str),
                    now
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// Returns a pull request by its number.
    pub async fn pull(&self, repository: &str, number: u64) -> Result<Option<StoredPull>, StoreError> {
        let repository = repository.to_owned();
        self.read(move |tx| {
            let mut select = tx.prepare_cached(&format!("{PULL} WHERE repository = ?1 AND number = ?2"))?;
            Ok(select.query_row(params![repository, number as i64], read_pull).optional()?)
        })
        .await
    }

    /// Returns the newest pull request of a branch.
    pub async fn pull_of_branch(&self, repository: &str, branch: &str) -> Result<Option<StoredPull>, StoreError> {
        let (repository, branch) = (repository.to_owned(), branch.to_owned());
        self.read(move |tx| {
            let mut select = tx.prepare_cached(&format!(
                "{PULL} WHERE repository = ?1 AND branch = ?2 ORDER BY number DESC LIMIT 1"
            ))?;
            Ok(select.query_row([repository, branch], read_pull).optional()?)
        })
        .await
    }

    /// Returns the newest pull request that was opened from a room.
    pub async fn pull_of_room(&self, at: &Address) -> Result<Option<StoredPull>, StoreError> {
        let at = at.clone();
        self.read(move |tx| {
            let mut select =
                tx.prepare_cached(&format!("{PULL} WHERE bot = ?1 AND room = ?2 ORDER BY number DESC LIMIT 1"))?;
            Ok(select.query_row([&at.account, &at.room.0], read_pull).optional()?)
        })
        .await
    }

    /// Counts a turn that a failed check of this commit begins. Returns how many there are now, also if it was counted before.
    pub async fn count_round(&self, repository: &str, number: u64, head: &str) -> Result<u32, StoreError> {
        let (repository, head) = (repository.to_owned(), head.to_owned());
        self.write(move |tx| {
            tx.execute(
                "UPDATE pulls SET rounds = rounds + 1, head = ?3
                 WHERE repository = ?1 AND number = ?2 AND head IS NOT ?3",
                params![repository, number as i64, head],
            )?;
            let mut select = tx.prepare_cached("SELECT rounds FROM pulls WHERE repository = ?1 AND number = ?2")?;
            Ok(select.query_row(params![repository, number as i64], |row| row.get(0)).optional()?.unwrap_or_default())
        })
        .await
    }
}

const PULL: &str = "SELECT repository, number, branch, url, bot, room, thread, rounds, head FROM pulls";

fn read_task(row: &Row<'_>) -> rusqlite::Result<StoredTask> {
    Ok(StoredTask {
        repository: row.get(0)?,
        issue: row.get::<_, i64>(1)? as u64,
        at: Address { account: row.get(2)?, room: RoomKey(row.get(3)?) },
        labeller: row.get(4)?,
        told: row.get(5)?,
    })
}

fn read_pull(row: &Row<'_>) -> rusqlite::Result<StoredPull> {
    Ok(StoredPull {
        repository: row.get(0)?,
        number: row.get::<_, i64>(1)? as u64,
        branch: row.get(2)?,
        url: row.get(3)?,
        at: Address { account: row.get(4)?, room: RoomKey(row.get(5)?) },
        thread: row.get::<_, Option<String>>(6)?.map(EventId),
        rounds: row.get(7)?,
        head: row.get(8)?,
    })
}
