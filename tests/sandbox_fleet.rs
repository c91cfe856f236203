//! The sandboxes of rooms on real Podman: they come to life, keep their files, stay apart, stay within their limits,
//! stop, are taken over by the next server, and go away. Needs root, Podman and the image below.

use std::{
    collections::HashSet,
    path::PathBuf,
    process::{Command as Program, Stdio as Pipes},
    time::Duration,
};

use bytes::Bytes;
use matrix_agent::{
    gateway::{AllowedHosts, Gateway, GatewayPolicy, Network},
    ids::{RoomKey, random},
    sandbox::{
        Command, Ended, Exit, Lookup, Sandbox, SandboxError, SandboxOptions, SandboxState, Sandboxes, Stdin, User,
    },
};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

const IMAGE: &str = "docker.io/library/debian:trixie-slim";

/// No single step of these tests takes longer, even on a machine that does much else.
const LIMIT: Duration = Duration::from_mins(1);

/// A state directory with its own instance; removes every container and volume of it at the end, also of a failed test.
struct House {
    directory: TempDir,
    options: SandboxOptions,
}

impl House {
    fn new() -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let directory = tempfile::Builder::new().prefix("fleet").tempdir().unwrap();
        let options = SandboxOptions {
            state_dir: directory.path().to_owned(),
            instance: format!("test-{}", random(6)),
            image: IMAGE.to_owned(),
            podman_socket: None,
            podman_path: "podman".into(),
            memory: 512 << 20,
            cpus: 1.5,
            pids: 128,
            disk: 1 << 30,
            idle: Duration::from_hours(1),
            max_running: 8,
            host_disk_reserve: 0,
            ca_bundle: None,
        };
        Self { directory, options }
    }

    fn with(change: impl FnOnce(&mut SandboxOptions)) -> Self {
        let mut house = Self::new();
        change(&mut house.options);
        house
    }

    async fn open(&self) -> Sandboxes {
        let cancel = CancellationToken::new();
        let policy = GatewayPolicy::new(AllowedHosts::standard());
        let gateway = Gateway::new(policy, Network::system(), cancel.child_token());
        Sandboxes::open(self.options.clone(), gateway, &cancel).await.unwrap()
    }

    fn label(&self) -> String {
        format!("label=matrix-agent.instance={}", self.options.instance)
    }

    /// Names of this instance's containers as Podman itself lists them.
    fn containers(&self) -> HashSet<String> {
        lines(&podman(&["ps", "--all", "--filter", &self.label(), "--format", "{{.Names}}"]))
    }

    fn volumes(&self) -> HashSet<String> {
        lines(&podman(&["volume", "ls", "--filter", &self.label(), "--format", "{{.Name}}"]))
    }

    /// A room that no other test has.
    fn room(&self, name: &str) -> RoomKey {
        RoomKey(format!("!{name}:{}", self.options.instance))
    }
}

impl Drop for House {
    fn drop(&mut self) {
        for name in self.containers() {
            podman(&["rm", "--force", "--time", "0", &name]);
        }
        for name in self.volumes() {
            podman(&["volume", "rm", "--force", &name]);
        }
    }
}

/// A small file system with a Podman storage of its own and an empty image in it.
struct Disk {
    directory: TempDir,
}

impl Disk {
    fn new() -> Self {
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
        must(Program::new(disk.path("podman")).arg("import").arg(disk.path("empty.tar")).arg("localhost/empty:latest"));
        disk
    }

    fn path(&self, name: &str) -> PathBuf {
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

fn must(program: &mut Program) {
    let output = program.output().unwrap();
    assert!(output.status.success(), "{program:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn signal(pid: u32, name: &str) {
    must(Program::new("kill").args(["-s", name, &pid.to_string()]));
}

/// Finds the Podman service that serves this house.
fn service_of(house: &House) -> u32 {
    let socket = format!("unix://{}", house.directory.path().join("podman.sock").display());
    let pids =
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let serves = |pid: &u32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|argument| argument == socket.as_bytes())
    };
    pids.into_iter().find(serves).expect("the service runs")
}

fn podman(arguments: &[&str]) -> String {
    let output = Program::new("podman").args(arguments).stderr(Pipes::null()).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn lines(text: &str) -> HashSet<String> {
    text.lines().map(str::to_owned).collect()
}

fn shell(script: &str) -> Command {
    Command {
        id: random(8),
        argv: ["sh", "-c", script].map(str::to_owned).into(),
        env: Vec::new(),
        cwd: String::new(),
        user: User::Agent,
        stdin: Stdin::Null,
        timeout: Some(LIMIT),
        background: false,
    }
}

fn root(script: &str) -> Command {
    Command { user: User::Root, ..shell(script) }
}

async fn run(sandbox: &Sandbox, command: Command) -> Ended {
    let process = sandbox.spawn(command).await.unwrap();
    timeout(LIMIT, process.wait()).await.unwrap().unwrap()
}

/// Runs a script as the agent and returns what it printed; it must succeed.
async fn sh(sandbox: &Sandbox, script: &str) -> String {
    let ended = run(sandbox, shell(script)).await;
    let output = text(&ended);
    assert_eq!(ended.exit, Exit::Code(0), "`{script}` printed: {output}");
    output
}

fn text(ended: &Ended) -> String {
    let output = [ended.output.head.clone(), ended.output.tail.clone()].concat();
    String::from_utf8_lossy(&output).trim().to_owned()
}

/// Waits until the room's sandbox is in `state`.
async fn until(fleet: &Sandboxes, room: &RoomKey, state: SandboxState) {
    let wait = async {
        while !fleet.list().await.unwrap().iter().any(|sandbox| sandbox.room == *room && sandbox.state == state) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{room} never became {state:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_sandbox_is_stopped_and_starts_again_with_its_files() {
    let house = House::with(|options| options.idle = Duration::from_secs(1));
    let fleet = house.open().await;
    let room = house.room("idle");
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sh(&sandbox, "id -un; pwd; echo $HOME").await, "agent\n/workspace\n/home/agent");
    sh(&sandbox, "echo one > /workspace/file; echo two > ~/file").await;
    assert_eq!(run(&sandbox, root("echo three > /etc/file")).await.exit, Exit::Code(0));

    until(&fleet, &room, SandboxState::Stopped).await;
    assert!(!sandbox.is_connected());

    let again = fleet.ensure(&room).await.unwrap();
    assert_ne!(again.boot_id(), sandbox.boot_id());
    assert_eq!(sh(&again, "cat /workspace/file ~/file /etc/file").await, "one\ntwo\nthree");
    assert_eq!(house.volumes().len(), 1, "one volume a room");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_at_work_is_not_idle() {
    let house = House::with(|options| options.idle = Duration::from_millis(500));
    let fleet = house.open().await;
    let room = house.room("busy");
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sh(&sandbox, "sleep 2; echo done").await, "done");
    until(&fleet, &room, SandboxState::Stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_calls_for_one_room_share_one_start() {
    let house = House::new();
    let fleet = house.open().await;
    let room = house.room("shared");
    let (a, b, c) = tokio::join!(fleet.ensure(&room), fleet.ensure(&room), fleet.ensure(&room));
    let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
    assert!(a.boot_id() == b.boot_id() && b.boot_id() == c.boot_id());
    assert_eq!(house.containers().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_limits_make_the_container_anew_and_keep_the_files() {
    let mut house = House::new();
    let room = house.room("anew");
    let fleet = house.open().await;
    let sandbox = fleet.ensure(&room).await.unwrap();
    sh(&sandbox, "echo mine > /workspace/file; mkdir ~/.private; chmod 700 ~/.private; echo x > ~/.private/y").await;
    run(&sandbox, root("echo gone > /etc/file; echo roots > /workspace/root")).await;
    let before = fleet.observe(&room).await.unwrap();
    fleet.shutdown().await;
    let names = house.containers();
    podman(&["stop", "--time", "2", names.iter().next().unwrap()]);

    house.options.memory = 256 << 20;
    let fleet = house.open().await;
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(house.containers(), names);
    let seen =
        sh(&sandbox, "cat /workspace/file ~/.private/y /workspace/root; ls /etc/file 2>/dev/null || echo new").await;
    assert_eq!(seen, "mine\nx\nroots\nnew");
    sh(&sandbox, "echo more >> /workspace/file; rm -r ~/.private").await;
    let after = fleet.observe(&room).await.unwrap();
    assert_ne!(before.id, after.id);
    let (before, after) = (before.outside.unwrap(), after.outside.unwrap());
    assert_eq!(before.uid_map, after.uid_map, "the files' owners are the room's");
    assert_eq!(after.limits.memory, Some(256 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_image_is_taken_at_the_next_start() {
    let image = format!("localhost/{}:latest", random(6));
    let house = House::with(|options| options.image.clone_from(&image));
    podman(&["tag", IMAGE, &image]);
    let fleet = house.open().await;
    let room = house.room("image");
    let sandbox = fleet.ensure(&room).await.unwrap();
    sh(&sandbox, "echo kept > file").await;
    let before = fleet.observe(&room).await.unwrap();
    assert!(before.image_is_current);

    let recipe = house.directory.path().join("Containerfile");
    std::fs::write(&recipe, format!("FROM {IMAGE}\nLABEL made=anew\n")).unwrap();
    podman(&["build", "--tag", &image, "--file", recipe.to_str().unwrap(), house.directory.path().to_str().unwrap()]);
    fleet.reconcile().await.unwrap();
    assert!(sandbox.is_connected(), "what runs is left alone");
    assert!(!fleet.observe(&room).await.unwrap().image_is_current);

    podman(&["stop", "--time", "2", &before.container]);
    until(&fleet, &room, SandboxState::Stopped).await;
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sh(&sandbox, "cat file; echo mine >> file").await, "kept");
    let after = fleet.observe(&room).await.unwrap();
    assert!(after.image_is_current && after.image != before.image && after.id != before.id);
    fleet.remove(&room, true).await.unwrap();
    podman(&["rmi", "--force", &image]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandboxd_that_does_not_answer_is_ended_with_its_container() {
    let house = House::new();
    let fleet = house.open().await;
    let room = house.room("stuck");
    let sandbox = fleet.ensure(&room).await.unwrap();
    let work = sandbox.spawn(shell("sleep 600")).await.unwrap();
    let pid = fleet.observe(&room).await.unwrap().outside.unwrap().pid;
    signal(pid, "STOP");
    timeout(LIMIT, sandbox.kill(work.id())).await.unwrap().unwrap();
    let again = timeout(LIMIT, fleet.ensure(&room)).await.unwrap().unwrap();
    assert_ne!(again.boot_id(), sandbox.boot_id());
    assert_eq!(sh(&again, "echo usable").await, "usable");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_podman_service_is_started_again() {
    let house = House::with(|options| options.podman_socket = Some(options.state_dir.join("nobody.sock")));
    let fleet = house.open().await;
    let room = house.room("service");
    let sandbox = fleet.ensure(&room).await.unwrap();
    signal(service_of(&house), "KILL");
    assert_eq!(sh(&sandbox, "echo on").await, "on", "what runs does not notice");
    let again = async {
        while fleet.observe(&room).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, again).await.unwrap();
    fleet.ensure(&house.room("another")).await.unwrap();
    fleet.shutdown().await;
    assert!(!house.directory.path().join("podman.sock").exists(), "it ends with the server");
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_hosts_reserve_what_works_is_paused_and_told() {
    let disk = Disk::new();
    let house = House::with(|options| {
        options.state_dir = disk.path("state");
        options.podman_path = disk.path("podman");
        options.podman_socket = Some(disk.path("nobody.sock"));
        options.image = "localhost/empty:latest".into();
        options.host_disk_reserve = 100 << 20;
    });
    let fleet = house.open().await;
    let mut notices = fleet.notices();
    let (writer, quiet) = (house.room("writer"), house.room("quiet"));
    let sandbox = fleet.ensure(&writer).await.unwrap();
    fleet.ensure(&quiet).await.unwrap();
    // The image is empty: what runs is sandboxd's own applet, waiting for what to write.
    let write = ["/run/sandboxd", "fs", "write", "file", "4"].map(str::to_owned).into();
    let mut work = sandbox.spawn(Command { argv: write, stdin: Stdin::Stream, ..shell("") }).await.unwrap();
    std::fs::write(disk.path("ballast"), vec![1; 280 << 20]).unwrap();

    let notice = timeout(LIMIT, notices.recv()).await.unwrap().unwrap();
    assert!(notice.room == writer && notice.text.contains("disk is nearly full"), "{notice:?}");
    let state = |room: &RoomKey, list: &[matrix_agent::sandbox::SandboxSummary]| {
        list.iter().find(|sandbox| sandbox.room == *room).map(|sandbox| sandbox.state)
    };
    let list = fleet.list().await.unwrap();
    assert_eq!(state(&writer, &list), Some(SandboxState::Paused));
    assert_eq!(state(&quiet, &list), Some(SandboxState::Running), "who does not work cannot write");
    assert!(matches!(fleet.ensure(&quiet).await, Err(SandboxError::HostDiskLow)));

    std::fs::remove_file(disk.path("ballast")).unwrap();
    let notice = timeout(LIMIT, notices.recv()).await.unwrap().unwrap();
    assert!(notice.text.contains("runs on"), "{notice:?}");
    work.write(b"done").await.unwrap();
    work.close_stdin().await.unwrap();
    assert_eq!(timeout(LIMIT, work.wait()).await.unwrap().unwrap().exit, Exit::Code(0));
    fleet.remove(&writer, true).await.unwrap();
    fleet.remove(&quiet, true).await.unwrap();
    fleet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_rooms_cannot_see_each_other() {
    let house = House::new();
    let fleet = house.open().await;
    let (here, there) = (house.room("here"), house.room("there"));
    let (a, b) = tokio::join!(fleet.ensure(&here), fleet.ensure(&there));
    let (a, b) = (a.unwrap(), b.unwrap());
    sh(&a, "echo secret > /workspace/secret; echo secret > /tmp/secret; echo secret > ~/secret").await;
    let sleeper = Command { background: true, argv: ["sleep", "4321"].map(str::to_owned).into(), ..shell("") };
    let _sleeper = a.spawn(sleeper).await.unwrap();

    let nobody = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null; done; \
        ls /workspace ~ /tmp /run/volume; cat /proc/net/dev | tail -n +3 | cut -d: -f1";
    let seen = sh(&b, nobody).await;
    assert!(!seen.contains("4321") && !seen.contains("secret"), "{seen}");
    assert!(seen.ends_with("lo") && seen.matches("lo").count() == 1, "one interface, the loopback: {seen}");
    let seen = text(&run(&b, root("find / -xdev -name secret; ls -A /run/volume; kill -0 -1 && echo killed")).await);
    assert!(!seen.contains("secret"), "{seen}");

    let (a, b) = tokio::join!(fleet.observe(&here), fleet.observe(&there));
    let (a, b) = (a.unwrap().outside.unwrap(), b.unwrap().outside.unwrap());
    assert!(a.uid_map[0][1].abs_diff(b.uid_map[0][1]) >= 65_536, "{:?} {:?}", a.uid_map, b.uid_map);
    assert!(a.uid != 0 && b.uid != 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn colliding_names_are_told_apart() {
    let house = House::new();
    let fleet = house.open().await;
    let (colon, dash) = (house.room("x:y"), house.room("x-y"));
    let (a, b) = (fleet.ensure(&colon).await.unwrap(), fleet.ensure(&dash).await.unwrap());
    sh(&a, "echo colon > /workspace/who").await;
    sh(&b, "echo dash > /workspace/who").await;
    assert_eq!(sh(&a, "cat /workspace/who").await, "colon");
    let names: Vec<_> = fleet.list().await.unwrap().into_iter().map(|sandbox| sandbox.name).collect();
    assert!(names.len() == 2 && names.iter().all(|name| name.starts_with("sandbox-x-y-test-")), "{names:?}");

    // Another server has a room of the same name on the same Podman.
    let other = House::new();
    let sandbox = other.open().await.ensure(&colon).await.unwrap();
    assert_eq!(sh(&sandbox, "ls /workspace").await, "");
    assert!(other.containers().is_disjoint(&house.containers()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_used_makes_room_but_never_one_at_work() {
    let house = House::with(|options| options.max_running = 2);
    let fleet = house.open().await;
    let (first, second, third) = (house.room("first"), house.room("second"), house.room("third"));
    let busy = fleet.ensure(&first).await.unwrap();
    let work = busy.spawn(Command { background: true, ..shell("sleep 600") }).await.unwrap();
    fleet.ensure(&second).await.unwrap();

    let sandbox = fleet.ensure(&third).await.unwrap();
    assert_eq!(sh(&sandbox, "echo up").await, "up");
    until(&fleet, &second, SandboxState::Stopped).await;
    assert!(busy.is_connected(), "it was used least recently, but works");

    busy.kill(work.id()).await.unwrap();
    fleet.ensure(&second).await.unwrap();
    until(&fleet, &first, SandboxState::Stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_takes_over_what_runs() {
    let house = House::new();
    let room = house.room("heir");
    let fleet = house.open().await;
    let sandbox = fleet.ensure(&room).await.unwrap();
    let (short, long) = (shell("sleep 0.5; echo meanwhile"), shell("sleep 600"));
    let (short_id, long_id) = (short.id.clone(), long.id.clone());
    drop((sandbox.spawn(short).await.unwrap(), sandbox.spawn(long).await.unwrap()));
    let boot = sandbox.boot_id().to_owned();
    fleet.shutdown().await;
    drop((sandbox, fleet)); // as a killed server's would, its connections close

    let fleet = house.open().await;
    until(&fleet, &room, SandboxState::Running).await;
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sandbox.boot_id(), boot);
    let ended = match sandbox.lookup(&short_id).await.unwrap() {
        Lookup::Running(process) => timeout(LIMIT, process.wait()).await.unwrap().unwrap(),
        Lookup::Ended(ended) => ended,
        _ => panic!("it did run"),
    };
    assert_eq!(text(&ended), "meanwhile");
    assert!(matches!(sandbox.lookup(&long_id).await.unwrap(), Lookup::Running(_)));
    assert!(matches!(sandbox.lookup("never").await.unwrap(), Lookup::Unknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_our_own_gone_rooms_are_removed() {
    let (house, other) = (House::new(), House::new());
    let (fleet, others) = (house.open().await, other.open().await);
    let (stays, goes, strange) = (house.room("stays"), house.room("goes"), other.room("strange"));
    let (a, b, c) = tokio::join!(fleet.ensure(&stays), fleet.ensure(&goes), others.ensure(&strange));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    fleet.reconcile().await.unwrap();
    assert_eq!(house.containers().len(), 2, "until it is known which rooms exist, none is gone");

    fleet.keep_only([stays.clone()]).await;
    let left: Vec<_> = fleet.list().await.unwrap().into_iter().map(|sandbox| sandbox.room).collect();
    assert_eq!(left, [stays]);
    assert_eq!((house.containers().len(), other.containers().len()), (1, 1));
    assert_eq!(house.volumes().len(), 2, "files stay for a day");

    // A day later.
    let yesterday = std::time::SystemTime::now() - Duration::from_hours(25);
    let marks = std::fs::read_dir(house.directory.path().join("rooms")).unwrap().flatten();
    let mark = marks.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "gone")).unwrap();
    std::fs::File::options().write(true).open(mark).unwrap().set_modified(yesterday).unwrap();
    fleet.reconcile().await.unwrap();
    assert_eq!((house.volumes().len(), other.volumes().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_do_to_a_container_is_noticed() {
    let house = House::new();
    let fleet = house.open().await;
    let room = house.room("meddled");
    let sandbox = fleet.ensure(&room).await.unwrap();
    sh(&sandbox, "echo kept > file").await;
    let name = house.containers().into_iter().next().unwrap();
    podman(&["kill", &name]);
    until(&fleet, &room, SandboxState::Stopped).await;
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sh(&sandbox, "cat file").await, "kept");

    podman(&["rm", "--force", "--time", "0", &name]);
    let sandbox = fleet.ensure(&room).await;
    let sandbox = match sandbox {
        Ok(sandbox) if sandbox.is_connected() => sandbox,
        _ => fleet.ensure(&room).await.unwrap(),
    };
    assert_eq!(sh(&sandbox, "cat file").await, "kept");
    podman(&["volume", "prune", "--force", "--filter", &house.label()]);
    assert_eq!(house.volumes().len(), 1, "a volume in use is not pruned");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hardening_is_what_is_observed() {
    let house = House::with(|options| options.ca_bundle = Some("/etc/ssl/certs/ca-certificates.crt".into()));
    let fleet = house.open().await;
    let room = house.room("hard");
    let sandbox = fleet.ensure(&room).await.unwrap();
    let seen = fleet.observe(&room).await.unwrap();
    let inside = seen.inside.clone().unwrap();
    assert_eq!((inside.uid, inside.gid), (1000, 1000));
    assert_eq!(inside.capabilities, [] as [&str; 0]);
    assert!(inside.no_new_privileges && inside.seccomp);
    assert_eq!(inside.interfaces, ["lo"]);
    assert_eq!(inside.boot_id, sandbox.boot_id());

    let outside = seen.outside.clone().unwrap();
    let expected = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID", "SYS_CHROOT"];
    assert_eq!(outside.capabilities, expected);
    assert!(outside.no_new_privileges && outside.seccomp && outside.uid > 65_535);
    assert_eq!(outside.uid_map, [[0, u64::from(outside.uid), 65_536]]);
    assert_eq!(outside.interfaces, ["lo"]);
    let limits = (outside.limits.memory, outside.limits.cpus, outside.limits.pids);
    assert_eq!(limits, (Some(512 << 20), Some(1.5), Some(128)));
    assert!(seen.image.starts_with("sha256:") && seen.image_is_current);
    assert_eq!(seen.volume, house.volumes().into_iter().next());
    let text = seen.to_string();
    assert!(text.contains("uid 1000, no capabilities, cannot gain more"), "{text}");
    serde_json::to_string(&seen).unwrap();

    let facts = sh(
        &sandbox,
        "grep -c BEGIN $SSL_CERT_FILE | grep -qv '^0$' && df --output=size -B1 /dev/shm | tail -1; ulimit -Hn; \
         touch /run/sandboxd /run/matrix-agent/x $SSL_CERT_FILE 2>&1 | wc -l; ls -A /run/volume; hostname",
    )
    .await;
    assert_eq!(facts, "134217728\n20000\n3\nsandbox");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_hog_and_a_fork_bomb_end_at_their_limits() {
    let house = House::with(|options| (options.memory, options.pids) = (128 << 20, 64));
    let fleet = house.open().await;
    let room = house.room("hog");
    let sandbox = fleet.ensure(&room).await.unwrap();
    let hog = run(&sandbox, shell("head -c 1G /dev/zero | tail")).await;
    assert!(hog.exit != Exit::Code(0), "{hog:?}");
    assert_eq!(sh(&sandbox, "echo usable").await, "usable");

    let bomb = Command { timeout: Some(Duration::from_secs(3)), ..shell("bomb() { bomb | bomb & }; bomb; sleep 600") };
    let bomb = run(&sandbox, bomb).await;
    assert!(matches!(bomb.exit, Exit::TimedOut | Exit::Code(_)), "{bomb:?}");
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sh(&sandbox, "echo usable").await, "usable");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fills_the_disk_is_ended_and_told() {
    let house = House::with(|options| options.disk = 64 << 20);
    let fleet = house.open().await;
    let mut notices = fleet.notices();
    let room = house.room("filler");
    let sandbox = fleet.ensure(&room).await.unwrap();
    // In steps, so that a slow watch still finds it writing; far above the limit in the end.
    let fill = "i=0; while [ $i -lt 400 ]; do head -c 8M /dev/zero >> big; i=$((i+1)); sleep 0.05; done";
    let filler = run(&sandbox, shell(fill)).await;
    assert_eq!(filler.exit, Exit::DiskFull, "{filler:?}");
    let notice = timeout(LIMIT, notices.recv()).await.unwrap().unwrap();
    assert!(notice.room == room && notice.text.contains("disk is full"), "{notice:?}");
    assert_eq!(sh(&sandbox, "rm big; echo usable").await, "usable");

    // A file without a name counts too.
    let hidden = "exec 3> hidden; rm hidden; while :; do head -c 8M /dev/zero >&3; sleep 0.05; done";
    assert_eq!(run(&sandbox, shell(hidden)).await.exit, Exit::DiskFull);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_host_starts_nothing() {
    let house = House::with(|options| options.host_disk_reserve = u64::MAX / 4);
    let fleet = house.open().await;
    let room = house.room("full");
    let refused = async {
        loop {
            match fleet.ensure(&room).await {
                Err(SandboxError::HostDiskLow) => return,
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(LIMIT, refused).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why() {
    let house = House::with(|options| options.image = "localhost/no-such-image:latest".into());
    let error = house.open().await.ensure(&house.room("a")).await.unwrap_err().to_string();
    assert!(error.contains("`localhost/no-such-image:latest` is missing: build it with"), "{error}");

    let house = House::new();
    let fleet = house.open().await;
    std::fs::copy("/bin/false", house.directory.path().join("false")).unwrap();
    std::fs::rename(house.directory.path().join("false"), house.directory.path().join("sandboxd")).unwrap();
    let error = fleet.ensure(&house.room("b")).await.unwrap_err().to_string();
    assert!(error.contains("ended while it was starting (exit code 1)"), "{error}");
    assert!(matches!(fleet.list().await.unwrap()[0].state, SandboxState::Stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_may_be_away_and_come_back() {
    let house = House::with(|options| {
        options.podman_path = PathBuf::from("/no/such/podman");
        options.podman_socket = Some(options.state_dir.join("later.sock"));
    });
    let fleet = house.open().await;
    let room = house.room("late");
    let error = fleet.ensure(&room).await.unwrap_err().to_string();
    assert!(error.contains("Podman does not answer") && error.contains("set PODMAN_PATH"), "{error}");

    let socket = format!("unix://{}", house.directory.path().join("later.sock").display());
    let mut service = Program::new("podman").args(["system", "service", "--time=0", &socket]).spawn().unwrap();
    let back = async {
        loop {
            match fleet.ensure(&room).await {
                Ok(sandbox) => return sandbox,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let sandbox = timeout(LIMIT, back).await;
    service.kill().unwrap();
    service.wait().unwrap();
    assert_eq!(sh(&sandbox.unwrap(), "echo back").await, "back");
    let error = fleet.ensure(&house.room("later")).await.unwrap_err().to_string();
    assert!(error.contains("Podman does not answer"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_sandbox_is_gone_and_may_come_back() {
    let house = House::new();
    let fleet = house.open().await;
    let room = house.room("removed");
    let sandbox = fleet.ensure(&room).await.unwrap();
    sandbox.write_file("w", "/workspace/file", Bytes::from_static(b"x")).await.unwrap();
    fleet.remove(&room, false).await.unwrap();
    assert!(house.containers().is_empty());
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sh(&sandbox, "cat file").await, "x");
    fleet.remove(&room, true).await.unwrap();
    assert!(house.containers().is_empty() && house.volumes().is_empty());
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sh(&sandbox, "ls").await, "");
}
