//! Reads the account's stream: each answer of `/sync` is admitted to the journal together with its position, so that an
//! answer lost to a kill comes again whole, and one that comes twice does no harm.
//!
//! The SDK's own loops and handlers are not used: they store their position before anything is written down, and sleep
//! when answers come fast. Called by the adapter as a supervised task.

mod answer;
mod deadline;
mod history;
mod lenient;
mod locked;
mod outgoing;
mod reading;
mod retry;
mod sealed;
mod timeline;
mod unsigned;

use std::{
    collections::{HashMap, HashSet},
    mem,
    time::Duration,
};

use matrix_sdk::{
    Room, RoomState,
    deserialized_responses::TimelineEvent,
    ruma::{
        OwnedRoomId, RoomId,
        api::client::sync::sync_events::v3::{Filter, Request},
    },
    sync::Timeline,
};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub(super) use self::{answer::Answer, timeline::filter, unsigned::Unsigned};
use self::{
    history::{Gap, HistoryEvent},
    locked::{locked_in, wait_for_keys},
    timeline::{News, joined_at},
};
use super::{Adapter, connected::Session, rooms, trouble::Trouble, verification};
use crate::{
    backoff::Backoff,
    crash,
    hub::{Body, Inbound},
    ids::RoomKey,
    store::StoreError,
};

/// How long the homeserver holds a request when there is nothing new.
const HOLD: Duration = Duration::from_secs(30);
/// The first pause after a failure, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// How long a copy of new keys may take on its way to the homeserver.
const BACKUP: Duration = Duration::from_mins(1);

/// Why reading has ended.
#[derive(Debug)]
pub(super) enum End {
    /// The program ends.
    Cancelled,
    /// The homeserver has ended the session.
    LoggedOut {
        /// Whether the device still exists at the homeserver, so that only a new token is needed.
        soft: bool,
    },
    /// The database failed.
    Store(StoreError),
}

/// Reads until the program ends or the session does.
pub(super) async fn run(adapter: &Adapter, session: &Session, cancel: &CancellationToken) -> End {
    let mut reader = match Reader::new(adapter, session).await {
        Ok(reader) => reader,
        Err(error) => return End::Store(error),
    };
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
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
                    adapter.reachable(&session.client).await;
                }
                backoff.reset();
                continue;
            }
            Err(NotTaken::Trouble(Trouble::LoggedOut { soft })) => return End::LoggedOut { soft: *soft },
            Err(NotTaken::Trouble(Trouble::Limited(wait))) => backoff.next_pause().max(*wait),
            Err(_) => backoff.next_pause(),
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
            () = time::sleep(wait) => {}
        }
    }
}

/// Why an answer was not taken. It is tried again.
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

/// Returns whether somebody has said something, and so wants the bot where they have.
fn is_word(inbound: &Inbound) -> bool {
    matches!(inbound.body, Body::Said { .. } | Body::File { .. })
}

struct Reader<'a> {
    adapter: &'a Adapter,
    session: &'a Session,
    /// The position in the stream up to which everything was admitted to the journal.
    position: Option<String>,
    /// The rooms that the hub knows the bot to be in.
    joined: HashSet<OwnedRoomId>,
    /// An answer that could not be taken whole. The SDK hands out each one once, so it is kept, not asked for again.
    kept: Option<Answer>,
    /// The next answer is the first, or the first after some trouble: it comes at once, whatever is in it, and all rooms
    /// and invites are looked at.
    first: bool,
    /// Whether it was logged that answers have malformed parts.
    mended: bool,
}

impl<'a> Reader<'a> {
    async fn new(adapter: &'a Adapter, session: &'a Session) -> Result<Self, StoreError> {
        let position = adapter.hub.position().await?;
        let known = adapter.hub.rooms().await?;
        let joined = known.iter().filter_map(|room| room.as_str().try_into().ok()).collect();
        // What the SDK knows of rooms holds from now on, also where a homeserver will say something else.
        for room in session.rooms().into_iter().filter(|room| room.encryption_state().is_encrypted()) {
            rooms::note_encrypted(adapter, &room).await?;
        }
        Ok(Self { adapter, session, position, joined, kept: None, first: true, mended: false })
    }

    /// Takes the next answer, or the one that could not be taken before.
    async fn next(&mut self) -> Result<(), NotTaken> {
        let response = match self.kept.take() {
            Some(kept) => kept,
            None => self.ask().await?,
        };
        let taken = self.process(&response).await;
        if taken.is_err() {
            self.kept = Some(response);
        }
        taken
    }

    async fn ask(&mut self) -> Result<Answer, Trouble> {
        if self.adapter.look_up_if_old(&self.session.client).await {
            // Upgraded rooms may be open now.
            self.first = true;
        }
        let hold = if self.first { Duration::ZERO } else { HOLD };
        let mut request = Request::new();
        request.filter = Some(Filter::FilterDefinition(filter()));
        request.since.clone_from(&self.position);
        let answer = Answer::ask(self.session, request, hold).await?;
        if answer.mended && !mem::replace(&mut self.mended, true) {
            tracing::warn!("parts of the homeserver's answer are malformed; they are left out, and the rest is read");
        }
        verification::by_device(self.adapter, &self.session.client, &answer.to_device);
        self.back_up();
        Ok(answer)
    }

    /// Uploads new room keys to the backup on the homeserver, from which a new device is given them should this one be lost.
    fn back_up(&self) {
        let encryption = self.session.client.encryption();
        self.adapter.spawn(async move {
            let copied = time::timeout(BACKUP, encryption.backups().wait_for_steady_state().into_future()).await;
            if !matches!(copied, Ok(Ok(()))) {
                tracing::debug!("new keys could not be copied to the homeserver; it is tried again");
            }
        });
    }

    /// Processes an answer. Where that fails, a part of it may be done: to process it again does no harm.
    async fn process(&mut self, response: &Answer) -> Result<(), NotTaken> {
        // What was said earlier comes first. Keys may also have come just before a kill.
        if self.first || !response.to_device.is_empty() {
            locked::unlock(self.adapter, &self.session.client).await?;
        }
        let mut events = Vec::new();
        let (mut changed, mut opened) = (Vec::new(), Vec::new());
        for (id, update) in &response.rooms.joined {
            let Some(room) = self.session.client.get_room(id) else { continue };
            let span = self.adapter.span(id);
            let (read, news) = self.read_room(&room, response, &update.timeline).instrument(span).await?;
            events.extend(read);
            if news.rights {
                opened.push(RoomKey::from(id.as_str()));
            }
            changed.push((room, news.departed));
        }
        let some = !events.is_empty();
        if some {
            crash::point("synced");
        }
        let (locked, readable): (Vec<_>, Vec<_>) =
            events.iter().cloned().partition(|it| matches!(it.body, Body::Locked { .. }));
        let places: HashMap<_, _> = readable.into_iter().map(|it| (it.event, it.room)).collect();
        let fresh = self.adapter.hub.admit(events, Some(response.next_batch.clone())).await?;
        if some {
            crash::point("admitted");
        }
        self.position = Some(response.next_batch.clone());
        let fresh = fresh.into_iter().filter_map(|event| Some((places.get(&event)?.clone(), event)));
        self.adapter.seen(&self.session.client, fresh);

        if self.first {
            // Those of an answer that the SDK has taken, and a kill has kept from us.
            for room in self.session.client.joined_rooms() {
                self.entered(&room).await?;
                if !response.rooms.joined.contains_key(room.room_id()) {
                    changed.push((room, false));
                }
            }
            self.missed().await?;
        }
        for (room, departed) in changed {
            rooms::leave_or_follow(self.adapter, &room, departed);
        }
        for room in opened {
            self.adapter.hub.reachable(&room).await;
        }
        for id in response.rooms.left.keys() {
            self.left(id).await?;
        }
        // Invites that came while the program was down are known from the SDK's store only.
        let invited = if self.first {
            self.session.client.invited_rooms()
        } else {
            response.rooms.invited.keys().filter_map(|id| self.session.client.get_room(id)).collect()
        };
        for room in invited {
            rooms::invited(self.adapter, room);
        }
        let locked = if self.first { self.adapter.hub.locked().await? } else { locked };
        self.wait_for(locked);
        self.first = false;
        Ok(())
    }

    /// Returns what an answer says of a room that is for the hub, and what is new there besides.
    async fn read_room(
        &mut self,
        room: &Room,
        response: &Answer,
        timeline: &Timeline,
    ) -> Result<(Vec<Inbound>, News), NotTaken> {
        // Before what is said there, and so is what an upgraded room takes over: its first words belong to that.
        self.entered(room).await?;
        rooms::note_encrypted(self.adapter, room).await?;
        // Of an account's past, read without a position, nothing is answered.
        if self.position.is_none() {
            return Ok((Vec::new(), News::default()));
        }
        let (timeline, whole) = self.timeline(room, response, timeline).await?;
        if !whole && self.adapter.opens(room.room_id()) {
            self.adapter.hub.tell_gap(&RoomKey::from(room.room_id().as_str()), &response.next_batch).await?;
        }
        verification::in_room(self.adapter, room, timeline.iter().map(|told| &told.event));
        let read = reading::read(self.adapter, room, &timeline).await?;
        if read.iter().any(is_word) {
            rooms::take_along(self.adapter, room).await?;
        }
        Ok((read, News::of(&timeline, self.adapter.hub.policies())))
    }

    /// Waits for what it takes to read these: their keys, or somebody who vouches for their devices.
    fn wait_for(&self, locked: Vec<Inbound>) {
        let is_unsigned = |it: &Inbound| matches!(it.body, Body::Locked { until: Some(_), .. });
        let (unsigned, keyless): (Vec<_>, Vec<_>) = locked.into_iter().partition(is_unsigned);
        for message in unsigned {
            unsigned::vouch(self.adapter, &self.session.client, message);
        }
        if !keyless.is_empty() {
            let keyless = keyless.iter().map(locked_in).collect();
            self.adapter.spawn(wait_for_keys(self.adapter.clone(), keyless));
        }
    }

    /// Returns a room's events since the last answer, or since the bot came, for what was said before is not said to it; and
    /// whether these are all.
    async fn timeline(
        &self,
        room: &Room,
        answer: &Answer,
        timeline: &Timeline,
    ) -> Result<(Vec<HistoryEvent>, bool), Trouble> {
        let told = |event: &TimelineEvent| HistoryEvent { event: event.clone(), sealed: answer.sealed(event) };
        let mut events: Vec<_> = timeline.events.iter().map(told).collect();
        let mut came = joined_at(&events, room);
        let mut whole = true;
        if timeline.limited && came.is_none() {
            let gap = Gap::read(room, timeline.prev_batch.clone(), self.position.as_deref()).await?;
            events.splice(0..0, gap.events);
            came = joined_at(&events, room);
            whole = gap.whole || came.is_some();
        }
        Ok((events.split_off(came.map_or(0, |came| came + 1)), whole))
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
        let gone =
            |id: &&OwnedRoomId| self.session.client.get_room(id).is_none_or(|room| room.state() != RoomState::Joined);
        for id in self.joined.iter().filter(gone).cloned().collect::<Vec<_>>() {
            self.left(&id).await?;
        }
        Ok(())
    }

    async fn left(&mut self, id: &RoomId) -> Result<(), StoreError> {
        if !self.joined.remove(id) {
            return Ok(());
        }
        let leaving = async {
            tracing::info!("the bot is no longer in this room");
            self.adapter.left(&RoomKey::from(id.as_str())).await
        };
        leaving.instrument(self.adapter.span(id)).await
    }
}
