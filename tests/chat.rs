//! The agent in the terminal: the real binary, real Podman, a scripted model.

mod support;

use serde_json::json;
use support::{
    rig::{BARE, Rig, answers, block_on},
    scripted_llm::{Reply, ScriptedLlm, results},
};

fn rig() -> (ScriptedLlm, Rig) {
    let llm = block_on(ScriptedLlm::start());
    let rig = Rig::new(BARE, llm.base_url());
    (llm, rig)
}

fn run_command(command: &str) -> Reply {
    Reply::calls(&[("run_command", json!({"command": command}))])
}

#[test]
fn a_prompt_is_answered_once_with_what_it_took() {
    let (llm, rig) = rig();
    llm.reply_text("Hello from the model.");
    let (code, frames) = rig.ask("one", "hello").finish();
    let answers = answers(&frames);
    assert_eq!((code, answers.len()), (0, 1), "{frames:#?}");
    assert_eq!(answers[0]["text"], "Hello from the model.");
    assert_eq!(answers[0]["ending"], "done");
    assert!(answers[0]["footer"].as_str().unwrap().contains("token"), "{}", answers[0]["footer"]);
    let streamed: String = frames.iter().filter_map(|frame| frame["delta"].as_str()).collect();
    assert_eq!(streamed, "Hello from the model.", "the text came as it was made");
}

#[test]
fn commands_run_in_the_rooms_own_sandbox_and_its_files_stay() {
    let (llm, rig) = rig();
    llm.when("one").reply(run_command("echo mine > /workspace/note; id -un; exit 3")).reply_text("written");
    llm.when("two").reply(run_command("cat /workspace/note || echo nothing here")).reply_text("looked");
    llm.when("three").reply(run_command("cat /workspace/note")).reply_text("read");
    rig.ask("a", "one").finish();
    rig.ask("b", "two").finish();
    rig.ask("a", "three").finish();
    let requests = llm.requests();
    let seen: Vec<_> = [1, 3, 5].map(|index| results(&requests[index]).last().unwrap().to_string()).to_vec();
    assert!(seen[0].contains("agent") && seen[0].contains('3'), "{}", seen[0]);
    assert!(seen[1].contains("nothing here"), "{}", seen[1]);
    assert!(seen[2].contains("mine"), "{}", seen[2]);
}

#[test]
fn a_prompt_may_come_on_standard_input_and_a_plain_answer_goes_to_standard_output() {
    let (llm, rig) = rig();
    llm.when("from a pipe").reply_text("Read.");
    let mut command = assert_cmd::Command::from_std(rig.command(&["chat"]));
    let output = command.write_stdin("from a pipe\n").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Read.\n");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("done"), "{said}");
    assert!(!said.contains("sk-scripted-secret") && !said.contains("from a pipe"), "no secret and no prompt: {said}");
}

#[test]
fn stop_ends_a_tree_that_ignores_sigterm_and_one_that_forked_twice() {
    let (llm, rig) = rig();
    llm.reply(run_command("trap '' TERM; (setsid sh -c 'trap \"\" TERM; sleep 1000' &) & echo up; sleep 1000"));
    let server = rig.serve();
    let mut chat = rig.ask("one", "go");
    chat.until("the command's output", |frame| frame["kind"] == "tool_output" && frame["line"] == "up");
    let (code, _) = rig.ask("one", "!stop").finish();
    assert_eq!(code, 0, "it is stopped, as was asked");
    let (code, frames) = chat.finish();
    assert_eq!(code, 1);
    assert_eq!(answers(&frames).iter().map(|answer| &answer["ending"]).collect::<Vec<_>>(), ["stopped"]);
    let left = rig.run(&["sandbox", "exec", "one", "--", "sh", "-c", "cat /proc/[0-9]*/comm"]);
    let left = String::from_utf8_lossy(&left.stdout);
    assert!(!left.contains("sleep"), "{left}");
    drop(server);
}

#[test]
fn a_message_during_work_is_shown_to_the_model_after_the_running_calls() {
    let (llm, rig) = rig();
    llm.reply(run_command("echo up; while [ ! -e /workspace/go ]; do sleep 0.05; done"));
    llm.reply_text("Both done.");
    let _server = rig.serve();
    let mut first = rig.ask("one", "first wish");
    first.until("the command's output", |frame| frame["kind"] == "tool_output");
    let mut second = rig.ask("one", "second wish");
    second.event("admitted");
    let go = rig.run(&["sandbox", "exec", "one", "--", "touch", "/workspace/go"]);
    assert!(go.status.success(), "{go:?}");
    let (code, frames) = first.finish();
    assert_eq!((code, answers(&frames).len()), (0, 1));
    assert_eq!(second.finish().0, 0, "the second wish is answered with the first");
    let requests = llm.requests();
    assert_eq!(requests.len(), 2);
    let roles: Vec<_> = requests[1]["messages"].as_array().unwrap().iter().map(|message| &message["role"]).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "user"]);
    assert!(requests[1]["messages"][4].to_string().contains("second wish"));
}

#[test]
fn commands_of_the_chat_need_no_model() {
    let (llm, rig) = rig();
    let _server = rig.serve();
    for (command, word) in [
        ("!help", "!stop"),
        ("!cost", "No tokens"),
        ("!stop", "Nothing is running"),
        ("!new", "new conversation"),
        ("!frobnicate", "!help"),
    ] {
        let (code, frames) = rig.ask("one", command).finish();
        let reply = frames.iter().find(|frame| frame["event"] == "reply").unwrap()["text"].as_str().unwrap().to_owned();
        assert!(code == 0 && reply.contains(word), "{command}: {reply}");
    }
    assert_eq!(llm.requests().len(), 0);
}

#[test]
fn a_new_conversation_forgets_what_was_said() {
    let (llm, rig) = rig();
    llm.reply_text("one").reply_text("two").reply_text("three");
    let _server = rig.serve();
    rig.ask("r", "the word is xyzzy").finish();
    rig.ask("r", "what is it?").finish();
    rig.ask("r", "!new").finish();
    rig.ask("r", "and now?").finish();
    let told: Vec<_> = llm.requests().iter().map(|request| request.to_string().contains("xyzzy")).collect();
    assert_eq!(told, [true, true, false]);
}

#[test]
fn the_sandbox_tells_what_is_observed_of_it() {
    let (llm, rig) = rig();
    llm.reply(run_command("true")).reply_text("ok");
    let _server = rig.serve();
    rig.ask("one", "go").finish();
    let inspected = rig.run(&["sandbox", "inspect", "one"]);
    let inspected = String::from_utf8_lossy(&inspected.stdout).into_owned();
    let (_, frames) = rig.ask("one", "!sandbox").finish();
    let told = frames.iter().find(|frame| frame["event"] == "reply").unwrap()["text"].as_str().unwrap().to_owned();
    for word in ["agent", "memory", "sha256"] {
        assert!(inspected.contains(word), "{word} in {inspected}");
        assert!(told.contains(word), "{word} in {told}");
    }
    let list = rig.run(&["sandbox", "list"]);
    assert!(String::from_utf8_lossy(&list.stdout).contains("sandbox-terminal-one"), "{list:?}");
    let gone = rig.run(&["sandbox", "rm", "one"]);
    assert!(gone.status.success(), "{gone:?}");
    let missing = rig.run(&["sandbox", "inspect", "one"]);
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn a_second_server_says_who_holds_the_state_directory() {
    let (_llm, rig) = rig();
    let server = rig.serve();
    let second = rig.run(&["run"]);
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("process {}", server.pid())), "{said}");
}

#[test]
fn a_model_that_is_away_is_said_plainly_and_the_next_question_works() {
    let (llm, mut rig) = rig();
    rig.set("LLM_BASE_URL", "http://127.0.0.1:9/v1");
    let (code, frames) = rig.ask("one", "hello").finish();
    let told = answers(&frames);
    assert_eq!((code, told.len()), (1, 1));
    assert_eq!(told[0]["ending"], "failed");
    assert!(told[0]["text"].as_str().unwrap().contains("model"), "{}", told[0]["text"]);
    rig.set("LLM_BASE_URL", llm.base_url());
    llm.reply_text("back");
    assert_eq!(rig.ask("one", "again").finish().0, 0);
}

#[test]
fn podman_away_is_said_plainly_and_questions_without_tools_still_work() {
    let (llm, mut rig) = rig();
    rig.set("PODMAN_PATH", "/nonexistent/podman");
    rig.set("PODMAN_SOCKET", rig.path().join("no.sock").to_str().unwrap().to_owned().as_str());
    llm.reply(run_command("true")).reply_text("The sandbox is away.");
    let (code, frames) = rig.ask("one", "go").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1));
    let told = results(&llm.requests()[1]).concat();
    assert!(told.contains("Podman"), "{told}");
}

#[test]
fn what_an_interrupted_client_left_is_answered_to_the_next_and_only_once() {
    let (llm, rig) = rig();
    let _server = rig.serve();
    llm.reply(run_command("echo up; while [ ! -e /workspace/go ]; do sleep 0.05; done")).reply_text("late answer");
    let mut chat = rig.ask("one", "slow");
    chat.until("the command's output", |frame| frame["kind"] == "tool_output");
    drop(chat);
    let go = rig.run(&["sandbox", "exec", "one", "--", "touch", "/workspace/go"]);
    assert!(go.status.success(), "{go:?}");
    llm.reply_text("the next answer");
    let mut next = rig.ask("one", "and?");
    next.until("the late answer", |frame| frame["text"] == "late answer");
    assert_eq!(next.finish().0, 0);
    let (_, frames) = rig.ask("one", "!help").finish();
    assert_eq!(answers(&frames).len(), 0, "it is not told again");
}

#[test]
fn ctrl_c_stops_the_turn_and_what_ran() {
    let (llm, rig) = rig();
    let _server = rig.serve();
    llm.reply(run_command("echo up; sleep 1000"));
    let mut chat = rig.ask("one", "go");
    chat.until("the command's output", |frame| frame["kind"] == "tool_output");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(chat.pid()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let (code, frames) = chat.finish();
    assert_eq!((code, &answers(&frames)[0]["ending"]), (1, &json!("stopped")));
    let left = rig.run(&["sandbox", "exec", "one", "--", "sh", "-c", "cat /proc/[0-9]*/comm"]);
    assert!(!String::from_utf8_lossy(&left.stdout).contains("sleep"), "{left:?}");
}
