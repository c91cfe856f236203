//! The way to language models, without a key inside: what a coding agent asks is looked into, and goes on with the
//! operator's key.
//!
//! An agent gets a [`Pass`] for one run. Its token is the only key in the sandbox; it is worth something in one room, until the
//! pass is dropped, and here alone. Open are some protocols' requests to generate, count and list (`route`), for the
//! models that the operator has set up ([`Upstream`], [`Chosen`]); what a provider would fetch or run by itself is not (`inspect`).
//!
//! It must not know what agents are, how they are run, or what is said: whoever runs one opens a pass and watches what is
//! seen of it ([`Pass::seen`]). `Gateway::serve` calls `serve` with each connection of the kind `models`.

pub(super) mod grant;
mod inspect;
mod refusal;
mod route;
mod serve;
mod servers;
mod upstream;
mod usage;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub(super) use self::serve::serve;
pub(crate) use self::upstream::BadUpstream;
pub use self::{
    grant::Grant,
    servers::{Choice, Chosen, Server, Servers},
    upstream::Upstream,
};
use self::{refusal::Refusal, servers::Line};
use super::head::Head;
pub use crate::ledger::Tokens;
use crate::{
    ids::{Address, digest, random},
    ledger::Ledger,
};

/// Bytes of randomness in a token.
const TOKEN: usize = 24;

/// How long a request waits for the server to know its run again, after a restart.
const RETURN: Duration = Duration::from_secs(30);

/// The unit in which room for requests' bodies is counted, in bytes.
const SPACE_UNIT: usize = 64 * 1024;
/// Room for the bodies of one run's requests that are under way, and for those of all, in these units.
const SPACE_OF_ONE: usize = 64 * 1024 * 1024 / SPACE_UNIT;
const SPACE_OF_ALL: usize = 256 * 1024 * 1024 / SPACE_UNIT;

/// How models are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// OpenAI's chat completions, at `/v1`.
    OpenAi,
    /// OpenAI's responses, at `/v1`.
    Responses,
    /// Anthropic's messages, at `/v1`.
    Messages,
    /// Gemini's own, at `/v1beta`.
    Gemini,
}

/// Returns what the door makes of a request, whoever makes it: what follows an upstream's address and the model that is
/// meant, if one is; or why it is refused. `serve` takes the same steps, each as soon as it can.
pub fn admits(head: &Head, body: &[u8], web: bool) -> Result<(String, Option<String>), String> {
    let admitted = || {
        let (route, _) = route::read(head)?;
        let model = match &route {
            route::Route::List(_) => None,
            asks => Some(serve::model(asks, inspect::read(asks.protocol(), body, web)?.model)?),
        };
        Ok((route.path(), model))
    };
    admitted().map_err(|refusal: Refusal| refusal.to_string())
}

/// What went through with one pass so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests that were sent to an upstream.
    pub requests: u64,
    /// Their tokens, as far as they have ended.
    pub tokens: Tokens,
    /// The same by model.
    pub by_model: BTreeMap<String, Tokens>,
    /// Signs of life in their answers: it grows while one is being said, each second at most.
    pub heard: u64,
    /// Requests in a row, up to now, that came to nothing for a reason that may pass: 429, 5xx, no answer. Others leave it
    /// as it is.
    pub failures: u32,
    /// How the last request failed that did.
    pub failure: Option<Failure>,
    /// The last sentence with which the door itself refused a request.
    pub refusal: Option<String>,
    /// The day's tokens are used up; the sentence that says so.
    pub over: Option<String>,
    /// What the room is to be told, the last one: its tokens come near their end.
    pub warning: Option<String>,
}

/// How a request failed at an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The HTTP status; where there was no answer, the one that stands for that.
    pub status: u16,
    /// Why, in one clean line: the upstream's own words where it had some.
    pub cause: String,
}

/// The door. Cheap to clone; all clones are one. The default one leads nowhere.
#[derive(Clone, Default)]
pub struct ModelDoor {
    inner: Arc<Inner>,
}

struct Inner {
    upstreams: Vec<Arc<Upstream>>,
    /// Models whose servers are chosen for each request.
    chosen: Vec<Chosen>,
    /// Whether providers may be asked to reach into the web.
    web: bool,
    /// Where tokens are reserved and settled.
    ledger: Option<Ledger>,
    /// What makes tokens that nobody guesses: the same after a restart of the server.
    seed: String,
    passes: Mutex<HashMap<String, Arc<Entry>>>,
    /// Tokens of runs from before a restart, until somebody opens the door for them again.
    expected: Mutex<HashSet<String>>,
    opened: Notify,
    space: Arc<Semaphore>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            chosen: Vec::new(),
            web: false,
            ledger: None,
            seed: random(TOKEN),
            passes: Mutex::default(),
            expected: Mutex::default(),
            opened: Notify::new(),
            space: Arc::new(Semaphore::new(SPACE_OF_ALL)),
        }
    }
}

/// A pass as the door knows it.
struct Entry {
    grant: Grant,
    seen: watch::Sender<Seen>,
    /// Cancelled when the pass is dropped.
    void: CancellationToken,
    space: Arc<Semaphore>,
}

impl ModelDoor {
    /// A door to these upstreams; of two that have a model of one name the first is asked. With `web`, providers may
    /// search the web and fetch addresses for whoever asks a model. Tokens are reserved in `ledger`.
    pub fn new(upstreams: Vec<Upstream>, web: bool, ledger: Option<Ledger>) -> Self {
        let seed = ledger.as_ref().map_or_else(|| random(TOKEN), |ledger| ledger.store().secret().to_owned());
        let upstreams = upstreams.into_iter().map(Arc::new).collect();
        Self { inner: Arc::new(Inner { upstreams, web, ledger, seed, ..Inner::default() }) }
    }

    /// The same door with models whose servers are chosen for each request. Nobody may have opened it yet.
    #[must_use]
    pub fn with_chosen(mut self, chosen: Vec<Chosen>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.chosen = chosen;
        }
        self
    }

    /// Returns the models that can be asked in this way, the usual one first.
    pub fn models(&self, protocol: Protocol) -> Vec<String> {
        let upstreams = self.inner.upstreams.iter().filter(|upstream| upstream.protocol == protocol);
        let chosen = self.inner.chosen.iter().filter(|chosen| chosen.protocol == protocol);
        let mut models: Vec<String> = Vec::new();
        for model in upstreams.flat_map(|upstream| &upstream.models).chain(chosen.map(|chosen| &chosen.model)) {
            if !models.contains(model) {
                models.push(model.clone());
            }
        }
        models
    }

    /// Opens the door for one run of an agent.
    pub fn open(&self, grant: Grant) -> Pass {
        let token = self.token(&grant.address, &grant.run);
        let entry = Arc::new(Entry {
            grant,
            seen: watch::Sender::default(),
            void: CancellationToken::new(),
            space: Arc::new(Semaphore::new(SPACE_OF_ONE)),
        });
        self.passes().insert(token.clone(), Arc::clone(&entry));
        self.expected().remove(&token);
        self.inner.opened.notify_waiters();
        Pass { door: self.clone(), token, entry }
    }

    /// Lets requests of a run that has gone on while there was no server wait until the door is opened for it again.
    pub fn expect(&self, address: &Address, run: &str) {
        let token = self.token(address, run);
        self.expected().insert(token);
    }

    fn token(&self, address: &Address, run: &str) -> String {
        format!("sandbox-{}", digest(&["pass", &self.inner.seed, &address.to_string(), run], TOKEN))
    }

    /// Returns the pass that a token belongs to, if it is one of this room's.
    async fn entry(&self, address: &Address, token: &str) -> Result<Arc<Entry>, Refusal> {
        let found = async {
            loop {
                let opened = self.inner.opened.notified();
                let entry = self.passes().get(token).cloned();
                let is_expected = entry.is_none() && self.expected().contains(token);
                if !is_expected {
                    return entry.filter(|entry| entry.grant.address == *address);
                }
                opened.await;
            }
        };
        timeout(RETURN, found).await.ok().flatten().ok_or(Refusal::Key)
    }

    /// Returns who may answer a request for a model.
    fn line(&self, protocol: Protocol, model: &str) -> Result<Line<'_>, Refusal> {
        let mut upstreams = self.inner.upstreams.iter();
        let one = upstreams
            .find(|upstream| upstream.protocol == protocol && upstream.models.iter().any(|known| known == model));
        let mut chosen = self.inner.chosen.iter();
        let several = chosen.find(|chosen| chosen.protocol == protocol && chosen.model == model);
        one.map(|upstream| Line::One(Some(Arc::clone(upstream))))
            .or_else(|| several.map(Chosen::line))
            .ok_or_else(|| Refusal::UnknownModel { asked: model.to_owned(), known: self.models(protocol) })
    }

    fn expected(&self) -> MutexGuard<'_, HashSet<String>> {
        self.inner.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing in here can panic half-way, so a poisoned lock holds a sound table.
    fn passes(&self) -> MutexGuard<'_, HashMap<String, Arc<Entry>>> {
        self.inner.passes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ModelDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { upstreams, chosen, .. } = &*self.inner;
        f.debug_struct("ModelDoor").field("upstreams", upstreams).field("chosen", chosen).finish_non_exhaustive()
    }
}

impl Entry {
    fn saw(&self, change: impl FnOnce(&mut Seen)) {
        self.seen.send_modify(change);
    }
}

/// The right to ask models from one room. Dropping it makes its token void at once and cuts what is under way.
pub struct Pass {
    door: ModelDoor,
    token: String,
    entry: Arc<Entry>,
}

impl Pass {
    /// Returns what stands for a key in the sandbox: `sandbox-` and hex digits.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Returns a receiver of what goes through: it changes with each request that begins, ends or is refused.
    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.entry.seen.subscribe()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut passes = self.door.passes();
        // Another pass of the same run may have taken its place.
        if passes.get(&self.token).is_some_and(|entry| Arc::ptr_eq(entry, &self.entry)) {
            passes.remove(&self.token);
        }
        drop(passes);
        self.entry.void.cancel();
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("grant", &self.entry.grant).finish_non_exhaustive()
    }
}
