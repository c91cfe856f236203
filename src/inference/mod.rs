//! Inference servers of the operator's own: which there are, what they have loaded, how fast they are.
//!
//! Knows no rooms and no bots. `bots` asks it for the `/lb` commands.
//!
//! ```text
//! registry.rs  the three files → entries.rs, fields.rs
//! probe.rs, bench.rs  questions to servers → http.rs
//! ```

mod bench;
mod entries;
mod fields;
mod http;
mod names;
mod probe;
mod registry;

use std::{path::PathBuf, sync::Arc};

pub use bench::Measured;
pub use entries::{Endpoint, Kind, LocalModel, MappedRoom, Speeds};
pub use http::Fault;
pub use probe::{ModelState, Online, PROBE, Probed, Served};
pub use registry::{ENDPOINTS, MODELS, NotOne, ROOMS, Registry, Snapshot};

/// The operator's inference servers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Inference {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    http: http::Http,
}

impl Inference {
    /// Returns the servers of the registry in a folder; asks none of them yet.
    ///
    /// # Errors
    ///
    /// TLS cannot be set up.
    pub fn new(folder: PathBuf) -> Result<Self, reqwest::Error> {
        let inner = Inner { registry: Registry::new(folder), http: http::Http::new()? };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns the registry.
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// Asks all endpoints at the same time what they have, in the order of their priority. Takes at most [`PROBE`].
    pub async fn probe(&self, snapshot: &Snapshot) -> Vec<Probed> {
        probe::all(&self.inner.http, &snapshot.endpoints).await
    }

    /// Measures a model that an endpoint has loaded.
    pub async fn measure(&self, endpoint: &Endpoint, model: &str) -> Result<Measured, Fault> {
        bench::measure(&self.inner.http, endpoint, model).await
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
