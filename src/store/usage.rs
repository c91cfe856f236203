//! What the models have cost, in tokens, per room and day.

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
    /// Requests to the model.
    pub requests: u64,
}

impl Store {
    /// Adds the tokens of one request to today's sum of a room.
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

    /// Returns a room's sums, the newest day first, at most `days`.
    pub async fn usage(&self, address: &Address, days: usize) -> Result<Vec<UsageRow>, StoreError> {
        let address = address.clone();
        self.read(move |tx| {
            let mut select = tx.prepare_cached(
                "SELECT day, input, cached, output, requests FROM usage
                 WHERE bot = ?1 AND room = ?2 ORDER BY day DESC LIMIT ?3",
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
