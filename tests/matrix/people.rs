//! Who may: those who are listed, each for their own words; everybody else is air.

use std::sync::Arc;

use matrix_sdk::ruma::{OwnedRoomId, api::client::room::create_room};
use serde_json::json;
use tokio::sync::Notify;

use crate::support::{
    bot::Town,
    person::Person,
    replies::Reply,
    scripted_llm::{results, user_texts},
    seen::Seen,
    synapse::Limits,
};

/// Lets somebody into Anna's room, who may do there whatever she may.
async fn admin(town: &Town, room: &OwnedRoomId, person: &Person) {
    town.anna.invite(room, &person.id).await;
    person.accept(room).await;
    town.anna.joined(room, &person.id).await;
    let levels = json!({"users": {&person.id: 100}});
    town.anna.state(room, "m.room.power_levels", "", levels).await;
}

/// What somebody tries who would like to have the bot, and is not to: all of it must be nothing.
async fn meddle(room: &OwnedRoomId, person: &Person, asked: &str, progress: &str) {
    person.edit(room, asked, "meddled with").await;
    person.redact(room, asked).await;
    person.react(room, progress, "👍").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_listed_people_command_and_each_only_their_own_words() {
    let town = Town::prepared(Limits::Relaxed, |rig| {
        let listed = format!("{},@bert:localhost", rig.get("ALLOWED_USERS").unwrap());
        rig.set("ALLOWED_USERS", &listed);
    })
    .await;
    let (bert, carl) = tokio::join!(Person::new(&town.synapse, "bert"), Person::new(&town.synapse, "carl"));
    let (anna, room) = (&town.anna, town.room(false).await);
    admin(&town, &room, &carl).await;

    let gate = Arc::new(Notify::new());
    town.llm
        .when("the work")
        .reply_calls(&[("run_command", json!({"command": "echo begun"}))])
        .after(&gate)
        .reply_text("All is done.");
    let asked = anna.say(&room, "the work").await;
    town.llm.arrived(2).await;
    let working = |event: &Seen| event.sender == town.bot && event.msgtype() == "m.notice";
    let progress = anna.wait_after(&asked, "the progress message", working).await;

    meddle(&room, &carl, &asked, &progress.id).await;
    carl.react(&room, &progress.id, "🛑").await;
    for words in ["carl wants more", "!stop", "!new"] {
        carl.say(&room, words).await;
    }
    let content = json!({"msgtype": "m.notice", "body": "a notice to nobody"});
    anna.send(&room, "m.room.message", content).await;
    let quote = anna.say(&room, "> carl: a quote of mine\n\ngo on").await;
    town.has_read(&room, &quote).await;
    gate.notify_one();
    assert!(anna.answer_to(&asked).await.body().contains("All is done."));

    town.llm.otherwise(|_| Reply::text("You are welcome."));
    let thanks = anna.say(&room, "thanks").await;
    anna.answer_to(&thanks).await;
    let texts = user_texts(town.llm.requests().last().unwrap());
    assert!(texts.iter().any(|text| text.contains("carl: a quote of mine")), "{texts:#?}");
    for words in ["carl wants", "meddled", "a notice", "taken", "!stop"] {
        assert!(!texts.join("\n").contains(words), "{words} reached the model: {texts:#?}");
    }
    let carls: Vec<_> = anna.events().into_iter().filter(|it| it.sender == carl.id).map(|it| it.id).collect();
    assert!(!anna.events().iter().any(|it| it.sender == town.bot && carls.contains(&it.reply_to().to_owned())));

    // One who is listed may steer and stop, and not speak in somebody else's name.
    admin(&town, &room, &bert).await;
    let gate = Arc::new(Notify::new());
    let command = [("run_command", json!({"command": "echo more"}))];
    town.llm.when("more work").reply_calls(&command).after(&gate).reply_calls(&command).reply(Reply::Hang);
    let before = town.llm.requests().len();
    let asked = anna.say(&room, "more work").await;
    town.llm.arrived(before + 2).await;
    let progress = anna.wait_after(&asked, "the progress message", working).await;
    meddle(&room, &bert, &asked, &progress.id).await;
    let steer = bert.say(&room, "bert joins in").await;
    town.has_read(&room, &steer).await;
    gate.notify_one();
    let request = town.llm.arrived(before + 3).await;
    let ran = results(&request).iter().filter(|result| result.contains("more")).count();
    assert_eq!(ran, 2, "somebody else's redaction stopped the turn: {request:#}");
    let told = user_texts(&request).join("\n");
    assert!(told.contains("@bert:localhost") && told.contains("bert joins in") && !told.contains("meddled"), "{told}");
    bert.react(&room, &progress.id, "🛑").await;
    assert!(anna.answer_to(&asked).await.body().contains("Stopped"));

    // An invite counts for as much as who sent it.
    let trap = carl.create_room(false, &[&town.bot]).await;
    carl.member(&trap, &town.bot, "leave").await;
    let quiet = carl.create_room(false, &[&anna.id]).await;
    anna.accept(&quiet).await;
    anna.invite(&quiet, &town.bot).await;
    town.greeted(&quiet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_server_may_be_listed_and_rooms_may_be_few_and_a_name_is_only_a_name() {
    let town = Town::prepared(Limits::Relaxed, |rig| {
        rig.set("ALLOWED_USERS", "@*:localhost");
        rig.set("ALLOWED_ROOMS", "#work:localhost");
    })
    .await;
    town.llm.otherwise(|_| Reply::text("Here you are."));
    let other = town.anna.create_room(false, &[&town.bot]).await;
    town.anna.member(&other, &town.bot, "leave").await;

    let bert = Person::new(&town.synapse, "bert").await;
    let name = "<b onclick=x>Bert</b>\n\n@room [x](https://evil.example) & `co`";
    bert.client.account().set_display_name(Some(name)).await.unwrap();
    let mut request = create_room::v3::Request::new();
    request.room_alias_name = Some("work".to_owned());
    request.invite = vec![town.bot.as_str().try_into().unwrap(), town.anna.id.as_str().try_into().unwrap()];
    let room = bert.client.create_room(request).await.unwrap().room_id().to_owned();
    town.anna.accept(&room).await;
    bert.joined(&room, &town.bot).await;
    let asked = bert.say(&room, "hello").await;
    let answer = bert.answer_to(&asked).await;
    assert!(answer.mentions(&bert.id), "{answer:?}");
    let html = answer.content["formatted_body"].as_str().unwrap();
    let pill = "<p><a href=\"https://matrix.to/#/@bert:localhost\">&lt;b onclick=x&gt;Bert&lt;/b&gt; ";
    assert!(html.starts_with(pill) && html.matches("<a ").count() == 1, "{html}");
    for text in [html, answer.body()] {
        assert!(!text.contains("@room") && text.contains("Here you are."), "{text}");
    }
    assert_eq!(answer.body().lines().next().unwrap().matches("Bert").count(), 1, "the name is one line: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_s_day_ends_in_all_rooms_and_only_an_administrator_makes_it_longer() {
    let town = Town::prepared(Limits::Relaxed, |rig| {
        let listed = format!("{},@ben:localhost", rig.get("ALLOWED_USERS").unwrap());
        rig.set("ALLOWED_USERS", &listed);
        rig.set("USER_DAILY_TOKENS", "100");
    })
    .await;
    let ben = Person::new(&town.synapse, "ben").await;
    let (anna, room, other) = (&town.anna, town.room(false).await, town.room(false).await);
    for room in [&room, &other] {
        anna.invite(room, &ben.id).await;
        ben.accept(room).await;
        anna.joined(room, &ben.id).await;
    }
    town.llm.otherwise(|_| Reply::text("Yes."));
    let asks = async |person: &Person, room: &OwnedRoomId, words: &str| {
        let asked = person.say(room, words).await;
        person.answer_to(&asked).await.body().to_owned()
    };
    let is_told = async |person: &Person, words: &str| {
        let asked = person.say(&room, words).await;
        person.wait_after(&asked, "the reply", |event| event.sender == town.bot).await.body().to_owned()
    };
    // One question of 110 tokens goes past the end, once.
    assert!(asks(&ben, &room, "one").await.contains("Yes."));
    for room in [&room, &other] {
        let over = asks(&ben, room, "two").await;
        for part in
            ["@ben:localhost", "has used the 100 tokens that a person has today", "@anna:localhost", "!budget each 200"]
        {
            assert!(over.contains(part), "{part:?} is not in {over}");
        }
    }
    assert!(asks(anna, &room, "three").await.contains("Yes."), "another person goes on");
    let denied = is_told(&ben, "!budget each 1000").await;
    assert!(denied.contains("Only") && denied.contains("@anna:localhost"), "{denied}");
    assert!(asks(&ben, &room, "four").await.contains("has used the 100 tokens"));
    let allowed = is_told(anna, "!budget each 1000").await;
    assert!(allowed.contains("1k") && allowed.contains("@ben:localhost"), "{allowed}");
    assert!(asks(&ben, &other, "go on").await.contains("Yes."));
    assert_eq!(town.llm.requests().len(), 3);
}
