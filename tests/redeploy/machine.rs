//! A machine with an installed service, a clone, and a remote: all of it real but systemd, whose part a script plays, and cargo, which
//! builds a version in no time: the program of a version is the real one behind a few lines of shell, in which the broken ones differ.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;

use crate::support::rig::{Chat, Rig, wait};

/// Plays systemd's part for the one service and for the oneshot.
const SYSTEMCTL: &str = r#"#!/bin/bash
here=@HERE@/unit
alive() { local pid; pid=$(cat "$here/pid" 2>/dev/null) && [[ -e /proc/$pid && $(cut -d' ' -f3 /proc/$pid/stat 2>/dev/null) != Z ]]; }
stop() {
    local pid
    alive || return 0
    pid=$(<"$here/pid")
    kill -TERM "$pid"
    for _ in {1..300}; do alive || return 0; sleep 0.1; done
    kill -KILL "$pid"
}
start() {
    local log=$here/log.$(date +%s%N)
    ln -sfn "$log" "$here/log"
    echo start >>"$here/starts"
    : >"$log"
    setsid env -i "PATH=$PATH" HOME=/root RUST_LOG=matrix_agent=debug TMPDIR=@HERE@/c "STATE_DIR=@HERE@/s" \
        @HERE@/prog/matrix-agent --env-file @HERE@/settings --config-file /dev/null run >>"$log" 2>&1 </dev/null &
    echo $! >"$here/pid"
}
case "$*" in
    show*)
        if ! alive; then
            echo ActiveState=failed; echo SubState=failed; echo Result=exit-code
        elif grep -q 'the server is ready' "$here/log"; then
            echo ActiveState=active; echo SubState=running; echo "MainPID=$(<"$here/pid")"
        else
            echo ActiveState=activating; echo SubState=start
        fi ;;
    "reset-failed matrix-agent.service") ;;
    # systemd gives up at the seventh start, good ones among them.
    "reset-failed matrix-agent-redeploy.service") : >"$here/oneshot-starts" ;;
    "is-failed --quiet matrix-agent-redeploy.path") exit 1 ;;
    "start --no-block matrix-agent-redeploy.service") setsid "$0" start matrix-agent-redeploy.service >/dev/null 2>&1 </dev/null & ;;
    "restart --no-block matrix-agent.service") stop; start ;;
    "stop --no-block matrix-agent.service") alive && kill -TERM "$(<"$here/pid")" ;;
    "kill --signal=SIGKILL matrix-agent.service") alive && kill -KILL "$(<"$here/pid")" ;;
    # Whoever waits for it may go; it goes on.
    "start matrix-agent-redeploy.service") setsid --wait "$0" carry-out & wait $! ;;
    carry-out)
        while true; do
            echo start >>"$here/oneshot-starts"
            (($(wc -l <"$here/oneshot-starts") <= 6)) || { echo "it was started too often" >&2; exit 1; }
            program=@HERE@/prog/matrix-agent
            [[ ! -x $program.redeploying ]] || program=$program.redeploying
            env -i "PATH=$PATH" HOME=/root RUST_LOG=matrix_agent=info TMPDIR=@HERE@/c "STATE_DIR=@HERE@/s" "IPC_BASE_DIR=@HERE@/ipc" \
                $(cat @HERE@/oneshot-env 2>/dev/null) "$program" --env-file @HERE@/settings --config-file /dev/null \
                redeploy --source @HERE@/update.env --carry-out >>"$here/oneshot.log" 2>&1 && exit 0
            echo "ended badly" >>"$here/oneshot.log"
        done ;;
    *) echo "systemctl $*" >>"$here/unknown"; exit 1 ;;
esac
"#;

/// Builds what the commit holds.
const CARGO: &str = r#"#!/bin/bash
[[ "$*" == "build --release --locked --bin matrix-agent" ]] || exit 9
{ env; echo "UID=$(id -u)"; } >@HERE@/build-env
if [[ -e fill ]]; then cat /dev/zero >@HERE@/prog/filled 2>/dev/null; fi
if [[ -e broken ]]; then echo 'error: mismatched types' >&2; exit 101; fi
mkdir -p "$CARGO_TARGET_DIR/release" && cp program "$CARGO_TARGET_DIR/release/matrix-agent" && chmod 755 "$CARGO_TARGET_DIR/release/matrix-agent"
"#;

/// What a version does before it is the real program.
pub(crate) const GOOD: &str = "";

pub(crate) struct Machine {
    pub(crate) rig: Rig,
    /// How many versions were made.
    versions: u32,
}

impl Machine {
    /// A machine on which the first version serves.
    pub(crate) fn new(rig: Rig) -> Self {
        let mut machine = Self { rig, versions: 0 };
        let here = machine.path("");
        for folder in ["bin", "prog", "unit", "c"] {
            fs::create_dir_all(here.join(folder)).unwrap();
        }
        let here = here.to_str().unwrap().trim_end_matches('/').to_owned();
        machine.script("bin/systemctl", &SYSTEMCTL.replace("@HERE@", &here));
        machine.script("bin/cargo", &CARGO.replace("@HERE@", &here));
        // Those of the unit are its own.
        let shared = machine.rig.env().iter().filter(|(key, _)| key != "STATE_DIR" && key != "RUST_LOG");
        let settings: Vec<_> = shared.map(|(key, value)| format!("{key} = {value}")).collect();
        fs::write(machine.path("settings"), settings.join("\n") + "\n").unwrap();
        fs::set_permissions(machine.path("settings"), fs::Permissions::from_mode(0o600)).unwrap();
        let program = machine.path("prog/matrix-agent");
        let update = format!("UPDATE_SOURCE={here}/clone\nUPDATE_BRANCH=main\nUPDATE_PROGRAM={}\n", program.display());
        fs::write(machine.path("update.env"), update).unwrap();
        machine.git("", &["init", "--quiet", "--bare", "--initial-branch=main", "remote.git"]);
        machine.git("", &["clone", "--quiet", "remote.git", "work"]);
        machine.git("work", &["checkout", "--quiet", "-B", "main"]);
        fs::write(machine.path("work/.gitignore"), "target\n").unwrap();
        machine.publish("", GOOD);
        machine.git("", &["clone", "--quiet", &format!("file://{here}/remote.git"), "clone"]);
        fs::copy(machine.path("work/program"), &program).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        machine.systemctl(&["restart", "--no-block", "matrix-agent.service"]);
        machine.until_ready();
        machine
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.rig.path().join(name)
    }

    fn script(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs git in one of the directories, and returns what it says.
    pub(crate) fn git(&self, folder: &str, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.current_dir(self.path(folder))
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
            .args(arguments);
        git.env("GIT_CONFIG_GLOBAL", "/dev/null");
        let output = git.output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Commits a version and pushes it: the real program behind these lines of shell, and a file of this name if it has one. Returns
    /// its commit.
    pub(crate) fn publish(&mut self, file: &str, lines: &str) -> String {
        self.versions += 1;
        let (real, here) = (env!("CARGO_BIN_EXE_matrix-agent"), self.path(""));
        let lines = lines.replace("@REAL@", real).replace("@HERE@/", here.to_str().unwrap());
        let program = format!("#!/bin/bash\n# version {}\n{lines}\nexec {real} \"$@\"\n", self.versions);
        fs::write(self.path("work/program"), program).unwrap();
        if !file.is_empty() {
            fs::write(self.path("work").join(file), "").unwrap();
        }
        self.git("work", &["add", "--all"]);
        self.git("work", &["commit", "--quiet", "-m", &format!("Version {}", self.versions)]);
        self.git("work", &["push", "--quiet", "origin", "main"]);
        self.git("work", &["rev-parse", "HEAD"])
    }

    /// The version that is installed.
    pub(crate) fn installed(&self) -> String {
        version(&self.path("prog/matrix-agent"))
    }

    /// The version that served before.
    pub(crate) fn previous(&self) -> String {
        version(&self.path("prog/matrix-agent.previous"))
    }

    /// The files beside the program.
    pub(crate) fn beside(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.path("prog"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn prepared(&self, command: Command) -> Command {
        prepared(self.rig.path(), command)
    }

    pub(crate) fn systemctl(&self, arguments: &[&str]) {
        assert!(systemctl(self.rig.path(), arguments).status().unwrap().success());
    }

    /// Plays the path unit's part until the result is dropped: a request is carried out as soon as it is there.
    pub(crate) fn watched(&self) -> Watched {
        let (here, over) = (self.rig.path().to_owned(), Arc::new(AtomicBool::new(false)));
        let is_over = over.clone();
        let unit = thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                if here.join("s/redeploy/request.json").exists() {
                    let _ = systemctl(&here, &["start", "matrix-agent-redeploy.service"]).status();
                }
                thread::park_timeout(Duration::from_millis(20));
            }
        });
        Watched { over, unit: Some(unit) }
    }

    /// `matrix-agent redeploy` of the installed program.
    pub(crate) fn redeploying(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("prog/matrix-agent"));
        command.args([
            "--env-file",
            self.path("settings").to_str().unwrap(),
            "--config-file",
            "/dev/null",
            "redeploy",
            "--source",
        ]);
        command.arg(self.path("update.env")).args(arguments);
        self.prepared(command)
    }

    pub(crate) fn redeploy(&self, arguments: &[&str]) -> Ran {
        ran(self.redeploying(arguments).output().unwrap())
    }

    /// Lets the oneshot be killed at a point, once.
    pub(crate) fn kill_at(&self, point: &str) {
        let marker = self.path("killed");
        fs::create_dir_all(&marker).unwrap();
        fs::write(self.path("oneshot-env"), format!("MATRIX_AGENT_CRASH_AT={point}:{}", marker.display())).unwrap();
    }

    /// How often it was killed there.
    pub(crate) fn kills(&self) -> usize {
        fs::read_dir(self.path("killed")).map_or(0, Iterator::count)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("unit/log")).unwrap_or_default()
    }

    pub(crate) fn until_ready(&self) {
        wait("the server", || self.log().contains("the server is ready"));
    }

    /// How often a server was started.
    pub(crate) fn starts(&self) -> usize {
        fs::read_to_string(self.path("unit/starts")).unwrap().lines().count()
    }

    /// What the oneshot has logged.
    pub(crate) fn oneshot(&self) -> String {
        fs::read_to_string(self.path("unit/oneshot.log")).unwrap_or_default()
    }

    /// Asks in a room, by the real program.
    pub(crate) fn ask(&self, room: &str, prompt: &str) -> Chat {
        self.rig.ask(room, prompt)
    }

    /// What rooms were told by the server of itself, with whether that was sent.
    pub(crate) fn told(&self) -> Vec<String> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let database = rusqlite::Connection::open_with_flags(self.rig.database(), flags).unwrap();
        let mut rows =
            database.prepare("SELECT payload FROM outbox WHERE payload LIKE '%\"notice\"%' ORDER BY seq").unwrap();
        let rows = rows.query_map([], |row| row.get::<_, String>(0)).unwrap();
        let text =
            |payload: String| serde_json::from_str::<Value>(&payload).unwrap()["text"].as_str().unwrap().to_owned();
        rows.map(|row| text(row.unwrap())).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = systemctl(self.rig.path(), &["kill", "--signal=SIGKILL", "matrix-agent.service"]).status();
        if thread::panicking() {
            let log = fs::read_to_string(self.path("s/redeploy/build.log")).unwrap_or_default();
            #[expect(clippy::print_stderr, reason = "it is read where a test has failed")]
            {
                eprintln!("the oneshot:\n{}\nthe build:\n{log}\nthe server:\n{}", self.oneshot(), self.log());
            }
        }
    }
}

/// A path unit that is played.
pub(crate) struct Watched {
    over: Arc<AtomicBool>,
    unit: Option<JoinHandle<()>>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.unit.take().map(JoinHandle::join);
    }
}

fn prepared(here: &Path, mut command: Command) -> Command {
    let path = format!("{}:{}", here.join("bin").display(), std::env::var("PATH").unwrap());
    command.env_clear().env("PATH", path).env("HOME", "/root").env("TMPDIR", here.join("c"));
    command.env("STATE_DIR", here.join("s")).current_dir(here).stdin(Stdio::null());
    command
}

fn systemctl(here: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(here.join("bin/systemctl"));
    command.args(arguments);
    prepared(here, command)
}

fn version(program: &Path) -> String {
    let text = fs::read_to_string(program).unwrap();
    text.lines().find_map(|line| line.strip_prefix("# version ")).unwrap().to_owned()
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn ran(output: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}
