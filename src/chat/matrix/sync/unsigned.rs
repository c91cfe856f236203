//! Messages from devices that are not signed. A homeserver can add a device to any account; only the person can sign
//! it. So such a message counts only if the person's keys, which are queried again, show within moments that its
//! device is signed. If not, the message is given up and its sender is told by a reaction: that is never encrypted,
//! so that it can be read on that device.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use matrix_sdk::{Client, ruma::OwnedUserId};
use tokio::time::{self, Instant};
use tracing::error_span;

use super::{
    super::{Adapter, view},
    NotTaken,
    deadline::VOUCHED,
    retry::{self, Tried},
    sealed,
};
use crate::{
    hub::{Body, Inbound},
    ids::{EventId, SPANS},
    store::Sealed,
};

/// The pause between two queries for keys.
const PAUSE: Duration = Duration::from_secs(2);
/// Messages for which keys are queried at the same time; further ones are given up at once.
const AT_ONCE: usize = 64;

/// The messages for which keys are being queried.
#[derive(Debug, Default)]
pub(in crate::chat::matrix) struct Unsigned {
    asking: Mutex<HashSet<EventId>>,
}

impl Unsigned {
    fn asking(&self) -> MutexGuard<'_, HashSet<EventId>> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries a message again, in a task, until its deadline; then gives it up.
pub(super) fn vouch(adapter: &Adapter, client: &Client, message: Inbound) {
    let (adapter, client) = (adapter.clone(), client.clone());
    let room = adapter.hub.address(message.room.clone()).span();
    let _message = error_span!(target: SPANS, parent: &room, "message", event = %message.event).entered();
    tracing::debug!("a message waits for somebody to vouch for its device");
    let place = {
        let mut asking = adapter.unsigned.asking();
        let place = asking.len() < AT_ONCE;
        if !asking.insert(message.event.clone()) {
            return;
        }
        place
    };
    adapter.clone().spawn(async move {
        let vouched = place && is_vouched(&adapter, &client, &message).await;
        if !vouched {
            give_up(&adapter, &message).await;
        }
        adapter.unsigned.asking().remove(&message.event);
    });
}

async fn is_vouched(adapter: &Adapter, client: &Client, message: &Inbound) -> bool {
    let Body::Locked { until: Some(until), .. } = message.body else { return false };
    // After a restart the deadline may be long over and the device signed meanwhile; the sender does not expect an
    // answer any more.
    let Ok(left) = u64::try_from(until - adapter.hub.clock().millis()) else { return false };
    let end = Instant::now() + Duration::from_millis(left).min(VOUCHED);
    loop {
        match retry_with_keys(adapter, client, message).await {
            Ok(Tried::Gone) => return true,
            Ok(Tried::Locked | Tried::Untrusted) => {}
            Err(error) => tracing::warn!(%error, "a message could not be tried again"),
        }
        if Instant::now() >= end {
            return false;
        }
        time::sleep(PAUSE).await;
    }
}

/// Queries the sender's keys and tries the message with them.
async fn retry_with_keys(adapter: &Adapter, client: &Client, message: &Inbound) -> Result<Tried, NotTaken> {
    if let Ok(sender) = OwnedUserId::try_from(message.sender.as_str())
        && let Err(error) = client.encryption().request_user_identity(&sender).await
    {
        tracing::debug!(%error, "a person's keys cannot be asked for now");
    }
    retry::retry(adapter, client, message).await
}

/// Gives up a message, and tells its sender.
async fn give_up(adapter: &Adapter, message: &Inbound) {
    let Inbound { room, event, sender, body, .. } = message;
    // If the same ciphertext came again after the device was signed, it would be acted on.
    if let Some(sealed) = ciphertext(body)
        && let Err(error) = adapter.hub.spend(sealed).await
    {
        tracing::warn!(%error, "a message from an unsigned device could not be dropped");
        return;
    }
    match adapter.hub.unlocked(event, None).await {
        Ok(true) => {
            tracing::warn!(sender, "a message was dropped: it comes from a device that its owner has not signed");
            view::refuse(adapter, room, event);
        }
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, "a message from an unsigned device could not be dropped"),
    }
}

/// Returns the identity of a message's ciphertext that can be decrypted, but whose device is not signed.
fn ciphertext(body: &Body) -> Option<Sealed> {
    let Body::Locked { raw, .. } = body else { return None };
    sealed::of(&serde_json::value::to_raw_value(raw).ok()?)
}
