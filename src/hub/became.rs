//! What became of a message, for a client that was away when it was answered.

use super::{AccountHub, Outbound, room::txn};
use crate::{
    ids::{EventId, RoomKey},
    store::{OutboxRow, Standing, Store, StoreError},
};

/// What became of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Became {
    /// The journal does not have it: it was never sent in this room, or was pruned.
    Unknown,
    /// It is not answered yet.
    Open,
    /// It was answered; these are the parts of its answer, in order.
    Answered(Vec<Part>),
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The transaction id, the same as in its [`super::Delivery`].
    pub txn: String,
    /// What it says.
    pub outbound: Outbound,
    /// A file's bytes; `None` once the file was delivered.
    pub data: Option<Vec<u8>>,
}

impl AccountHub {
    /// Returns what became of a message.
    pub async fn became(&self, room: &RoomKey, event: &EventId) -> Result<Became, StoreError> {
        let home = self.address(self.inner.homes.home(room));
        let store = &self.inner.store;
        let Some(found) = store.find(self.account(), event).await?.filter(|found| found.room == home.room) else {
            return Ok(Became::Unknown);
        };
        let rows = match &found.standing {
            Standing::Waiting => return Ok(Became::Open),
            // Its conversation was given up, and the answer with it.
            Standing::Claimed(turn) if !store.has_turn(turn).await? => return Ok(Became::Unknown),
            Standing::Claimed(turn) => store.rows_of_turn(turn).await?,
            Standing::Done | Standing::PassedOver => {
                store.row(&txn(&home, event, "reply")).await?.into_iter().collect()
            }
        };
        let mut parts = Vec::with_capacity(rows.len());
        for row in rows {
            parts.push(part(store, row).await?);
        }
        let ends = |part: &Part| matches!(part.outbound, Outbound::Answer { .. } | Outbound::Reply { .. });
        Ok(match parts.iter().any(ends) {
            true => Became::Answered(parts),
            false if matches!(found.standing, Standing::Done | Standing::PassedOver) => Became::Unknown,
            false => Became::Open,
        })
    }

    /// Returns whether an event was taken before, also if its row was pruned since.
    pub async fn knows(&self, event: &EventId) -> Result<bool, StoreError> {
        self.inner.store.knows(self.account(), event).await
    }

    /// Notes that a row was shown to somebody in its room, who may have asked for it before the outbox has handed it over: it
    /// does not come again. Returns whether it counts as sent now.
    pub async fn was_shown(&self, room: &RoomKey, txn: &str) -> Result<bool, StoreError> {
        let store = &self.inner.store;
        if !store.is_unsent(txn).await? {
            return Ok(true);
        }
        let home = self.address(self.inner.homes.home(room));
        let Some(row) = store.row(txn).await?.filter(|row| row.address == home) else { return Ok(false) };
        store.sent(row.seq, &EventId(row.txn)).await?;
        Ok(true)
    }

    /// Returns whether the outbox row with this transaction id has not been sent yet.
    pub async fn is_undelivered(&self, txn: &str) -> Result<bool, StoreError> {
        self.inner.store.is_unsent(txn).await
    }
}

async fn part(store: &Store, row: OutboxRow) -> Result<Part, StoreError> {
    let data = match &row.file {
        Some(file) => store.kept_file(file).await?,
        None => row.data,
    };
    Ok(Part { txn: row.txn, outbound: serde_json::from_value(row.payload)?, data })
}
