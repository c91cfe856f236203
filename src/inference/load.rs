//! How a server is made to load a model, and waited for until that answers.

use std::time::Duration;

use serde_json::json;
use tokio::time::{self, Instant};

use super::{
    entries::{Endpoint, Kind, LocalModel},
    http::{Fault, Http},
    names,
    probe::{self, ModelState, Online, Served},
    registry::Snapshot,
    ssh::{Ssh, SshFault},
};
use crate::strings::localbot;

/// How often a server is asked what became of a load.
const LOOK: Duration = Duration::from_millis(100);
/// How long one question of a load may take.
const ASK: Duration = Duration::from_secs(30);
/// How long a model may take to be unloaded.
const UNLOAD: Duration = Duration::from_mins(1);

/// Why a model is not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadFault {
    /// The server's machine was not reached.
    Unreachable(String),
    /// The load itself has failed.
    Failed(String),
}

impl LoadFault {
    fn of(fault: &Fault) -> Self {
        match fault {
            Fault::Unreachable(_) | Fault::Slow(_) => Self::Unreachable(fault.to_string()),
            _ => Self::Failed(fault.to_string()),
        }
    }
}

impl From<SshFault> for LoadFault {
    fn from(fault: SshFault) -> Self {
        match fault {
            SshFault::Unreachable(why) => Self::Unreachable(why),
            SshFault::NotSet | SshFault::Failed(_) => Self::Failed(fault.to_string()),
        }
    }
}

/// Loads models.
#[derive(Clone, Debug)]
pub(super) struct Loader {
    pub(super) http: Http,
    pub(super) ssh: Ssh,
    /// How long one try may take, unless the endpoint has a limit of its own.
    pub(super) limit: Duration,
}

impl Loader {
    /// Loads a model after those of `evict` are unloaded, and waits until it answers. The error is for people.
    pub(super) async fn load(
        &self,
        snapshot: &Snapshot,
        endpoint: &Endpoint,
        model: &str,
        evict: &[String],
    ) -> Result<(), LoadFault> {
        let online = probe::one(&self.http, endpoint).await;
        match (endpoint.kind, &online) {
            (Kind::Vllm, _) => Err(LoadFault::Failed(localbot::only_its_own(&endpoint.name))),
            (Kind::Ollama, _) => {
                let body = json!({"model": model});
                let asked = self.http.post(endpoint, "/api/generate", &body, self.limit(endpoint));
                asked.await.map(drop).map_err(|fault| LoadFault::of(&fault))
            }
            (Kind::LlamaCpp, Ok(Online { router: Some(_), .. })) => {
                for victim in evict.iter().filter(|victim| *victim != model) {
                    self.unload(endpoint, victim).await.map_err(|fault| LoadFault::of(&fault))?;
                }
                self.load_in_router(endpoint, model).await
            }
            (Kind::LlamaCpp, _) => {
                let known = snapshot.models.iter().find(|known| is(known, endpoint, model));
                let known = known.ok_or_else(|| LoadFault::Failed(localbot::only_its_own(&endpoint.name)))?;
                self.ssh.restart(endpoint, known).await?;
                self.answers(endpoint, &known.file).await
            }
        }
    }

    /// Makes the server serve again what it served before a load that has failed.
    pub(super) async fn bring_back(
        &self,
        snapshot: &Snapshot,
        endpoint: &Endpoint,
        before: &str,
        failed: &str,
    ) -> Result<(), LoadFault> {
        match probe::one(&self.http, endpoint).await {
            Ok(online) if online.loaded().any(|served| is_called(served, before)) => Ok(()),
            Ok(Online { router: Some(_), .. }) => self.load_in_router(endpoint, before).await,
            _ if endpoint.kind == Kind::LlamaCpp && endpoint.ssh.is_some() => {
                tracing::info!(endpoint = endpoint.id, failed, "the unit gets back the model that it had");
                self.ssh.undo(endpoint).await?;
                let file = snapshot.models.iter().find(|known| is(known, endpoint, before));
                self.answers(endpoint, file.map_or(before, |known| &known.file)).await
            }
            Ok(_) => Ok(()),
            Err(fault) => Err(LoadFault::of(&fault)),
        }
    }

    /// A load may be queued behind another one for ever, and a model that is loaded may not be reached: both are mended by
    /// unloading it and loading it once more.
    async fn load_in_router(&self, endpoint: &Endpoint, model: &str) -> Result<(), LoadFault> {
        // What is loaded and still to be loaded does not answer.
        let state = self.state(endpoint, model).await.map_err(|fault| LoadFault::of(&fault))?;
        if matches!(state, Some(ModelState::Loaded | ModelState::Loading)) {
            self.unload(endpoint, model).await.map_err(|fault| LoadFault::of(&fault))?;
        }
        match self.try_in_router(endpoint, model).await {
            Err(NotLoaded::Stuck) => {
                tracing::warn!(
                    endpoint = endpoint.id,
                    model,
                    "a load does not end; the model is unloaded and loaded once more"
                );
                self.unload(endpoint, model).await.map_err(|fault| LoadFault::of(&fault))?;
                self.try_in_router(endpoint, model).await.map_err(|why| self.told(endpoint, why))
            }
            ended => ended.map_err(|why| self.told(endpoint, why)),
        }
    }

    async fn try_in_router(&self, endpoint: &Endpoint, model: &str) -> Result<(), NotLoaded> {
        let end = Instant::now() + self.limit(endpoint);
        self.http.post(endpoint, "/models/load", &json!({ "model": model }), ASK).await.map_err(NotLoaded::Fault)?;
        let mut began = false;
        loop {
            match self.state(endpoint, model).await.map_err(NotLoaded::Fault)? {
                Some(ModelState::Loaded) => return Ok(()),
                Some(ModelState::Failed | ModelState::Unloaded) if began => return Err(NotLoaded::Failed),
                None => return Err(NotLoaded::Failed),
                // What it says of a load before this one is over with the next look.
                Some(ModelState::Loading | ModelState::Failed) => began = true,
                Some(ModelState::Unloaded) => {}
            }
            if Instant::now() >= end {
                return Err(NotLoaded::Stuck);
            }
            time::sleep(LOOK).await;
        }
    }

    async fn unload(&self, endpoint: &Endpoint, model: &str) -> Result<(), Fault> {
        let end = Instant::now() + UNLOAD;
        match self.http.post(endpoint, "/models/unload", &json!({ "model": model }), ASK).await {
            // It says so of a model that is not loaded, which is what is wanted.
            Ok(_) | Err(Fault::Status(400, _)) => {}
            Err(fault) => return Err(fault),
        }
        while let Some(ModelState::Loaded | ModelState::Loading) = self.state(endpoint, model).await? {
            if Instant::now() >= end {
                return Err(Fault::Slow(UNLOAD));
            }
            time::sleep(LOOK).await;
        }
        Ok(())
    }

    async fn state(&self, endpoint: &Endpoint, model: &str) -> Result<Option<ModelState>, Fault> {
        let online = probe::one(&self.http, endpoint).await?;
        Ok(online.models.iter().find(|served| served.id == model).map(|served| served.state))
    }

    /// Waits until a server that was restarted serves this file.
    async fn answers(&self, endpoint: &Endpoint, file: &str) -> Result<(), LoadFault> {
        let limit = self.limit(endpoint);
        let end = Instant::now() + limit;
        loop {
            let last = match probe::one(&self.http, endpoint).await {
                Ok(online) if online.loaded().any(|served| is_called(served, file)) => return Ok(()),
                Ok(_) => localbot::SERVES_ANOTHER.to_owned(),
                Err(fault) => fault.to_string(),
            };
            if Instant::now() >= end {
                return Err(LoadFault::Failed(localbot::not_ready(limit, &last)));
            }
            time::sleep(LOOK).await;
        }
    }

    fn limit(&self, endpoint: &Endpoint) -> Duration {
        endpoint.load_limit.unwrap_or(self.limit)
    }

    fn told(&self, endpoint: &Endpoint, why: NotLoaded) -> LoadFault {
        LoadFault::Failed(match why {
            NotLoaded::Stuck => localbot::not_ready(self.limit(endpoint), localbot::STILL_LOADING),
            NotLoaded::Failed => localbot::LOAD_FAILED.to_owned(),
            NotLoaded::Fault(fault) => fault.to_string(),
        })
    }
}

/// Why a router has not loaded a model.
enum NotLoaded {
    /// It takes too long.
    Stuck,
    /// The server says that it has failed.
    Failed,
    /// The server does not answer.
    Fault(Fault),
}

fn is(known: &LocalModel, endpoint: &Endpoint, model: &str) -> bool {
    known.kind == endpoint.kind && (names::same(&known.file, model) || known.alias.eq_ignore_ascii_case(model))
}

fn is_called(served: &Served, name: &str) -> bool {
    names::same(name, &served.id) || served.file.as_deref().is_some_and(|file| names::same(name, file))
}
