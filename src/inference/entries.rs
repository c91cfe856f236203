//! What stands in the three files of the registry. Pure: text in, entries or mistakes out.

use std::{env, fs, io, os::unix::fs::MetadataExt, path::PathBuf, time::Duration};

use reqwest::Url;
use secrecy::SecretString;
use serde::{Deserialize, de::DeserializeSeed};
use serde_json::Value;

use super::{
    fields::{Faults, Fields, Members, Twice, Under, unknown},
    names,
};

/// The most entries of one file.
const MOST: usize = 200;
/// The priority of an endpoint that names none.
const LAST: u64 = 100;

/// A kind of inference server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// llama.cpp's `llama-server`, with one model or as a router.
    LlamaCpp,
    /// vLLM.
    Vllm,
    /// Ollama.
    Ollama,
}

impl Kind {
    const ALL: [Self; 3] = [Self::LlamaCpp, Self::Vllm, Self::Ollama];

    /// Returns its name in the files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LlamaCpp => "llama-cpp",
            Self::Vllm => "vllm",
            Self::Ollama => "ollama",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Where an endpoint's API key is found. The key itself stands in none of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyPlace {
    /// In a file that only its owner can read.
    File(PathBuf),
    /// In a variable of the server's environment.
    Variable(String),
}

/// Why an endpoint's key is not to be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoKey {
    #[error("its API key's file cannot be read: {}", .0.kind())]
    File(#[from] io::Error),
    #[error("its API key's file can be read by others; close it with `chmod 600`")]
    Open,
    #[error("its API key's variable {0} is not set")]
    Variable(String),
}

/// An inference server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id, unique in the file.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// What kind of server it is.
    pub kind: Kind,
    /// Its address, without `/v1` and without a slash at the end.
    pub url: String,
    /// Lower goes first.
    pub priority: u64,
    pub(super) key: Option<KeyPlace>,
    /// Where `ssh` reaches its machine, as `user@host`.
    pub(super) ssh: Option<String>,
    /// The systemd unit that serves it there.
    pub(super) unit: Option<String>,
    /// The folder of its models on that machine.
    pub(super) models_dir: Option<String>,
    /// How many bytes its models may take together.
    pub(super) memory: Option<u64>,
    /// How long one of its models may take to be loaded.
    pub(super) load_limit: Option<Duration>,
}

impl Endpoint {
    /// Reads its key, which may be another one each time.
    pub(super) fn key(&self) -> Result<Option<SecretString>, NoKey> {
        let text = match &self.key {
            None => return Ok(None),
            Some(KeyPlace::Variable(name)) => env::var(name).map_err(|_| NoKey::Variable(name.clone()))?,
            Some(KeyPlace::File(path)) => {
                if fs::metadata(path)?.mode() & 0o077 != 0 {
                    return Err(NoKey::Open);
                }
                fs::read_to_string(path)?
            }
        };
        Ok(Some(SecretString::from(text.trim())))
    }
}

/// How fast a model is, in tokens a second: with an empty context, and with a full one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speeds {
    /// Generating, fresh and filled.
    pub generation: Option<(f64, f64)>,
    /// Reading the prompt, fresh and filled.
    pub prompt: Option<(f64, f64)>,
}

/// A model that an endpoint can serve.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalModel {
    /// The short name by which people choose it, unique in the file.
    pub alias: String,
    /// Its name for people.
    pub name: String,
    /// The kind of server that serves it.
    pub kind: Kind,
    /// Its name there: a file, or what Ollama and vLLM call it.
    pub file: String,
    /// Its context in tokens.
    pub context: Option<u64>,
    /// How it fits into the graphics memory, such as `full`.
    pub fit: Option<String>,
    /// Its speeds.
    pub speeds: Speeds,
    /// The id of the endpoint that serves it, if it is one in particular.
    pub(super) endpoint: Option<String>,
    /// Its file's path on the endpoint's machine.
    pub(super) path: Option<String>,
    /// The size of its file in bytes.
    pub(super) size: Option<u64>,
    /// Whether it stays loaded whatever else is asked for.
    pub(super) pinned: bool,
}

/// A room whose conversation with a bot people can begin anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedRoom {
    /// The room's id.
    pub room: String,
    /// One of our bots: account and bot, parted by a slash.
    pub agent: (String, String),
    /// Its name in commands.
    pub name: String,
    /// Whether everybody in it may begin it anew.
    pub public: bool,
}

/// Reads `inference-endpoints.json`; the endpoints in the order of their priority.
pub(super) fn endpoints(text: &str, faults: &mut Faults) -> Vec<Endpoint> {
    let known = [
        "id",
        "name",
        "type",
        "url",
        "priority",
        "notes",
        "apiKeyFile",
        "apiKeyEnv",
        "ssh",
        "unit",
        "modelsDir",
        "memory",
        "loadSeconds",
    ];
    let Some(list) = whole::<Value>(text, "endpoints", faults) else { return vec![] };
    let Some(list) = list.as_array() else {
        faults.add("endpoints", "write a list there");
        return vec![];
    };
    let mut all: Vec<Endpoint> = Vec::new();
    not_more(list.len(), "endpoints", faults);
    for (index, value) in list.iter().enumerate().take(MOST) {
        let place = format!("endpoints[{index}]");
        let Some(mut fields) = Fields::of(place, value, &known, faults) else { continue };
        let id = fields.required("id").filter(|id| fields.named("id", id));
        let kind = fields.required("type").and_then(|name| {
            let kind = Kind::of(&name);
            if kind.is_none() {
                fields.fault("type", "write `llama-cpp`, `vllm` or `ollama`");
            }
            kind
        });
        let url = fields.required("url").and_then(|url| address(&url).map_err(|what| fields.fault("url", what)).ok());
        let (name, priority) = (fields.text("name"), fields.whole("priority").unwrap_or(LAST));
        let key = match (fields.text("apiKeyFile"), fields.text("apiKeyEnv")) {
            (None, None) => None,
            (Some(path), None) if path.starts_with('/') => Some(KeyPlace::File(path.into())),
            (Some(_), None) => {
                fields.fault("apiKeyFile", "write its whole path");
                None
            }
            (None, Some(name)) => Some(KeyPlace::Variable(name)),
            (Some(_), Some(_)) => {
                fields.fault("apiKeyEnv", "there is `apiKeyFile` as well; keep one of them");
                None
            }
        };
        let [ssh, unit, models_dir] = ["ssh", "unit", "modelsDir"].map(|name| fields.plain(name));
        if unit.as_deref().is_some_and(|unit| unit.contains('/') || unit.starts_with('.')) {
            fields.fault("unit", "write the unit's name alone, such as `llama.service`");
        }
        if unit.is_some() != ssh.is_some() {
            fields.fault(if unit.is_some() { "ssh" } else { "unit" }, "`ssh` and `unit` are set both or not at all");
        }
        let memory = fields.size("memory");
        let load_limit = fields.whole("loadSeconds").map(Duration::from_secs);
        let (Some(id), Some(kind), Some(url)) = (id, kind, url) else { continue };
        if all.iter().any(|other| other.id.eq_ignore_ascii_case(&id)) {
            fields.fault("id", "another endpoint has it, too");
        }
        let name = name.unwrap_or_else(|| id.clone());
        all.push(Endpoint { id, name, kind, url, priority, key, ssh, unit, models_dir, memory, load_limit });
    }
    all.sort_by_key(|endpoint| endpoint.priority);
    all
}

/// Reads `localbot-models.json`, in its order.
pub(super) fn models(text: &str, faults: &mut Faults) -> Vec<LocalModel> {
    let known =
        ["alias", "name", "context", "vramFit", "speeds", "endpoint", "path", "fileSize", "pinned", "notes", "params"];
    let mut all: Vec<LocalModel> = Vec::new();
    let members = members(text, "models", faults);
    not_more(members.len(), "models", faults);
    for (key, value) in members.iter().take(MOST) {
        let place = format!("models.\"{key}\"");
        let named = key.split_once('/').and_then(|(kind, file)| Some((Kind::of(kind)?, file)));
        let Some((kind, file)) = named.filter(|(_, file)| !file.is_empty()) else {
            faults.add(&place, "write the kind of its server before its name, as in `llama-cpp/name.gguf`");
            continue;
        };
        let Some(mut fields) = Fields::of(place, value, &known, faults) else { continue };
        let alias = fields.required("alias").filter(|alias| fields.named("alias", alias));
        let name = fields.text("name").unwrap_or_else(|| names::stem(file).to_owned());
        let (context, fit) = (fields.whole("context"), fields.text("vramFit"));
        let speeds = speeds(&mut fields);
        let (endpoint, path) = (fields.text("endpoint"), fields.plain("path"));
        let (size, pinned) = (fields.size("fileSize"), fields.flag("pinned"));
        let Some(alias) = alias else { continue };
        if all.iter().any(|other| other.alias.eq_ignore_ascii_case(&alias)) {
            fields.fault("alias", "another model has it, too");
        }
        let file = file.to_owned();
        all.push(LocalModel { alias, name, kind, file, context, fit, speeds, endpoint, path, size, pinned });
    }
    all
}

fn speeds(fields: &mut Fields<'_>) -> Speeds {
    let known = ["genFresh", "genFilled", "promptFresh", "promptFilled"];
    let Some(mut speeds) = fields.inner("speeds", &known) else { return Speeds::default() };
    let mut pair = |fresh, filled| {
        let (fresh, filled) = (speeds.number(fresh), speeds.number(filled));
        Some((fresh.or(filled)?, filled.or(fresh)?))
    };
    Speeds { generation: pair("genFresh", "genFilled"), prompt: pair("promptFresh", "promptFilled") }
}

/// Reads `localbot-rooms.json`, in its order.
pub(super) fn rooms(text: &str, faults: &mut Faults) -> Vec<MappedRoom> {
    let known = ["agentId", "roomName", "publicReset", "notes"];
    let mut all: Vec<MappedRoom> = Vec::new();
    let members = members(text, "rooms", faults);
    not_more(members.len(), "rooms", faults);
    for (room, value) in members.iter().take(MOST) {
        let place = format!("rooms.\"{room}\"");
        if room.trim().is_empty() || room.chars().any(char::is_whitespace) {
            faults.add(&place, "that is no room's id");
        }
        let Some(mut fields) = Fields::of(place, value, &known, faults) else { continue };
        let agent = fields.required("agentId").and_then(|agent| {
            let parts = agent.split_once('/').filter(|(account, bot)| !account.is_empty() && !bot.is_empty());
            if parts.is_none() {
                fields.fault("agentId", "write one of our bots as `account/bot`, such as `coder/coder`");
            }
            parts.map(|(account, bot)| (account.to_owned(), bot.to_owned()))
        });
        let name = fields.required("roomName").filter(|name| fields.named("roomName", name));
        let public = fields.flag("publicReset");
        let (Some(agent), Some(name)) = (agent, name) else { continue };
        if all.iter().any(|other| other.name.eq_ignore_ascii_case(&name)) {
            fields.fault("roomName", "another room has it, too");
        }
        all.push(MappedRoom { room: room.clone(), agent, name, public });
    }
    all
}

impl Fields<'_> {
    /// Returns whether a name can be typed as one word.
    fn named(&mut self, field: &str, name: &str) -> bool {
        let typed = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        let good = name.len() <= 64 && name.chars().all(typed);
        if !good {
            self.fault(field, "write one word of letters, digits, `-`, `_` and `.`, 64 characters at most");
        }
        good
    }

    /// Returns a text that means nothing to a shell or to `ssh` but itself.
    fn plain(&mut self, field: &str) -> Option<String> {
        let text = self.text(field)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./@:+=,".contains(c);
        if !text.starts_with('-') && text.chars().all(plain) {
            return Some(text);
        }
        self.fault(field, "letters, digits and `-_./@:+=,` may stand there, and no `-` at its beginning");
        None
    }
}

/// Tells that a file has more entries than are read.
fn not_more(count: usize, name: &str, faults: &mut Faults) {
    if count > MOST {
        faults.add(name, format_args!("it has {count} entries, and {MOST} are the most"));
    }
}

/// Returns the members of the object that a file has under this name, in their order.
fn members(text: &str, name: &str, faults: &mut Faults) -> Vec<(String, Value)> {
    whole(text, name, faults).map_or_else(Vec::new, |Members(members)| members)
}

/// Returns what a file's object has under this name; nothing else belongs into it, and nothing stands twice.
fn whole<T: for<'de> Deserialize<'de>>(text: &str, name: &str, faults: &mut Faults) -> Option<T> {
    // What is no JSON is told below.
    let _ = Twice::new(faults).deserialize(&mut serde_json::Deserializer::from_str(text));
    let mut reader = serde_json::Deserializer::from_str(text);
    match Under::new(name).deserialize(&mut reader).and_then(|found| reader.end().map(|()| found)) {
        Ok((found, others)) => {
            unknown("", others.iter(), &[name, "notes"], faults);
            if found.is_none() {
                faults.add("", format_args!("it has no `{name}`"));
            }
            found
        }
        Err(error) => {
            faults.add("", error);
            None
        }
    }
}

/// Reads an address; what follows the host is kept but for `/v1`.
fn address(text: &str) -> Result<String, &'static str> {
    let url = Url::parse(text).map_err(|_| "it is no URL; write for example `http://192.168.0.27:8080`")?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err("it has to begin with `http://` or `https://` and to name a host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it must hold no user or password; a key goes into `apiKeyFile`");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it has to end without `?` or `#`");
    }
    let text = url.as_str().trim_end_matches('/');
    Ok(text.strip_suffix("/v1").unwrap_or(text).to_owned())
}
