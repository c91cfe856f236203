//! Orders that are carried out beside a running turn, so that a slow one holds up neither the turn nor a stop.

use std::{collections::HashMap, sync::Arc};

use tokio::{
    task::{Id, JoinSet},
    time,
};
use tracing::{Instrument, Span, error_span};

use crate::{
    bots::{Bot, Order},
    hub::{AccountHub, Outbound, to_json},
    ids::{self, Address, EventId, SPANS},
    store::{Conversation, NewOutbox, StoreError},
    strings, text,
};

/// The most bytes of a reply to an order; of more, the middle is cut out.
const REPLY: usize = 256 * 1024;

/// The running orders. If this is dropped they are aborted; their events still wait in the journal, so they are
/// carried out again.
#[derive(Default)]
pub(super) struct Side {
    running: JoinSet<Result<(), StoreError>>,
    /// By task, the order's event and the span that names it and its room in the log.
    events: HashMap<Id, (EventId, Span)>,
}

impl Side {
    /// Starts an order.
    pub(super) fn begin(&mut self, hub: &AccountHub, address: &Address, asked: Asked) {
        let event = asked.event.clone();
        // An order runs beside the turn, so its log lines do not carry the turn's name.
        let span = error_span!(target: SPANS, parent: &address.span(), "order", %event);
        let (hub, address) = (hub.clone(), address.clone());
        let work = async move { carry_out(&hub, &address, asked).await };
        let order = self.running.spawn(work.instrument(span.clone()));
        self.events.insert(order.id(), (event, span));
    }

    /// Waits until one of the orders has ended; returns its event and whether it panicked. Never returns while none
    /// runs.
    pub(super) async fn ended(&mut self) -> Result<(EventId, bool), StoreError> {
        loop {
            let (id, result) = match self.running.join_next_with_id().await {
                Some(Ok((id, result))) => (id, Ok(result)),
                Some(Err(error)) => (error.id(), Err(error)),
                None => return std::future::pending().await,
            };
            let Some((event, span)) = self.events.remove(&id) else { continue };
            return match result {
                Ok(result) => result.map(|()| (event, false)),
                Err(error) => {
                    let _order = span.enter();
                    tracing::error!(%error, "an order ended by a panic");
                    Ok((event, true))
                }
            };
        }
    }
}

/// An order with the event that gave it.
pub(super) struct Asked {
    pub(super) event: EventId,
    /// Who gave it.
    pub(super) sender: String,
    /// Whether they sit at this machine.
    pub(super) local: bool,
    pub(super) thread: Option<EventId>,
    pub(super) bot: Arc<dyn Bot>,
    /// The order's text.
    pub(super) text: String,
    /// What the room's actor does now, in one line.
    pub(super) doing: String,
}

/// Carries an order out and puts the reply into the outbox.
async fn carry_out(hub: &AccountHub, address: &Address, asked: Asked) -> Result<(), StoreError> {
    let Asked { event, sender, local, thread, bot, text, doing } = asked;
    let at = Conversation { address: address.clone(), bot: bot.name().clone() };
    let order = Order { at, sender, local, text, doing, thread: thread.clone() };
    let meanwhile = bot.meanwhile(&order).filter(|_| hub.inner.ports.features(&address.room).edits);
    let replaces = match meanwhile {
        Some(text) => Some(reply_meanwhile(hub, address, &event, thread.clone(), text).await?),
        None => None,
    };
    let reply_text = time::timeout(bot.patience(&order), bot.carry_out(order)).await;
    let text = reply_text.unwrap_or_else(|_| strings::commands::TOO_SLOW.to_owned());
    if text.is_empty() {
        // What it did is seen elsewhere.
        return hub.inner.store.done(&address.account, vec![event]).await;
    }
    let row = reply_row(address, &event, thread, text, replaces)?;
    store_reply(hub, address, event, row).await
}

/// Replies to an event with what is true until its order is carried out; returns that reply's transaction id.
async fn reply_meanwhile(
    hub: &AccountHub,
    address: &Address,
    asked: &EventId,
    thread: Option<EventId>,
    text: String,
) -> Result<String, StoreError> {
    let row = NewOutbox { txn: txn(address, asked, "meanwhile"), ..reply_row(address, asked, thread, text, None)? };
    let id = row.txn.clone();
    hub.inner.store.post(address, None, row).await?;
    hub.inner.outbox.wake(address).await;
    Ok(id)
}

/// Replies to an event and marks it done, in one transaction.
pub(super) async fn reply(
    hub: &AccountHub,
    address: &Address,
    asked: EventId,
    thread: Option<EventId>,
    text: String,
) -> Result<(), StoreError> {
    let row = reply_row(address, &asked, thread, text, None)?;
    store_reply(hub, address, asked, row).await
}

async fn store_reply(hub: &AccountHub, address: &Address, asked: EventId, row: NewOutbox) -> Result<(), StoreError> {
    hub.inner.store.reply(address, vec![asked], vec![row]).await?;
    hub.inner.outbox.wake(address).await;
    Ok(())
}

/// Returns a reply as a row of the outbox.
pub(super) fn reply_row(
    address: &Address,
    asked: &EventId,
    thread: Option<EventId>,
    text: String,
    replaces: Option<String>,
) -> Result<NewOutbox, StoreError> {
    let text = if text.len() > REPLY { text::cut_middle(&text, REPLY) } else { text };
    let outbound = Outbound::Reply { text, asked: asked.clone(), thread, replaces };
    Ok(NewOutbox { txn: txn(address, asked, "reply"), payload: to_json(&outbound)?, file: None })
}

/// Returns the transaction id of one part of an event's answer: always the same for the same part, so that it is sent
/// once.
pub(in crate::hub) fn txn(address: &Address, asked: &EventId, part: &str) -> String {
    ids::digest(&[&address.account, address.room.as_str(), asked.as_str(), part], 16)
}
