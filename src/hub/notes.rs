//! Values that a chat protocol keeps across restarts. They go through the hub, so that the protocol need not know the
//! store.

use super::AccountHub;
use crate::{
    clock::Clock,
    ids::{EventId, RoomKey},
    store::StoreError,
};

impl AccountHub {
    /// Stores a value under a key, in place of an older one. It is pruned like old turns.
    pub async fn note(&self, key: &str, value: &str) -> Result<(), StoreError> {
        self.inner.store.note(self.account(), key, value).await
    }

    /// Returns the value that was stored under a key.
    pub async fn noted(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.inner.store.noted(self.account(), key).await
    }

    /// Deletes the value under a key.
    pub async fn forget_note(&self, key: &str) -> Result<(), StoreError> {
        self.inner.store.forget(self.account(), key).await
    }

    /// Returns whether the account has said this in a room, as far as that is still known.
    pub async fn has_said(&self, room: &RoomKey, event: &EventId) -> Result<bool, StoreError> {
        self.inner.store.is_own(&self.address(self.inner.homes.home(room)), event).await
    }

    /// Returns the protocol's sync position as of the last [`AccountHub::admit`].
    pub async fn position(&self) -> Result<Option<String>, StoreError> {
        self.inner.store.position(self.account()).await
    }

    /// Returns the clock that stamps all that is stored.
    pub fn clock(&self) -> &Clock {
        self.inner.store.clock()
    }
}
