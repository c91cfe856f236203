//! Cloud bots: each is a file of its own, `STATE_DIR/secrets/cloud-bot-NAME.env`, from which all its settings come.
//!
//! Nothing is taken from `.env` or the environment, so that no key meets another one's address. A file with a mistake is
//! refused whole, and the bots of the others are served.

pub(super) mod file;
mod keys;
pub(super) mod values;
mod written;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::Url;
use secrecy::SecretString;

use super::{Config, LOCAL_MODEL, Mistakes, Wrong, make_private, reading::Reading};
use crate::{ids, net, text};

/// How the names of their files begin and end.
const BEGINS: &str = "cloud-bot-";
const ENDS: &str = ".env";
/// The longest name: it becomes a part of the names of files and of an account.
const LONGEST: usize = 24;
/// The name of the file that shows how a bot's file is written. It ends unlike one, so that nobody takes it for a bot.
const TEMPLATE: &str = "cloud-bot-example.env.template";

/// The settings of a cloud bot.
#[derive(Clone, Debug)]
pub struct CloudBot {
    /// Its name, from that of its file.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// A digest of what the file holds: two of the same digest are the same bot.
    pub digest: String,
    /// The access token of its Matrix account.
    pub token: SecretString,
    /// The account's user id.
    pub user: String,
    /// Its homeserver.
    pub homeserver: Url,
    /// How people call it; `None`: by the first part of its user id.
    pub called: Option<String>,
    /// What is shown of its provider below answers; `None`: the endpoint's host.
    pub provider: Option<String>,
    /// The OpenAI-compatible endpoint, up to where `/chat/completions` follows; `None` if its model is one of the registry.
    pub base_url: Option<Url>,
    /// The model's name as it is sent.
    pub model: String,
    /// The endpoint's key; empty if its model is one of the registry.
    pub api_key: SecretString,
    /// Stands before every conversation.
    pub system_prompt: Option<String>,
    /// Tokens of an answer.
    pub max_tokens: u32,
    /// The sampling temperature.
    pub temperature: f64,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Pairs of question and answer that are kept as context.
    pub history_turns: usize,
    /// Whether the model is told not to think.
    pub disable_thinking: bool,
    /// How its thoughts are shown.
    pub thinking: Thinking,
    /// The rooms in which it works, by id or alias; if empty, none.
    pub rooms: Vec<String>,
    /// Requests in a minute.
    pub per_minute: u32,
    /// Requests in a day.
    pub per_day: u32,
    /// Requests that one person may cause in a minute, within those; `None`: all of them.
    pub per_minute_of_sender: Option<u32>,
    /// Requests that one person may cause in a day, likewise.
    pub per_day_of_sender: Option<u32>,
    /// Bots of the same group share the first two; `None`: it has them alone.
    pub group: Option<String>,
    /// Requests at the same time.
    pub at_once: usize,
    /// Users who are ignored, since they are bots.
    pub known_bots: Vec<String>,
    /// Headers that requests to the endpoint carry besides. Their values may be secrets.
    pub headers: BTreeMap<String, SecretString>,
    /// How long the homeserver may bring nothing until its stream is begun anew.
    pub watchdog: Duration,
}

/// Why a file of settings cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unwritten(String);

impl Unwritten {
    /// Returns the error with this cause.
    pub(super) fn of(cause: String) -> Self {
        Self(cause)
    }
}

/// How a model's thoughts are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thinking {
    /// Behind a spoiler.
    Spoiler,
    /// In a part that is opened by a click.
    Details,
    /// Not at all.
    Hidden,
}

/// A file of a cloud bot that cannot be used. `Display` is one sentence for each mistake, which names the key and holds
/// no value.
#[derive(Clone, Debug)]
pub struct RefusedBot {
    /// The bot's name, or the file's if that names no bot.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub mistakes: Mistakes,
}

impl fmt::Display for RefusedBot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.mistakes.iter().enumerate() {
            write!(f, "{}{mistake}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// The cloud bots, by their files.
#[derive(Clone, Debug, Default)]
pub struct CloudBots {
    /// Those that can be served, by name.
    pub bots: Vec<CloudBot>,
    /// The files that cannot be used.
    pub refused: Vec<RefusedBot>,
}

impl CloudBots {
    /// Reads all files, whether cloud bots are enabled or not, and changes nothing. Files that are none of a bot are not
    /// looked at.
    pub fn read(config: &Config) -> Self {
        let folder = config.paths.secrets();
        let mut found = Self::default();
        let names = match file::names(&folder) {
            Ok(names) => names,
            // Without a folder there are none; whether it may be one is told of the state directory.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return found;
            }
            Err(error) => {
                found.refuse(&folder, None, file::unreadable(&error));
                return found;
            }
        };
        for name in names {
            let path = folder.join(&name);
            let shown = text::one_line(&name.to_string_lossy(), 80);
            match name.to_str().and_then(bot_of) {
                Some(bot) => match read(bot, &path, config) {
                    Ok(bot) => found.add(bot, config),
                    Err(mistakes) => found.refused.push(RefusedBot { name: bot.to_owned(), file: path, mistakes }),
                },
                None => found.refuse(&path, None, bad_name(&shown)),
            }
        }
        found
    }

    /// Returns a value that changes when one of the files does, by what the file system says of them.
    pub fn stamp(config: &Config) -> Vec<String> {
        let folder = config.paths.secrets();
        let stamp = |name: OsString| {
            let found = fs::metadata(folder.join(&name)).ok();
            let found = found.map(|it| (it.ino(), it.len(), it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec()));
            format!("{} {found:?}", name.display())
        };
        file::names(&folder).map(|names| names.into_iter().map(stamp).collect()).unwrap_or_default()
    }

    /// Adds a bot, unless its account is taken: two bots of one account would both answer.
    fn add(&mut self, bot: CloudBot, config: &Config) {
        let account = bot.account();
        let others = config.all_accounts().map(|(name, matrix, _)| (name.to_owned(), matrix.user.clone()));
        let earlier = self.bots.iter().map(|bot| (file::shown(&bot.file), bot.user.clone()));
        let taken = others.chain(earlier).find(|(name, user)| *user == bot.user || *name == account);
        match taken {
            None => self.bots.push(bot),
            Some((name, user)) if user == bot.user => {
                let what = format!("{user} is the account of `{name}` already");
                let wrong = Wrong::new(what, "Give each bot an account of its own, or remove one of the two");
                self.refuse(&bot.file, Some(keys::BOT_MXID.about.name), wrong);
            }
            Some((name, _)) => {
                let what = format!("its account would be called `{name}`, as one of `matrix-agent.toml` is");
                self.refuse(&bot.file, None, Wrong::new(what, "Rename one of the two"));
            }
        }
    }

    fn refuse(&mut self, file: &Path, key: Option<&str>, wrong: Wrong) {
        let shown = file::shown(file);
        let name = bot_of(&shown).map_or_else(|| shown.clone(), str::to_owned);
        let mut mistakes = Mistakes::default();
        let key = key.map_or_else(|| shown.clone(), |key| format!("{key} ({shown})"));
        mistakes.add(&key, None, wrong);
        self.refused.push(RefusedBot { name, file: file.to_owned(), mistakes });
    }
}

impl CloudBot {
    /// Returns the name of its account in the store.
    pub fn account(&self) -> String {
        account_of_bot(&self.name)
    }

    /// Returns the path of a bot's file.
    ///
    /// # Errors
    ///
    /// The name could not become a part of file names.
    pub fn path(config: &Config, name: &str) -> Result<PathBuf, Wrong> {
        if !is_name(name) {
            return Err(bad_name(&text::one_line(name, 80)));
        }
        Ok(config.paths.secrets().join(format!("{BEGINS}{name}{ENDS}")))
    }

    /// Returns the path of the file that shows how a bot's file is written.
    pub fn template_path(config: &Config) -> PathBuf {
        config.paths.secrets().join(TEMPLATE)
    }

    /// Writes that file; returns where it is.
    ///
    /// # Errors
    ///
    /// The directory is not private or cannot be made so, or the file cannot be written.
    pub fn write_template(config: &Config) -> Result<PathBuf, Unwritten> {
        make_private(&config.paths.secrets()).map_err(|error| Unwritten(error.to_string()))?;
        let path = Self::template_path(config);
        file::write(&path, &Self::template()).map_err(|error| Unwritten(format!("{}: {error}", path.display())))?;
        Ok(path)
    }

    /// Returns the text of that file: every key with its meaning.
    pub fn template() -> String {
        let mut text = format!(
            "\
# Settings of a cloud bot. Copy this file to `{BEGINS}NAME{ENDS}` beside it, `chmod 600` it, and fill in what is empty; what is
# commented out shows the default. `matrix-agent cloud-bot add NAME` does so, and logs in.
"
        );
        keys::BOT.write(&mut text);
        text
    }
}

/// Returns the name of a cloud bot's account in the store.
pub(crate) fn account_of_bot(name: &str) -> String {
    format!("cloud-{name}")
}

/// Returns the name of one of a cloud bot's settings, such as `BOT_TOKEN in cloud-bot-llama.env`, by that of an account's:
/// `user`, `homeserver` or `password`.
pub(super) fn cloud_bot_setting(file: &str, key: &str) -> String {
    let key = match key {
        "user" => keys::BOT_MXID.about.name,
        "homeserver" => keys::HS_URL.about.name,
        _ => keys::BOT_TOKEN.about.name,
    };
    format!("{key} in {file}")
}

/// Returns the bot's name in that of its file.
fn bot_of(file: &str) -> Option<&str> {
    file.strip_prefix(BEGINS)?.strip_suffix(ENDS).filter(|name| is_name(name))
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    (1..=LONGEST).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(plain)
}

fn bad_name(shown: &str) -> Wrong {
    Wrong::new(
        format!("`{shown}` cannot name a bot"),
        format!("Use small letters, digits, `-` and `_`, {LONGEST} at most, as in `{BEGINS}llama{ENDS}`"),
    )
}

/// Reads one bot's file.
fn read(name: &str, path: &Path, config: &Config) -> Result<CloudBot, Mistakes> {
    match file::text(path) {
        Ok(text) => parse(name, path, &text, config),
        Err(wrong) => {
            let mut mistakes = Mistakes::default();
            mistakes.add(&file::shown(path), None, wrong);
            Err(mistakes)
        }
    }
}

/// Reads the text of one bot's file.
fn parse(name: &str, path: &Path, text: &str, config: &Config) -> Result<CloudBot, Mistakes> {
    let rules = &config.cloud_bots;
    let mut reader = Reading::new(Path::new(&file::shown(path)), text, keys::BOT);
    let homeserver = reader.optional(keys::HS_URL).unwrap_or_else(|| rules.homeserver.clone());
    if net::is_plain(&homeserver) && !rules.allow_plain_http {
        let what = format!("no token is sent to {homeserver}, since everybody on the way could read it");
        let mend = "Write an https:// address, or one of this machine such as http://127.0.0.1:8448; on a network that you \
                    trust set ALLOW_PLAIN_HTTP=true in `.env`";
        reader.wrong(keys::HS_URL, Wrong::new(what, mend));
    }
    let model = reader.needed(keys::LLM_MODEL).unwrap_or_default();
    let (base_url, api_key) = if model.starts_with(LOCAL_MODEL) {
        if reader.optional(keys::LLM_BASE_URL).is_some() {
            let mend = format!("Remove it, or write a name to LLM_MODEL that does not begin with `{LOCAL_MODEL}`");
            reader.wrong(keys::LLM_BASE_URL, Wrong::new("the registry says where its models are", mend));
        }
        (None, None)
    } else {
        (reader.needed(keys::LLM_BASE_URL), reader.needed(keys::LLM_API_KEY))
    };
    // What is missing is a mistake, so that no bot is returned with what stands for it here.
    let bot = CloudBot {
        name: name.to_owned(),
        file: path.to_owned(),
        digest: ids::digest(&[text], 16),
        token: reader.needed(keys::BOT_TOKEN).unwrap_or_default(),
        user: reader.needed(keys::BOT_MXID).unwrap_or_default(),
        called: reader.optional(keys::BOT_NAME),
        provider: reader.optional(keys::LLM_PROVIDER),
        base_url,
        homeserver,
        model,
        api_key: api_key.unwrap_or_default(),
        system_prompt: reader.optional(keys::LLM_SYSTEM_PROMPT),
        max_tokens: reader.value(keys::LLM_MAX_TOKENS),
        temperature: reader.value(keys::LLM_TEMPERATURE),
        timeout: reader.value(keys::LLM_TIMEOUT_S),
        history_turns: reader.value(keys::HISTORY_TURNS),
        disable_thinking: reader.value(keys::LLM_DISABLE_THINKING),
        thinking: reader.value(keys::SHOW_THINKING),
        rooms: reader.value(keys::ALLOWED_ROOMS),
        per_minute: reader.value(keys::RATE_LIMIT_RPM),
        per_day: reader.value(keys::RATE_LIMIT_RPD),
        per_minute_of_sender: reader.optional(keys::RATE_LIMIT_SENDER_RPM),
        per_day_of_sender: reader.optional(keys::RATE_LIMIT_SENDER_RPD),
        group: reader.optional(keys::RATE_LIMIT_GROUP),
        at_once: reader.value(keys::LLM_CONCURRENT_MAX),
        known_bots: reader.value(keys::KNOWN_BOT_MXIDS),
        headers: reader.optional(keys::EXTRA_HEADERS_JSON).unwrap_or_default(),
        watchdog: reader.value(keys::SYNC_WATCHDOG_S),
    };
    reader.finish().map(|()| bot)
}

#[cfg(test)]
mod tests;
