//! What dials in is not sandboxd as this server knows it: its room fails with a plain sentence and heals by itself, and
//! the other room notices nothing.

mod support;

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::{Value, json};
use support::{
    rig::{BARE, Rig, answers, block_on},
    scripted_llm::{Reply, ScriptedLlm, results},
};

/// A model that has each question's text run as a command, and tells what came of it.
fn obedient() -> ScriptedLlm {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(|request| {
        let last = request["messages"].as_array().unwrap().last().unwrap();
        if last["role"] == "tool" {
            return Reply::text(results(request).last().unwrap());
        }
        let said = support::scripted_llm::user_texts(request);
        let command = said.last().unwrap().split_once("RUN ").unwrap().1.trim();
        Reply::calls(&[("run_command", json!({"command": command}))])
    });
    llm
}

fn ask(rig: &Rig, room: &str, command: &str) -> String {
    let (code, frames) = rig.ask(room, &format!("RUN {command}")).finish();
    let told: Vec<&Value> = answers(&frames);
    assert_eq!((code, told.len()), (0, 1), "{frames:#?}");
    told[0]["text"].as_str().unwrap().to_owned()
}

/// The sandboxd that containers get.
fn binary(rig: &Rig) -> PathBuf {
    rig.path().join("s/sandboxd")
}

/// Puts a program in the place of sandboxd, for containers that start from now on.
fn replace(path: &PathBuf, content: &[u8]) {
    let fresh = path.with_extension("new");
    fs::write(&fresh, content).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(fresh, path).unwrap();
}

/// A program that connects to the room's socket and sends `bytes`, an expression of Perl; then it stays.
fn dialler(bytes: &str) -> String {
    format!(
        "#!/usr/bin/perl\nuse Socket; $SIG{{TERM}} = sub {{ exit }}; $SIG{{PIPE}} = 'IGNORE';\n\
         socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un('/run/matrix-agent/sock')) or die;\n\
         sub frame {{ pack('N', length $_[0]) . $_[0] }}\n\
         syswrite(S, {bytes}); sleep;\n"
    )
}

/// Lets a room start with `program` as its sandboxd; returns what the model was told of its command.
fn impostor(program: &str) -> String {
    let llm = obedient();
    let rig = Rig::new(BARE, llm.base_url());
    let _server = rig.serve();
    assert_eq!(ask(&rig, "good", "echo before"), "exit code: 0\nbefore");
    let path = binary(&rig);
    let real = fs::read(&path).unwrap();
    replace(&path, program.as_bytes());
    let told = ask(&rig, "bad", "echo never");
    assert_eq!(ask(&rig, "good", "echo beside"), "exit code: 0\nbeside");
    replace(&path, &real);
    assert_eq!(ask(&rig, "bad", "echo mended"), "exit code: 0\nmended", "the room heals: {told}");
    told
}

const HELLO: &str = r#"frame('{"hello":{"protocol":{"min":2,"max":2},"build":"x","boot_id":"y"}}')"#;

#[test]
fn a_protocol_version_that_the_server_does_not_speak_is_told_plainly() {
    let told = impostor(&dialler(&HELLO.replace(r#""min":2,"max":2"#, r#""min":8,"max":9"#)));
    assert!(told.contains("the sandbox speaks protocol 8 to 9, this server 2 to 3: remove the sandbox"), "{told}");
}

#[test]
fn garbage_on_the_socket_ends_that_room_only() {
    for bytes in [
        "\"GET / HTTP/1.1\\r\\n\\r\\n\" x 100",
        "\"\\xff\" x 4096",
        "frame('{\"hello\":{}}')",
        "frame('[' x 60000)",
        &format!("{HELLO} . frame('garbage')"),
    ] {
        let told = impostor(&dialler(bytes));
        let plain =
            told.contains("the sandbox sent what sandboxd does not send") || told.contains("connection to the sandbox");
        assert!(plain && told.len() < 500, "{bytes}: {told}");
    }
}

#[test]
fn a_sandboxd_that_ends_at_once_is_told_plainly() {
    let told = impostor("#!/bin/sh\nexit 3\n");
    assert!(told.contains("ended while it was starting (exit code 3)"), "{told}");
}

/// A process of the agent's and one of the container's root dial the room's own socket, with a fine greeting: nobody
/// listens to them, and the room goes on.
#[test]
fn a_process_that_poses_as_sandboxd_is_turned_away() {
    let llm = obedient();
    let rig = Rig::new(BARE, llm.base_url());
    let server = rig.serve();
    assert_eq!(ask(&rig, "good", "echo before"), "exit code: 0\nbefore");
    let pose = dialler(HELLO).replace("sleep;", "print sysread(S, $_, 100) ? 'welcome' : 'turned away'");
    assert_eq!(ask(&rig, "bad", &format!("cat > pose <<'END'\n{pose}END\nperl pose")), "exit code: 0\nturned away");
    let as_root = rig.run(&["sandbox", "exec", "bad", "--", "perl", "/workspace/pose"]);
    assert_eq!(String::from_utf8_lossy(&as_root.stdout), "turned away", "{as_root:?}");
    assert!(server.log().contains("is not its PID 1"), "{}", server.log());
    for room in ["bad", "good"] {
        assert_eq!(ask(&rig, room, "echo after"), "exit code: 0\nafter");
    }
}

/// Podman knows the volume, and its directory is gone: the room's files lie elsewhere, and it starts with them. Each
/// question has a server of its own, so that nobody else removes the container at the same time.
#[test]
fn a_room_whose_volume_was_deleted_behind_podmans_back_keeps_its_files() {
    let llm = obedient();
    let rig = Rig::new(BARE, llm.base_url());
    assert_eq!(ask(&rig, "deleted", "echo mine > note"), "exit code: 0\n(no output)");
    let list = rig.run(&["sandbox", "list"]);
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let name = list.split_whitespace().find(|word| word.starts_with("sandbox-terminal-deleted")).expect("its name");
    let podman = |args: &[&str]| {
        let output = std::process::Command::new("podman").args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let files = podman(&["volume", "inspect", "--format", "{{.Mountpoint}}", name]);
    // Podman's own clean-up of a container that was just killed may still hold its mounts.
    support::rig::wait("the container's removal", || {
        std::process::Command::new("podman").args(["rm", "--force", "--time", "0", name]).status().unwrap().success()
    });
    fs::remove_dir_all(PathBuf::from(&files).parent().unwrap()).unwrap();
    let told = ask(&rig, "deleted", "cat note; echo more > note && cat note");
    assert_eq!(told, "exit code: 0\nmine\nmore");
}
