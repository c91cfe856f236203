//! One room with a sandbox of its own, in which the tools are called.

use std::{
    os::fd::{AsRawFd, BorrowedFd},
    path::PathBuf,
    time::Duration,
};

use matrix_agent::{
    clock::Clock,
    coding_agents::{CodingAgents, Profiles, Roster},
    config::{self, AgentChoice, AgentRole},
    environments::Environments,
    gateway::{
        AllowedHosts, Gateway, GatewayPolicy, Network,
        models::{ModelDoor, Protocol},
    },
    github::GitHub,
    ids::{self, Address, CallId, TurnId},
    rights::{Rights, Roles},
    sandbox::{SandboxOptions, Sandboxes},
    store::{Durability, Store},
    tools::{
        self, GuidesSeen, JobsSeen, LargeFiles, Steering, Take, TestsSeen, ToolContext, ToolLimits, ToolProgress,
        ToolResult, Word,
    },
};
use nix::sys::socket::{Shutdown, getsockopt, shutdown, sockopt::PeerCredentials};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub(crate) const PLAIN: &str = "docker.io/library/debian:trixie-slim";
pub(crate) const FULL: &str = "localhost/matrix-agent-sandbox:latest";
/// No call of these tests may take longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(100);

/// One room with a sandbox of its own.
pub(crate) struct Bench {
    pub(crate) sandboxes: Sandboxes,
    pub(crate) options: SandboxOptions,
    pub(crate) address: Address,
    jobs: JobsSeen,
    agents: CodingAgents,
    pub(crate) environments: Option<Environments>,
    pub(crate) github: GitHub,
    pub(crate) rights: Rights,
    pub(crate) store: Store,
    _state: TempDir,
}

impl Bench {
    /// A room whose agents end when they have answered.
    pub(crate) async fn open(image: &str) -> Self {
        Self::with(image, gateway(), agents(false)).await
    }

    /// One whose way out is this gateway.
    pub(crate) async fn behind(image: &str, gateway: Gateway) -> Self {
        Self::with(image, gateway, agents(false)).await
    }

    /// A room whose agents stay when they have answered, as Qwen Code does by its profile.
    pub(crate) async fn staying(image: &str) -> Self {
        Self::with(image, gateway(), agents(true)).await
    }

    /// One whose way out is this gateway, and whose sandboxes take so much of the disk.
    pub(crate) async fn with_disk(image: &str, gateway: Gateway, disk: u64) -> Self {
        Self::of(image, gateway, agents(false), disk).await
    }

    async fn with(image: &str, gateway: Gateway, agents: CodingAgents) -> Self {
        Self::of(image, gateway, agents, 20 << 30).await
    }

    async fn of(image: &str, gateway: Gateway, agents: CodingAgents, disk: u64) -> Self {
        let state = tempfile::Builder::new().prefix("ma-tools").tempdir_in("/tmp").unwrap();
        let options = SandboxOptions {
            state_dir: state.path().to_owned(),
            ipc_dir: state.path().join("ipc"),
            instance: format!("tools-{}", ids::random(4)),
            image: image.to_owned(),
            podman_socket: std::env::var_os("PODMAN_SOCKET").map(PathBuf::from),
            podman_path: "podman".into(),
            runtime: None,
            memory: 1 << 30,
            cpus: 2.0,
            pids: 256,
            disk,
            idle: Duration::from_hours(1),
            memory_total: u64::MAX,
            max_running: 4,
            host_disk_reserve: 1 << 30,
            grace: Duration::from_hours(24),
            clock: Clock::default(),
            ca_bundle: None,
        };
        let sandboxes = Sandboxes::open(options.clone(), gateway, &CancellationToken::new()).await.unwrap();
        let address = Address::of_first(format!("tools:{}", ids::random(4)));
        let store = Store::open(&state.path().join("db"), Durability::Normal, Clock::default()).unwrap();
        let rights = Rights::new(store.clone(), Roles::default());
        Self {
            store,
            sandboxes,
            options,
            address,
            jobs: JobsSeen::default(),
            agents,
            environments: None,
            github: GitHub::default(),
            rights,
            _state: state,
        }
    }

    pub(crate) fn context(&self) -> (ToolContext, mpsc::Receiver<ToolProgress>) {
        let (progress, receiver) = mpsc::channel(16);
        let call = CallId(ids::random(8));
        // Nobody says anything.
        let (steering, ..) = steering(&call, vec![]);
        let context = ToolContext {
            sandboxes: self.sandboxes.clone(),
            address: self.address.clone(),
            turn: TurnId(ids::random(8)),
            person: "@ann:a.org".to_owned(),
            call,
            agents: self.agents.clone(),
            environments: self.environments.clone(),
            github: self.github.clone(),
            updates: None,
            rights: self.rights.clone(),
            store: self.store.clone(),
            cancel: CancellationToken::new(),
            heard: CancellationToken::new(),
            steering,
            jobs: self.jobs.clone(),
            guides: GuidesSeen::default(),
            tests: TestsSeen::default(),
            large: LargeFiles::default(),
            progress,
            limits: ToolLimits {
                command: Duration::from_secs(20),
                longest: Duration::from_mins(1),
                ..ToolLimits::default()
            },
            vision: true,
        };
        (context, receiver)
    }

    /// A further call of the same turn.
    pub(crate) fn context_in(&self, other: &ToolContext) -> (ToolContext, mpsc::Receiver<ToolProgress>) {
        let (context, receiver) = self.context();
        (ToolContext { turn: other.turn.clone(), ..context }, receiver)
    }

    pub(crate) async fn call(&self, name: &str, arguments: Value) -> ToolResult {
        let (context, _progress) = self.context();
        run(&context, name, &arguments).await
    }

    /// Runs a command that has to succeed and returns its output.
    pub(crate) async fn sh(&self, command: &str) -> String {
        let result = self.call("run_command", json!({ "command": command })).await;
        assert!(result.ok, "{command}: {}", result.text);
        result.text.strip_prefix("exit code: 0\n").unwrap_or_else(|| panic!("{}", result.text)).to_owned()
    }

    /// Counts the processes whose command line matches (write it so that it does not match itself).
    pub(crate) async fn running(&self, pattern: &str) -> String {
        self.sh(&format!("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o '{pattern}' | wc -l")).await
    }

    pub(crate) async fn boot_id(&self) -> String {
        self.sandboxes.ensure(&self.address).await.unwrap().boot_id().to_owned()
    }

    /// Breaks all connections to the sandbox, which go through this very process.
    pub(crate) fn cut_connections(&self) {
        let label = format!("label=matrix-agent.instance={}", self.options.instance);
        let container = podman(&["ps", "--quiet", "--filter", &label]);
        let sandboxd: i32 =
            podman(&["inspect", "--format", "{{.State.Pid}}", container.trim()]).trim().parse().unwrap();
        let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let files = files.filter_map(|file| file.file_name().to_str()?.parse().ok());
        let mut cut = 0;
        for file in files {
            // SAFETY: it is only looked at and shut down; whoever owns it closes it.
            let file = unsafe { BorrowedFd::borrow_raw(file) };
            if getsockopt(&file, PeerCredentials).is_ok_and(|peer| peer.pid() == sandboxd) {
                shutdown(file.as_raw_fd(), Shutdown::Both).unwrap();
                cut += 1;
            }
        }
        assert_ne!(cut, 0, "there was a connection");
    }

    pub(crate) async fn close(self) {
        self.sandboxes.shutdown().await;
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let label = format!("label=matrix-agent.instance={}", self.options.instance);
        for id in podman(&["ps", "--all", "--quiet", "--filter", &label]).lines() {
            podman(&["rm", "--force", "--time", "0", id]);
        }
        let events = format!("label=matrix-agent.ipc={}", self.options.instance);
        for label in [&label, &events] {
            for name in podman(&["volume", "ls", "--quiet", "--filter", label]).lines() {
                podman(&["volume", "rm", name]);
            }
        }
    }
}

/// A call's way to what people say, with what it has taken before; how many words wait, and where it asks for them.
pub(crate) fn steering(call: &CallId, taken: Vec<Word>) -> (Steering, watch::Sender<usize>, mpsc::Receiver<Take>) {
    let ((waiting, waits), (take, takes)) = (watch::channel(0), mpsc::channel(1));
    (Steering::new(call.clone(), taken, waits, take), waiting, takes)
}

/// Qwen Code in every role, with models that are never asked.
fn agents(stay: bool) -> CodingAgents {
    let mut qwen: toml::Table = include_str!("../../src/coding_agents/profiles/qwen.toml").parse().unwrap();
    if !stay {
        qwen.remove("stays").unwrap();
    }
    let profiles = Profiles::new([("qwen", &qwen)].into_iter());
    let choice =
        |agent: &str, model: Option<&str>| AgentChoice { agent: agent.to_owned(), model: model.map(str::to_owned) };
    let qwen = || AgentRole {
        first: choice("qwen", None),
        fallback: vec![choice("qwen", Some("second-model")), choice("qwen", Some("third-model"))],
    };
    let gemini = AgentRole { first: choice("gemini", None), fallback: Vec::new() };
    let models = |protocol| if protocol == Protocol::OpenAi { vec!["own-model".to_owned()] } else { Vec::new() };
    let roster = Roster::new(&config::Agents { plan: gemini, implement: qwen(), review: qwen() }, &profiles, models);
    CodingAgents::new(roster, ModelDoor::default())
}

pub(crate) fn podman(arguments: &[&str]) -> String {
    let output = std::process::Command::new("podman").args(arguments).output().expect("podman is there");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn gateway() -> Gateway {
    Gateway::new(GatewayPolicy::new(AllowedHosts::standard()), Network::system(), CancellationToken::new())
}

pub(crate) async fn open(options: &SandboxOptions) -> Sandboxes {
    Sandboxes::open(options.clone(), gateway(), &CancellationToken::new()).await.unwrap()
}

pub(crate) async fn run(context: &ToolContext, name: &str, arguments: &Value) -> ToolResult {
    timeout(LIMIT, tools::run(context, name, &arguments.to_string())).await.expect("ends within its limit")
}

#[track_caller]
pub(crate) fn good(result: &ToolResult, parts: &[&str]) {
    assert!(result.ok, "{}", result.text);
    says(result, parts);
}

/// The id of the job that a call has started.
#[track_caller]
pub(crate) fn job_id(started: &ToolResult) -> &str {
    good(started, &["Running in the background as job-"]);
    let id = |word: &str| word.ends_with('.') && word.starts_with("job-");
    started.text.split_whitespace().find(|word| id(word)).expect("its id is told").trim_end_matches('.')
}

#[track_caller]
pub(crate) fn bad(result: &ToolResult, parts: &[&str]) {
    assert!(!result.ok, "{}", result.text);
    says(result, parts);
}

#[track_caller]
pub(crate) fn says(result: &ToolResult, parts: &[&str]) {
    for part in parts {
        assert!(result.text.contains(part), "{part:?} is not in: {}", result.text);
    }
    assert!(!result.summary.is_empty() && !result.summary.contains('\n'), "{:?}", result.summary);
}
