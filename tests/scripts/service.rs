//! What `install-service.sh` puts in place, and what `uninstall.sh` takes away.

use std::{fs, os::unix::fs::MetadataExt};

use assert_cmd::Command;

use super::{Place, SETTINGS, library::of_the_library, mode};

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
        // The clone's own are for this machine.
        assert_eq!(fs::read_to_string(place.path("clone/.env")).unwrap(), format!("{SETTINGS}{more}"));
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

    // Nor is it written over at the next update.
    let settled = |text: &str| {
        fs::write(&file, text).unwrap();
        let unit = place.path("clone/systemd/matrix-agent.service");
        assert!(of_the_library(&place, &format!("ENV_FILE={} && settle_events {}", file.display(), unit.display())).1);
        fs::read_to_string(&file).unwrap()
    };
    assert_eq!(settled(own), own);
    assert_eq!(settled("IPC_BASE_DIR = \n"), "IPC_BASE_DIR = /run/matrix-agent/ipc\n");
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
fn settings_of_the_service_are_not_written_over_by_another_user() {
    let place = Place::new();
    std::os::unix::fs::symlink("/etc/matrix-agent-is-not-here/.env", place.path("clone/.env")).unwrap();
    let refused = place.run("setup-synapse.sh", &["--dry-run"]);
    assert!(refused.code == 1 && refused.err.contains("this user cannot read"), "{refused:?}");
}

#[test]
fn a_homeservers_unit_waits_for_the_end_of_a_restore_that_was_cut_off() {
    let place = Place::new();
    for unit in ["synapse.service", "synapse-db.service", "synapse.container"] {
        let text = fs::read_to_string(place.path("clone/systemd").join(unit)).unwrap();
        let head = text.split("\n[").nth(1).unwrap();
        let marker = "\nConditionPathExists=!%S/matrix-agent/restoring\n";
        assert!(head.starts_with("Unit]") && format!("{head}\n").contains(marker), "{unit}: {head}");
    }
}
