//! Reads the account's stream: each answer of `/sync` is admitted to the journal together with its position. So an
//! answer that a kill interrupts comes again whole, and one that comes twice does no harm.
//!
//! The SDK's own loops and handlers are not used: they store their position before anything is written to the
//! journal, and sleep when answers come fast.

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
    future::pending,
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

/// How long the homeserver holds a request while there is nothing new.
const HOLD: Duration = Duration::from_secs(30);
/// The first pause after a failure, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// How long backing up new keys at the homeserver may take.
const BACKUP: Duration = Duration::from_mins(1);

/// Why reading ended.
#[derive(Debug)]
pub(super) enum End {
    /// The program ends.
    Cancelled,
    /// The homeserver has ended the session.
    LoggedOut {
        /// Whether the device still exists at the homeserver, so that only a new token is needed.
        soft: bool,
    },
    /// Nothing has come for too long, though the homeserver answers a request at least each half minute.
    Silent,
    /// The store failed.
    Store(StoreError),
}

/// Reads until the program or the session ends, or until no answer was taken for as long as `watchdog` says. `reads` is told
/// whether messages are read as they come.
pub(super) async fn run(
    adapter: &Adapter,
    session: &Session,
    watchdog: Option<Duration>,
    reads: &mut (dyn FnMut(bool) + Send),
    cancel: &CancellationToken,
) -> End {
    let mut reader = match Reader::new(adapter, session).await {
        Ok(reader) => reader,
        Err(error) => return End::Store(error),
    };
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    // The kinds of trouble that were logged and last: each is logged once, not at each try.
    let mut told = HashSet::new();
    loop {
        let begins = reader.first;
        let silent = async {
            match watchdog {
                Some(limit) => time::sleep(limit).await,
                None => pending().await,
            }
        };
        let taken = tokio::select! {
            () = cancel.cancelled() => return End::Cancelled,
            () = silent => return End::Silent,
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
                    reads(true);
                    adapter.reachable(&session.client).await;
                }
                backoff.reset();
                continue;
            }
            Err(NotTaken::Trouble(Trouble::LoggedOut { soft })) => return End::LoggedOut { soft: *soft },
            Err(NotTaken::Trouble(Trouble::Limited(wait))) => backoff.next_pause().max(*wait),
            Err(_) => backoff.next_pause(),
        };
        reads(false);
        if let Err(trouble) = taken {
            if told.insert(trouble.kind()) {
                tracing::warn!(%trouble, "messages cannot be read now; it is tried again");
            } else {
                tracing::debug!(%trouble, "messages still cannot be read");
            }
        }
        // After trouble the next answer is asked for at once, and all rooms and invites are checked, since something
        // may have been missed.
        reader.first = true;
        tokio::select! {
            () = cancel.cancelled() => return End::Cancelled,
            () = time::sleep(wait) => {}
        }
    }
}

/// Why an answer was not taken. It is taken again.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error(transparent)]
    Trouble(Trouble),
    #[error("the database cannot take them: {0}")]
    Store(StoreError),
}

impl NotTaken {
    /// Returns the kind of trouble; `None` stands for a failure of the store.
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

/// Returns whether an event is a message, which shows that its sender wants the bot in this room.
fn is_word(inbound: &Inbound) -> bool {
    matches!(inbound.body, Body::Said { .. } | Body::File { .. })
}

struct Reader<'a> {
    adapter: &'a Adapter,
    session: &'a Session,
    /// The position in the stream up to which everything was admitted.
    position: Option<String>,
    /// The rooms in which the hub knows the bot to be.
    joined: HashSet<OwnedRoomId>,
    /// An answer that could not be taken whole. The SDK returns each answer once, so it is kept here.
    kept: Option<Answer>,
    /// Whether the next answer is the first, or the first after trouble: it is asked for at once, and all rooms and
    /// invites are checked.
    first: bool,
    /// Whether it was logged that answers have malformed parts.
    mended: bool,
}

impl<'a> Reader<'a> {
    async fn new(adapter: &'a Adapter, session: &'a Session) -> Result<Self, StoreError> {
        let position = adapter.hub.position().await?;
        let known = adapter.hub.rooms().await?;
        let joined = known.iter().filter_map(|room| room.as_str().try_into().ok()).collect();
        // What the SDK knows to be encrypted counts from now on, also if a homeserver says something else later.
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
            // Aliases may lead to upgraded rooms now, so all rooms are checked again.
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
        self.adapter.line.hear(&answer.to_device);
        self.back_up();
        Ok(answer)
    }

    /// Backs up new room keys at the homeserver, from where a new device gets them if this one is lost.
    fn back_up(&self) {
        let encryption = self.session.client.encryption();
        self.adapter.spawn(async move {
            let copied = time::timeout(BACKUP, encryption.backups().wait_for_steady_state().into_future()).await;
            if !matches!(copied, Ok(Ok(()))) {
                tracing::debug!("new keys could not be copied to the homeserver; it is tried again");
            }
        });
    }

    /// Processes an answer. If that fails it may be partly done; processing it again does no harm.
    async fn process(&mut self, response: &Answer) -> Result<(), NotTaken> {
        // Earlier messages come first. Their keys may also have come just before a kill.
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
            rooms::named(self.adapter, &room);
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
            // The SDK took rooms from an answer that a kill has kept from the hub.
            for room in self.session.client.joined_rooms() {
                self.entered(&room).await?;
                rooms::named(self.adapter, &room);
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
        // Invites that came while the program was down are only in the SDK's store.
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

    /// Returns what an answer tells the hub about a room, and what else is new there.
    async fn read_room(
        &mut self,
        room: &Room,
        response: &Answer,
        timeline: &Timeline,
    ) -> Result<(Vec<Inbound>, News), NotTaken> {
        // Called before the room's messages are read: what an upgraded room takes over must be in place for its first
        // message.
        self.entered(room).await?;
        rooms::note_encrypted(self.adapter, room).await?;
        // A sync without a position returns the account's past, of which nothing is answered.
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

    /// Waits for the keys of these events, or for their devices to be signed.
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

    /// Returns a room's events since the last answer, or since the bot joined, and whether they are complete. Earlier
    /// ones were not addressed to the bot.
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

    /// Notes that the bot is in a room in which it was not known to be.
    async fn entered(&mut self, room: &Room) -> Result<(), StoreError> {
        if room.state() == RoomState::Joined && !self.joined.contains(room.room_id()) {
            rooms::entered(self.adapter, room).await?;
            self.joined.insert(room.room_id().to_owned());
        }
        Ok(())
    }

    /// Notes rooms that the bot has lost without an event.
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
