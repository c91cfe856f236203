//! Everything durable passes here: the journal, one actor for each bot in each room, the outbox.
//!
//! An inbound event is written down before anything acts on it; an actor claims it, a bot works on it, and the answer
//! goes out through the outbox. Called by `chat/`, of which it knows no protocol: it hands out [`Delivery`] and
//! [`LiveIn`] on bounded channels.

mod actor;
mod message;
mod outbox;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Notify, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use message::{Body, Ending, Fetch, Inbound, Live, LiveIn, Outbound};
pub use outbox::{Delivery, Outbox, Sent, Undelivered};

use crate::{
    bots::Coder,
    crash,
    ids::{EventId, RoomKey},
    store::{Address, NewInbound, Store, StoreError},
};

/// The name of the coding bot, the hub's first.
pub const CODER: &str = "coder";

/// The hub. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    coder: Coder,
    outbox: Outbox,
    /// What is worth seeing now; what does not fit is dropped.
    live: mpsc::Sender<LiveIn>,
    /// The actors at work, each with what wakes it.
    actors: Mutex<HashMap<Address, Arc<Notify>>>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// The channels on which a chat protocol listens.
#[derive(Debug)]
pub struct Port {
    /// What must be sent once.
    pub deliveries: mpsc::Sender<Delivery>,
    /// What is worth seeing now.
    pub live: mpsc::Sender<LiveIn>,
    /// Files that must be fetched.
    pub fetches: mpsc::Sender<Fetch>,
}

impl Hub {
    /// Starts the hub and takes up what an earlier process left: open turns, waiting events, unsent answers.
    pub async fn start(
        store: Store,
        coder: Coder,
        port: Port,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> Result<Self, StoreError> {
        let (outbox, delivering) = Outbox::start(store.clone(), port.deliveries, cancel.clone());
        tasks.spawn(delivering);
        let inner = Inner { store, coder, outbox, live: port.live, actors: Mutex::default(), tasks, cancel };
        let hub = Self { inner: Arc::new(inner) };
        hub.inner.store.prune().await?;
        for address in hub.inner.store.rooms_with_unsent(CODER).await? {
            hub.inner.outbox.wake(&address).await;
        }
        for address in hub.inner.store.rooms_with_work(CODER).await? {
            hub.wake(&address);
        }
        Ok(hub)
    }

    /// Writes events down, with how far the protocol's stream was read, and wakes the rooms in which something new
    /// was said. When this returns, the events are answered even if the process dies.
    pub async fn admit(&self, events: Vec<Inbound>, position: Option<String>) -> Result<Vec<EventId>, StoreError> {
        crash::point("received");
        let mut rooms: Vec<_> = events.iter().map(|event| event.room.clone()).collect();
        rooms.sort_unstable();
        rooms.dedup();
        let events = events
            .into_iter()
            .map(|event| {
                let body = serde_json::to_value(event.body)?;
                Ok(NewInbound { room: event.room, event: event.event, sender: event.sender, body })
            })
            .collect::<Result<_, serde_json::Error>>()?;
        let fresh = self.inner.store.admit(CODER, events, position).await?;
        crash::point("journaled");
        if !fresh.is_empty() {
            for room in rooms {
                self.wake(&Address { bot: CODER.into(), room });
            }
        }
        Ok(fresh)
    }

    /// Says that a room can be reached (again): what waits for it is sent.
    pub async fn reachable(&self, address: &Address) {
        self.inner.outbox.wake(address).await;
    }

    /// Tells a room something about its sandbox now (it was paused, its disk is full). Not kept: it is of no use later.
    pub fn tell(&self, room: &RoomKey, text: String) {
        let address = Address { bot: CODER.into(), room: room.clone() };
        let _ = self.inner.live.try_send(LiveIn { address, live: Live::Notice { text } });
    }

    /// Wakes a room's actor, or starts it.
    fn wake(&self, address: &Address) {
        let mut actors = self.inner.actors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notify) = actors.get(address) {
            notify.notify_one();
            return;
        }
        let notify = Arc::new(Notify::new());
        notify.notify_one();
        actors.insert(address.clone(), notify.clone());
        self.inner.tasks.spawn(actor::run(self.clone(), address.clone(), notify));
    }

    /// Ends an actor, unless something came for it meanwhile.
    fn retire(&self, address: &Address, notify: &Arc<Notify>) -> bool {
        let mut actors = self.inner.actors.lock().unwrap_or_else(PoisonError::into_inner);
        // `wake` notifies under this lock, so what came meanwhile is seen here.
        let mut notified = std::pin::pin!(notify.notified());
        if notified.as_mut().enable() {
            notify.notify_one();
            return false;
        }
        actors.remove(address);
        true
    }
}
