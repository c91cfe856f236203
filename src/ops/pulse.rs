//! Whether the server still works things off: for the watchdog of `run`.

use crate::store::{Store, StoreError};

/// Feels whether the process lives where it counts: in the runtime's workers and in the database's thread.
#[derive(Clone, Debug)]
pub struct Pulse {
    store: Store,
}

impl Pulse {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Returns when both have had a turn. Hangs where they do, so give it a limit.
    pub async fn beat(&self) -> Result<(), StoreError> {
        let store = self.store.clone();
        tokio::spawn(async move { store.take_turn().await }).await.map_err(|_| StoreError::Closed)?
    }
}
