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
