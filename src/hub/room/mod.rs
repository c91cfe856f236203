//! A room's actor: it handles what was sent there in order, one turn at a time.
//!
//! `machine.rs` holds the rules and does no I/O; `driver.rs` carries them out. After a failure of the store the actor
//! begins anew from the journal, as it does after a crash.

mod bringing;
mod brought;
mod doing;
mod driver;
mod event;
mod machine;
mod meaning;
mod quote;
mod side;
#[cfg(test)]
mod tests;
mod upload;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time};
use tokio_util::sync::CancellationToken;

pub(super) use side::txn;

use super::AccountHub;
use crate::{
    backoff::Backoff,
    ids::{Address, TurnId},
};
use driver::Driver;

/// The first pause after a failure of the store, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_mins(1)];
/// The note that is written to see whether the database can be written.
const PROBE: &str = "writable";

/// How an actor is reached from outside.
#[derive(Default)]
pub(super) struct Mailbox {
    /// Wakes the actor: something was sent, or the room was left.
    pub(super) notify: Notify,
    /// The turn that runs or is about to, with the token that stops it.
    turn: Mutex<Option<(TurnId, CancellationToken)>>,
}

impl Mailbox {
    /// Stops the turn that runs if it is one of `turns`.
    pub(super) fn stop(&self, turns: &[TurnId]) {
        if let Some((turn, stop)) = &*self.turn.lock().unwrap_or_else(PoisonError::into_inner)
            && turns.contains(turn)
        {
            stop.cancel();
        }
    }

    /// Returns the turn that runs or is about to.
    pub(super) fn turn(&self) -> Option<TurnId> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(turn, _)| turn.clone())
    }

    /// Sets the turn that runs.
    fn set_turn(&self, turn: Option<(TurnId, CancellationToken)>) {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = turn;
    }
}

/// Runs the actor until it has nothing to do, or the program ends.
pub(super) async fn run(hub: AccountHub, address: Address, mail: Arc<Mailbox>) {
    let mut backoff = Backoff::new(PAUSES[0], PAUSES[1]);
    loop {
        let worked = Driver::new(hub.clone(), address.clone(), mail.clone()).run().await;
        mail.set_turn(None);
        let Err(error) = worked else { return };
        tracing::error!(%error, "the room's work stands still; it is tried again");
        // A turn asks its model before it writes, so with a full disk each try would be paid for in vain.
        let is_writable = async {
            loop {
                time::sleep(backoff.next_pause()).await;
                if hub.inner.store.note(&address.account, PROBE, "").await.is_ok() {
                    return;
                }
            }
        };
        if hub.inner.cancel.run_until_cancelled(is_writable).await.is_none() {
            return;
        }
    }
}
