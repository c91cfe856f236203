//! A state directory with its fleet, and what the tests do in its sandboxes.

use std::{
    collections::HashSet,
    path::PathBuf,
    process::{Command as Program, Stdio as Pipes},
    time::Duration,
};

use matrix_agent::{
    clock::Clock,
    gateway::{AllowedHosts, Gateway, GatewayPolicy, Network, models::ModelDoor},
    ids::{Address, random},
    sandbox::{Command, Ended, Exit, Runtime, Sandbox, SandboxOptions, SandboxState, Sandboxes, Stdin, User},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

pub(crate) const IMAGE: &str = "docker.io/library/debian:trixie-slim";

/// No single step of these tests takes longer, even on a machine that does much else.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// A state directory with its own instance; removes every container and volume of it at the end, also of a failed test.
pub(crate) struct House {
    pub(crate) directory: TempDir,
    pub(crate) options: SandboxOptions,
}

impl House {
    pub(crate) fn new() -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let directory = tempfile::Builder::new().prefix("fleet").tempdir().unwrap();
        if runtime().is_some() {
            // gVisor is one of the others when it passes to the state directory.
            must(Program::new("chmod").arg("711").arg(directory.path()));
        }
        let options = SandboxOptions {
            state_dir: directory.path().to_owned(),
            ipc_dir: directory.path().join("ipc"),
            instance: format!("test-{}", random(6)),
            image: IMAGE.to_owned(),
            podman_socket: None,
            podman_path: "podman".into(),
            runtime: runtime(),
            memory: 512 << 20,
            cpus: 1.5,
            pids: 128,
            disk: 1 << 30,
            idle: Duration::from_hours(1),
            memory_total: u64::MAX,
            max_running: 8,
            host_disk_reserve: 0,
            grace: Duration::from_hours(24),
            clock: Clock::default(),
            ca_bundle: None,
        };
        Self { directory, options }
    }

    pub(crate) fn with(change: impl FnOnce(&mut SandboxOptions)) -> Self {
        let mut house = Self::new();
        change(&mut house.options);
        house
    }

    pub(crate) async fn open(&self) -> Sandboxes {
        self.open_with(ModelDoor::default()).await
    }

    /// The same with models behind the gateway.
    pub(crate) async fn open_with(&self, models: ModelDoor) -> Sandboxes {
        let cancel = CancellationToken::new();
        let policy = GatewayPolicy::new(AllowedHosts::standard());
        let gateway = Gateway::new(policy, Network::system(), cancel.child_token()).with_models(models);
        Sandboxes::open(self.options.clone(), gateway, &cancel).await.unwrap()
    }

    pub(crate) fn label(&self) -> String {
        format!("label=matrix-agent.instance={}", self.options.instance)
    }

    /// Names of this instance's containers as Podman itself lists them.
    pub(crate) fn containers(&self) -> HashSet<String> {
        lines(&podman(&["ps", "--all", "--filter", &self.label(), "--format", "{{.Names}}"]))
    }

    pub(crate) fn volumes(&self) -> HashSet<String> {
        lines(&podman(&["volume", "ls", "--filter", &self.label(), "--format", "{{.Name}}"]))
    }

    /// The volumes that hold rooms' events.
    pub(crate) fn event_volumes(&self) -> HashSet<String> {
        let label = format!("label=matrix-agent.ipc={}", self.options.instance);
        lines(&podman(&["volume", "ls", "--filter", &label, "--format", "{{.Name}}"]))
    }

    /// A room that no other test has.
    pub(crate) fn room(&self, name: &str) -> Address {
        Address::of_first(format!("!{name}:{}", self.options.instance))
    }
}

impl Drop for House {
    fn drop(&mut self) {
        for name in self.containers() {
            podman(&["rm", "--force", "--time", "0", &name]);
        }
        for name in self.volumes().into_iter().chain(self.event_volumes()) {
            podman(&["volume", "rm", &name]);
        }
    }
}

/// A small file system with a Podman storage of its own and an empty image in it.
pub(crate) struct Disk {
    pub(crate) directory: TempDir,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("disk").tempdir().unwrap();
        let disk = Self { directory };
        let (image, root) = (disk.directory.path().join("image"), disk.path(""));
        std::fs::create_dir(&root).unwrap();
        std::fs::File::create(&image).unwrap().set_len(384 << 20).unwrap();
        must(Program::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image));
        must(Program::new("mount").args(["-o", "loop"]).args([&image, &root]));
        std::fs::create_dir(disk.path("state")).unwrap();
        let wrapper = format!(
            "#!/bin/sh\nexec podman --root {0}/storage --runroot {0}/run --tmpdir {0}/tmp \"$@\"\n",
            root.display()
        );
        std::fs::write(disk.path("podman"), wrapper).unwrap();
        must(Program::new("chmod").arg("755").arg(disk.path("podman")));
        must(
            Program::new("tar")
                .args(["--create", "--file"])
                .arg(disk.path("empty.tar"))
                .args(["--files-from", "/dev/null"]),
        );
        disk.import();
        disk
    }

    /// Brings the empty image, the only one.
    pub(crate) fn import(&self) {
        must(Program::new(self.path("podman")).arg("import").arg(self.path("empty.tar")).arg("localhost/empty:latest"));
    }

    /// A house whose state and sandboxes are on this disk.
    pub(crate) fn house(&self, change: impl FnOnce(&mut SandboxOptions)) -> House {
        House::with(|options| {
            options.state_dir = self.path("state");
            options.podman_path = self.path("podman");
            options.podman_socket = Some(self.path("nobody.sock"));
            options.image = "localhost/empty:latest".into();
            change(options);
        })
    }

    /// Returns what Podman says of the storage on this disk; it must succeed.
    pub(crate) fn podman(&self, arguments: &[&str]) -> String {
        let output = Program::new(self.path("podman")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("root").join(name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Program::new(self.path("podman")).args(["rm", "--all", "--force", "--time", "0"]).output();
        // The storage mounts its own directories onto themselves.
        let _ = Program::new("umount").args(["--recursive", "--lazy"]).arg(self.path("")).output();
    }
}

/// The runtime with which these tests are run, if not Podman's own.
pub(crate) fn runtime() -> Option<Runtime> {
    Some(match std::env::var("TEST_SANDBOX_RUNTIME").ok()?.as_str() {
        "runc" => Runtime::Runc,
        "crun" => Runtime::Crun,
        "runsc" => Runtime::Runsc,
        other => panic!("no runtime: {other}"),
    })
}

pub(crate) fn must(program: &mut Program) {
    let output = program.output().unwrap();
    assert!(output.status.success(), "{program:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

/// The socket of a Podman that this house's fleet starts.
pub(crate) fn own_socket(house: &House) -> PathBuf {
    let name = house.options.runtime.map_or_else(String::new, |runtime| format!("-{}", runtime.name()));
    house.directory.path().join(format!("podman{name}.sock"))
}

/// Whether these tests are run with gVisor.
pub(crate) fn is_gvisor() -> bool {
    runtime() == Some(Runtime::Runsc)
}

/// Finds the Podman service that serves this house.
pub(crate) fn service_of(house: &House) -> u32 {
    let socket = format!("unix://{}", own_socket(house).display());
    let pids =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let serves = |pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|argument| argument == socket.as_bytes())
    };
    pids.into_iter().find(serves).expect("the service runs")
}

pub(crate) fn podman(arguments: &[&str]) -> String {
    let output = Program::new("podman").args(arguments).stderr(Pipes::null()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn lines(text: &str) -> HashSet<String> {
    text.lines().map(str::to_owned).collect()
}

pub(crate) fn shell(script: &str) -> Command {
    Command {
        id: random(8),
        argv: ["sh", "-c", script].map(str::to_owned).into(),
        env: Vec::new(),
        cwd: String::new(),
        user: User::Agent,
        stdin: Stdin::Null,
        timeout: Some(LIMIT),
        background: false,
        writable: None,
        spooled: false,
    }
}

pub(crate) fn root(script: &str) -> Command {
    Command { user: User::Root, ..shell(script) }
}

pub(crate) async fn run(sandbox: &Sandbox, command: Command) -> Ended {
    let process = sandbox.spawn(command).await.unwrap();
    timeout(LIMIT, process.wait()).await.unwrap().unwrap()
}

/// Runs a script as the agent and returns what it printed; it must succeed.
pub(crate) async fn sh(sandbox: &Sandbox, script: &str) -> String {
    let ended = run(sandbox, shell(script)).await;
    let output = text(&ended);
    assert_eq!(ended.exit, Exit::Code(0), "`{script}` printed: {output}");
    output
}

pub(crate) fn text(ended: &Ended) -> String {
    let output = [ended.output.head.clone(), ended.output.tail.clone()].concat();
    String::from_utf8_lossy(&output).trim().to_owned()
}

/// Waits until the room's sandbox is in `state`.
pub(crate) async fn until(fleet: &Sandboxes, room: &Address, state: SandboxState) {
    let wait = async {
        while !fleet.list().await.unwrap().iter().any(|sandbox| sandbox.address == *room && sandbox.state == state) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{room} never became {state:?}"));
}
