//! `doctor --canary`: this program on a copy of what another one works with.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use crate::support::{
    rig::{BARE, Rig, answers, block_on},
    scripted_llm::{Reply, ScriptedLlm},
};

const STAGES: [&str; 7] = ["copy", "migrate", "start", "message", "sandbox", "tool", "answer"];

/// Runs it with a folder of the test's own for the copy; returns its exit code, and what it has said.
fn fly(rig: &Rig, settings: &[(&str, &str)]) -> (i32, String, String) {
    let folder = rig.path().join("c");
    fs::create_dir_all(&folder).unwrap();
    let mut command = rig.command(&["doctor", "--canary"]);
    let output = command.env("TMPDIR", &folder).envs(settings.iter().copied()).output().unwrap();
    let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "it leaves {left:?}");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn stages(said: &str) -> Vec<&str> {
    said.lines().filter_map(|line| line.split_whitespace().next().filter(|_| line.ends_with(" s"))).collect()
}

/// Begins one, with this folder for the copy; returns it once its first stage is done.
fn begin(rig: &Rig, folder: &Path) -> Child {
    let mut command = rig.command(&["doctor", "--canary"]);
    let mut child = command.env("TMPDIR", folder).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("copy"), "{line}");
    child
}

#[test]
fn canaries_do_not_meet_and_what_one_that_was_ended_has_left_goes() {
    let llm = block_on(ScriptedLlm::start());
    let rig = Rig::new(BARE, llm.base_url());
    let folder = rig.path().join("c");
    fs::create_dir_all(&folder).unwrap();
    let left = || fs::read_dir(&folder).unwrap().count();
    let mut killed = begin(&rig, &folder);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(left(), 1, "nobody could remove it");
    // The next removes it, and meets nobody who works.
    thread::scope(|scope| {
        let flown = [(); 2].map(|()| {
            scope.spawn(|| {
                let output = rig.command(&["doctor", "--canary"]).env("TMPDIR", &folder).output().unwrap();
                (output.status.code(), String::from_utf8(output.stderr).unwrap())
            })
        });
        for flown in flown {
            let (code, errors) = flown.join().unwrap();
            assert_eq!(code, Some(0), "{errors}");
        }
    });
    assert_eq!(left(), 0);
    let mut ended = begin(&rig, &folder);
    signal::kill(Pid::from_raw(ended.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(ended.wait().unwrap().code(), Some(1));
    assert_eq!(left(), 0, "one that is told to end removes its own");
}

/// All that is in the database.
fn dump(database: &Path) -> String {
    let dumped = Command::new("sqlite3").arg(format!("file:{}?mode=ro", database.display())).arg(".dump").output();
    String::from_utf8(dumped.unwrap().stdout).unwrap()
}

#[test]
fn a_canary_works_beside_a_running_server_and_touches_nothing_of_its() {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(|request| {
        let last = request["messages"].as_array().unwrap().last().unwrap();
        if last["role"] == "tool" {
            return Reply::text("It ran.");
        }
        let command = "echo up; while [ ! -e /workspace/go ]; do sleep 0.05; done";
        Reply::calls(&[("run_command", json!({"command": command}))])
    });
    let rig = Rig::new(BARE, llm.base_url());
    let server = rig.serve();
    // A turn is open and a command runs: the copy has both, and nobody there goes on with them.
    let mut chat = rig.ask("one", "please");
    chat.until("the command's output", |frame| frame["kind"] == "tool_output");
    let before = dump(&rig.database());
    let (code, said, errors) = fly(&rig, &[]);
    assert_eq!((code, stages(&said)), (0, STAGES.to_vec()), "{said}{errors}");
    assert!(said.contains("The canary lives: "), "{said}");
    assert_eq!(dump(&rig.database()), before);
    assert_eq!(rig.sandboxes().0, 1);
    assert_eq!(llm.requests().len(), 1, "the model of the server was asked once");
    rig.inside("touch /workspace/go");
    let (code, frames) = chat.finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    drop(server);
}

#[test]
fn the_stage_that_fails_is_named() {
    let llm = block_on(ScriptedLlm::start());
    let rig = Rig::new(BARE, llm.base_url());
    // There is no state yet: the first server would begin with an empty one, too.
    let (code, said, errors) = fly(&rig, &[("SANDBOX_IMAGE", "localhost/no-such-image:none")]);
    assert_eq!((code, stages(&said)), (1, STAGES[..4].to_vec()), "{said}{errors}");
    assert!(errors.contains("failed at the stage `sandbox`: ") && errors.contains("no-such-image"), "{errors}");

    rig.serve().stop();
    let database = Connection::open_with_flags(rig.database(), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    database.execute_batch("INSERT INTO meta VALUES ('oldest_version', '999'); PRAGMA user_version = 999;").unwrap();
    let (code, said, errors) = fly(&rig, &[]);
    assert_eq!((code, stages(&said)), (1, STAGES[..1].to_vec()), "{said}{errors}");
    assert!(errors.contains("failed at the stage `migrate`: "), "{errors}");
    drop(database);
    for file in ["matrix-agent.db-wal", "matrix-agent.db-shm"] {
        let _ = fs::remove_file(rig.path().join("s").join(file));
    }
    fs::write(rig.database(), "no database".repeat(1000)).unwrap();
    let (code, said, errors) = fly(&rig, &[]);
    assert_eq!((code, stages(&said).len()), (1, 0), "{said}{errors}");
    assert!(errors.contains("failed at the stage `copy`: "), "{errors}");
}
