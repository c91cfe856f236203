//! Asks a server for the context size of a model that it runs. Each kind of server has its own way, and its answers
//! show which kind it is.
//!
//! Used by `model.rs`. Nothing waits for it for longer than [`WITHIN`], and a server that does not answer costs
//! nothing.

use std::time::Duration;

use futures_util::future::join;
use reqwest::{Client, RequestBuilder, Response, header::HeaderMap};
use serde_json::{Value, json};

use super::{endpoint::Endpoint, providers::Asking, window::Answer};
use crate::text;

/// How long all questions together may take.
pub(super) const WITHIN: Duration = Duration::from_secs(2);
/// How long the list of models may take where somebody waits for it.
const LOOKED_UP: Duration = Duration::from_secs(15);
/// The most bytes of an answer. A list of many hundred models is not read.
const MOST: usize = 1 << 20;

/// Asks the server. The key is sent only where requests go.
pub(super) async fn ask(http: &Client, endpoint: &Endpoint, headers: &HeaderMap) -> Answer {
    let (base, model) = (endpoint.base_url(), endpoint.model());
    let root = base.strip_suffix("/v1").unwrap_or(base);
    let get = |url: String| read(http.get(url).headers(headers.clone()));
    let in_list = || async { get(format!("{base}/models")).await.and_then(|list| listed(&list, model)) };
    let props = || async {
        let query = [("model", model), ("autoload", "false")];
        let request = http.get(format!("{root}/props")).query(&query).headers(headers.clone());
        read(request)
            .await
            .and_then(|props| props["default_generation_settings"]["n_ctx"].as_u64())
            .filter(|size| *size > 0)
    };
    let loaded = || async { get(format!("{root}/api/ps")).await.and_then(|list| ollama_loaded(&list, model)) };
    let shown = || async {
        let request = http.post(format!("{root}/api/show")).json(&json!({"model": model})).headers(headers.clone());
        read(request).await.and_then(|about| ollama_shown(&about))
    };
    let studio = || async { get(format!("{root}/api/v0/models")).await.and_then(|list| listed(&list, model)) };
    let holds = |found: Option<u64>| found.map(Answer::Holds);
    let answer = async {
        let found = match endpoint.asking() {
            Asking::Nobody => None,
            Asking::OpenRouter => {
                let endpoints = get(format!("{base}/models/{model}/endpoints")).await;
                holds(endpoints.and_then(|list| most(&list["data"]["endpoints"])))
            }
            Asking::Ollama => {
                let (loaded, shown) = join(loaded(), shown()).await;
                holds(loaded).or(shown)
            }
            Asking::Anything => {
                let (listed, props) = join(in_list(), props()).await;
                let told = holds(listed.or(props));
                if told.is_some() {
                    told
                } else {
                    let ((loaded, shown), studio) = join(join(loaded(), shown()), studio()).await;
                    holds(loaded.or(studio)).or(shown)
                }
            }
        };
        found.unwrap_or(Answer::Nothing)
    };
    tokio::time::timeout(WITHIN, answer).await.unwrap_or(Answer::Nothing)
}

/// What an endpoint's list of models says of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// It has the model.
    Has,
    /// It has others.
    HasOthers,
    /// It answers, and shows no list.
    Answers,
    /// It does not take the key.
    NoKey,
    /// It cannot be reached; the words tell why.
    Away(String),
}

/// Reads the endpoint's list of models, which costs nothing.
pub(super) async fn look_up(http: &Client, endpoint: &Endpoint, headers: &HeaderMap) -> Listed {
    let request = http.get(format!("{}/models", endpoint.base_url())).headers(headers.clone());
    let answer = match request.timeout(LOOKED_UP).send().await {
        Ok(answer) => answer,
        // The error's own text holds the address, its causes' do not.
        Err(error) => return Listed::Away(text::one_line(&text::root_cause(&error), 100)),
    };
    if matches!(answer.status().as_u16(), 401 | 403) {
        return Listed::NoKey;
    }
    let status = answer.status();
    if status.is_server_error() {
        return Listed::Away(format!("it answers with status {}", status.as_u16()));
    }
    let list = if status.is_success() { body(answer).await } else { None };
    let entries = list.as_ref().and_then(|list| list["data"].as_array().or_else(|| list.as_array()));
    let Some(entries) = entries.filter(|entries| !entries.is_empty()) else { return Listed::Answers };
    let names = |entry: &Value, name| [&entry["id"], &entry["name"]].iter().any(|known| known.as_str() == Some(name));
    if entries.iter().any(|entry| names(entry, endpoint.model())) { Listed::Has } else { Listed::HasOthers }
}

async fn read(request: RequestBuilder) -> Option<Value> {
    body(request.send().await.ok().filter(|answer| answer.status().is_success())?).await
}

async fn body(mut answer: Response) -> Option<Value> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.ok()? {
        body.extend_from_slice(&piece);
        if body.len() > MOST {
            return None;
        }
    }
    serde_json::from_slice(&body).ok()
}

/// Reads the size from a list of models: `max_model_len` (vLLM, SGLang), `meta.n_ctx` (llama-server),
/// `loaded_context_length` (LM Studio), `context_window` (Groq), `max_context_length` (Mistral), `context_length`
/// (many others).
fn listed(list: &Value, model: &str) -> Option<u64> {
    let entries = list["data"].as_array().or_else(|| list.as_array())?;
    let is_it = |entry: &&Value| {
        let aliases = entry["aliases"].as_array().into_iter().flatten();
        let mut names = [&entry["id"], &entry["name"]].into_iter().chain(aliases);
        names.any(|name| name.as_str() == Some(model))
    };
    // A server with one model serves it under any name.
    let entry = entries.iter().find(is_it).or_else(|| entries.first().filter(|_| entries.len() == 1))?;
    // LM Studio's `max_context_length` is what a model could hold, not what it was loaded with.
    let loaded_or_not = !entry["state"].is_null();
    let fields = [
        &entry["max_model_len"],
        &entry["meta"]["n_ctx"],
        &entry["loaded_context_length"],
        &entry["context_window"],
        &entry["context_length"],
        if loaded_or_not { &Value::Null } else { &entry["max_context_length"] },
    ];
    fields.into_iter().find_map(Value::as_u64)
}

/// Returns the largest context among the providers at which OpenRouter has a model, since it sends a request where it
/// fits.
fn most(endpoints: &Value) -> Option<u64> {
    endpoints.as_array()?.iter().filter_map(|endpoint| endpoint["context_length"].as_u64()).max()
}

fn ollama_loaded(list: &Value, model: &str) -> Option<u64> {
    let tagged = if model.contains(':') { model.to_owned() } else { format!("{model}:latest") };
    let is_it = |entry: &&Value| [&entry["name"], &entry["model"]].iter().any(|name| name.as_str() == Some(&tagged));
    list["models"].as_array()?.iter().find(is_it)?["context_length"].as_u64()
}

/// Reads Ollama's description of a model: `num_ctx` is what it gets, `….context_length` what it could hold.
fn ollama_shown(about: &Value) -> Option<Answer> {
    let mut parameters = about["parameters"].as_str().unwrap_or_default().lines();
    let set = parameters.find_map(|line| line.trim().strip_prefix("num_ctx")?.trim().parse().ok());
    let could = || {
        let mut facts = about["model_info"].as_object()?.iter();
        facts.find(|(name, _)| name.ends_with(".context_length")).and_then(|(_, value)| value.as_u64())
    };
    set.map(Answer::Holds).or_else(|| could().map(Answer::AtMost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_lists_are_read() {
        let single: Value =
            serde_json::from_str(include_str!("../../tests/llm/fixtures/llama-server-models.json")).unwrap();
        assert_eq!(listed(&single, "tiny-a"), Some(1024));
        assert_eq!(listed(&single, "any-name"), Some(1024), "it has one, and serves it under any name");
        let vllm = json!({"object": "list", "data": [
            {"id": "Qwen/Qwen3-8B", "object": "model", "owned_by": "vllm", "max_model_len": 40_960},
            {"id": "my-lora", "object": "model", "parent": "Qwen/Qwen3-8B", "max_model_len": 20_480},
        ]});
        assert_eq!(listed(&vllm, "my-lora"), Some(20_480));
        assert_eq!(listed(&vllm, "another"), None);
        let studio = |state: &str, loaded: Value| json!({"data": [{"id": "a", "state": state, "max_context_length": 131_072, "loaded_context_length": loaded}]});
        assert_eq!(listed(&studio("loaded", json!(4096)), "a"), Some(4096));
        assert_eq!(listed(&studio("not-loaded", Value::Null), "a"), None);
        assert_eq!(listed(&json!({"data": [{"id": "gpt-4o", "object": "model"}]}), "gpt-4o"), None);
        assert_eq!(listed(&json!({"error": "no"}), "a"), None);
    }

    #[test]
    fn what_ollama_says_is_read() {
        let list = json!({"models": [{"name": "qwen3:8b", "model": "qwen3:8b", "context_length": 4096}, {"name": "b:latest", "context_length": 8192}]});
        assert_eq!((ollama_loaded(&list, "qwen3:8b"), ollama_loaded(&list, "b")), (Some(4096), Some(8192)));
        assert_eq!(ollama_loaded(&list, "c"), None);
        let about = |parameters: &str| json!({"parameters": parameters, "model_info": {"general.architecture": "qwen3", "qwen3.context_length": 40_960}});
        assert_eq!(
            ollama_shown(&about("stop \"<|im_end|>\"\nnum_ctx                        16384")),
            Some(Answer::Holds(16_384))
        );
        assert_eq!(ollama_shown(&about("")), Some(Answer::AtMost(40_960)));
        assert_eq!(ollama_shown(&json!({})), None);
    }
}
