//! Matrix: an account in its rooms.
//!
//! [`run`] keeps one account's session and connects it with the hub: messages go into the journal (`sync.rs`,
//! `inbound.rs`), the rows of the outbox are sent (`deliver.rs`), and live progress becomes one message a turn that
//! is edited (`view.rs`). Knows no tool and no sandbox.

mod accounts;
mod connected;
mod deliver;
mod directory;
mod inbound;
mod line;
mod making;
mod media;
mod pace;
mod progress;
mod quote;
pub mod render;
mod rooms;
mod scheduler;
mod send;
mod serving;
mod session;
mod sync;
mod trouble;
mod verification;
mod view;

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use matrix_sdk::{
    Client,
    ruma::{OwnedRoomId, RoomId},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, Span};

pub(crate) use accounts::{Administrator, Homeserver};
pub(crate) use line::Line;
pub(crate) use serving::{Seat, Serving, Standing};
pub use session::{Begun, Login};
pub(crate) use session::{SessionError, forget_session, has_session};
pub(crate) use trouble::Fault;

use crate::{
    backoff::Backoff,
    hub::{AccountHub, Features, Inbox, Rooms},
    ids::{EventId, RoomKey},
    store::StoreError,
};
use directory::Directory;
use scheduler::Scheduler;
use sync::Unsigned;

use trouble::Trouble;
use view::View;

/// The rooms of Matrix.
pub const ROOMS: Rooms = Rooms {
    prefix: "!",
    local: false,
    features: Features { edits: true, files: true, threads: true, reactions: true, rooms: true },
};
/// The pause after a failed try to get a session.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The first pause if the cause must be fixed by a person, such as a wrong password: homeservers lock an account out
/// that tries too often.
const LOST_PAUSE: Duration = Duration::from_mins(1);
const LONGEST_LOST: Duration = Duration::from_hours(1);
/// How long a read receipt is delayed, so that the homeserver does not handle it before a quick answer.
const RECEIPT: Duration = Duration::from_millis(300);

/// What all parts of the adapter share. Cheap to clone.
#[derive(Clone)]
struct Adapter {
    inner: Arc<Inner>,
}

struct Inner {
    hub: AccountHub,
    scheduler: Scheduler,
    /// The way to the homeserver, while there is a session.
    line: Line,
    /// The rooms with a running turn.
    views: Mutex<HashMap<RoomKey, Arc<View>>>,
    /// The rooms of the aliases in `ALLOWED_ROOMS`.
    directory: Directory,
    /// Messages from devices that are not signed yet.
    unsigned: Unsigned,
    /// Rooms that the bot joins because somebody whom it hears has invited it.
    asked: Mutex<HashSet<OwnedRoomId>>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl std::ops::Deref for Adapter {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

/// Serves an account's rooms until `cancel`. A lost session is tried again, with growing pauses, while another account
/// works; the last one ends, and `seat` tells why. By `line` it can be tried whether messages go both ways.
pub(crate) async fn run(
    login: Login,
    hub: AccountHub,
    inbox: Inbox,
    mut seat: Seat,
    line: Line,
    tasks: TaskTracker,
    cancel: CancellationToken,
) {
    let inner = Inner {
        hub,
        scheduler: Scheduler::start(&tasks, cancel.clone()),
        line,
        views: Mutex::default(),
        directory: Directory::default(),
        unsigned: Unsigned::default(),
        asked: Mutex::default(),
        tasks,
        cancel,
    };
    let adapter = Adapter { inner: Arc::new(inner) };
    adapter.spawn(deliver::run(adapter.clone(), inbox, adapter.hub.watch()));
    let (mut opened, mut ended) = (None, None);
    let (mut lost, mut first, mut told) = (None, true, String::new());
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let open = async {
            match (opened.take(), ended) {
                (Some(opened), _) => Ok(opened),
                (None, None) => login.open().await,
                (None, Some(soft)) => login.renew(soft).await,
            }
        };
        let Some(session) = adapter.cancel.run_until_cancelled(Box::pin(open)).await else { return };
        let initial = mem::take(&mut first);
        let mut wait;
        match session {
            Ok(session) => {
                (ended, lost, told) = (None, None, String::new());
                login.forget_refusal();
                if seat.found() {
                    tracing::info!("the account is served again");
                }
                let since = Instant::now();
                adapter.line.lead_to(Some(session.client.clone()));
                let end =
                    sync::run(&adapter, &session, login.watchdog, &mut |synced| seat.reads(synced), &adapter.cancel)
                        .await;
                seat.reads(false);
                adapter.line.lead_to(None);
                match end {
                    sync::End::Cancelled => return,
                    sync::End::LoggedOut { soft } => {
                        if login.begun.is_none() {
                            tracing::warn!("the homeserver has ended the session; the bot logs in again");
                        }
                        ended = Some(soft);
                    }
                    sync::End::Silent => tracing::warn!("nothing has come for too long; the stream is begun anew"),
                    sync::End::Store(error) => {
                        tracing::error!(%error, "messages cannot be written down; they are read again");
                        opened = Some(session);
                    }
                }
                // A session that has held for long is renewed at once; one that ends again and again is not.
                if since.elapsed() >= LONGEST_PAUSE {
                    backoff.reset();
                    continue;
                }
                wait = backoff.next_pause();
            }
            Err(error) if error.passes(initial) => {
                let error = Arc::new(error);
                seat.tried(&error);
                wait = backoff.next_pause();
                match &*error {
                    SessionError::Homeserver(Trouble::LoggedOut { soft }) => ended = Some(*soft),
                    SessionError::Homeserver(Trouble::Limited(asked)) => wait = wait.max(*asked),
                    _ => {}
                }
                let words = error.to_string();
                if told != words {
                    tracing::warn!(%error, "there is no session yet; it is tried again");
                    told = words;
                }
            }
            Err(error) => {
                login.keep_refusal(&error);
                let error = Arc::new(error);
                if !seat.lose(&error) {
                    return;
                }
                wait = lost.get_or_insert_with(|| Backoff::new(LOST_PAUSE, LONGEST_LOST)).next_pause();
                let words = error.to_string();
                if told != words {
                    tracing::error!(%error, "the account cannot be served; others are");
                    told = words;
                }
                ended = None;
                // Another token comes with other settings, and so with another call.
                if let SessionError::Refused(_) = &*error {
                    return adapter.cancel.cancelled().await;
                }
            }
        }
        tokio::select! {
            () = adapter.cancel.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl Adapter {
    /// Starts a task that ends with the program, in the caller's log span.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        let running = async move {
            cancel.run_until_cancelled(task).await;
        };
        self.tasks.spawn(running.in_current_span());
    }

    /// Returns the log span of a room.
    fn span(&self, room: &RoomId) -> Span {
        self.hub.address(RoomKey::from(room.as_str())).span()
    }

    /// Returns the SDK's client, if there is a session now.
    fn client(&self) -> Option<Client> {
        self.line.client()
    }

    fn views(&self) -> MutexGuard<'_, HashMap<RoomKey, Arc<View>>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self) -> MutexGuard<'_, HashSet<OwnedRoomId>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what the room sees of its running turn, if it sees any.
    fn view(&self, room: &RoomKey) -> Option<Arc<View>> {
        self.views().get(room).cloned()
    }

    /// Sends read receipts for messages.
    fn seen(&self, client: &Client, events: impl Iterator<Item = (RoomKey, EventId)>) {
        use matrix_sdk::ruma::{api::client::receipt::create_receipt::v3::ReceiptType, events::receipt::ReceiptThread};
        // A receipt for a room's newest message covers all before it.
        let newest: HashMap<_, _> = events.collect();
        for (room, event) in newest {
            let (Ok(id), Ok(event)) = (room.as_str().try_into(), event.as_str().try_into()) else { continue };
            let id: &RoomId = id;
            let Some(room) = client.get_room(id) else { continue };
            let event: matrix_sdk::ruma::OwnedEventId = event;
            let telling = async move {
                tokio::time::sleep(RECEIPT).await;
                if let Err(error) = room.send_single_receipt(ReceiptType::Read, ReceiptThread::Unthreaded, event).await
                {
                    tracing::debug!(%error, "a receipt could not be sent");
                }
            };
            self.spawn(telling.instrument(self.span(id)));
        }
    }

    /// Notes that the account is no longer in a room.
    async fn left(&self, room: &RoomKey) -> Result<(), StoreError> {
        self.views().remove(room);
        self.hub.left(room).await
    }

    /// Tells the hub that the rooms can be reached again.
    async fn reachable(&self, client: &Client) {
        for room in client.joined_rooms() {
            let room = RoomKey::from(room.room_id().as_str());
            self.hub.reachable(&room).await;
        }
    }
}
