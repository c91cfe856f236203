//! Question and answer, and what the room sees meanwhile.

use std::sync::Arc;

use serde_json::json;
use tokio::sync::Notify;

use crate::support::{
    bot::Town,
    person::Person,
    replies::Reply,
    scripted_llm::{results, user_texts},
    seen::Shown,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_is_followed_by_one_greeting_and_a_question_by_one_answer_that_notifies() {
    let town = Town::start().await;
    town.llm
        .when("work")
        .reply_calls(&[("run_command", json!({"command": "echo done > /workspace/x; cat /workspace/x"}))])
        .reply_text("It is **done**.");
    let room = town.room(false).await;
    let asked = town.anna.say(&room, "work").await;
    let answer = town.anna.answer_to(&asked).await;
    assert!(answer.body().contains("It is **done**."), "{answer:?}");
    assert!(answer.content["formatted_body"].as_str().unwrap().contains("<strong>done</strong>"), "{answer:?}");
    assert_eq!(answer.msgtype(), "m.text");
    assert!(results(&town.llm.requests()[1])[0].contains("done"));

    let shown = town
        .anna
        .shows(&room, "the end of the progress message", |shown| {
            shown.iter().any(|message| message.body.contains("✓ done"))
        })
        .await;
    let bots: Vec<_> = shown.iter().filter(|message| message.sender == town.bot).collect();
    assert_eq!(bots.len(), 3, "a greeting, a progress message, an answer: {bots:#?}");
    assert_eq!((bots[0].msgtype.as_str(), bots[1].msgtype.as_str()), ("m.notice", "m.notice"));
    assert!(bots[1].body.contains("1 tool"), "{bots:#?}");
    town.anna.unread_is(&room, (1, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quick_answer_leaves_no_progress_message_behind() {
    let town = Town::start().await;
    town.llm.when("hi").reply_text("Hello Anna.");
    let room = town.room(false).await;
    let asked = town.anna.say(&room, "hi").await;
    town.anna.answer_to(&asked).await;
    // What comes next shows that nothing came between.
    let asked = town.anna.say(&room, "!help").await;
    town.anna.answer_to(&asked).await;
    let count = town.anna.shown(&room).iter().filter(|message| message.sender == town.bot).count();
    assert_eq!(count, 3, "a greeting and two answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_during_work_steers_it_and_a_reaction_shows_that_it_was_taken() {
    let town = Town::start().await;
    let gate = Arc::new(Notify::new());
    town.llm
        .when("begin")
        .after(&gate)
        .reply_calls(&[("run_command", json!({"command": "true"}))])
        .reply_text("Begun, in blue.");
    let room = town.room(false).await;
    let asked = town.anna.say(&room, "begin").await;
    town.llm.arrived(1).await;
    let steer = town.anna.say(&room, "in blue please").await;
    let is_taken = |shown: &[Shown]| {
        shown.iter().any(|message| message.id == steer && message.reactions.contains(&(town.bot.clone(), "👀".into())))
    };
    // What comes next shows that nothing came between.
    let asked_more = town.anna.say(&room, "!help").await;
    town.anna.answer_to(&asked_more).await;
    assert!(!is_taken(&town.anna.shown(&room)), "it waits for the model");
    gate.notify_one();
    town.anna.shows(&room, "the reaction", is_taken).await;
    assert!(town.anna.answer_to(&asked).await.body().contains("in blue"));
    let texts = user_texts(town.llm.requests().last().unwrap());
    assert!(texts.iter().any(|text| text.contains("in blue please")), "{texts:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_by_word_and_one_by_reaction_end_the_turn() {
    let town = Town::start().await;
    town.llm.otherwise(|_| Reply::calls(&[("run_command", json!({"command": "sleep 100"}))]));
    let room = town.room(false).await;
    for by_word in [true, false] {
        let asked = town.anna.say(&room, "sleep").await;
        let progress = town
            .anna
            .wait_after(&asked, "the progress message", |event| {
                event.sender == town.bot && event.body().contains("sleep 100")
            })
            .await;
        let progress = if progress.relation() == "m.replace" { progress.target().to_owned() } else { progress.id };
        if by_word {
            town.anna.say(&room, "!stop").await;
        } else {
            // Its answer comes behind the progress message, of which the bot knows then which one it is.
            let status = town.anna.say(&room, "!status").await;
            town.replies(&status).await;
            town.anna.react(&room, &progress, "🛑").await;
        }
        let answer = town.anna.answer_to(&asked).await;
        assert!(answer.body().contains("Stopped"), "{answer:?}");
        town.anna
            .shows(&room, "the end of the progress message", |shown| {
                shown.iter().any(|message| message.id == progress && message.body.contains("stopped"))
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_room_is_answered_encrypted_without_a_red_shield() {
    let town = Town::start().await;
    town.llm.when("secret").reply_calls(&[("run_command", json!({"command": "echo kept"}))]).reply_text("It is kept.");
    let room = town.room(true).await;
    let asked = town.anna.say(&room, "secret").await;
    let answer = town.anna.answer_to(&asked).await;
    assert!(answer.body().contains("It is kept."));
    let plain = town
        .anna
        .send_plain(&room, "m.room.message", json!({"msgtype": "m.text", "body": "secret, in the clear"}))
        .await;
    let again = town.anna.say(&room, "!help").await;
    town.anna.answer_to(&again).await;
    for event in town.anna.events() {
        if event.sender == town.bot && event.is_message() {
            assert!(matches!(event.seal, crate::support::seen::Seal::Opened { shield: false }), "{event:?}");
        }
        assert_ne!(event.reply_to(), plain, "a command in the clear was answered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_mentions_who_asked_only_where_others_are() {
    let town = Town::start().await;
    town.llm.otherwise(|_| Reply::text("Here you are."));
    let carl = Person::new(&town.synapse, "carl").await;
    for encrypted in [false, true] {
        let room = town.room(encrypted).await;
        let between_two = town.anna.say(&room, "just for me").await;
        let answer = town.replies(&between_two).await;
        assert_eq!(answer.content["m.mentions"], json!({}), "{answer:?}");
        let html = answer.content["formatted_body"].as_str().unwrap();
        assert!(answer.body().starts_with("Here you are.") && !html.contains("matrix.to"), "{answer:?}");

        town.anna.invite(&room, &carl.id).await;
        let invited = town.anna.say(&room, "nobody has come yet").await;
        assert!(!town.replies(&invited).await.mentions(&town.anna.id));
        carl.accept(&room).await;
        town.anna.joined(&room, &carl.id).await;
        let among_others = town.anna.say(&room, "for all to see").await;
        let answer = town.replies(&among_others).await;
        assert!(answer.mentions(&town.anna.id) && answer.body().starts_with("anna: Here"), "{answer:?}");

        carl.leave(&room).await;
        town.anna.member(&room, &carl.id, "leave").await;
        let alone_again = town.anna.say(&room, "and now").await;
        assert!(!town.replies(&alone_again).await.mentions(&town.anna.id));
    }
}
