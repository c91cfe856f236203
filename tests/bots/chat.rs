//! A chat bot on an account of its own, in real rooms: whom it answers, where, and what becomes of the rest.

use matrix_sdk::ruma::{OwnedRoomId, api::client::room::create_room::v3::Request};
use serde_json::json;

use super::{
    house::{CHATTING, serve_house},
    support::{
        bot::Town,
        person::Person,
        scripted_llm::{Reply, ScriptedLlm, user_texts},
        seen::Seen,
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

/// What the bot has answered to an event.
async fn answer(person: &Person, llama: &str, asked: &str) -> Seen {
    let fits = |it: &Seen| it.is_message() && it.sender == llama && it.reply_to() == asked;
    person.wait_after(asked, "the chat bot's answer", fits).await
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
    let asked = bert.say(&room, "llamabot: what is up?").await;
    let first = answer(&bert, &llama, &asked).await;
    assert!(first.body().contains("heard: @bert:localhost: what is up?"), "{first:?}");
    assert!(!first.body().contains("nothing for you"), "what does not call it is no part of the conversation");
    // By the account's name, in another case, and at the end.
    for words in ["@llama hello", "Hello, LLAMABOT!", "@llama:localhost: hello", "what does llamabot say?"] {
        let asked = anna.say(&room, words).await;
        assert!(answer(anna, &llama, &asked).await.body().contains("heard: "), "{words}");
    }
    let help = anna.say(&room, "@llama ?").await;
    assert!(answer(anna, &llama, &help).await.body().contains("Mention me and ask"));
    let reset = anna.say(&room, "llamabot reset").await;
    assert!(answer(anna, &llama, &reset).await.body().contains("forgotten"));
    let asked = anna.say(&room, "llamabot, and now?").await;
    let afresh = answer(anna, &llama, &asked).await;
    assert!(afresh.body().contains("heard: and now?\n"), "{afresh:?}");
    assert!(!anna.events().iter().any(|seen| seen.sender == llama && seen.reply_to() == ignored));
    let log = town.log();
    assert!(log.contains("a question") && !log.contains("what is up"), "{log}");
}
