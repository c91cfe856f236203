//! The hub: an account's journal, one actor for each of its rooms, and its outbox. Everything durable about messages
//! passes here.
//!
//! An [`AccountHub`] serves one account: an identity at a chat protocol, such as a Matrix login, with its own
//! journal, sync position and outbox. An inbound event is written to the journal before anything acts on it; the
//! room's actor claims it, one of the account's bots works on it, and the answer goes out through the outbox. The
//! [`Keeper`] does what concerns all accounts at once. `chat/` calls the hub, which knows no protocol: it hands out
//! [`Delivery`], [`Fetch`] and [`LiveIn`].

mod accounts;
mod became;
mod bots;
mod cards;
mod homes;
mod keeper;
mod lately;
mod message;
mod names;
mod notes;
mod outbox;
mod port;
mod replays;
mod room;
mod rooms;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Mutex as Lock, Notify, broadcast};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, Span};

pub(crate) use accounts::Accounts;
pub(crate) use became::{Became, Part};
pub use keeper::{Keeper, Retention};
pub use lately::Heard;
pub(crate) use message::{
    Author, Fetch, FetchFile, FetchQuote, LiveIn, MakeRoom, NotFetched, NotMade, NotQuoted, Quoted,
};
pub use message::{Body, CardPlace, Inbound, Live, Outbound};
pub(crate) use outbox::Outbox;
pub(crate) use port::Undelivered;
pub use port::{Delivery, Features, Inbox, Port, Rooms, Sent};

pub use crate::bots::Ending;
use crate::{
    bots::{Bot, Policies},
    crash,
    ids::{self, Address, EventId, RoomKey, TurnId},
    metrics,
    rights::Rights,
    store::{LockedInbound, NewInbound, NewOutbox, Sealed, Store, StoreError},
    strings,
};
use bots::Bots;
use homes::Homes;
use names::RoomNames;
use port::Ports;
use replays::Replays;
use room::Mailbox;

/// At most so many locked events are tried again together.
const LOCKED: usize = 1000;
/// Live events that one watcher may have unread; a slower watcher loses the oldest.
const WATCHED: usize = 1024;

/// One account's hub. Cheap to clone.
#[derive(Clone)]
pub struct AccountHub {
    inner: Arc<Inner>,
}

struct Inner {
    /// The account's name (`coder` for the first account), stored in every row that belongs to it.
    account: String,
    store: Store,
    bots: Bots,
    policies: Policies,
    ports: Ports,
    outbox: Outbox,
    /// Broadcasts progress and notices to whoever watches now.
    live: broadcast::Sender<LiveIn>,
    /// Maps each upgraded room to the room whose sandbox and conversation it uses.
    homes: Arc<Homes>,
    /// What people call its rooms.
    names: RoomNames,
    /// Decides which sandboxes stay, for all accounts.
    keeper: Keeper,
    /// Asks people what may be done; `None` where nobody asks.
    rights: Option<Rights>,
    /// The running actors, each with the mailbox through which it is woken.
    actors: Mutex<HashMap<Address, Arc<Mailbox>>>,
    /// Held while a left room's sandbox is removed, so that nobody rejoins the room in between.
    leaving: Lock<()>,
    /// Counts messages that a homeserver sent again under another event id.
    replays: Replays,
    /// Wakes the sweep of rooms that were left.
    sweep: Notify,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// What an account consists of.
pub struct Account {
    /// Its name, which must not change: every row that belongs to the account stores it.
    pub name: String,
    /// The bots, in the order in which they are asked whether they want a message.
    pub bots: Vec<Arc<dyn Bot>>,
    /// The protocols through which people reach the account.
    pub ports: Vec<Port>,
    /// Asks people what may be done; `None` where nobody asks.
    pub rights: Option<Rights>,
}

impl AccountHub {
    /// Starts the hub and resumes what an earlier process left: open turns, waiting events, unsent answers.
    pub async fn start(
        account: Account,
        store: Store,
        keeper: Keeper,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> Result<Self, StoreError> {
        let Account { name: account, bots, ports, rights } = account;
        for bot in &bots {
            metrics::serves(bot.name().as_str(), Ending::ALL.map(Ending::as_str));
        }
        let homes = Arc::new(Homes::load(store.homes(&account).await?, keeper.encrypted()));
        let ports = Ports::new(ports);
        let (outbox, delivering) = Outbox::start(store.clone(), homes.clone(), ports.clone(), cancel.clone());
        tasks.spawn(delivering);
        let inner = Inner {
            account,
            store,
            policies: Policies::new(bots.iter().map(|bot| bot.policy().clone())),
            bots: Bots::new(bots),
            ports,
            outbox,
            live: broadcast::Sender::new(WATCHED),
            homes,
            names: RoomNames::default(),
            keeper,
            rights,
            actors: Mutex::default(),
            leaving: Lock::default(),
            replays: Replays::default(),
            sweep: Notify::new(),
            tasks,
            cancel,
        };
        let hub = Self { inner: Arc::new(inner) };
        hub.inner.keeper.accounts().add(&hub);
        hub.inner.tasks.spawn(hub.clone().sweep().instrument(hub.span()));
        if let Some(rights) = &hub.inner.rights {
            // Before a turn is resumed, which may ask again.
            rights.attach(hub.account(), hub.board()).await?;
        }
        for address in hub.inner.store.rooms_with_unsent(hub.account()).await? {
            hub.inner.outbox.wake(&address).await;
        }
        for address in hub.inner.store.rooms_with_work(hub.account()).await? {
            hub.wake(&address);
        }
        Ok(hub)
    }

    /// Returns the account's name.
    pub fn account(&self) -> &str {
        &self.inner.account
    }

    /// Returns the log span of the account's work that belongs to none of its rooms.
    pub(crate) fn span(&self) -> Span {
        ids::span_of_account(self.account())
    }

    /// Returns a room of this account.
    pub fn address(&self, room: RoomKey) -> Address {
        Address { account: self.inner.account.clone(), room }
    }

    /// Returns whom the account's bots hear, and where.
    pub fn policies(&self) -> &Policies {
        &self.inner.policies
    }

    /// Returns a receiver of the live events of all the account's rooms from now on. A receiver that lags behind
    /// loses the oldest ([`broadcast::error::RecvError::Lagged`]).
    pub fn watch(&self) -> broadcast::Receiver<LiveIn> {
        self.inner.live.subscribe()
    }

    /// Writes events to the journal together with the protocol's sync position, and wakes the rooms in which
    /// something new was said. Returns the ids that were new. Once this has returned, the events are answered even if
    /// the process dies.
    pub async fn admit(&self, events: Vec<Inbound>, position: Option<String>) -> Result<Vec<EventId>, StoreError> {
        crash::point("received");
        let (mut new, mut locked) = (Vec::with_capacity(events.len()), Vec::new());
        let mut rooms = HashMap::new();
        let sealed = events.iter().filter_map(|event| Some((event.event.clone(), event.sealed.clone()?))).collect();
        let replayed = self.replayed(sealed).await?;
        for event in events.into_iter().filter(|event| !replayed.contains(&event.event)) {
            let body = to_json(&event.body)?;
            if let Body::Locked { .. } = event.body {
                // Stored under the room itself, not its home: the key is looked up by the room.
                locked.push(LockedInbound { room: event.room, event: event.event, sender: event.sender, body });
            } else {
                let room = self.inner.homes.home(&event.room);
                rooms.insert(event.event.clone(), room.clone());
                new.push(journaled(room, event.event, event.sender, &event.body, body));
            }
        }
        let fresh = self.inner.store.admit(self.account(), new, locked, position).await?;
        crash::point("journaled");
        let woken: HashSet<_> = fresh.iter().filter_map(|event| rooms.remove(event)).collect();
        for room in woken {
            self.wake(&self.address(room));
        }
        Ok(fresh)
    }

    /// Returns the newest events admitted as [`Body::Locked`] whose key has not come, oldest first.
    pub async fn locked(&self) -> Result<Vec<Inbound>, StoreError> {
        let rows = self.inner.store.locked(self.account(), LOCKED).await?;
        rows.into_iter()
            .map(|row| {
                let body = serde_json::from_value(row.body)?;
                Ok(Inbound { room: row.room, event: row.event, sender: row.sender, body, sealed: None })
            })
            .collect()
    }

    /// Takes a locked event out of the locked ones. `read` is what it says now that its key has come, and is acted on
    /// as if it were admitted now; `None` gives the event up. Returns whether the event was still locked; if not,
    /// nothing changes.
    pub async fn unlocked(&self, event: &EventId, read: Option<Inbound>) -> Result<bool, StoreError> {
        let sealed = read.iter().filter_map(|read| Some((event.clone(), read.sealed.clone()?))).collect();
        let replayed = !self.replayed(sealed).await?.is_empty();
        let Some(Inbound { body, .. }) = read.filter(|_| !replayed) else {
            return self.inner.store.unlock(self.account(), event, None).await;
        };
        let Some((room, sender)) = self.inner.store.locked_event(self.account(), event).await? else {
            return Ok(false);
        };
        let home = self.inner.homes.home(&room);
        let new = journaled(home.clone(), event.clone(), sender, &body, serde_json::to_value(&body)?);
        let was_locked = self.inner.store.unlock(self.account(), event, Some(new)).await?;
        if was_locked {
            self.wake(&self.address(home));
        }
        Ok(was_locked)
    }

    /// Marks the ciphertext of an event that was given up as taken, so that no other event can bring it again.
    pub async fn spend(&self, sealed: Sealed) -> Result<(), StoreError> {
        self.inner.store.take_ciphertexts(self.account(), vec![(EventId::from(""), sealed)]).await.map(drop)
    }

    /// Marks ciphertexts as taken, and returns the events whose ciphertext another event has brought before.
    async fn replayed(&self, sealed: Vec<(EventId, Sealed)>) -> Result<HashSet<EventId>, StoreError> {
        if sealed.is_empty() {
            return Ok(HashSet::new());
        }
        let replayed = self.inner.store.take_ciphertexts(self.account(), sealed).await?;
        self.inner.replays.count(replayed.len());
        Ok(replayed)
    }

    /// Tells a room that some messages there could not be read, once for each sync `answer`.
    pub async fn tell_gap(&self, room: &RoomKey, answer: &str) -> Result<(), StoreError> {
        let home = self.address(self.inner.homes.home(room));
        let txn = ids::digest(&[self.account(), room.as_str(), answer, "gap"], 16);
        let outbound = Outbound::Notice { text: strings::rooms::GAP.to_owned(), card: None };
        let row = NewOutbox { txn, payload: to_json(&outbound)?, file: None };
        self.inner.store.post(&home, None, row).await?;
        self.inner.outbox.wake(&home).await;
        Ok(())
    }

    /// Tells the sender of a locked event that it cannot be read, unless its key has come meanwhile or the sender was
    /// told so in that room before.
    pub async fn unreadable(&self, event: &EventId, thread: Option<EventId>) -> Result<(), StoreError> {
        let Some((room, sender)) = self.inner.store.locked_event(self.account(), event).await? else { return Ok(()) };
        let home = self.address(self.inner.homes.home(&room));
        let text = strings::rooms::UNREADABLE.to_owned();
        let outbound = Outbound::Reply { text, asked: event.clone(), thread, replaces: None };
        // The outbox takes a transaction id once, so the sender is told again only when that row has been pruned.
        let txn = ids::digest(&[self.account(), home.room.as_str(), &sender, "unreadable"], 16);
        let row = NewOutbox { txn, payload: to_json(&outbound)?, file: None };
        self.inner.store.post(&home, None, row).await?;
        self.inner.outbox.wake(&home).await;
        Ok(())
    }

    /// Notes that a delivery is about to be sent from a device; every later try finds that in [`Delivery::tried`].
    pub async fn trying(&self, txn: &str, device: &str) -> Result<(), StoreError> {
        self.inner.store.trying(txn, device).await
    }

    /// Tells the outbox that a room can be reached again, so that the rows that wait for it are sent.
    pub async fn reachable(&self, room: &RoomKey) {
        let home = self.address(self.inner.homes.home(room));
        self.inner.outbox.wake(&home).await;
    }

    /// Shows a room a notice about its sandbox (it was paused, its disk is full). The notice is not stored: it is of
    /// no use later.
    pub fn show_notice(&self, room: &RoomKey, text: String) {
        self.show(&self.address(room.clone()), None, Live::Notice { text });
    }

    /// Shows a line that a program in the room's sandbox wrote through `ipc`. The line is not stored: it only
    /// decorates.
    pub fn show_told(&self, room: &RoomKey, line: String) {
        self.show(&self.address(room.clone()), None, Live::Told { line });
    }

    /// Shows a live event in the room in which a home's people are now, with the turn that is open. Nothing is shown
    /// if nobody watches.
    fn show(&self, home: &Address, turn: Option<TurnId>, live: Live) {
        let address = Address { account: home.account.clone(), room: self.inner.homes.current(&home.room) };
        let shown = LiveIn { address, turn, live };
        self.inner.keeper.accounts().show(&shown);
        let _ = self.inner.live.send(shown);
    }

    /// Wakes a room's actor, or starts it.
    fn wake(&self, address: &Address) {
        let mut actors = self.inner.actors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mail) = actors.get(address) {
            mail.notify.notify_one();
            return;
        }
        self.keep(address);
        let mail = Arc::new(Mailbox::default());
        mail.notify.notify_one();
        actors.insert(address.clone(), mail.clone());
        let actor = room::run(self.clone(), address.clone(), mail);
        self.inner.tasks.spawn(actor.instrument(address.span()));
    }

    /// Ends an actor, unless something came for it meanwhile.
    fn retire(&self, address: &Address, mail: &Mailbox) -> bool {
        let mut actors = self.inner.actors.lock().unwrap_or_else(PoisonError::into_inner);
        // `wake` notifies under this lock, so what came meanwhile is seen here.
        let mut notified = std::pin::pin!(mail.notify.notified());
        if notified.as_mut().enable() {
            mail.notify.notify_one();
            return false;
        }
        actors.remove(address);
        true
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<serde_json::Value, StoreError> {
    Ok(serde_json::to_value(value)?)
}

/// Returns an event as the journal takes it.
fn journaled(room: RoomKey, event: EventId, sender: String, body: &Body, stored: serde_json::Value) -> NewInbound {
    let target = match body {
        Body::Edited { target, .. } | Body::Redacted { target } => Some(target.clone()),
        _ => None,
    };
    NewInbound { room, event, sender, body: stored, target }
}
