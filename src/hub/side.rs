//! Orders that are carried out beside a running turn, so that a slow one holds up neither the turn nor a stop.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time};

use super::{AccountHub, Outbound, to_json};
use crate::{
    bots::{Bot, Order},
    ids::{self, Address, EventId},
    store::{Conversation, NewOutbox, StoreError, StoredInbound},
    strings,
};

/// Orders that are carried out at the same time in one room; more stay in the journal until the turn has ended.
const AT_ONCE: usize = 8;
/// How long one may take.
const LIMIT: Duration = Duration::from_mins(1);

/// The orders under way. What is dropped with it is carried out again: its event still waits.
#[derive(Default)]
pub(super) struct Side {
    running: JoinSet<Result<(), StoreError>>,
}

impl Side {
    /// Begins an order, if there is room for it.
    pub(super) fn begin(&mut self, hub: &AccountHub, address: &Address, asked: Asked) {
        if self.running.len() < AT_ONCE {
            let (hub, address) = (hub.clone(), address.clone());
            self.running.spawn(async move { carry_out(&hub, &address, asked).await });
        }
    }

    /// Waits for the end of one of them; for ever if none runs.
    pub(super) async fn ended(&mut self) -> Result<(), StoreError> {
        match self.running.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(panic)) => {
                tracing::error!(error = %panic, "an order ended by a panic");
                Ok(())
            }
            None => std::future::pending().await,
        }
    }
}

/// An order with where it came from.
pub(super) struct Asked {
    pub(super) event: StoredInbound,
    pub(super) thread: Option<EventId>,
    pub(super) bot: Arc<dyn Bot>,
    /// Its words.
    pub(super) text: String,
    /// What the room's turn does, in a line.
    pub(super) doing: String,
}

/// Carries an order out and puts the reply into the outbox.
pub(super) async fn carry_out(hub: &AccountHub, address: &Address, asked: Asked) -> Result<(), StoreError> {
    let Asked { event, thread, bot, text, doing } = asked;
    let at = Conversation { address: address.clone(), bot: bot.name().clone() };
    let reply_text = time::timeout(LIMIT, bot.carry_out(Order { at, text, doing })).await;
    reply(hub, address, event.event, thread, reply_text.unwrap_or_else(|_| strings::TOO_SLOW.to_owned())).await
}

/// Replies to an event, which is done with it.
pub(super) async fn reply(
    hub: &AccountHub,
    address: &Address,
    asked: EventId,
    thread: Option<EventId>,
    text: String,
) -> Result<(), StoreError> {
    let row = reply_row(address, &asked, thread, text)?;
    hub.inner.store.reply(address, vec![asked], vec![row]).await?;
    hub.inner.outbox.wake(address).await;
    Ok(())
}

/// Returns a reply as the outbox takes it.
pub(super) fn reply_row(
    address: &Address,
    asked: &EventId,
    thread: Option<EventId>,
    text: String,
) -> Result<NewOutbox, StoreError> {
    let outbound = Outbound::Reply { text, asked: asked.clone(), thread };
    Ok(NewOutbox { txn: txn(address, asked, "reply"), payload: to_json(&outbound)?, file: None })
}

/// Returns the transaction id of a part of an answer: always the same for the same part.
pub(super) fn txn(address: &Address, asked: &EventId, part: &str) -> String {
    ids::digest(&[&address.account, address.room.as_str(), asked.as_str(), part], 16)
}
