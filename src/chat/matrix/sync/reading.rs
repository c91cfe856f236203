//! Turns a room's events into what the hub is told.

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
        rooms,
        trouble::Trouble,
    },
    NotTaken, deadline,
    history::HistoryEvent,
};
use crate::{
    bots::Policies,
    hub::{Body, Inbound},
    ids::RoomKey,
};

/// Returns what of a room's events the hub is told.
pub(super) async fn read(adapter: &Adapter, room: &Room, timeline: &[HistoryEvent]) -> Result<Vec<Inbound>, NotTaken> {
    if timeline.is_empty() {
        return Ok(vec![]);
    }
    if !adapter.opens(room.room_id()) {
        let mentioned = |told: &HistoryEvent| {
            let event = serde_json::from_str(told.event.raw().json().get());
            event.is_ok_and(|event| inbound::mentions(room.own_user_id(), &event))
        };
        if adapter.hub.policies().leave_others() && timeline.iter().any(mentioned) {
            rooms::leave_other(adapter, room.clone());
        }
        return Ok(vec![]);
    }
    let key = RoomKey::from(room.room_id().as_str());
    let encrypted = adapter.hub.is_encrypted(&key) || {
        // Asks the homeserver once for each room, if the SDK does not know.
        let state = match room.latest_encryption_state().await.map_err(Trouble::from) {
            Ok(state) => state.is_encrypted(),
            // It will never be known, so the room counts as encrypted, and nothing unencrypted counts there.
            Err(Trouble::Lasting(_)) => true,
            Err(trouble) => return Err(trouble.into()),
        };
        let encrypted = state || timeline.iter().any(|told| is_sealed_by_listed(adapter.hub.policies(), told));
        if encrypted {
            adapter.hub.note_encrypted(&key).await?;
        }
        encrypted
    };
    let view = adapter.view(&key);
    let progress = view.as_ref().and_then(|view| view.event());
    let is_gone = |told: &HistoryEvent| {
        let event: Value = serde_json::from_str(told.event.raw().json().get()).unwrap_or_default();
        progress.is_some() && inbound::redacted(&event) == progress.as_deref()
    };
    if let Some(view) = view.as_ref().filter(|view| view.is_draft() && timeline.iter().any(is_gone)) {
        view.deleted(adapter).await;
    }
    let own = room.own_user_id();
    let is_reaction = |told: &HistoryEvent| {
        told.event.raw().get_field::<String>("type").ok().flatten().as_deref() == Some("m.reaction")
    };
    let cards = if timeline.iter().any(is_reaction) { adapter.hub.cards(&key).await? } else { vec![] };
    let place = RoomFacts {
        room: &key,
        own,
        policies: adapter.hub.policies(),
        encrypted,
        progress: progress.as_deref(),
        drafts: view.is_some_and(|view| view.is_draft()),
        cards: &cards,
    };
    let mut all = Vec::new();
    for told in timeline {
        if let Some(mut inbound) = read_one(adapter, place, told) {
            note_reply(adapter, told, &mut inbound).await?;
            all.push(inbound);
        }
    }
    Ok(all)
}

/// Notes that a message replies to something that the account has said, where the sender's client does not say at all whom it
/// means: one that does names whom it answers, unless the sender has taken that out.
async fn note_reply(adapter: &Adapter, told: &HistoryEvent, inbound: &mut Inbound) -> Result<(), NotTaken> {
    let (Body::Said { about: Some(about), addressed, .. } | Body::File { about: Some(about), addressed, .. }) =
        &mut inbound.body
    else {
        return Ok(());
    };
    let content = told.event.raw().get_field::<Value>("content").ok().flatten().unwrap_or_default();
    if !content["m.mentions"].is_object() {
        addressed.replied = adapter.hub.has_said(&inbound.room, about).await?;
    }
    Ok(())
}

/// Returns whether a person whom the bot hears has encrypted an event, which shows that the room is encrypted.
/// Anybody can send what only looks encrypted; it must have been encrypted with that person's key.
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
    // Without its ciphertext nobody could tell whether the message comes for the first time.
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

/// Returns whether an event was encrypted with a key that is not its sender's.
fn is_forged(state: &VerificationState) -> bool {
    matches!(state, VerificationState::Unverified(VerificationLevel::MismatchedSender))
}
