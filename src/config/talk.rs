//! The Nextcloud Talk bot: all its settings come from a file of its own, so that the names in it are Nextcloud's and never meet
//! those of a Matrix account. The file may be one that everybody reads (the nix module writes such a one), unless a secret
//! stands in it.

mod keys;
mod values;

use std::{
    fmt, fs,
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::{Config, Mistakes, Wrong, cloud_bots::file, reading::Reading};
use crate::text;

/// The file in `STATE_DIR/secrets`.
const FILE: &str = "nextcloud-talk.env";
/// The name of the secret among the service's credentials.
const CREDENTIAL: &str = "bot-secret";
/// How long a bot's secret is, in bytes, as Nextcloud wants it.
const SECRET: RangeInclusive<usize> = 40..=128;
/// The largest file of settings that everybody may read, in bytes.
const LARGEST: u64 = 64 << 10;
/// The largest file with a secret that is read, in bytes.
const LARGEST_SECRET: u64 = 4096;

/// The accounts of Talk in the store: who chats, and the coding agent.
pub(crate) const TALK_ACCOUNTS: [&str; 2] = ["talk", "talk-coder"];

/// The settings of the Nextcloud Talk bot.
#[derive(Clone, Debug)]
pub struct Talk {
    /// The file that holds them.
    pub file: PathBuf,
    /// Where Nextcloud's webhook comes.
    pub listen: SocketAddr,
    /// The Nextcloud server.
    pub nextcloud: Url,
    /// The secret that bot and Nextcloud share.
    pub secret: SecretString,
    /// How people call it.
    pub called: String,
    /// The OpenAI-compatible endpoint, up to where `/chat/completions` follows.
    pub base_url: Url,
    /// The model's name as it is sent.
    pub model: String,
    /// The endpoint's key; `None` if it needs none.
    pub api_key: Option<SecretString>,
    /// Whom it hears, by their names in Nextcloud; if empty, everybody.
    pub users: Vec<String>,
    /// Pairs of question and answer that are kept as context.
    pub history_turns: usize,
    /// How long an answer may take.
    pub timeout: Duration,
    /// What the model is told besides the built-in prompt.
    pub system_prompt: Option<String>,
    /// Tokens of the conversations in which all that is said is meant for the bot.
    pub direct: Vec<String>,
    /// Where the coding agent works, and for whom; `None`: nowhere.
    pub coder: Option<TalkCoder>,
}

/// Where the coding agent works in Talk, and for whom. Neither is empty.
#[derive(Clone, Debug)]
pub struct TalkCoder {
    /// Tokens of its conversations.
    pub conversations: Vec<String>,
    /// Who may command it, by their names in Nextcloud.
    pub users: Vec<String>,
}

/// The file cannot be used. `Display` is one sentence for each mistake, which names the key and holds no value.
#[derive(Clone, Debug)]
pub struct RefusedTalk {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub mistakes: Mistakes,
}

impl fmt::Display for RefusedTalk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.mistakes.iter().enumerate() {
            write!(f, "{}{mistake}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl std::error::Error for RefusedTalk {}

impl Talk {
    /// Returns the path of the file.
    pub fn path(config: &Config) -> PathBuf {
        config.paths.talk_file.clone().unwrap_or_else(|| config.paths.secrets().join(FILE))
    }

    /// Returns whether the bot is to be served: its file is named, or is there.
    pub fn is_set_up(config: &Config) -> bool {
        config.paths.talk_file.is_some() || fs::symlink_metadata(Self::path(config)).is_ok()
    }

    /// Reads the file and the secret; `None` if the bot is not set up.
    ///
    /// # Errors
    ///
    /// The bot is set up, and cannot be served as it is.
    pub fn read(config: &Config) -> Result<Option<Self>, RefusedTalk> {
        if !Self::is_set_up(config) {
            return Ok(None);
        }
        let path = Self::path(config);
        let refused = |mistakes| RefusedTalk { file: path.clone(), mistakes };
        let text = text_of(&path).map_err(|wrong| refused(one(&file::shown(&path), wrong)))?;
        parse(&path, &text, config).map(Some).map_err(refused)
    }
}

/// Reads the file, unless others could change it.
fn text_of(path: &Path) -> Result<String, Wrong> {
    let metadata = fs::metadata(path).map_err(|error| file::unreadable(&error))?;
    // The nix module's file belongs to root, in a folder that nobody changes. Whether a secret in it is open to others is seen
    // once it is read.
    let may_be_open = metadata.uid() == 0 && metadata.mode() & 0o022 == 0;
    if may_be_open && metadata.mode() & 0o077 != 0 { open_text(path, LARGEST) } else { file::text(path) }
}

/// Reads a file of at most `largest` bytes, whoever may read it.
fn open_text(path: &Path, largest: u64) -> Result<String, Wrong> {
    let read = || {
        let file = file::open(path)?;
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(largest + 1).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    };
    let bytes = read().map_err(|error: io::Error| file::unreadable(&error))?.ok_or_else(|| file::no_file(path))?;
    if bytes.len() as u64 > largest {
        let what = format!("the file is larger than {}", text::human_bytes(largest));
        return Err(Wrong::new(what, "Keep only what belongs there in it"));
    }
    String::from_utf8(bytes).map_err(|_| Wrong::new("the file is no text", "Write it in UTF-8"))
}

fn one(key: &str, wrong: Wrong) -> Mistakes {
    let mut mistakes = Mistakes::default();
    mistakes.add(key, None, wrong);
    mistakes
}

/// Reads the text of the file.
fn parse(path: &Path, text: &str, config: &Config) -> Result<Talk, Mistakes> {
    let mut reader = Reading::new(Path::new(&file::shown(path)), text, keys::TALK);
    let secret = secret(&mut reader, config);
    let api_key = reader.optional(keys::MODEL_API_KEY);
    if let Some(open) = open_to_others(path) {
        // What everybody reads is a secret no more.
        if reader.has(keys::BOT_SECRET) {
            reader.wrong(keys::BOT_SECRET, open.clone());
        }
        if api_key.is_some() {
            reader.wrong(keys::MODEL_API_KEY, open);
        }
    }
    let conversations = reader.value(keys::CODER_CONVERSATIONS);
    let users = reader.value(keys::CODER_USERS);
    let coder = match (conversations.is_empty(), users.is_empty()) {
        (false, false) => Some(TalkCoder { conversations, users }),
        (true, true) => None,
        (false, true) => {
            let what = "it names nobody, and CODER_CONVERSATIONS is set: nobody could command the coding agent there";
            reader.wrong(keys::CODER_USERS, Wrong::new(what, "Write their names in Nextcloud, or remove the other"));
            None
        }
        (true, false) => {
            let what = "it names no conversation, and CODER_USERS is set";
            let mend =
                "Write the tokens of conversations, which stand at the end of their addresses, or remove the other";
            reader.wrong(keys::CODER_CONVERSATIONS, Wrong::new(what, mend));
            None
        }
    };
    if let Some((name, ..)) = config.all_accounts().find(|(name, ..)| TALK_ACCOUNTS.iter().any(|own| own == name)) {
        let what = format!("its account would be called `{name}`, as one of `matrix-agent.toml` is");
        reader.wrong(keys::NEXTCLOUD_URL, Wrong::new(what, "Rename that one"));
    }
    // What is missing is a mistake, so that nothing is returned with what stands for it here.
    let nextcloud = reader.needed(keys::NEXTCLOUD_URL);
    let base_url = reader.needed(keys::MODEL_BASE_URL);
    let any = || config.cloud_bots.homeserver.clone();
    let host: IpAddr = reader.value(keys::BOT_HOST);
    let talk = Talk {
        file: path.to_owned(),
        listen: SocketAddr::new(host, reader.value(keys::BOT_PORT)),
        nextcloud: nextcloud.unwrap_or_else(any),
        secret: secret.unwrap_or_default(),
        called: reader.value(keys::BOT_NAME),
        base_url: base_url.unwrap_or_else(any),
        model: reader.value(keys::MODEL_NAME),
        api_key,
        users: reader.value(keys::ALLOWED_USERS),
        history_turns: reader.value(keys::CONTEXT_MESSAGES),
        timeout: reader.value(keys::TIMEOUT),
        system_prompt: reader.optional(keys::SYSTEM_PROMPT),
        direct: reader.value(keys::DIRECT_CONVERSATIONS),
        coder,
    };
    reader.finish().map(|()| talk)
}

/// Returns the secret: from the file, from the file that it names, or from the service's credentials.
fn secret(reader: &mut Reading, config: &Config) -> Option<SecretString> {
    let typed = reader.optional(keys::BOT_SECRET);
    let named = reader.optional(keys::BOT_SECRET_FILE);
    let credential = || config.paths.credentials.as_ref().map(|folder| folder.join(CREDENTIAL));
    let found = match (typed, named) {
        (Some(secret), None) => Ok(secret),
        (Some(_), Some(_)) => Err(Wrong::new("BOT_SECRET is set, too", "Set one of the two")),
        (None, Some(path)) => file::text(&path).map(SecretString::from),
        // systemd lets the service's user alone read it, whatever its mode says.
        (None, None) => match credential().filter(|path| path.exists()) {
            Some(path) => open_text(&path, LARGEST_SECRET).map(SecretString::from),
            None => Err(Wrong::new(
                format!("neither it nor BOT_SECRET is set, and there is no credential `{CREDENTIAL}`"),
                "Write the path of a file that holds the secret; `openssl rand -hex 32` makes one",
            )),
        },
    };
    let found = found.map(|secret| SecretString::from(secret.expose_secret().trim())).and_then(|secret| {
        let length = secret.expose_secret().len();
        let wanted = || format!("Nextcloud wants {} to {}", SECRET.start(), SECRET.end());
        if SECRET.contains(&length) { Ok(secret) } else { Err(Wrong::new(format!("it has {length} bytes"), wanted())) }
    });
    // A secret that could not be parsed was told already.
    match found {
        Ok(secret) => Some(secret),
        Err(_) if reader.is_wrong(keys::BOT_SECRET) || reader.is_wrong(keys::BOT_SECRET_FILE) => None,
        Err(wrong) => {
            let typed = reader.has(keys::BOT_SECRET) && !reader.has(keys::BOT_SECRET_FILE);
            if typed {
                reader.wrong(keys::BOT_SECRET, wrong);
            } else {
                reader.wrong(keys::BOT_SECRET_FILE, wrong);
            }
            None
        }
    }
}

/// Returns what is wrong with a secret in a file that others can read.
fn open_to_others(path: &Path) -> Option<Wrong> {
    let mode = fs::metadata(path).ok()?.mode();
    (mode & 0o077 != 0).then(|| {
        let what = format!("other users of this machine may read it (mode {:03o} of the file)", mode & 0o7777);
        Wrong::new(what, format!("chmod 600 {}, or take it from another file", path.display()))
    })
}

#[cfg(test)]
mod tests;
