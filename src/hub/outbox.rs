//! Delivers the rows of the outbox to the chat protocol: each room's rows in order, each once.
//!
//! A room that cannot be reached does not hold up another. It is tried again with growing pauses, and at once when
//! the protocol says that it is reachable.
//!
//! A row may have reached its room without our knowing it: the process died, or the response was lost. Where the
//! protocol cannot tell by the transaction id alone (another device, an id that the server has forgotten) it calls
//! [`super::AccountHub::trying`] before each send. The first attempt is stored and comes with every later
//! [`Delivery`] of the row as `tried`: `None` means that the row was never sent; with `Some`, the protocol has to
//! look for it in the room first.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::{
    Outbound,
    homes::Homes,
    port::{Delivery, Ports, Sent},
};
use crate::{
    backoff::Backoff,
    crash,
    ids::{Address, TurnId},
    store::{OutboxRow, Store},
    strings,
};

/// Wake-ups that may be queued.
const QUEUE: usize = 256;
/// The first pause after a failed delivery.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// Files that may be held in memory for delivery at the same time.
const LARGE: usize = 4;
/// How long the chat protocol has to confirm a delivery; then it is tried again with the same transaction id.
const CONFIRM: Duration = Duration::from_mins(2);

/// Wakes the outbox. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    /// The rooms that have rows to send.
    wake: mpsc::Sender<Address>,
}

impl Outbox {
    /// Returns the outbox and the task that delivers, which the caller has to run; it ends with `cancel`.
    pub(super) fn start(
        store: Store,
        homes: Arc<Homes>,
        ports: Ports,
        cancel: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (wake, wakes) = mpsc::channel(QUEUE);
        (Self { wake }, deliver(Courier { store, homes, ports, large: Arc::new(Semaphore::new(LARGE)) }, wakes, cancel))
    }

    /// Notes that a room has rows to send, or that it can be reached again.
    pub(crate) async fn wake(&self, address: &Address) {
        // The channel is closed only when the program ends; the rows are found at the next start.
        let _ = self.wake.send(address.clone()).await;
    }
}

/// A room whose rows were delivered, with the wake-ups that came meanwhile.
type Delivered = (Address, mpsc::Receiver<()>);

/// What delivering needs. Cheap to clone.
#[derive(Clone)]
struct Courier {
    store: Store,
    homes: Arc<Homes>,
    ports: Ports,
    /// Bounds the files in memory to [`LARGE`].
    large: Arc<Semaphore>,
}

async fn deliver(courier: Courier, mut wakes: mpsc::Receiver<Address>, cancel: CancellationToken) {
    // The rooms that are being delivered to, each with the sender that wakes it from its pause.
    let mut rooms: HashMap<Address, mpsc::Sender<()>> = HashMap::new();
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            Some(address) = wakes.recv() => {
                if let Some(room) = rooms.get(&address) {
                    // A full channel means that a wake-up is queued already.
                    let _ = room.try_send(());
                } else {
                    rooms.insert(address.clone(), courier.begin(&mut tasks, address));
                }
            }
            Some(ended) = tasks.join_next() => {
                let Ok((address, mut nudges)) = ended else { continue };
                rooms.remove(&address);
                if nudges.try_recv().is_ok() {
                    // The room was woken after it had looked for the last time.
                    rooms.insert(address.clone(), courier.begin(&mut tasks, address));
                }
            }
        }
    }
}

impl Courier {
    /// Starts delivering a room's rows; returns the sender that wakes it from its pause.
    fn begin(&self, tasks: &mut JoinSet<Delivered>, address: Address) -> mpsc::Sender<()> {
        let (nudge, nudges) = mpsc::channel(1);
        let span = address.span();
        tasks.spawn(self.clone().deliver_room(address, nudges).instrument(span));
        nudge
    }

    async fn deliver_room(self, address: Address, mut nudges: mpsc::Receiver<()>) -> Delivered {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let delivered = match self.store.next_unsent(&address).await {
                Ok(None) => break,
                Ok(Some(row)) => {
                    let span = row.turn.as_ref().map_or_else(Span::none, TurnId::span);
                    self.deliver_row(row).instrument(span).await
                }
                Err(error) => {
                    tracing::error!(%error, "the outbox cannot be read");
                    false
                }
            };
            if delivered {
                backoff.reset();
            } else {
                // After the pause or a wake-up, whichever comes first, the row is tried again.
                let _ = time::timeout(backoff.next_pause(), nudges.recv()).await;
            }
        }
        (address, nudges)
    }

    async fn deliver_row(&self, row: OutboxRow) -> bool {
        let OutboxRow { seq, txn, address, turn, payload, file, data, tried } = row;
        let mut outbound = match serde_json::from_value(payload) {
            Ok(outbound) => outbound,
            Err(error) => {
                tracing::error!(txn, %error, "an outbox row cannot be read");
                return false;
            }
        };
        // The permit is held until the row is sent, so that not every room's file is in memory at once.
        let (_place, data) = match file {
            None => (None, data),
            Some(file) => {
                let place = Arc::clone(&self.large).acquire_owned().await.ok();
                match self.store.kept_file(&file).await {
                    Ok(Some(data)) => (place, Some(data)),
                    Ok(None) => {
                        tracing::error!(txn, "a file that was to be sent is gone from STATE_DIR");
                        if let Outbound::File { name, .. } = &outbound {
                            outbound = Outbound::Notice { text: strings::files::gone(name), card: None };
                        }
                        (None, None)
                    }
                    Err(error) => {
                        tracing::error!(txn, %error, "a file that is to be sent cannot be read");
                        return false;
                    }
                }
            }
        };
        let (done, confirmed) = oneshot::channel();
        // The room may have been upgraded since the row was written, so the row goes to the newest one.
        let address = Address { room: self.homes.current(&address.room), account: address.account };
        let delivery = Delivery { txn, address, turn, outbound, data, tried, done };
        let answered = async {
            self.ports.deliver(delivery).await;
            confirmed.await
        };
        let Ok(Ok(Ok(Sent { event, noted }))) = time::timeout(CONFIRM, answered).await else { return false };
        crash::point("answered");
        match self.store.sent(seq, &event).await {
            Ok(()) => {
                // The receiver may be gone: not every protocol waits for this.
                let _ = noted.send(());
                true
            }
            Err(error) => {
                tracing::error!(%event, %error, "a delivery could not be noted; it is sent again with the same transaction id");
                false
            }
        }
    }
}
