//! Locked events, whose key is missing: they are tried again when keys come, and their sender is told if that takes
//! long.

use std::time::Duration;

use matrix_sdk::Client;
use tracing::Instrument;

use super::{
    super::{Adapter, inbound},
    NotTaken, deadline,
    retry::{self, Tried},
    unsigned,
};
use crate::{
    hub::{Body, Inbound},
    ids::{EventId, RoomKey},
};

/// How long the key of an event may take before its sender is told that it is missing.
const PATIENCE: Duration = Duration::from_secs(15);

/// Tries again to decrypt the locked events.
pub(super) async fn unlock(adapter: &Adapter, client: &Client) -> Result<(), NotTaken> {
    for mut locked in adapter.hub.locked().await? {
        let Body::Locked { until, .. } = &locked.body else { continue };
        if until.is_none() {
            let Tried::Untrusted = retry::retry(adapter, client, &locked).await? else { continue };
            deadline::set(adapter, &mut locked);
        }
        unsigned::vouch(adapter, client, locked);
    }
    Ok(())
}

/// Returns a locked event's room, id and thread, which is never encrypted.
pub(super) fn locked_in(inbound: &Inbound) -> (RoomKey, EventId, Option<EventId>) {
    let thread = match &inbound.body {
        Body::Locked { raw, .. } => inbound::thread(&raw["content"]),
        _ => None,
    };
    (inbound.room.clone(), inbound.event.clone(), thread)
}

/// After [`PATIENCE`], tells the senders of events whose key has not come that these cannot be read.
pub(super) async fn wait_for_keys(adapter: Adapter, events: Vec<(RoomKey, EventId, Option<EventId>)>) {
    tokio::time::sleep(PATIENCE).await;
    for (room, event, thread) in events {
        let telling = async {
            if let Err(error) = adapter.hub.unreadable(&event, thread).await {
                tracing::warn!(%event, %error, "a message cannot be read, and that could not be said");
            }
        };
        telling.instrument(adapter.hub.address(room).span()).await;
    }
}
