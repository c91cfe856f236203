//! The scripts that install, back up and remove the service: what they refuse, and that they change nothing twice. Nothing here
//! starts a service or needs Podman; files go to a directory that stands for a machine (`--root`).

#[path = "scripts/cut_off.rs"]
mod cut_off;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
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
        Self { folder }
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
        let mut command = Command::new(self.path("clone/scripts").join(script));
        command.env_clear().env("HOME", self.path("home"));
        command.env("PATH", format!("{programs}:/usr/bin:/bin:/usr/sbin:/sbin"));
        command.env("SYNAPSE_NAME", "no-such-homeserver");
        if script != "install-service.sh" {
            command.env("STATE_DIR", self.path(STATE));
        }
        command.args(arguments).output().unwrap()
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
    let none = place.run_with("check-ipc-logs.sh", &[], "/nowhere");
    assert!(none.code == 1 && none.err.contains("there is no program matrix-agent"), "{none:?}");
}

#[test]
fn a_service_is_put_in_place_once() {
    let place = Place::new();
    place.settings(SETTINGS);
    let before = place.seen("machine");
    let dry = place.install(&["--dry-run"]);
    assert_eq!(dry.code, 0, "{dry:?}");
    assert!(dry.out.contains("would: write ") && dry.out.contains("usr/local/bin/matrix-agent"), "{dry:?}");
    assert_eq!(place.seen("machine"), before, "a dry run writes nothing");

    let first = place.install(&[]);
    assert_eq!(first.code, 0, "{first:?}");
    let machine = place.path("machine");
    let settings = machine.join("etc/matrix-agent/.env");
    // Commands that are typed beside the service find the events where its unit has them.
    let unit = fs::read_to_string(machine.join("etc/systemd/system/matrix-agent.service")).unwrap();
    let events = unit.split_whitespace().find_map(|word| word.strip_prefix("IPC_BASE_DIR=")).unwrap();
    assert_eq!(fs::read_to_string(&settings).unwrap(), format!("{SETTINGS}IPC_BASE_DIR = {events}\n"));
    assert_eq!(mode(&settings), 0o600);
    assert_eq!(mode(settings.parent().unwrap()), 0o700);
    assert_eq!(mode(&machine.join("etc")), 0o755, "nobody could use the machine");
    assert_eq!(mode(&machine.join("usr/local/bin/matrix-agent")), 0o755);
    let enabled = machine.join("etc/systemd/system/multi-user.target.wants/matrix-agent.service");
    assert!(fs::symlink_metadata(enabled).is_ok(), "it is not started at boot");
    let library = machine.join("usr/local/lib/matrix-agent");
    assert!(library.join("scripts/backup.sh").exists() && library.join("Containerfile").exists());
    assert_eq!(fs::metadata(library.join("scripts/backup.sh")).unwrap().mode() & 0o022, 0, "others could change it");
    let share = machine.join("usr/local/share");
    let completed = fs::read_to_string(share.join("bash-completion/completions/matrix-agent")).unwrap();
    assert!(completed.contains("complete -F"), "{completed}");
    let page = share.join("man/man1/matrix-agent-redeploy.1");
    assert_eq!(mode(&page), 0o644);
    // What the script that takes the service away removes there is all that was put there.
    let list = format!(". {}/scripts/lib.sh && help_files {}", place.path("clone").display(), share.display());
    let listed = Command::new("bash").args(["-c", &list]).output().unwrap();
    let (listed, files) = (String::from_utf8(listed.stdout).unwrap(), place.seen("machine/usr/local/share"));
    assert_eq!(
        listed.lines().count(),
        files.iter().filter(|line| line.contains(" 644 ")).count(),
        "{listed}{files:#?}"
    );

    let after = place.seen("machine");
    let second = place.install(&[]);
    assert_eq!(second.code, 0, "{second:?}");
    let told = |line: &&str| line.trim_start().starts_with("write ");
    assert_eq!(second.out.lines().find(told), None, "the second run has written");
    let changed: Vec<_> = place.seen("machine").into_iter().filter(|line| !after.contains(line)).collect();
    // systemd makes its links anew.
    assert!(changed.iter().all(|line| line.contains(".wants")), "{changed:?}");

    // A page of a command that is there no more goes.
    let gone = page.with_file_name("matrix-agent-gone.1");
    fs::rename(&page, &gone).unwrap();
    let third = place.install(&[]);
    assert!(third.code == 0 && page.exists() && !gone.exists(), "{third:?}");
}

#[test]
fn a_runtime_that_is_chosen_gets_a_podman_of_its_own_for_as_long_as_it_is() {
    const OWN: &str = "PODMAN_SOCKET = /run/matrix-agent-podman/podman.sock\n";
    let place = Place::new();
    let machine = place.path("machine");
    let (etc, units) = (machine.join("etc/matrix-agent"), machine.join("etc/systemd/system"));
    let install = |more: &str| {
        let _ = fs::remove_file(etc.join(".env"));
        place.settings(&format!("{SETTINGS}{more}"));
        let installed = place.install(&[]);
        assert_eq!(installed.code, 0, "{more}: {installed:?}");
        let settings = fs::read_to_string(etc.join(".env")).unwrap();
        assert_eq!(settings, fs::read_to_string(place.path("clone/.env")).unwrap(), "{more}");
        let runtime = fs::read_to_string(etc.join("podman.env")).ok();
        let wanted = fs::symlink_metadata(units.join("sockets.target.wants/matrix-agent-podman.socket")).is_ok();
        for unit in ["matrix-agent-podman.socket", "matrix-agent-podman.service"] {
            assert_eq!(units.join(unit).exists(), wanted, "{more}: {unit}");
        }
        assert_eq!(runtime.is_some(), wanted, "{more}");
        (settings, runtime.unwrap_or_default())
    };
    let (settings, runtime) = install("SANDBOX_RUNTIME = runsc\n");
    assert!(settings.contains(OWN), "{settings}");
    let script = runtime.strip_prefix("RUNTIME=/").unwrap().trim_end();
    let unit = fs::read_to_string(units.join("matrix-agent-podman.service")).unwrap();
    assert!(script.ends_with("/runsc") && unit.contains(&format!("\nEnvironment=RUNTIME=/{script}\n")), "{script}");
    assert_eq!(mode(&machine.join(script)), 0o755);
    let again = place.install(&[]);
    assert!(again.code == 0 && !again.out.contains("write ") && !again.out.contains("take "), "{again:?}");

    assert_eq!(install(&format!("SANDBOX_RUNTIME = crun\n{OWN}")).1, "RUNTIME=crun\n");
    // The operator's own, whatever runs there.
    let (settings, runtime) = install("SANDBOX_RUNTIME = crun\nPODMAN_SOCKET = /run/mine.sock\n");
    assert!(settings.contains("\nPODMAN_SOCKET = /run/mine.sock\n") && runtime.is_empty(), "{settings}");
    install("SANDBOX_RUNTIME = runsc\n");
    let (settings, _) = install(OWN);
    assert!(settings.contains("\nPODMAN_SOCKET = \n"), "{settings}");
}

#[test]
fn what_was_written_for_the_service_goes_out_of_the_settings_with_it() {
    let place = Place::new();
    let file = place.path("settings");
    let taken_out = |unit: &str, text: &str| {
        fs::write(&file, text).unwrap();
        let unit = place.path("clone/systemd").join(unit);
        let call =
            format!("ENV_FILE={} XDG_RUNTIME_DIR=/run/user/7 && unsettle_service {}", file.display(), unit.display());
        assert!(of_the_library(&place, &call).1);
        fs::read_to_string(&file).unwrap()
    };
    let written = "SANDBOX_RUNTIME = runsc\nPODMAN_SOCKET = /run/matrix-agent-podman/podman.sock\n\
        IPC_BASE_DIR = /run/matrix-agent/ipc\n";
    let left = "SANDBOX_RUNTIME = runsc\nPODMAN_SOCKET = \nIPC_BASE_DIR = \n";
    assert_eq!(taken_out("matrix-agent.service", written), left);
    let of_a_user = "IPC_BASE_DIR = /run/user/7/matrix-agent/ipc\n";
    assert_eq!(taken_out("user/matrix-agent.service", of_a_user), "IPC_BASE_DIR = \n");
    // What the operator has set stays.
    let own = "PODMAN_SOCKET = /run/mine.sock\nIPC_BASE_DIR = /srv/ipc\n";
    assert_eq!(taken_out("matrix-agent.service", own), own);
}

#[test]
fn settings_that_do_not_suffice_change_nothing() {
    let place = Place::new();
    let none = place.install(&[]);
    assert!(none.code == 1 && none.err.contains("there are no settings"), "{none:?}");
    for (wrong, said) in [
        (SETTINGS.replace("LLM_API_KEY = sk-test\n", ""), "LLM_API_KEY"),
        (SETTINGS.replace("MATRIX_PASSWORD = hush\n", ""), "MATRIX_PASSWORD"),
        (format!("{SETTINGS}COMMAND_TIMEOUT_SECONDS = soon\n"), "COMMAND_TIMEOUT_SECONDS"),
        (format!("{SETTINGS}STATE_DIR = /srv/elsewhere\n"), "/srv/elsewhere"),
    ] {
        place.settings(&wrong);
        let refused = place.install(&[]);
        assert_eq!(refused.code, 1, "{said}: {refused:?}");
        assert!(refused.err.contains(said), "{said}: {refused:?}");
    }
    assert!(!place.path("machine/etc").exists() && !place.path("machine/usr").exists());

    place.settings(SETTINGS);
    fs::create_dir_all(place.path("machine/etc/matrix-agent")).unwrap();
    fs::write(place.path("machine/etc/matrix-agent/.env"), "LLM_API_KEY = another\n").unwrap();
    let two = place.install(&[]);
    assert!(two.code == 1 && two.err.contains("are both there and differ"), "{two:?}");
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
fn settings_of_the_service_are_not_written_over_by_another_user() {
    let place = Place::new();
    std::os::unix::fs::symlink("/etc/matrix-agent-is-not-here/.env", place.path("clone/.env")).unwrap();
    let refused = place.run("setup-synapse.sh", &["--dry-run"]);
    assert!(refused.code == 1 && refused.err.contains("this user cannot read"), "{refused:?}");
}

#[test]
fn a_backup_is_private_and_comes_back_once() {
    let place = Place::new();
    place.settings(SETTINGS);
    let backup = place.backed_up();
    for line in place.seen("backups") {
        let mode = line.split(' ').nth(2).unwrap();
        assert!(mode.ends_with("00"), "others may read it: {line}");
    }
    assert_eq!(said_in(&backup.join("matrix-agent.db")), "hello");
    let listed = Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&backup).output();
    let listed = ran(listed.unwrap());
    assert!(listed.code == 0 && listed.out.contains("matrix-agent.db: OK"), "{listed:?}");
    let named = backup.to_str().unwrap();
    let there = place.run("restore.sh", &[named]);
    assert!(there.code == 1 && there.err.contains("holds a database already"), "{there:?}");

    fs::rename(place.path(STATE), place.path("old")).unwrap();
    let back = place.run("restore.sh", &[named]);
    assert_eq!(back.code, 0, "{back:?}");
    let state = place.path(STATE);
    assert_eq!(said_in(&state.join("matrix-agent.db")), "hello");
    assert_eq!(mode(&state.join("matrix-agent.db")), 0o600);
    assert!(state.join("matrix-agent.db.restored").exists(), "the server has to know it");
    for name in
        ["secrets/matrix-coder-recovery-key", "audit/head", "audit/2026-11.jsonl", "pictures/one", "workspaces/r1/file"]
    {
        assert_eq!(fs::read(state.join(name)).unwrap(), fs::read(place.path("old").join(name)).unwrap(), "{name}");
    }
    assert_eq!(fs::read_link(state.join("workspaces/r1/link")).unwrap(), Path::new("/usr/bin/python3"));
    assert!(!state.join("secrets/matrix-coder-session.json").exists(), "a restored machine is another device");

    let forced = place.run("restore.sh", &[named, "--force"]);
    assert_eq!(forced.code, 0, "{forced:?}");
    for name in ["matrix-agent.db ", "audit/head ", "recovery-key ", "workspaces/r1/file "] {
        let aside = |line: &String| line.contains("before-restore-") && line.contains(name);
        assert!(place.state().iter().any(aside), "{name} is kept");
    }
    assert!(!place.state().iter().any(|line| line.contains("restoring-")), "{:?}", place.state());
}

/// Makes a backup such as they were before there was a list.
const OLD: &str = "rm SHA256SUMS && sed -i /^list=/d about && ";

#[test]
fn nothing_is_restored_beside_a_server_or_from_a_damaged_backup() {
    let place = Place::new();
    place.settings(SETTINGS);
    let backup = place.backed_up();
    let lock = nix::fcntl::Flock::lock(
        fs::File::create(place.path(STATE).join("lock")).unwrap(),
        nix::fcntl::FlockArg::LockExclusiveNonblock,
    );
    let runs = place.run("restore.sh", &[backup.to_str().unwrap(), "--force"]);
    assert!(runs.code == 1 && runs.err.contains("a server runs on"), "{runs:?}");
    drop(lock);

    let before = place.state();
    for (listed, harm, said) in [
        (true, "rm matrix-agent.db", "matrix-agent.db is missing"),
        (true, ": >matrix-agent.db", "matrix-agent.db is not as it was written"),
        (true, "rm rooms/r1.tar.gz", "rooms/r1.tar.gz is missing"),
        (true, "rm -r rooms", "rooms/r1.json is missing; rooms/r1.tar.gz is missing"),
        (true, "printf x >>state.tar.gz", "state.tar.gz is not as it was written"),
        (true, "cp state.tar.gz homeserver.tar.gz", "homeserver.tar.gz is not in the list"),
        (true, ": >SHA256SUMS", "matrix-agent.db is not in the list"),
        (true, "rm SHA256SUMS", "SHA256SUMS, the list of what is in it, is missing"),
        (true, "ln -s /etc/passwd link", "link is neither a file nor a folder"),
        (false, "rm matrix-agent.db", "is missing or empty"),
        (false, ": >matrix-agent.db", "is missing or empty"),
        (false, "echo no database >matrix-agent.db", "is damaged"),
        (false, "sqlite3 matrix-agent.db 'DROP TABLE turns'", "it lacks the tables turns"),
        (false, "truncate -s 200 secrets.tar.gz", "secrets.tar.gz is damaged"),
        (false, "echo hello | gzip >secrets.tar.gz", "secrets.tar.gz is cut off"),
        (false, "gunzip state.tar.gz && truncate -s 2560 state.tar && gzip state.tar", "state.tar.gz is cut off"),
        (false, "tar -czPf state.tar.gz --transform 's,^about,../../evil,' about", "would write ../../evil"),
        (false, "tar -czPf state.tar.gz --transform 's,^about,/evil,' about", "would write /evil"),
        (
            false,
            "mkdir etc && ln -s /etc/shadow etc/x && tar -czf secrets.tar.gz etc && rm -r etc",
            "holds etc/x, which leads out",
        ),
        (
            false,
            "mkdir etc && ln -s ../state/x etc/x && tar -czf secrets.tar.gz etc && rm -r etc",
            "holds etc/x, which leads out",
        ),
        (false, "echo 'a[$(touch pwned)]' >rooms/r1.size", "r1.size is no size"),
        (false, "echo x >pictures && tar -czf state.tar.gz pictures && rm pictures", "new/pictures is no folder"),
        (false, "mkdir -p audit/head && tar -czf state.tar.gz audit && rm -r audit", "new/audit/head is a folder"),
        (false, "mkdir -p etc/.env && tar -czf secrets.tar.gz etc && rm -r etc", "secrets/etc/.env is a folder"),
        (
            false,
            "mkdir -p state/matrix-coder-recovery-key && tar -czf secrets.tar.gz state && rm -r state",
            "matrix-coder-recovery-key is of another kind",
        ),
    ] {
        let copy = place.path("harmed");
        let script = format!(
            "rm -rf {0} && cp -R {1} {0} && cd {0} && {2}{harm}",
            copy.display(),
            backup.display(),
            if listed { "" } else { OLD }
        );
        let harmed = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(harmed.status.success(), "{harm}: {harmed:?}");
        let refused = place.run("restore.sh", &[copy.to_str().unwrap(), "--force"]);
        assert!(refused.code == 1 && refused.err.contains(said), "{harm}: {refused:?}");
        assert_eq!(place.state(), before, "{harm}");
        assert!(!copy.join("pwned").exists(), "{harm}");
    }
    let loose = "mkdir -p audit state && echo x >audit/head && echo x >state/key && chmod 6777 audit audit/head state/key \
        && tar -czf state.tar.gz audit && tar -czf secrets.tar.gz state && rm -r audit state";
    let script = format!("cd {} && {OLD} {loose}", backup.display());
    assert!(Command::new("bash").args(["-c", &script]).output().unwrap().status.success());
    let old = place.run("restore.sh", &[backup.to_str().unwrap(), "--force"]);
    assert!(old.code == 0 && old.out.contains("has no list of what is in it"), "{old:?}");
    for (name, expected) in [("audit", 0o700), ("audit/head", 0o600), ("secrets/key", 0o600)] {
        assert_eq!(mode(&place.path(STATE).join(name)), expected, "{name}: modes of the archive are nobody's wish");
    }
    let beside = fs::read_dir(place.path(STATE)).unwrap().map(|entry| entry.unwrap().file_name());
    let beside: Vec<_> = beside.filter(|name| name == "matrix-agent.db-wal" || name == "matrix-agent.db-shm").collect();
    assert!(beside.is_empty(), "what the old database left: {beside:?}");
}

#[test]
fn a_restore_that_fails_in_the_middle_leaves_what_was_there() {
    let place = Place::new();
    place.settings(SETTINGS);
    let backup = place.backed_up();
    let before = place.state();
    let programs = place.path("programs");
    fs::create_dir_all(&programs).unwrap();
    // The last step, the third file that is moved, and what is unpacked.
    for (program, text, said) in [
        (
            "mv",
            "case $* in *restoring-*matrix-agent.db*) echo full; exit 1;; esac; exec /usr/bin/mv \"$@\"".to_owned(),
            "✗ it cannot be brought back",
        ),
        ("sync", "exit 1".to_owned(), "✗ it cannot be noted"),
        (
            "mv",
            "case $* in *restoring-*audit*) echo full; exit 1;; esac; exec /usr/bin/mv \"$@\"".to_owned(),
            "✗ they cannot be brought back",
        ),
        (
            "mv",
            "case $* in *workspaces/r1.json*) echo full; exit 1;; esac; exec /usr/bin/mv \"$@\"".to_owned(),
            "✗ it cannot be put aside",
        ),
        (
            "tar",
            "case $* in *-xzf*secrets*) echo full; exit 2;; esac; exec /usr/bin/tar \"$@\"".to_owned(),
            "✗ the backup cannot be unpacked",
        ),
    ] {
        let file = programs.join(program);
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let failed = place.run_with("restore.sh", &[backup.to_str().unwrap(), "--force"], programs.to_str().unwrap());
        assert!(failed.code == 1 && failed.err.contains(said), "{failed:?}");
        assert_eq!(failed.err.matches('✗').count(), 1, "{failed:?}");
        assert!(failed.err.contains("what was there is as it was"), "{failed:?}");
        assert_eq!(place.state(), before, "{program}: {text}");
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn all_settings_come_back_to_a_new_machine_and_a_clone_is_no_folder_of_settings() {
    let place = Place::new();
    let etc = place.path("etc/matrix-agent");
    fs::create_dir_all(etc.join("more")).unwrap();
    fs::write(place.path("key"), "pem").unwrap();
    for (name, text) in [(".env", SETTINGS), ("matrix-agent.toml", "[models]\n"), ("more/file", "more")] {
        fs::write(etc.join(name), text).unwrap();
    }
    std::os::unix::fs::symlink(place.path("key"), etc.join("app.pem")).unwrap();
    std::os::unix::fs::symlink(etc.join(".env"), place.path("clone/.env")).unwrap();
    let backup = place.backed_up();
    for (gone, link) in [("etc", true), ("etc", false)] {
        fs::remove_dir_all(place.path(gone)).unwrap();
        fs::remove_dir_all(place.path(STATE)).unwrap();
        let _ = fs::remove_file(place.path("key"));
        if !link {
            fs::remove_file(place.path("clone/.env")).unwrap();
        }
        let back = place.run("restore.sh", &[backup.to_str().unwrap()]);
        assert_eq!(back.code, 0, "{back:?}");
        for (name, text) in
            [(".env", SETTINGS), ("matrix-agent.toml", "[models]\n"), ("more/file", "more"), ("app.pem", "pem")]
        {
            assert_eq!(fs::read_to_string(etc.join(name)).unwrap(), text, "{name}: {back:?}");
        }
        assert_eq!(fs::read_link(place.path("clone/.env")).unwrap(), etc.join(".env"));
        assert!(!place.path(STATE).join("settings-of-the-backup").exists());
    }
    let again = place.run("restore.sh", &[backup.to_str().unwrap(), "--force"]);
    assert!(again.code == 0 && again.out.contains("the settings here stay as they are"), "{again:?}");
    assert!(place.path(STATE).join("settings-of-the-backup/matrix-agent.toml").exists());

    // A clone of the usual name.
    let place = Place::new();
    place.settings(SETTINGS);
    fs::rename(place.path("clone"), place.path("matrix-agent")).unwrap();
    std::os::unix::fs::symlink("matrix-agent", place.path("clone")).unwrap();
    let script = place.path("matrix-agent/scripts/backup.sh");
    let _database = place.served();
    let mut command = Command::new(script);
    command.env_clear().env("HOME", place.path("home")).env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    command.env("SYNAPSE_NAME", "no-such-homeserver").env("STATE_DIR", place.path(STATE));
    let made = ran(command.args(["--secrets", "--to"]).arg(place.path("backups")).output().unwrap());
    assert_eq!(made.code, 0, "{made:?}");
    let backup = fs::read_dir(place.path("backups")).unwrap().next().unwrap().unwrap().path();
    let packed = Command::new("tar").arg("-tzf").arg(backup.join("secrets.tar.gz")).output().unwrap();
    let packed = String::from_utf8(packed.stdout).unwrap();
    let names: Vec<_> = packed.lines().filter(|name| name.starts_with("etc")).collect();
    assert_eq!(names, ["etc/", "etc/.env"]);
}

#[test]
fn a_server_that_never_had_some_of_its_folders_is_backed_up_and_comes_back() {
    for gone in [
        &["pictures"][..],
        &["audit/head", "audit/2026-11.jsonl", "secrets"],
        &["audit", "workspaces/r1.json"],
        &["audit", "pictures", "secrets", "workspaces"],
    ] {
        let place = Place::new();
        place.settings(SETTINGS);
        drop(place.served());
        let (state, old) = (place.path(STATE), place.path("old"));
        for name in gone.iter().map(|name| state.join(name)) {
            if name.is_dir() { fs::remove_dir_all(name) } else { fs::remove_file(name) }.unwrap();
        }
        let to = place.path("backups");
        let made = place.run("backup.sh", &["--secrets", "--rooms", "--to", to.to_str().unwrap()]);
        assert_eq!(made.code, 0, "{gone:?}: {made:?}");
        let backup = fs::read_dir(to).unwrap().next().unwrap().unwrap().path();
        fs::rename(&state, &old).unwrap();
        let back = place.run("restore.sh", &[backup.to_str().unwrap()]);
        assert_eq!(back.code, 0, "{gone:?}: {back:?}");
        assert_eq!(said_in(&state.join("matrix-agent.db")), "hello");
        for name in ["audit", "audit/head", "pictures"] {
            assert_eq!(state.join(name).exists(), old.join(name).exists(), "{gone:?}: {name}");
        }
    }
}

#[test]
fn two_backups_at_once_are_two_backups() {
    let place = Place::new();
    place.settings(SETTINGS);
    let _database = place.served();
    let to = place.path("backups");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let made = place.run("backup.sh", &["--to", to.to_str().unwrap()]);
                assert_eq!(made.code, 0, "{made:?}");
            });
        }
    });
    let made: Vec<_> = fs::read_dir(to).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(made.len(), 3, "{made:?}");
    for backup in made {
        assert_eq!(said_in(&backup.join("matrix-agent.db")), "hello");
    }
}

/// What a function of `scripts/lib.sh` says, and how it ends.
fn of_the_library(place: &Place, call: &str) -> (String, bool) {
    let script = format!("set -euo pipefail; . {}/scripts/lib.sh; {call}", place.path("clone").display());
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

#[test]
fn ids_are_taken_where_nobody_has_any_and_where_there_are_some() {
    let place = Place::new();
    let file = place.path("subuid");
    for (ranges, first) in [
        ("", "524288"),
        ("me:100000:65536\n", "524288"),
        // What quickstart writes as root reaches to the last id.
        ("containers:2147483647:2147483648\n", "524288"),
        ("me:524288:65536\nyou:600000:1\ncontainers:2147483647:2147483648\n", "600001"),
        ("you:17301504:5\nme:524288:16777216\n", "17301509"),
        ("me:524288:4277665791\n", "4278190079"),
    ] {
        fs::write(&file, ranges).unwrap();
        let found = of_the_library(&place, &format!("free_ids 16777216 {}", file.display()));
        assert_eq!(found, (first.to_owned(), true), "{ranges}");
    }
    for full in ["me:524288:4277665792\n", "a:524288:2147483647\ncontainers:2147483647:2147483648\n"] {
        fs::write(&file, full).unwrap();
        let found = of_the_library(&place, &format!("free_ids 16777216 {}", file.display()));
        assert_eq!(found, (String::new(), false), "{full}");
    }
    let uid = nix::unistd::getuid();
    fs::write(&file, format!("{uid}:2147483647:2147483648\n{uid}:100000:65536\nnobody-else:1:5\n")).unwrap();
    let own = of_the_library(&place, &format!("own_ids {}", file.display()));
    assert_eq!(own, ("2147549184".to_owned(), true));
}

#[test]
fn folders_of_the_system_stay_when_the_last_file_in_them_goes() {
    let place = Place::new();
    let machine = place.path("machine");
    for (file, left) in [
        ("usr/local/bin/matrix-agent", "usr/local/bin"),
        ("etc/systemd/system/matrix-agent.service", "etc/systemd/system"),
        ("etc/systemd/system/matrix-agent.service.d/10-synapse.conf", "etc/systemd/system"),
        ("etc/containers/systemd/synapse.container", "etc/containers"),
        ("usr/local/share/fish/vendor_completions.d/matrix-agent.fish", "usr/local/share"),
        ("usr/local/share/man/man1/matrix-agent.1", "usr/local/share/man"),
    ] {
        let (file, left) = (machine.join(file), machine.join(left));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "").unwrap();
        assert!(of_the_library(&place, &format!("take_out {}", file.display())).1);
        assert_eq!(fs::read_dir(&left).map(Iterator::count).ok(), Some(0), "{}", left.display());
        fs::remove_dir(&left).unwrap();
    }
}

/// Without the script that runs them Podman could neither stop nor remove them.
#[test]
fn what_a_runtime_of_ours_runs_goes_with_it_and_nothing_else() {
    let place = Place::new();
    let (calls, podman) = (place.path("calls"), place.path("home/podman"));
    fs::create_dir_all(podman.parent().unwrap()).unwrap();
    let plays = r#"case "$1 $2" in
        "ps --all") printf 'a1\nb2\nc3\n' ;;
        "container inspect") printf 'a1 /usr/bin/crun\nb2 /usr/local/lib/m a/runsc\nc3 runsc\n' ;;
        *) echo "$*" >>CALLS ;;
        esac"#;
    fs::write(&podman, format!("#!/bin/sh\n{}\n", plays.replace("CALLS", calls.to_str().unwrap()))).unwrap();
    fs::set_permissions(&podman, fs::Permissions::from_mode(0o755)).unwrap();
    let call = format!("PATH={}:$PATH; remove_run_by '/usr/local/lib/m a/runsc'", place.path("home").display());
    assert!(of_the_library(&place, &call).1);
    assert_eq!(fs::read_to_string(&calls).unwrap(), "rm --force --time 2 b2\n");
}

#[test]
fn only_what_is_a_servers_state_is_removed_with_it() {
    let place = Place::new();
    fs::create_dir_all(place.path("home")).unwrap();
    fs::create_dir_all(place.path("data")).unwrap();
    fs::write(place.path("data/lock"), "").unwrap();
    let clone = place.path("clone");
    let (clone, home, other, data) = (clone.as_path(), place.path("home"), place.path("machine"), place.path("data"));
    for (state, said) in [
        (Path::new("/"), Some("is a folder of the system")),
        (Path::new("/home"), Some("is a folder of the system")),
        (Path::new("/var/lib/../lib"), Some("is a folder of the system")),
        (clone, Some("holds these scripts")),
        (home.as_path(), Some("holds the home")),
        (place.folder.path(), Some("holds")),
        (other.as_path(), Some("has neither the database nor the lock")),
        (data.as_path(), None),
    ] {
        let mut command = Command::new(place.path("clone/scripts/uninstall.sh"));
        command.env_clear().env("HOME", place.path("home")).env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        command.env("SYNAPSE_NAME", "no-such-homeserver").env("STATE_DIR", state);
        let asked = ran(command.args(["--purge", "--dry-run"]).output().unwrap());
        match said {
            Some(said) => assert!(asked.code == 1 && asked.err.contains(said), "{}: {asked:?}", state.display()),
            None => assert!(asked.out.contains(&format!("would: remove {}", state.display())), "{asked:?}"),
        }
    }
}

#[test]
fn only_so_many_backups_are_kept() {
    let place = Place::new();
    place.settings(SETTINGS);
    let kept = place.backed_up();
    let to = place.path("backups");
    for day in ["2026-01-30", "2026-01-31"] {
        fs::create_dir(to.join(format!("matrix-agent-{day}T033000Z"))).unwrap();
    }
    fs::create_dir(to.join("mine")).unwrap();
    let refused = place.run("backup.sh", &["--keep", "0", "--to", to.to_str().unwrap()]);
    assert_eq!(refused.code, 1, "{refused:?}");
    fs::rename(&kept, to.join("matrix-agent-2026-01-29T033000Z")).unwrap();
    let again = place.run("backup.sh", &["--keep", "2", "--to", to.to_str().unwrap()]);
    assert_eq!(again.code, 0, "{again:?}");
    let mut left: Vec<_> =
        fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(
        left.contains(&"mine".to_owned()) && left.contains(&"matrix-agent-2026-01-31T033000Z".to_owned()),
        "{left:?}"
    );
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
