//! Tokens that the models used, per room and day: the orchestrator's and the coding agents'.

use futures_util::FutureExt;
use rusqlite::params;

use super::{Store, StoreError};
use crate::ids::Address;

/// Tokens of one room on one day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageRow {
    /// The day (UTC), `2026-11-21`.
    pub day: String,
    /// Prompt tokens, cached ones included.
    pub input: u64,
    /// Of those, cached.
    pub cached: u64,
    /// Completion tokens.
    pub output: u64,
    /// Requests to the models.
    pub requests: u64,
}

/// Tokens of one request of a coding agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentUsage {
    /// The room.
    pub address: Address,
    /// The person whose message led to it, if known.
    pub person: Option<String>,
    /// The agent.
    pub agent: String,
    /// The model.
    pub model: String,
    /// Prompt tokens, cached ones included.
    pub input: u64,
    /// Of those, cached.
    pub cached: u64,
    /// Completion tokens.
    pub output: u64,
}

impl Store {
    /// Adds one request's tokens to a room's sum of today.
    pub async fn add_usage(&self, address: &Address, input: u64, cached: u64, output: u64) -> Result<(), StoreError> {
        let (address, day) = (address.clone(), self.clock.day());
        self.write(move |tx| {
            tx.prepare_cached(
                "INSERT INTO usage (bot, room, day, input, cached, output, requests) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1)
                 ON CONFLICT (bot, room, day) DO UPDATE SET input = input + excluded.input,
                   cached = cached + excluded.cached, output = output + excluded.output, requests = requests + 1",
            )?
            .execute(params![
                address.account,
                address.room.as_str(),
                day,
                input as i64,
                cached as i64,
                output as i64
            ])?;
            Ok(())
        })
        .await
    }

    /// Adds one request of a coding agent to today's sums. It does not wait, so that a future that is being dropped
    /// can call it; a failure is logged.
    pub fn add_agent_usage(&self, usage: AgentUsage) {
        let day = self.clock.day();
        let adding =
            self.write(move |tx| {
                let AgentUsage { address, person, agent, model, input, cached, output } = usage;
                let added = tx
                .prepare_cached(
                    "INSERT INTO agent_usage (bot, room, day, person, agent, model, input, cached, output, requests)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 1)
                     ON CONFLICT (bot, room, day, person, agent, model) DO UPDATE SET input = input + excluded.input,
                       cached = cached + excluded.cached, output = output + excluded.output, requests = requests + 1",
                )
                .and_then(|mut insert| {
                    let (person, room) = (person.unwrap_or_default(), address.room.as_str());
                    let tokens = [input as i64, cached as i64, output as i64];
                    insert.execute(params![
                        address.account, room, day, person, agent, model, tokens[0], tokens[1], tokens[2]
                    ])
                });
                if let Err(error) = &added {
                    tracing::warn!(%error, room = %address, "the tokens of a coding agent are not counted");
                }
                Ok(added.map(drop)?)
            });
        // The first poll puts the job into the writer's queue, and the transaction runs though nobody waits for it.
        if let Some(Err(error)) = adding.now_or_never() {
            tracing::warn!(%error, "the tokens of a coding agent are not counted");
        }
    }

    /// Returns the tokens of today: those of a room, the coding agents' included, and those that coding agents used
    /// for `person` in all rooms.
    pub async fn spent_today(&self, address: &Address, person: Option<&str>) -> Result<(u64, u64), StoreError> {
        let (address, day, person) = (address.clone(), self.clock.day(), person.map(str::to_owned));
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT
                   (SELECT coalesce(sum(input + output), 0) FROM usage WHERE bot = ?1 AND room = ?2 AND day = ?3)
                   + (SELECT coalesce(sum(input + output), 0) FROM agent_usage WHERE bot = ?1 AND room = ?2 AND day = ?3),
                   (SELECT coalesce(sum(input + output), 0) FROM agent_usage WHERE person = ?4 AND day = ?3)",
            )?;
            let count = |row: &rusqlite::Row<'_>, index| row.get::<_, i64>(index).map(|value| value as u64);
            let given = params![address.account, address.room.as_str(), day, person];
            Ok(select.query_row(given, |row| Ok((count(row, 0)?, count(row, 1)?)))?)
        })
        .await
    }

    /// Returns a room's daily sums, the coding agents' included, newest day first, at most `days`.
    pub async fn usage(&self, address: &Address, days: usize) -> Result<Vec<UsageRow>, StoreError> {
        let address = address.clone();
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT day, sum(input), sum(cached), sum(output), sum(requests) FROM (
                   SELECT bot, room, day, input, cached, output, requests FROM usage
                   UNION ALL SELECT bot, room, day, input, cached, output, requests FROM agent_usage
                 ) WHERE bot = ?1 AND room = ?2 GROUP BY day ORDER BY day DESC LIMIT ?3",
            )?;
            let rows = select.query_map(params![address.account, address.room.as_str(), days as i64], |row| {
                let count = |index| row.get::<_, i64>(index).map(|value| value as u64);
                Ok(UsageRow {
                    day: row.get(0)?,
                    input: count(1)?,
                    cached: count(2)?,
                    output: count(3)?,
                    requests: count(4)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}
