//! The bot's own comings and goings: invites, greetings, rooms that are empty or have a successor.
//!
//! Requests that may take long are tasks of their own, so that they hold up nobody's messages. Called by the reader.

use std::time::Duration;

use matrix_sdk::{
    Client, Room, RoomMemberships, RoomState,
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

/// Tries to join or leave a room, the pause after the first of them, and the longest.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// Servers that are asked for a room's successor.
const SERVERS: usize = 5;
/// Upgrades of a room one after the other that are made up for at once.
const UPGRADES: usize = 8;

/// Joins the room if a listed user has invited the bot, else declines.
pub(super) fn invited(adapter: &Adapter, room: Room) {
    let (adapter, spawning, span) = (adapter.clone(), adapter, adapter.span(room.room_id()));
    let joining = async move {
        let inviter = match room.invite_details().await {
            Ok(invite) => invite.inviter_id,
            // Answered already.
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

/// Takes note of a room that the bot is in now, and greets it once.
pub(super) async fn entered(adapter: &Adapter, room: &Room) -> Result<(), StoreError> {
    let key = RoomKey::from(room.room_id().as_str());
    let own = match room.get_member_no_sync(room.own_user_id()).await {
        Ok(Some(member)) => member.event().event_id().map(|id| EventId::from(id.as_str())),
        Ok(None) | Err(_) => None,
    };
    note_encrypted(adapter, room).await?;
    // Whoever has invited the bot here wants it here, with all that belongs to it. But a homeserver can make up an invite,
    // which is never encrypted: into an encrypted room only a word of theirs takes anything along.
    if adapter.asked().remove(room.room_id()) && !adapter.hub.is_encrypted(&key) {
        take_along(adapter, room).await?;
    }
    // Without its own event the room's id will do: it is greeted at the first join only.
    let joined = own.unwrap_or_else(|| EventId::from(room.room_id().as_str()));
    adapter.hub.joined(&key, &joined, adapter.opens(room.room_id())).await
}

/// Takes note of a room that is encrypted: it is from now on, whatever the homeserver says.
pub(super) async fn note_encrypted(adapter: &Adapter, room: &Room) -> Result<(), StoreError> {
    let key = RoomKey::from(room.room_id().as_str());
    if !adapter.hub.is_encrypted(&key) && is_encrypted(room).await {
        adapter.hub.note_encrypted(&key).await?;
    }
    Ok(())
}

/// Returns whether a room is encrypted, as far as the homeserver says so. It is asked once a room.
async fn is_encrypted(room: &Room) -> bool {
    let state = room.latest_encryption_state().await;
    state.unwrap_or_else(|_| room.encryption_state()).is_encrypted()
}

/// Lets an upgraded room take over what the room before it has. Called once a listed person has asked for it: by a word in
/// the new room, or by an invite to one that is not encrypted. Both rooms must name each other, so that it was an upgrade by who may do that; but anybody
/// who may do that is not enough, nor is the homeserver.
pub(super) async fn take_along(adapter: &Adapter, room: &Room) -> Result<(), StoreError> {
    if !adapter.opens(room.room_id()) {
        return Ok(());
    }
    // One that was upgraded again before anybody spoke in it stands between.
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

/// Returns the room that a room has replaced, if both say so.
fn predecessor(room: &Room) -> Option<Room> {
    let before = room.client().get_room(&room.predecessor_room()?.room_id)?;
    before.successor_room().is_some_and(|next| next.room_id == *room.room_id()).then_some(before)
}

/// Leaves a room in which nobody is whom the bot serves, and follows where a room has a successor. `departed`: somebody whom it serves has just gone.
pub(super) fn leave_or_follow(adapter: &Adapter, room: &Room, departed: bool) {
    let successor = room.successor_room().map(|next| next.room_id).filter(|next| adapter.opens(next));
    // In the successor already, the bot needs the old room no more than its people do.
    let successor = successor.filter(|next| !is_in(&room.client(), next));
    let alone = room.joined_members_count() == 1;
    if successor.is_none() && !alone && !departed {
        return;
    }
    let (room, adapter, spawning, span) = (room.clone(), adapter.clone(), adapter, adapter.span(room.room_id()));
    let looking = async move {
        match successor {
            None if alone || unserved(&adapter, &room).await => {
                tracing::info!("nobody whom the bot serves is left in the room; it leaves");
                leave(&room).await;
            }
            None => {}
            Some(next) => follow(&room, next).await,
        }
    };
    spawning.spawn(looking.instrument(span));
}

/// Returns whether no listed user is in the room; not when that is not known.
async fn unserved(adapter: &Adapter, room: &Room) -> bool {
    let members = again(|| async { room.members(RoomMemberships::JOIN).await.map_err(Trouble::from) });
    match members.await {
        Ok(members) => {
            // A pattern may list the bot, too.
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

/// Joins a room's successor. Where that needs an invite, the invite will do it.
async fn follow(room: &Room, next: OwnedRoomId) {
    let client = room.client();
    // The servers that may know it: the old room's, and everybody's in it that we know without asking.
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
    // Not the SDK's own `leave`, which leaves the room's predecessors too.
    let request = || matrix_sdk::ruma::api::client::membership::leave_room::v3::Request::new(room.room_id().to_owned());
    let left = again(|| async { room.client().send(request()).await.map(drop).map_err(Trouble::from) });
    if let Err(trouble) = left.await {
        tracing::warn!(%trouble, "the room cannot be left");
    }
}

/// Tries until it works, or would not work however often it is tried.
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
