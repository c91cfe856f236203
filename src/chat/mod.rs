//! The chat protocols. Only the code below here knows one; all of it speaks to the hub, none of it knows a tool.

pub mod matrix;
pub mod terminal;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    hub::{Delivery, Fetch, LiveIn, Port},
    ids::RoomKey,
};

/// What the hub hands out.
#[derive(Debug)]
pub struct Inbox {
    /// What must be sent once.
    pub deliveries: mpsc::Receiver<Delivery>,
    /// What is worth seeing now.
    pub live: mpsc::Receiver<LiveIn>,
    /// What messages bring along, to be fetched.
    pub fetches: mpsc::Receiver<Fetch>,
}

impl Inbox {
    /// Returns one with its other ends; on each of its channels `queue` may wait.
    pub fn new(queue: usize) -> (Self, Port) {
        let (deliveries_in, deliveries) = mpsc::channel(queue);
        let (live_in, live) = mpsc::channel(queue);
        let (fetches_in, fetches) = mpsc::channel(queue);
        (Self { deliveries, live, fetches }, Port { deliveries: deliveries_in, live: live_in, fetches: fetches_in })
    }
}

/// Hands what comes from the hub to the protocol whose room it is, until `cancel`. What belongs to a protocol that is
/// not served stays in the outbox.
pub async fn distribute(
    mut inbox: Inbox,
    terminal: terminal::Terminal,
    matrix: Option<Port>,
    cancel: CancellationToken,
) {
    let matrix_room = |room: &RoomKey| room.as_str().starts_with('!');
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            Some(delivery) = inbox.deliveries.recv() => match &matrix {
                _ if !matrix_room(&delivery.address.room) => terminal.deliver(delivery),
                // Full: dropped, it counts as undelivered and is tried again.
                Some(port) => drop(port.deliveries.try_send(delivery)),
                None => drop(delivery),
            },
            Some(live) = inbox.live.recv() => match &matrix {
                _ if !matrix_room(&live.address.room) => terminal.show(live),
                Some(port) => drop(port.live.try_send(live)),
                None => {}
            },
            Some(fetch) = inbox.fetches.recv() => if let Some(port) = &matrix {
                drop(port.fetches.try_send(fetch));
            },
            else => return,
        }
    }
}
