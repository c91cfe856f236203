//! Where the hub meets a chat protocol: what must be sent once, and what is to be fetched, on bounded channels.
//!
//! An account has a port for each protocol through which people reach it. The protocol keeps the [`Inbox`], the hub the
//! [`Port`]. What is worth seeing now is not here: any number may watch it ([`super::AccountHub::watch`]).

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tracing::Span;

use super::{Fetch, Outbound, message::span_of};
use crate::{
    ids::{Address, EventId, RoomKey, TurnId},
    store::Tried,
};

/// Which rooms are a port's own.
#[derive(Clone, Copy, Debug)]
pub struct Rooms {
    /// What their keys begin with.
    pub prefix: &'static str,
    /// Whoever is in them sits at this machine, so every bot hears them.
    pub local: bool,
    /// What can be done in them.
    pub features: Features,
}

/// What a chat protocol lets its accounts do beyond sending a message: the hub asks for nothing else. Reactions, typing,
/// threads and encryption are not here, since only the protocol's own adapter deals with them.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// A message can be changed after it was sent, so that one can follow a turn: it gets an [`Outbound::Closing`].
    pub edits: bool,
    /// Files can be sent ([`Outbound::File`]).
    pub files: bool,
}

/// One row for the chat protocol to send.
#[derive(Debug)]
pub struct Delivery {
    /// The transaction id, the same at each try.
    pub txn: String,
    /// The account and the room to which it goes.
    pub address: Address,
    /// The turn that it belongs to, if it does to one.
    pub turn: Option<TurnId>,
    /// What is to be sent.
    pub outbound: Outbound,
    /// The bytes, where a file is to be sent.
    pub data: Option<Vec<u8>>,
    /// The first attempt to send it, if [`super::AccountHub::trying`] told of one.
    pub tried: Option<Tried>,
    /// Tells how it went; dropped, it counts as [`Undelivered`].
    pub done: oneshot::Sender<Result<Sent, Undelivered>>,
}

impl Delivery {
    /// Returns the span in which it is sent: its room's, and its turn's.
    pub fn span(&self) -> Span {
        span_of(&self.address, self.turn.as_ref())
    }
}

/// A delivery has reached its room.
#[derive(Debug)]
pub struct Sent {
    /// The event that it became there.
    pub event: EventId,
    /// Told once that is noted: from then on the row is not sent again, whatever happens.
    pub noted: oneshot::Sender<()>,
}

/// The room could not be reached now; the row stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undelivered;

/// The hub's end of the channels to a protocol.
#[derive(Debug)]
pub struct Port {
    rooms: Rooms,
    deliveries: mpsc::Sender<Delivery>,
    fetches: mpsc::Sender<Fetch>,
}

/// The protocol's end of the channels from the hub.
#[derive(Debug)]
pub struct Inbox {
    /// What must be sent once.
    pub deliveries: mpsc::Receiver<Delivery>,
    /// What messages bring along, to be fetched.
    pub fetches: mpsc::Receiver<Fetch>,
}

impl Port {
    /// Returns one with its other end; on each of its channels `queue` may wait.
    pub fn new(rooms: Rooms, queue: usize) -> (Self, Inbox) {
        let (deliveries_in, deliveries) = mpsc::channel(queue);
        let (fetches_in, fetches) = mpsc::channel(queue);
        (Self { rooms, deliveries: deliveries_in, fetches: fetches_in }, Inbox { deliveries, fetches })
    }
}

/// The ports of an account. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Ports {
    all: Arc<[Port]>,
}

impl Ports {
    pub(super) fn new(all: Vec<Port>) -> Self {
        Self { all: all.into() }
    }

    /// Returns whether the people in a room sit at this machine.
    pub(super) fn is_local(&self, room: &RoomKey) -> bool {
        self.of(room).is_some_and(|port| port.rooms.local)
    }

    /// Returns what can be done in a room. In one whose protocol is not served now that is everything, since what is
    /// written waits until it is served again.
    pub(super) fn features(&self, room: &RoomKey) -> Features {
        let all = Features { edits: true, files: true };
        self.of(room).map_or(all, |port| port.rooms.features)
    }

    /// Hands a delivery to the protocol whose room it is. One that is not served now, or ended, takes none: it is dropped,
    /// which counts as undelivered.
    pub(super) async fn deliver(&self, delivery: Delivery) {
        if let Some(port) = self.of(&delivery.address.room) {
            let _ = port.deliveries.send(delivery).await;
        }
    }

    /// Asks the protocol of a room to fetch something, likewise.
    pub(super) async fn fetch(&self, room: &RoomKey, fetch: Fetch) {
        if let Some(port) = self.of(room) {
            let _ = port.fetches.send(fetch).await;
        }
    }

    fn of(&self, room: &RoomKey) -> Option<&Port> {
        self.all.iter().find(|port| port.rooms.owns(room))
    }
}

impl Rooms {
    /// Returns whether a room is among them.
    pub fn owns(self, room: &RoomKey) -> bool {
        room.as_str().starts_with(self.prefix)
    }
}
