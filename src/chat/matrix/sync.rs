//! Reads the account's stream: each answer of `/sync` is admitted to the journal together with its position, so that an
//! answer lost to a kill comes again whole, and one that comes twice does no harm.
//!
//! The SDK's own loops and handlers are not used: they store their position before anything is written down, and sleep
//! when answers come fast. Called by the adapter as a supervised task.

mod timeline;

use std::{
    collections::{HashMap, HashSet},
    mem,
    time::Duration,
};

use matrix_sdk::{
    Client, Room, RoomState,
    config::{SyncSettings, SyncToken},
    deserialized_responses::{TimelineEvent, TimelineEventKind, VerificationLevel, VerificationState},
    room::MessagesOptions,
    ruma::{OwnedRoomId, RoomId, UInt, api::client::sync::sync_events::v3::Filter, presence::PresenceState},
    store::{StateStoreDataKey, StateStoreDataValue},
    sync::{RoomUpdates, Timeline},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub(super) use self::timeline::filter;
use self::timeline::{News, joined_at};
use super::{
    Adapter,
    inbound::{self, Came, Place, Read},
    rooms,
    trouble::Trouble,
    verification,
};
use crate::{
    crash,
    hub::{Body, CODER, Inbound},
    ids::{EventId, RoomKey},
    store::{Address, StoreError},
};

/// How long the homeserver holds a request when there is nothing new.
const HOLD: Duration = Duration::from_secs(30);
/// Events that one page of a room's history brings, and pages that are read to fill a gap.
const PAGE: u32 = 250;
const PAGES: usize = 80;
/// The pause after a failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// Events without a key that are tried again together.
const LOCKED: usize = 100;
/// How long the key of an event may take before the room is told that it has not come.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why reading has ended.
#[derive(Debug)]
pub(super) enum End {
    /// The program ends.
    Cancelled,
    /// The homeserver has ended the session.
    LoggedOut {
        /// The device is still there.
        soft: bool,
    },
    /// The database failed.
    Store(StoreError),
}

/// Reads until the program ends or the session does.
pub(super) async fn run(adapter: &Adapter, client: &Client, cancel: &CancellationToken) -> End {
    let mut reader = match Reader::new(adapter, client).await {
        Ok(reader) => reader,
        Err(error) => return End::Store(error),
    };
    let mut pause = FIRST_PAUSE;
    // What was said of the trouble that lasts: each kind is said once, not with each try.
    let mut told = HashSet::new();
    loop {
        let begins = reader.first;
        let taken = tokio::select! {
            () = cancel.cancelled() => return End::Cancelled,
            taken = reader.next() => taken,
        };
        let wait = match &taken {
            Ok(()) => {
                if !told.is_empty() {
                    told.clear();
                    tracing::info!("messages are read again");
                } else if begins && !reader.first {
                    tracing::info!(rooms = reader.joined.len(), "messages are read");
                }
                if begins && !reader.first {
                    adapter.reachable(client).await;
                }
                pause = FIRST_PAUSE;
                continue;
            }
            Err(NotTaken::Trouble(Trouble::LoggedOut { soft })) => return End::LoggedOut { soft: *soft },
            Err(NotTaken::Trouble(Trouble::Limited(wait))) => pause.max(*wait),
            Err(_) => pause,
        };
        if let Err(trouble) = taken {
            if told.insert(trouble.kind()) {
                tracing::warn!(%trouble, "messages cannot be read now; it is tried again");
            } else {
                tracing::debug!(%trouble, "messages still cannot be read");
            }
        }
        // The next answer shall come at once, and invites and rooms be looked at again: who knows what was missed.
        reader.first = true;
        tokio::select! {
            () = cancel.cancelled() => return End::Cancelled,
            () = tokio::time::sleep(wait) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Why nothing was taken; it is tried again.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error(transparent)]
    Trouble(Trouble),
    #[error("the database cannot take them: {0}")]
    Store(StoreError),
}

impl NotTaken {
    /// What it is, whatever its words are: none is the database.
    fn kind(&self) -> Option<mem::Discriminant<Trouble>> {
        match self {
            Self::Trouble(trouble) => Some(mem::discriminant(trouble)),
            Self::Store(_) => None,
        }
    }
}

impl From<Trouble> for NotTaken {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<StoreError> for NotTaken {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// An answer of `/sync`.
struct Answer {
    next_batch: String,
    rooms: RoomUpdates,
    /// Keys may have come.
    keys: bool,
}

struct Reader<'a> {
    adapter: &'a Adapter,
    client: &'a Client,
    /// How far the stream was admitted.
    position: Option<String>,
    /// The rooms that the hub knows the bot to be in.
    joined: HashSet<OwnedRoomId>,
    /// An answer that could not be taken whole. The SDK hands out each one once, so it is kept, not asked for again.
    kept: Option<Answer>,
    /// The next answer is the first, or the first after some trouble: it comes at once, whatever is in it, and all rooms
    /// and invites are looked at.
    first: bool,
}

impl<'a> Reader<'a> {
    async fn new(adapter: &'a Adapter, client: &'a Client) -> Result<Self, StoreError> {
        let position = adapter.store.position(CODER).await?;
        let known = adapter.hub.rooms().await?;
        let joined = known.iter().filter_map(|room| room.as_str().try_into().ok()).collect();
        Ok(Self { adapter, client, position, joined, kept: None, first: true })
    }

    fn settings(&self) -> SyncSettings {
        let token = self.position.clone().map_or(SyncToken::NoToken, SyncToken::Specific);
        SyncSettings::new()
            .token(token)
            .timeout(if self.first { Duration::ZERO } else { HOLD })
            .filter(Filter::FilterDefinition(filter()))
            .set_presence(PresenceState::Online)
    }

    /// Takes the next answer, or the one that could not be taken before.
    async fn next(&mut self) -> Result<(), NotTaken> {
        let response = match self.kept.take() {
            Some(kept) => kept,
            None => self.ask().await?,
        };
        let taken = self.take(&response).await;
        if taken.is_err() {
            self.kept = Some(response);
        }
        taken
    }

    async fn ask(&self) -> Result<Answer, Trouble> {
        let mut updates = self.client.subscribe_to_all_room_updates();
        let error = match self.client.sync_once(self.settings()).await {
            Ok(response) => {
                let keys = !response.to_device.is_empty();
                verification::by_device(self.adapter, self.client, &response.to_device);
                return Ok(Answer { next_batch: response.next_batch, rooms: response.rooms, keys });
            }
            Err(error) => error,
        };
        // At an event without a type the SDK fails when it has taken the answer, which it hands out once only.
        let Ok(rooms) = updates.try_recv() else { return Err(error.into()) };
        let position = self.client.state_store().get_kv_data(StateStoreDataKey::SyncToken).await;
        let position = position.ok().flatten().and_then(StateStoreDataValue::into_sync_token);
        let Some(next_batch) = position else { return Err(error.into()) };
        tracing::warn!(%error, "the homeserver told of an event that is none; the others are read");
        Ok(Answer { next_batch, rooms, keys: true })
    }

    /// Takes an answer. Where it fails it may have taken a part: to take it again does no harm.
    async fn take(&mut self, response: &Answer) -> Result<(), NotTaken> {
        // What was said earlier comes first. Keys may also have come just before a kill.
        if self.first || response.keys {
            self.unlock().await?;
        }
        let mut events = Vec::new();
        let (mut changed, mut opened) = (Vec::new(), Vec::new());
        for (id, update) in &response.rooms.joined {
            let Some(room) = self.client.get_room(id) else { continue };
            // Before what is said there: a successor's first words belong to the conversation that it takes over.
            self.entered(&room).await?;
            let mut departed = false;
            // Of an account's past, read without a position, nothing is answered.
            if self.position.is_some() {
                let timeline = self.timeline(&room, &update.timeline).await?;
                verification::in_room(self.adapter, &room, &timeline);
                events.extend(self.read(&room, &timeline).await?);
                let news = News::of(&timeline, &self.adapter.people);
                departed = news.departed;
                if news.rights {
                    opened.push(RoomKey::from(id.as_str()));
                }
            }
            changed.push((room, departed));
        }
        let some = !events.is_empty();
        if some {
            crash::point("synced");
        }
        let (locked, readable): (Vec<_>, Vec<_>) = events.iter().partition(|it| matches!(it.body, Body::Locked { .. }));
        let places: HashMap<_, _> = readable.iter().map(|it| (it.event.clone(), it.room.clone())).collect();
        let locked: Vec<_> = locked.into_iter().map(locked_in).collect();
        let fresh = self.adapter.hub.admit(events, Some(response.next_batch.clone())).await?;
        if some {
            crash::point("admitted");
        }
        self.position = Some(response.next_batch.clone());
        let fresh = fresh.into_iter().filter_map(|event| Some((places.get(&event)?.clone(), event)));
        self.adapter.seen(self.client, fresh);

        if self.first {
            // Those of an answer that the SDK has taken, and a kill has kept from us.
            for room in self.client.joined_rooms() {
                self.entered(&room).await?;
                if !response.rooms.joined.contains_key(room.room_id()) {
                    changed.push((room, false));
                }
            }
            self.missed().await?;
        }
        for (room, departed) in changed {
            rooms::look(self.adapter, &room, departed);
        }
        for room in opened {
            self.adapter.hub.reachable(&Address { bot: CODER.into(), room }).await;
        }
        for id in response.rooms.left.keys() {
            self.left(id).await?;
        }
        // Invites that came while the program was down stand in the SDK's store only.
        let invited = if self.first {
            self.client.invited_rooms()
        } else {
            response.rooms.invited.keys().filter_map(|id| self.client.get_room(id)).collect()
        };
        for room in invited {
            rooms::invited(self.adapter, room);
        }
        let locked =
            if self.first { self.adapter.hub.locked(LOCKED).await?.iter().map(locked_in).collect() } else { locked };
        if !locked.is_empty() {
            self.adapter.spawn(wait_for_keys(self.adapter.clone(), locked));
        }
        self.first = false;
        Ok(())
    }

    /// Returns a room's events since the last answer, or since the bot came: what was said before is not said to it.
    async fn timeline(&self, room: &Room, timeline: &Timeline) -> Result<Vec<TimelineEvent>, Trouble> {
        let mut events = timeline.events.clone();
        let mut came = joined_at(&events, room);
        if timeline.limited && came.is_none() {
            events.splice(0..0, self.gap(room, timeline.prev_batch.clone()).await?);
            came = joined_at(&events, room);
        }
        Ok(events.split_off(came.map_or(0, |came| came + 1)))
    }

    /// Takes note of a room that the bot was not known to be in.
    async fn entered(&mut self, room: &Room) -> Result<(), StoreError> {
        if room.state() == RoomState::Joined && !self.joined.contains(room.room_id()) {
            rooms::entered(self.adapter, room).await?;
            self.joined.insert(room.room_id().to_owned());
        }
        Ok(())
    }

    /// Notes rooms that the bot has lost without having been told.
    async fn missed(&mut self) -> Result<(), StoreError> {
        let gone = |id: &&OwnedRoomId| self.client.get_room(id).is_none_or(|room| room.state() != RoomState::Joined);
        for id in self.joined.iter().filter(gone).cloned().collect::<Vec<_>>() {
            self.left(&id).await?;
        }
        Ok(())
    }

    async fn left(&mut self, id: &RoomId) -> Result<(), StoreError> {
        if self.joined.remove(id) {
            tracing::info!(room = %id, "the bot is no longer in this room");
            self.adapter.left(&RoomKey::from(id.as_str())).await?;
        }
        Ok(())
    }

    async fn read(&self, room: &Room, timeline: &[TimelineEvent]) -> Result<Vec<Inbound>, Trouble> {
        let Some(own) = self.client.user_id() else { return Ok(vec![]) };
        if timeline.is_empty() || !rooms::is_open(&self.adapter.people, room) {
            return Ok(vec![]);
        }
        // Asks the homeserver once a room, when the SDK does not know.
        let encrypted = match room.latest_encryption_state().await.map_err(Trouble::from) {
            Ok(state) => state.is_encrypted(),
            // It will never be known: nothing in the clear counts there.
            Err(Trouble::Lasting(_)) => true,
            Err(trouble) => return Err(trouble),
        };
        let key = RoomKey::from(room.room_id().as_str());
        let progress = self.adapter.progress_event(&key);
        let place = Place { room: &key, own, people: &self.adapter.people, encrypted, progress: progress.as_deref() };
        Ok(timeline.iter().filter_map(|event| read_one(place, event)).collect())
    }

    /// Fetches what lies between the last answer and the start of a timeline that was cut. Fails when trying again may
    /// help.
    async fn gap(&self, room: &Room, before: Option<String>) -> Result<Vec<TimelineEvent>, Trouble> {
        let mut events = Vec::new();
        let mut from = before;
        for _ in 0..PAGES {
            let mut page = MessagesOptions::backward().from(from.as_deref());
            page.limit = UInt::from(PAGE);
            page.to.clone_from(&self.position);
            match room.messages(page).await.map_err(Trouble::from) {
                Ok(page) => {
                    let more = !page.chunk.is_empty();
                    events.extend(page.chunk);
                    from = page.end.filter(|_| more);
                }
                Err(trouble @ Trouble::Lasting(_)) => {
                    tracing::warn!(room = %room.room_id(), %trouble, "a part of the room's history cannot be read");
                    from = None;
                }
                Err(trouble) => return Err(trouble),
            }
            if from.is_none() {
                break;
            }
        }
        if from.is_some() {
            tracing::warn!(room = %room.room_id(), read = events.len(), "more was said than is read: the oldest is left out");
        }
        events.reverse();
        Ok(events)
    }

    /// Tries again what could not be decrypted.
    async fn unlock(&self) -> Result<(), NotTaken> {
        for locked in self.adapter.hub.locked(LOCKED).await? {
            let Body::Locked { raw } = &locked.body else { continue };
            let Ok(id) = OwnedRoomId::try_from(locked.room.as_str()) else { continue };
            let (Some(room), Ok(raw)) = (self.client.get_room(&id), serde_json::value::to_raw_value(raw)) else {
                continue;
            };
            let event = matrix_sdk::ruma::serde::Raw::<
                matrix_sdk::ruma::events::room::encrypted::OriginalSyncRoomEncryptedEvent,
            >::from_json(raw);
            let Ok(event) = room.decrypt_event(&event, None).await else { continue };
            if !matches!(event.kind, TimelineEventKind::Decrypted(_)) {
                continue;
            }
            let body = self.read(&room, &[event]).await?.into_iter().next().map(|inbound| inbound.body);
            self.adapter.hub.unlocked(&locked.event, body).await?;
        }
        Ok(())
    }
}

/// Returns a locked event, and its thread, which is never encrypted.
fn locked_in(inbound: &Inbound) -> (EventId, Option<EventId>) {
    let thread = match &inbound.body {
        Body::Locked { raw } => inbound::thread(&raw["content"]),
        _ => None,
    };
    (inbound.event.clone(), thread)
}

/// Says of events whose key does not come that they cannot be read.
async fn wait_for_keys(adapter: Adapter, events: Vec<(EventId, Option<EventId>)>) {
    tokio::time::sleep(PATIENCE).await;
    for (event, thread) in events {
        if let Err(error) = adapter.hub.unreadable(&event, thread).await {
            tracing::warn!(%event, %error, "a message cannot be read, and that could not be said");
        }
    }
}

fn read_one(place: Place<'_>, event: &TimelineEvent) -> Option<Inbound> {
    let came = match &event.kind {
        // Somebody else's key, under the name of this one.
        TimelineEventKind::Decrypted(event) if is_forged(&event.encryption_info.verification_state) => return None,
        TimelineEventKind::Decrypted(_) => Came::Decrypted,
        TimelineEventKind::UnableToDecrypt { .. } => Came::Locked,
        TimelineEventKind::PlainText { .. } => Came::Plain,
    };
    let event: Value = serde_json::from_str(event.raw().json().get()).ok()?;
    inbound::read(place, &Read { event: &event, came })
}

fn is_forged(state: &VerificationState) -> bool {
    matches!(state, VerificationState::Unverified(VerificationLevel::MismatchedSender))
}
