//! The table of settings: name, type, default, what each is for, and how its value is parsed.
//!
//! `.env.example`, `config`, the hints for unknown keys and the typed [`super::Config`] are made from it. A new
//! setting is one entry here and one line in `meaning.rs`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use reqwest::Url;
use secrecy::SecretString;

use super::{
    AgentChoice, JournalSync, LogFormat, Part, PlanApproval, SandboxRuntime,
    cloud_bots::values,
    parse::{self, Parsed},
};

/// The value of a setting that nobody sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    /// No value.
    Unset,
    /// This text, parsed like any other value.
    Text(&'static str),
    /// A value that depends on other settings or on who runs the program; the text says how.
    Follows(&'static str),
}

/// Everything about a setting that does not depend on its type.
#[derive(Debug)]
pub(crate) struct About {
    /// The name of the environment variable.
    pub name: &'static str,
    /// The heading under which it is listed.
    pub group: &'static str,
    /// The value if nobody sets it.
    pub default: Preset,
    /// Whether its value is never shown.
    pub secret: bool,
    /// Whether it is a list, or a secret without which something would stand open: an empty value is a mistake then, and not the
    /// same as none.
    pub list: bool,
    /// Whether it may have several values, so that it may be a list in `matrix-agent.toml`.
    pub several: bool,
    /// Whether `.env.example` has it to be filled in, instead of commented out.
    pub first: bool,
    /// What it is for, in one or two sentences; shown to operators.
    pub doc: &'static str,
    /// Checks a value: the defaults are checked by a test.
    #[cfg(test)]
    pub check: fn(&str) -> Parsed<()>,
}

/// A setting whose value is a `T`.
#[derive(Debug)]
pub(crate) struct Key<T: 'static> {
    /// Everything that does not depend on the type.
    pub about: About,
    /// Reads a value.
    pub parse: fn(&str) -> Parsed<T>,
}

/// The settings that files of one kind hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    /// The settings, in the order in which they are shown.
    pub keys: &'static [&'static About],
    /// The file that lists them all.
    pub listed_in: &'static str,
}

impl Table {
    /// Returns the entry of `name`, in any case.
    pub(super) fn find(&self, name: &str) -> Option<&'static About> {
        self.keys.iter().find(|about| about.name.eq_ignore_ascii_case(name)).copied()
    }

    /// Returns the known name that is nearest to `name`, if it is similar enough.
    pub(super) fn nearest(&self, name: &str) -> Option<&'static str> {
        let name = name.to_ascii_uppercase();
        self.keys
            .iter()
            .map(|about| (strsim::damerau_levenshtein(&name, about.name), about.name))
            .min()
            .filter(|(distance, known)| *distance <= known.len().min(name.len()) / 4)
            .map(|(_, known)| known)
    }

    /// Appends all settings as a file has them, with what they are for.
    pub(super) fn write(&self, text: &mut String) {
        let mut group = "";
        for about in self.keys {
            if about.group != group {
                group = about.group;
                text.extend(["\n# --- ", group, " ---\n"]);
            }
            text.push('\n');
            comment(text, about.doc);
            match about.default {
                Follows(from) => comment(text, &format!("Default: {from}.")),
                Unset | Text(_) => {}
            }
            text.push_str(if about.first { "" } else { "# " });
            text.extend([about.name, " ="]);
            if let Text(default) = about.default {
                text.extend([" ", default]);
            }
            text.push('\n');
        }
    }
}

/// The settings of `.env`, of `matrix-agent.toml` and of the environment.
pub(super) const ENV: Table = Table { keys: ALL, listed_in: ".env.example" };

/// Makes a constant of each setting, and `ALL` of them.
macro_rules! keys {
    ($($group:literal { $($(#[doc = $doc:literal])+ $flags:tt $name:ident: $type:ty = $default:expr, $parse:expr;)+ })+) => {
        $($(
            $(#[doc = $doc])+
            pub(crate) const $name: &Key<$type> = &Key {
                about: About {
                    name: stringify!($name),
                    group: $group,
                    default: $default,
                    secret: keys!(@secret $flags),
                    list: keys!(@list $flags),
                    several: keys!(@several $flags),
                    first: keys!(@first $flags),
                    doc: concat!($($doc),+).trim_ascii_start(),
                    #[cfg(test)]
                    check: |value| {
                        let parse: fn(&str) -> Parsed<$type> = $parse;
                        parse(value).map(drop)
                    },
                },
                parse: $parse,
            };
        )+)+

        /// Every setting, in the order in which they are shown.
        pub(crate) const ALL: &[&About] = &[$($(&$name.about),+),+];
    };
    (@secret (secret)) => { true };
    (@secret (first secret)) => { true };
    (@secret (filled secret)) => { true };
    (@secret $other:tt) => { false };
    (@list (list)) => { true };
    (@list (filled secret)) => { true };
    (@list $other:tt) => { false };
    (@several (list)) => { true };
    (@several (several)) => { true };
    (@several $other:tt) => { false };
    (@first (first)) => { true };
    (@first (first secret)) => { true };
    (@first $other:tt) => { false };
}

pub(super) use keys;

use Preset::{Follows, Text, Unset};

keys! {
    "Matrix" {
        /// Public IP address of the server. MATRIX_HOMESERVER, MATRIX_USER and MATRIX_ADMIN_USER follow from it unless they are set.
        (first) VPS_IP: IpAddr = Unset, parse::ip;
        /// URL of the Matrix homeserver.
        () MATRIX_HOMESERVER: Url = Text("https://matrix.org"), parse::url;
        /// Whether passwords may be sent to a homeserver elsewhere in plain HTTP, which everybody on the way can read.
        () ALLOW_PLAIN_HTTP: bool = Text("false"), parse::flag;
        /// Matrix user ID of the bot.
        () MATRIX_USER: String = Follows("`@matrixbot:VPS_IP`"), parse::user;
        /// Password of the bot's account.
        (first secret) MATRIX_PASSWORD: SecretString = Unset, parse::password;
        /// Matrix user ID of the person who administers the bot.
        () MATRIX_ADMIN_USER: String = Follows("`@admin:VPS_IP`"), parse::user;
        /// Password of the administrator's account, from which `scripts/setup-synapse.sh` makes it.
        (first secret) MATRIX_ADMIN_PASSWORD: SecretString = Unset, parse::password;
        /// Who may command the bot: Matrix user IDs, parted by commas; `@*:server.example` means everybody on a server, `none` nobody.
        (list) ALLOWED_USERS: Vec<String> = Follows("ADMIN_USERS"), parse::user_patterns;
        /// Rooms in which the bot works: room IDs or aliases, parted by commas. Not set: every room to which somebody of ALLOWED_USERS invites it.
        (list) ALLOWED_ROOMS: Vec<String> = Unset, parse::rooms;
        /// Whether encrypted messages count from devices that nobody has signed, and are answered so that those can read it: `true` or `false`. Needed where a person's client knows no cross-signing; a homeserver can add such a device to anybody's account.
        () ALLOW_UNSIGNED_DEVICES: bool = Text("false"), parse::flag;
        /// The ID of a room of the bot's that is told once a day how far the audit log has come (`docs/operating.md`), so that nobody can write it anew unseen. Not set: no room is.
        () AUDIT_ROOM: String = Unset, parse::room;
        /// Who may use the administrator's commands, `!budget` with a number and `!grant`: Matrix user IDs, parted by commas.
        (list) ADMIN_USERS: Vec<String> = Follows("MATRIX_ADMIN_USER"), parse::users;
    }
    "Model" {
        /// API key of the orchestrator's model. Not needed for `ollama/…` and `llama-cpp/…`.
        (first secret) LLM_API_KEY: SecretString = Unset, parse::token;
        /// The model, in LiteLLM's form: `openrouter/…`, `anthropic/…`, `gemini/…`, `openai/…`, `dashscope/…`, `ollama/…`, `llama-cpp/…`; or one of the registry in LOCALBOT_DIR: `localbot/ALIAS`, `localbot/ENDPOINT`, or `localbot/` for the first endpoint that is online.
        () LLM_MODEL: String = Text("openrouter/anthropic/claude-sonnet-4"), parse::model;
        /// Base URL of an OpenAI-compatible endpoint, up to where `/chat/completions` follows, for a server of your own.
        () LLM_BASE_URL: Url = Follows("the provider's own"), parse::url;
        /// Seconds of silence after which an answer of the model is given up and asked for again. What keeps a connection alive while the model thinks is no silence.
        () LLM_IDLE_SECONDS: Duration = Text("120"), parse::seconds::<1>;
    }
    "Coding agents and GitHub" {
        /// Gemini API key, for Gemini CLI. It never enters a sandbox. Without it Qwen Code plans and reviews too.
        (first secret) GEMINI_API_KEY: SecretString = Unset, parse::token;
        /// Where Gemini's models are asked, up to where `/v1beta` follows.
        () GEMINI_BASE_URL: Url = Text("https://generativelanguage.googleapis.com"), parse::url;
        /// Gemini's models that coding agents may ask, parted by commas.
        (list) GEMINI_MODELS: Vec<String> = Text("gemini-2.5-pro, gemini-2.5-flash, gemini-2.5-flash-lite"), parse::list;
        /// DashScope API key, for Qwen Code. It never enters a sandbox. Without it Qwen Code asks the orchestrator's model.
        (first secret) DASHSCOPE_API_KEY: SecretString = Unset, parse::token;
        /// Where Qwen's models are asked, up to where `/chat/completions` follows.
        () QWEN_BASE_URL: Url = Text("https://dashscope-intl.aliyuncs.com/compatible-mode/v1"), parse::url;
        /// Qwen's models that coding agents may ask, parted by commas. The orchestrator's own model can be asked besides.
        (list) QWEN_MODELS: Vec<String> = Text("qwen3-coder-plus, qwen3-coder-flash"), parse::list;
        /// Which coding agent plans: `gemini` (Gemini CLI), `qwen` (Qwen Code), or one that the image does not have by itself: `claude`, `codex`, `opencode`, or a profile of your own, `[agents.NAME]` in `matrix-agent.toml`.
        () PLAN_AGENT: String = Text("gemini"), parse::agent;
        /// Its model.
        () PLAN_MODEL: String = Follows("the first of GEMINI_MODELS or QWEN_MODELS; without DASHSCOPE_API_KEY Qwen Code asks the orchestrator's model"), parse::agent_model;
        /// Who goes on with a plan where that agent is silent too long or its model refuses: agents, each with a model behind a colon if it is not its usual one, parted by commas, as in `gemini:gemini-2.5-flash, qwen`. Each is tried once, in this order.
        (several) PLAN_FALLBACK: Vec<AgentChoice> = Unset, parse::agents;
        /// Who has to approve a plan in the room before a coding agent carries it out: `asker` (whoever asked for the work), `second` (somebody else whom the bot takes work from), or `off`. The agent can still change files by itself.
        () PLAN_APPROVAL: PlanApproval = Text("off"), parse::plan_approval;
        /// Which coding agent implements: as for PLAN_AGENT.
        () IMPLEMENT_AGENT: String = Text("qwen"), parse::agent;
        /// Its model.
        () IMPLEMENT_MODEL: String = Follows("as for PLAN_MODEL"), parse::agent_model;
        /// Who goes on with it where that agent cannot, as in PLAN_FALLBACK: `qwen:qwen3-coder-flash, gemini`.
        (several) IMPLEMENT_FALLBACK: Vec<AgentChoice> = Unset, parse::agents;
        /// Which coding agent reviews: as for PLAN_AGENT.
        () REVIEW_AGENT: String = Text("gemini"), parse::agent;
        /// Its model.
        () REVIEW_MODEL: String = Follows("as for PLAN_MODEL"), parse::agent_model;
        /// Who goes on with a review where that agent cannot, as in PLAN_FALLBACK.
        (several) REVIEW_FALLBACK: Vec<AgentChoice> = Unset, parse::agents;
        /// Number (or client id) of a GitHub App, which gets short tokens for one repository each. Better than GITHUB_TOKEN, and used in its place.
        () GITHUB_APP_ID: String = Unset, parse::app_id;
        /// File with the App's private key in PEM, as GitHub gives it. It never enters a sandbox.
        () GITHUB_APP_KEY: PathBuf = Unset, parse::path;
        /// Fine-grained GitHub token (contents and pull requests: write; issues: write for comments). It never enters a sandbox.
        (secret) GITHUB_TOKEN: SecretString = Unset, parse::token;
        /// Repositories for which that key may be used in every room: to read them, and, once somebody has said yes there, to push branches `agent/…` and to open pull requests. `owner/name` or `owner/*`, parted by commas; `none` for none. Others are read as far as they are public.
        (list) GITHUB_REPOS: Vec<String> = Text("none"), parse::list;
    }
    "Tasks from GitHub" {
        /// The webhook's secret, or the whole path of a file that holds it: at least 16 characters, as `openssl rand -hex 32` makes them. With it, issues that somebody labels become tasks (`docs/github.md`); needs HTTP_LISTEN and a key for GitHub. Not set: there is no webhook.
        (filled secret) GITHUB_WEBHOOK_SECRET: SecretString = Unset, parse::webhook_secret;
        /// The label by which somebody who may write to a repository of GITHUB_REPOS makes an issue a task.
        () GITHUB_TASK_LABEL: String = Text("agent-task"), parse::words;
        /// Who is invited to the rooms of tasks: Matrix user IDs, parted by commas; `none` for nobody.
        (list) GITHUB_TASK_PEOPLE: Vec<String> = Follows("ADMIN_USERS, and if nobody is there, the names in ALLOWED_USERS"), parse::users;
        /// How often failed checks of a pull request begin work on it by themselves; `0`: only when somebody asks.
        () GITHUB_FIX_ROUNDS: u32 = Text("0"), parse::count::<_, 0, 20>;
    }
    "HTTP" {
        /// Where the HTTP server listens, for webhooks and for those who watch the server (`docs/watching.md`): a port, then on this machine alone, or an address with a port. Not set: nowhere. It speaks plain HTTP; put a proxy with TLS in front (`docs/github.md`).
        () HTTP_LISTEN: SocketAddr = Unset, parse::listen;
        /// The public names by which it may be asked, parted by commas: `agent.example.org` opens all webhooks, `agent.example.org/webhook` what is below that path, and what is for operators only a name that names it, such as `agent.example.org/metrics`. `none`: only this machine asks.
        (list) HTTP_NAMES: Vec<String> = Text("none"), parse::list;
    }
    "Chat bots" {
        /// Whether the cloud bots are served: bots that answer when somebody mentions them, each from a file of its own, `STATE_DIR/secrets/cloud-bot-NAME.env` (`docs/cloud-bots.md`): `true` or `false`. `matrix-agent cloud-bot add NAME` makes one.
        () ENABLE_CLOUD_BOTS: bool = Text("false"), parse::flag;
        /// File with the settings of the Nextcloud Talk bot, which is served if the file is there (`docs/nextcloud-talk.md`).
        () NEXTCLOUD_TALK_FILE: PathBuf = Follows("`STATE_DIR/secrets/nextcloud-talk.env` if that is there"), parse::path;
    }
    "exobot" {
        /// Whether exobot is served: a bot whose model runs on this machine, with a llama-server and a model of your own (`docs/exobot.md`): `true` or `false`. `matrix-agent exobot login` makes its account and logs in.
        () ENABLE_EXOBOT: bool = Text("false"), parse::flag;
        /// The part of its Matrix user ID before the colon, by which people call it.
        () EXOBOT_LOCALPART: String = Text("exobot"), parse::localpart;
        /// llama.cpp's `llama-server`, built for this machine's processor: a whole path, or a name on the PATH.
        () LLAMA_SERVER_BIN: PathBuf = Unset, parse::program;
        /// In its place: a container image whose entry point is llama-server, which Podman has already.
        () LLAMA_SERVER_IMAGE: String = Unset, parse::image;
        /// The model: a GGUF file.
        () MODEL_PATH: PathBuf = Unset, parse::path;
        /// In place of a llama-server and a model of its own: a model of the registry in LOCALBOT_DIR (`docs/inference.md`), `localbot/ALIAS`, `localbot/ENDPOINT`, or `localbot/` for the first endpoint that is online.
        () EXOBOT_MODEL: String = Unset, parse::registry_model;
        /// Rooms in which exobot works: room IDs or aliases, parted by commas. Without one it works nowhere and declines every invite.
        (list) EXOBOT_ALLOWED_ROOMS: Vec<String> = Text("none"), values::rooms;
        /// Matrix user IDs of other bots in its rooms, parted by commas, which it never answers.
        (list) EXOBOT_KNOWN_BOTS: Vec<String> = Text("none"), parse::users;
        /// Seconds without a question after which the model is unloaded. What was said last is kept, so that waking does not read it again.
        () IDLE_UNLOAD_SECONDS: Duration = Text("900"), parse::seconds::<10>;
        /// Whether the model stays loaded, from the server's start: `true` or `false`.
        () LLAMA_KEEP_WARM: bool = Text("false"), parse::flag;
        /// Percent of its memory, or of its processors' load, from which this machine is too busy for the model: it is unloaded, and questions are declined. `0`: that is not looked at.
        () EXOBOT_PRESSURE_PERCENT: u32 = Text("85"), parse::count::<_, 0, 100>;
        /// Whether exobot may put a word into a lively conversation without being asked, every half hour at most: `true` or `false`.
        () INTERJECT_ENABLED: bool = Text("false"), parse::flag;
        /// Whether it brings a topic into a room in which nobody has said anything for a day: `true` or `false`.
        () SEED_ENABLED: bool = Text("false"), parse::flag;
        /// Whether it takes up a conversation that has been quiet for an hour, every six hours at most: `true` or `false`.
        () REVIVE_ENABLED: bool = Text("false"), parse::flag;
        /// Whether it talks with another bot of EXOBOT_KNOWN_BOTS now and then, three rounds every six hours at most: `true` or `false`.
        () CROSSBOT_ENABLED: bool = Text("false"), parse::flag;
        /// Whether a small page to chat with exobot's model is served besides: `true` or `false`. It has no login of its own; needs ENABLE_EXOBOT.
        () EXOBOT_UI: bool = Text("false"), parse::flag;
        /// Where the page listens: a port, then on this machine alone, or an address with a port.
        () EXOBOT_UI_LISTEN: SocketAddr = Text("8091"), parse::listen;
        /// Whether the page may be reached from other machines without a proxy, in the clear and without a login: `true` or `false`. Without it an address of EXOBOT_UI_LISTEN that is not this machine's own is refused.
        () EXOBOT_UI_OPEN: bool = Text("false"), parse::flag;
        /// The public name of the page, behind a proxy that asks who comes (`matrix-agent exobot ui --print-proxy`).
        () EXOBOT_UI_HOST_PUBLIC: String = Follows("`ai.DOMAIN`"), parse::host_name;
        /// The domain of this server's public names.
        () DOMAIN: String = Unset, parse::host_name;
        /// Not used here: the original's name of the Linux in which its llama-server runs. Paths are this machine's.
        () EXOBOT_PROOT_DISTRO: () = Unset, parse::no_distro;
    }
    "Sandboxes" {
        /// The podman program, as a name on the PATH or a whole path.
        () PODMAN_PATH: PathBuf = Text("podman"), parse::program;
        /// Podman's API socket. If nothing answers there, the server starts `podman system service` itself.
        () PODMAN_SOCKET: PathBuf = Follows("`/run/podman/podman.sock` as root, else `$XDG_RUNTIME_DIR/podman/podman.sock`; one of the server's own with SANDBOX_RUNTIME"), parse::socket;
        /// What runs the sandboxes: `runc` or `crun`, on this machine's kernel, or `runsc` (gVisor), with a kernel of its own between the two, slower and as root only. The server starts a Podman of its own for it (`docs/runtimes.md`). Unset: what Podman's own settings say.
        () SANDBOX_RUNTIME: SandboxRuntime = Unset, parse::runtime;
        /// Image of the sandboxes.
        () SANDBOX_IMAGE: String = Text("matrix-agent-sandbox:latest"), parse::image;
        /// Memory of each sandbox.
        () SANDBOX_MEMORY: u64 = Text("1g"), parse::size::<{ 64 << 20 }>;
        /// Processors of each sandbox.
        () SANDBOX_CPUS: f64 = Text("2"), parse::cpus;
        /// Processes and threads in each sandbox. Chromium alone needs more than 64.
        () SANDBOX_PIDS: u32 = Text("256"), parse::count::<_, 16, 32_768>;
        /// Disk space of each sandbox: its own layer and its files together. A larger one enlarges rooms' files when they next start; a smaller one counts for new rooms.
        () SANDBOX_DISK: u64 = Text("10g"), parse::size::<{ 64 << 20 }>;
        /// Hosts that a sandbox may reach, parted by commas: `example.org`, `*.example.org`, `default` for the package registries and GitHub's downloads, `*` for every public host, `none` for no host.
        (list) SANDBOX_ALLOWED_HOSTS: Vec<String> = Text("default"), parse::list;
        /// Seconds for which a connection to another host waits while the room is asked whether it may be opened, up to 60; `0` asks nobody. See `docs/rights.md`.
        () HOST_ASK_SECONDS: Duration = Text("60"), parse::up_to_a_minute;
        /// Whether coding agents may have their model's provider search the web, fetch addresses and run code for them: `true` or `false`. What is asked there passes by SANDBOX_ALLOWED_HOSTS.
        () SANDBOX_WEB_SEARCH: bool = Text("false"), parse::flag;
        /// Certificates (PEM) that sandboxes trust, for networks with a certificate authority of their own.
        () SANDBOX_CA_BUNDLE: PathBuf = Unset, parse::path;
        /// Disk space of what is kept of repositories' setups (`.matrix-agent/setup.sh`), all together; what was not used for longest goes first. `0`: no repository is set up by the server. See `docs/environments.md`.
        () ENVIRONMENTS_DISK: u64 = Text("10g"), parse::size::<0>;
        /// File, closed to others (`chmod 600`), with what repositories' setups are given as environment variables: `owner/name NAME=value`, one a line. No sandbox of a room gets it.
        () SETUP_SECRETS: PathBuf = Unset, parse::path;
        /// Seconds without work after which a sandbox is stopped. Its files stay, and the next message starts it again.
        () SANDBOX_IDLE_SECONDS: Duration = Text("1800"), parse::seconds::<10>;
        /// Memory that all sandboxes may use together, as a part of the host's or as a size. When it gets short, the one used least recently is stopped; what is at work is not, and whoever wants to start waits.
        () SANDBOX_MEMORY_TOTAL: Part = Text("60%"), parse::part;
        /// Sandboxes that run at the same time, however little memory they use: each takes open files. One more stops the one used least recently.
        () MAX_RUNNING_SANDBOXES: usize = Text("128"), parse::count::<_, 1, 1000>;
    }
    "Limits" {
        /// Seconds that a shell command may take.
        () COMMAND_TIMEOUT_SECONDS: Duration = Text("120"), parse::seconds::<1>;
        /// Seconds that the model may give to a slow command.
        () COMMAND_LONGEST_SECONDS: Duration = Text("1800"), parse::seconds::<1>;
        /// Seconds that the work on one message may take, the time of coding agents apart.
        () TURN_TIMEOUT_SECONDS: Duration = Text("2100"), parse::seconds::<1>;
        /// Seconds that a coding agent may take for one task.
        () CODING_TIMEOUT_SECONDS: Duration = Text("1800"), parse::seconds::<1>;
        /// Seconds of silence after which a coding agent is ended: nothing from it, and no answer of its model. While one of its tools works it may be silent three times as long.
        () CODING_IDLE_SECONDS: Duration = Text("300"), parse::seconds::<1>;
        /// Rounds of model and tools for each message.
        () MAX_AGENT_TURNS: u32 = Text("25"), parse::count::<_, 1, 1000>;
        /// Messages that are worked on at the same time, over all rooms; the others wait for their turn.
        () MAX_CONCURRENT_TURNS: usize = Text("8"), parse::count::<_, 1, 1000>;
        /// Tokens that the models may use for one room in a day (UTC), the orchestrator's and the coding agents' together. At 80 % the room is warned, and at the end the work stops until the next day, or until one of ADMIN_USERS allows more with `!budget`.
        () ROOM_DAILY_TOKENS: u64 = Unset, parse::tokens;
        /// Tokens that the models may use in a day (UTC) at one person's word, over all rooms; likewise. A message counts for whoever began the work on it.
        () USER_DAILY_TOKENS: u64 = Unset, parse::tokens;
        /// Hours that the files of a room are kept after its last person has left or the bot was removed; `0` deletes them at once.
        () ROOM_GRACE_HOURS: Duration = Text("24"), parse::hours;
        /// Days that the database keeps what nobody needs any more: the messages and turns that were answered, what a summary of the conversation stands for, and what models have used. What belongs to `!new` or to a room that was left goes sooner.
        () RETENTION_DAYS: Duration = Text("30"), parse::days;
        /// Free disk space below which sandboxes may no longer write.
        () HOST_DISK_RESERVE: u64 = Text("2g"), parse::size::<{ 16 << 20 }>;
    }
    "Where things live" {
        /// Directory of the database, the rooms' sockets and the secrets.
        () STATE_DIR: PathBuf = Follows("`/var/lib/matrix-agent` as root, else `$XDG_STATE_HOME/matrix-agent`"), parse::socket_folder;
        /// Directory in which the sandboxes' IPC events arrive.
        () IPC_BASE_DIR: PathBuf = Text("/tmp/sandbox-ipc"), parse::path;
        /// Directory of `inference-endpoints.json`, `localbot-models.json` and `localbot-rooms.json`, the registry of inference servers of your own (`docs/inference.md`); they are read again when they change.
        () LOCALBOT_DIR: PathBuf = Follows("`/etc/matrix-agent` as root, else `$XDG_CONFIG_HOME/matrix-agent`"), parse::path;
        /// `normal`: a killed process loses nothing, a power cut may lose the last instants. `full`: neither does, and each write waits for the disk.
        () JOURNAL_SYNC: JournalSync = Text("normal"), parse::journal_sync;
        /// How the server writes its log: `pretty`, lines for people, or `json`, an object a line for programs. What is in it, RUST_LOG says.
        () LOG_FORMAT: LogFormat = Text("pretty"), parse::log_format;
    }
}

/// Returns the text of `.env.example`.
pub(crate) fn example() -> String {
    let mut text = "\
# Settings of matrix-agent. Copy this file to `~/.config/matrix-agent/.env` (or `/etc/matrix-agent/.env`) and fill in what is
# empty; what is commented out shows the default.
# A variable of the environment wins over this file, this file over `matrix-agent.toml`.
# `matrix-agent config` shows what is in effect and names every mistake.
"
    .to_owned();
    ENV.write(&mut text);
    text
}

/// Appends `words` as comment lines of limited width.
fn comment(text: &mut String, words: &str) {
    const WIDTH: usize = 100;
    let mut width = WIDTH;
    for word in words.split(' ') {
        if width + 1 + word.len() > WIDTH {
            text.push_str(if text.ends_with('\n') { "#" } else { "\n#" });
            width = 1;
        }
        text.extend([" ", word]);
        width += 1 + word.len();
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_valid() {
        for about in ALL {
            if let Text(default) = about.default {
                assert_eq!((about.check)(default), Ok(()), "{}", about.name);
            }
        }
    }

    #[test]
    fn names_are_unique_and_found() {
        for about in ALL {
            assert_eq!(ALL.iter().filter(|other| other.name == about.name).count(), 1, "{}", about.name);
            assert_eq!(ENV.find(&about.name.to_lowercase()).map(|found| found.name), Some(about.name));
            assert!(about.doc.ends_with('.'), "{}", about.name);
        }
    }

    #[test]
    fn near_names_are_found_and_far_ones_not() {
        assert_eq!(ENV.nearest("LLM_APIKEY"), Some("LLM_API_KEY"));
        assert_eq!(ENV.nearest("llm_modle"), Some("LLM_MODEL"));
        assert_eq!(ENV.nearest("MAX_TURNS"), None);
        assert_eq!(ENV.nearest("DATABASE_URL"), None);
        assert_eq!(ENV.nearest(""), None);
    }
}
