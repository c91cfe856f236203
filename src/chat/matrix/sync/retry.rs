//! Tries again to read an event whose key was missing.

use matrix_sdk::{
    Client,
    deserialized_responses::{TimelineEventKind, UnableToDecryptReason},
    ruma::{OwnedRoomId, events::room::encrypted::OriginalSyncRoomEncryptedEvent, serde::Raw},
};

use super::{
    super::{Adapter, rooms},
    NotTaken,
    history::HistoryEvent,
    is_word, reading, sealed,
};
use crate::hub::{Body, Inbound};

/// The result of another try.
pub(super) enum Tried {
    /// Its key is still missing.
    Locked,
    /// It could be decrypted, but its device is not signed.
    Untrusted,
    /// It is not locked any more.
    Gone,
}

/// Tries to read a locked event.
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
    let read = reading::read(adapter, &room, &[HistoryEvent { event, sealed }]).await?.pop();
    if read.as_ref().is_some_and(is_word) {
        rooms::take_along(adapter, &room).await?;
    }
    adapter.hub.unlocked(&locked.event, read).await?;
    Ok(Tried::Gone)
}
