//! Makes rooms: each once, found again by an alias that holds its key.

use std::time::Duration;

use matrix_sdk::{
    Client, HttpError, RoomState,
    ruma::{
        OwnedRoomAliasId, OwnedUserId, RoomAliasId, UserId,
        api::{
            client::room::create_room::v3::{Request, RoomPreset},
            error::ErrorKind,
        },
        events::{EmptyStateKey, InitialStateEvent, room::encryption::RoomEncryptionEventContent},
    },
};
use tokio::time;

use super::{Adapter, trouble::Trouble};
use crate::{
    backoff::Backoff,
    hub::{MakeRoom, NotMade},
    ids::RoomKey,
};

/// Begins the name of the alias.
const ALIAS: &str = "matrix-agent-";
/// Attempts while the homeserver is away, and the pauses between.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Makes a room, or finds it where it was made before.
pub(super) async fn make(adapter: Adapter, wanted: MakeRoom) {
    let mut pauses = Backoff::new(PAUSE, LONGEST_PAUSE);
    let mut made = Err(NotMade::Away);
    for tried in 0..TRIES {
        if tried > 0 {
            time::sleep(pauses.next_pause()).await;
        }
        let Some(client) = adapter.client() else { continue };
        made = make_once(&client, &wanted).await;
        if made != Err(NotMade::Away) {
            break;
        }
    }
    if let Ok(room) = &made
        && let Err(error) = adapter.hub.note_encrypted(room).await
    {
        tracing::error!(%error, "that a room is encrypted could not be noted");
        made = Err(NotMade::Away);
    }
    let _ = wanted.done.send(made);
}

async fn make_once(client: &Client, wanted: &MakeRoom) -> Result<RoomKey, NotMade> {
    let Some(server) = client.user_id().map(UserId::server_name) else { return Err(NotMade::Away) };
    let local = format!("{ALIAS}{}", wanted.key);
    let alias: OwnedRoomAliasId = RoomAliasId::parse(format!("#{local}:{server}"))
        .map_err(|error| NotMade::Refused(format!("its alias is none: {error}")))?;
    // The room of an attempt whose answer did not come.
    match client.resolve_room_alias(&alias).await {
        Ok(found) => return here(client, &found.room_id),
        Err(error) if HttpError::client_api_error_kind(&error) == Some(&ErrorKind::NotFound) => {}
        Err(error) => return Err(not_made(error.into())),
    }
    let mut request = Request::new();
    request.name = Some(wanted.name.clone());
    request.room_alias_name = Some(local);
    request.preset = Some(RoomPreset::PrivateChat);
    request.invite = wanted.people.iter().filter_map(|person| OwnedUserId::try_from(person.as_str()).ok()).collect();
    let encrypted = RoomEncryptionEventContent::with_recommended_defaults();
    request.initial_state = vec![InitialStateEvent::new(EmptyStateKey, encrypted).to_raw_any()];
    match client.create_room(request).await {
        Ok(room) => {
            tracing::info!(room = %room.room_id(), name = wanted.name, "a room is made");
            Ok(RoomKey::from(room.room_id().as_str()))
        }
        Err(error) => Err(not_made(error)),
    }
}

/// Returns a room of ours; somebody else may have taken the alias.
fn here(client: &Client, room: &matrix_sdk::ruma::RoomId) -> Result<RoomKey, NotMade> {
    match client.get_room(room).map(|room| room.state()) {
        Some(RoomState::Joined) => Ok(RoomKey::from(room.as_str())),
        // It comes with the next answer of `/sync`, if it is ours.
        _ => Err(NotMade::Away),
    }
}

fn not_made(error: matrix_sdk::Error) -> NotMade {
    match Trouble::from(error) {
        Trouble::Lasting(why) => NotMade::Refused(why),
        _ => NotMade::Away,
    }
}
