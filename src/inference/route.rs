//! A model of the registry as everybody's model: for each request an endpoint is chosen, a lease waited for, and where one
//! does not answer the next one asked. [`Choosing`] does the same for whoever sends requests by other ways.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{FutureExt, future::BoxFuture};
use secrecy::{ExposeSecret, SecretString};

use super::{
    Inference,
    entries::{Endpoint, Kind, LocalModel},
    names,
    probe::Online,
    registry::Snapshot,
    router::{Lease, NoLease, Wanted},
};
use crate::{
    config, ids,
    llm::{Choice, Chosen, LlmError, Model, ModelSettings, Route},
    strings::localbot,
};

/// What a model's name begins with that is one of the registry; alone it is the active endpoint's.
pub const PREFIX: &str = config::LOCAL_MODEL;
/// What a router says of a model that it believes to be loaded and does not reach.
const LOST: &str = "Could not establish connection";
/// The attempts at one server before the next is asked.
const ATTEMPTS: usize = 2;

/// A model of the registry.
pub(super) struct LocalRoute {
    inference: Inference,
    /// What every server's client is made of, but for its name, address and key.
    settings: ModelSettings,
    /// The clients, by address and model, each with a digest of the key that it sends.
    models: Mutex<HashMap<(String, String), (String, Model)>>,
    /// Who was chosen last.
    last: Mutex<Option<Model>>,
}

/// Who might answer: an endpoint, and which model if it is one in particular.
#[derive(Clone, Debug)]
struct Candidate {
    endpoint: Endpoint,
    model: Option<LocalModel>,
}

impl LocalRoute {
    /// Returns a model of the registry: `settings.model` is `localbot/ALIAS`, `localbot/ENDPOINT`, or `localbot/` for the
    /// active endpoint. Nothing is read or asked yet, since the registry may change at any time.
    pub(super) fn new(inference: Inference, settings: ModelSettings) -> Self {
        Self { inference, settings, models: Mutex::default(), last: Mutex::default() }
    }

    /// Returns the client for a model at an endpoint.
    fn client(&self, endpoint: &Endpoint, model: &str) -> Result<Model, LlmError> {
        let at = (endpoint.url.clone(), model.to_owned());
        let key = endpoint.key().ok().flatten().unwrap_or_else(|| SecretString::from(""));
        let of_key = ids::digest(&[key.expose_secret()], 16);
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = models.get(&at).filter(|(sent, _)| *sent == of_key) {
            return Ok(client.clone());
        }
        let provider = match endpoint.kind {
            Kind::LlamaCpp => "llama-cpp",
            Kind::Ollama => "ollama",
            // With an address of its own it is any compatible server.
            Kind::Vllm => "openai",
        };
        let mut settings = ModelSettings {
            model: format!("{provider}/{model}"),
            base_url: Some(format!("{}/v1", endpoint.url)),
            key,
            ..self.settings.clone()
        };
        settings.limits.attempts = ATTEMPTS;
        let client = Model::new(settings)?;
        models.insert(at, (of_key, client.clone()));
        Ok(client)
    }
}

/// Returns who might answer for a model of the registry, the first ones first.
fn candidates(snapshot: &Snapshot, name: &str) -> VecDeque<Candidate> {
    let wanted = name.strip_prefix(PREFIX).unwrap_or_default();
    let mut endpoints: VecDeque<_> = snapshot.endpoints.iter().cloned().collect();
    if let Some(at) = endpoints.iter().position(|endpoint| endpoint.id.eq_ignore_ascii_case(wanted)) {
        let named = endpoints.remove(at);
        if let Some(named) = named {
            endpoints.push_front(named);
        }
    } else if !wanted.is_empty() {
        let Ok(model) = snapshot.model(wanted) else { return VecDeque::new() };
        let serves = |endpoint: &Endpoint| {
            endpoint.kind == model.kind && model.endpoint.as_ref().is_none_or(|own| *own == endpoint.id)
        };
        endpoints.retain(serves);
        return endpoints.into_iter().map(|endpoint| Candidate { endpoint, model: Some(model.clone()) }).collect();
    }
    endpoints.into_iter().map(|endpoint| Candidate { endpoint, model: None }).collect()
}

/// Returns what an endpoint answers with if nobody says which: what it has loaded, else what the registry names first of
/// all that it could load, else the first.
fn usual(snapshot: &Snapshot, endpoint: &Endpoint, online: &Online) -> Option<String> {
    let known = || {
        let mut known = snapshot.models.iter().filter(|model| model.kind == endpoint.kind);
        known.find_map(|model| online.models.iter().find(|served| served.is(model)))
    };
    online.loaded().next().or_else(known).or_else(|| online.models.first()).map(|served| served.id.clone())
}

impl Route for LocalRoute {
    fn name(&self) -> &str {
        &self.settings.model
    }

    fn begin(&self) -> Box<dyn Choice + '_> {
        Box::new(OfModels { route: self, choosing: Choosing::new(self.inference.clone(), &self.settings.model) })
    }

    fn likely(&self) -> Option<Model> {
        if let Some(last) = &*self.last.lock().unwrap_or_else(PoisonError::into_inner) {
            return Some(last.clone());
        }
        let snapshot = self.inference.registry().read();
        let Candidate { endpoint, model } = candidates(&snapshot, &self.settings.model).into_iter().next()?;
        let of_kind = || snapshot.models.iter().find(|model| model.kind == endpoint.kind).cloned();
        let model = model.or_else(of_kind)?;
        self.client(&endpoint, names::stem(&model.file)).ok()
    }
}

/// The choice of who answers one request for a model of the registry.
pub struct Choosing {
    inference: Inference,
    /// The model's name in full.
    name: String,
    left: VecDeque<Candidate>,
    /// Who was chosen last, with the lease that their answer needs.
    asked: Option<(Candidate, Arc<Lease>)>,
    /// Whether a model was loaded anew for this request.
    mended: bool,
    /// Why the last one could not be asked.
    why: Option<LlmError>,
}

/// Where a request is answered.
pub struct Place {
    /// The server.
    pub endpoint: Endpoint,
    /// Keeps the model loaded there, and says by which name; held until the answer is over.
    pub lease: Arc<Lease>,
}

impl Place {
    /// Returns the server's key. If it needs one that cannot be read, the registry tells that, and the server refuses.
    pub fn key(&self) -> Option<SecretString> {
        self.endpoint.key().ok().flatten()
    }
}

impl Choosing {
    pub(super) fn new(inference: Inference, name: &str) -> Self {
        let left = candidates(&inference.registry().read(), name);
        Self { inference, name: name.to_owned(), left, asked: None, mended: false, why: None }
    }

    /// Returns who answers, at first and after each one that has `failed` in these words; `None` if that was the last.
    pub async fn next(&mut self, failed: Option<&str>) -> Option<Result<Place, LlmError>> {
        if let Some((candidate, lease)) = self.asked.take()
            && failed.is_some_and(|why| why.contains(LOST))
            && !self.mended
        {
            self.mended = true;
            lease.broken();
            self.left.push_front(candidate);
        }
        while let Some(candidate) = self.left.pop_front() {
            let endpoint = candidate.endpoint.clone();
            match self.lease(&candidate).await {
                Ok(lease) => {
                    let lease = Arc::new(lease);
                    self.asked = Some((candidate, Arc::clone(&lease)));
                    return Some(Ok(Place { endpoint, lease }));
                }
                Err(why) => {
                    tracing::warn!(endpoint = endpoint.id, ?why, "an endpoint of the registry cannot be asked");
                    self.why = Some(unreachable(&endpoint, &why));
                }
            }
        }
        // Nobody was asked at all: why the last one was not is the answer.
        if failed.is_some() {
            return None;
        }
        let nobody = || LlmError::Unreachable { host: self.name.clone(), why: localbot::NOBODY.to_owned() };
        Some(Err(self.why.take().unwrap_or_else(nobody)))
    }

    /// Waits for a candidate's model.
    async fn lease(&self, candidate: &Candidate) -> Result<Lease, NoLease> {
        let Candidate { endpoint, model } = candidate;
        if let Some(model) = model {
            return self.inference.lease(endpoint, model).await;
        }
        let online = self.inference.look(endpoint).await.map_err(NoLease::Offline)?;
        let snapshot = self.inference.registry().read();
        let id = usual(&snapshot, endpoint, &online).ok_or(NoLease::NotServed)?;
        self.inference.inner.router.lease(endpoint, Wanted::Named(&id)).await
    }
}

/// The choice for one request of everybody's model.
struct OfModels<'r> {
    route: &'r LocalRoute,
    choosing: Choosing,
}

impl OfModels<'_> {
    async fn choose(&mut self, failed: Option<&LlmError>) -> Option<Result<Chosen, LlmError>> {
        let failed = failed.map(ToString::to_string);
        let chosen = match self.choosing.next(failed.as_deref()).await? {
            Ok(Place { endpoint, lease }) => self.route.client(&endpoint, lease.model()).map(|model| {
                *self.route.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(model.clone());
                Chosen { model, guard: Box::new(lease) }
            }),
            Err(error) => Err(error),
        };
        Some(chosen)
    }
}

impl Choice for OfModels<'_> {
    fn next<'a>(&'a mut self, failed: Option<&'a LlmError>) -> BoxFuture<'a, Option<Result<Chosen, LlmError>>> {
        self.choose(failed).boxed()
    }
}

fn unreachable(endpoint: &Endpoint, why: &NoLease) -> LlmError {
    let why = match why {
        NoLease::Offline(fault) => fault.to_string(),
        NoLease::NotServed => localbot::NOT_THERE.to_owned(),
        NoLease::Failed { why: super::LoadFault::Unreachable(why) | super::LoadFault::Failed(why), .. } => why.clone(),
        NoLease::NoRoom => localbot::NO_ROOM.to_owned(),
        NoLease::Waited => localbot::WAITED.to_owned(),
    };
    LlmError::Unreachable { host: endpoint.name.clone(), why }
}
