//! Deletes rows that have not been needed for as long as the operator keeps them. One function for each table.

use std::{collections::HashSet, mem};

use rusqlite::{Transaction, params, params_from_iter};

use super::{
    rows::{delete_inbound, delete_message, delete_outbox, delete_turn, ended_before, has_ended},
    steps::{PAGE, Page},
};
use crate::{
    clock::day_of,
    ids::{Address, RoomKey},
    store::{Store, StoreError, known},
};

pub(super) const OLD_INBOUND: &str = "SELECT i.seq, i.bot, i.event, i.received, i.done, i.turn, t.state, t.closed FROM
     (SELECT seq, bot, event, received, done, turn FROM inbound WHERE seq > ?1 ORDER BY seq LIMIT ?2) i
     LEFT JOIN turns t ON t.turn = i.turn";
pub(super) const OLD_OUTBOX: &str = "SELECT o.seq, o.created, o.sent IS NOT NULL, t.state, t.closed FROM
     (SELECT seq, created, sent, turn FROM outbox WHERE seq > ?1 ORDER BY seq LIMIT ?2) o
     LEFT JOIN turns t ON t.turn = o.turn";
pub(super) const OLD_MESSAGES: &str = "SELECT m.seq, m.bot, m.room, m.said, t.state, t.opened,
     m.seq <= coalesce(CASE WHEN m.answerer IS NULL
         THEN (SELECT upto FROM contexts c WHERE c.bot = m.bot AND c.room = m.room)
         ELSE (SELECT upto FROM contexts_of_bots c
               WHERE c.bot = m.bot AND c.room = m.room AND c.answerer = m.answerer) END, 0) FROM
     (SELECT seq, bot, room, said, turn, answerer FROM messages WHERE seq > ?1 ORDER BY seq LIMIT ?2) m
     LEFT JOIN turns t ON t.turn = m.turn";
pub(super) const ORPHANS: &str =
    "SELECT c.call, c.message, c.position, EXISTS (SELECT 1 FROM messages m WHERE m.seq = c.message) FROM
     (SELECT call, message, position FROM calls
      WHERE (message, position) > (?1, ?2) ORDER BY message, position LIMIT ?3) c";
pub(super) const OLD_TURNS: &str =
    "SELECT turn FROM turns WHERE state = 'closed' AND closed < ?1 ORDER BY closed LIMIT ?2";
pub(super) const OLD_CARDS: &str =
    "SELECT code FROM cards WHERE state <> 'open' AND closed < ?1 ORDER BY closed LIMIT ?2";
pub(super) const DELETE_CARD: &str = "DELETE FROM cards WHERE code = ?1";
pub(super) const OLD_NOTES: &str = "SELECT bot, key FROM notes WHERE noted < ?1 ORDER BY noted LIMIT ?2";
pub(super) const OLD_LOCKED: &str = "SELECT seq, bot, event FROM locked WHERE received < ?1 ORDER BY received LIMIT ?2";
pub(super) const UNSTAMPED_LOCKED: &str = "SELECT seq FROM locked WHERE received IS NULL LIMIT ?1";
pub(super) const OLD_SPENT: &str =
    "SELECT day, bot, room, person FROM spent WHERE day < ?1 ORDER BY day, bot, room, person LIMIT ?2";
pub(super) const OLD_USAGE: &str = "SELECT bot, room, day FROM usage WHERE day < ?1 ORDER BY day LIMIT ?2";
pub(super) const OLD_AGENT_USAGE: &str =
    "SELECT bot, room, day, person, agent, model FROM agent_usage WHERE day < ?1 ORDER BY day LIMIT ?2";
pub(super) const DELETE_SPENT: &str = "DELETE FROM spent WHERE day = ?1 AND bot = ?2 AND room = ?3 AND person = ?4";
pub(super) const DELETE_USAGE: &str = "DELETE FROM usage WHERE bot = ?1 AND room = ?2 AND day = ?3";
pub(super) const DELETE_AGENT_USAGE: &str =
    "DELETE FROM agent_usage WHERE bot = ?1 AND room = ?2 AND day = ?3 AND person = ?4 AND agent = ?5 AND model = ?6";

impl Store {
    pub(super) async fn prune_inbound(&self, before: i64) -> Result<(), StoreError> {
        let page = move |tx: &Transaction<'_>, from: &i64| {
            let mut page = Page::new();
            let mut select = tx.prepare_cached(OLD_INBOUND)?;
            let mut rows = select.query(params![from, PAGE as i64])?;
            while let Some(row) = rows.next()? {
                let (seq, received): (i64, i64) = (row.get(0)?, row.get(3)?);
                if received >= before {
                    return Ok(page.end());
                }
                page.see(seq);
                let ended = match row.get::<_, Option<String>>(5)? {
                    Some(_) => ended_before(before, row.get(6)?, row.get(7)?),
                    None => row.get(4)?,
                };
                if ended {
                    page.gone.push((seq, row.get::<_, String>(1)?, row.get::<_, String>(2)?));
                }
            }
            Ok(page)
        };
        let delete = |tx: &Transaction<'_>, (seq, account, event): &(i64, String, String)| {
            delete_inbound(tx, *seq, account, event)
        };
        self.walk(0, page, delete).await.map(drop)
    }

    pub(super) async fn prune_outbox(&self, before: i64) -> Result<(), StoreError> {
        let page = move |tx: &Transaction<'_>, from: &i64| {
            let mut page = Page::new();
            let mut select = tx.prepare_cached(OLD_OUTBOX)?;
            let mut rows = select.query(params![from, PAGE as i64])?;
            while let Some(row) = rows.next()? {
                let (seq, created): (i64, i64) = (row.get(0)?, row.get(1)?);
                if created >= before {
                    return Ok(page.end());
                }
                page.see(seq);
                if row.get(2)? && ended_before(before, row.get(3)?, row.get(4)?) {
                    page.gone.push(seq);
                }
            }
            Ok(page)
        };
        self.walk(0, page, |tx, seq| delete_outbox(tx, *seq)).await.map(drop)
    }

    /// Deletes the messages that a compaction or `!new` hides from the model.
    pub(super) async fn prune_messages(&self, before: i64) -> Result<HashSet<Address>, StoreError> {
        let mut rooms = HashSet::new();
        let mut from = 0;
        loop {
            let mut found = self.read(move |tx| hidden_messages(tx, before, from)).await?;
            let (seqs, of): (Vec<i64>, Vec<Address>) = mem::take(&mut found.gone).into_iter().unzip();
            rooms.extend(of);
            self.delete(seqs, |tx, seq| delete_message(tx, *seq)).await?;
            let Some(next) = found.next() else { return Ok(rooms) };
            from = next;
        }
    }

    /// Deletes calls whose message is gone, which older versions have left behind.
    pub(super) async fn prune_orphans(&self) -> Result<(), StoreError> {
        let page = |tx: &Transaction<'_>, from: &(i64, i64)| {
            let mut page = Page::new();
            let mut select = tx.prepare_cached(ORPHANS)?;
            let mut rows = select.query(params![from.0, from.1, PAGE as i64])?;
            while let Some(row) = rows.next()? {
                page.see((row.get(1)?, row.get(2)?));
                if !row.get::<_, bool>(3)? {
                    page.gone.push(row.get::<_, String>(0)?);
                }
            }
            Ok(page)
        };
        let delete = |tx: &Transaction<'_>, call: &String| {
            tx.prepare_cached("DELETE FROM calls WHERE call = ?1")?.execute([call])?;
            Ok(())
        };
        self.walk((0, -1), page, delete).await.map(drop)
    }

    pub(super) async fn prune_turns(&self, before: i64) -> Result<(), StoreError> {
        loop {
            let old: Vec<String> = self.read(move |tx| column(tx, OLD_TURNS, before)).await?;
            if old.is_empty() {
                return Ok(());
            }
            self.delete(old, |tx, turn: &String| delete_turn(tx, turn)).await?;
        }
    }

    /// Deletes what days before have used.
    pub(super) async fn prune_spending(&self, before: i64) -> Result<(), StoreError> {
        let before = day_of(before);
        for (select, delete) in
            [(OLD_SPENT, DELETE_SPENT), (OLD_USAGE, DELETE_USAGE), (OLD_AGENT_USAGE, DELETE_AGENT_USAGE)]
        {
            loop {
                let before = before.clone();
                let old = self.read(move |tx| {
                    let mut select = tx.prepare_cached(select)?;
                    let columns = select.column_count();
                    let rows = select.query_map(params![before, PAGE as i64], |row| {
                        (0..columns).map(|column| row.get(column)).collect::<rusqlite::Result<Vec<String>>>()
                    })?;
                    Ok(rows.collect::<Result<Vec<_>, _>>()?)
                });
                let old = old.await?;
                if old.is_empty() {
                    break;
                }
                let delete = move |tx: &Transaction<'_>, key: &Vec<String>| {
                    tx.prepare_cached(delete)?.execute(params_from_iter(key))?;
                    Ok(())
                };
                self.delete(old, delete).await?;
            }
        }
        Ok(())
    }

    /// Deletes questions that have ended.
    pub(super) async fn prune_cards(&self, before: i64) -> Result<(), StoreError> {
        loop {
            let old: Vec<String> = self.read(move |tx| column(tx, OLD_CARDS, before)).await?;
            if old.is_empty() {
                return Ok(());
            }
            let delete = |tx: &Transaction<'_>, code: &String| {
                tx.prepare_cached(DELETE_CARD)?.execute([code])?;
                Ok(())
            };
            self.delete(old, delete).await?;
        }
    }

    pub(super) async fn prune_notes(&self, before: i64) -> Result<(), StoreError> {
        loop {
            let old = self.read(move |tx| {
                let mut select = tx.prepare_cached(OLD_NOTES)?;
                let rows = select.query_map(params![before, PAGE as i64], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
                })?;
                Ok(rows.collect::<Result<Vec<_>, _>>()?)
            });
            let old = old.await?;
            if old.is_empty() {
                return Ok(());
            }
            let delete = move |tx: &Transaction<'_>, (account, key): &(String, String)| {
                // The note may have been written again meanwhile.
                tx.prepare_cached("DELETE FROM notes WHERE bot = ?1 AND key = ?2 AND noted < ?3")?
                    .execute(params![account, key, before])?;
                Ok(())
            };
            self.delete(old, delete).await?;
        }
    }

    pub(super) async fn prune_locked(&self, before: i64) -> Result<(), StoreError> {
        let now = self.clock.millis();
        loop {
            let unstamped = self.read(|tx| {
                let mut select = tx.prepare_cached(UNSTAMPED_LOCKED)?;
                let rows = select.query_map([PAGE as i64], |row| row.get(0))?;
                Ok(rows.collect::<Result<Vec<i64>, _>>()?)
            });
            let unstamped = unstamped.await?;
            if unstamped.is_empty() {
                break;
            }
            // Older versions stored no time, so the row's time begins now.
            let stamp = move |tx: &Transaction<'_>, seq: &i64| {
                tx.prepare_cached("UPDATE locked SET received = ?2 WHERE seq = ?1")?.execute([*seq, now])?;
                Ok(())
            };
            self.delete(unstamped, stamp).await?;
        }
        loop {
            let old = self.read(move |tx| {
                let mut select = tx.prepare_cached(OLD_LOCKED)?;
                let rows = select.query_map(params![before, PAGE as i64], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
                })?;
                Ok(rows.collect::<Result<Vec<_>, _>>()?)
            });
            let old = old.await?;
            if old.is_empty() {
                return Ok(());
            }
            let delete = |tx: &Transaction<'_>, (seq, account, event): &(i64, String, String)| {
                // The key may have come meanwhile.
                if tx.prepare_cached("DELETE FROM locked WHERE seq = ?1")?.execute([seq])? == 1 {
                    known::keep_event(tx, account, event)?;
                }
                Ok(())
            };
            self.delete(old, delete).await?;
        }
    }
}

fn hidden_messages(tx: &Transaction<'_>, before: i64, from: i64) -> Result<Page<i64, (i64, Address)>, StoreError> {
    let mut page = Page::new();
    let mut select = tx.prepare_cached(OLD_MESSAGES)?;
    let mut rows = select.query(params![from, PAGE as i64])?;
    while let Some(row) = rows.next()? {
        let seq = row.get(0)?;
        let (said, opened): (Option<i64>, Option<i64>) = (row.get(3)?, row.get(5)?);
        if said.is_some_and(|said| said >= before) {
            return Ok(page.end());
        }
        page.see(seq);
        // Rows of older versions have no time: they are as old as their turn, or count as old if that is gone.
        let is_old = said.or(opened).is_none_or(|at| at < before);
        if is_old && row.get(6)? && has_ended(row.get(4)?) {
            page.gone.push((seq, Address { account: row.get(1)?, room: RoomKey(row.get(2)?) }));
        }
    }
    Ok(page)
}

fn column<T: rusqlite::types::FromSql>(
    tx: &Transaction<'_>,
    query: &'static str,
    before: i64,
) -> Result<Vec<T>, StoreError> {
    let mut select = tx.prepare_cached(query)?;
    Ok(select.query_map(params![before, PAGE as i64], |row| row.get(0))?.collect::<Result<_, _>>()?)
}
