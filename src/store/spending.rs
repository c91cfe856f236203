//! What requests to models have used, day by day, and what those under way may use at most.
//!
//! `spent` has one row a day for each room, for each person over all rooms, and for each person in a room, so that what is
//! left is read by key. `agent_usage` has the same by agent and model. A request stands in `reservations` from before it is
//! sent until its tokens are known: of one that a crash has cut off at least what was asked is counted, at the next start.
//! The day is UTC's; a request counts for the day on which it began.
//!
//! Knows sums and limits, not what a request is. Called by `ledger` alone, but for pruning.

use std::sync::Arc;

use futures_util::FutureExt;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tokio::sync::Notify;

use super::{Store, StoreError};
use crate::ids::{Address, RoomKey};

/// The agent under whose name the orchestrator's own requests are counted.
pub const ORCHESTRATOR: &str = "orchestrator";
/// More tokens than any request has: what a provider tells beyond is not believed.
const MOST: u64 = 1_000_000_000;
/// Of a day's tokens, in percent, from which on a room is warned.
const NEAR: u64 = 80;

/// Tokens of requests, as their providers count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Tokens of the prompts, cached ones included.
    pub input: u64,
    /// Of `input`, those that the provider's cache served: the prompt's unchanged beginning.
    pub cached: u64,
    /// Tokens of the answers, thoughts included.
    pub output: u64,
}

impl Tokens {
    /// Returns all of them together.
    pub fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// Returns the part of `input` that the cache served, in percent; `None` without any input.
    pub fn cached_percent(self) -> Option<u64> {
        (self.input > 0).then(|| (u128::from(self.cached.min(self.input)) * 100 / u128::from(self.input)) as u64)
    }
}

impl std::ops::AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        self.input = self.input.saturating_add(other.input);
        self.cached = self.cached.saturating_add(other.cached);
        self.output = self.output.saturating_add(other.output);
    }
}

/// Who uses the tokens of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spender {
    /// The room.
    pub address: Address,
    /// Whose word is followed, by their chat protocol's name; `None` where nobody's.
    pub person: Option<String>,
    /// The agent: [`ORCHESTRATOR`], or a coding agent's program.
    pub agent: String,
    /// The model.
    pub model: String,
}

/// Tokens that a day has; `None`: as many as anybody wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayLimits {
    /// For one room, whoever uses them.
    pub room: Option<u64>,
    /// At one person's word, over all rooms.
    pub person: Option<u64>,
}

/// Whose day it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A room's.
    Room,
    /// A person's.
    Person,
}

/// What becomes of a request that wants tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are held for it.
    Held {
        /// By this name they are settled.
        id: i64,
        /// What has just come near its end, with its limit; told once a day and room.
        near: Vec<(Whose, u64)>,
    },
    /// What is left may all be used by requests that are under way: once one of them is settled there may be more.
    Wait(Whose, u64),
    /// The day's tokens are used up; this was the limit.
    Over(Whose, u64),
}

/// One row of `spent`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Tokens that were used.
    pub used: u64,
    /// Tokens that requests under way may use at most.
    pub held: u64,
    /// What was allowed for this day in place of the setting.
    pub allowed: Option<u64>,
    warned: bool,
}

/// A room's day and a person's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DaySums {
    /// The room's.
    pub room: Sum,
    /// The person's, over all rooms.
    pub person: Sum,
}

/// What one agent has used with one model at one person's word on one day in one room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spending {
    /// The day (UTC), `2026-11-21`.
    pub day: String,
    /// The person; empty where nobody's word was followed, or where an older version did not say.
    pub person: String,
    /// The agent.
    pub agent: String,
    /// The model; empty where an older version did not say.
    pub model: String,
    /// The tokens.
    pub tokens: Tokens,
    /// Requests.
    pub requests: u64,
}

/// Rings when the writer is done with what it was given, whether anybody waits for that or not.
struct Ring(Arc<Notify>);

impl Drop for Ring {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

impl Store {
    /// Holds tokens for a request, if the day has any left: `asked` of its prompt, about, and `most` with its answer. One that
    /// is held may go beyond the limit by what it holds, and no second one beside it.
    pub async fn hold(
        &self,
        spender: Spender,
        limits: DayLimits,
        asked: u64,
        most: u64,
    ) -> Result<Verdict, StoreError> {
        let (day, asked, most) = (self.clock.day(), asked.min(MOST), most.min(MOST));
        self.write(move |tx| {
            let Spender { address, person, agent, model } = &spender;
            let (bot, room) = (address.account.as_str(), address.room.as_str());
            let (whole, mut here) = ([day.as_str(), bot, room, ""], None);
            let mut bounds = vec![(Whose::Room, whole, sum(tx, whole)?, limits.room)];
            if let Some(person) = person.as_deref().filter(|person| !person.is_empty()) {
                let (own, in_room) = ([day.as_str(), "", "", person], [day.as_str(), bot, room, person]);
                bounds.push((Whose::Person, own, sum(tx, own)?, limits.person));
                // Also of somebody who is refused, so that it is known for whom more can be allowed here.
                add(tx, in_room, 0, 0)?;
                here = Some(in_room);
            }
            let limited = |(whose, _, sum, limit): &(Whose, _, Sum, Option<u64>)| {
                sum.allowed.or(*limit).map(|limit| (*whose, *sum, limit))
            };
            let limited: Vec<_> = bounds.iter().filter_map(limited).collect();
            if let Some((whose, _, limit)) = limited.iter().find(|(_, sum, limit)| sum.used >= *limit) {
                return Ok(Verdict::Over(*whose, *limit));
            }
            if let Some((whose, _, limit)) = limited.iter().find(|(_, sum, limit)| sum.used + sum.held >= *limit) {
                return Ok(Verdict::Wait(*whose, *limit));
            }
            let mut near = Vec::new();
            for (whose, sum, limit) in limited {
                // Of a person's day each room is told in which they ask for something.
                let row = if whose == Whose::Room { whole } else { here.unwrap_or(whole) };
                if u128::from(sum.used) * 100 >= u128::from(limit) * u128::from(NEAR) && warn(tx, row)? {
                    near.push((whose, limit));
                }
            }
            for (_, row, ..) in bounds {
                add(tx, row, 0, most as i64)?;
            }
            tx.prepare_cached(
                "INSERT INTO reservations (day, bot, room, person, agent, model, asked, most)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                day,
                bot,
                room,
                person.as_deref().unwrap_or(""),
                agent,
                model,
                asked as i64,
                most as i64
            ])?;
            Ok(Verdict::Held { id: tx.last_insert_rowid(), near })
        })
        .await
    }

    /// Counts what a request has used in place of what was held for it; the second time nothing. It waits for nothing, so
    /// that what is being cut can call it; a failure is logged.
    pub fn settle(&self, id: i64, tokens: Tokens) {
        let ring = Ring(Arc::clone(&self.settled));
        let settling = self.write(move |tx| {
            if let Err(error) = settle(tx, id, tokens) {
                tracing::warn!(%error, "the tokens of a request are not counted");
                return Err(error.into());
            }
            // It comes back, or is dropped, once the transaction stands.
            Ok(ring)
        });
        // By the first poll it stands in the writer's queue, and the transaction is carried out whoever waits.
        if let Some(Err(error)) = settling.now_or_never() {
            tracing::warn!(%error, "the tokens of a request are not counted");
        }
    }

    /// Returns what rings whenever a request was settled, or more was allowed.
    pub fn settled(&self) -> &Notify {
        &self.settled
    }

    /// Returns today's sums of a room and of a person.
    pub async fn day_sums(&self, address: &Address, person: &str) -> Result<DaySums, StoreError> {
        let (address, person, day) = (address.clone(), person.to_owned(), self.clock.day());
        self.read(move |tx| {
            let room = sum(tx, [&day, &address.account, address.room.as_str(), ""])?;
            Ok(DaySums { room, person: sum(tx, [&day, "", "", &person])? })
        })
        .await
    }

    /// Returns what each room has used today, in tokens; the most first.
    pub async fn spent_today(&self) -> Result<Vec<(Address, u64)>, StoreError> {
        let day = self.clock.day();
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT bot, room, used FROM spent
                 WHERE day = ?1 AND room <> '' AND person = '' AND used > 0 ORDER BY used DESC",
            )?;
            let rows = select.query_map([&day], |row| {
                let address = Address { account: row.get(0)?, room: RoomKey(row.get(1)?) };
                Ok((address, row.get::<_, i64>(2)?.max(0) as u64))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Lets a room have so many tokens today, whatever the setting.
    pub async fn allow_room(&self, address: &Address, tokens: u64) -> Result<(), StoreError> {
        let (address, day, ring) = (address.clone(), self.clock.day(), Ring(Arc::clone(&self.settled)));
        self.write(move |tx| {
            allow(tx, [&day, &address.account, address.room.as_str(), ""], tokens)?;
            Ok(ring)
        })
        .await
        .map(drop)
    }

    /// Lets each person who has asked for something in a room today have so many tokens today, whatever the setting. Returns
    /// them.
    pub async fn allow_people(&self, address: &Address, tokens: u64) -> Result<Vec<String>, StoreError> {
        let (address, day, ring) = (address.clone(), self.clock.day(), Ring(Arc::clone(&self.settled)));
        self.write(move |tx| {
            let people: Vec<String> = tx
                .prepare_cached(PEOPLE_OF_DAY)?
                .query_map(params![day, address.account, address.room.as_str()], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            for person in &people {
                allow(tx, [&day, "", "", person], tokens)?;
            }
            Ok((people, ring))
        })
        .await
        .map(|(people, _)| people)
    }

    /// Returns what was used in a room on the last so many days, today included, the newest day first.
    pub async fn spending(&self, address: &Address, days: u32) -> Result<Vec<Spending>, StoreError> {
        let (address, since) = (address.clone(), self.clock.day_before(days.saturating_sub(1)));
        self.read(move |tx| {
            let mut select = tx.prepare_cached(SPENDING)?;
            let rows =
                select.query_map(params![address.account, address.room.as_str(), since, ORCHESTRATOR], |row| {
                    let count = |index| row.get::<_, i64>(index).map(|value| value.max(0) as u64);
                    Ok(Spending {
                        day: row.get(0)?,
                        person: row.get(1)?,
                        agent: row.get(2)?,
                        model: row.get(3)?,
                        tokens: Tokens { input: count(4)?, cached: count(5)?, output: count(6)? },
                        requests: count(7)?,
                    })
                })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

/// People who have asked for something in a room on a day.
pub(super) const PEOPLE_OF_DAY: &str =
    "SELECT person FROM spent WHERE day = ?1 AND bot = ?2 AND room = ?3 AND person > ''";
/// What was used in a room since a day. `usage` is older than `agent_usage` and knows the orchestrator alone.
const SPENDING: &str = "SELECT day, person, agent, model, input, cached, output, requests FROM agent_usage
       WHERE bot = ?1 AND room = ?2 AND day >= ?3
     UNION ALL SELECT day, '', ?4, '', input, cached, output, requests FROM usage
       WHERE bot = ?1 AND room = ?2 AND day >= ?3
     ORDER BY 1 DESC, 5 DESC";
pub(super) const SUM: &str =
    "SELECT used, held, allowed, warned FROM spent WHERE day = ?1 AND bot = ?2 AND room = ?3 AND person = ?4";

fn sum(tx: &Transaction<'_>, row: [&str; 4]) -> rusqlite::Result<Sum> {
    let read = |row: &rusqlite::Row<'_>| {
        let (used, held): (i64, i64) = (row.get(0)?, row.get(1)?);
        let allowed = row.get::<_, Option<i64>>(2)?.map(|allowed| allowed.max(0) as u64);
        Ok(Sum { used: used.max(0) as u64, held: held.max(0) as u64, allowed, warned: row.get(3)? })
    };
    Ok(tx.prepare_cached(SUM)?.query_row(row, read).optional()?.unwrap_or_default())
}

/// Adds to a row; what is held never goes below nothing.
fn add(tx: &Transaction<'_>, [day, bot, room, person]: [&str; 4], used: i64, held: i64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO spent (day, bot, room, person, used, held) VALUES (?1, ?2, ?3, ?4, ?5, max(?6, 0))
         ON CONFLICT (day, bot, room, person) DO UPDATE SET used = used + excluded.used, held = max(held + ?6, 0)",
    )?
    .execute(params![day, bot, room, person, used, held])
    .map(drop)
}

/// Notes that a row's room is warned; tells whether it was not before.
fn warn(tx: &Transaction<'_>, row: [&str; 4]) -> rusqlite::Result<bool> {
    if sum(tx, row)?.warned {
        return Ok(false);
    }
    add(tx, row, 0, 0)?;
    tx.prepare_cached("UPDATE spent SET warned = 1 WHERE day = ?1 AND bot = ?2 AND room = ?3 AND person = ?4")?
        .execute(row)?;
    Ok(true)
}

fn allow(tx: &Transaction<'_>, [day, bot, room, person]: [&str; 4], tokens: u64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO spent (day, bot, room, person, allowed) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (day, bot, room, person) DO UPDATE SET allowed = excluded.allowed",
    )?
    .execute(params![day, bot, room, person, i64::try_from(tokens).unwrap_or(i64::MAX)])
    .map(drop)
}

fn settle(tx: &Transaction<'_>, id: i64, tokens: Tokens) -> rusqlite::Result<()> {
    let held = tx
        .prepare_cached("SELECT day, bot, room, person, agent, model, most FROM reservations WHERE id = ?1")?
        .query_row([id], |row| {
            let text = |index| row.get::<_, String>(index);
            Ok(([text(0)?, text(1)?, text(2)?, text(3)?, text(4)?, text(5)?], row.get::<_, i64>(6)?))
        })
        .optional()?;
    let Some(([day, bot, room, person, agent, model], most)) = held else { return Ok(()) };
    tx.prepare_cached("DELETE FROM reservations WHERE id = ?1")?.execute([id])?;
    let [input, cached, output] =
        [tokens.input, tokens.cached.min(tokens.input), tokens.output].map(|tokens| tokens.min(MOST) as i64);
    let used = input + output;
    add(tx, [&day, &bot, &room, ""], used, -most)?;
    if !person.is_empty() {
        add(tx, [&day, "", "", &person], used, -most)?;
        add(tx, [&day, &bot, &room, &person], used, 0)?;
    }
    tx.prepare_cached(
        "INSERT INTO agent_usage (bot, room, day, person, agent, model, input, cached, output, requests)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 1)
         ON CONFLICT (bot, room, day, person, agent, model) DO UPDATE SET input = input + excluded.input,
           cached = cached + excluded.cached, output = output + excluded.output, requests = requests + 1",
    )?
    .execute(params![bot, room, day, person, agent, model, input, cached, output])
    .map(drop)
}

/// Settles what an earlier process has left, at what was asked: that much was read at least.
pub(super) fn settle_left(connection: &mut Connection) -> rusqlite::Result<()> {
    let tx = connection.transaction()?;
    let left: Vec<(i64, i64)> = tx
        .prepare("SELECT id, asked FROM reservations")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (id, asked) in left {
        settle(&tx, id, Tokens { input: asked.max(0) as u64, ..Tokens::default() })?;
    }
    tx.commit()
}
