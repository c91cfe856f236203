//! Threads, replies, edits and redactions: what people do with a message around its words.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::{
    bot::Town,
    replies::Reply,
    scripted_llm::{results, user_texts},
};

/// A model that says what it was told last, and runs a command and sends its file first when told to `make`.
fn repeats(request: &Value) -> Reply {
    let said = user_texts(request).pop().unwrap_or_default();
    let last_is_result = request["messages"].as_array().unwrap().last().unwrap()["role"] == "tool";
    match (last_is_result, results(request).len()) {
        (false, _) if said.contains("make") => {
            Reply::calls(&[("run_command", json!({"command": "echo made > /workspace/made.txt"}))])
        }
        (true, 1) => Reply::calls(&[("send_file", json!({"path": "made.txt"}))]),
        _ => Reply::text(&format!("You said: {said}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_is_answered_in_the_thread_and_a_reply_without_what_it_quotes() {
    let town = Town::start().await;
    town.llm.otherwise(repeats);
    let room = town.room(false).await;
    let root = town.anna.say(&room, "hello").await;
    town.anna.answer_to(&root).await;

    let asked = town.anna.say_in_thread(&room, &root, "make it").await;
    let answer = town.replies(&asked).await;
    let command = town.anna.say_in_thread(&room, &root, "!status").await;
    town.replies(&command).await;
    town.anna
        .shows(&room, "the end of the progress message", |shown| shown.iter().any(|it| it.body.contains("✓ done")))
        .await;
    let said: Vec<_> = town.anna.shown(&room).into_iter().skip_while(|it| it.id != asked).collect();
    let kinds: Vec<_> = said.iter().filter(|it| it.sender == town.bot).map(|it| it.msgtype.as_str()).collect();
    assert_eq!(kinds, ["m.notice", "m.file", "m.text", "m.text"], "progress, file, answer, status: {said:#?}");
    assert!(said.iter().all(|it| it.thread == root), "all of it stands in the thread: {said:#?}");
    assert!(answer.body().contains("You said: make it"), "{answer:?}");

    // As older clients reply.
    let content = json!({
        "msgtype": "m.text", "body": format!("> <{}> You said: quoted words\n> and more\n\nwhy?", town.bot),
        "m.relates_to": {"m.in_reply_to": {"event_id": answer.id}},
    });
    let asked = town.anna.send(&room, "m.room.message", content).await;
    let answer = town.anna.answer_to(&asked).await;
    assert!(answer.relation().is_empty() && answer.body().contains("You said: why?"), "{answer:?}");
    let requests = town.llm.requests();
    assert!(!user_texts(requests.last().unwrap()).join(" ").contains("quoted words"), "{requests:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_told_of_an_edit_and_stopped_by_a_redaction_or_a_stop_and_what_was_answered_stays() {
    let town = Town::start().await;
    let gate = Arc::new(Notify::new());
    town.llm.when("in red").after(&gate).reply_calls(&[("run_command", json!({"command": "true"}))]);
    town.llm.otherwise(repeats);
    let room = town.room(false).await;
    let asked = town.anna.say(&room, "paint it in red").await;
    town.llm.arrived(1).await;
    let edit = town.anna.edit(&room, &asked, "paint it in blue").await;
    town.has_read(&room, &edit).await;
    gate.notify_one();
    town.anna.answer_to(&asked).await;
    let told = user_texts(town.llm.requests().last().unwrap()).pop().unwrap();
    assert!(told.contains("changed their message “paint it in red” to: paint it in blue"), "{told}");

    // The answer is there: somebody mends a typo, or tidies up.
    let edit = town.anna.edit(&room, &asked, "paint it in green").await;
    town.anna.redact(&room, &asked).await;
    assert!(town.said_since(&room, &edit).await.is_empty(), "an answer was changed");
    assert_eq!(town.llm.requests().len(), 2);

    town.llm.when("wait for ever").reply(Reply::Hang);
    let asked = town.anna.say(&room, "wait for ever").await;
    town.llm.arrived(3).await;
    town.anna.redact(&room, &asked).await;
    let answer = town.anna.answer_to(&asked).await;
    assert!(answer.body().contains("Stopped"), "{answer:?}");
    town.llm.cancelled(1).await;

    town.llm.when("wait once more").reply(Reply::Hang);
    let asked = town.anna.say(&room, "wait once more").await;
    town.llm.arrived(4).await;
    town.anna.edit(&room, &asked, "!stop").await;
    let answer = town.anna.answer_to(&asked).await;
    assert!(answer.body().contains("Stopped"), "{answer:?}");
    town.llm.cancelled(2).await;
}
