//! Finds the message of a refusal in whatever form it comes: JSON of any shape, an event, plain text, a web page.
//!
//! Pure; used by `refusal.rs`, which knows what the words mean.

use std::time::Duration;

use serde_json::{Deserializer, Value};

use super::error::ToldTokens;
use crate::json;

/// The content of a refusal.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// The sentence.
    pub(super) message: String,
    /// Type and code, joined, in lower case.
    pub(super) kind: String,
    /// A status in the body.
    pub(super) status: Option<u16>,
    /// How long to wait before the next try.
    pub(super) wait: Option<Duration>,
    /// Token counts, if the server has them in fields of their own (llama.cpp).
    pub(super) told: ToldTokens,
}

/// Fields that hold the sentence, as [`folded`] spells them; the first that exists counts.
const SENTENCES: [&str; 11] = [
    "message",
    "msg",
    "detail",
    "errormessage",
    "errormsg",
    "errordescription",
    "statusmsg",
    "faultstring",
    "reason",
    "description",
    "title",
];
/// Fields that may hold another object with the sentence.
const AROUND: [&str; 9] = ["error", "errors", "details", "fault", "baseresp", "body", "response", "data", "result"];
/// The depth to which the sentence is looked for.
const DEPTH: usize = 5;
/// The most items of a list that are read.
const LISTED: usize = 4;

/// Reads the body of a refusal.
pub(super) fn read(body: &[u8]) -> Words {
    let text = json::lossy(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body));
    let first = |text: &str| Deserializer::from_str(text).into_iter::<Value>().next()?.ok().filter(is_structure);
    let event = || text.split(['\n', '\r']).find_map(|line| first(line.trim_start().strip_prefix("data:")?));
    match first(&text).or_else(event) {
        Some(value) => {
            let mut words = words(&value);
            if words.message.is_empty() && !says_nothing(&value) {
                words.message = value.to_string();
            }
            words
        }
        None => Words { message: plain(body), ..Words::default() },
    }
}

/// Reads an error object: `{"error": {…}}`, `{"error": "…"}`, `[{"error": …}]` (Google), `{"message", "code"}`
/// (DashScope, vLLM), `{"detail": …}` (FastAPI), `{"errors": [{…}]}` (Cloudflare), `{"base_resp": {…}}` (MiniMax),
/// and OpenRouter's upstream error in `metadata.raw`.
pub(super) fn words(value: &Value) -> Words {
    let value = value.get(0).unwrap_or(value);
    let error = value.get("error").filter(|error| error.is_object()).unwrap_or(value);
    let mut message = sentence(error, DEPTH).or_else(|| sentence(value, DEPTH)).unwrap_or_default();
    let named = value.get("error").and_then(Value::as_str).filter(|named| !named.trim().is_empty());
    if let Some(named) = named.filter(|named| *named != message) {
        message = if message.is_empty() { named.to_owned() } else { format!("{named}: {message}") };
    }
    let raw = error.pointer("/metadata/raw").map(|raw| match raw {
        Value::String(raw) => serde_json::from_str(raw).map_or_else(|_| raw.clone(), |raw| words(&raw).message),
        raw => words(raw).message,
    });
    if let Some(inner) = raw.filter(|inner| !inner.is_empty() && *inner != message) {
        message = format!("{message}: {inner}");
    }
    let text = |key: &str| error.get(key).or_else(|| value.get(key)).and_then(Value::as_str).unwrap_or_default();
    let details = error.get("details").and_then(Value::as_array);
    let tokens = |key: &str| error.get(key).and_then(Value::as_u64);
    let delay = details.and_then(|list| list.iter().find_map(|item| item.get("retryDelay")?.as_str()));
    Words {
        message,
        kind: format!("{} {} {}", text("type"), text("code"), text("status")).to_lowercase(),
        status: status(error).or_else(|| status(value)),
        wait: delay
            .and_then(|delay| delay.strip_suffix('s')?.parse().ok())
            .and_then(|s| Duration::try_from_secs_f64(s).ok()),
        told: ToldTokens { limit: tokens("n_ctx"), asked: tokens("n_prompt_tokens") },
    }
}

/// Returns a status from an error's fields.
fn status(error: &Value) -> Option<u16> {
    ["code", "status", "status_code", "statusCode"].iter().find_map(|key| {
        let field = error.get(*key)?;
        let number = field.as_u64().or_else(|| field.as_str()?.parse().ok())?;
        u16::try_from(number).ok().filter(|status| (400..600).contains(status))
    })
}

/// Returns the sentence in a value; those of a list are joined.
fn sentence(value: &Value, depth: usize) -> Option<String> {
    let deeper = depth.checked_sub(1)?;
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
        Value::Array(list) => {
            let all: Vec<_> = list.iter().take(LISTED).filter_map(|item| sentence(item, deeper)).collect();
            (!all.is_empty()).then(|| all.join("; "))
        }
        Value::Object(fields) => {
            let under = |name: &&str| {
                let mut found = fields.iter().filter(|(key, _)| folded(key) == **name);
                found.find_map(|(_, field)| sentence(field, deeper))
            };
            let inner = || {
                let around = |(key, field): &(&String, &Value)| is_structure(field) && AROUND.contains(&&*folded(key));
                fields.iter().filter(around).find_map(|(_, field)| {
                    sentence(field, deeper).or_else(|| field.as_object()?.values().find_map(|it| sentence(it, deeper)))
                })
            };
            SENTENCES.iter().find_map(under).or_else(inner)
        }
        _ => None,
    }
}

/// Returns a field's name in one spelling: `errorMessage`, `error_message` and `Error-Message` become the same.
pub(super) fn folded(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '_' | '-')).map(|c| c.to_ascii_lowercase()).collect()
}

fn is_structure(value: &Value) -> bool {
    value.is_object() || value.is_array()
}

/// Returns whether a value is empty.
pub(super) fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.iter().all(says_nothing),
        Value::Object(fields) => fields.values().all(says_nothing),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// Returns plain text as it is, and of a web page only the title, which is the message of a proxy's error page.
fn plain(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    if !text.trim_start().starts_with('<') {
        return text.into_owned();
    }
    let title = text.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
    title.map(|(title, _)| title.to_owned()).unwrap_or_default()
}
