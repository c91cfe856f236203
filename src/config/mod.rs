//! The settings: what was typed (`raw.rs`) and what it means ([`Config`]).
//!
//! A low layer, which must not know providers, patterns of hosts or Podman; `ops::settings` knows them and adds
//! mistakes to the same [`Mistakes`]. `cli` reads the settings once at the start; the modules get their typed parts.

mod accounts;
mod cloud_bots;
mod dotenv;
mod exobot;
mod folders;
pub(crate) mod keys;
mod meaning;
mod mistakes;
pub(crate) mod parse;
mod places;
mod raw;
mod reader;
mod reading;
mod shown;
mod source;
mod talk;
mod value;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU64,
    path::PathBuf,
    time::Duration,
};

use reqwest::Url;
use secrecy::SecretString;
use serde::Deserialize;

pub(crate) use accounts::{account_setting, hears_nobody, use_https};
pub(crate) use cloud_bots::account_of_bot;
pub use cloud_bots::{CloudBot, CloudBots, RefusedBot, Thinking, Unwritten};
pub use exobot::{ExobotAccount, RefusedExobot};
pub(crate) use folders::{FolderError, check_private, check_unshared, is_open, make_private, take_over};
pub(crate) use meaning::Loaded;
pub use meaning::load;
pub(crate) use mistakes::sentence;
pub(crate) use mistakes::{Mistakes, Wrong};
pub use places::Sources;
pub(crate) use places::Unread;
pub(crate) use reader::Setting;
pub(crate) use shown::ShownAccount;
pub(crate) use source::Source;
pub(crate) use talk::TALK_ACCOUNTS;
pub use talk::{RefusedTalk, Talk, TalkCoder};

use crate::net;

/// What a model's name begins with that is one of the registry of inference servers.
pub(crate) const LOCAL_MODEL: &str = "localbot/";

/// The typed settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The orchestrator's model.
    pub llm: Llm,
    /// Gemini's models, for coding agents.
    pub gemini: Provider,
    /// Qwen's models, for coding agents.
    pub qwen: Provider,
    /// The key for GitHub, and where it may be used.
    pub github: GitHub,
    /// What becomes of GitHub's events.
    pub tasks: Tasks,
    /// The HTTP server.
    pub http: Http,
    /// The room that is told each day how far the audit log has come.
    pub audit_room: Option<String>,
    /// The sandboxes.
    pub sandbox: Sandbox,
    /// The account of `MATRIX_USER`; `None` if that is not set.
    pub matrix: Option<Matrix>,
    /// The further accounts.
    pub accounts: Vec<MatrixAccount>,
    /// What holds for all cloud bots.
    pub cloud_bots: CloudBotRules,
    /// The bot whose model runs on this machine.
    pub exobot: Exobot,
    /// Who may do what.
    pub people: People,
    /// Which coding agent does what.
    pub agents: Agents,
    /// Profiles of coding agents from `matrix-agent.toml`.
    pub profiles: Vec<AgentProfile>,
    /// What models cost, by the names under which `matrix-agent.toml` has them.
    pub prices: BTreeMap<String, Price>,
    /// Limits in time and number.
    pub limits: Limits,
    /// Paths and how data is stored.
    pub paths: Paths,
}

/// The orchestrator's model.
#[derive(Clone, Debug)]
pub struct Llm {
    /// The model string in LiteLLM's form.
    pub model: String,
    /// The key; local providers need none.
    pub api_key: Option<SecretString>,
    /// An endpoint that replaces the provider's own.
    pub base_url: Option<Url>,
    /// Silence after which an answer is given up and asked for again.
    pub idle: Duration,
    /// What `matrix-agent.toml` says about this model.
    pub facts: ModelFacts,
}

/// What a model's name does not tell; `[models."NAME"]` in `matrix-agent.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFacts {
    /// The size of its context in tokens.
    pub context_window: Option<NonZeroU64>,
    /// Whether it sees pictures.
    pub vision: Option<bool>,
    /// What its tokens cost.
    pub price: Option<Price>,
}

/// What a model's tokens cost.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Tokens of prompts.
    pub input: PerMillion,
    /// Those of them that the provider's cache serves; `None`: as much as the others.
    pub cached: Option<PerMillion>,
    /// Tokens of answers.
    pub output: PerMillion,
}

/// Dollars for a million tokens: not below nothing, and no more than a million.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct PerMillion(f64);

impl PerMillion {
    /// Returns the dollars.
    pub fn dollars(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for PerMillion {
    type Error = String;

    fn try_from(dollars: f64) -> Result<Self, String> {
        if (0.0..=1e6).contains(&dollars) {
            return Ok(Self(dollars));
        }
        Err(format!("{dollars} is no price: it is dollars for a million tokens, from 0 to 1000000"))
    }
}

/// Models that coding agents ask through the gateway.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The key, which stays in the gateway. Without it these models are not available.
    pub api_key: Option<SecretString>,
    /// The endpoint.
    pub base_url: Url,
    /// The models' names.
    pub models: Vec<String>,
}

/// The operator's key for GitHub, and where it may be used.
#[derive(Clone, Debug)]
pub struct GitHub {
    /// The number of a GitHub App, and the file with its key.
    pub app: Option<String>,
    /// See `app`.
    pub app_key: Option<PathBuf>,
    /// A fine-grained token.
    pub token: Option<SecretString>,
    /// Repositories for which it may be used in every room: `owner/name` or `owner/*`.
    pub repositories: Vec<String>,
}

/// What becomes of GitHub's events.
#[derive(Clone, Debug)]
pub struct Tasks {
    /// The webhook's secret, or the path of a file with it; `None`: there is no webhook.
    pub secret: Option<SecretString>,
    /// The label that makes an issue a task.
    pub label: String,
    /// Who is invited to tasks' rooms.
    pub people: Vec<String>,
    /// Turns that failed checks of a pull request begin.
    pub rounds: u32,
}

/// The HTTP server.
#[derive(Clone, Debug)]
pub struct Http {
    /// Where it listens; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// The public names by which it may be asked, each with the path that it opens, as they were typed; `http` parses them.
    pub names: Vec<String>,
}

/// Which coding agent does what.
#[derive(Clone, Debug)]
pub struct Agents {
    /// The agents that plan.
    pub plan: AgentRole,
    /// The agents that implement.
    pub implement: AgentRole,
    /// The agents that review.
    pub review: AgentRole,
}

/// The coding agents of a role, in the order in which they are tried.
#[derive(Clone, Debug)]
pub struct AgentRole {
    /// The agent that is tried first.
    pub first: AgentChoice,
    /// The agents that continue if it fails.
    pub fallback: Vec<AgentChoice>,
}

/// A coding agent with its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentChoice {
    /// The name of the agent's profile: a built-in one, or one of [`Config::profiles`].
    pub agent: String,
    /// Its model; `None` for the agent's usual one.
    pub model: Option<String>,
}

impl AgentRole {
    /// Returns all agents in the order in which they are tried.
    pub fn all(&self) -> impl Iterator<Item = &AgentChoice> {
        [&self.first].into_iter().chain(&self.fallback)
    }
}

/// The profile of a coding agent that the operator describes: `[agents.NAME]` in `matrix-agent.toml`.
#[derive(Clone, Debug)]
pub struct AgentProfile {
    /// The name by which a role chooses it.
    pub name: String,
    /// The entries of its table; `coding_agents` parses them.
    pub entries: toml::Table,
    /// Where the table is.
    pub source: Source,
}

/// The sandboxes.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The podman program.
    pub podman_path: PathBuf,
    /// Podman's API socket; `None`: the server's own Podman, which has its own runtime.
    pub podman_socket: Option<PathBuf>,
    /// What runs the containers; `None`: what Podman's own settings say.
    pub runtime: Option<SandboxRuntime>,
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
    /// Patterns of hosts, and the words `default` and `*`, as they were typed; the gateway parses them.
    pub allowed_hosts: Vec<String>,
    /// How long a connection to another host waits while the room is asked; zero: it is not asked.
    pub host_ask: Duration,
    /// Whether a model's provider may use the web for a coding agent.
    pub web_search: bool,
    /// A file with certificates that sandboxes trust.
    pub ca_bundle: Option<PathBuf>,
    /// The most bytes that are kept of repositories' setups; 0: nothing is set up.
    pub environments: u64,
    /// The file with what setups are given.
    pub setup_secrets: Option<PathBuf>,
    /// Time without work after which a sandbox is stopped.
    pub idle: Duration,
    /// Memory that all of them may use together.
    pub memory_total: Part,
    /// Sandboxes that run at the same time.
    pub max_running: usize,
}

/// A Matrix account.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The homeserver.
    pub homeserver: Url,
    /// Whether a password may be sent there over plain HTTP, which everybody on the way can read.
    pub allow_plain_http: bool,
    /// The account's user id.
    pub user: String,
    /// Its password, for the first login and after a session was lost.
    pub password: Option<SecretString>,
    /// The administrator's user id.
    pub admin_user: Option<String>,
    /// The administrator's password, with which `scripts/setup-synapse.sh` creates the account.
    pub admin_password: Option<SecretString>,
    /// The address from which the settings above follow.
    pub vps_ip: Option<IpAddr>,
    /// Whether messages from devices that nobody has signed count.
    pub unsigned_devices: bool,
}

/// A further Matrix account, besides that of `MATRIX_USER`.
#[derive(Clone, Debug)]
pub struct MatrixAccount {
    /// Its name, which its files and stored rows carry.
    pub name: String,
    /// Its login.
    pub matrix: Matrix,
    /// Whom it hears, and where.
    pub people: People,
    /// Where it was set.
    pub source: Source,
}

/// What holds for all cloud bots; the rest is in each one's own file, which [`CloudBots::read`] reads.
#[derive(Clone, Debug)]
pub struct CloudBotRules {
    /// Whether they are served.
    pub enabled: bool,
    /// The homeserver of those that name none.
    pub homeserver: Url,
    /// The administrator of that homeserver, who makes accounts there, with the password; `None` if it is not ours or one of
    /// the two is not set.
    pub administrator: Option<(String, SecretString)>,
    /// Whether a token may be sent to a homeserver elsewhere over plain HTTP.
    pub allow_plain_http: bool,
    /// Whether messages from devices that nobody has signed count.
    pub unsigned_devices: bool,
}

/// The bot whose model runs on this machine. Its account is in a file of its own, which [`ExobotAccount::read`] reads.
#[derive(Clone, Debug)]
pub struct Exobot {
    /// Whether it is served.
    pub enabled: bool,
    /// The part of its Matrix user id before the colon, by which people call it.
    pub localpart: String,
    /// The server part of its user id, if it is that of accounts of ours.
    pub server: Option<String>,
    /// The program that serves its model.
    pub binary: Option<PathBuf>,
    /// The container image that does so in its place.
    pub image: Option<String>,
    /// The model's file.
    pub model: Option<PathBuf>,
    /// A model of the registry in place of all three.
    pub registry_model: Option<String>,
    /// The rooms in which it works, by id or alias; if empty, none.
    pub rooms: Vec<String>,
    /// Users who are ignored, since they are bots.
    pub known_bots: Vec<String>,
    /// How long the model stays loaded without a question.
    pub idle: Duration,
    /// Whether it stays loaded always.
    pub keep_warm: bool,
    /// Percent of memory or processors in use from which the model is left asleep; `None`: that is not looked at.
    pub pressure: Option<u32>,
    /// Whether it may put a word into a lively conversation.
    pub interject: bool,
    /// Whether it brings topics into rooms in which nobody talks.
    pub seed: bool,
    /// Whether it takes up conversations that fell asleep.
    pub revive: bool,
    /// Whether it may talk with the known bots.
    pub cross: bool,
    /// Whether a page to chat with it is served.
    pub ui: bool,
    /// Where the page listens.
    pub ui_listen: SocketAddr,
    /// Whether that may be where other machines reach it.
    pub ui_open: bool,
    /// The page's public name.
    pub ui_public: Option<String>,
}

/// Who may do what. An empty list of users means nobody.
#[derive(Clone, Debug)]
pub struct People {
    /// Who may command the bot: users, and `@*:server` for everybody on a server.
    pub allowed: Vec<String>,
    /// Who may use the administrator's commands.
    pub admins: Vec<String>,
    /// The rooms in which the bot works, by id or alias; if empty, every room to which somebody allowed invites it.
    pub rooms: Vec<String>,
}

/// Who approves a plan before a coding agent carries it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanApproval {
    /// Nobody needs to.
    Off,
    /// Who has asked for the work.
    Asker,
    /// Somebody else who may ask for work.
    Second,
}

/// Limits in time and number.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Time of a shell command.
    pub command_timeout: Duration,
    /// Time of a shell command for which the model asks for more.
    pub command_longest: Duration,
    /// Time of the work on one message, without the time of coding agents.
    pub turn_timeout: Duration,
    /// Time of a coding agent's task.
    pub coding_timeout: Duration,
    /// Silence after which a coding agent is ended.
    pub coding_idle: Duration,
    /// Who approves a plan before a coding agent carries it out.
    pub plan_approval: PlanApproval,
    /// Rounds of model and tools for each message.
    pub agent_turns: u32,
    /// Turns that run at the same time, over all rooms.
    pub concurrent_turns: usize,
    /// Tokens of one room in a day.
    pub room_tokens: Option<u64>,
    /// Tokens a day at one person's word.
    pub user_tokens: Option<u64>,
    /// How long the files of a left room are kept.
    pub room_grace: Duration,
    /// How long the database keeps rows that nobody needs any more.
    pub retention: Duration,
    /// Free disk space in bytes below which sandboxes may no longer write.
    pub host_disk_reserve: u64,
}

/// A part of a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A percentage of it.
    Percent(u32),
    /// A number of bytes.
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

/// Paths and how data is stored.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The directory of the database, sockets and secrets.
    pub state_dir: PathBuf,
    /// The directory in which the sandboxes' IPC events arrive.
    pub ipc_base_dir: PathBuf,
    /// The registry of inference servers.
    pub localbot_dir: PathBuf,
    /// The file of the Nextcloud Talk bot's settings, if it is named; else it is where [`Talk::path`] says.
    pub talk_file: Option<PathBuf>,
    /// Where systemd has put the service's credentials.
    pub credentials: Option<PathBuf>,
    /// How much a commit to the database waits for the disk.
    pub journal_sync: JournalSync,
    /// How the server writes its log.
    pub log_format: LogFormat,
}

impl Matrix {
    /// Returns why no password is sent to the homeserver of the account of this name, and what to do about it; `None` if
    /// it may be sent.
    pub fn password_refused(&self, account: &str) -> Option<Wrong> {
        let refused = net::is_plain(&self.homeserver) && !self.allow_plain_http;
        refused.then(|| {
            Wrong::new(
                format!("no password is sent to {}, since everybody on the way could read it", self.homeserver),
                format!("{}; on a network that you trust set ALLOW_PLAIN_HTTP=true", use_https(account)),
            )
        })
    }
}

/// Returns the name of one of the settings of an account whose file this is, such as `BOT_TOKEN in cloud-bot-llama.env`, by that
/// of an account's: `user`, `homeserver` or `password`.
pub(crate) fn begun_setting(file: &str, key: &str) -> String {
    exobot::setting(file, key).unwrap_or_else(|| cloud_bots::cloud_bot_setting(file, key))
}

impl Exobot {
    /// Returns why its page is not served where it is to listen; `None` if it may be.
    pub fn page_refused(&self) -> Option<Wrong> {
        let is_own = self.ui_listen.ip().to_canonical().is_loopback();
        (!is_own && !self.ui_open).then(|| {
            Wrong::new(
                format!("at {} everybody who reaches this machine could use the page, which has no login", self.ui_listen),
                "Set EXOBOT_UI_LISTEN to the port alone, and let a proxy that asks who comes pass requests on; on a network \
                 that you trust set EXOBOT_UI_OPEN=true as well",
            )
        })
    }
}

/// The database's file in the state directory.
const DATABASE: &str = "matrix-agent.db";

impl Paths {
    /// Makes the state directory, which only this user may enter.
    pub(crate) fn make_state(&self) -> Result<(), FolderError> {
        take_over(&self.state_dir)
    }

    /// Makes the directory of events, which only this user may enter.
    pub(crate) fn make_ipc(&self) -> Result<(), FolderError> {
        take_over(&self.ipc_base_dir)
    }

    /// Returns which of both directories would be refused for what is in it, by its setting, and why.
    pub(crate) fn shared(&self) -> Vec<(&'static str, FolderError)> {
        let state = check_unshared(&self.state_dir).err().map(|error| ("STATE_DIR", error));
        let ipc = check_unshared(&self.ipc_base_dir).err().map(|error| ("IPC_BASE_DIR", error));
        state.into_iter().chain(ipc).collect()
    }

    /// Returns the database's file.
    pub fn database(&self) -> PathBuf {
        self.state_dir.join(DATABASE)
    }

    /// Returns the directory of the audit log.
    pub fn audit(&self) -> PathBuf {
        self.state_dir.join("audit")
    }

    /// Returns the directory of what nobody else may read: keys, sessions, the files of bots with their tokens.
    pub fn secrets(&self) -> PathBuf {
        self.state_dir.join("secrets")
    }

    /// Returns the directory of the pictures that models are shown.
    pub fn pictures(&self) -> PathBuf {
        self.state_dir.join("pictures")
    }
}

/// How the server writes its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Pretty,
    /// A JSON object a line.
    Json,
}

/// What runs the sandboxes' containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxRuntime {
    /// runc.
    Runc,
    /// crun.
    Crun,
    /// gVisor's runsc.
    Runsc,
}

/// How much a commit to the database waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalSync {
    /// A killed process loses nothing; a power cut may lose the last transactions.
    Normal,
    /// A power cut loses nothing either; each commit waits for the disk.
    Full,
}
