//! Deletes single rows with what belongs to them, and says which states of a turn are final.

use rusqlite::Transaction;

use crate::store::{StoreError, TurnState, known};

/// Returns whether a turn in this state is closed; `None` stands for a turn that is gone, which counts as closed.
pub(super) fn has_ended(state: Option<String>) -> bool {
    state.is_none_or(|state| state == TurnState::Closed.as_str())
}

pub(super) fn ended_before(before: i64, state: Option<String>, closed: Option<i64>) -> bool {
    has_ended(state) && closed.is_none_or(|closed| closed < before)
}

pub(super) fn delete_message(tx: &Transaction<'_>, seq: i64) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM calls WHERE message = ?1")?.execute([seq])?;
    tx.prepare_cached("DELETE FROM messages WHERE seq = ?1")?.execute([seq])?;
    Ok(())
}

pub(super) fn delete_inbound(tx: &Transaction<'_>, seq: i64, account: &str, event: &str) -> Result<(), StoreError> {
    known::keep_event(tx, account, event)?;
    tx.prepare_cached("DELETE FROM inbound WHERE seq = ?1")?.execute([seq])?;
    Ok(())
}

pub(super) fn delete_outbox(tx: &Transaction<'_>, seq: i64) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM outbox WHERE seq = ?1")?.execute([seq])?;
    Ok(())
}

pub(super) fn delete_turn(tx: &Transaction<'_>, turn: &str) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM turns WHERE turn = ?1")?.execute([turn])?;
    Ok(())
}
