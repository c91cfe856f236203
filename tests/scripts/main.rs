//! The scripts that install, back up and remove the service: what they refuse, and that they change nothing twice. Nothing here
//! starts a service; files go to a directory that stands for a machine (`--root`). Only `homeserver` needs Podman, for its volumes.

mod backup;
mod cut_off;
mod homeserver;
mod library;
mod removal;
mod service;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
};

use assert_cmd::Command;
use tempfile::TempDir;

const SETTINGS: &str = "MATRIX_HOMESERVER = https://matrix.example.org\nMATRIX_USER = @bot:example.org\nMATRIX_PASSWORD = hush\n\
    MATRIX_ADMIN_USER = @me:example.org\nLLM_API_KEY = sk-test\nSANDBOX_IMAGE = mine:1\n";

/// A clone of what the scripts need, in a folder of its own, and a directory that stands for a machine.
struct Place {
    folder: TempDir,
    homeserver: String,
}

/// What a script came to.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        fs::create_dir_all(folder.path().join("machine")).unwrap();
        let clone = folder.path().join("clone");
        fs::create_dir_all(clone.join("docs")).unwrap();
        for name in ["Containerfile", ".containerignore", ".env.example", "Cargo.toml", "docs/operating.md"] {
            fs::copy(repository.join(name), clone.join(name)).unwrap();
        }
        for name in ["hooks", "sandbox/image", "scripts", "systemd"] {
            let to = clone.join(name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            let copied = Command::new("cp").arg("-R").arg(repository.join(name)).arg(to).output().unwrap();
            assert!(copied.status.success(), "{copied:?}");
        }
        Self { folder, homeserver: "no-such-homeserver".to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn settings(&self, text: &str) {
        fs::write(self.path("clone/.env"), text).unwrap();
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Ran {
        self.run_with(script, arguments, "/usr/local/bin")
    }

    /// Runs a script with a folder before those in which programs are looked for.
    fn run_with(&self, script: &str, arguments: &[&str], programs: &str) -> Ran {
        ran(self.output(script, arguments, programs))
    }

    /// Runs a script; returns whether it was killed.
    fn killed(&self, script: &str, arguments: &[&str], programs: &str) -> bool {
        self.output(script, arguments, programs).status.code().is_none()
    }

    fn output(&self, script: &str, arguments: &[&str], programs: &str) -> Output {
        let mut command = self.command(&self.path("clone/scripts").join(script), programs);
        if script != "install-service.sh" {
            command.env("STATE_DIR", self.path(STATE));
        }
        command.args(arguments).output().unwrap()
    }

    /// A program, in the environment that the scripts have.
    fn command(&self, program: &Path, programs: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.path("home"));
        command.env("PATH", format!("{programs}:/usr/bin:/bin:/usr/sbin:/sbin"));
        command.env("SYNAPSE_NAME", &self.homeserver);
        command
    }

    /// Puts a shell script in the place of a program; returns the folder in which it is found first.
    fn programs(&self, name: &str, text: &str) -> String {
        let programs = self.path("programs");
        let _ = fs::remove_dir_all(&programs);
        fs::create_dir_all(&programs).unwrap();
        fs::write(programs.join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        programs.to_str().unwrap().to_owned()
    }

    fn install(&self, more: &[&str]) -> Ran {
        let machine = self.path("machine");
        let fixed = ["--binary", env!("CARGO_BIN_EXE_matrix-agent"), "--root", machine.to_str().unwrap()];
        self.run("install-service.sh", &[&fixed, more].concat())
    }

    /// All that there is below a directory, with its size, mode and time.
    fn seen(&self, name: &str) -> Vec<String> {
        let found = Command::new("find").arg(self.path(name)).args(["-printf", "%p %s %m %T@\n"]).output().unwrap();
        let mut lines: Vec<_> = String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// What a server leaves in its state directory. The database stays open, as a server's is.
    fn served(&self) -> rusqlite::Connection {
        let state = self.path(STATE);
        for (name, text) in [
            ("secrets/matrix-coder-recovery-key", "EsTR key"),
            ("secrets/matrix-coder-session.json", "{}"),
            ("audit/2026-11.jsonl", "{}\n"),
            ("audit/head", "1 ab\n"),
            ("pictures/one", "picture"),
            ("workspaces/r1/file", "written"),
            ("workspaces/r1.json", r#"{"room":"!r1:example.org"}"#),
        ] {
            let path = state.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        std::os::unix::fs::symlink("/usr/bin/python3", state.join("workspaces/r1/link")).unwrap();
        let database = rusqlite::Connection::open(state.join("matrix-agent.db")).unwrap();
        let tables = ["inbound", "positions", "turns", "messages", "contexts", "calls", "outbox", "usage"]
            .map(|table| format!("CREATE TABLE {table} (what);"));
        let meta = "CREATE TABLE meta (key, value); INSERT INTO meta VALUES ('said', 'hello');";
        database.execute_batch(&format!("PRAGMA journal_mode=WAL; {} {meta}", tables.concat())).unwrap();
        database
    }

    /// Makes a backup of it; returns the backup's folder.
    fn backed_up(&self) -> PathBuf {
        let _database = self.served();
        let to = self.path("backups");
        let ran = self.run("backup.sh", &["--secrets", "--rooms", "--to", to.to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{ran:?}");
        fs::read_dir(to).unwrap().next().unwrap().unwrap().path()
    }

    /// All that is in the state directory with its size and mode, without what SQLite puts beside a database that is open.
    fn state(&self) -> Vec<String> {
        let of_sqlite = |line: &str| line.contains("-wal ") || line.contains("-shm ");
        let lines = self.seen(&format!("{STATE}/")).into_iter().filter(|line| !of_sqlite(line));
        lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    }
}

/// The state directory: sqlite3 and the shell read these signs otherwise.
const STATE: &str = "st'ate ?a#b%41";

fn said_in(database: &Path) -> String {
    let database = rusqlite::Connection::open(database).unwrap();
    database.query_row("SELECT value FROM meta WHERE key = 'said'", [], |row| row.get(0)).unwrap()
}

fn ran(output: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn every_script_says_what_it_does_and_refuses_what_it_does_not_know() {
    let place = Place::new();
    for script in [
        "install-service.sh",
        "deploy.sh",
        "uninstall.sh",
        "backup.sh",
        "restore.sh",
        "setup-synapse.sh",
        "build-image.sh",
        "package-deb.sh",
        "server-image.sh",
        "quickstart.sh",
    ] {
        let help = place.run(script, &["--help"]);
        assert_eq!(help.code, 0, "{script}: {help:?}");
        assert!(help.out.contains("--dry-run") && help.out.contains(script), "{script}: {help:?}");
        let wrong = place.run(script, &["--nonsense"]);
        assert_eq!(wrong.code, 1, "{script}: {wrong:?}");
        assert!(wrong.err.contains("--nonsense is not known"), "{script}: {wrong:?}");
    }
}

#[test]
fn scripts_without_a_dry_run_say_what_they_do_and_refuse_what_they_do_not_know() {
    let place = Place::new();
    fs::create_dir_all(place.path("clone/fuzz")).unwrap();
    for script in ["check-ipc-logs.sh", "base-image.sh", "llama-image.sh", "fuzz.sh"] {
        let help = place.run_with(script, &["--help"], "/nowhere");
        assert!(help.code == 0 && help.out.contains(script), "{script}: {help:?}");
        let wrong = place.run_with(script, &["--nonsense"], "/nowhere");
        assert!(wrong.code == 1 && wrong.err.contains("--nonsense is not known"), "{script}: {wrong:?}");
        assert_eq!(wrong.err.lines().count(), 1, "{script}: {wrong:?}");
    }
    let echo = place.programs("matrix-agent", "echo \"$@\"");
    let given = ["room", "--env-file", "--mine", "--config-file=my.toml", "--json"];
    let passed = place.run_with("check-ipc-logs.sh", &given, &echo);
    assert_eq!((passed.code, passed.out), (0, format!("check-ipc {}\n", given.join(" "))), "{}", passed.err);
    let none = place.run_with("check-ipc-logs.sh", &[], "/nowhere");
    assert!(none.code == 1 && none.err.contains("there is no program matrix-agent"), "{none:?}");
}

#[test]
fn a_homeserver_is_planned_without_making_anything() {
    let place = Place::new();
    let planned = place.run("setup-synapse.sh", &["--dry-run"]);
    assert_eq!(planned.code, 0, "{planned:?}");
    assert!(planned.out.contains("would: write MATRIX_PASSWORD into"), "{planned:?}");
    assert!(!planned.out.contains("PostgreSQL"), "{planned:?}");
    let beside = place.run("setup-synapse.sh", &["--postgres", "--dry-run"]);
    assert_eq!(beside.code, 0, "{beside:?}");
    assert!(beside.out.contains("in PostgreSQL, in the container no-such-homeserver-db"), "{beside:?}");
    assert!(!place.path("clone/.env").exists() && !place.path("clone/target").exists());
    for (settings, arguments, said) in [
        ("", ["--port", "70000"], "--port 70000 is no port"),
        ("", ["--listen", "example.org"], "is no IP address"),
        ("MATRIX_HOMESERVER = https://matrix.example.org\n", ["--port", "8008"], "names another homeserver"),
        ("MATRIX_USER = @bot:one\nMATRIX_ADMIN_USER = @me:two\n", ["--port", "8008"], "are of two servers"),
    ] {
        place.settings(settings);
        let refused = place.run("setup-synapse.sh", &[&arguments[..], &["--dry-run"]].concat());
        assert!(refused.code == 1 && refused.err.contains(said), "{refused:?}");
    }
}

#[test]
fn a_shell_completes_the_words_and_there_is_a_manual_page_for_each_command() {
    let place = Place::new();
    let program = env!("CARGO_BIN_EXE_matrix-agent");
    let script = format!(
        "source <({program} completions bash) && COMP_WORDS=(matrix-agent com) COMP_CWORD=1 \
         && \"$(complete -p matrix-agent | grep -o '_matrix[^ ]*')\" matrix-agent com matrix-agent \
         && printf '%s\n' \"${{COMPREPLY[@]}}\""
    );
    let completed = Command::new("bash").args(["-c", &script]).output().unwrap();
    let words = String::from_utf8_lossy(&completed.stdout);
    assert_eq!(words.lines().collect::<Vec<_>>(), ["compact", "completions"], "{completed:?}");
    let pages = place.path("man/man1");
    let written = Command::new(program).arg("man").arg(&pages).output().unwrap();
    assert!(written.status.success(), "{written:?}");
    let names: Vec<_> = fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    for page in
        ["matrix-agent.1", "matrix-agent-doctor.1", "matrix-agent-cloud-bot-add.1", "matrix-agent-audit-verify.1"]
    {
        assert!(names.iter().any(|name| name == page), "{page} in {names:?}");
        assert_eq!(mode(&pages.join(page)) & 0o777, 0o644, "everybody reads {page}");
    }
    for name in &names {
        let page = fs::read_to_string(pages.join(name)).unwrap();
        let header = page.lines().find(|line| line.starts_with(".TH")).unwrap();
        let (title, version) = (name.to_str().unwrap().strip_suffix(".1").unwrap(), env!("CARGO_PKG_VERSION"));
        assert!(header.ends_with(&format!(" \"matrix-agent {version}\" \" \"")), "{header}");
        assert!(2 * (title.len() + "(1)".len()) < 78, "{title} has no room in the header of 80 columns");
    }
    let page = fs::read_to_string(pages.join("matrix-agent-admin-budget.1")).unwrap();
    assert!(page.contains("[ROOM TOKENS]") && !page.contains("[\\fIROOM\\fR] [\\fITOKENS\\fR]"), "{page}");
    let page = fs::read_to_string(pages.join("matrix-agent-cloud-bot-add.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("matrix\\-agent cloud\\-bot add"), "{page}");
    fs::write(place.path("file"), "").unwrap();
    let refused = ran(Command::new(program).arg("man").arg(place.path("file/x")).output().unwrap());
    assert!(refused.code == 1 && refused.err.contains("The manual pages cannot be written to"), "{refused:?}");
}
