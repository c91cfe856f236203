//! A model that waits for what runs in the background: as long as it likes, until somebody speaks, and across a crash.

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{
    rig::{BARE, Chat, Rig, Server, answers, block_on},
    scripted_llm::{Reply, ScriptedLlm, results},
};

const BUILD: &str = "echo building; while [ ! -e /workspace/go ]; do sleep 0.05; done; echo built";

/// A model that starts a build, makes the call `look` with its job until it is told that it has ended or `most` times,
/// and then says what it was told last.
fn builder(look: Value, most: usize) -> impl Fn(&Value) -> Reply + Send + Sync {
    move |request| {
        let told = results(request);
        let Some(started) = told.first() else {
            return Reply::calls(&[("run_command", json!({"command": BUILD, "background": true}))]);
        };
        let (_, job) = started.split_once("as job-").expect("a job was started");
        let last = told.last().expect("has a first");
        if told.len() > most || last.contains("has ended") {
            return Reply::text(&format!("After {} looks: {last}", told.len() - 1));
        }
        let mut look = look.clone();
        look["job"] = json!(format!("job-{}", &job[..8]));
        Reply::calls(&[("run_command", look)])
    }
}

/// A rig with a server on it, and a chat whose model waits for a build.
fn waiting(llm: &ScriptedLlm) -> (Rig, Server, Chat) {
    llm.otherwise(builder(json!({"timeout_seconds": 600}), 5));
    let rig = Rig::new(BARE, llm.base_url());
    let server = rig.serve();
    let mut chat = rig.ask("one", "build it");
    let at_wait = |frame: &Value| {
        frame["kind"] == "tool_started" && frame["detail"].as_str().is_some_and(|detail| detail.starts_with("job-"))
    };
    chat.until("the wait", at_wait);
    (rig, server, chat)
}

/// Lets the build end, and returns what the model was told of it.
fn built(rig: &Rig, chat: Chat) -> String {
    let go = rig.run(&["sandbox", "exec", "one", "--", "touch", "/workspace/go"]);
    assert!(go.status.success(), "{go:?}");
    let (_, frames) = chat.finish();
    let told = text(&frames);
    // Its last word and its end may come as two.
    assert!(told.contains("has ended") && told.contains("building\nbuilt"), "{told}");
    told
}

fn text(frames: &[Value]) -> String {
    let answers = answers(frames);
    assert_eq!(answers.len(), 1, "{frames:#?}");
    assert_eq!(answers[0]["ending"], "done", "{frames:#?}");
    answers[0]["text"].as_str().expect("is text").to_owned()
}

#[test]
fn a_build_may_be_looked_at_as_often_as_the_model_likes() {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(builder(json!({}), 9));
    let rig = Rig::new(BARE, llm.base_url());
    let (code, frames) = rig.ask("one", "build it").finish();
    let told = text(&frames);
    assert_eq!(code, 0);
    assert!(told.contains("After 9 looks") && told.contains("is running"), "{told}");
    assert!(!llm.requests().iter().any(|request| request.to_string().contains("the same calls")), "it is not nudged");
}

#[test]
fn one_wait_is_enough_for_a_whole_build() {
    let llm = block_on(ScriptedLlm::start());
    let (rig, _server, chat) = waiting(&llm);
    let told = built(&rig, chat);
    // The last word and the end may come as two, where the machine is slow.
    assert!(["After 1 looks", "After 2 looks", "After 3 looks"].iter().any(|it| told.contains(it)), "{told}");
}

#[test]
fn a_word_ends_the_wait_and_is_shown_to_the_model() {
    let llm = block_on(ScriptedLlm::start());
    llm.when("never mind").reply_text("Then I leave it.");
    let (rig, _server, chat) = waiting(&llm);
    let said = Instant::now();
    let word = rig.ask("one", "never mind");
    let (_, frames) = chat.finish();
    assert!(said.elapsed() < Duration::from_secs(10), "{:?}", said.elapsed());
    assert_eq!(text(&frames), "Then I leave it.");
    drop(word);
    let requests = llm.requests();
    let told = results(requests.last().expect("was asked"));
    assert!(told[1].contains("somebody has written in the room") && told[1].contains("building"), "{told:?}");
}

#[test]
fn a_stop_ends_the_wait() {
    let llm = block_on(ScriptedLlm::start());
    let (rig, _server, mut chat) = waiting(&llm);
    let said = Instant::now();
    let _stop = rig.ask("one", "!stop");
    assert_eq!(chat.event("answer")["ending"], "stopped");
    assert!(said.elapsed() < Duration::from_secs(10), "{:?}", said.elapsed());
}

#[test]
fn a_wait_that_a_crash_has_cut_off_looks_again() {
    let llm = block_on(ScriptedLlm::start());
    let (rig, server, chat) = waiting(&llm);
    server.kill();
    let _server = rig.serve();
    built(&rig, chat);
    let requests = llm.requests();
    for told in results(requests.last().expect("was asked")) {
        assert!(told.contains("job-") && !told.to_lowercase().contains("did not run"), "{told}");
    }
}
