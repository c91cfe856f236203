//! Backups and restores that are killed in the middle, as by a power cut.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::{Place, SETTINGS, STATE, said_in};

/// Puts an `mv` in the place of the system's that kills who started it, before or after the so-manieth time.
fn killing(place: &Place, at: usize, moved: bool) -> String {
    let programs = place.path("programs");
    fs::create_dir_all(&programs).unwrap();
    let (file, count) = (programs.join("mv"), place.path("count"));
    fs::write(&count, "").unwrap();
    let (count, first) = (count.display(), if moved { "/usr/bin/mv \"$@\"; " } else { "" });
    let text = format!(
        "#!/bin/sh\nprintf x >>{count}\n[ $(wc -c <{count}) -ne {at} ] || {{ {first}kill -KILL $PPID; exit 1; }}\nexec /usr/bin/mv \"$@\"\n"
    );
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    programs.to_str().unwrap().to_owned()
}

fn words_of(state: &Path) -> Vec<String> {
    let read = |name: &str| fs::read_to_string(state.join(name)).unwrap_or_default();
    let names = ["audit/head", "pictures/one", "workspaces/r1/file", "secrets/matrix-coder-session.json"];
    names.map(read).into_iter().chain([said_in(&state.join("matrix-agent.db"))]).collect()
}

#[test]
fn a_restore_that_is_killed_anywhere_puts_back_what_was_there_and_begins_anew() {
    let place = Place::new();
    place.settings(SETTINGS);
    let backup = place.backed_up();
    let (state, named) = (place.path(STATE), backup.to_str().unwrap());
    let broken = place.path("broken");
    fs::create_dir_all(&broken).unwrap();
    fs::write(broken.join("tar"), "#!/bin/sh\ncase $* in *-xz*) exit 2;; esac\nexec /usr/bin/tar \"$@\"\n").unwrap();
    fs::set_permissions(broken.join("tar"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut kills = 0;
    for (at, moved) in [(1, true), (2, true), (5, false), (9, true), (11, false), (14, true), (99, true)] {
        fs::remove_dir_all(&state).unwrap();
        drop(place.served());
        fs::write(state.join("audit/head"), "old").unwrap();
        // What was not there is not there afterwards either.
        fs::remove_dir_all(state.join("pictures")).unwrap();
        rusqlite::Connection::open(state.join("matrix-agent.db"))
            .and_then(|database| database.execute("UPDATE meta SET value = 'old'", []))
            .unwrap();
        let before = words_of(&state);
        let programs = killing(&place, at, moved);
        let killed = place.killed("restore.sh", &[named, "--force"], &programs);
        if !killed {
            break;
        }
        kills += 1;
        assert!(state.join("restoring").exists(), "{at}: a server would start");
        let backed_up = place.run("backup.sh", &["--to", place.path("other").to_str().unwrap()]);
        assert_eq!(backed_up.code, 1, "{at}: {backed_up:?}");
        let set_up = place.run("setup-synapse.sh", &["--dry-run"]);
        assert!(set_up.code == 1 && set_up.err.contains("was cut off"), "{at}: {set_up:?}");
        // Killed once more while it puts back.
        let programs = killing(&place, 2, moved);
        place.killed("restore.sh", &[named], &programs);
        let back = place.run_with("restore.sh", &[named, "--force"], broken.to_str().unwrap());
        assert!(back.code == 1 && back.err.contains("the backup cannot be unpacked"), "{at}: {back:?}");
        assert_eq!(words_of(&state), before, "{at}, {moved}");
        assert!(!place.state().iter().any(|line| line.contains("restoring")), "{at}: {:?}", place.state());
        let done = place.run("restore.sh", &[named, "--force"]);
        assert_eq!(done.code, 0, "{at}: {done:?}");
        assert_eq!(words_of(&state)[4], "hello");
        assert!(!place.state().iter().any(|line| line.contains("restoring")), "{at}: {:?}", place.state());
    }
    assert!(kills > 3, "{kills}");
}

#[test]
fn what_killed_ones_have_left_is_removed_and_what_is_at_work_is_not() {
    let place = Place::new();
    place.settings(SETTINGS);
    let _database = place.served();
    let (to, state) = (place.path("backups"), place.path(STATE));
    for left in [to.join(".part-abcdefgh"), to.join(".part-12345678"), state.join("restoring-abcdefgh")] {
        fs::create_dir_all(left.join("secrets")).unwrap();
    }
    let at_work = fs::File::open(to.join(".part-12345678")).unwrap();
    at_work.lock().unwrap();
    let made = place.run("backup.sh", &["--to", to.to_str().unwrap()]);
    assert_eq!(made.code, 0, "{made:?}");
    assert!(!to.join(".part-abcdefgh").exists() && !state.join("restoring-abcdefgh").exists(), "{made:?}");
    assert!(to.join(".part-12345678").exists(), "another server's");
}

#[test]
fn a_backup_without_settings_says_so_and_takes_those_that_are_named() {
    let place = Place::new();
    let _database = place.served();
    let to = place.path("backups");
    let arguments = ["--secrets", "--to", to.to_str().unwrap()];
    let none = place.run("backup.sh", &arguments);
    assert!(none.code == 0 && none.out.contains("no settings were found in "), "{none:?}");
    let file = place.path("mine.env");
    fs::write(&file, SETTINGS).unwrap();
    let named = place.run("backup.sh", &[&arguments[..], &["--env-file", file.to_str().unwrap()]].concat());
    assert!(named.code == 0 && !named.out.contains("no settings"), "{named:?}");
}

/// Restores to a machine that has nothing, killed at an `mv` before which `pattern` is matched, or behind it.
fn killed_on_a_new_machine(place: &Place, backup: &Path, pattern: &str, moved: bool) {
    for name in ["etc", STATE] {
        let _ = fs::remove_dir_all(place.path(name));
    }
    let first = if moved { "/usr/bin/mv \"$@\"; " } else { "" };
    let text = format!("case $* in {pattern}) {first}kill -KILL $PPID; exit 1;; esac; exec /usr/bin/mv \"$@\"");
    let programs = place.programs("mv", &text);
    assert!(place.killed("restore.sh", &[backup.to_str().unwrap()], &programs), "{pattern}");
    assert!(place.path(STATE).join("restoring").exists(), "{pattern}");
}

#[test]
fn what_somebody_has_put_where_a_restore_was_killed_is_kept() {
    let place = Place::new();
    // Another file system than that of the state directory, where there is one.
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), place.path("other")).unwrap();
    for etc in [place.path("etc/matrix-agent"), place.path("other/etc/matrix-agent")] {
        let _ = fs::remove_dir_all(place.path(STATE));
        let _ = fs::remove_dir_all(place.path("backups"));
        let _ = fs::remove_file(place.path("clone/.env"));
        fs::create_dir_all(place.path("etc")).unwrap();
        fs::create_dir_all(&etc).unwrap();
        fs::write(etc.join(".env"), SETTINGS).unwrap();
        std::os::unix::fs::symlink(etc.join(".env"), place.path("clone/.env")).unwrap();
        let backup = place.backed_up();
        let (state, named) = (place.path(STATE), backup.to_str().unwrap());
        // Settings and a key, in the place of those that had not come yet, and of those that had.
        for (pattern, moved) in [("*restoring-*workspaces*", false), ("*matrix-agent.db.restored", false)] {
            let _ = fs::remove_dir_all(place.path("other/etc"));
            killed_on_a_new_machine(&place, &backup, pattern, moved);
            fs::create_dir_all(&etc).unwrap();
            fs::create_dir_all(state.join("secrets")).unwrap();
            let _ = fs::remove_file(state.join("secrets/matrix-coder-recovery-key"));
            fs::write(etc.join("mine"), "mine").unwrap();
            fs::rename(etc.join("mine"), etc.join(".env")).unwrap();
            fs::write(state.join("secrets/matrix-coder-recovery-key"), "my key").unwrap();
            let again = place.run("restore.sh", &[named]);
            assert!(again.code == 0 && again.out.contains("the settings here stay as they are"), "{again:?}");
            assert_eq!(fs::read_to_string(etc.join(".env")).unwrap(), "mine", "{pattern}");
            let aside = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
            let aside = aside.filter(|path| path.to_str().unwrap().contains("before-restore-"));
            let keys: Vec<_> =
                aside.map(|path| fs::read_to_string(path.join("secrets/matrix-coder-recovery-key")).unwrap()).collect();
            assert_eq!(keys, ["my key"], "{pattern}");
        }
        // What the restore alone has put there goes, and comes anew.
        let _ = fs::remove_dir_all(place.path("other/etc"));
        killed_on_a_new_machine(&place, &backup, "*matrix-agent.db.restored", false);
        assert_eq!(fs::read_to_string(etc.join(".env")).unwrap(), SETTINGS);
        let again = place.run("restore.sh", &[named]);
        assert!(again.code == 0 && !again.out.contains("the settings here stay"), "{again:?}");
        assert!(!place.state().iter().any(|line| line.contains("before-restore-")), "{:?}", place.state());
    }
}

#[test]
fn what_comes_in_the_place_of_what_was_put_aside_is_kept_beside_it() {
    let place = Place::new();
    place.settings(SETTINGS);
    let backup = place.backed_up();
    let (state, named) = (place.path(STATE), backup.to_str().unwrap());
    let text = "case $* in *restoring-*audit*) kill -KILL $PPID; exit 1;; esac; exec /usr/bin/mv \"$@\"";
    assert!(place.killed("restore.sh", &[named, "--force"], &place.programs("mv", text)));
    fs::create_dir_all(state.join("secrets")).unwrap();
    fs::write(state.join("secrets/matrix-coder-recovery-key"), "my key").unwrap();
    let back = place.run_with(
        "restore.sh",
        &[named],
        &place.programs("tar", "case $* in *-xz*) exit 2;; esac; exec /usr/bin/tar \"$@\""),
    );
    assert!(back.code == 1 && back.out.contains("matrix-coder-recovery-key.since"), "{back:?}");
    assert_eq!(fs::read_to_string(state.join("secrets/matrix-coder-recovery-key")).unwrap(), "EsTR key");
    let kept = place.state().into_iter().find(|line| line.contains("matrix-coder-recovery-key.since ")).unwrap();
    let kept = kept.split(".since ").next().unwrap().to_owned() + ".since";
    assert_eq!(fs::read_to_string(kept).unwrap(), "my key");
}

#[test]
fn a_server_that_starts_while_a_restore_begins_keeps_its_files() {
    let place = Place::new();
    place.settings(SETTINGS);
    let backup = place.backed_up();
    let state = place.path(STATE);
    fs::remove_dir_all(&state).unwrap();
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("lock"), "1").unwrap();
    // The lock is asked for before the restore, and then behind its marker.
    let (count, database) = (place.path("count"), state.join("matrix-agent.db"));
    let text = format!(
        "case $* in */lock\\ true) echo x >>{0}; [ $(wc -l <{0}) -lt 2 ] || {{ echo fresh >\"{1}\"; exit 1; }};; esac; exec /usr/bin/flock \"$@\"",
        count.display(),
        database.display()
    );
    let ran = place.run_with("restore.sh", &[backup.to_str().unwrap()], &place.programs("flock", &text));
    assert!(ran.code == 1 && ran.err.contains("a server has started meanwhile"), "{ran:?}");
    assert_eq!(fs::read_to_string(&database).unwrap(), "fresh\n");
    assert!(!state.join("restoring").exists(), "{ran:?}");
}

#[test]
fn a_database_whose_log_has_not_left_yet_keeps_it() {
    let place = Place::new();
    place.settings(SETTINGS);
    let backup = place.backed_up();
    let (state, named) = (place.path(STATE), backup.to_str().unwrap());
    fs::remove_dir_all(&state).unwrap();
    let database = place.served();
    database.execute("UPDATE meta SET value = 'latest'", []).unwrap();
    // As a server that was killed leaves it.
    for name in ["matrix-agent.db", "matrix-agent.db-wal"] {
        fs::copy(state.join(name), place.path(name)).unwrap();
    }
    drop(database);
    for name in ["matrix-agent.db", "matrix-agent.db-wal"] {
        fs::copy(place.path(name), state.join(name)).unwrap();
    }
    let text = "/usr/bin/mv \"$@\"; case $* in *before-restore-*/matrix-agent.db) kill -KILL $PPID;; esac";
    assert!(place.killed("restore.sh", &[named, "--force"], &place.programs("mv", text)));
    assert!(!state.join("matrix-agent.db").exists());
    let nothing = place.programs("tar", "case $* in *-xz*) exit 2;; esac; exec /usr/bin/tar \"$@\"");
    let back = place.run_with("restore.sh", &[named], &nothing);
    assert_eq!(back.code, 1, "{back:?}");
    assert_eq!(said_in(&state.join("matrix-agent.db")), "latest");
}

#[test]
fn a_restore_that_is_interrupted_says_what_it_has_come_to() {
    let place = Place::new();
    place.settings(SETTINGS);
    let backup = place.backed_up();
    let (state, named) = (place.path(STATE), backup.to_str().unwrap());
    for (program, pattern, back) in [
        ("mv", "*/marker*", true),
        ("mv", "*restoring-*audit*", true),
        ("mv", "*restoring-*matrix-agent.db\\ *", true),
        ("rm", "--\\ */restoring", false),
    ] {
        fs::remove_dir_all(&state).unwrap();
        drop(place.served());
        fs::write(state.join("audit/head"), "old").unwrap();
        let before = words_of(&state);
        let text = format!("/usr/bin/{program} \"$@\"; case $* in {pattern}) kill -TERM $PPID;; esac");
        let ran = place.run_with("restore.sh", &[named, "--force"], &place.programs(program, &text));
        assert_eq!(ran.code, 130, "{pattern}: {ran:?}");
        assert!(!state.join("restoring").exists(), "{pattern}: {ran:?}");
        assert!(!ran.err.contains('✗'), "{pattern}: {ran:?}");
        assert_eq!(ran.err.contains("what was there is as it was"), back, "{pattern}: {ran:?}");
        assert_eq!(words_of(&state) == before, back, "{pattern}");
        assert_eq!(fs::read_to_string(state.join("audit/head")).unwrap() == "old", back, "{pattern}");
    }
}

#[test]
fn a_backup_that_has_waited_for_a_restore_that_was_killed_is_not_made_of_what_it_left() {
    let place = Place::new();
    let _database = place.served();
    let (state, to) = (place.path(STATE), place.path("backups"));
    let restoring = fs::File::open(&state).unwrap();
    restoring.lock().unwrap();
    // The backup says that it waits, and this file says that it has come so far.
    let waits = place.path("waits");
    let text = format!("case $* in --timeout*) : >{};; esac; exec /usr/bin/flock \"$@\"", waits.display());
    let programs = place.programs("flock", &text);
    let waited = std::thread::scope(|scope| {
        let backup = scope.spawn(|| place.run_with("backup.sh", &["--to", to.to_str().unwrap()], &programs));
        while !waits.exists() && !backup.is_finished() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        fs::write(state.join("restoring"), "").unwrap();
        drop(restoring);
        backup.join().unwrap()
    });
    assert!(waited.code == 1 && waited.err.contains("was cut off, or is under way"), "{waited:?}");
    assert!(waits.exists() && !to.exists(), "{waited:?}");
}
