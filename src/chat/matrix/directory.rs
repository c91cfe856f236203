//! Which rooms the aliases in `ALLOWED_ROOMS` mean.
//!
//! A room can claim any alias, so it is not asked: an alias means the room to which the directory of the alias's own
//! server leads. The directory is asked at the start, every ten minutes, and before an invite is declined; while it
//! does not answer, its last answer counts.
//! kept for as long as it does not answer.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use matrix_sdk::{
    Client, HttpError, Room,
    ruma::{OwnedRoomAliasId, OwnedRoomId, RoomId, api::error::ErrorKind},
};
use tokio::time::{self, Instant};

use super::Adapter;
use crate::{bots::note_of_alias, ids::RoomKey};

/// How long an answer counts before the directory is asked again.
const HOLDS: Duration = Duration::from_mins(10);
/// How long the directory may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// The last answers of the directory.
#[derive(Debug, Default)]
pub(super) struct Directory {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    rooms: HashMap<String, OwnedRoomId>,
    asked: Option<Instant>,
}

impl Directory {
    fn known<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        work(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Adapter {
    /// Returns whether the bot may work in a room, by the answers at hand.
    pub(super) fn opens(&self, room: &RoomId) -> bool {
        // What the bot has made itself for a task needs no place in the list.
        self.hub.is_for_task(&RoomKey::from(room.as_str()))
            || self.directory.known(|known| {
                let named: Vec<_> = known.rooms.values().map(|id| id.as_str()).collect();
                self.hub.policies().opens(room.as_str(), &named)
            })
    }

    /// The same, but asks the directory first if the answers at hand do not allow the room.
    pub(super) async fn opens_now(&self, room: &Room) -> bool {
        if !self.opens(room.room_id()) && self.hub.policies().aliases().next().is_some() {
            self.look_up(&room.client()).await;
        }
        self.opens(room.room_id())
    }

    /// Asks the directory again if its answers are old; returns whether they have changed.
    pub(super) async fn look_up_if_old(&self, client: &Client) -> bool {
        let old = self.directory.known(|known| known.asked.is_none_or(|asked| asked.elapsed() >= HOLDS));
        old && self.look_up(client).await
    }

    async fn look_up(&self, client: &Client) -> bool {
        let before = self.directory.known(|known| {
            known.asked = Some(Instant::now());
            known.rooms.clone()
        });
        for alias in self.hub.policies().aliases() {
            let note = note_of_alias(alias);
            let found = match resolve(client, alias).await {
                Found::Room(room) => {
                    if let Err(error) = self.hub.note(&note, room.as_str()).await {
                        tracing::warn!(alias, %error, "where an alias leads could not be noted");
                    }
                    Some(room)
                }
                Found::Nothing => {
                    if before.contains_key(alias) {
                        tracing::warn!(alias, "ALLOWED_ROOMS names an alias that leads nowhere any more");
                    }
                    let _ = self.hub.forget_note(&note).await;
                    None
                }
                Found::Silence => match before.get(alias) {
                    Some(room) => Some(room.clone()),
                    None => self.hub.noted(&note).await.ok().flatten().and_then(|room| room.try_into().ok()),
                },
            };
            self.directory.known(|known| match found {
                Some(room) => known.rooms.insert(alias.to_owned(), room),
                None => known.rooms.remove(alias),
            });
        }
        self.directory.known(|known| known.rooms != before)
    }
}

/// What the directory says about an alias.
enum Found {
    Room(OwnedRoomId),
    Nothing,
    /// It did not answer.
    Silence,
}

async fn resolve(client: &Client, alias: &str) -> Found {
    let Ok(id) = OwnedRoomAliasId::try_from(alias) else { return Found::Nothing };
    match time::timeout(LIMIT, client.resolve_room_alias(&id)).await {
        Ok(Ok(answer)) => Found::Room(answer.room_id),
        Ok(Err(error)) if HttpError::client_api_error_kind(&error) == Some(&ErrorKind::NotFound) => Found::Nothing,
        Ok(Err(error)) => {
            tracing::debug!(alias, %error, "an alias cannot be looked up now");
            Found::Silence
        }
        Err(_) => Found::Silence,
    }
}
