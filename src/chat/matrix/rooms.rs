//! The bot's own membership: invites, greetings, empty rooms and upgraded ones.
//!
//! Requests that may take long are tasks of their own, so that they delay nobody's messages.

use std::time::Duration;

use matrix_sdk::{
    Client, Room, RoomDisplayName, RoomMemberships, RoomState,
    ruma::{OwnedRoomId, RoomId},
};
use tokio::time;
use tracing::Instrument;

use super::{Adapter, trouble::Trouble};
use crate::{
    backoff::Backoff,
    ids::{EventId, RoomKey},
    store::StoreError,
};

/// Attempts to join or leave a room, the pause after the first of them, and the longest pause.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The most servers that are asked for a room's successor.
const SERVERS: usize = 5;
/// The most successive upgrades of a room that are followed back at once.
const UPGRADES: usize = 8;

/// Joins a room to which somebody whom the bot hears has invited it; declines other invites.
pub(super) fn invited(adapter: &Adapter, room: Room) {
    let (adapter, spawning, span) = (adapter.clone(), adapter, adapter.span(room.room_id()));
    let joining = async move {
        let inviter = match room.invite_details().await {
            Ok(invite) => invite.inviter_id,
            // The invite was handled already.
            Err(_) => return,
        };
        if adapter.hub.policies().hears(inviter.as_str()) && adapter.opens_now(&room).await {
            adapter.asked().insert(room.room_id().to_owned());
            let joined = again(|| async {
                if room.state() == RoomState::Joined { Ok(()) } else { room.join().await.map_err(Trouble::from) }
            });
            match joined.await {
                Ok(()) => tracing::info!(%inviter, "joined"),
                Err(trouble) => tracing::warn!(%inviter, %trouble, "the room cannot be joined"),
            }
        } else {
            tracing::warn!(%inviter, "an invite was declined: ALLOWED_USERS or ALLOWED_ROOMS does not list it");
            leave(&room).await;
        }
    };
    spawning.spawn(joining.instrument(span));
}

/// Leaves a room in which no bot of the account works, unless an alias leads there now.
pub(super) fn leave_other(adapter: &Adapter, room: Room) {
    let (adapter, spawning, span) = (adapter.clone(), adapter, adapter.span(room.room_id()));
    let leaving = async move {
        if !adapter.opens_now(&room).await {
            tracing::warn!("the bot was mentioned in a room that ALLOWED_ROOMS does not list, and leaves it");
            leave(&room).await;
        }
    };
    spawning.spawn(leaving.instrument(span));
}

/// Notes that the bot is in a room now, and greets it once.
pub(super) async fn entered(adapter: &Adapter, room: &Room) -> Result<(), StoreError> {
    let key = RoomKey::from(room.room_id().as_str());
    let own = match room.get_member_no_sync(room.own_user_id()).await {
        Ok(Some(member)) => member.event().event_id().map(|id| EventId::from(id.as_str())),
        Ok(None) | Err(_) => None,
    };
    note_encrypted(adapter, room).await?;
    // Whoever invited the bot wants everything of the room before it there. But a homeserver can forge an invite,
    // which is never encrypted; so into an encrypted room only an encrypted message takes anything along.
    if adapter.asked().remove(room.room_id()) && !adapter.hub.is_encrypted(&key) {
        take_along(adapter, room).await?;
    }
    // Without its own join event, the room's id stands for it; then only the first join is greeted.
    let joined = own.unwrap_or_else(|| EventId::from(room.room_id().as_str()));
    adapter.hub.joined(&key, &joined, adapter.opens(room.room_id())).await
}

/// Tells the hub what people call a room, as the SDK has worked it out from what the homeserver told last.
pub(super) fn named(adapter: &Adapter, room: &Room) {
    let name = room.cached_display_name().filter(|name| *name != RoomDisplayName::Empty).map(|name| name.to_string());
    adapter.hub.name_room(&RoomKey::from(room.room_id().as_str()), name.as_deref());
}

/// Notes that a room is encrypted, which counts from now on whatever the homeserver says.
pub(super) async fn note_encrypted(adapter: &Adapter, room: &Room) -> Result<(), StoreError> {
    let key = RoomKey::from(room.room_id().as_str());
    if !adapter.hub.is_encrypted(&key) && is_encrypted(room).await {
        adapter.hub.note_encrypted(&key).await?;
    }
    Ok(())
}

/// Returns whether a room is encrypted, as far as the homeserver says. It is asked once for each room.
async fn is_encrypted(room: &Room) -> bool {
    let state = room.latest_encryption_state().await;
    state.unwrap_or_else(|_| room.encryption_state()).is_encrypted()
}

/// Makes an upgraded room take over what the room before it has. Called once somebody whom the bot hears has asked
/// for it: by a message in the new room, or by an invite if the room is not encrypted. Both rooms must name each
/// other, which proves that somebody with the right to do so made the upgrade; but such a person alone must not move
/// a conversation, nor must the homeserver.
pub(super) async fn take_along(adapter: &Adapter, room: &Room) -> Result<(), StoreError> {
    if !adapter.opens(room.room_id()) {
        return Ok(());
    }
    // There may be another upgraded room in between, in which nobody wrote.
    let mut upgrades = vec![room.clone()];
    while upgrades.len() <= UPGRADES
        && let Some(before) = upgrades.last().and_then(predecessor)
    {
        upgrades.push(before);
    }
    for pair in upgrades.windows(2).rev() {
        note_encrypted(adapter, &pair[0]).await?;
        let [to, from] = [&pair[0], &pair[1]].map(|room| RoomKey::from(room.room_id().as_str()));
        adapter.hub.moved(&from, &to).await?;
    }
    Ok(())
}

/// Returns the room that a room replaces, if each names the other.
fn predecessor(room: &Room) -> Option<Room> {
    let before = room.client().get_room(&room.predecessor_room()?.room_id)?;
    before.successor_room().is_some_and(|next| next.room_id == *room.room_id()).then_some(before)
}

/// Leaves a room in which nobody whom the bot hears is left, and joins the successor of an upgraded one. `departed`
/// says that such a person has just left.
pub(super) fn leave_or_follow(adapter: &Adapter, room: &Room, departed: bool) {
    let successor = room.successor_room().map(|next| next.room_id).filter(|next| adapter.opens(next));
    // If the bot is in the successor already, the old room counts as an ordinary one.
    let successor = successor.filter(|next| !is_in(&room.client(), next));
    let alone = room.joined_members_count() == 1;
    if successor.is_none() && !alone && !departed {
        return;
    }
    let (room, adapter, spawning, span) = (room.clone(), adapter.clone(), adapter, adapter.span(room.room_id()));
    let looking = async move {
        match successor {
            None if unserved(&adapter, &room).await => {
                tracing::info!("nobody whom the bot serves is left in the room; it leaves");
                leave(&room).await;
            }
            None => {}
            Some(next) => follow(&room, next).await,
        }
    };
    spawning.spawn(looking.instrument(span));
}

/// Returns whether nobody whom the bot hears is in the room or invited, as to one that it has made; `false` if that is not known.
/// Both are asked at once: who was invited when the room seemed empty may have come meanwhile.
async fn unserved(adapter: &Adapter, room: &Room) -> bool {
    let here = RoomMemberships::JOIN | RoomMemberships::INVITE;
    let members = again(|| async { room.members(here).await.map_err(Trouble::from) });
    match members.await {
        Ok(members) => {
            // A pattern may match the bot itself.
            let others = members.iter().map(|member| member.user_id()).filter(|id| *id != room.own_user_id());
            !others.into_iter().any(|id| adapter.hub.policies().hears(id.as_str()))
        }
        Err(trouble) => {
            tracing::warn!(%trouble, "who is left in the room is not known; the bot stays");
            false
        }
    }
}

fn is_in(client: &Client, room: &RoomId) -> bool {
    client.get_room(room).is_some_and(|room| room.state() == RoomState::Joined)
}

/// Joins a room's successor. If that needs an invite, the bot waits for it.
async fn follow(room: &Room, next: OwnedRoomId) {
    let client = room.client();
    // The servers that may know it: the old room's, and those of its members that are known locally.
    let mut servers: Vec<_> = room.room_id().server_name().map(ToOwned::to_owned).into_iter().collect();
    for member in room.members_no_sync(RoomMemberships::JOIN).await.unwrap_or_default() {
        let server = member.user_id().server_name();
        if servers.len() < SERVERS && !servers.iter().any(|known| known == server) {
            servers.push(server.to_owned());
        }
    }
    if let Err(error) = client.join_room_by_id_or_alias((&*next).into(), &servers).await {
        let trouble = Trouble::from(error);
        tracing::info!(%next, %trouble, "the room's successor cannot be joined without an invite");
    }
}

async fn leave(room: &Room) {
    // Not the SDK's `leave`, which leaves the room's predecessors too.
    let request = || matrix_sdk::ruma::api::client::membership::leave_room::v3::Request::new(room.room_id().to_owned());
    let left = again(|| async { room.client().send(request()).await.map(drop).map_err(Trouble::from) });
    if let Err(trouble) = left.await {
        tracing::warn!(%trouble, "the room cannot be left");
    }
}

/// Repeats a request until it succeeds or fails for good.
pub(super) async fn again<T, F: Future<Output = Result<T, Trouble>>>(attempt: impl Fn() -> F) -> Result<T, Trouble> {
    let mut backoff = Backoff::new(PAUSE, LONGEST_PAUSE);
    for _ in 1..TRIES {
        match attempt().await {
            Err(Trouble::Away(_)) => time::sleep(backoff.next_pause()).await,
            Err(Trouble::Limited(wait)) => time::sleep(wait.max(backoff.next_pause())).await,
            ended => return ended,
        }
    }
    attempt().await
}
