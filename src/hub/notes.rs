//! What an account's chat protocol remembers across restarts, without knowing the store.

use super::AccountHub;
use crate::{clock::Clock, store::StoreError};

impl AccountHub {
    /// Notes a value under a key, in place of an older one. Kept for as long as old turns are.
    pub async fn note(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.inner.store.note(self.account(), key, value).await
    }

    /// Returns what was noted under a key.
    pub async fn noted(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.inner.store.noted(self.account(), key).await
    }

    /// Forgets what was noted under a key.
    pub async fn forget_note(&self, key: &str) -> Result<(), StoreError> {
        self.inner.store.forget(self.account(), key).await
    }

    /// Returns how far the protocol's stream was admitted.
    pub async fn position(&self) -> Result<Option<String>, StoreError> {
        self.inner.store.position(self.account()).await
    }

    /// Returns the clock that stamps all that is stored.
    pub fn clock(&self) -> &Clock {
        self.inner.store.clock()
    }
}
