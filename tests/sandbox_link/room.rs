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

pub(crate) struct Room {
    name: String,
    dir: TempDir,
    _state: TempDir,
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
        let (link, proxies) = bind(dir.path());
        let mut room = Self { name, dir, _state: state, link: Some(link), proxies };
        room.podman_run(&binary);
        let sandbox = room.connect().await;
        (room, sandbox)
    }

    fn podman_run(&self, binary: &Path) {
        let room = format!("{}:{}:ro", self.dir.path().display(), protocol::ROOM_DIR);
        let binary = format!("{}:{}:ro", binary.display(), protocol::BINARY);
        let capabilities = "CHOWN,DAC_OVERRIDE,FOWNER,SETUID,SETGID,KILL";
        podman(&[
            "run",
            "--detach",
            "--name",
            &self.name,
            "--userns=auto:size=65536",
            "--network=none",
            "--log-driver=none",
            "--security-opt=no-new-privileges",
            "--cap-drop=all",
            "--cap-add",
            capabilities,
            "--pids-limit=256",
            "--memory=256m",
            "--shm-size=64m",
            "--ulimit=nofile=1024:20000",
            "--ulimit=nproc=16384:16384",
            "--mount=type=tmpfs,destination=/workspace",
            "--volume",
            &room,
            "--volume",
            &binary,
            "docker.io/library/debian:trixie-slim",
            protocol::BINARY,
        ]);
    }

    async fn connect(&mut self) -> Sandbox {
        let pid = podman(&["inspect", "--format", "{{.State.Pid}}", &self.name]);
        let link = self.link.as_ref().expect("a link");
        link.set_peer(Some(String::from_utf8_lossy(&pid.stdout).trim().parse().expect("a pid")));
        link.connected(LIMIT).await.expect("sandboxd's greeting")
    }

    pub(crate) fn link(&self) -> &Link {
        self.link.as_ref().expect("a link")
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
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
        podman(&arguments.iter().copied().chain([self.name.as_str()]).collect::<Vec<_>>())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = process::Command::new("podman").args(["rm", "--force", "--time=0", "--volumes", &self.name]).output();
    }
}

fn bind(dir: &Path) -> (Link, mpsc::Receiver<ProxyStream>) {
    let (sender, receiver) = mpsc::channel(8);
    (Link::bind(dir, sender, &CancellationToken::new()).expect("a socket"), receiver)
}

fn podman(arguments: &[&str]) -> Output {
    // When memory runs out, conmon leaves an empty file `oom` where Podman was started.
    let folder = std::env::temp_dir();
    let output =
        process::Command::new("podman").args(arguments).current_dir(folder).output().expect("podman is installed");
    assert!(output.status.success(), "podman {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
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
