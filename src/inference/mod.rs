//! Inference servers of the operator's own: which there are, what they have loaded, how fast they are, and who is
//! answered by which model when.
//!
//! Knows no rooms and no bots. `bots` asks it for the `/lb` commands.
//!
//! ```text
//! registry.rs  the three files → entries.rs, fields.rs
//! route.rs     a model of the registry as everybody's model
//! router.rs    a lease on a model → queue.rs (the rules) → load.rs → ssh.rs
//! probe.rs, bench.rs, load.rs  questions to servers → http.rs
//! engine/      a llama-server that we start ourselves and put to sleep
//! ```

mod bench;
pub mod engine;
mod entries;
mod fields;
mod http;
mod load;
mod names;
mod probe;
mod queue;
mod registry;
mod route;
mod router;
mod ssh;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::llm::{Model, ModelSettings};

pub use bench::Measured;
pub use entries::{Endpoint, Kind, LocalModel, MappedRoom, Speeds};
pub use http::Fault;
pub use load::LoadFault;
pub use probe::{ModelState, Online, PROBE, Probed, Served};
pub use queue::Standing;
pub use registry::{ENDPOINTS, MODELS, NotOne, ROOMS, Registry, Snapshot};
pub use route::{Choosing, PREFIX, Place};
pub use router::{Lease, NoLease};
pub use ssh::SshFault;

/// How long a model may take to be loaded, unless its endpoint has a limit of its own.
const LOAD: Duration = Duration::from_mins(3);
/// How long a server may take to tell how busy it is.
const SLOTS: Duration = Duration::from_secs(2);

/// The operator's inference servers. Cheap to clone.
#[derive(Clone)]
pub struct Inference {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    http: http::Http,
    ssh: ssh::Ssh,
    router: router::Router,
}

impl Inference {
    /// Returns the servers of the registry in a folder; asks none of them yet. Loads run among `tasks` and end with
    /// `cancel`.
    ///
    /// # Errors
    ///
    /// TLS cannot be set up.
    pub fn new(folder: PathBuf, tasks: TaskTracker, cancel: CancellationToken) -> Result<Self, reqwest::Error> {
        Self::with_ssh(folder, "ssh".into(), tasks, cancel)
    }

    /// The same with another program in place of `ssh`.
    pub fn with_ssh(
        folder: PathBuf,
        program: PathBuf,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> Result<Self, reqwest::Error> {
        let (registry, http, ssh) = (Registry::new(folder), http::Http::new()?, ssh::Ssh { program });
        let loader = load::Loader { http: http.clone(), ssh: ssh.clone(), limit: LOAD };
        let router = router::Router::new(registry.clone(), http.clone(), loader, tasks, cancel);
        Ok(Self { inner: Arc::new(Inner { registry, http, ssh, router }) })
    }

    /// Returns the registry.
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// Asks all endpoints at the same time what they have, in the order of their priority. Takes at most [`PROBE`].
    pub async fn probe(&self, snapshot: &Snapshot) -> Vec<Probed> {
        probe::all(&self.inner.http, &snapshot.endpoints).await
    }

    /// Asks one endpoint what it has.
    pub async fn look(&self, endpoint: &Endpoint) -> Result<Online, Fault> {
        probe::one(&self.inner.http, endpoint).await
    }

    /// Measures a model that an endpoint has loaded; it is not unloaded meanwhile.
    pub async fn measure(&self, endpoint: &Endpoint, served: &Served) -> Result<Measured, Fault> {
        let lease = self.inner.router.lease(endpoint, router::Wanted::Named(&served.id)).await;
        let measured = bench::measure(&self.inner.http, endpoint, &served.id).await;
        drop(lease);
        measured
    }

    /// Returns the endpoint that serves a model: its own, else the first of its kind that is online, else the first.
    pub async fn endpoint_of(&self, snapshot: &Snapshot, model: &LocalModel) -> Option<Endpoint> {
        let own = |endpoint: &&Endpoint| model.endpoint.as_ref() == Some(&endpoint.id);
        if let Some(endpoint) = snapshot.endpoints.iter().find(own) {
            return Some(endpoint.clone());
        }
        let of_kind: Vec<_> =
            snapshot.endpoints.iter().filter(|endpoint| endpoint.kind == model.kind).cloned().collect();
        if of_kind.len() > 1 {
            let probed = probe::all(&self.inner.http, &of_kind).await;
            if let Some((endpoint, _)) = active(&probed) {
                return Some(endpoint.clone());
            }
        }
        of_kind.into_iter().next()
    }

    /// Waits until a model is loaded at an endpoint and it is one's turn, and keeps it loaded as long as the lease is held.
    pub async fn lease(&self, endpoint: &Endpoint, model: &LocalModel) -> Result<Lease, NoLease> {
        self.inner.router.lease(endpoint, router::Wanted::Known(model)).await
    }

    /// Returns a model of the registry, whose endpoint is chosen for each request: `settings.model` is `localbot/ALIAS`,
    /// `localbot/ENDPOINT`, or `localbot/` for the active endpoint.
    pub fn model(&self, settings: ModelSettings) -> Model {
        Model::routed(Arc::new(route::LocalRoute::new(self.clone(), settings)))
    }

    /// Begins to choose who answers one request for such a model, for whoever does not ask it as a [`Model`].
    pub fn choose(&self, model: &str) -> Choosing {
        Choosing::new(self.clone(), model)
    }

    /// Returns what each model of an endpoint does for us.
    pub fn standing(&self, endpoint: &Endpoint) -> Vec<Standing> {
        self.inner.router.standing(endpoint)
    }

    /// Returns how many of a llama-server's slots are busy, also with others' requests, and how many there are; `None` if it
    /// does not say.
    pub async fn slots(&self, endpoint: &Endpoint) -> Option<(usize, usize)> {
        if endpoint.kind != Kind::LlamaCpp {
            return None;
        }
        let slots = self.inner.http.get(endpoint, "/slots", SLOTS).await.ok()?;
        let slots = slots.as_array()?;
        Some((slots.iter().filter(|slot| slot["is_processing"] == true).count(), slots.len()))
    }

    /// Returns the last lines of an endpoint's log, which `journalctl` tells on its machine.
    pub async fn log(&self, endpoint: &Endpoint, lines: u32) -> Result<String, SshFault> {
        self.inner.ssh.log(endpoint, lines).await
    }
}

impl Snapshot {
    /// Returns what the registry says of a model at a server.
    pub fn known(&self, kind: Kind, served: &Served) -> Option<&LocalModel> {
        self.models.iter().find(|model| model.kind == kind && served.is(model))
    }
}

/// Returns the active endpoint: the first that is online.
pub fn active(probed: &[Probed]) -> Option<(&Endpoint, &Online)> {
    probed.iter().find_map(|probed| Some((&probed.endpoint, probed.found.as_ref().ok()?)))
}

/// Returns a model's name for people, without its folder and how it is quantised.
pub fn shown_name(file: &str) -> &str {
    names::shown(file)
}

/// Returns a model's file for people, without its folder.
pub fn file_name(file: &str) -> &str {
    names::stem(file)
}
