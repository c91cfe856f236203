//! The scripts that coding agents call in a sandbox: what they are given becomes an event, they print nothing, and they
//! fail nobody.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use matrix_agent::ipc::{self, Event, Kind};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks").join(name)
}

/// Runs a script with `folder` in the place of `/workspace/.ipc`.
fn run(name: &str, arguments: &[&str], payload: &[u8], folder: &Path, path: &str) -> Output {
    let mut command = Command::new(script(name));
    command.args(arguments).env_clear().env("IPC_FOLDER", folder).env("PATH", path);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A hook that does not read to the end would break the agent's pipe.
    child.stdin.take().unwrap().write_all(payload).unwrap();
    child.wait_with_output().unwrap()
}

fn hook(agent: &str, event: &str, payload: &[u8], folder: &Path) {
    let output = run("ipc-event", &[agent, event], payload, folder, "/usr/bin:/bin");
    assert_eq!((output.status.code(), &*output.stdout, &*output.stderr), (Some(0), &b""[..], &b""[..]), "{event}");
}

/// Takes the events out of a folder.
fn events(folder: &Path) -> Vec<Event> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let name = file.file_name().unwrap().as_encoded_bytes().to_owned();
            assert!(!name.starts_with(b"."), "{} is left", file.display());
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644, "the server may read it");
            let event = ipc::parse(&name, &fs::read(&file).unwrap()).unwrap();
            fs::remove_file(file).unwrap();
            event
        })
        .collect()
}

#[test]
fn every_payload_becomes_an_event_of_its_agent() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = 0;
    for agent in ["gemini", "qwen"] {
        for file in fs::read_dir(format!("{}/tests/fixtures/hooks/{agent}", env!("CARGO_MANIFEST_DIR"))).unwrap() {
            let file = file.unwrap().path();
            let name = file.file_stem().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned();
            hook(agent, &name, &fs::read(&file).unwrap(), folder.path());
            let told = events(folder.path());
            // The many that nobody sees are not even written.
            let dull = ["BeforeModel", "AfterModel", "BeforeToolSelection", "PreCompress"].contains(&&*name);
            assert_eq!(told.len(), usize::from(!dull), "{name}");
            assert!(told.iter().all(|event| event.line.contains(agent)), "{name}: {told:?}");
            seen += told.len();
        }
    }
    assert_eq!(seen, 19);
}

#[test]
fn a_hook_that_cannot_write_says_so_in_its_log_alone() {
    let folder = tempfile::tempdir().unwrap();
    let payload = vec![b' '; 1 << 20];
    hook("qwen", "Stop", &payload, Path::new("/no/such/folder"));
    // A `mv` that fails stands for a file system that is full.
    let tools = tempfile::tempdir().unwrap();
    fs::write(tools.path().join("mv"), "#!/bin/sh\necho 'no space left' >&2\nexit 1\n").unwrap();
    fs::set_permissions(tools.path().join("mv"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", tools.path().display());
    let output = run("ipc-event", &["qwen", "Stop"], &payload, folder.path(), &path);
    assert_eq!((output.status.code(), &*output.stdout, &*output.stderr), (Some(0), &b""[..], &b""[..]));
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["hook-errors.log"]);
    let log = fs::read_to_string(folder.path().join("hook-errors.log")).unwrap();
    assert!(log.ends_with("-qwen-Stop: no space left\n"), "{log}");
}

#[test]
fn any_script_may_tell() {
    let folder = tempfile::tempdir().unwrap();
    let send = |arguments: &[&str]| run("ipc-send", arguments, b"", folder.path(), "/usr/bin:/bin");
    let odd = "a \"b\" \\ c\n\u{1b}[31md $(id) `id` %s";
    let output = send(&["progress", odd, "and more"]);
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    let line = r#"a "b" \ c d $(id) `id` %s and more"#.to_owned();
    assert_eq!(events(folder.path()), [Event { kind: Kind::News, line }]);
    assert!(send(&["result", &"x".repeat(100_000)]).status.success());
    assert!(events(folder.path())[0].line.ends_with('…'));
    for wrong in [&["poem", "x"][..], &[]] {
        let output = send(wrong);
        assert!(output.status.code() == Some(2) && !output.stderr.is_empty(), "{output:?}");
    }
    assert!(events(folder.path()).is_empty());
}
