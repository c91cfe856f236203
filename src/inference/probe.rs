//! What an inference server says of itself: whether it answers, what it has loaded and what it could load. Servers may
//! say anything: what is not as it should be is passed over.

use std::time::Duration;

use serde_json::Value;
use tokio::time;

use super::{
    entries::{Endpoint, Kind, LocalModel},
    http::{Fault, Http},
    names,
};
use crate::text;

/// How long a server may take to say all that it is asked for.
pub const PROBE: Duration = Duration::from_secs(5);
/// The most models of one server that are looked at.
const MOST: usize = 1000;
/// The longest name of a model.
const NAME: usize = 200;

/// An endpoint and what it says of itself.
#[derive(Clone, Debug)]
pub struct Probed {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// What it has, or why that is not known.
    pub found: Result<Online, Fault>,
}

/// What a server has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Online {
    /// Its models.
    pub models: Vec<Served>,
    /// How many may be loaded at the same time if it loads them when it is asked to: llama-server as a router.
    pub router: Option<usize>,
}

/// A model at a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// What the server calls it.
    pub id: String,
    /// Its file, if the server says that.
    pub file: Option<String>,
    /// What it does.
    pub state: ModelState,
    /// Its context in tokens.
    pub context: Option<u64>,
    /// How many bytes it takes.
    pub bytes: Option<u64>,
}

/// What a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// It answers.
    Loaded,
    /// It is being loaded, or fetched.
    Loading,
    /// It was loaded and its load has failed.
    Failed,
    /// It could be loaded.
    Unloaded,
}

impl Served {
    /// Returns its name for people: its file's, or what the server calls it.
    pub fn name(&self) -> &str {
        self.file.as_deref().unwrap_or(&self.id)
    }

    /// Returns whether it is this model of the registry.
    pub fn is(&self, model: &LocalModel) -> bool {
        names::same(&model.file, &self.id)
            || self.file.as_deref().is_some_and(|file| names::same(&model.file, file))
            || model.alias.eq_ignore_ascii_case(&self.id)
    }
}

impl Online {
    /// Returns the models that answer.
    pub fn loaded(&self) -> impl Iterator<Item = &Served> {
        self.models.iter().filter(|model| model.state == ModelState::Loaded)
    }
}

/// Asks all endpoints at the same time.
pub(super) async fn all(http: &Http, endpoints: &[Endpoint]) -> Vec<Probed> {
    let probes = endpoints
        .iter()
        .map(|endpoint| async { Probed { endpoint: endpoint.clone(), found: one(http, endpoint).await } });
    futures_util::future::join_all(probes).await
}

/// Asks one endpoint.
pub(super) async fn one(http: &Http, endpoint: &Endpoint) -> Result<Online, Fault> {
    let asked = async {
        match endpoint.kind {
            Kind::LlamaCpp => llama(http, endpoint).await,
            Kind::Vllm => Ok(vllm(&http.get(endpoint, "/v1/models", PROBE).await?)),
            Kind::Ollama => {
                let (loaded, all) =
                    tokio::try_join!(http.get(endpoint, "/api/ps", PROBE), http.get(endpoint, "/api/tags", PROBE))?;
                Ok(ollama(&loaded, &all))
            }
        }
    };
    time::timeout(PROBE, asked).await.unwrap_or(Err(Fault::Slow(PROBE)))
}

async fn llama(http: &Http, endpoint: &Endpoint) -> Result<Online, Fault> {
    // 503 while the model is being loaded, with those words.
    http.get(endpoint, "/health", PROBE).await?;
    match http.get(endpoint, "/props", PROBE).await {
        Ok(props) if props["role"] == "router" => Ok(router(&props, &http.get(endpoint, "/models", PROBE).await?)),
        Ok(props) => single(&props).ok_or(Fault::NoJson),
        // An old one, or one that says nothing of its properties.
        Err(Fault::Status(404 | 405 | 501, _)) => Ok(vllm(&http.get(endpoint, "/v1/models", PROBE).await?)),
        Err(fault) => Err(fault),
    }
}

fn single(props: &Value) -> Option<Online> {
    let path = name(&props["model_path"]).filter(|path| path != "none");
    let id = name(&props["model_alias"]).or_else(|| Some(names::stem(path.as_deref()?).to_owned()))?;
    let context = props["default_generation_settings"]["n_ctx"].as_u64();
    let model = Served { id, file: path, state: ModelState::Loaded, context, bytes: None };
    Some(Online { models: vec![model], router: None })
}

fn router(props: &Value, list: &Value) -> Online {
    let models = entries(&list["data"]).filter_map(|entry| {
        let status = &entry["status"];
        let state = match status["value"].as_str().unwrap_or_default() {
            "loaded" | "sleeping" => ModelState::Loaded,
            "loading" | "downloading" => ModelState::Loading,
            _ if status["failed"] == true => ModelState::Failed,
            _ => ModelState::Unloaded,
        };
        let arguments: Vec<_> = status["args"].as_array()?.iter().filter_map(Value::as_str).take(MOST).collect();
        let after = |names: &[&str]| Some(*arguments.get(arguments.iter().position(|word| names.contains(word))? + 1)?);
        // `context_length` is what the model could hold, not what it is given.
        let given = || after(&["--ctx-size", "-c"])?.parse().ok().filter(|size| *size > 0);
        let context = entry["meta"]["n_ctx"].as_u64().or_else(given).or_else(|| entry["context_length"].as_u64());
        Some(Served {
            id: name(&entry["id"])?,
            file: after(&["--model", "-m"]).map(|file| text::one_line(file, NAME)),
            state,
            context,
            bytes: entry["meta"]["size"].as_u64(),
        })
    });
    let max = props["max_instances"].as_u64().unwrap_or_default();
    Online { models: models.collect(), router: Some(usize::try_from(max).unwrap_or_default()) }
}

fn vllm(list: &Value) -> Online {
    let models = entries(&list["data"]).filter_map(|entry| {
        let context = [&entry["max_model_len"], &entry["meta"]["n_ctx"]].into_iter().find_map(Value::as_u64);
        Some(Served { id: name(&entry["id"])?, file: None, state: ModelState::Loaded, context, bytes: None })
    });
    Online { models: models.collect(), router: None }
}

fn ollama(loaded: &Value, all: &Value) -> Online {
    let read = |list: &Value, state| {
        let models = entries(&list["models"]).filter_map(|entry| {
            let id = name(&entry["name"]).or_else(|| name(&entry["model"]))?;
            let (context, bytes) = (entry["context_length"].as_u64(), entry["size"].as_u64());
            Some(Served { id, file: None, state, context, bytes })
        });
        models.collect::<Vec<_>>()
    };
    let mut models = read(loaded, ModelState::Loaded);
    let more = read(all, ModelState::Unloaded);
    models.extend(more.into_iter().filter(|model| !entries(&loaded["models"]).any(|entry| entry["name"] == model.id)));
    Online { models, router: None }
}

fn entries(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten().take(MOST)
}

fn name(value: &Value) -> Option<String> {
    value.as_str().map(|name| text::one_line(name, NAME)).filter(|name| !name.is_empty())
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
