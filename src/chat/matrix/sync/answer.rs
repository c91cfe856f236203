//! An answer of `/sync`: requested, parsed as far as possible, and given to the SDK, which keeps the state and
//! decrypts.
//!
//! The SDK's `sync_once` refuses an answer for one malformed part, and returns neither the ciphertexts nor their
//! message indexes. So the answer is fetched here, ciphertexts are noted, and the SDK's lower half processes it; what
//! `sync_once` does besides (requests of the encryption, the backup) is done here too.

use std::{collections::HashMap, time::Duration};

use matrix_sdk::{
    Room,
    deserialized_responses::{ProcessedToDeviceEvent, TimelineEvent},
    ruma::{
        OwnedEventId,
        api::client::sync::sync_events::v3::{Request, Response},
    },
    sync::{JoinedRoomUpdate, RoomUpdates, State},
};

use super::{
    super::{
        connected::{Session, requests},
        trouble::Trouble,
    },
    lenient::{Lenient, Readable},
    outgoing, sealed,
};
use crate::store::Sealed;

/// An answer that the SDK has processed.
#[derive(Debug)]
pub(in crate::chat::matrix) struct Answer {
    /// The position of the next one.
    pub(super) next_batch: String,
    /// The events of the rooms.
    pub(super) rooms: RoomUpdates,
    /// What other devices have sent to the bot's device, among it keys.
    pub(super) to_device: Vec<ProcessedToDeviceEvent>,
    /// Whether malformed parts were left out.
    pub(super) mended: bool,
    /// The ciphertexts of its events.
    ciphertexts: Ciphertexts,
}

/// By event id; `None` if two ciphertexts came under one id, so that neither can be taken for the other.
type Ciphertexts = HashMap<OwnedEventId, Option<Sealed>>;

impl Answer {
    /// Requests an answer; `hold` is how long the homeserver waits for something new.
    pub(in crate::chat::matrix) async fn ask(
        session: &Session,
        mut request: Request,
        hold: Duration,
    ) -> Result<Self, Trouble> {
        // Requests of the encryption that a kill has kept from being sent.
        outgoing::send(session).await;
        request.timeout = Some(hold);
        request.use_state_after = true;
        let Readable { answer, mended } =
            session.client.send(Lenient(request)).with_request_config(requests(hold)).await?;
        let (next_batch, ciphertexts) = (answer.next_batch.clone(), ciphertexts(&answer));
        let taken = Box::pin(session.base.receive_sync_response(answer)).await.map_err(matrix_sdk::Error::from)?;
        for (id, update) in &taken.rooms.joined {
            if let Some(room) = session.client.get_room(id)
                && somebody_went(update)
            {
                renew_key(&room).await;
            }
        }
        outgoing::send(session).await;
        Ok(Self { next_batch, rooms: taken.rooms, to_device: taken.to_device, mended, ciphertexts })
    }

    /// Returns the ciphertext of an event in this answer, if that is certain.
    pub(super) fn sealed(&self, event: &TimelineEvent) -> Option<Sealed> {
        self.ciphertexts.get(&event.event_id()?)?.clone()
    }
}

fn ciphertexts(answer: &Response) -> Ciphertexts {
    let mut found = Ciphertexts::new();
    for event in answer.rooms.join.values().flat_map(|room| &room.timeline.events) {
        let Ok(Some(id)) = event.get_field::<OwnedEventId>("event_id") else { continue };
        let sealed = sealed::of(event.json());
        found
            .entry(id)
            .and_modify(|known| {
                if *known != sealed {
                    *known = None;
                }
            })
            .or_insert(sealed);
    }
    found
}

/// Returns whether a room has lost a member.
fn somebody_went(update: &JoinedRoomUpdate) -> bool {
    let (State::Before(state) | State::After(state)) = &update.state;
    let state = state.iter().map(|event| event.json().get());
    let timeline = update.timeline.events.iter().map(|event| event.raw().json().get());
    state.chain(timeline).any(|event| {
        let event: serde_json::Value = serde_json::from_str(event).unwrap_or_default();
        event["type"] == "m.room.member"
            && matches!(event["content"]["membership"].as_str(), Some("leave" | "ban"))
            && event["unsigned"]["prev_content"]["membership"] != "leave"
    })
}

/// Makes a new room key for the next message, so that members who left cannot read it.
async fn renew_key(room: &Room) {
    if room.encryption_state().is_encrypted()
        && let Err(error) = room.discard_room_key().await
    {
        tracing::warn!(room = %room.room_id(), %error, "the room's key cannot be renewed after somebody has left");
    }
}
