//! The program as people run it: the real binary, a state directory of its own, real Podman, a scripted model.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use rand::Rng;
use serde_json::Value;

/// A bare Debian: enough for commands and files.
pub const BARE: &str = "docker.io/library/debian:trixie-slim";
/// The sandbox image with all its tools.
pub const FULL: &str = "localhost/matrix-agent-sandbox:latest";
/// The variable by which these tests are run with another runtime (`docs/runtimes.md`).
pub const RUNTIME: &str = "TEST_SANDBOX_RUNTIME";
/// Ports that the kernel gives to nobody who has not asked for them, so that one is still free when it is used later.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
/// No wait in a test is longer.
pub const LIMIT: Duration = Duration::from_mins(1);

/// A state directory and how to start programs on it. Its containers and volumes are removed with it.
pub struct Rig {
    folder: tempfile::TempDir,
    env: Vec<(String, String)>,
    /// What serves in place of the program, with its arguments.
    house: Option<(PathBuf, Vec<String>)>,
    /// `matrix-agent.toml`.
    config: PathBuf,
}

impl Rig {
    /// A rig whose model is at `base_url`.
    pub fn new(image: &str, base_url: &str) -> Self {
        // A Unix socket's path has 108 bytes at most.
        let folder = tempfile::Builder::new().prefix("ma-").tempdir_in("/tmp").unwrap();
        // gVisor is one of the others when it passes to the state directory.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let (state, ipc) = (folder.path().join("s"), folder.path().join("ipc"));
        let env = [
            ("STATE_DIR", state.to_str().unwrap()),
            ("IPC_BASE_DIR", ipc.to_str().unwrap()),
            ("SANDBOX_IMAGE", image),
            ("LLM_BASE_URL", base_url),
            ("LLM_API_KEY", "sk-scripted-secret"),
            ("LLM_MODEL", "openai/scripted"),
            ("HOST_DISK_RESERVE", "100m"),
            // A refusal is waited for by tests that are about it.
            ("HOST_ASK_SECONDS", "0"),
            ("RUST_LOG", "matrix_agent=debug"),
        ];
        let runtime = std::env::var(RUNTIME).ok().map(|runtime| ("SANDBOX_RUNTIME".to_owned(), runtime));
        let env = env.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).chain(runtime).collect();
        Self { folder, env, house: None, config: "/dev/null".into() }
    }

    /// Lets another program serve, with these arguments and the same environment.
    pub fn serve_with(&mut self, program: PathBuf, arguments: &[&str]) {
        self.house = Some((program, arguments.iter().map(|&argument| argument.to_owned()).collect()));
    }

    /// Sets a variable for all that is started from now on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.env.retain(|(known, _)| known != key);
        self.env.push((key.to_owned(), value.to_owned()));
    }

    /// Lets sandboxes reach the registries also where a proxy of the network's own signs TLS by what this machine trusts.
    pub fn trust_what_this_machine_trusts(&mut self) {
        let bundle = "/etc/ssl/certs/ca-certificates.crt";
        if std::env::var_os("SANDBOX_CA_BUNDLE").is_none() && Path::new(bundle).exists() {
            self.set("SANDBOX_CA_BUNDLE", bundle);
        }
    }

    /// Writes a `matrix-agent.toml` for all that is started from now on.
    pub fn configure(&mut self, toml: &str) {
        self.config = self.folder.path().join("matrix-agent.toml");
        std::fs::write(&self.config, toml).unwrap();
    }

    /// What a variable was set to.
    pub fn get(&self, key: &str) -> Option<String> {
        self.env.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone())
    }

    /// All variables that were set.
    pub fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// The folder that holds the state directory and what the test puts there.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The program with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_matrix-agent"));
        // The settings of whoever runs the tests are none of theirs.
        command.args(["--env-file", "/dev/null", "--config-file"]).arg(&self.config).args(args);
        self.prepared(command)
    }

    /// What serves.
    fn serving(&self) -> Command {
        let Some((program, arguments)) = &self.house else { return self.command(&["run"]) };
        let mut command = Command::new(program);
        command.args(arguments);
        self.prepared(command)
    }

    fn prepared(&self, mut command: Command) -> Command {
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        for key in ["LLM_API_KEY", "LLM_MODEL", "SANDBOX_IMAGE", "STATE_DIR", "RUST_LOG"] {
            command.env_remove(key);
        }
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> std::process::Output {
        self.command(args).output().unwrap()
    }

    /// Starts `chat --json` with one prompt in a room.
    pub fn ask(&self, room: &str, prompt: &str) -> Chat {
        Chat::start(self.command(&["chat", "--json", "--room", room, "-p", prompt]))
    }

    /// How many containers there are, and how many volumes.
    pub fn sandboxes(&self) -> (usize, usize) {
        let Some(instance) = instance(&self.database()) else { return (0, 0) };
        let filter = format!("label=matrix-agent.instance={instance}");
        let count = |list: &[&str]| {
            let found = Command::new("podman").args(list).args(["--quiet", "--filter", &filter]).output().unwrap();
            String::from_utf8(found.stdout).unwrap().lines().count()
        };
        (count(&["ps", "--all"]), count(&["volume", "ls"]))
    }

    /// Runs a script in the one sandbox there is, also while there is no server.
    pub fn inside(&self, script: &str) {
        let filter = format!("label=matrix-agent.instance={}", instance(&self.database()).unwrap());
        let found = Command::new("podman").args(["ps", "--quiet", "--filter", &filter]).output().unwrap();
        let container = String::from_utf8(found.stdout).unwrap();
        let run = Command::new("podman").args(["exec", "--user=1000", container.trim(), "sh", "-c", script]).output();
        let run = run.unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }

    /// The store's file; a test may change it while no server runs.
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("s/matrix-agent.db")
    }

    /// Starts the server and waits until it serves.
    pub fn serve(&self) -> Server {
        let log = self.folder.path().join("server.log");
        let file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        // It listens before its accounts are served, and tells systemd once each was tried.
        let notify = self.folder.path().join("notify.sock");
        let _ = std::fs::remove_file(&notify);
        let told = UnixDatagram::bind(&notify).unwrap();
        told.set_nonblocking(true).unwrap();
        let mut command = self.serving();
        command.env("NOTIFY_SOCKET", &notify).stdout(Stdio::null()).stderr(file);
        let mut server = Server { child: command.spawn().unwrap(), log };
        wait("the server", || {
            assert!(server.child.try_wait().unwrap().is_none(), "the server ended: {}", server.log());
            is_ready(&told)
        });
        server
    }
}

/// Whether a program has told systemd that it is ready.
fn is_ready(told: &UnixDatagram) -> bool {
    let mut said = [0; 512];
    std::iter::from_fn(|| told.recv(&mut said).ok().map(|length| said[..length].starts_with(b"READY=1"))).any(|is| is)
}

impl Drop for Rig {
    fn drop(&mut self) {
        let Some(instance) = instance(&self.database()) else { return };
        let label = format!("label=matrix-agent.instance={instance}");
        let events = format!("label=matrix-agent.ipc={instance}");
        // A server that is about to end may still be making one. Volumes go without `--force`: with it Podman locks the
        // volume and then its container, whose own clean-up locks them the other way round, and both wait for ever.
        for _ in 0..100 {
            remove(&["ps", "--all", "--quiet", "--filter", &label], &["rm", "--force", "--time", "0"]);
            for label in [&label, &events] {
                remove(&["volume", "ls", "--quiet", "--filter", label], &["volume", "rm"]);
            }
            if self.sandboxes() == (0, 0) {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

fn instance(database: &Path) -> Option<String> {
    let connection =
        rusqlite::Connection::open_with_flags(database, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    connection.query_row("SELECT value FROM meta WHERE key = 'instance'", [], |row| row.get(0)).ok()
}

fn remove(list: &[&str], remove: &[&str]) {
    let Ok(found) = Command::new("podman").args(list).output() else { return };
    let found = String::from_utf8_lossy(&found.stdout);
    let ids: Vec<_> = found.split_whitespace().collect();
    if !ids.is_empty() {
        let _ = Command::new("podman").args(remove).args(ids).output();
    }
}

/// A server that runs; ended with this.
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as systemd does, and returns what it has logged.
    pub fn stop(mut self) -> String {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.died();
        self.log()
    }

    /// Whether it is gone.
    pub fn is_dead(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it is gone by itself.
    pub fn died(&mut self) -> ExitStatus {
        let mut status = None;
        wait("the server's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A `chat --json` that runs.
pub struct Chat {
    child: Child,
    frames: mpsc::Receiver<Value>,
    /// All frames so far.
    pub seen: Vec<Value>,
}

impl Chat {
    /// Starts the command and reads its frames.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let frames = read_frames(child.stdout.take().unwrap());
        Self { child, frames, seen: Vec::new() }
    }

    /// Writes a line to its standard input, which must be piped.
    pub fn type_line(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a frame that fits.
    pub fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + LIMIT;
        loop {
            match self.frames.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(frame) => {
                    self.seen.push(frame.clone());
                    if fits(&frame) {
                        return frame;
                    }
                }
                Err(error) => panic!("waited for {what} ({error}), saw {:#?}", self.seen),
            }
        }
    }

    /// Waits for a frame of this event.
    pub fn event(&mut self, name: &str) -> Value {
        self.until(name, |frame| frame["event"] == name)
    }

    /// Waits for the end; returns the exit code and all frames.
    pub fn finish(mut self) -> (i32, Vec<Value>) {
        let end = Instant::now() + LIMIT;
        while let Ok(frame) = self.frames.recv_timeout(end.saturating_duration_since(Instant::now())) {
            self.seen.push(frame);
        }
        let mut status = None;
        wait("the end of chat", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap().code().unwrap_or(-1), std::mem::take(&mut self.seen))
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_frames(out: ChildStdout) -> mpsc::Receiver<Value> {
    let (send, frames) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let frame = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
            if send.send(frame).is_err() {
                return;
            }
        }
    });
    frames
}

/// Waits for a future from a test that is not async.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// The answers among the frames.
pub fn answers(frames: &[Value]) -> Vec<&Value> {
    frames.iter().filter(|frame| frame["event"] == "answer").collect()
}

/// A port of this machine at which nobody listens.
pub fn free_port() -> u16 {
    let mut random = rand::rng();
    std::iter::repeat_with(|| random.random_range(PORTS))
        .take(100)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port")
}

/// Polls until it holds, or fails the test.
pub fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "waited too long for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
