//! A room's container for tests, made with the `podman` command alone: the fleet's own ways with Podman have tests of
//! their own. Removed when dropped.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{self, Output},
    time::Duration,
};

use matrix_agent::sandbox::{Captured, Command, Ended, Exit, Link, ProxyStream, Sandbox, Stdin, User, embed};
use sandboxd::protocol;
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long anything in these tests may take that is not what they measure.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// What a sandboxd under gVisor is known by.
pub(crate) const KEY: &str = "0a1b";

pub(crate) struct Room {
    name: String,
    dir: TempDir,
    _state: TempDir,
    /// What Podman is given as the runtime with which these tests are run (`docs/runtimes.md`), if not its own.
    runtime: Option<PathBuf>,
    link: Option<Link>,
    pub(crate) proxies: mpsc::Receiver<ProxyStream>,
}

impl Room {
    /// Starts a container with the design's hardening, and waits for its sandboxd.
    pub(crate) async fn start() -> (Self, Sandbox) {
        let state = tempfile::tempdir().expect("a directory");
        let dir = tempfile::tempdir().expect("a directory");
        // The room's directory is looked into by the container's root, a stranger here.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        let binary = embed::install(state.path()).expect("sandboxd");
        let name = format!("sandboxd-test-{}-{}", process::id(), matrix_agent::ids::random(4));
        let runtime = runtime(state.path());
        let (link, proxies) = bind(dir.path());
        let mut room = Self { name, dir, _state: state, runtime, link: Some(link), proxies };
        room.podman_run(&binary);
        let sandbox = room.connect().await;
        (room, sandbox)
    }

    fn podman_run(&self, binary: &Path) {
        let room = format!("{}:{}:ro", self.dir.path().display(), protocol::ROOM_DIR);
        let binary = format!("{}:{}:ro", binary.display(), protocol::BINARY);
        let capabilities = "CHOWN,DAC_OVERRIDE,FOWNER,SETUID,SETGID,KILL";
        // As `sandbox/spec.rs` has it: the host counts other processes than gVisor, which needs memory for each.
        let (pids, processes, memory) = if is_gvisor() { (1280, 256, 512) } else { (256, 16384, 256) };
        let proof = format!("--env={}={KEY}", protocol::PROOF);
        let run = ["run", "--detach"].into_iter().chain(is_gvisor().then_some(&*proof));
        let options = [
            "--name",
            &self.name,
            "--userns=auto:size=65536",
            "--network=none",
            "--log-driver=none",
            "--security-opt=no-new-privileges",
            "--cap-drop=all",
            "--cap-add",
            capabilities,
            &format!("--pids-limit={pids}"),
            &format!("--memory={memory}m"),
            "--shm-size=64m",
            "--ulimit=nofile=1024:20000",
            &format!("--ulimit=nproc={processes}:{processes}"),
            "--mount=type=tmpfs,destination=/workspace",
            "--volume",
            &room,
            "--volume",
            &binary,
            "docker.io/library/debian:trixie-slim",
            protocol::BINARY,
        ];
        self.podman_alone(&run.chain(options).collect::<Vec<_>>());
    }

    async fn connect(&mut self) -> Sandbox {
        let pid = self.podman(&["inspect", "--format", "{{.State.Pid}}"]);
        let link = self.link.as_ref().expect("a link");
        link.set_peer(Some(String::from_utf8_lossy(&pid.stdout).trim().parse().expect("a pid")));
        link.connected(LIMIT).await.expect("sandboxd's greeting")
    }

    pub(crate) fn link(&self) -> &Link {
        self.link.as_ref().expect("a link")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join(protocol::SOCKET)
    }

    /// A link that does not know yet whom to expect.
    pub(crate) fn rebind(&self) -> Link {
        bind(self.dir.path()).0
    }

    /// The server goes away.
    pub(crate) fn drop_link(&mut self) {
        self.link = None;
    }

    /// The server comes back.
    pub(crate) async fn relink(&mut self) -> Sandbox {
        self.link = None;
        let (link, proxies) = bind(self.dir.path());
        (self.link, self.proxies) = (Some(link), proxies);
        self.connect().await
    }

    /// Runs a `podman` command about this container.
    pub(crate) fn podman(&self, arguments: &[&str]) -> Output {
        self.podman_alone(&arguments.iter().copied().chain([self.name.as_str()]).collect::<Vec<_>>())
    }

    /// Runs something in the container with no help of sandboxd.
    pub(crate) fn aside(&self, script: &str) {
        self.podman_alone(&["exec", "--user=1000", &self.name, "sh", "-c", script]);
    }

    fn podman_alone(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().expect("podman is installed");
        assert!(output.status.success(), "podman {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn command(&self, arguments: &[&str]) -> process::Command {
        let mut command = process::Command::new("podman");
        // When memory runs out, conmon leaves an empty file `oom` where Podman was started.
        command.current_dir(std::env::temp_dir());
        if let Some(runtime) = &self.runtime {
            command.arg("--runtime").arg(runtime);
        }
        command.args(arguments);
        command
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = self.command(&["rm", "--force", "--time=0", "--volumes", &self.name]).output();
    }
}

fn bind(dir: &Path) -> (Link, mpsc::Receiver<ProxyStream>) {
    let (sender, receiver) = mpsc::channel(8);
    let link = Link::bind(dir, sender, &CancellationToken::new()).expect("a socket");
    if is_gvisor() {
        link.demand(KEY.to_owned());
    }
    (link, receiver)
}

/// Whether these tests are run with gVisor.
pub(crate) fn is_gvisor() -> bool {
    std::env::var("TEST_SANDBOX_RUNTIME").is_ok_and(|runtime| runtime == "runsc")
}

/// What Podman is given as the runtime with which these tests are run, if they are run with another than its own.
fn runtime(folder: &Path) -> Option<PathBuf> {
    let name = std::env::var("TEST_SANDBOX_RUNTIME").ok()?;
    let path = std::env::var_os("PATH").expect("a search path");
    let program = std::env::split_paths(&path).map(|folder| folder.join(&name)).find(|path| path.exists());
    let program = program.unwrap_or_else(|| panic!("there is no {name} in the PATH"));
    if !is_gvisor() {
        return Some(program);
    }
    // gVisor is one of the others when it passes to sandboxd's binary.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).expect("its mode");
    let flags = include_str!("../../scripts/gvisor/runsc").rsplit_once("exec runsc ").expect("its last line").1;
    let script = folder.join(name);
    fs::write(&script, format!("#!/bin/sh\nexec {} {flags}", program.display())).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
    Some(script)
}

/// A command of the agent's shell.
pub(crate) fn shell(script: &str) -> Command {
    command(&["/bin/bash", "-c", script])
}

pub(crate) fn command(argv: &[&str]) -> Command {
    Command {
        id: matrix_agent::ids::random(8),
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
        env: Vec::new(),
        cwd: String::new(),
        user: User::Agent,
        stdin: Stdin::Null,
        timeout: None,
        background: false,
        writable: None,
        spooled: false,
    }
}

pub(crate) async fn run(sandbox: &Sandbox, command: Command) -> Ended {
    let wait = async { sandbox.spawn(command).await.expect("a process").wait().await.expect("its end") };
    timeout(LIMIT, wait).await.expect("an end in time")
}

/// Runs a shell command and returns all that it wrote; it has to end well.
pub(crate) async fn output(sandbox: &Sandbox, command: Command) -> String {
    let ended = run(sandbox, command).await;
    let text = text(&ended.output);
    assert_eq!(ended.exit, Exit::Code(0), "{text}");
    text
}

pub(crate) fn text(captured: &Captured) -> String {
    assert_eq!(captured.omitted, 0);
    String::from_utf8_lossy(&[&captured.head[..], &captured.tail].concat()).into_owned()
}

/// How many processes of the sandbox have `marker` in their command line.
pub(crate) async fn count(sandbox: &Sandbox, marker: &str) -> usize {
    // Written so that the searching shell does not find itself.
    let (first, rest) = marker.split_at(1);
    let script = format!("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c '^[{first}]{rest}$'; true");
    output(sandbox, shell(&script)).await.trim().parse().expect("a number")
}
