//! What is said in a room, as the hub is told of it.

use matrix_sdk::{
    Room,
    deserialized_responses::{
        TimelineEventKind, UnableToDecryptReason as Reason, VerificationLevel, VerificationState,
    },
};
use serde_json::Value;

use super::{
    super::{
        Adapter,
        inbound::{self, Came, Read, RoomFacts},
        trouble::Trouble,
    },
    NotTaken, deadline,
    history::HistoryEvent,
};
use crate::{bots::Policies, hub::Inbound, ids::RoomKey};

/// Returns what of a room's events is for the hub.
pub(super) async fn read(adapter: &Adapter, room: &Room, timeline: &[HistoryEvent]) -> Result<Vec<Inbound>, NotTaken> {
    if timeline.is_empty() || !adapter.opens(room.room_id()) {
        return Ok(vec![]);
    }
    let key = RoomKey::from(room.room_id().as_str());
    let encrypted = adapter.hub.is_encrypted(&key) || {
        // Asks the homeserver once a room, when the SDK does not know.
        let state = match room.latest_encryption_state().await.map_err(Trouble::from) {
            Ok(state) => state.is_encrypted(),
            // It will never be known: nothing in the clear counts there.
            Err(Trouble::Lasting(_)) => true,
            Err(trouble) => return Err(trouble.into()),
        };
        let encrypted = state || timeline.iter().any(|told| is_sealed_by_listed(adapter.hub.policies(), told));
        if encrypted {
            adapter.hub.note_encrypted(&key).await?;
        }
        encrypted
    };
    let progress = adapter.progress_event(&key);
    let own = room.own_user_id();
    let place =
        RoomFacts { room: &key, own, policies: adapter.hub.policies(), encrypted, progress: progress.as_deref() };
    Ok(timeline.iter().filter_map(|told| read_one(adapter, place, told)).collect())
}

/// Returns whether a listed person's client has encrypted an event, and so holds its room for encrypted: anybody can send
/// what looks encrypted, and only with their key it is.
fn is_sealed_by_listed(policies: &Policies, told: &HistoryEvent) -> bool {
    let TimelineEventKind::Decrypted(event) = &told.event.kind else { return false };
    !is_forged(&event.encryption_info.verification_state) && policies.hears(event.encryption_info.sender.as_str())
}

fn read_one(adapter: &Adapter, place: RoomFacts<'_>, told: &HistoryEvent) -> Option<Inbound> {
    let mut untrusted = false;
    let came = match &told.event.kind {
        TimelineEventKind::Decrypted(event) if is_forged(&event.encryption_info.verification_state) => return None,
        TimelineEventKind::Decrypted(_) => Came::Decrypted,
        TimelineEventKind::UnableToDecrypt { utd_info, .. } => {
            match &utd_info.reason {
                Reason::SenderIdentityNotTrusted(VerificationLevel::MismatchedSender) => return None,
                Reason::SenderIdentityNotTrusted(_) => untrusted = true,
                _ => {}
            }
            Came::Locked
        }
        TimelineEventKind::PlainText { .. } => Came::Plain,
    };
    // Nobody could say whether it comes for the first time.
    if came == Came::Decrypted && told.sealed.is_none() {
        return None;
    }
    let event: Value = serde_json::from_str(told.event.raw().json().get()).ok()?;
    let mut inbound = inbound::read(place, &Read { event: &event, came })?;
    if untrusted {
        deadline::set(adapter, &mut inbound);
    }
    Some(Inbound { sealed: told.sealed.clone().filter(|_| came == Came::Decrypted), ..inbound })
}

/// Somebody else's key, under the name of this one.
fn is_forged(state: &VerificationState) -> bool {
    matches!(state, VerificationState::Unverified(VerificationLevel::MismatchedSender))
}
