//! The settings as typed: the text of each with its source. The environment wins over `.env`, and `.env` over
//! `matrix-agent.toml`.
//!
//! Knows the names of the settings, not the meaning of their values. Unknown names in the two files are mistakes,
//! since the files contain nothing else; the environment belongs to everybody, so unknown names in it are not.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use toml::Spanned;

use super::{
    AgentProfile, Mistakes, ModelFacts, Price, Source, Wrong, accounts, dotenv,
    keys::{self, About, Table},
    parse,
    places::{self, Sources},
    value,
};
use crate::text;

/// The largest file of settings, in bytes.
const LARGEST: u64 = 1 << 20;

/// The text of a setting. It may be a secret, so there is no `Debug`.
#[derive(Clone)]
pub(super) struct Typed {
    /// The text.
    pub text: String,
    /// Its source.
    pub source: Source,
}

/// Everything that was typed.
#[derive(Clone, Default)]
pub(super) struct Raw {
    /// The settings, by name.
    values: BTreeMap<&'static str, Typed>,
    /// The table `[models]`, by model string.
    models: BTreeMap<String, ModelFacts>,
    /// The table `[accounts]`.
    pub(super) accounts: Vec<accounts::Typed>,
    /// The table `[agents]`.
    pub(super) profiles: Vec<AgentProfile>,
    /// Whether a file has something that could not be read and may be the state directory.
    pub(super) may_hide_state: bool,
}

impl Raw {
    /// Reads all layers. Mistakes are added to `mistakes`.
    pub(super) fn read(sources: &Sources, mistakes: &mut Mistakes) -> Self {
        let mut raw = Self::default();
        let before = mistakes.iter().count();
        let file = open(sources, sources.file.as_deref(), places::FILE, mistakes);
        let env_file = open(sources, sources.env_file.as_deref(), places::ENV_FILE, mistakes);
        raw.may_hide_state = mistakes.iter().count() > before;
        if let Some((path, text)) = file {
            raw.add_file(&path, &text, mistakes);
        }
        if let Some((path, text)) = env_file {
            raw.add_env_file(&path, &text, keys::ENV, mistakes);
        }
        for about in keys::ALL {
            match sources.environment.get(&OsString::from(about.name)).map(|value| value.to_str()) {
                Some(Some(text)) => raw.set(about, text, Source::Environment),
                Some(None) => {
                    let wrong = Wrong::new("it is not valid UTF-8", "Write it in UTF-8");
                    mistakes.add(about.name, Some(Source::Environment), wrong);
                }
                None => {}
            }
        }
        raw
    }

    /// Reads a file of `KEY = value` lines that holds the settings of `table` and nothing else; it is shown as `path`.
    pub(super) fn of_file(path: &Path, text: &str, table: Table, mistakes: &mut Mistakes) -> Self {
        let mut raw = Self::default();
        raw.add_env_file(path, text, table, mistakes);
        raw
    }

    /// Returns the typed text of a setting.
    pub(super) fn get(&self, about: &About) -> Option<&Typed> {
        self.values.get(about.name)
    }

    /// Returns what the file says about a model.
    pub(super) fn model(&self, model: &str) -> ModelFacts {
        self.models.get(model).copied().unwrap_or_default()
    }

    /// Returns what the file says of models' prices.
    pub(super) fn prices(&self) -> BTreeMap<String, Price> {
        self.models.iter().filter_map(|(model, facts)| Some((model.clone(), facts.price?))).collect()
    }

    /// An empty value counts as not set, as a line of `.env.example` that nobody filled in; not so for a list, where
    /// it may mean "nobody" or "no host", and taking the default instead would open what was meant to be shut.
    fn set(&mut self, about: &'static About, text: &str, source: Source) {
        let text = if about.secret { text } else { text.trim() };
        if !text.is_empty() || about.list {
            self.values.insert(about.name, Typed { text: text.to_owned(), source });
        }
    }

    fn add_env_file(&mut self, path: &Path, text: &str, table: Table, mistakes: &mut Mistakes) {
        let (lines, broken) = dotenv::read(text);
        for line in broken {
            self.may_hide_state |=
                text.lines().nth(line - 1).is_some_and(|line| line.to_uppercase().contains(STATE_DIR));
            let source = Source::EnvFile { path: path.to_owned(), line };
            let wrong = Wrong::new(
                "the line is not `KEY = value`",
                "Mend or remove it; a value with a quote in it stands in quotes of the other kind",
            );
            mistakes.add(&name_of(path), Some(source), wrong);
        }
        let mut seen = BTreeMap::new();
        for line in lines {
            let source = Source::EnvFile { path: path.to_owned(), line: line.number };
            match table.find(&line.key) {
                Some(about) => {
                    // A line without a value is one of `.env.example` that nobody filled in.
                    let earlier = (!line.value.is_empty()).then(|| seen.insert(about.name, line.number)).flatten();
                    if let Some(earlier) = earlier {
                        let what = format!("it stands in the file twice, also in line {earlier}");
                        mistakes.add(about.name, Some(source.clone()), Wrong::new(what, "Keep one of the lines"));
                    }
                    self.set(about, &line.value, source);
                }
                None => self.unknown(&line.key, table, source, mistakes),
            }
        }
    }

    fn add_models(&mut self, value: toml::Value, source: Source, mistakes: &mut Mistakes) {
        let toml::Value::Table(models) = value else {
            let wrong =
                Wrong::new("it is no table", "Write `[models.\"ollama/qwen3\"]` and the model's facts below it");
            return mistakes.add(MODELS, Some(source), wrong);
        };
        for (model, facts) in models {
            match facts.try_into::<ModelFacts>() {
                Ok(facts) => drop(self.models.insert(model, facts)),
                Err(error) => {
                    let wrong = Wrong::new(
                        text::one_line(error.message(), 200),
                        "What can be said of a model is `context_window = 131072`, `vision = true`, and its price in dollars for a \
                         million tokens, `price = { input = 3, cached = 0.3, output = 15 }`",
                    );
                    mistakes.add(&format!("{MODELS}.\"{}\"", text::one_line(&model, 60)), Some(source.clone()), wrong);
                }
            }
        }
    }

    fn add_accounts(&mut self, value: toml::Value, source: &Source, mistakes: &mut Mistakes) {
        let mend = "Write `[accounts.NAME]` and `user = \"@name:example.org\"` below it";
        let toml::Value::Table(table) = value else {
            return mistakes.add(accounts::TABLE, Some(source.clone()), Wrong::new("it is no table", mend));
        };
        for (name, account) in table {
            let toml::Value::Table(entries) = account else {
                let key = format!("{}.{}", accounts::TABLE, text::one_line(&name, 40));
                mistakes.add(&key, Some(source.clone()), Wrong::new("it is no table", mend));
                continue;
            };
            self.accounts.push(accounts::Typed { name, entries, source: source.clone() });
        }
    }

    fn add_profiles(&mut self, value: toml::Value, source: &Source, mistakes: &mut Mistakes) {
        let mend = "Write `[agents.NAME]` and the agent's profile below it";
        let toml::Value::Table(table) = value else {
            return mistakes.add(AGENTS, Some(source.clone()), Wrong::new("it is no table", mend));
        };
        for (name, profile) in table {
            let key = || format!("{AGENTS}.{}", text::one_line(&name, 40));
            match (parse::agent(&name), profile) {
                (Ok(name), toml::Value::Table(entries)) => {
                    self.profiles.push(AgentProfile { name, entries, source: source.clone() });
                }
                (Ok(_), _) => mistakes.add(&key(), Some(source.clone()), Wrong::new("it is no table", mend)),
                (Err(wrong), _) => mistakes.add(&key(), Some(source.clone()), wrong),
            }
        }
    }

    fn add_file(&mut self, path: &Path, text: &str, mistakes: &mut Mistakes) {
        let at = |offset: usize| Source::File { path: path.to_owned(), line: 1 + lines_before(text, offset) };
        // `error.to_string()` would show the line, which may contain a secret.
        let entries = match toml::from_str::<BTreeMap<Spanned<String>, toml::Value>>(text) {
            Ok(entries) => entries,
            Err(error) => {
                self.may_hide_state |= text.lines().any(|line| line.trim().to_uppercase().starts_with(STATE_DIR));
                let source = error.span().map(|span| at(span.start));
                let wrong =
                    Wrong::new("the file is not valid TOML", "Mend the line, as in `llm_model = \"ollama/qwen3\"`");
                return mistakes.add(&name_of(path), source, wrong);
            }
        };
        for (name, value) in entries {
            let source = at(name.span().start);
            if name.get_ref() == MODELS {
                self.add_models(value, source, mistakes);
                continue;
            }
            if name.get_ref() == accounts::TABLE {
                self.add_accounts(value, &source, mistakes);
                continue;
            }
            if name.get_ref() == AGENTS {
                self.add_profiles(value, &source, mistakes);
                continue;
            }
            let Some(about) = keys::ENV.find(name.get_ref()) else {
                self.unknown(name.get_ref(), keys::ENV, source, mistakes);
                continue;
            };
            match value::text(&value, about.several) {
                Ok(value) => self.set(about, &value, source),
                Err(wrong) => mistakes.add(about.name, Some(source), wrong),
            }
        }
    }

    fn unknown(&mut self, name: &str, table: Table, source: Source, mistakes: &mut Mistakes) {
        // A stray line of a secret can look like a key, so a name unlike ours is not repeated.
        let like_ours = name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        let list = format!("Remove the line; `{}` lists all settings", table.listed_in);
        self.may_hide_state |= table.nearest(name) == Some(STATE_DIR);
        let (name, mend) = match table.nearest(name) {
            Some(known) => (name, format!("Did you mean {known}? If not, remove the line")),
            None if like_ours => (name, list),
            None => ("(unknown)", list),
        };
        mistakes.add(name, Some(source), Wrong::new("there is no such setting", mend));
    }
}

/// The table with profiles of coding agents.
const AGENTS: &str = "agents";

/// The name of the setting of the state directory.
const STATE_DIR: &str = keys::STATE_DIR.about.name;

/// The table in the file that tells of models what their names do not.
const MODELS: &str = "models";

fn lines_before(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Opens the file that was named, which must exist, or else the usual one, which need not.
fn open(sources: &Sources, named: Option<&Path>, usual: &str, mistakes: &mut Mistakes) -> Option<(PathBuf, String)> {
    let path = match named {
        Some(named) => sources.working_directory.join(named),
        None => sources.folder()?.join(usual),
    };
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(&path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let wrong = match read() {
        Ok(bytes) if bytes.len() as u64 > LARGEST => {
            Wrong::new("the file is larger than 1 MiB", "Name a file of settings")
        }
        Ok(bytes) => match String::from_utf8(bytes) {
            // Shown as it was named, so that lines stay short.
            Ok(text) => return Some((named.map_or(path, Path::to_owned), text)),
            Err(_) => Wrong::new("the file is not valid UTF-8", "Save it in UTF-8"),
        },
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && named.is_none() && fs::symlink_metadata(&path).is_err() =>
        {
            return None;
        }
        Err(error) => {
            Wrong::new(format!("it cannot be read ({error})"), "Check that it exists and may be read by this user")
        }
    };
    mistakes.add(&path.display().to_string(), None, wrong);
    None
}
