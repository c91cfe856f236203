//! The channels between the hub and a chat protocol: deliveries and fetches, both bounded.
//!
//! An account has a port for each protocol through which people reach it. The protocol has the [`Inbox`], the hub the
//! [`Port`]. Live events take another way, since any number may watch them ([`super::AccountHub::watch`]).

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tracing::Span;

use super::{Fetch, Outbound, message::span_of};
use crate::{
    ids::{Address, EventId, RoomKey, TurnId},
    store::Tried,
};

/// The rooms that belong to a port.
#[derive(Clone, Copy, Debug)]
pub struct Rooms {
    /// The prefix of their keys, such as `terminal:`.
    pub prefix: &'static str,
    /// Whether the people in them sit at this machine, so that every bot hears them.
    pub local: bool,
    /// What the protocol can do in them.
    pub features: Features,
}

/// What a chat protocol can do beyond sending a message. The hub asks for nothing else. Typing and
/// encryption are absent, since only the protocol's own adapter deals with them.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// Whether sent messages can be edited. If so, a turn gets a progress message, which an [`Outbound::Closing`]
    /// ends.
    pub edits: bool,
    /// Whether files can be sent ([`Outbound::File`]).
    pub files: bool,
    /// Whether messages can be sent into a thread ([`Outbound::Log`]).
    pub threads: bool,
    /// Whether people can answer a card by a reaction.
    pub reactions: bool,
    /// Whether it can make rooms ([`Fetch::Room`]).
    pub rooms: bool,
}

/// One row for the chat protocol to send.
#[derive(Debug)]
pub struct Delivery {
    /// The transaction id, the same at each try.
    pub txn: String,
    /// The account and the room to which it goes.
    pub address: Address,
    /// The turn that it belongs to, if any.
    pub turn: Option<TurnId>,
    /// What is to be sent.
    pub outbound: Outbound,
    /// The bytes, where a file is to be sent.
    pub data: Option<Vec<u8>>,
    /// The first attempt to send it, if [`super::AccountHub::trying`] has stored one.
    pub tried: Option<Tried>,
    /// Gets the result; if it is dropped, the delivery counts as [`Undelivered`].
    pub done: oneshot::Sender<Result<Sent, Undelivered>>,
}

impl Delivery {
    /// Returns the span in which it is sent: its room's, and its turn's.
    pub fn span(&self) -> Span {
        span_of(&self.address, self.turn.as_ref())
    }
}

/// A delivery reached its room.
#[derive(Debug)]
pub struct Sent {
    /// The event that the delivery became in the room.
    pub event: EventId,
    /// Gets a message once the store has noted that; from then on the row is never sent again.
    pub noted: oneshot::Sender<()>,
}

/// The room could not be reached; the row stays in the outbox.
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
    /// Requests for the files and quotes that messages bring along, and for rooms.
    pub fetches: mpsc::Receiver<Fetch>,
}

impl Port {
    /// Returns a port and its inbox; each of the channels holds `queue` items.
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

    /// Returns whether the people in a room are elsewhere; `false` if no port serves the room now.
    pub(super) fn is_remote(&self, room: &RoomKey) -> bool {
        self.of(room).is_some_and(|port| !port.rooms.local)
    }

    /// Returns what the protocol of a room can do. If no port serves the room now, all features count as there, since
    /// the rows wait until one does.
    pub(super) fn features(&self, room: &RoomKey) -> Features {
        let all = Features { edits: true, files: true, threads: true, reactions: false, rooms: false };
        self.of(room).map_or(all, |port| port.rooms.features)
    }

    /// Hands a delivery to the protocol that owns the room. If none does, or its task has ended, the delivery is
    /// dropped, which counts as [`Undelivered`].
    pub(super) async fn deliver(&self, delivery: Delivery) {
        if let Some(port) = self.of(&delivery.address.room) {
            let _ = port.deliveries.send(delivery).await;
        }
    }

    /// Hands a fetch to the protocol that owns the room; it is dropped under the same conditions.
    pub(super) async fn fetch(&self, room: &RoomKey, fetch: Fetch) {
        if let Some(port) = self.of(room) {
            let _ = port.fetches.send(fetch).await;
        }
    }

    /// Returns the protocol that can make rooms, if one is served.
    pub(super) fn maker(&self) -> Option<&mpsc::Sender<Fetch>> {
        self.all.iter().find(|port| port.rooms.features.rooms).map(|port| &port.fetches)
    }

    /// Returns the key of a room at this machine, if people can come to one.
    pub(super) fn local_room(&self, name: &str) -> Option<RoomKey> {
        let port = self.all.iter().find(|port| port.rooms.local)?;
        Some(RoomKey(format!("{}{name}", port.rooms.prefix)))
    }

    fn of(&self, room: &RoomKey) -> Option<&Port> {
        self.all.iter().find(|port| port.rooms.owns(room))
    }
}

impl Rooms {
    /// Returns whether a room belongs to this port.
    pub fn owns(self, room: &RoomKey) -> bool {
        room.as_str().starts_with(self.prefix)
    }
}
