//! The scripts that install, back up and remove the service: what they refuse, and that they change nothing twice. Nothing here
//! starts a service or needs Podman; files go to a directory that stands for a machine (`--root`).

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
        let mut command = Command::new(self.path("clone/scripts").join(script));
        command.env_clear().env("HOME", self.path("home")).env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        command.env("SYNAPSE_NAME", "no-such-homeserver");
        if script != "install-service.sh" {
            command.env("STATE_DIR", self.path("state"));
        }
        ran(command.args(arguments).output().unwrap())
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

    /// A database such as a server leaves, and a backup of it; returns the backup's folder.
    fn backed_up(&self) -> PathBuf {
        fs::create_dir_all(self.path("state/secrets")).unwrap();
        fs::write(self.path("state/secrets/matrix-coder-recovery-key"), "EsTR key").unwrap();
        fs::write(self.path("state/secrets/matrix-coder-session.json"), "{}").unwrap();
        let database = rusqlite::Connection::open(self.path("state/matrix-agent.db")).unwrap();
        database
            .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE said (what); INSERT INTO said VALUES ('hello');")
            .unwrap();
        let to = self.path("backups");
        // The database is open, as a server's is.
        let ran = self.run("backup.sh", &["--secrets", "--to", to.to_str().unwrap()]);
        assert_eq!(ran.code, 0, "{ran:?}");
        fs::read_dir(to).unwrap().next().unwrap().unwrap().path()
    }
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
    assert_eq!(fs::read_to_string(&settings).unwrap(), SETTINGS);
    assert_eq!(mode(&settings), 0o600);
    assert_eq!(mode(settings.parent().unwrap()), 0o700);
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
    assert!(settings.ends_with(OWN), "{settings}");
    let script = runtime.strip_prefix("RUNTIME=/").unwrap().trim_end();
    let unit = fs::read_to_string(units.join("matrix-agent-podman.service")).unwrap();
    assert!(script.ends_with("/runsc") && unit.contains(&format!("\nEnvironment=RUNTIME=/{script}\n")), "{script}");
    assert_eq!(mode(&machine.join(script)), 0o755);
    let again = place.install(&[]);
    assert!(again.code == 0 && !again.out.contains("write ") && !again.out.contains("take "), "{again:?}");

    assert_eq!(install(&format!("SANDBOX_RUNTIME = crun\n{OWN}")).1, "RUNTIME=crun\n");
    // The operator's own, whatever runs there.
    let (settings, runtime) = install("SANDBOX_RUNTIME = crun\nPODMAN_SOCKET = /run/mine.sock\n");
    assert!(settings.ends_with("\nPODMAN_SOCKET = /run/mine.sock\n") && runtime.is_empty(), "{settings}");
    install("SANDBOX_RUNTIME = runsc\n");
    let (settings, _) = install(OWN);
    assert!(settings.ends_with("\nPODMAN_SOCKET = \n"), "{settings}");
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
    let named = backup.to_str().unwrap();
    let there = place.run("restore.sh", &[named]);
    assert!(there.code == 1 && there.err.contains("holds a database already"), "{there:?}");

    fs::rename(place.path("state"), place.path("old")).unwrap();
    let back = place.run("restore.sh", &[named]);
    assert_eq!(back.code, 0, "{back:?}");
    let database = rusqlite::Connection::open(place.path("state/matrix-agent.db")).unwrap();
    let said: String = database.query_row("SELECT what FROM said", [], |row| row.get(0)).unwrap();
    assert_eq!(said, "hello");
    assert_eq!(mode(&place.path("state/matrix-agent.db")), 0o600);
    assert!(place.path("state/matrix-agent.db.restored").exists(), "the server has to know it");
    assert!(place.path("state/secrets/matrix-coder-recovery-key").exists());
    assert!(!place.path("state/secrets/matrix-coder-session.json").exists(), "a restored machine is another device");

    let forced = place.run("restore.sh", &[named, "--force"]);
    assert_eq!(forced.code, 0, "{forced:?}");
    let aside = place
        .seen("state")
        .into_iter()
        .any(|line| line.contains("before-restore-") && line.contains("matrix-agent.db "));
    assert!(aside, "what was there is kept");
}

#[test]
fn nothing_is_restored_beside_a_server_or_from_a_damaged_backup() {
    let place = Place::new();
    place.settings(SETTINGS);
    let backup = place.backed_up();
    let named = backup.to_str().unwrap();
    let lock = nix::fcntl::Flock::lock(
        fs::File::create(place.path("state/lock")).unwrap(),
        nix::fcntl::FlockArg::LockExclusiveNonblock,
    );
    let runs = place.run("restore.sh", &[named, "--force"]);
    assert!(runs.code == 1 && runs.err.contains("a server runs on"), "{runs:?}");
    drop(lock);

    let before = place.seen("state");
    let packed = backup.join("secrets.tar.gz");
    let whole = fs::read(&packed).unwrap();
    fs::write(&packed, &whole[..whole.len() / 2]).unwrap();
    let damaged = place.run("restore.sh", &[named, "--force"]);
    assert!(damaged.code == 1 && damaged.err.contains("is damaged"), "{damaged:?}");
    fs::write(&packed, whole).unwrap();
    fs::write(backup.join("matrix-agent.db"), "no database").unwrap();
    let damaged = place.run("restore.sh", &[named, "--force"]);
    assert!(damaged.code == 1 && damaged.err.contains("is damaged"), "{damaged:?}");
    assert_eq!(place.seen("state"), before);
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
    let page = fs::read_to_string(pages.join("matrix-agent-cloud-bot-add.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("matrix\\-agent cloud\\-bot add"), "{page}");
    fs::write(place.path("file"), "").unwrap();
    let refused = ran(Command::new(program).arg("man").arg(place.path("file/x")).output().unwrap());
    assert!(refused.code == 1 && refused.err.contains("The manual pages cannot be written to"), "{refused:?}");
}
