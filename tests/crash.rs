//! The server killed with `kill -9` at every boundary of a turn, and started again: one answer each, and no command run
//! twice without saying so.

mod support;

use std::{
    os::unix::{net::UnixStream, process::ExitStatusExt},
    process::Stdio,
    sync::Arc,
};

use serde_json::{Value, json};
use support::{
    rig::{BARE, Rig, answers, block_on, wait},
    scripted_llm::{Reply, ScriptedLlm},
};
use tokio::sync::Notify;

/// A model that has one command run and then tells what came of it, however often it is asked.
fn one_command(request: &Value) -> Reply {
    let last = request["messages"].as_array().unwrap().last().unwrap();
    if last["role"] == "tool" {
        Reply::text(&format!("It came to this: {}", last["content"].as_str().unwrap()))
    } else {
        Reply::calls(&[("run_command", json!({"command": "echo once >> /workspace/ran; echo it ran"}))])
    }
}

/// Kills the server at `point`, starts it again, and returns the answer and how often the command ran.
fn crash_at(point: &str) -> (String, usize) {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(one_command);
    let mut rig = Rig::new(BARE, llm.base_url());
    let marker = rig.path().to_str().unwrap().to_owned();
    rig.set("MATRIX_AGENT_CRASH_AT", &format!("{point}:{marker}"));
    let mut server = rig.serve();
    let chat = rig.ask("one", "please");
    assert_eq!(server.died().signal(), Some(9), "the server was killed at {point}");
    let _server = rig.serve();
    let (code, frames) = chat.finish();
    let answers = answers(&frames);
    assert_eq!((code, answers.len()), (0, 1), "at {point}: {frames:#?}");
    let count = rig.run(&["sandbox", "exec", "one", "--", "sh", "-c", "cat /workspace/ran || true"]);
    let (_, later) = rig.ask("one", "!cost").finish();
    assert_eq!(support::rig::answers(&later).len(), 0, "no second answer comes later, at {point}");
    let ran = String::from_utf8_lossy(&count.stdout).matches("once").count();
    (answers[0]["text"].as_str().unwrap().to_owned(), ran)
}

macro_rules! killed {
    ($($name:ident $point:literal)*) => {$(
        #[test]
        fn $name() {
            let (answer, ran) = crash_at($point);
            assert_eq!(ran, 1, "{answer}");
            assert!(answer.contains("it ran"), "{answer}");
        }
    )*};
}

killed! {
    killed_when_the_message_was_received "received"
    killed_when_it_was_journaled "journaled"
    killed_when_it_was_claimed "claimed"
    killed_when_the_model_was_asked "asked"
    killed_when_the_tool_had_run "ran"
    killed_when_its_result_was_stored "ended"
    killed_when_the_answer_was_queued "queued"
    killed_when_it_was_answered "answered"
}

/// Between the intent and the command nobody can know from the store; sandboxd knows.
#[test]
fn killed_when_the_calls_were_stored_or_the_intent_was() {
    for point in ["stored", "started"] {
        let (answer, ran) = crash_at(point);
        match ran {
            0 => assert!(answer.to_lowercase().contains("did not run"), "at {point}: {answer}"),
            1 => assert!(answer.contains("it ran"), "at {point}: {answer}"),
            _ => panic!("at {point} it ran {ran} times"),
        }
    }
}

/// The command goes on while nobody is there, and its output is there when the server is.
#[test]
fn a_command_outlives_the_server_and_is_adopted_with_what_it_said_meanwhile() {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(|request| {
        let last = request["messages"].as_array().unwrap().last().unwrap();
        if last["role"] == "tool" {
            return Reply::text(&format!("It said: {}", last["content"].as_str().unwrap()));
        }
        let command = "echo before; while [ ! -e /workspace/go ]; do sleep 0.05; done; echo after";
        Reply::calls(&[("run_command", json!({"command": command}))])
    });
    let rig = Rig::new(BARE, llm.base_url());
    let server = rig.serve();
    let mut chat = rig.ask("one", "go");
    chat.until("its first line", |frame| frame["kind"] == "tool_output");
    server.kill();
    let _server = rig.serve();
    let go = rig.run(&["sandbox", "exec", "one", "--", "touch", "/workspace/go"]);
    assert!(go.status.success(), "{go:?}");
    let (code, frames) = chat.finish();
    let answer = answers(&frames)[0]["text"].as_str().unwrap().to_owned();
    assert_eq!(code, 0);
    assert!(answer.contains("before") && answer.contains("after"), "{answer}");
    assert_eq!(llm.requests().len(), 2, "the command was not asked for again");
}

/// The turn whose answer the database does not take is gone on with once it does, by the same server.
#[test]
fn a_database_that_fails_costs_no_answer() {
    let llm = block_on(ScriptedLlm::start());
    let gate = Arc::new(Notify::new());
    llm.when("please").after(&gate).reply_text("Here.");
    llm.otherwise(|_| Reply::text("Here."));
    let rig = Rig::new(BARE, llm.base_url());
    let server = rig.serve();
    let chat = rig.ask("one", "please");
    block_on(llm.arrived(1));
    let database = rusqlite::Connection::open(rig.database()).unwrap();
    database
        .execute_batch("CREATE TRIGGER broken BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'it is broken'); END")
        .unwrap();
    gate.notify_one();
    wait("that is told", || server.log().contains("the room's work stands still"));
    database.execute_batch("DROP TRIGGER broken").unwrap();
    let (code, frames) = chat.finish();
    let answers = answers(&frames);
    assert_eq!((code, answers.len()), (0, 1), "{frames:#?}");
    assert!(answers[0]["text"].as_str().unwrap().contains("Here."), "{answers:?}");
}

/// A stop that was heard holds, also when the server dies before it could say so.
#[test]
fn a_stop_survives_the_server() {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(|_| Reply::calls(&[("run_command", json!({"command": "echo up; sleep 1000"}))]));
    let mut rig = Rig::new(BARE, llm.base_url());
    let marker = rig.path().to_str().unwrap().to_owned();
    rig.set("MATRIX_AGENT_CRASH_AT", &format!("stopped:{marker}"));
    let mut server = rig.serve();
    let mut chat = rig.ask("one", "go");
    chat.until("the command's output", |frame| frame["kind"] == "tool_output");
    let stop = rig.ask("one", "!stop");
    assert_eq!(server.died().signal(), Some(9));
    let _server = rig.serve();
    // Both were away; whichever comes back first, each gets the answer, and neither waits for what never comes.
    for (who, code) in [(chat, 1), (stop, 0)] {
        let (ended, frames) = who.finish();
        assert_eq!(ended, code, "{frames:#?}");
        assert_eq!(answers(&frames).iter().map(|answer| &answer["ending"]).collect::<Vec<_>>(), ["stopped"]);
    }
    let left = rig.run(&["sandbox", "exec", "one", "--", "sh", "-c", "cat /proc/[0-9]*/comm"]);
    assert!(!String::from_utf8_lossy(&left.stdout).contains("sleep"), "{left:?}");
}

/// Waits until a command of the operator's has the state directory. It serves those that come after it and stays until they have ended,
/// so that a test whose next command came first would wait for the very command that it is to let go.
fn served_by_the_first(rig: &Rig) {
    wait("whoever serves", || UnixStream::connect(rig.path().join("s/sandboxes.sock")).is_ok());
}

/// Whoever administers a sandbox while no server runs has the state directory meanwhile.
#[test]
fn a_command_of_the_operator_s_between_two_servers_keeps_nobody_from_an_answer() {
    let llm = block_on(ScriptedLlm::start());
    llm.reply(Reply::command("true")).reply_text("Ready.");
    let gate = Arc::new(Notify::new());
    llm.when("and now?").after(&gate).reply_text("Nobody hears that.");
    llm.otherwise(|_| Reply::text("Now it is."));
    let rig = Rig::new(BARE, llm.base_url());
    let server = rig.serve();
    rig.ask("one", "begin").finish();
    let chat = rig.ask("one", "and now?");
    block_on(llm.arrived(3));
    server.kill();
    let waits = ["sandbox", "exec", "one", "--", "sh", "-c", "touch on; until [ -e go ]; do sleep 0.1; done"];
    let mut command = rig.command(&waits).spawn().unwrap();
    served_by_the_first(&rig);
    wait("the command", || rig.run(&["sandbox", "exec", "one", "--", "test", "-e", "on"]).status.success());
    std::thread::scope(|scope| {
        let started = scope.spawn(|| rig.serve());
        rig.inside("touch /workspace/go");
        assert!(command.wait().unwrap().success());
        let _server = started.join().unwrap();
        let (code, frames) = chat.finish();
        assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    });
}

/// Whoever administers sandboxes holds the state directory a little longer than its socket.
#[test]
fn a_server_that_comes_while_another_process_ends_waits_for_its_place() {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(|_| Reply::text("Here."));
    let rig = Rig::new(BARE, llm.base_url());
    rig.serve().kill();
    let held = std::fs::File::open(rig.path().join("s/lock")).unwrap();
    held.lock().unwrap();
    std::thread::scope(|scope| {
        let started = scope.spawn(|| rig.serve());
        let log = || std::fs::read_to_string(rig.path().join("server.log")).unwrap();
        wait("that it waits", || log().contains("waiting for another process"));
        held.unlock().unwrap();
        let _server = started.join().unwrap();
        assert_eq!(answers(&rig.ask("one", "please").finish().1).len(), 1);
    });
}

#[test]
fn commands_of_the_operator_s_without_a_server_end_each_for_itself_or_say_that_nobody_knows() {
    let llm = block_on(ScriptedLlm::start());
    llm.reply(Reply::command("true")).reply_text("Ready.");
    let rig = Rig::new(BARE, llm.base_url());
    let server = rig.serve();
    rig.ask("one", "begin").finish();
    server.kill();
    let start = |name: &str| {
        let script = format!("touch {name}; until [ -e go-{name} ]; do sleep 0.1; done; touch done-{name}; exit 7");
        let mut command = rig.command(&["sandbox", "exec", "one", "--", "sh", "-c", &script]);
        let started = command.stderr(Stdio::piped()).spawn().unwrap();
        served_by_the_first(&rig);
        let there = ["sandbox", "exec", "one", "--", "test", "-e", name];
        wait(name, || rig.run(&there).status.success());
        started
    };
    let (first, second) = (start("a"), start("b"));
    rig.inside("touch /workspace/go-a");
    rig.inside("until [ -e /workspace/done-a ]; do sleep 0.05; done");
    rig.inside("touch /workspace/go-b");
    for command in [second, first] {
        assert_eq!(command.wait_with_output().unwrap().status.code(), Some(7));
    }
    let (mut first, second) = (start("c"), start("d"));
    first.kill().unwrap();
    first.wait().unwrap();
    let second = second.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(second.status.code() == Some(1) && said.contains("what became of it is not known"), "{second:?}");
}
