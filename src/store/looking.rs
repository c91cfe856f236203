//! What whoever looks on from outside is told: the dashboard, and Prometheus. All of it is read on the connection of those who look
//! on, so no turn waits for it.

use super::{Store, StoreError};

/// How much waits, over all accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queued {
    /// Messages that no turn has claimed and nobody has answered.
    pub(crate) messages: u64,
    /// Rows of the outbox that were not sent.
    pub(crate) answers: u64,
}

impl Store {
    /// Returns how much waits.
    pub(crate) async fn queued(&self) -> Result<Queued, StoreError> {
        self.look(|tx| {
            let count = |query: &str| tx.prepare_cached(query)?.query_row([], |row| row.get::<_, i64>(0));
            Ok(Queued {
                messages: count("SELECT count(*) FROM inbound WHERE turn IS NULL AND done = 0")? as u64,
                answers: count("SELECT count(*) FROM outbox WHERE sent IS NULL")? as u64,
            })
        })
        .await
    }
}
