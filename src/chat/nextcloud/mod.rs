//! Nextcloud Talk as a chat protocol: rooms named `talk:TOKEN`, one for each conversation to which the bot was added.
//!
//! Nextcloud tells the bot of messages by a webhook (`webhook.rs`, `activity.rs`), and the bot answers by Talk's API (`api.rs`,
//! `deliver.rs`); both sign with one secret (`signature.rs`). A bot there can neither edit nor upload, nor open a conversation, so
//! that a turn shows a reaction when it begins, and then its one answer.

pub mod activity;
mod api;
mod deliver;
mod signature;
mod split;
mod standing;
mod webhook;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::Url;
use secrecy::SecretString;
use tokio::{
    sync::{Semaphore, broadcast::error::RecvError},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

pub(crate) use api::{Api, Features as TalkFeatures, TalkError};
pub(crate) use webhook::PATH;

use crate::{
    http::Pages,
    hub::{AccountHub, Features, Fetch, Inbox, Live, NotFetched, NotMade, Rooms},
    ids::{EventId, RoomKey},
    strings,
};
use deliver::UnderWay;
use standing::Standing;

/// The beginning of a room's key; a conversation's token follows.
const PREFIX: &str = "talk:";
/// The most characters of a message, where the server does not say.
const MAX_LENGTH: usize = 32_000;
/// How often the server is asked how long messages may be, and the pause after it could not be asked.
const ASK_AGAIN: Duration = Duration::from_hours(6);
const ASK_SOON: Duration = Duration::from_mins(1);
/// Requests to Nextcloud at the same time.
const REQUESTS: usize = 8;
/// How long what is being sent has when the server ends.
const GRACE: Duration = Duration::from_secs(3);
/// Conversations that are remembered.
const REMEMBERED: usize = 10_000;

/// The rooms of Talk. Reactions are absent: whoever reacts is told, but not to whose message.
pub(crate) const ROOMS: Rooms = Rooms {
    prefix: PREFIX,
    local: false,
    features: Features { edits: false, files: false, threads: false, reactions: false, rooms: false },
};

/// How Talk is reached.
pub(crate) struct TalkSettings {
    /// The Nextcloud server.
    pub(crate) nextcloud: Url,
    /// The secret that bot and Nextcloud share.
    pub(crate) secret: SecretString,
    /// The bot's name, as it was installed.
    pub(crate) called: String,
    /// Tokens of conversations in which all that is said is meant for the bot.
    pub(crate) direct: Vec<String>,
    /// Tokens of the conversations of the second account.
    pub(crate) second: Vec<String>,
}

/// The accounts of one bot at one Nextcloud: its conversations belong to the first, but for those that are the second's.
pub(crate) struct Talk {
    api: Api,
    standing: Standing,
    under_way: UnderWay,
    called: String,
    direct: HashSet<String>,
    first: AccountHub,
    second: Option<(HashSet<String>, AccountHub)>,
    /// The most characters of a message.
    max_length: AtomicUsize,
    /// The conversations in which the bot is known to be, as far as this process was told.
    seen: Mutex<HashSet<RoomKey>>,
    requests: Semaphore,
}

impl Talk {
    /// Returns the bot of these settings, with the hubs of its accounts.
    ///
    /// # Errors
    ///
    /// The machine's certificates cannot be read.
    pub(crate) fn new(
        settings: TalkSettings,
        first: AccountHub,
        second: Option<AccountHub>,
    ) -> Result<Arc<Self>, reqwest::Error> {
        let TalkSettings { nextcloud, secret, called, direct, second: conversations } = settings;
        Ok(Arc::new(Self {
            api: Api::new(&nextcloud, &secret)?,
            standing: Standing::default(),
            under_way: UnderWay::default(),
            called,
            direct: direct.into_iter().collect(),
            first,
            second: second.map(|hub| (conversations.into_iter().collect(), hub)),
            max_length: AtomicUsize::new(MAX_LENGTH),
            seen: Mutex::default(),
            requests: Semaphore::new(REQUESTS),
        }))
    }

    /// Returns the pages at which Nextcloud tells what happens; `alone` if their server has no others.
    pub(crate) fn pages(self: &Arc<Self>, alone: bool) -> Pages {
        webhook::pages(self, alone)
    }

    /// Asks the server from time to time how long messages may be, until `cancel`.
    pub(crate) async fn learn(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            let asked = cancel.run_until_cancelled(self.api.capabilities()).await;
            let pause = match asked {
                None => return,
                Some(Ok(capabilities)) => {
                    self.max_length.store(capabilities.max_length.unwrap_or(MAX_LENGTH), Ordering::Relaxed);
                    ASK_AGAIN
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "Nextcloud does not say what it can do");
                    ASK_SOON
                }
            };
            if cancel.run_until_cancelled(time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Serves one of the accounts until `cancel`: sends what its hub hands out.
    pub(crate) async fn run(self: Arc<Self>, hub: AccountHub, mut inbox: Inbox, cancel: CancellationToken) {
        let (mut live, tasks) = (hub.watch(), TaskTracker::new());
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(delivery) = inbox.deliveries.recv() => {
                    let (talk, hub, span) = (Arc::clone(&self), hub.clone(), delivery.span());
                    let delivering = async move {
                        let _one_of_few = talk.requests.acquire().await;
                        deliver::deliver(&talk, &hub, delivery).await;
                    };
                    tasks.spawn(delivering.instrument(span));
                }
                Some(fetch) = inbox.fetches.recv() => answer(&hub, fetch, &tasks),
                seen = live.recv() => match seen {
                    Ok(live) => {
                        if let Live::Started { asked, .. } = &live.live {
                            let (talk, hub, asked, span) = (Arc::clone(&self), hub.clone(), asked.clone(), live.span());
                            let reacting = async move {
                                let _one_of_few = talk.requests.acquire().await;
                                deliver::react(&talk, &hub, &live.address.room, &asked).await;
                            };
                            tasks.spawn(reacting.instrument(span));
                        }
                    }
                    Err(RecvError::Lagged(missed)) => tracing::debug!(missed, "not every message was reacted to"),
                    Err(RecvError::Closed) => break,
                },
            }
        }
        tasks.close();
        // A message that is cut off here may have been sent; it comes again then, with a word that says so.
        if time::timeout(GRACE, tasks.wait()).await.is_err() {
            tracing::warn!("some messages to Nextcloud were still being sent");
        }
    }

    /// Returns the hub of the account to which a conversation belongs.
    fn hub(&self, conversation: &str) -> &AccountHub {
        match &self.second {
            Some((conversations, hub)) if conversations.contains(conversation) => hub,
            _ => &self.first,
        }
    }

    fn has_seen(&self, room: &RoomKey) -> bool {
        self.seen().contains(room)
    }

    /// Remembers that the bot is in a conversation.
    fn see(&self, room: &RoomKey) {
        let mut seen = self.seen();
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        seen.insert(room.clone());
    }

    fn forget(&self, room: &RoomKey) {
        self.seen().remove(room);
    }

    fn seen(&self) -> MutexGuard<'_, HashSet<RoomKey>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers what a message brings along: a quote as it was told with the message, and nothing else.
fn answer(hub: &AccountHub, fetch: Fetch, tasks: &TaskTracker) {
    match fetch {
        Fetch::Quote(quote) => {
            let hub = hub.clone();
            tasks.spawn(async move {
                let quoted = webhook::quoted(&hub, &quote.room, &quote.event).await;
                let _ = quote.done.send(quoted);
            });
        }
        Fetch::File(file) => {
            let _ = file.done.send(Err(NotFetched::Failed(strings::talk::NO_FILES.to_owned())));
        }
        Fetch::Room(room) => {
            let _ = room.done.send(Err(NotMade::Nowhere));
        }
    }
}

/// Returns the room of a conversation.
fn room_of(conversation: &str) -> RoomKey {
    RoomKey(format!("{PREFIX}{conversation}"))
}

/// Returns the conversation of a room.
fn conversation_of(room: &RoomKey) -> Option<&str> {
    room.as_str().strip_prefix(PREFIX)
}

/// Returns the number of a message at the server, by its id in the journal.
fn message_of(event: &EventId) -> Option<u64> {
    event.as_str().split('.').next()?.parse().ok()
}
