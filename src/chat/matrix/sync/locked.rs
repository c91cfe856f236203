//! Events whose key has not come: tried again when keys come, and told of when that takes long.

use std::time::Duration;

use matrix_sdk::{
    Client,
    deserialized_responses::{TimelineEventKind, UnableToDecryptReason},
    ruma::{OwnedRoomId, events::room::encrypted::OriginalSyncRoomEncryptedEvent, serde::Raw},
};

use super::{
    super::{Adapter, inbound, rooms},
    NotTaken,
    history::Told,
    is_word, reading, sealed, unsigned,
};
use crate::{
    hub::{Body, Inbound},
    ids::EventId,
};

/// How long the key of an event may take before the room is told that it has not come.
const PATIENCE: Duration = Duration::from_secs(15);

/// What became of an event that was tried again.
pub(super) enum Tried {
    /// Its key has not come.
    Locked,
    /// It could be read if anybody vouched for the device that has sent it.
    Untrusted,
    /// It is not locked any more.
    Gone,
}

/// Tries again what could not be decrypted.
pub(super) async fn unlock(adapter: &Adapter, client: &Client) -> Result<(), NotTaken> {
    for mut locked in adapter.hub.locked().await? {
        let Body::Locked { until, .. } = &locked.body else { continue };
        if until.is_none() {
            let Tried::Untrusted = retry(adapter, client, &locked).await? else { continue };
            unsigned::limit(adapter, &mut locked);
        }
        unsigned::vouch(adapter, client, locked);
    }
    Ok(())
}

/// Tries one again.
pub(super) async fn retry(adapter: &Adapter, client: &Client, locked: &Inbound) -> Result<Tried, NotTaken> {
    let Body::Locked { raw, .. } = &locked.body else { return Ok(Tried::Gone) };
    let Ok(id) = OwnedRoomId::try_from(locked.room.as_str()) else { return Ok(Tried::Gone) };
    let (Some(room), Ok(raw)) = (client.get_room(&id), serde_json::value::to_raw_value(raw)) else {
        return Ok(Tried::Locked);
    };
    let sealed = sealed::of(&raw);
    let event = Raw::<OriginalSyncRoomEncryptedEvent>::from_json(raw);
    let Ok(event) = room.decrypt_event(&event, None).await else { return Ok(Tried::Locked) };
    match &event.kind {
        TimelineEventKind::Decrypted(_) => {}
        TimelineEventKind::UnableToDecrypt { utd_info, .. }
            if matches!(utd_info.reason, UnableToDecryptReason::SenderIdentityNotTrusted(_)) =>
        {
            return Ok(Tried::Untrusted);
        }
        _ => return Ok(Tried::Locked),
    }
    let read = reading::read(adapter, &room, &[Told { event, sealed }]).await?.pop();
    if read.as_ref().is_some_and(is_word) {
        rooms::take_along(adapter, &room).await?;
    }
    adapter.hub.unlocked(&locked.event, read).await?;
    Ok(Tried::Gone)
}

/// Returns a locked event, and its thread, which is never encrypted.
pub(super) fn locked_in(inbound: &Inbound) -> (EventId, Option<EventId>) {
    let thread = match &inbound.body {
        Body::Locked { raw, .. } => inbound::thread(&raw["content"]),
        _ => None,
    };
    (inbound.event.clone(), thread)
}

/// Says of events whose key does not come that they cannot be read.
pub(super) async fn wait_for_keys(adapter: Adapter, events: Vec<(EventId, Option<EventId>)>) {
    tokio::time::sleep(PATIENCE).await;
    for (event, thread) in events {
        if let Err(error) = adapter.hub.unreadable(&event, thread).await {
            tracing::warn!(%event, %error, "a message cannot be read, and that could not be said");
        }
    }
}
