//! The rooms in which an account is or was, and which room's sandbox and conversation an upgraded room uses.
//!
//! All rows of a conversation carry its home: the room in which it began. The hub translates rooms to homes; of the
//! store's methods only those in this file know both.

use rusqlite::{Transaction, params};

use super::{NewOutbox, Store, StoreError, files, known, outbox, prune};
use crate::ids::{Address, EventId, RoomKey, TurnId};

/// A room that was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftRoom {
    /// The room.
    pub room: RoomKey,
    /// When it was left, in milliseconds since 1970.
    pub since: i64,
    /// Whether its conversation was given up. Its sandbox may still be there.
    pub cleared: bool,
}

/// A room that uses another room's sandbox and conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The room.
    pub room: RoomKey,
    /// The room in which the conversation began, its home.
    pub home: RoomKey,
}

impl Store {
    /// Notes that an account is in a room, by the join event `joined`. The greeting goes to the outbox of `home`
    /// unless this event has greeted it before.
    pub async fn join(
        &self,
        home: &Address,
        room: &RoomKey,
        joined: &EventId,
        greeting: Option<NewOutbox>,
    ) -> Result<(), StoreError> {
        let (home, room, joined, now) = (home.clone(), room.clone(), joined.clone(), self.clock.millis());
        self.write(move |tx| {
            let known: bool = tx.query_row(
                "SELECT EXISTS (SELECT 1 FROM rooms WHERE bot = ?1 AND room = ?2 AND joined = ?3)",
                [&home.account, &room.0, &joined.0],
                |row| row.get(0),
            )?;
            tx.execute(
                "INSERT INTO rooms (bot, room, joined) VALUES (?1, ?2, ?3) ON CONFLICT (bot, room)
                 DO UPDATE SET joined = excluded.joined, missed = NULL, cleared = 0",
                [&home.account, &room.0, &joined.0],
            )?;
            match greeting {
                Some(greeting) if !known => outbox::put(tx, &home, None, &[greeting], now),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Returns the rooms in which an account is.
    pub async fn joined_rooms(&self, account: &str) -> Result<Vec<RoomKey>, StoreError> {
        let account = account.to_owned();
        self.read(move |tx| {
            let mut select = tx.prepare_cached("SELECT room FROM rooms WHERE bot = ?1 AND missed IS NULL")?;
            let rows = select.query_map([&account], |row| row.get::<_, String>(0).map(RoomKey))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Notes that a room was left, whose home is `home`: its open turns end without an answer, and its waiting events
    /// and unsent rows are dropped. Returns the turns that were open.
    pub async fn leave(&self, home: &Address, room: &RoomKey) -> Result<Vec<TurnId>, StoreError> {
        let (home, room, now) = (home.clone(), room.clone(), self.clock.millis());
        let left = self.write(move |tx| {
            let at = [&home.account, &home.room.0];
            tx.execute(
                "INSERT INTO rooms (bot, room, joined, missed) VALUES (?1, ?2, '', ?3)
                 ON CONFLICT (bot, room) DO UPDATE SET missed = coalesce(missed, excluded.missed)",
                params![home.account, room.as_str(), now],
            )?;
            give_up_locked(tx, &home.account, &room)?;
            tx.execute("UPDATE inbound SET done = 1 WHERE bot = ?1 AND room = ?2 AND turn IS NULL AND done = 0", at)?;
            let open: Vec<TurnId> = tx
                .prepare("SELECT turn FROM turns WHERE bot = ?1 AND room = ?2 AND state = 'open'")?
                .query_map(at, |row| row.get::<_, String>(0).map(TurnId))?
                .collect::<Result<_, _>>()?;
            close_turns(tx, &home, now)?;
            Ok((open, drop_unsent(tx, &home)?))
        });
        let (open, files) = left.await?;
        self.remove_files(files).await;
        Ok(open)
    }

    /// Notes that a room that was left was left now at last: what the clock showed then is still to come.
    pub async fn left_at_last(&self, account: &str, room: &RoomKey) -> Result<(), StoreError> {
        let (account, room, now) = (account.to_owned(), room.clone(), self.clock.millis());
        self.write(move |tx| {
            tx.execute(
                "UPDATE rooms SET missed = ?3 WHERE bot = ?1 AND room = ?2 AND missed > ?3",
                params![account, room.as_str(), now],
            )?;
            Ok(())
        })
        .await
    }

    /// Notes that the account has left a room that another one has followed. Its home is not touched.
    pub async fn leave_old(&self, account: &str, room: &RoomKey) -> Result<(), StoreError> {
        let (account, room) = (account.to_owned(), room.clone());
        self.write(move |tx| {
            tx.execute("DELETE FROM rooms WHERE bot = ?1 AND room = ?2", [&account, &room.0])?;
            give_up_locked(tx, &account, &room)
        })
        .await
    }

    /// Drops the unsent rows of a room that was left.
    pub async fn drop_unsent(&self, home: &Address) -> Result<(), StoreError> {
        let home = home.clone();
        let files = self.write(move |tx| drop_unsent(tx, &home)).await?;
        self.remove_files(files).await;
        Ok(())
    }

    /// Returns the rooms that were left and whose files may still be there.
    pub async fn left_rooms(&self, account: &str) -> Result<Vec<LeftRoom>, StoreError> {
        let account = account.to_owned();
        self.read(move |tx| {
            let mut select =
                tx.prepare_cached("SELECT room, missed, cleared FROM rooms WHERE bot = ?1 AND missed IS NOT NULL")?;
            let rows = select.query_map([&account], |row| {
                Ok(LeftRoom { room: RoomKey(row.get(0)?), since: row.get(1)?, cleared: row.get(2)? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Returns whether a room counts as left.
    pub async fn is_left(&self, account: &str, room: &RoomKey) -> Result<bool, StoreError> {
        let (account, room) = (account.to_owned(), room.clone());
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM rooms WHERE bot = ?1 AND room = ?2 AND missed IS NOT NULL)",
            )?;
            Ok(select.query_row([&account, &room.0], |row| row.get(0))?)
        })
        .await
    }

    /// Gives up the conversations of a room that is still left; returns whether it was. They are not shown any more,
    /// and [`Store::finish_forgetting`] deletes their rows.
    pub async fn clear_room(&self, home: &Address, room: &RoomKey) -> Result<bool, StoreError> {
        let (home, room, now) = (home.clone(), room.clone(), self.clock.millis());
        let cleared = self.write(move |tx| {
            let left = tx.execute(
                "UPDATE rooms SET cleared = 1 WHERE bot = ?1 AND room = ?2 AND missed IS NOT NULL",
                [&home.account, &room.0],
            )?;
            if left == 0 {
                return Ok(None);
            }
            let at = [&home.account, &home.room.0];
            tx.execute("UPDATE inbound SET done = 1 WHERE bot = ?1 AND room = ?2 AND turn IS NULL AND done = 0", at)?;
            close_turns(tx, &home, now)?;
            let files = drop_unsent(tx, &home)?;
            prune::forget(tx, &home, None, now)?;
            for table in ["contexts", "contexts_of_bots", "grants", "cards"] {
                tx.execute(&format!("DELETE FROM {table} WHERE bot = ?1 AND room = ?2"), at)?;
            }
            Ok(Some(files))
        });
        let Some(files) = cleared.await? else { return Ok(false) };
        self.remove_files(files).await;
        self.forgetting.notify_one();
        Ok(true)
    }

    /// Forgets a room that is still left, and whose home it used.
    pub async fn forget_room(&self, account: &str, room: &RoomKey) -> Result<(), StoreError> {
        let (account, room) = (account.to_owned(), room.clone());
        self.write(move |tx| {
            let at = [&account, &room.0];
            let gone = tx.execute("DELETE FROM rooms WHERE bot = ?1 AND room = ?2 AND missed IS NOT NULL", at)?;
            if gone > 0 {
                tx.execute(
                    "DELETE FROM homes WHERE bot = ?1
                     AND home = (SELECT home FROM homes WHERE bot = ?1 AND room = ?2)",
                    at,
                )?;
            }
            Ok(())
        })
        .await
    }

    /// Makes a room use `home`, which `from` used, from now on; its waiting events and unsent rows go there. Returns
    /// `false`, without a change, if the room has a conversation of its own already.
    pub async fn move_home(
        &self,
        account: &str,
        from: &RoomKey,
        room: &RoomKey,
        home: &RoomKey,
    ) -> Result<bool, StoreError> {
        let (account, from, room, home) = (account.to_owned(), from.clone(), room.clone(), home.clone());
        self.write(move |tx| {
            let settled: bool = tx.query_row(
                "SELECT EXISTS (SELECT 1 FROM turns WHERE bot = ?1 AND room = ?2)",
                [&account, &room.0],
                |row| row.get(0),
            )?;
            if settled {
                return Ok(false);
            }
            let row = [&account, &room.0, &home.0];
            // Inserted anew, since the newest row of a home names the room in which people are.
            tx.execute("DELETE FROM homes WHERE bot = ?1 AND room = ?2", [&account, &room.0])?;
            tx.execute("INSERT INTO homes (bot, room, home) VALUES (?1, ?2, ?3)", row)?;
            tx.execute("UPDATE inbound SET room = ?3 WHERE bot = ?1 AND room = ?2 AND turn IS NULL AND done = 0", row)?;
            tx.execute("UPDATE outbox SET room = ?3 WHERE bot = ?1 AND room = ?2 AND sent IS NULL", row)?;
            // If `from` was left already, its row would let the sweep delete the files that `room` uses now.
            tx.execute("DELETE FROM rooms WHERE bot = ?1 AND room = ?2 AND missed IS NOT NULL", [&account, &from.0])?;
            Ok(true)
        })
        .await
    }

    /// Returns the rooms that use another room's home, in the order in which they began to.
    pub async fn homes(&self, account: &str) -> Result<Vec<Alias>, StoreError> {
        let account = account.to_owned();
        self.read(move |tx| {
            let mut select = tx.prepare_cached("SELECT room, home FROM homes WHERE bot = ?1 ORDER BY seq")?;
            let rows = select
                .query_map([&account], |row| Ok(Alias { room: RoomKey(row.get(0)?), home: RoomKey(row.get(1)?) }))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Returns the homes of all accounts that have messages, events, turns or a context, or in whose rooms the
    /// account is: each may have a sandbox.
    pub async fn homes_in_use(&self) -> Result<Vec<Address>, StoreError> {
        self.read(move |tx| {
            let mut select = tx.prepare_cached(HOMES_IN_USE)?;
            let rows = select.query_map([], |row| Ok(Address { account: row.get(0)?, room: RoomKey(row.get(1)?) }))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

/// Steps from room to room through an index of each table, past all rows of the same room. The next room is sought by two
/// conditions, because SQLite seeks `(bot, room) > (?, ?)` from the first row that is equal and reads all of these. A room
/// whose last rows a compaction or `!new` has hidden and pruning has deleted still has a context.
pub(super) const HOMES_IN_USE: &str = "WITH RECURSIVE
     said (bot, room) AS (
         SELECT bot, room FROM (SELECT bot, room FROM messages ORDER BY bot, room LIMIT 1)
         UNION ALL SELECT m.bot, m.room FROM said, messages m WHERE m.seq = coalesce(
             (SELECT seq FROM messages WHERE bot = said.bot AND room > said.room ORDER BY room LIMIT 1),
             (SELECT seq FROM messages WHERE bot > said.bot ORDER BY bot, room LIMIT 1))),
     heard (bot, room) AS (
         SELECT bot, room FROM (SELECT bot, room FROM inbound ORDER BY bot, room LIMIT 1)
         UNION ALL SELECT i.bot, i.room FROM heard, inbound i WHERE i.seq = coalesce(
             (SELECT seq FROM inbound WHERE bot = heard.bot AND room > heard.room ORDER BY room LIMIT 1),
             (SELECT seq FROM inbound WHERE bot > heard.bot ORDER BY bot, room LIMIT 1))),
     worked (bot, room) AS (
         SELECT bot, room FROM (SELECT bot, room FROM turns ORDER BY bot, room LIMIT 1)
         UNION ALL SELECT t.bot, t.room FROM worked, turns t WHERE t.turn = coalesce(
             (SELECT turn FROM turns WHERE bot = worked.bot AND room > worked.room ORDER BY room LIMIT 1),
             (SELECT turn FROM turns WHERE bot > worked.bot ORDER BY bot, room LIMIT 1)))
     SELECT bot, room FROM said UNION SELECT bot, room FROM heard UNION SELECT bot, room FROM worked
     UNION SELECT bot, room FROM contexts UNION SELECT bot, room FROM contexts_of_bots
     UNION SELECT r.bot, coalesce(h.home, r.room) FROM rooms r
         LEFT JOIN homes h ON h.bot = r.bot AND h.room = r.room WHERE r.missed IS NULL";

/// Gives up the locked events of a room for good.
fn give_up_locked(tx: &Transaction<'_>, account: &str, room: &RoomKey) -> Result<(), StoreError> {
    let mut given_up = tx.prepare_cached("DELETE FROM locked WHERE bot = ?1 AND room = ?2 RETURNING event")?;
    let mut events = given_up.query([account, room.as_str()])?;
    while let Some(row) = events.next()? {
        known::keep_event(tx, account, &row.get::<_, String>(0)?)?;
    }
    Ok(())
}

/// Ends a room's turns without an answer.
fn close_turns(tx: &Transaction<'_>, home: &Address, now: i64) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE turns SET state = 'closed', outcome = coalesce(outcome, 'left'), closed = ?3
         WHERE bot = ?1 AND room = ?2 AND state <> 'closed'",
        params![home.account, home.room.as_str(), now],
    )?;
    Ok(())
}

/// Deletes a room's unsent rows; returns their files.
fn drop_unsent(tx: &Transaction<'_>, home: &Address) -> Result<Vec<String>, StoreError> {
    let files = files::unsent(tx, &home.account, home.room.as_str())?;
    tx.execute("DELETE FROM outbox WHERE bot = ?1 AND room = ?2 AND sent IS NULL", [&home.account, &home.room.0])?;
    Ok(files)
}
