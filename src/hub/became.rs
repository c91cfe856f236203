//! What became of something that was said: for who said it and was away when it was answered.

use super::{AccountHub, Outbound, room::txn};
use crate::{
    ids::{EventId, RoomKey},
    store::{OutboxRow, Standing, Store, StoreError},
};

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Became {
    /// Nobody said it in this room, or it was so long ago that it is forgotten.
    Unknown,
    /// It is not answered yet.
    Open,
    /// It was answered. All that its answer consists of, in order.
    Answered(Vec<Part>),
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The transaction id with which it is delivered, too.
    pub txn: String,
    /// What it says.
    pub outbound: Outbound,
    /// A file's bytes; they are gone once the file was delivered.
    pub data: Option<Vec<u8>>,
}

impl AccountHub {
    /// Returns what became of what was said in a room.
    pub async fn became(&self, room: &RoomKey, event: &EventId) -> Result<Became, StoreError> {
        let home = self.address(self.inner.homes.home(room));
        let store = &self.inner.store;
        let Some(found) = store.find(self.account(), event).await?.filter(|found| found.room == home.room) else {
            return Ok(Became::Unknown);
        };
        let rows = match &found.standing {
            Standing::Waiting => return Ok(Became::Open),
            Standing::Claimed(turn) => store.rows_of_turn(turn).await?,
            Standing::Done => store.row(&txn(&home, event, "reply")).await?.into_iter().collect(),
        };
        let mut parts = Vec::with_capacity(rows.len());
        for row in rows {
            parts.push(part(store, row).await?);
        }
        let ends = |part: &Part| matches!(part.outbound, Outbound::Answer { .. } | Outbound::Reply { .. });
        Ok(match parts.iter().any(ends) {
            true => Became::Answered(parts),
            false if matches!(found.standing, Standing::Done) => Became::Unknown,
            false => Became::Open,
        })
    }

    /// Returns whether something of this transaction id waits to be delivered.
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
