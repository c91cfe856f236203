//! Tool calls. A call is recorded with the model's message, marked before it runs, and again after it has ended.
//! Recovery has to find out what became of a call that a crash interrupted in between.

use rusqlite::{OptionalExtension, Row, params};
use serde_json::Value;

use super::{Store, StoreError, turns};
use crate::ids::{Address, CallId, RoomKey, TurnId};

/// A call as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRecord {
    /// Its id in the store and in the sandbox.
    pub call: CallId,
    /// sandboxd's boot id when the call was started; `None` before that.
    pub boot: Option<String>,
    /// Its result; `None` before it has ended.
    pub ended: Option<EndedCall>,
}

/// A call's result.
#[derive(Clone, Debug, PartialEq)]
pub struct EndedCall {
    /// What the model is told.
    pub text: String,
    /// What else the orchestrator stores about it (facts, summary).
    pub details: Value,
}

impl Store {
    /// Stores a whole message of the model with the calls that it asks for, in their order.
    pub async fn append_calls(
        &self,
        address: &Address,
        turn: &TurnId,
        message: Value,
        calls: Vec<CallId>,
    ) -> Result<(), StoreError> {
        let (address, turn, now) = (address.clone(), turn.clone(), self.clock.millis());
        self.write(move |tx| {
            let seq = turns::append(tx, &address, &turn, &message, now)?;
            let mut insert =
                tx.prepare_cached("INSERT INTO calls (call, turn, message, position) VALUES (?1, ?2, ?3, ?4)")?;
            for (position, call) in calls.iter().enumerate() {
                insert.execute(params![call.as_str(), turn.as_str(), seq, position as i64])?;
            }
            Ok(())
        })
        .await
    }

    /// Stores that a call is about to run in the sandbox with this boot id.
    pub async fn start_call(&self, call: &CallId, boot: &str) -> Result<(), StoreError> {
        let (call, boot, now) = (call.clone(), boot.to_owned(), self.clock.millis());
        self.write(move |tx| {
            tx.prepare_cached("UPDATE calls SET boot = ?2, started = ?3 WHERE call = ?1")?.execute(params![
                call.as_str(),
                boot,
                now
            ])?;
            Ok(())
        })
        .await
    }

    /// Stores a call's result.
    pub async fn end_call(&self, call: &CallId, result: EndedCall) -> Result<(), StoreError> {
        let (call, now) = (call.clone(), self.clock.millis());
        self.write(move |tx| {
            let details = serde_json::to_string(&result.details)?;
            tx.prepare_cached("UPDATE calls SET ended = ?2, result = ?3, details = ?4, state = NULL WHERE call = ?1")?
                .execute(params![call.as_str(), now, result.text, details])?;
            Ok(())
        })
        .await
    }
}

impl Store {
    /// Stores where a call under way stands, in place of where it stood.
    pub async fn keep_call_state(&self, call: &CallId, state: Value) -> Result<(), StoreError> {
        let call = call.clone();
        self.write(move |tx| {
            let state = serde_json::to_string(&state)?;
            tx.prepare_cached("UPDATE calls SET state = ?2 WHERE call = ?1")?.execute(params![call.as_str(), state])?;
            Ok(())
        })
        .await
    }

    /// Returns where a call under way stood last, if that was stored.
    pub async fn call_state(&self, call: &CallId) -> Result<Option<Value>, StoreError> {
        let call = call.clone();
        self.read(move |tx| {
            let mut select = tx.prepare_cached("SELECT state FROM calls WHERE call = ?1")?;
            let state: Option<Option<String>> = select.query_row([call.as_str()], |row| row.get(0)).optional()?;
            Ok(state.flatten().map(|state| serde_json::from_str(&state)).transpose()?)
        })
        .await
    }

    /// Returns the calls of open turns that have begun and not ended, with where each stood: after a crash, those that are
    /// taken up.
    pub async fn calls_under_way(&self) -> Result<Vec<(Address, CallId, Option<Value>)>, StoreError> {
        self.read(|tx| {
            let mut select = tx.prepare_cached(
                "SELECT t.bot, t.room, c.call, c.state FROM turns t JOIN calls c ON c.turn = t.turn
                 WHERE t.state = 'open' AND c.started IS NOT NULL AND c.ended IS NULL",
            )?;
            let mut rows = select.query([])?;
            let mut calls = Vec::new();
            while let Some(row) = rows.next()? {
                let address = Address { account: row.get(0)?, room: RoomKey(row.get(1)?) };
                let state: Option<String> = row.get(3)?;
                let state = state.map(|state| serde_json::from_str(&state)).transpose()?;
                calls.push((address, CallId(row.get(2)?), state));
            }
            Ok(calls)
        })
        .await
    }
}

/// Reads `call, boot, result, details` from the columns that start at `first`.
pub(super) fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Result<CallRecord, StoreError>> {
    let call: String = row.get(first)?;
    let boot = row.get(first + 1)?;
    let result: Option<String> = row.get(first + 2)?;
    let details: Option<String> = row.get(first + 3)?;
    let ended = result.map(|text| {
        let details = details.as_deref().map_or(Ok(Value::Null), serde_json::from_str)?;
        Ok::<_, StoreError>(EndedCall { text, details })
    });
    Ok(ended.transpose().map(|ended| CallRecord { call: call.into(), boot, ended }))
}
