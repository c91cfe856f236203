//! What the benchmarks share: a fleet of their own on a Podman service of their own, the clock, and the table's rows.
//!
//! Each benchmark sets ours and what it is compared with against each other in one run, in turns, so that whatever else
//! the machine does hits both alike. All numbers are for the machine that they were measured on.

#![expect(dead_code, unreachable_pub, clippy::print_stdout, reason = "each benchmark uses another part, and prints")]

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bollard::{ClientVersion, Docker};
use matrix_agent::{
    clock::Clock,
    gateway::{AllowedHosts, Gateway, GatewayPolicy, Network},
    ids::{Address, random},
    sandbox::{self, Process, Sandbox, SandboxOptions, Sandboxes, Stdin, User},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub mod bare;
pub mod model;
pub mod stamps;
pub mod terminal;

/// A bare Debian: what the sandbox's start costs does not depend on what its image holds.
pub const IMAGE: &str = "docker.io/library/debian:trixie-slim";

/// A state directory with its own instance and its own Podman service. Everything of it is removed with it.
pub struct House {
    pub directory: TempDir,
    pub instance: String,
    service: Child,
}

impl House {
    pub fn new(name: &str) -> Self {
        let directory = tempfile::Builder::new().prefix(name).tempdir().unwrap();
        let socket = format!("unix://{}", directory.path().join("podman.sock").display());
        let mut service = Command::new("podman");
        let service = service.args(["system", "service", "--time=0", &socket]);
        let service = service.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(directory.path().join("podman.sock")).is_err() {
            assert!(Instant::now() < end, "`podman system service` does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { directory, instance: format!("{name}-{}", random(4)), service }
    }

    /// What a server of this house is told.
    pub fn options(&self) -> SandboxOptions {
        SandboxOptions {
            state_dir: self.directory.path().to_owned(),
            ipc_dir: self.directory.path().join("ipc"),
            instance: self.instance.clone(),
            image: IMAGE.to_owned(),
            podman_socket: Some(self.directory.path().join("podman.sock")),
            podman_path: "podman".into(),
            runtime: None,
            memory: 1 << 30,
            cpus: 2.0,
            pids: 256,
            disk: 10 << 30,
            idle: Duration::from_hours(1),
            memory_total: u64::MAX,
            max_running: 100,
            host_disk_reserve: 0,
            grace: Duration::from_hours(24),
            clock: Clock::default(),
            ca_bundle: None,
        }
    }

    pub async fn open(&self, options: SandboxOptions) -> Sandboxes {
        let cancel = CancellationToken::new();
        let policy = GatewayPolicy::new(AllowedHosts::standard());
        let gateway = Gateway::new(policy, Network::system(), cancel.child_token());
        Sandboxes::open(options, gateway, &cancel).await.unwrap()
    }

    pub fn docker(&self) -> Docker {
        let socket = self.directory.path().join("podman.sock");
        let version = ClientVersion { major_version: 1, minor_version: 41 };
        Docker::connect_with_unix(socket.to_str().unwrap(), 120, &version).unwrap()
    }

    pub fn room(&self, name: &str) -> Address {
        Address::of_first(format!("!{name}:{}", self.instance))
    }

    /// The container's name of a room that has one.
    pub async fn container(fleet: &Sandboxes, room: &Address) -> String {
        fleet.list().await.unwrap().into_iter().find(|it| it.address == *room).unwrap().name
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let label = format!("label=matrix-agent.instance={}", self.instance);
        let containers = podman(&["ps", "--all", "--quiet", "--filter", &label]);
        for id in containers.split_whitespace() {
            podman(&["rm", "--force", "--time", "0", id]);
        }
        let volumes = podman(&["volume", "ls", "--quiet"]);
        for name in volumes.split_whitespace().filter(|name| name.contains(&self.instance)) {
            podman(&["volume", "rm", name]);
        }
        let volumes = podman(&["volume", "ls", "--quiet", "--filter", &label]);
        for name in volumes.split_whitespace() {
            podman(&["volume", "rm", name]);
        }
        let events = format!("label=matrix-agent.ipc={}", self.instance);
        for name in podman(&["volume", "ls", "--quiet", "--filter", &events]).split_whitespace() {
            podman(&["volume", "rm", name]);
        }
        let _ = self.service.kill();
        let _ = self.service.wait();
    }
}

/// Runs Podman's command line and returns what it printed.
pub fn podman(arguments: &[&str]) -> String {
    let done = Command::new("podman").args(arguments).output().unwrap();
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

/// Runs a future on a runtime like the server's.
pub fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(future);
}

/// Starts a command as a tool call does.
pub async fn spawn(sandbox: &Sandbox, argv: &[&str]) -> Process {
    let command = sandbox::Command {
        id: random(8),
        argv: argv.iter().map(|&part| part.to_owned()).collect(),
        env: Vec::new(),
        cwd: String::new(),
        user: User::Agent,
        stdin: Stdin::Null,
        timeout: Some(Duration::from_mins(1)),
        background: false,
        writable: None,
        spooled: false,
    };
    sandbox.spawn(command).await.unwrap()
}

/// Runs a command and returns what it wrote.
pub async fn output(sandbox: &Sandbox, argv: &[&str]) -> String {
    let ended = spawn(sandbox, argv).await.wait().await.unwrap();
    String::from_utf8_lossy(&ended.output.head).trim().to_owned()
}

/// Measurements of one thing, in milliseconds.
#[derive(Default)]
pub struct Times(Vec<f64>);

impl Times {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1e3);
    }

    pub fn since(&mut self, start: Instant) {
        self.add(start.elapsed());
    }

    pub fn push(&mut self, milliseconds: f64) {
        self.0.push(milliseconds);
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn median(&self) -> f64 {
        self.percentile(50)
    }

    pub fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() * percent).div_ceil(100)).clamp(1, sorted.len()) - 1]
    }
}

/// A figure of `/proc/PID/<file>` in MB, such as `VmRSS`.
pub fn memory(pid: &str, file: &str, figure: &str) -> f64 {
    let text = fs::read_to_string(Path::new("/proc").join(pid).join(file)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() * 1024.0 / 1e6
}

/// Says what is measured under what load, and begins the table.
pub fn table(name: &str) {
    println!("\n### {name} ({})\n\n| what | goal | ours | compared with | ratio |\n|---|---|---|---|---|", load());
}

/// Ends the table.
pub fn end(started: Instant) {
    println!("\n{:.0} s; {}", started.elapsed().as_secs_f64(), load());
}

/// A row of the table.
pub fn row(what: &str, goal: &str, ours: &str, compared: &str, ratio: &str) {
    println!("| {what} | {goal} | {ours} | {compared} | {ratio} |");
}

fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("load {}", load.split(' ').next().unwrap_or("?"))
}
