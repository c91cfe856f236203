//! What the scripts share, in `lib.sh`.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use assert_cmd::Command;

use super::{Place, ran};

/// What a function of `scripts/lib.sh` says, and how it ends.
pub(super) fn of_the_library(place: &Place, call: &str) -> (String, bool) {
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
        "container inspect") printf 'a1 /usr/bin/crun\nb2 /usr/local/lib/m a/runsc\nc3 runsc\n'; echo 'no such container' >&2; exit 125 ;;
        *) echo "$*" >>CALLS ;;
        esac"#;
    fs::write(&podman, format!("#!/bin/sh\n{}\n", plays.replace("CALLS", calls.to_str().unwrap()))).unwrap();
    fs::set_permissions(&podman, fs::Permissions::from_mode(0o755)).unwrap();
    let call = format!("PATH={}:$PATH; remove_run_by '/usr/local/lib/m a/runsc'", place.path("home").display());
    // Another one went away between the list and the look, of which Podman complains.
    assert!(of_the_library(&place, &call).1);
    assert_eq!(fs::read_to_string(&calls).unwrap(), "rm --force --ignore --time 2 b2\n");
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
