//! A chat bot on an account of its own, in real rooms: whom it answers, where, and what becomes of the rest.

use std::{os::unix::process::ExitStatusExt, sync::Arc, time::Duration};

use matrix_sdk::ruma::{OwnedRoomId, api::client::room::create_room::v3::Request};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{
    house::{CHATTING, serve_house},
    rooms::is_settled,
    support::{
        bot::Town,
        person::Person,
        rig::wait,
        scripted_llm::{Reply, ScriptedLlm, user_texts},
        seen::{Seen, Shown},
        synapse::{Limits, Synapse},
    },
};

/// A town in which a chat bot called `llamabot` serves the room `#chat`, and its account's name.
async fn town() -> (Town, String) {
    let (synapse, llm) = tokio::join!(Synapse::configured(Limits::Relaxed, ""), ScriptedLlm::start());
    let llama = synapse.account("llama").await;
    let town = Town::on(synapse, llm, |rig| {
        rig.set(CHATTING, &llama);
        serve_house(rig);
    });
    (town.await, llama)
}

/// The room that the chat bot serves, with these people in it.
async fn room(by: &Person, encrypted: bool, with: &[&str]) -> OwnedRoomId {
    let mut request = Request::new();
    request.room_alias_name = Some("chat".to_owned());
    request.invite = with.iter().map(|&who| who.try_into().unwrap()).collect();
    if encrypted {
        let state =
            json!({"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}});
        request.initial_state = vec![serde_json::from_value(state).unwrap()];
    }
    by.client.create_room(request).await.unwrap().room_id().to_owned()
}

/// What the bot replies to an order.
async fn reply(person: &Person, llama: &str, asked: &str) -> Seen {
    let fits = |it: &Seen| it.is_message() && it.sender == llama && it.reply_to() == asked;
    person.wait_after(asked, "the chat bot's reply", fits).await
}

/// The bot's whole answer with these words in it, as the room shows it.
async fn answer(person: &Person, room: &OwnedRoomId, llama: &str, words: &str) -> Shown {
    let is_it = |it: &&Shown| it.sender == llama && it.body.contains(words) && it.body.contains("scripted/model");
    let shown = person.shows(room, words, |shown| shown.iter().any(|it| is_it(&it))).await;
    shown.iter().find(is_it).unwrap().clone()
}

/// What was last said to the model, said back.
fn echo(request: &Value) -> Reply {
    Reply::text(&format!("heard: {}", user_texts(request).last().unwrap()))
}

/// The same answer, with a pause between its pieces.
fn slowly(reply: Reply, pause: Duration) -> Reply {
    let Reply::Stream(events, _) = reply else { panic!("it is no stream") };
    Reply::Bytes("text/event-stream", events.into_iter().map(String::into_bytes).collect(), pause)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_whoever_calls_it_in_its_room_and_nothing_else() {
    let (town, llama) = town().await;
    town.llm.otherwise(|request| Reply::text(&format!("heard: {}", user_texts(request).join(" + "))));
    let anna = &town.anna;
    let bert = Person::new(&town.synapse, "bert").await;
    // A room that is not listed: the invite is declined.
    let other = anna.create_room(false, &[&llama]).await;
    anna.member(&other, &llama, "leave").await;

    let room = room(anna, false, &[&llama, &bert.id]).await;
    bert.accept(&room).await;
    anna.joined(&room, &llama).await;
    let ignored = anna.say(&room, "nothing for you").await;
    bert.say(&room, "llamabot: what is up?").await;
    let first = answer(&bert, &room, &llama, "heard: @bert:localhost: what is up?").await;
    assert!(!first.body.contains("nothing for you"), "what does not call it is no part of the conversation");
    // By the account's name, in another case, and at the end.
    for (words, said) in [
        ("@llama one", "one"),
        ("Two, LLAMABOT!", "Two"),
        ("@llama:localhost: three", "three"),
        ("what does llamabot say?", "what does llamabot say?"),
    ] {
        anna.say(&room, words).await;
        answer(anna, &room, &llama, &format!("@anna:localhost: {said}\n")).await;
    }
    // An edit that calls it is answered once, whatever is edited then.
    for edit in ["llamabot: edited", "llamabot: edited again"] {
        anna.edit(&room, &ignored, edit).await;
        if edit.ends_with("edited") {
            answer(anna, &room, &llama, "edited\n").await;
        }
    }
    anna.say(&room, "llamabot: the end").await;
    answer(anna, &room, &llama, "the end\n").await;
    let to_edited = anna.events().into_iter().filter(|it| it.sender == llama && it.reply_to() == ignored);
    assert_eq!(to_edited.count(), 1);
    assert!(!town.llm.requests().iter().any(|request| request.to_string().contains("edited again")));
    let help = anna.say(&room, "@llama ?").await;
    assert!(reply(anna, &llama, &help).await.body().contains("Mention me and ask"));
    let reset = anna.say(&room, "llamabot reset").await;
    assert!(reply(anna, &llama, &reset).await.body().contains("forgotten"));
    anna.say(&room, "llamabot, and now?").await;
    answer(anna, &room, &llama, "heard: and now?\n").await;

    let log = town.log();
    assert!(log.contains("a question") && !log.contains("what is up"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_calls_it_no_more_is_taken_back() {
    let (town, llama) = town().await;
    let gate = Arc::new(Notify::new());
    town.llm.when("slowly").after(&gate).reply_text("This comes too late.");
    town.llm.otherwise(echo);
    let anna = &town.anna;
    let room = room(anna, false, &[&llama]).await;
    anna.joined(&room, &llama).await;
    let asked = anna.say(&room, "@llama answer slowly").await;
    town.llm.arrived(1).await;
    anna.edit(&room, &asked, "never mind").await;
    town.llm.cancelled(1).await;
    anna.say(&room, "@llama and now?").await;
    answer(anna, &room, &llama, "heard: and now?").await;
    let requests = town.llm.requests();
    assert_eq!(requests.len(), 2, "{requests:#?}");
    assert!(!requests[1].to_string().contains("never mind"), "{:#}", requests[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_deleted_is_not_told_to_the_model_again_nor_is_its_answer() {
    let (town, llama) = town().await;
    town.llm.otherwise(echo);
    let anna = &town.anna;
    let room = room(anna, false, &[&llama]).await;
    anna.joined(&room, &llama).await;
    anna.say(&room, "@llama I like tea").await;
    answer(anna, &room, &llama, "heard: I like tea").await;
    let asked = anna.say(&room, "@llama my pin is 4711").await;
    answer(anna, &room, &llama, "heard: my pin is 4711").await;
    anna.redact(&room, &asked).await;
    anna.say(&room, "@llama and now?").await;
    answer(anna, &room, &llama, "heard: and now?").await;
    let told = town.llm.requests()[2].to_string();
    assert!(told.contains("heard: I like tea") && !told.contains("4711"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_deleted_while_it_comes_ends_there() {
    let (town, llama) = town().await;
    town.llm.hang_after(2, Reply::text("This is an answer that nobody wants to read to its end."));
    town.llm.otherwise(echo);
    let anna = &town.anna;
    let room = room(anna, false, &[&llama]).await;
    anna.joined(&room, &llama).await;
    let asked = anna.say(&room, "@llama tell me").await;
    let begun = |it: &Seen| it.is_message() && it.sender == llama && it.reply_to() == asked;
    let begun = anna.wait_after(&asked, "the beginning of an answer", begun).await;
    // All that came is there, at once or by an edit, so that nothing more comes by itself.
    let is_whole = |it: &Shown| it.id == begun.id && it.body.contains("to its end");
    anna.shows(&room, "all that came", |shown| shown.iter().any(is_whole)).await;
    anna.redact(&room, &begun.id).await;
    town.llm.cancelled(1).await;
    anna.say(&room, "@llama and now?").await;
    answer(anna, &room, &llama, "heard: and now?").await;
    let events = anna.events();
    let deleted = events.iter().position(|it| it.kind == "m.room.redaction").expect("it was deleted");
    let after: Vec<_> = events[deleted..].iter().filter(|it| it.sender == llama && it.target() == begun.id).collect();
    assert_eq!(after.len(), 0, "nothing is written into what was deleted: {after:#?}");
    let shown: Vec<_> = anna.shown(&room).into_iter().filter(|it| it.sender == llama).collect();
    assert!(!shown.iter().any(|it| it.body.contains("answer that nobody")), "{shown:#?}");
    assert!(!town.llm.requests()[1].to_string().contains("tell me"), "what came to nothing is not asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_as_edits_of_one_message_and_the_last_one_calls_who_asked() {
    let (town, llama) = town().await;
    town.llm.otherwise(|request| slowly(echo(request), Duration::from_millis(900)));
    let anna = &town.anna;
    let bert = Person::new(&town.synapse, "bert").await;
    let room = room(anna, true, &[&llama, &bert.id]).await;
    bert.accept(&room).await;
    anna.joined(&room, &llama).await;
    let root = bert.say(&room, "a topic").await;
    let asked = bert.say_in_thread(&room, &root, "@llama what is the capital of France, and why?").await;
    answer(&bert, &room, &llama, "heard: what is the capital of France, and why?").await;

    let of_llama: Vec<_> =
        bert.events().into_iter().filter(|it| it.sender == llama && it.kind == "m.room.message").collect();
    let (first, edits) = of_llama.split_first().expect("it has answered");
    assert!(first.msgtype() == "m.notice" && first.is_message() && first.reply_to() == asked, "{first:?}");
    assert_eq!((first.relation(), first.target()), ("m.thread", &*root));
    assert!(edits.iter().all(|edit| edit.relation() == "m.replace" && edit.target() == first.id), "{edits:?}");
    let (last, before) = edits.split_last().expect("it was edited");
    assert!(last.mentions(&bert.id) && last.msgtype() == "m.text", "{last:?}");
    assert!(!before.iter().chain([first]).any(|it| it.mentions(&bert.id)), "nobody is called before it is whole");
    assert!(first.body().ends_with('…') || first.body().contains("thinking"), "{first:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_to_its_message_calls_it_where_the_client_names_nobody() {
    let (town, llama) = town().await;
    town.llm.otherwise(|request| Reply::text(&format!("heard: {}", user_texts(request).join(" + "))));
    let anna = &town.anna;
    let room = room(anna, false, &[&llama]).await;
    anna.joined(&room, &llama).await;
    let own = anna.say(&room, "llamabot: what is up?").await;
    let first = answer(anna, &room, &llama, "what is up?\n").await;
    anna.reply(&room, &own, "to myself").await;
    let relation = json!({"m.in_reply_to": {"event_id": first.id}});
    let unnamed = json!({"msgtype": "m.text", "body": "not for you", "m.relates_to": relation, "m.mentions": {}});
    anna.send(&room, "m.room.message", unnamed).await;
    anna.reply(&room, &first.id, "and why?").await;
    answer(anna, &room, &llama, "and why?\n").await;
    let asked = town.llm.requests();
    assert_eq!(asked.len(), 2);
    let told = asked[1].to_string();
    assert!(!told.contains("to myself") && !told.contains("not for you"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_there_is_one_answer() {
    let (mut town, llama) = town().await;
    town.llm.otherwise(|request| slowly(echo(request), Duration::from_millis(250)));
    let room = room(&town.anna, false, &[&llama]).await;
    town.anna.joined(&room, &llama).await;
    let points = ["journaled", "claimed", "shown", "queued", "sent", "answered"];
    for point in points {
        let folder = town.rig.path().to_str().unwrap().to_owned();
        town.rig.set("MATRIX_AGENT_CRASH_AT", &format!("{point}:{folder}"));
        tokio::task::block_in_place(|| wait("all is noted as sent", || is_settled(&town.rig)));
        drop(town.server.take());
        town.serve();
        town.anna.say(&room, &format!("llamabot: a question at {point}")).await;
        let mut server = town.server.take().unwrap();
        let status = tokio::task::block_in_place(|| server.died());
        assert_eq!(status.signal(), Some(9), "at {point}: {}", server.log());
        town.serve();
        answer(&town.anna, &room, &llama, &format!("heard: a question at {point}\n")).await;
    }
    let shown = town.anna.shown(&room);
    for point in points {
        let answers: Vec<_> = shown.iter().filter(|it| it.sender == llama && it.body.contains(point)).collect();
        assert_eq!(answers.len(), 1, "at {point}: {answers:#?}");
    }
    assert_eq!(shown.iter().filter(|it| it.sender == llama).count(), points.len(), "no draft is left: {shown:#?}");
}
