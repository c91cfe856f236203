//! Reads the part of a room's history between two answers of `/sync`, if the newer one does not reach back to the
//! older one.

use matrix_sdk::{
    Room,
    deserialized_responses::TimelineEvent,
    ruma::{
        UInt,
        api::client::message::get_message_events::v3::Request,
        events::{AnySyncTimelineEvent, room::encrypted::OriginalSyncRoomEncryptedEvent},
        serde::Raw,
    },
};

use super::{
    super::trouble::Trouble,
    lenient::{Lenient, Readable},
    sealed,
};
use crate::store::Sealed;

/// Events of a page, and the most pages that are read.
const PAGE: u32 = 250;
const PAGES: usize = 80;

/// An event of a room.
#[derive(Clone, Debug)]
pub(super) struct HistoryEvent {
    /// The event, decrypted if possible.
    pub(super) event: TimelineEvent,
    /// Its ciphertext, if that is certain.
    pub(super) sealed: Option<Sealed>,
}

/// The events between two places of a room's history.
#[derive(Debug)]
pub(super) struct Gap {
    /// The newest of them, oldest first.
    pub(super) events: Vec<HistoryEvent>,
    /// Whether these are all.
    pub(super) whole: bool,
}

impl Gap {
    /// Reads back from `before` to `position`. Fails if trying again may help.
    pub(super) async fn read(room: &Room, before: Option<String>, position: Option<&str>) -> Result<Self, Trouble> {
        let mut gap = Self { events: Vec::new(), whole: true };
        let mut from = before;
        for _ in 0..PAGES {
            let mut page = Request::backward(room.room_id().to_owned()).from(from);
            page.limit = UInt::from(PAGE);
            page.to = position.map(ToOwned::to_owned);
            match room.client().send(Lenient(page)).await.map_err(Trouble::from) {
                Ok(Readable { answer: page, .. }) => {
                    let more = !page.chunk.is_empty();
                    for event in page.chunk {
                        gap.events.push(told(room, event.cast()).await?);
                    }
                    from = page.end.filter(|_| more);
                }
                Err(trouble @ Trouble::Lasting(_)) => {
                    tracing::warn!(%trouble, "a part of the room's history cannot be read");
                    gap.whole = false;
                    from = None;
                }
                Err(trouble) => return Err(trouble),
            }
            if from.is_none() {
                break;
            }
        }
        if from.is_some() {
            let read = gap.events.len();
            tracing::warn!(read, "more was said than is read: the oldest is left out");
            gap.whole = false;
        }
        gap.events.reverse();
        Ok(gap)
    }
}

/// Decrypts an event if it is encrypted.
async fn told(room: &Room, event: Raw<AnySyncTimelineEvent>) -> Result<HistoryEvent, Trouble> {
    let sealed = sealed::of(event.json());
    if event.get_field::<String>("type").ok().flatten().as_deref() != Some("m.room.encrypted") {
        return Ok(HistoryEvent { event: TimelineEvent::from_plaintext(event), sealed: None });
    }
    let encrypted: &Raw<OriginalSyncRoomEncryptedEvent> = event.cast_ref_unchecked();
    Ok(HistoryEvent { event: room.decrypt_event(encrypted, None).await?, sealed })
}
