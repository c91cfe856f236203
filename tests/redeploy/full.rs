//! Disks that are full, and a clone of somebody else's.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    machine::{GOOD, Machine},
    support::{
        rig::{BARE, Rig, answers, block_on, wait},
        scripted_llm::{Reply, ScriptedLlm},
    },
};

/// A small file system of the test's own.
struct Small(PathBuf);

impl Small {
    fn at(path: &Path) -> Self {
        Self::sized(path, "1m")
    }

    fn sized(path: &Path, size: &str) -> Self {
        fs::create_dir_all(path).unwrap();
        let size = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output().unwrap();
        assert!(mounted.status.success(), "{mounted:?}");
        Self(path.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy", "--"]).arg(&self.0).output();
    }
}

/// A machine whose model answers at once; `None` where only root could make its disks small.
fn machine(prepare: impl FnOnce(&Rig)) -> Option<(Machine, ScriptedLlm)> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(|_| Reply::text("Here I am."));
    let rig = Rig::new(BARE, llm.base_url());
    prepare(&rig);
    Some((Machine::new(rig), llm))
}

fn serves(machine: &Machine) {
    let (code, frames) = machine.ask("other", "hello").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
}

#[test]
fn too_little_space_is_told_before_anything_changes() {
    let mut small = None;
    let Some((mut machine, _llm)) = machine(|rig| small = Some(Small::at(&rig.path().join("c")))) else { return };
    machine.publish("", GOOD);
    let ran = machine.redeploy(&[]);
    assert!(ran.code == 1 && ran.err.contains("Nothing was changed. There is no space: "), "{ran:?}");
    assert!(ran.err.contains("/c has ") && !machine.path("s/redeploy/request.json").exists(), "{ran:?}");
    assert_eq!((machine.installed().as_str(), machine.starts()), ("1", 1));
}

#[test]
fn a_new_program_that_finds_no_place_changes_nothing() {
    let mut small = None;
    let Some((mut machine, _llm)) = machine(|rig| small = Some(Small::sized(&rig.path().join("prog"), "300m"))) else {
        return;
    };
    // Its build takes what was free when it was looked at.
    machine.publish("fill", GOOD);
    let ran = machine.redeploy(&[]);
    assert!(ran.code == 1 && ran.out.contains("nothing was changed"), "{ran:?}");
    assert!(ran.out.contains("matrix-agent.new") && ran.out.contains("No space left on device"), "{ran:?}");
    assert_eq!((machine.installed().as_str(), machine.starts()), ("1", 1));
    assert_eq!(machine.beside(), ["filled", "matrix-agent"], "it leaves nothing");
    serves(&machine);
}

/// The disk of the records is full from the canary on, or from the new one's start on, which ends there.
fn full(lines: &str, starts: usize) {
    let Some((mut machine, _llm)) = machine(|_| {}) else { return };
    let small = Small::at(&machine.path("s/redeploy"));
    machine.publish(
        "",
        &lines.replace(
            "@FILL@",
            "[ -e @HERE@/once ] || cat /dev/zero >@HERE@/s/redeploy/filled 2>/dev/null; touch @HERE@/once",
        ),
    );
    let ran = machine.redeploy(&[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(machine.path("s/redeploy/filled").exists(), "{ran:?}");
    assert_eq!((machine.installed().as_str(), machine.starts()), ("1", starts), "{ran:?}");
    serves(&machine);
    assert_eq!(machine.starts(), starts, "nothing goes on starting it");
    // Once there is space, whoever asks again has that one brought to its end, and the next one may come.
    fs::remove_file(machine.path("s/redeploy/filled")).unwrap();
    let ran = machine.redeploy(&[]);
    assert!(ran.code == 1 && ran.err.contains("Another update is under way"), "{ran:?}");
    wait("its end", || !machine.path("s/redeploy/request.json").exists());
    machine.publish("", GOOD);
    let ran = machine.redeploy(&[]);
    assert_eq!((ran.code, machine.installed().as_str()), (0, "3"), "{ran:?}");
    drop(small);
}

#[test]
fn a_switch_is_not_begun_where_its_record_cannot_be_kept() {
    full(r#"case "$*" in *canary*) @FILL@ ;; esac"#, 1);
}

#[test]
fn a_switch_whose_end_cannot_be_recorded_goes_back_all_the_same() {
    full(r#"case "$*" in *"null run") @FILL@; exit 1 ;; esac"#, 3);
}

#[test]
fn a_clone_of_somebody_else_is_built_by_its_owner() {
    const OWNER: u32 = 65_534;
    let Some((mut machine, _llm)) = machine(|_| {}) else { return };
    let commit = machine.publish("", GOOD);
    // What it can do at the remote is its owner's affair, too.
    for folder in ["clone", "remote.git"] {
        let changed =
            Command::new("chown").args(["-R", &OWNER.to_string()]).arg(machine.path(folder)).output().unwrap();
        assert!(changed.status.success(), "{changed:?}");
    }
    let build = machine.path("build-env");
    fs::write(&build, "").unwrap();
    fs::set_permissions(&build, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&build, Some(OWNER), None).unwrap();
    let ran = machine.redeploy(&[]);
    assert_eq!((ran.code, machine.installed().as_str()), (0, "2"), "{ran:?}");
    let built = fs::read_to_string(&build).unwrap();
    assert!(built.contains(&format!("UID={OWNER}")) && !built.contains("HOME=/root"), "{built}");
    let program = fs::metadata(machine.path("prog/matrix-agent")).unwrap();
    assert_eq!((std::os::unix::fs::MetadataExt::uid(&program), program.permissions().mode() & 0o7777), (0, 0o755));
    wait("the clone", || {
        fs::read_to_string(machine.path("clone/.git/refs/heads/main")).is_ok_and(|at| at.trim() == commit)
    });
    serves(&machine);
}
