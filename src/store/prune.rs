//! Rows that are not needed any more go, in steps so small that others write in between.
//!
//! What goes is found by a read that looks at one page of rows after the other, along the primary key or an index; then
//! the writer deletes what was found, a few milliseconds at a time. Whatever was found stays right until then: what has
//! ended does not begin again, and what a compaction hides is never shown again. Of events and ciphertexts it stays known
//! that they were taken (`known`).

use std::{
    collections::HashSet,
    mem,
    time::{Duration, Instant},
};

use rusqlite::{Transaction, params};
use tokio::time;

use super::{Conversation, Sealed, Store, StoreError, TurnState, answerer, known};
use crate::ids::{Address, BotName, RoomKey};

/// Rows that are looked at together.
const PAGE: usize = 512;
/// How long a step may hold up others who write.
const HOLD: Duration = Duration::from_millis(3);
/// The shortest pause between two steps. It is twice as long as the step before has taken, with its wait for the writer:
/// so two thirds of the writer's time are others', and the more they want, the slower this goes.
const PAUSE: Duration = Duration::from_millis(2);
/// Free pages that the file keeps: what is written tomorrow needs them again.
const RESERVE: i64 = 256;
/// Pages that are given back before the time is looked at again.
const GIVEN: u32 = 16;

/// Conversations that were given up.
const FORGOTTEN: &str =
    "SELECT seq, bot, room, answerer, whole, at, messages, inbound, outbox FROM forgotten ORDER BY seq";
const FORGOTTEN_MESSAGES: &str = "SELECT m.seq, t.state, m.answerer FROM
     (SELECT seq, turn, answerer FROM messages WHERE bot = ?1 AND room = ?2 AND seq > ?3 AND seq <= ?4 ORDER BY seq LIMIT ?5) m
     LEFT JOIN turns t ON t.turn = m.turn";
const FORGOTTEN_INBOUND: &str = "SELECT i.seq, i.sender, i.event, i.done, i.turn, t.state, t.answerer FROM
     (SELECT seq, sender, event, done, turn FROM inbound
      WHERE bot = ?1 AND room = ?2 AND (sender, seq) > (?3, ?4) ORDER BY sender, seq LIMIT ?5) i
     LEFT JOIN turns t ON t.turn = i.turn";
const FORGOTTEN_OUTBOX: &str = "SELECT o.seq, t.state, t.answerer FROM
     (SELECT seq, turn FROM outbox
      WHERE bot = ?1 AND room = ?2 AND sent IS NOT NULL AND seq > ?3 AND seq <= ?4 ORDER BY seq LIMIT ?5) o
     LEFT JOIN turns t ON t.turn = o.turn";
const FORGOTTEN_UNSENT: &str =
    "SELECT EXISTS (SELECT 1 FROM outbox WHERE bot = ?1 AND room = ?2 AND sent IS NULL AND seq <= ?3)";
const FORGOTTEN_TURNS: &str =
    "SELECT turn, state, opened, answerer FROM turns WHERE bot = ?1 AND room = ?2 AND turn > ?3 ORDER BY turn LIMIT ?4";

/// What is old.
const OLD_INBOUND: &str = "SELECT i.seq, i.bot, i.event, i.received, i.done, i.turn, t.state, t.closed FROM
     (SELECT seq, bot, event, received, done, turn FROM inbound WHERE seq > ?1 ORDER BY seq LIMIT ?2) i
     LEFT JOIN turns t ON t.turn = i.turn";
const OLD_OUTBOX: &str = "SELECT o.seq, o.created, o.sent IS NOT NULL, t.state, t.closed FROM
     (SELECT seq, created, sent, turn FROM outbox WHERE seq > ?1 ORDER BY seq LIMIT ?2) o
     LEFT JOIN turns t ON t.turn = o.turn";
const OLD_MESSAGES: &str = "SELECT m.seq, m.bot, m.room, m.said, t.state, t.opened,
     m.seq <= coalesce(CASE WHEN m.answerer IS NULL
         THEN (SELECT upto FROM contexts c WHERE c.bot = m.bot AND c.room = m.room)
         ELSE (SELECT upto FROM contexts_of_bots c
               WHERE c.bot = m.bot AND c.room = m.room AND c.answerer = m.answerer) END, 0) FROM
     (SELECT seq, bot, room, said, turn, answerer FROM messages WHERE seq > ?1 ORDER BY seq LIMIT ?2) m
     LEFT JOIN turns t ON t.turn = m.turn";
const ORPHANS: &str =
    "SELECT c.call, c.message, c.position, EXISTS (SELECT 1 FROM messages m WHERE m.seq = c.message) FROM
     (SELECT call, message, position FROM calls
      WHERE (message, position) > (?1, ?2) ORDER BY message, position LIMIT ?3) c";
const OLD_TURNS: &str = "SELECT turn FROM turns WHERE state = 'closed' AND closed < ?1 ORDER BY closed LIMIT ?2";
const OLD_NOTES: &str = "SELECT bot, key FROM notes WHERE noted < ?1 ORDER BY noted LIMIT ?2";
const OLD_LOCKED: &str = "SELECT seq, bot, event FROM locked WHERE received < ?1 ORDER BY received LIMIT ?2";
const UNSTAMPED_LOCKED: &str = "SELECT seq FROM locked WHERE received IS NULL LIMIT ?1";
const CIPHERTEXTS: &str = "SELECT bot, session, place, event, taken FROM ciphertexts
     WHERE (bot, session, place) > (?1, ?2, ?3) ORDER BY bot, session, place LIMIT ?4";

/// A page of rows that was looked at.
struct Page<C, R> {
    /// The rows that go.
    gone: Vec<R>,
    /// How many would go if something else had ended.
    left: usize,
    seen: usize,
    last: Option<C>,
}

impl<C: Ord, R> Page<C, R> {
    fn new() -> Self {
        Self { gone: Vec::new(), left: 0, seen: 0, last: None }
    }

    /// Counts a row, which stands at this place.
    fn see(&mut self, at: C) {
        self.seen += 1;
        self.last = self.last.take().max(Some(at));
    }

    /// Lets a row go, if what it belongs to has ended.
    fn sort(&mut self, row: R, ended: bool) {
        if ended {
            self.gone.push(row);
        } else {
            self.left += 1;
        }
    }

    /// Says that all after this is too young.
    fn end(mut self) -> Self {
        self.last = None;
        self
    }

    /// Returns the place after which the next page begins; `None` if this was the last.
    fn next(self) -> Option<C> {
        self.last.filter(|_| self.seen == PAGE)
    }
}

/// A conversation that was given up, with the last rows of it.
#[derive(Clone, Debug)]
struct Forgotten {
    seq: i64,
    address: Address,
    /// The bot whose conversation it was, as the column names it.
    answerer: Option<String>,
    /// It is all that was said in the room, whoever the bot was.
    whole: bool,
    at: i64,
    messages: i64,
    inbound: i64,
    outbox: i64,
}

impl Store {
    /// Deletes what is older than `keep` and not needed: events and answers of turns that were closed, what a compaction
    /// or `!new` hides from the model, its calls, what could never be read; and what was given up, whatever its age.
    /// Returns the rooms of whose conversation something went.
    pub async fn prune(&self, keep: Duration) -> Result<HashSet<Address>, StoreError> {
        let before = self.clock.millis() - keep.as_millis() as i64;
        let mut rooms = self.finish_forgetting().await?;
        self.prune_inbound(before).await?;
        self.prune_outbox(before).await?;
        rooms.extend(self.prune_messages(before).await?);
        self.prune_orphans().await?;
        self.prune_turns(before).await?;
        self.prune_notes(before).await?;
        self.prune_locked(before).await?;
        self.fold_ciphertexts(before).await?;
        self.sweep_files().await?;
        self.give_back().await?;
        Ok(rooms)
    }

    /// Deletes what was given up ([`Store::replace_context`] with nothing, [`Store::clear_room`]). What still waits for
    /// its end stays until the next call. Returns the rooms of whose conversation something went.
    pub async fn finish_forgetting(&self) -> Result<HashSet<Address>, StoreError> {
        let mut rooms = HashSet::new();
        for forgotten in self.read(forgotten).await? {
            self.forget_room_rows(&forgotten).await?;
            rooms.insert(forgotten.address);
        }
        if !rooms.is_empty() {
            self.give_back().await?;
        }
        Ok(rooms)
    }

    /// Returns when something was given up since the last time, or soon after.
    pub async fn something_forgotten(&self) {
        self.forgetting.notified().await;
    }

    async fn forget_room_rows(&self, forgotten: &Forgotten) -> Result<(), StoreError> {
        let at = forgotten.clone();
        let mut left =
            self.walk(0, move |tx, seq| messages_of(tx, &at, *seq), |tx, seq| delete_message(tx, *seq)).await?;
        let at = forgotten.clone();
        let bot = forgotten.address.account.clone();
        left += self
            .walk(
                (String::new(), 0),
                move |tx, from| inbound_of(tx, &at, from),
                move |tx, (seq, event): &(i64, String)| delete_inbound(tx, *seq, &bot, event),
            )
            .await?;
        let at = forgotten.clone();
        left += self.walk(0, move |tx, seq| outbox_of(tx, &at, *seq), |tx, seq| delete_outbox(tx, *seq)).await?;
        let at = forgotten.clone();
        left += self
            .walk(String::new(), move |tx, turn| turns_of(tx, &at, turn), |tx, turn: &String| delete_turn(tx, turn))
            .await?;
        let at = forgotten.clone();
        self.write(move |tx| {
            let unsent: bool = tx.query_row(
                FORGOTTEN_UNSENT,
                params![at.address.account, at.address.room.as_str(), at.outbox],
                |row| row.get(0),
            )?;
            if left == 0 && !unsent {
                tx.execute("DELETE FROM forgotten WHERE seq = ?1", [at.seq])?;
            }
            Ok(())
        })
        .await
    }

    async fn prune_inbound(&self, before: i64) -> Result<(), StoreError> {
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
        let delete =
            |tx: &Transaction<'_>, (seq, bot, event): &(i64, String, String)| delete_inbound(tx, *seq, bot, event);
        self.walk(0, page, delete).await.map(drop)
    }

    async fn prune_outbox(&self, before: i64) -> Result<(), StoreError> {
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

    /// Deletes what a compaction or `!new` hides from the model.
    async fn prune_messages(&self, before: i64) -> Result<HashSet<Address>, StoreError> {
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

    /// Deletes calls whose message is gone: older versions have left some.
    async fn prune_orphans(&self) -> Result<(), StoreError> {
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

    async fn prune_turns(&self, before: i64) -> Result<(), StoreError> {
        loop {
            let old: Vec<String> = self.read(move |tx| column(tx, OLD_TURNS, before)).await?;
            if old.is_empty() {
                return Ok(());
            }
            self.delete(old, |tx, turn: &String| delete_turn(tx, turn)).await?;
        }
    }

    async fn prune_notes(&self, before: i64) -> Result<(), StoreError> {
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
            let delete = move |tx: &Transaction<'_>, (bot, key): &(String, String)| {
                // It may have been noted anew meanwhile.
                tx.prepare_cached("DELETE FROM notes WHERE bot = ?1 AND key = ?2 AND noted < ?3")?
                    .execute(params![bot, key, before])?;
                Ok(())
            };
            self.delete(old, delete).await?;
        }
    }

    async fn prune_locked(&self, before: i64) -> Result<(), StoreError> {
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
            // An older version has written them. Their time begins now.
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
            let delete = |tx: &Transaction<'_>, (seq, bot, event): &(i64, String, String)| {
                // Its key may have come meanwhile.
                if tx.prepare_cached("DELETE FROM locked WHERE seq = ?1")?.execute([seq])? == 1 {
                    known::keep_event(tx, bot, event)?;
                }
                Ok(())
            };
            self.delete(old, delete).await?;
        }
    }

    /// Makes a bit of each ciphertext whose event is gone. Those that nobody has taken in are given their time too: a
    /// crash may have come before the journal took their event.
    async fn fold_ciphertexts(&self, before: i64) -> Result<(), StoreError> {
        let now = self.clock.millis();
        let page = move |tx: &Transaction<'_>, from: &(String, String, i64)| {
            let mut page = Page::new();
            let mut select = tx.prepare_cached(CIPHERTEXTS)?;
            let mut rows = select.query(params![from.0, from.1, from.2, PAGE as i64])?;
            while let Some(row) = rows.next()? {
                let (bot, session, place): (String, String, u32) = (row.get(0)?, row.get(1)?, row.get(2)?);
                page.see((bot.clone(), session.clone(), i64::from(place)));
                let taken: Option<i64> = row.get(4)?;
                let is_old = taken.is_some_and(|taken| taken < before);
                if is_old || known::has_event(tx, &bot, &row.get::<_, String>(3)?.into())? {
                    page.gone.push((bot, Sealed { session, place }, true));
                } else if taken.is_none() {
                    page.gone.push((bot, Sealed { session, place }, false));
                }
            }
            Ok(page)
        };
        let fold = move |tx: &Transaction<'_>, (bot, sealed, goes): &(String, Sealed, bool)| {
            let key = params![bot, sealed.session, sealed.place, now];
            if *goes {
                known::keep_ciphertext(tx, bot, sealed)?;
                tx.prepare_cached("DELETE FROM ciphertexts WHERE bot = ?1 AND session = ?2 AND place = ?3")?
                    .execute(&key[..3])?;
            } else {
                tx.prepare_cached("UPDATE ciphertexts SET taken = ?4 WHERE bot = ?1 AND session = ?2 AND place = ?3")?
                    .execute(key)?;
            }
            Ok(())
        };
        self.walk((String::new(), String::new(), -1), page, fold).await.map(drop)
    }

    /// Gives free pages back to the file system, if the file was made for it. Others are used again.
    async fn give_back(&self) -> Result<(), StoreError> {
        let mut more =
            self.read(|tx| Ok(number(tx, "auto_vacuum")? == 2 && number(tx, "freelist_count")? > RESERVE)).await?;
        while more {
            more = self
                .step(|tx, until| {
                    let mut vacuum = tx.prepare(&format!("PRAGMA incremental_vacuum({GIVEN})"))?;
                    loop {
                        let mut pages = vacuum.query([])?;
                        // Each row is a page.
                        while pages.next()?.is_some() {}
                        let free = number(tx, "freelist_count")?;
                        if free <= RESERVE || Instant::now() >= until {
                            return Ok(free > RESERVE);
                        }
                    }
                })
                .await?;
        }
        Ok(())
    }

    /// Looks at page after page and deletes what each says. Returns how many rows stay for now.
    async fn walk<C, R>(
        &self,
        mut from: C,
        page: impl Fn(&Transaction<'_>, &C) -> Result<Page<C, R>, StoreError> + Clone + Send + 'static,
        delete: impl Fn(&Transaction<'_>, &R) -> Result<(), StoreError> + Clone + Send + 'static,
    ) -> Result<usize, StoreError>
    where
        C: Ord + Send + 'static,
        R: Send + 'static,
    {
        let mut left = 0;
        loop {
            let look = page.clone();
            let mut found = self.read(move |tx| look(tx, &from)).await?;
            left += found.left;
            self.delete(mem::take(&mut found.gone), delete.clone()).await?;
            let Some(next) = found.next() else { return Ok(left) };
            from = next;
        }
    }

    /// Does something to each of these rows, in as many steps as it takes.
    async fn delete<R: Send + 'static>(
        &self,
        mut rows: Vec<R>,
        delete: impl Fn(&Transaction<'_>, &R) -> Result<(), StoreError> + Clone + Send + 'static,
    ) -> Result<(), StoreError> {
        while !rows.is_empty() {
            let delete = delete.clone();
            rows = self
                .step(move |tx, until| {
                    let mut rows = rows.into_iter();
                    for row in rows.by_ref() {
                        delete(tx, &row)?;
                        if Instant::now() >= until {
                            break;
                        }
                    }
                    Ok(rows.collect())
                })
                .await?;
        }
        Ok(())
    }

    /// Writes until a time that is soon, then lets others write.
    async fn step<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>, Instant) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let done = self.write(move |tx| work(tx, Instant::now() + HOLD)).await;
        time::sleep(PAUSE.max(begun.elapsed() * 2)).await;
        self.log.folded().await;
        done
    }
}

impl Forgotten {
    /// Returns whether a row of a bot belongs to it.
    fn has(&self, answerer: Option<&str>) -> bool {
        self.whole || self.answerer.as_deref() == answerer
    }
}

/// Notes that all that was said until now is given up: a bot's conversation in a room, or all of the room. What waits there
/// does not belong to it.
pub(super) fn forget(
    tx: &Transaction<'_>,
    address: &Address,
    bot: Option<&BotName>,
    now: i64,
) -> Result<(), StoreError> {
    let key = params![address.account, address.room.as_str(), bot.and_then(answerer), bot.is_none(), now];
    // What was given up before is a part of it.
    tx.execute(
        "DELETE FROM forgotten WHERE bot = ?1 AND room = ?2 AND (?4 OR whole = 0 AND answerer IS ?3)",
        &key[..4],
    )?;
    tx.execute(
        "INSERT INTO forgotten (bot, room, answerer, whole, at, messages, inbound, outbox) VALUES (?1, ?2, ?3, ?4, ?5,
             (SELECT coalesce(max(seq), 0) FROM messages),
             coalesce((SELECT min(seq) - 1 FROM inbound WHERE bot = ?1 AND room = ?2 AND turn IS NULL AND done = 0),
                      (SELECT max(seq) FROM inbound), 0),
             (SELECT coalesce(max(seq), 0) FROM outbox))",
        key,
    )?;
    Ok(())
}

/// Returns the last message of a conversation that was given up, or 0.
pub(super) fn forgotten_until(tx: &Transaction<'_>, at: &Conversation) -> Result<i64, StoreError> {
    let mut select = tx.prepare_cached(
        "SELECT coalesce(max(messages), 0) FROM forgotten
         WHERE bot = ?1 AND room = ?2 AND (whole = 1 OR answerer IS ?3)",
    )?;
    let key = params![at.address.account, at.address.room.as_str(), answerer(&at.bot)];
    Ok(select.query_row(key, |row| row.get(0))?)
}

fn forgotten(tx: &Transaction<'_>) -> Result<Vec<Forgotten>, StoreError> {
    let mut select = tx.prepare_cached(FORGOTTEN)?;
    let rows = select.query_map([], |row| {
        Ok(Forgotten {
            seq: row.get(0)?,
            address: Address { account: row.get(1)?, room: RoomKey(row.get(2)?) },
            answerer: row.get(3)?,
            whole: row.get(4)?,
            at: row.get(5)?,
            messages: row.get(6)?,
            inbound: row.get(7)?,
            outbox: row.get(8)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn messages_of(tx: &Transaction<'_>, of: &Forgotten, from: i64) -> Result<Page<i64, i64>, StoreError> {
    let mut select = tx.prepare_cached(FORGOTTEN_MESSAGES)?;
    let key = params![of.address.account, of.address.room.as_str(), from, of.messages, PAGE as i64];
    let mut page = Page::new();
    let mut rows = select.query(key)?;
    while let Some(row) = rows.next()? {
        let seq = row.get(0)?;
        page.see(seq);
        if of.has(row.get::<_, Option<String>>(2)?.as_deref()) {
            page.sort(seq, has_ended(row.get(1)?));
        }
    }
    Ok(page)
}

fn outbox_of(tx: &Transaction<'_>, of: &Forgotten, from: i64) -> Result<Page<i64, i64>, StoreError> {
    let mut select = tx.prepare_cached(FORGOTTEN_OUTBOX)?;
    let key = params![of.address.account, of.address.room.as_str(), from, of.outbox, PAGE as i64];
    let mut page = Page::new();
    let mut rows = select.query(key)?;
    while let Some(row) = rows.next()? {
        let (seq, state): (i64, Option<String>) = (row.get(0)?, row.get(1)?);
        page.see(seq);
        // What belongs to no turn, or to one that is gone, belongs to no bot.
        if state.is_none() || of.has(row.get::<_, Option<String>>(2)?.as_deref()) {
            page.sort(seq, has_ended(state));
        }
    }
    Ok(page)
}

type InboundPage = Page<(String, i64), (i64, String)>;

fn inbound_of(tx: &Transaction<'_>, of: &Forgotten, from: &(String, i64)) -> Result<InboundPage, StoreError> {
    let mut page = Page::new();
    let mut select = tx.prepare_cached(FORGOTTEN_INBOUND)?;
    let mut rows = select.query(params![of.address.account, of.address.room.as_str(), from.0, from.1, PAGE as i64])?;
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(0)?;
        page.see((row.get(1)?, seq));
        if seq > of.inbound {
            continue;
        }
        let state: Option<String> = row.get(5)?;
        let ended = match row.get::<_, Option<String>>(4)? {
            Some(_) if state.is_some() && !of.has(row.get::<_, Option<String>>(6)?.as_deref()) => continue,
            Some(_) => has_ended(state),
            None => row.get(3)?,
        };
        page.sort((seq, row.get(2)?), ended);
    }
    Ok(page)
}

fn turns_of(tx: &Transaction<'_>, of: &Forgotten, from: &str) -> Result<Page<String, String>, StoreError> {
    let mut page = Page::new();
    let mut select = tx.prepare_cached(FORGOTTEN_TURNS)?;
    let mut rows = select.query(params![of.address.account, of.address.room.as_str(), from, PAGE as i64])?;
    while let Some(row) = rows.next()? {
        let turn: String = row.get(0)?;
        page.see(turn.clone());
        if row.get::<_, i64>(2)? <= of.at && of.has(row.get::<_, Option<String>>(3)?.as_deref()) {
            page.sort(turn, has_ended(row.get(1)?));
        }
    }
    Ok(page)
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
        // A row of an older version is as old as its turn, and older than all if that is gone.
        let is_old = said.or(opened).is_none_or(|at| at < before);
        if is_old && row.get(6)? && has_ended(row.get(4)?) {
            page.gone.push((seq, Address { account: row.get(1)?, room: RoomKey(row.get(2)?) }));
        }
    }
    Ok(page)
}

/// Returns whether a turn in this state needs nothing any more; one that is gone has no state.
fn has_ended(state: Option<String>) -> bool {
    state.is_none_or(|state| state == TurnState::Closed.as_str())
}

fn ended_before(before: i64, state: Option<String>, closed: Option<i64>) -> bool {
    has_ended(state) && closed.is_none_or(|closed| closed < before)
}

fn delete_message(tx: &Transaction<'_>, seq: i64) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM calls WHERE message = ?1")?.execute([seq])?;
    tx.prepare_cached("DELETE FROM messages WHERE seq = ?1")?.execute([seq])?;
    Ok(())
}

fn delete_inbound(tx: &Transaction<'_>, seq: i64, bot: &str, event: &str) -> Result<(), StoreError> {
    known::keep_event(tx, bot, event)?;
    tx.prepare_cached("DELETE FROM inbound WHERE seq = ?1")?.execute([seq])?;
    Ok(())
}

fn delete_outbox(tx: &Transaction<'_>, seq: i64) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM outbox WHERE seq = ?1")?.execute([seq])?;
    Ok(())
}

fn delete_turn(tx: &Transaction<'_>, turn: &str) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM turns WHERE turn = ?1")?.execute([turn])?;
    Ok(())
}

fn column<T: rusqlite::types::FromSql>(
    tx: &Transaction<'_>,
    query: &'static str,
    before: i64,
) -> Result<Vec<T>, StoreError> {
    let mut select = tx.prepare_cached(query)?;
    Ok(select.query_map(params![before, PAGE as i64], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

fn number(tx: &Transaction<'_>, pragma: &str) -> rusqlite::Result<i64> {
    tx.pragma_query_value(None, pragma, |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::{
            Arc, Mutex,
            atomic::{AtomicU32, Ordering},
        },
    };

    use rusqlite::Connection;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        clock::Clock,
        store::{Durability, rooms},
    };

    /// All that looks for what goes, or deletes it.
    const QUERIES: [&str; 20] = [
        FORGOTTEN_MESSAGES,
        FORGOTTEN_INBOUND,
        FORGOTTEN_OUTBOX,
        FORGOTTEN_UNSENT,
        FORGOTTEN_TURNS,
        OLD_INBOUND,
        OLD_OUTBOX,
        OLD_MESSAGES,
        ORPHANS,
        OLD_TURNS,
        OLD_NOTES,
        OLD_LOCKED,
        UNSTAMPED_LOCKED,
        CIPHERTEXTS,
        rooms::HOMES_IN_USE,
        "DELETE FROM calls WHERE message = ?1",
        "DELETE FROM messages WHERE seq = ?1",
        "DELETE FROM inbound WHERE seq = ?1",
        "DELETE FROM outbox WHERE seq = ?1",
        "DELETE FROM turns WHERE turn = ?1",
    ];
    /// Tables that never have more than some rows for each room, what a page was read into, and no table at all.
    const SMALL: [&str; 11] =
        ["CONSTANT", "contexts", "contexts_of_bots", "r", "m", "i", "o", "c", "said", "heard", "worked"];

    #[test]
    fn what_goes_is_found_by_indexes_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        drop(Store::open(&path, Durability::Normal, Clock::fixed_at(1_000)).unwrap());
        let connection = Connection::open(&path).unwrap();
        for query in QUERIES {
            let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
            let count = explain.parameter_count();
            let plan: Vec<String> = explain
                .query_map(rusqlite::params_from_iter(vec![1; count]), |row| row.get(3))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            // Comparisons of several columns at once use the index for all of them, or a page is read again and again.
            let together = query.matches(") > (").count();
            let used = plan.iter().filter(|step| step.contains(")>(")).count();
            // But for a person's events in a room: what was read of them before is deleted by then.
            assert!(used == together || query == FORGOTTEN_INBOUND, "{query}\n{plan:#?}");
            for step in &plan {
                let scanned = step.strip_prefix("SCAN ").map(|rest| rest.split(' ').next().unwrap_or_default());
                // It wants the first row of each index alone.
                let is_first = step.contains("COVERING INDEX") && query == rooms::HOMES_IN_USE;
                let is_small = scanned.is_none_or(|table| SMALL.contains(&table) || table.starts_with('(')) || is_first;
                assert!(is_small && !step.contains("AUTOMATIC"), "{query}\n{plan:#?}");
                assert!(!step.contains("TEMP B-TREE") || query == rooms::HOMES_IN_USE, "{query}\n{plan:#?}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn others_write_between_any_two_rows_that_take_as_long_as_a_step_may() {
        const ROWS: u32 = 20;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), Durability::Normal, Clock::fixed_at(1_000)).unwrap();
        let (over, turns) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
        let (others, is_over, taken) = (store.clone(), over.clone(), turns.clone());
        let others = tokio::spawn(async move {
            while !is_over.is_cancelled() {
                others.take_turn().await.unwrap();
                taken.fetch_add(1, Ordering::Relaxed);
            }
        });
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let noted = seen.clone();
        let slow = move |_: &Transaction<'_>, _: &u32| {
            noted.lock().unwrap().insert(turns.load(Ordering::Relaxed));
            std::thread::sleep(HOLD);
            Ok(())
        };
        store.delete((0..ROWS).collect(), slow).await.unwrap();
        over.cancel();
        others.await.unwrap();
        assert_eq!(seen.lock().unwrap().len(), ROWS as usize);
    }
}
