//! Which server answers a request with which model, and that its model is loaded: each endpoint's [`Queue`] is carried
//! out here.
//!
//! Nothing is left to a server's own choice of what it unloads: `llama-server` as a router may take a model that is in
//! use, or the one that it has just loaded.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{self, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    entries::{Endpoint, Kind, LocalModel},
    http::{Fault, Http},
    load::{LoadFault, Loader},
    names,
    probe::{self, Online, Served},
    queue::{Load, Queue, Room, Standing, Weight},
    registry::{Registry, Snapshot},
};

/// How long what a server has said about its models is believed.
const FRESH: Duration = Duration::from_secs(1);
/// How long a request waits for its model at most.
const LONGEST: Duration = Duration::from_mins(10);
/// What a token of context takes in memory, about: it depends on the model, and few say it.
const TOKEN: u64 = 128 << 10;

/// Why a model cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoLease {
    /// Its server does not answer.
    Offline(Fault),
    /// Its server does not have it, and cannot load it.
    NotServed,
    /// It was to be loaded and that has failed; which model serves on.
    Failed {
        /// The cause.
        why: LoadFault,
        /// The model that is loaded now.
        serving: Option<String>,
    },
    /// It does not fit beside the models that are pinned.
    NoRoom,
    /// It was not its turn for too long.
    Waited,
}

/// The way to all servers. Cheap to clone.
#[derive(Clone)]
pub(super) struct Router {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    http: Http,
    loader: Loader,
    servers: Mutex<HashMap<String, Arc<Server>>>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// Who waits: told that the model is ready, or why it never will be.
type Waiter = oneshot::Sender<Result<Lease, NoLease>>;

/// A server with its queue.
#[derive(Default)]
struct Server {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: Queue<Waiter>,
    /// What the server has said last, and when.
    last: Option<(Instant, Online)>,
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A model that may be asked until this is dropped: so long it is not unloaded.
pub struct Lease {
    router: Router,
    server: Arc<Server>,
    endpoint: Endpoint,
    model: String,
}

impl Lease {
    /// Returns the endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns what the server calls the model.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Notes that the model does not answer although it is loaded, so that it is loaded anew for the next one.
    pub fn broken(&self) {
        self.server.state().queue.broken(&self.model);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} at {})", self.model, self.endpoint.id)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.server.state().queue.release(&self.model, Instant::now());
        self.router.go_on(&self.server, &self.endpoint);
    }
}

/// The model that is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    /// One of the registry.
    Known(&'a LocalModel),
    /// What the server calls it.
    Named(&'a str),
}

impl Router {
    pub(super) fn new(
        registry: Registry,
        http: Http,
        loader: Loader,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        Self { inner: Arc::new(Inner { registry, http, loader, servers: Mutex::default(), tasks, cancel }) }
    }

    /// Waits until a model is loaded at an endpoint and it is this request's turn.
    pub(super) async fn lease(&self, endpoint: &Endpoint, model: Wanted<'_>) -> Result<Lease, NoLease> {
        let server = self.server(endpoint);
        let online = self.look(&server, endpoint).await.map_err(NoLease::Offline)?;
        let weight = weight(&self.inner.registry.read(), endpoint, &online, model).ok_or(NoLease::NotServed)?;
        let (ready, is_ready) = oneshot::channel();
        server.state().queue.enter(weight, ready, Instant::now());
        self.go_on(&server, endpoint);
        match time::timeout(LONGEST, is_ready).await {
            Ok(Ok(answer)) => answer,
            // The program ends, or it has waited for too long.
            Ok(Err(_)) | Err(_) => Err(NoLease::Waited),
        }
    }

    /// Returns what each model of an endpoint does.
    pub(super) fn standing(&self, endpoint: &Endpoint) -> Vec<Standing> {
        self.server(endpoint).state().queue.standing(Instant::now())
    }

    fn server(&self, endpoint: &Endpoint) -> Arc<Server> {
        let mut servers = self.inner.servers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(servers.entry(endpoint.url.clone()).or_default())
    }

    /// Asks a server what it has loaded, unless it was asked just now, and tells the queue.
    async fn look(&self, server: &Arc<Server>, endpoint: &Endpoint) -> Result<Online, Fault> {
        if let Some(online) = server.state().known() {
            return Ok(online);
        }
        let online = probe::one(&self.inner.http, endpoint).await?;
        let snapshot = self.inner.registry.read();
        let models = match endpoint.kind {
            Kind::LlamaCpp => online.router.unwrap_or(1),
            // They do not say, and make room by themselves.
            Kind::Ollama | Kind::Vllm => 0,
        };
        let room = Room { models, bytes: endpoint.memory };
        let loaded = online.loaded().map(|served| weigh(&snapshot, endpoint, served)).collect();
        let mut state = server.state();
        state.queue.sync(room, loaded, Instant::now());
        state.last = Some((Instant::now(), online.clone()));
        Ok(online)
    }

    /// Lets those go whose turn it is, and begins the next load.
    fn go_on(&self, server: &Arc<Server>, endpoint: &Endpoint) {
        let step = server.state().queue.step(Instant::now(), |waiter| !waiter.is_closed());
        if let Some(load) = step.load {
            let (router, server, endpoint) = (self.clone(), Arc::clone(server), endpoint.clone());
            let cancel = self.inner.cancel.clone();
            let loading = async move { router.load(&server, &endpoint, load).await };
            self.inner.tasks.spawn(cancel.run_until_cancelled_owned(loading));
        }
        for waiter in step.no_room {
            let _ = waiter.send(Err(NoLease::NoRoom));
        }
        for (waiter, model) in step.go {
            let (router, server, endpoint) = (self.clone(), Arc::clone(server), endpoint.clone());
            // The lease of somebody who waits no more is dropped here, and so given back.
            let _ = waiter.send(Ok(Lease { router, server, endpoint, model }));
        }
    }

    /// Loads a model, brings the one before back if that fails, and lets those go who waited.
    async fn load(self, server: &Arc<Server>, endpoint: &Endpoint, load: Load) {
        let snapshot = self.inner.registry.read();
        tracing::info!(endpoint = endpoint.id, model = load.model, evict = ?load.evict, "a model is loaded");
        let failed = self.inner.loader.load(&snapshot, endpoint, &load.model, &load.evict).await.err();
        let mut back = None;
        if let Some(why) = &failed {
            tracing::warn!(endpoint = endpoint.id, model = load.model, ?why, "a model could not be loaded");
            // The model that was used last is the one that people miss.
            if let Some(before) = load.evict.iter().rev().find(|before| **before != load.model) {
                match self.inner.loader.bring_back(&snapshot, endpoint, before, &load.model).await {
                    Ok(()) => back = Some(before.clone()),
                    Err(why) => {
                        tracing::warn!(endpoint = endpoint.id, model = before, ?why, "the model before is not back");
                    }
                }
            }
        }
        let brought_back = back.clone().map(|model| Weight { model, bytes: None, pinned: false });
        let waited = {
            let mut state = server.state();
            // What it has now is asked for before the next request.
            state.last = None;
            state.queue.ended(failed.is_none(), brought_back, Instant::now())
        };
        for (waiter, why) in waited.into_iter().zip(failed.iter().cycle()) {
            let _ = waiter.send(Err(NoLease::Failed { why: why.clone(), serving: back.clone() }));
        }
        self.go_on(server, endpoint);
    }
}

impl State {
    /// Returns what the server has said just now, or before the load that is under way.
    fn known(&self) -> Option<Online> {
        let (asked, online) = self.last.as_ref()?;
        (self.queue.is_loading() || asked.elapsed() < FRESH).then(|| online.clone())
    }
}

/// Returns the model that is asked for as the queue counts it; `None` if the server neither has it nor can load it.
fn weight(snapshot: &Snapshot, endpoint: &Endpoint, online: &Online, wanted: Wanted<'_>) -> Option<Weight> {
    let served = online.models.iter().find(|served| match wanted {
        Wanted::Known(model) => model.kind == endpoint.kind && served.is(model),
        Wanted::Named(name) => served.id == name,
    });
    if let Some(served) = served {
        return Some(weigh(snapshot, endpoint, served));
    }
    // Another file is served once the unit was restarted with it.
    match wanted {
        Wanted::Known(model) if endpoint.kind == Kind::LlamaCpp && model.kind == endpoint.kind => {
            let restarts = endpoint.ssh.is_some() && online.router.is_none();
            restarts.then(|| Weight {
                model: names::stem(&model.file).to_owned(),
                bytes: memory(model, None),
                pinned: model.pinned,
            })
        }
        _ => None,
    }
}

fn weigh(snapshot: &Snapshot, endpoint: &Endpoint, served: &Served) -> Weight {
    let known = snapshot.known(endpoint.kind, served);
    let bytes = match known {
        Some(model) => memory(model, Some(served)),
        None => served.bytes,
    };
    Weight { model: served.id.clone(), bytes, pinned: known.is_some_and(|model| model.pinned) }
}

/// Returns about how much memory a model takes: its file, and its context.
fn memory(model: &LocalModel, served: Option<&Served>) -> Option<u64> {
    let file = model.size.or_else(|| served?.bytes)?;
    let context = served.and_then(|served| served.context).or(model.context).unwrap_or_default();
    Some(file.saturating_add(context.saturating_mul(TOKEN)))
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
