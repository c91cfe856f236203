//! Cards: questions to people, which go out as rows of the outbox. What they mean, `rights` knows.

use std::sync::{Arc, Weak};

use futures_util::{FutureExt, future::BoxFuture};

use super::{AccountHub, Inner, Outbound, message::CardPlace, to_json};
use crate::{
    ids::{Address, EventId, RoomKey},
    rights::Board,
    store::{NewOutbox, StoreError},
};

/// An account's hub, as `rights` knows it. It holds the hub no longer than others do.
struct CardBoard(Weak<Inner>);

impl AccountHub {
    /// Returns where the account's cards are shown.
    pub(super) fn board(&self) -> Arc<dyn Board> {
        Arc::new(CardBoard(Arc::downgrade(&self.inner)))
    }

    /// Returns the open cards of a room: the event of each, and its code.
    pub async fn cards(&self, room: &RoomKey) -> Result<Vec<(EventId, String)>, StoreError> {
        match &self.inner.rights {
            Some(rights) => rights.cards_at(&self.address(self.inner.homes.home(room))).await,
            None => Ok(vec![]),
        }
    }

    /// Returns the event that the row of a transaction id became, once it was sent.
    pub async fn sent_as(&self, txn: &str) -> Result<Option<EventId>, StoreError> {
        self.inner.store.sent_as(txn).await
    }
}

impl Board for CardBoard {
    fn reactions(&self, at: &Address) -> bool {
        self.0.upgrade().is_some_and(|hub| {
            let room = hub.homes.current(&at.room);
            hub.ports.features(&at.room).reactions
                && !hub.homes.is_encrypted(&room)
                && !hub.homes.is_encrypted(&at.room)
        })
    }

    fn row(
        &self,
        txn: String,
        text: String,
        thread: Option<EventId>,
        replaces: Option<String>,
    ) -> Result<NewOutbox, StoreError> {
        let outbound = Outbound::Notice { text, card: Some(CardPlace { thread, replaces, calls: None }) };
        Ok(NewOutbox { txn, payload: to_json(&outbound)?, file: None })
    }

    fn wake<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, ()> {
        async move {
            if let Some(hub) = self.0.upgrade() {
                hub.outbox.wake(at).await;
            }
        }
        .boxed()
    }
}
