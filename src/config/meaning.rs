//! Turns typed settings into their meaning, and records for each the effective value and its source.

use std::{net::IpAddr, path::PathBuf};

use reqwest::Url;

use super::{
    AgentChoice, AgentRole, Agents, CloudBotRules, Config, Exobot, GitHub, Http, Limits, Llm, Matrix, Mistakes, Paths,
    People, Provider, Sandbox, Setting, Source, Sources, Tasks, Unread, Wrong, accounts,
    keys::{self, Key},
    raw::Raw,
    reader::Reader,
};

/// The settings with the mistakes in them.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The typed settings. A wrong one has its default here, which only `doctor` may use.
    pub config: Config,
    /// Every effective setting, in the order of the table.
    pub settings: Vec<Setting>,
    /// The mistakes.
    pub mistakes: Mistakes,
    /// Files of settings that were not read although somebody might expect it.
    pub unread: Vec<Unread>,
    /// Whether a mistake leaves open which the state directory is.
    pub is_state_unsure: bool,
}

impl Loaded {
    /// Returns where the value of a key comes from, if it has one, for layers that add mistakes.
    pub fn source(&self, name: &str) -> Option<Source> {
        self.settings.iter().find(|setting| setting.key == name && setting.set).map(|setting| setting.source.clone())
    }
}

/// Reads all layers and parses every setting.
pub fn load(sources: &Sources) -> Loaded {
    let mut mistakes = Mistakes::default();
    let raw = Raw::read(sources, &mut mistakes);
    let mut reader = Reader { raw, settings: Vec::new(), mistakes };
    let config = read(&mut reader, sources);
    let place = |key: &str| keys::ALL.iter().position(|about| about.name == key);
    reader.settings.sort_by_key(|setting| place(setting.key));
    let Reader { raw, settings, mistakes } = reader;
    let mut loaded = Loaded { config, settings, mistakes, unread: sources.unread(), is_state_unsure: false };
    let state_dir = keys::STATE_DIR.about.name;
    // The environment wins over whatever stands in a file.
    let hidden = raw.may_hide_state && loaded.source(state_dir) != Some(Source::Environment);
    loaded.is_state_unsure = hidden || loaded.mistakes.has(state_dir);
    loaded
}

fn read(reader: &mut Reader, sources: &Sources) -> Config {
    let (matrix, defaults, admin) = matrix(reader);
    let cloud_bots = cloud_bots(reader, &defaults);
    let exobot = exobot(reader, matrix.as_ref(), &defaults);
    let admin = admin.map(|user| (user, "MATRIX_ADMIN_USER"));
    let admins = reader.or_follows(keys::ADMIN_USERS, admin).unwrap_or_default();
    let shown = (!admins.is_empty()).then(|| (admins.join(","), "ADMIN_USERS"));
    let allowed = reader.or_follows(keys::ALLOWED_USERS, shown).unwrap_or_default();
    let people = People { allowed, admins, rooms: reader.optional(keys::ALLOWED_ROOMS).unwrap_or_default() };
    let tasks = tasks(reader, &people);
    let runtime = reader.optional(keys::SANDBOX_RUNTIME);
    let Reader { raw, mistakes, .. } = reader;
    let accounts = accounts::read(&raw.accounts, matrix.as_ref(), &defaults, &people, mistakes);
    Config {
        llm: llm(reader),
        gemini: Provider {
            api_key: reader.optional(keys::GEMINI_API_KEY),
            base_url: reader.value(keys::GEMINI_BASE_URL),
            models: reader.value(keys::GEMINI_MODELS),
        },
        qwen: Provider {
            api_key: reader.optional(keys::DASHSCOPE_API_KEY),
            base_url: reader.value(keys::QWEN_BASE_URL),
            models: reader.value(keys::QWEN_MODELS),
        },
        github: GitHub {
            app: reader.optional(keys::GITHUB_APP_ID),
            app_key: reader.optional(keys::GITHUB_APP_KEY),
            token: reader.optional(keys::GITHUB_TOKEN),
            repositories: reader.value(keys::GITHUB_REPOS),
        },
        tasks,
        audit_room: reader.optional(keys::AUDIT_ROOM),
        http: Http { listen: reader.optional(keys::HTTP_LISTEN), names: reader.value(keys::HTTP_NAMES) },
        sandbox: Sandbox {
            podman_path: reader.value(keys::PODMAN_PATH),
            podman_socket: match runtime {
                Some(_) => reader.optional(keys::PODMAN_SOCKET),
                None => Some(reader.folder(keys::PODMAN_SOCKET, podman_socket(sources))),
            },
            runtime,
            image: reader.value(keys::SANDBOX_IMAGE),
            memory: reader.value(keys::SANDBOX_MEMORY),
            cpus: reader.value(keys::SANDBOX_CPUS),
            pids: reader.value(keys::SANDBOX_PIDS),
            disk: reader.value(keys::SANDBOX_DISK),
            allowed_hosts: reader.value(keys::SANDBOX_ALLOWED_HOSTS),
            host_ask: reader.value(keys::HOST_ASK_SECONDS),
            web_search: reader.value(keys::SANDBOX_WEB_SEARCH),
            ca_bundle: reader.optional(keys::SANDBOX_CA_BUNDLE),
            environments: reader.value(keys::ENVIRONMENTS_DISK),
            setup_secrets: reader.optional(keys::SETUP_SECRETS),
            idle: reader.value(keys::SANDBOX_IDLE_SECONDS),
            memory_total: reader.value(keys::SANDBOX_MEMORY_TOTAL),
            max_running: reader.value(keys::MAX_RUNNING_SANDBOXES),
        },
        matrix,
        accounts,
        cloud_bots,
        exobot,
        people,
        agents: Agents {
            plan: agents(reader, keys::PLAN_AGENT, keys::PLAN_MODEL, keys::PLAN_FALLBACK),
            implement: agents(reader, keys::IMPLEMENT_AGENT, keys::IMPLEMENT_MODEL, keys::IMPLEMENT_FALLBACK),
            review: agents(reader, keys::REVIEW_AGENT, keys::REVIEW_MODEL, keys::REVIEW_FALLBACK),
        },
        profiles: reader.raw.profiles.clone(),
        prices: reader.raw.prices(),
        limits: Limits {
            command_timeout: reader.value(keys::COMMAND_TIMEOUT_SECONDS),
            command_longest: reader.value(keys::COMMAND_LONGEST_SECONDS),
            turn_timeout: reader.value(keys::TURN_TIMEOUT_SECONDS),
            coding_timeout: reader.value(keys::CODING_TIMEOUT_SECONDS),
            coding_idle: reader.value(keys::CODING_IDLE_SECONDS),
            plan_approval: reader.value(keys::PLAN_APPROVAL),
            agent_turns: reader.value(keys::MAX_AGENT_TURNS),
            concurrent_turns: reader.value(keys::MAX_CONCURRENT_TURNS),
            room_tokens: reader.optional(keys::ROOM_DAILY_TOKENS),
            user_tokens: reader.optional(keys::USER_DAILY_TOKENS),
            room_grace: reader.value(keys::ROOM_GRACE_HOURS),
            retention: reader.value(keys::RETENTION_DAYS),
            host_disk_reserve: reader.value(keys::HOST_DISK_RESERVE),
        },
        paths: Paths {
            state_dir: reader.folder(keys::STATE_DIR, state_dir(sources)),
            ipc_base_dir: reader.value(keys::IPC_BASE_DIR),
            localbot_dir: reader.folder(keys::LOCALBOT_DIR, localbot_dir(sources)),
            talk_file: reader.optional(keys::NEXTCLOUD_TALK_FILE),
            credentials: sources.path("CREDENTIALS_DIRECTORY"),
            journal_sync: reader.value(keys::JOURNAL_SYNC),
            log_format: reader.value(keys::LOG_FORMAT),
        },
    }
}

fn tasks(reader: &mut Reader, people: &People) -> Tasks {
    let named = |user: &&String| !user.starts_with("@*:");
    let (from, follows): (_, Vec<_>) = match &*people.admins {
        [] => ("ALLOWED_USERS", people.allowed.iter().filter(named).cloned().collect()),
        admins => ("ADMIN_USERS", admins.to_vec()),
    };
    let follows = (!follows.is_empty()).then(|| (follows.join(","), from));
    Tasks {
        secret: reader.optional(keys::GITHUB_WEBHOOK_SECRET),
        label: reader.value(keys::GITHUB_TASK_LABEL),
        people: reader.or_follows(keys::GITHUB_TASK_PEOPLE, follows).unwrap_or_default(),
        rounds: reader.value(keys::GITHUB_FIX_ROUNDS),
    }
}

fn agents(
    reader: &mut Reader,
    agent: &Key<String>,
    model: &Key<String>,
    fallback: &Key<Vec<AgentChoice>>,
) -> AgentRole {
    let first = AgentChoice { agent: reader.value(agent), model: reader.optional(model) };
    AgentRole { first, fallback: reader.optional(fallback).unwrap_or_default() }
}

fn llm(reader: &mut Reader) -> Llm {
    let model = reader.value(keys::LLM_MODEL);
    let facts = reader.raw.model(&model);
    Llm {
        model,
        api_key: reader.optional(keys::LLM_API_KEY),
        base_url: reader.optional(keys::LLM_BASE_URL),
        idle: reader.value(keys::LLM_IDLE_SECONDS),
        facts,
    }
}

/// Reads the account of `MATRIX_USER`, if that is set; the defaults for other accounts; and the administrator, who
/// may be set alone.
fn matrix(reader: &mut Reader) -> (Option<Matrix>, Matrix, Option<String>) {
    let vps_ip = reader.optional(keys::VPS_IP);
    let derived = |text: fn(&str) -> String| vps_ip.map(|ip| (text(&host(ip)), "VPS_IP"));
    let homeserver = reader.value_or_follows(keys::MATRIX_HOMESERVER, derived(|host| format!("http://{host}:8008")));
    let allow_plain_http = reader.value(keys::ALLOW_PLAIN_HTTP);
    let user = reader.or_follows(keys::MATRIX_USER, derived(|host| format!("@matrixbot:{host}")));
    let password = reader.optional(keys::MATRIX_PASSWORD);
    let admin = reader.or_follows(keys::MATRIX_ADMIN_USER, derived(|host| format!("@admin:{host}")));
    let admin_password = reader.optional(keys::MATRIX_ADMIN_PASSWORD);
    let unsigned_devices = reader.value(keys::ALLOW_UNSIGNED_DEVICES);
    let admin_user = admin.clone();
    let defaults = Matrix {
        homeserver,
        allow_plain_http,
        user: String::new(),
        password,
        admin_user,
        admin_password,
        vps_ip,
        unsigned_devices,
    };
    (user.map(|user| Matrix { user, ..defaults.clone() }), defaults, admin)
}

/// The homeserver of cloud bots that name none, where none is known here.
const ANY_HOMESERVER: &str = "http://127.0.0.1:8448";

/// Reads what holds for all cloud bots. Their homeserver is ours only if we have one: a default would be a stranger's.
fn cloud_bots(reader: &mut Reader, defaults: &Matrix) -> CloudBotRules {
    let enabled = reader.value(keys::ENABLE_CLOUD_BOTS);
    let name = keys::MATRIX_HOMESERVER.about.name;
    let ours = reader.settings.iter().any(|setting| setting.key == name && setting.source != Source::Default);
    let any = Url::parse(ANY_HOMESERVER).unwrap_or_else(|_| unreachable!("a test reads it"));
    let administrator = defaults.admin_user.clone().zip(defaults.admin_password.clone()).filter(|_| ours);
    CloudBotRules {
        enabled,
        administrator,
        homeserver: if ours { defaults.homeserver.clone() } else { any },
        allow_plain_http: defaults.allow_plain_http,
        unsigned_devices: defaults.unsigned_devices,
    }
}

fn exobot(reader: &mut Reader, first: Option<&Matrix>, defaults: &Matrix) -> Exobot {
    // Only its mistakes count.
    reader.optional(keys::EXOBOT_PROOT_DISTRO);
    let domain = reader.optional(keys::DOMAIN).map(|domain| (format!("ai.{domain}"), "DOMAIN"));
    let ours = first.map(|first| &first.user).or(defaults.admin_user.as_ref());
    let (known_bots, cross) = (reader.value(keys::EXOBOT_KNOWN_BOTS), reader.value(keys::CROSSBOT_ENABLED));
    if cross && known_bots.is_empty() {
        let mend = "Name the bots with which it may talk in EXOBOT_KNOWN_BOTS";
        reader.mistakes.add(keys::CROSSBOT_ENABLED.about.name, None, Wrong::new("there is no bot to talk with", mend));
    }
    Exobot {
        enabled: reader.value(keys::ENABLE_EXOBOT),
        localpart: reader.value(keys::EXOBOT_LOCALPART),
        server: ours.and_then(|user| user.split_once(':')).map(|(_, server)| server.to_owned()),
        binary: reader.optional(keys::LLAMA_SERVER_BIN),
        image: reader.optional(keys::LLAMA_SERVER_IMAGE),
        model: reader.optional(keys::MODEL_PATH),
        registry_model: reader.optional(keys::EXOBOT_MODEL),
        rooms: reader.value(keys::EXOBOT_ALLOWED_ROOMS),
        known_bots,
        idle: reader.value(keys::IDLE_UNLOAD_SECONDS),
        keep_warm: reader.value(keys::LLAMA_KEEP_WARM),
        pressure: Some(reader.value(keys::EXOBOT_PRESSURE_PERCENT)).filter(|percent| *percent > 0),
        interject: reader.value(keys::INTERJECT_ENABLED),
        seed: reader.value(keys::SEED_ENABLED),
        revive: reader.value(keys::REVIVE_ENABLED),
        cross,
        ui: reader.value(keys::EXOBOT_UI),
        ui_listen: reader.value(keys::EXOBOT_UI_LISTEN),
        ui_open: reader.value(keys::EXOBOT_UI_OPEN),
        ui_public: reader.or_follows(keys::EXOBOT_UI_HOST_PUBLIC, domain),
    }
}

/// Returns an address as URLs and Matrix names contain it.
fn host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn state_dir(sources: &Sources) -> PathBuf {
    const SYSTEM: &str = "/var/lib/matrix-agent";
    if sources.root {
        return PathBuf::from(SYSTEM);
    }
    // Without a home directory it is the system's directory too. This user probably cannot write there and is told
    // so, but the working directory is never used.
    let state = sources.path("XDG_STATE_HOME").or_else(|| Some(sources.path("HOME")?.join(".local/state")));
    state.map_or_else(|| PathBuf::from(SYSTEM), |state| state.join("matrix-agent"))
}

fn localbot_dir(sources: &Sources) -> PathBuf {
    const SYSTEM: &str = "/etc/matrix-agent";
    let own = || sources.path("XDG_CONFIG_HOME").or_else(|| Some(sources.path("HOME")?.join(".config")));
    match own() {
        Some(config) if !sources.root => config.join("matrix-agent"),
        _ => PathBuf::from(SYSTEM),
    }
}

fn podman_socket(sources: &Sources) -> PathBuf {
    if sources.root {
        return PathBuf::from("/run/podman/podman.sock");
    }
    let runtime = sources.path("XDG_RUNTIME_DIR");
    runtime.unwrap_or_else(|| PathBuf::from(format!("/run/user/{}", nix::unistd::geteuid()))).join("podman/podman.sock")
}
