//! The settings: what was typed (`raw`) and what it means ([`Config`]).
//!
//! A low layer. It must not know providers, hosts' patterns or Podman; whoever knows them adds what is wrong to the
//! same [`Mistakes`] (`ops::settings` does). Called once at start by `cli`; everybody above gets the typed parts.

mod accounts;
mod dotenv;
mod folders;
pub mod keys;
mod meaning;
mod mistakes;
pub mod parse;
mod places;
mod raw;
mod source;

use std::{net::IpAddr, num::NonZeroU64, path::PathBuf, time::Duration};

use reqwest::Url;
use secrecy::SecretString;
use serde::Deserialize;

pub use folders::{FolderError, check_private, make_private};
pub use meaning::{Loaded, Setting, load};
pub(crate) use mistakes::sentence;
pub use mistakes::{Mistake, Mistakes, Wrong};
pub use places::{Sources, Unread};
pub use source::Source;

use crate::net;

/// What the settings mean.
#[derive(Clone, Debug)]
pub struct Config {
    /// The orchestrator's model.
    pub llm: Llm,
    /// Gemini's models, for coding agents.
    pub gemini: Provider,
    /// Qwen's models, for coding agents.
    pub qwen: Provider,
    /// GitHub's token, which the gateway adds to requests.
    pub credentials: Credentials,
    /// The sandboxes.
    pub sandbox: Sandbox,
    /// The Matrix account; `None` when no bot user is set.
    pub matrix: Option<Matrix>,
    /// The accounts beside it.
    pub accounts: Vec<MatrixAccount>,
    /// Who may do what.
    pub people: People,
    /// The coding agents.
    pub agents: Agents,
    /// How much anything may take.
    pub limits: Limits,
    /// Where things live.
    pub paths: Paths,
}

/// The orchestrator's model.
#[derive(Clone, Debug)]
pub struct Llm {
    /// The model string in LiteLLM's form.
    pub model: String,
    /// The key; local providers need none.
    pub api_key: Option<SecretString>,
    /// Another endpoint than the provider's own.
    pub base_url: Option<Url>,
    /// Silence after which an answer is given up.
    pub idle: Duration,
    /// What `matrix-agent.toml` says of this model.
    pub facts: ModelFacts,
}

/// What a model's name does not tell; `[models."NAME"]` in `matrix-agent.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFacts {
    /// Tokens that fit in its context.
    pub context_window: Option<NonZeroU64>,
    /// Whether it sees pictures.
    pub vision: Option<bool>,
}

/// Models that coding agents ask through the gateway.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The key, which stays in the gateway. Without it these models are not there.
    pub api_key: Option<SecretString>,
    /// The endpoint.
    pub base_url: Url,
    /// The models' names.
    pub models: Vec<String>,
}

/// Secrets that only the gateway uses.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// For pull requests and granted repositories.
    pub github: Option<SecretString>,
}

/// Which coding agent does what.
#[derive(Clone, Debug)]
pub struct Agents {
    /// Who plans.
    pub plan: AgentRole,
    /// Who implements.
    pub implement: AgentRole,
    /// Who reviews.
    pub review: AgentRole,
}

/// The coding agents of a role.
#[derive(Clone, Debug)]
pub struct AgentRole {
    /// Who serves it.
    pub first: AgentChoice,
    /// Who goes on where that one could not, in this order.
    pub fallback: Vec<AgentChoice>,
}

/// A coding agent with its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentChoice {
    /// The agent.
    pub cli: AgentCli,
    /// Its model; `None`: its usual one.
    pub model: Option<String>,
}

impl AgentRole {
    /// Returns all of them, in the order in which they are tried.
    pub fn all(&self) -> impl Iterator<Item = &AgentChoice> {
        [&self.first].into_iter().chain(&self.fallback)
    }
}

/// A coding agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentCli {
    /// Gemini CLI.
    Gemini,
    /// Qwen Code.
    Qwen,
}

/// The sandboxes.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The podman program.
    pub podman_path: PathBuf,
    /// Podman's API socket.
    pub podman_socket: PathBuf,
    /// The image.
    pub image: String,
    /// Memory in bytes.
    pub memory: u64,
    /// Processors.
    pub cpus: f64,
    /// Processes and threads.
    pub pids: u32,
    /// Disk space in bytes.
    pub disk: u64,
    /// Patterns of hosts, and the words `default` and `*`, as they were typed; the gateway knows what they mean.
    pub allowed_hosts: Vec<String>,
    /// Whether a model's provider may reach into the web for a coding agent.
    pub web_search: bool,
    /// Certificates that sandboxes trust.
    pub ca_bundle: Option<PathBuf>,
    /// Time without work after which a sandbox is stopped.
    pub idle: Duration,
    /// Memory that all of them may use together.
    pub memory_total: Part,
    /// Sandboxes that run at the same time.
    pub max_running: usize,
}

/// The Matrix account.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The homeserver.
    pub homeserver: Url,
    /// Whether a password may be sent there although everybody on the way can read it.
    pub allow_plain_http: bool,
    /// The bot.
    pub user: String,
    /// Its password, needed for the first login only.
    pub password: Option<SecretString>,
    /// The administrator.
    pub admin_user: Option<String>,
    /// Their password, from which the account is made.
    pub admin_password: Option<SecretString>,
    /// The address from which all this was derived.
    pub vps_ip: Option<IpAddr>,
    /// Devices count that nobody has signed.
    pub unsigned_devices: bool,
}

/// A Matrix account beside the one of `MATRIX_USER`.
#[derive(Clone, Debug)]
pub struct MatrixAccount {
    /// Its name, which its files and all that is stored of it carry.
    pub name: String,
    /// Its login.
    pub matrix: Matrix,
    /// Whom it hears, and where.
    pub people: People,
    /// Where all this was set.
    pub source: Source,
}

/// Who may do what. No users: nobody.
#[derive(Clone, Debug)]
pub struct People {
    /// Who may command the bot: users, and `@*:server` for all of a server.
    pub allowed: Vec<String>,
    /// Who may use the administrator's commands.
    pub admins: Vec<String>,
    /// The rooms in which the bot works, by id or alias. Empty: every room to which somebody allowed invites it.
    pub rooms: Vec<String>,
}

/// How much anything may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A shell command.
    pub command_timeout: Duration,
    /// A shell command for which the model asks for more time.
    pub command_longest: Duration,
    /// The work on one message, the time of coding agents apart.
    pub turn_timeout: Duration,
    /// A coding agent's task.
    pub coding_timeout: Duration,
    /// A coding agent's silence.
    pub coding_idle: Duration,
    /// Rounds of model and tools for each message.
    pub agent_turns: u32,
    /// Turns that run at the same time, over all rooms.
    pub concurrent_turns: usize,
    /// Tokens a day of one room.
    pub room_tokens: Option<u64>,
    /// Tokens a day that coding agents may use at one person's word.
    pub user_tokens: Option<u64>,
    /// How long the files of a room that was left are kept.
    pub room_grace: Duration,
    /// How long rows of the database are kept that nobody needs any more.
    pub retention: Duration,
    /// Free disk space in bytes below which sandboxes may no longer write.
    pub host_disk_reserve: u64,
}

/// A part of something that has a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// So many hundredths of it.
    Percent(u32),
    /// So many bytes.
    Bytes(u64),
}

impl Part {
    /// Returns the part in bytes.
    pub fn of(self, whole: u64) -> u64 {
        match self {
            Self::Percent(percent) => whole / 100 * u64::from(percent),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Where things live.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Database, sockets, secrets.
    pub state_dir: PathBuf,
    /// The sandboxes' IPC events.
    pub ipc_base_dir: PathBuf,
    /// How much a commit to the database waits for the disk.
    pub journal_sync: JournalSync,
}

impl Matrix {
    /// Says why no password is sent to the homeserver, and what to do about it; `None` if it may be sent.
    pub fn password_refused(&self) -> Option<Wrong> {
        let refused = net::is_plain(&self.homeserver) && !self.allow_plain_http;
        refused.then(|| {
            Wrong::new(
                format!("no password is sent to {}, since everybody on the way could read it", self.homeserver),
                "Set MATRIX_HOMESERVER to an https:// address, or to http://127.0.0.1:8008 if it runs on this machine; on a \
                 network that you trust set ALLOW_PLAIN_HTTP=true",
            )
        })
    }
}

impl Paths {
    /// Returns the database's file.
    pub fn database(&self) -> PathBuf {
        self.state_dir.join("matrix-agent.db")
    }

    /// Returns the folder of the pictures that models are shown.
    pub fn pictures(&self) -> PathBuf {
        self.state_dir.join("pictures")
    }
}

/// How much a commit to the database waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalSync {
    /// A killed process loses nothing; a power cut may lose the last instants.
    Normal,
    /// A power cut loses nothing either.
    Full,
}
