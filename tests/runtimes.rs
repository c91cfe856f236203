//! Sandboxes with a runtime that the operator has chosen. With gVisor, which most machines do not have: what needs it is
//! skipped there, and says so. `TEST_SANDBOX_RUNTIME=runsc` runs the suites of hostile programs with it (`docs/runtimes.md`).

mod support;

use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::Path, process::Command};

use serde_json::json;
use support::{
    rig::{Rig, answers},
    scripted,
    scripted_llm::{ScriptedLlm, results},
};

/// A rig whose sandboxes gVisor runs; none if the machine has no release that is new enough.
fn with_gvisor() -> Option<(ScriptedLlm, Rig)> {
    let told = Command::new("runsc").arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let told = String::from_utf8_lossy(&told);
    let day = told.split(|letter: char| !letter.is_ascii_digit()).find(|number| number.len() == 8);
    if day.is_none_or(|day| day < "20240729") {
        let found = told.lines().next().unwrap_or("none");
        let _ = writeln!(std::io::stderr(), "skipped: there is no runsc from 20240729 on in the PATH ({found})");
        return None;
    }
    let (llm, mut rig) = scripted();
    rig.set("SANDBOX_RUNTIME", "runsc");
    Some((llm, rig))
}

/// Has one command run, as the agent or as root, and returns what the model is told.
fn told(llm: &ScriptedLlm, rig: &Rig, command: &str, as_root: bool) -> String {
    llm.reply_calls(&[("run_command", json!({"command": command, "as_root": as_root}))]).reply_text("Done.");
    let (code, frames) = rig.ask("one", "go").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    results(llm.requests().last().unwrap()).last().unwrap().to_string()
}

/// The proofs of all rooms.
fn proofs(rig: &Rig) -> Vec<String> {
    let rooms = rig.database().parent().unwrap().join("rooms");
    let files = fs::read_dir(rooms).unwrap().map(|entry| entry.unwrap().path());
    let proofs = files.filter(|path| path.extension().is_some_and(|end| end == "proof"));
    proofs.map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn under_gvisor_sandboxd_is_known_by_a_proof_that_nobody_inside_reads() {
    let Some((llm, rig)) = with_gvisor() else { return };
    let server = rig.serve();
    assert!(told(&llm, &rig, "cat /proc/version; echo on > file", false).contains("Linux version 4.4.0"));
    let [proof] = &proofs(&rig)[..] else { panic!("one room, one proof: {:?}", proofs(&rig)) };

    // The environment with which PID 1 was started, its memory, and those of the wardens, by /proc and by ptrace.
    let look = "for p in /proc/[0-9]*; do tr '\\0' '\\n' < $p/environ; strings -n 40 $p/mem; dd if=$p/mem bs=4096 count=1; \
                done 2>&1 | grep -E '[0-9a-f]{64}'; env | grep -i proof; ls -A /run/matrix-agent; \
                perl -e 'for (glob \"/proc/[0-9]*\") { my ($p) = /(\\d+)/; next if $p == $$; \
                print \"traced $p\\n\" if $p == 1 && syscall(101, 16, $p, 0, 0) == 0 }'; echo looked";
    for as_root in [false, true] {
        let seen = told(&llm, &rig, look, as_root);
        assert!(!seen.contains(proof.as_str()) && !seen.contains("traced"), "as root: {as_root}: {seen}");
        assert!(seen.contains("\nsock\n") && seen.ends_with("looked"), "nothing but the socket: {seen}");
    }

    // Somebody else greets with what he guesses, and asks for the gateway: he is hung up on, and work goes on.
    let greet = "perl -MSocket -e '$SIG{PIPE} = \"IGNORE\"; for my $proof (\"\", \",\\\"proof\\\":\\\"0a1b\\\"\") { for my $say ( \
                 \"{\\\"hello\\\":{\\\"protocol\\\":{\\\"min\\\":1,\\\"max\\\":9},\\\"build\\\":\\\"x\\\",\\\"boot_id\\\":\\\"x\\\"$proof}}\", \
                 \"{\\\"proxy\\\":{\\\"kind\\\":\\\"web\\\"$proof}}\") { \
                 socket(my $s, PF_UNIX, SOCK_STREAM, 0); connect($s, sockaddr_un(\"/run/matrix-agent/sock\")) or die $!; \
                 syswrite($s, pack(\"N/a*\", $say)); syswrite($s, \"GET http://example.org/ HTTP/1.1\\r\\n\\r\\n\"); \
                 my $n = sysread($s, my $b, 99); print \"heard \", $n // 0, \"\\n\" } }'";
    assert_eq!(told(&llm, &rig, greet, true), "exit code: 0\nheard 0\nheard 0\nheard 0\nheard 0");
    assert!(server.log().contains("connected and was turned away"));

    // Rights by a program's mode are none, and the wall is named.
    let make = "cp /usr/bin/id /usr/local/bin/wish && chmod 4755 /usr/local/bin/wish";
    assert_eq!(told(&llm, &rig, make, true), "exit code: 0\n(no output)");
    assert_eq!(told(&llm, &rig, "wish -u", false), "exit code: 0\n1000");
    let seen = String::from_utf8(rig.run(&["sandbox", "inspect", "one"]).stdout).unwrap();
    assert!(seen.contains("wall      runsc: gVisor gives each sandbox a kernel of its own"), "{seen}");
    assert!(seen.contains("memory") && !seen.contains("NO LIMIT"), "{seen}");

    // So an update of such a server finds that the newer program works.
    let flown = rig.run(&["doctor", "--canary"]);
    assert!(flown.status.success(), "{}", String::from_utf8_lossy(&flown.stderr));

    // The next server takes it over by the proof that is written down.
    let boot = "cat file /proc/sys/kernel/random/boot_id";
    let before = told(&llm, &rig, boot, false);
    server.kill();
    let _server = rig.serve();
    assert_eq!(told(&llm, &rig, boot, false), before);
    assert_eq!(&proofs(&rig)[..], std::slice::from_ref(proof));
}

#[test]
fn a_sandbox_that_runs_on_without_gvisor_is_not_said_to_be_in_it() {
    let Some((llm, mut rig)) = with_gvisor() else { return };
    rig.set("SANDBOX_RUNTIME", "");
    let server = rig.serve();
    assert!(!told(&llm, &rig, "cat /proc/version", false).contains("Linux version 4.4.0"));
    server.stop();
    rig.set("SANDBOX_RUNTIME", "runsc");
    let _server = rig.serve();
    let wall = || String::from_utf8(rig.run(&["sandbox", "inspect", "one"]).stdout).unwrap();
    assert!(!told(&llm, &rig, "cat /proc/version", false).contains("Linux version 4.4.0"), "it was taken over");
    assert!(wall().contains("wall      the default of Podman: ") && !wall().contains("gVisor"), "{}", wall());
    let container = wall().split(' ').next().unwrap().to_owned();
    assert!(Command::new("podman").args(["stop", "--time", "2", &container]).output().unwrap().status.success());
    assert!(told(&llm, &rig, "cat /proc/version", false).contains("Linux version 4.4.0"));
    assert!(wall().contains("wall      runsc: gVisor "), "{}", wall());
}

#[test]
fn a_runtime_that_cannot_run_sandboxes_is_named_with_its_mend() {
    let (_llm, mut rig) = scripted();
    rig.set("SANDBOX_RUNTIME", "runsc");
    let path = |folder: &Path| format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    rig.set("PATH", &path(rig.path()));
    let program = rig.path().join("runsc");
    for (script, said) in [
        ("echo runsc version 0.0~20221219.0", "is too old for sandboxes"),
        ("echo runsc version VERSION_MISSING", "does not tell how old it is"),
    ] {
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let run = rig.run(&["sandbox", "exec", "one", "--", "true"]);
        let told = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(!run.status.success() && told.contains(said) && told.contains("which Debian 13 has"), "{told}");
        let doctor = String::from_utf8(rig.run(&["doctor"]).stdout).unwrap();
        assert!(doctor.contains(said) && doctor.contains("Install a release of gVisor"), "{doctor}");
    }
    rig.set("SANDBOX_RUNTIME", "krun");
    let told = rig.run(&["config"]);
    let told = [told.stdout, told.stderr].concat();
    assert!(String::from_utf8_lossy(&told).contains("Write `runc`, `crun` or `runsc`"));
}
