//! Tells whether the server still makes progress, for the watchdog of `run`.

use crate::store::{Store, StoreError};

/// Checks the places where progress counts: the runtime's workers and the store's writer.
#[derive(Clone, Debug)]
pub struct Pulse {
    store: Store,
}

impl Pulse {
    pub(super) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Returns when both have done something. Hangs if they do, so give it a time limit.
    pub async fn beat(&self) -> Result<(), StoreError> {
        let store = self.store.clone();
        tokio::spawn(async move { store.take_turn().await }).await.map_err(|_| StoreError::Closed)?
    }
}
