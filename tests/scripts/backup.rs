//! What `backup.sh` keeps, and what `restore.sh` brings back.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use assert_cmd::Command;

use super::{Place, SETTINGS, STATE, mode, ran, said_in};

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
fn a_server_with_settings_elsewhere_is_restored_where_they_say() {
    let place = Place::new();
    place.settings(SETTINGS);
    let backup = place.backed_up();
    let (file, state) = (place.path("mine.env"), place.path("elsewhere"));
    fs::write(&file, format!("{SETTINGS}STATE_DIR = {}\n", state.display())).unwrap();
    let mut command = place.command(&place.path("clone/scripts/restore.sh"), "/usr/local/bin");
    let back = ran(command.arg(&backup).arg("--env-file").arg(&file).output().unwrap());
    assert_eq!(back.code, 0, "{back:?}");
    assert_eq!(said_in(&state.join("matrix-agent.db")), "hello");
    for (more, said) in [(&["--env-file"][..], "needs a value"), (&["--env-file", "/nowhere/.env"], "is no file")] {
        let refused = place.run("restore.sh", &[&[backup.to_str().unwrap()], more].concat());
        assert!(refused.code == 1 && refused.err.contains(said), "{refused:?}");
    }
}

#[test]
fn sandboxes_go_behind_the_marker_and_that_they_have_gone_is_said() {
    let place = Place::new();
    place.settings(SETTINGS);
    let backup = place.backed_up();
    let (state, calls) = (place.path(STATE), place.path("calls"));
    rusqlite::Connection::open(state.join("matrix-agent.db"))
        .and_then(|database| database.execute("INSERT INTO meta VALUES ('instance', 'ab')", []))
        .unwrap();
    let text = format!(
        "case \"$1 $2\" in\n'ps --all') echo a1 ;;\n'container inspect') echo \"a1 {0}/workspaces/r1\" ;;\n\
        rm*) [ ! -e \"{0}/restoring\" ] || echo marked >>{1}; exit 1 ;;\nesac",
        state.display(),
        calls.display()
    );
    let before = place.state();
    let failed = place.run_with("restore.sh", &[backup.to_str().unwrap(), "--force"], &place.programs("podman", &text));
    assert!(failed.code == 1 && failed.err.contains("✗ they cannot be removed"), "{failed:?}");
    assert!(failed.err.contains("as it was, but for the sandboxes, which are made anew"), "{failed:?}");
    assert_eq!(fs::read_to_string(&calls).unwrap(), "marked\n");
    assert_eq!(place.state(), before);
}
