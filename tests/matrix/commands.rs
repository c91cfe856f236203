//! Commands, and questions that wait for their turn: three rooms, one place.

use std::sync::Arc;

use matrix_sdk::ruma::OwnedRoomId;
use serde_json::json;
use tokio::sync::Notify;

use crate::support::{
    bot::Town,
    replies::Reply,
    scripted_llm::user_texts,
    seen::{Seen, Shown},
    synapse::Limits,
};

impl Town {
    /// Says something and returns what it is answered.
    pub(crate) async fn told(&self, room: &OwnedRoomId, text: &str) -> String {
        let asked = self.anna.say(room, text).await;
        self.replies(&asked).await.body().to_owned()
    }

    /// Waits for the message that says which place a question has; returns how it came.
    async fn place(&self, asked: &str, place: &str) -> Seen {
        self.anna.wait_after(asked, place, |event| event.sender == self.bot && event.body() == place).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_is_answered_whatever_stands_before_it() {
    let town = Town::start().await;
    let room = town.room(false).await;
    for (command, answer) in [
        ("!help", "`!cost` shows"),
        ("  !HELP ", "`!cost` shows"),
        ("!status", "Nothing is running."),
        ("!stop", "Nothing is running."),
        ("!model", "The model is `openai/scripted`"),
        ("!cost", "No tokens were used"),
        ("!sandbox", "no sandbox"),
        ("!new", "A new conversation."),
        ("!frobnicate", "I know no command `!frobnicate`."),
        ("bot: !model", "The model is"),
        ("@bot:localhost !model", "The model is"),
        ("!Model.", "The model is"),
        ("! Stop", "Nothing is running."),
        ("/stop", "Nothing is running."),
        ("\u{200b}!stop!\u{a0}", "Nothing is running."),
        ("!stop jobs", "Nothing runs in the background."),
    ] {
        let told = town.told(&room, command).await;
        assert!(told.contains(answer), "{command}: {told}");
    }
    let pill = json!({
        "msgtype": "m.text", "body": "The Bot: !help", "format": "org.matrix.custom.html",
        "formatted_body": format!("<a href=\"https://matrix.to/#/{}\">The Bot</a>: !help", town.bot),
        "m.mentions": {"user_ids": [town.bot]},
    });
    let asked = town.anna.send(&room, "m.room.message", pill).await;
    assert!(town.replies(&asked).await.body().contains("`!cost` shows"));
    assert!(town.llm.requests().is_empty(), "a command needs no model");

    town.llm.otherwise(|_| Reply::text("Yes."));
    town.told(&room, "!important: remember the blue door").await;
    assert!(town.told(&room, "!cost").await.contains("100 in (0 % cached), 10 out, 1 request"));
    town.told(&room, "!new").await;
    town.told(&room, "what do you remember?").await;
    let texts = user_texts(town.llm.requests().last().unwrap());
    assert!(!texts.join(" ").contains("blue door"), "{texts:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_told_their_place_and_may_think_again() {
    let town = Town::prepared(Limits::Relaxed, |rig| rig.set("MAX_CONCURRENT_TURNS", "1")).await;
    town.llm.otherwise(|request| Reply::text(&format!("You said: {}", user_texts(request).pop().unwrap())));
    let [busy, second, third] = [town.room(false).await, town.room(false).await, town.room(false).await];
    let anna = &town.anna;
    let root = anna.say(&second, "hello").await;
    anna.answer_to(&root).await;

    let gate = Arc::new(Notify::new());
    town.llm.when("hold the only place").after(&gate).reply_text("It was free.");
    let held = anna.say(&busy, "hold the only place").await;
    town.llm.arrived(2).await;
    let asked = anna.say_in_thread(&second, &root, "the second question").await;
    assert_eq!(town.place(&asked, "⏳ next in line").await.target(), root, "the place is told in the thread");
    let last = anna.say(&third, "the third question").await;
    let waits = town.place(&last, "⏳ 1 before this one").await;
    assert_eq!(waits.reply_to(), last, "where several wait, each sees which place is whose");

    assert!(town.told(&busy, "!status").await.contains("Working on “hold the only place” for 0:"));
    assert!(town.told(&second, "!status").await.contains("Waiting with “the second question”"));
    assert!(town.told(&third, "!status").await.contains("1 before it."));

    // Taken back, it goes, and the others move up.
    anna.redact(&second, &asked).await;
    let stopped = |shown: &[Shown]| shown.iter().any(|it| it.body.contains("stopped"));
    anna.shows(&second, "the end of what was taken back", stopped).await;
    anna.shows(&third, "the better place", |shown| {
        shown.iter().any(|it| it.id == waits.id && it.body == "⏳ next in line")
    })
    .await;
    // Changed, it runs as it was changed.
    let edit = anna.edit(&third, &last, "the changed question").await;
    town.has_read(&third, &edit).await;
    let again = anna.say(&second, "once more").await;
    town.place(&again, "⏳ 1 before this one").await;
    let stopped = anna.say(&busy, "!stop").await;
    town.has_read(&busy, &stopped).await;
    assert!(town.replies(&held).await.body().contains("Stopped"));

    assert!(town.replies(&last).await.body().contains("You said: the changed question"));
    assert!(town.replies(&again).await.body().contains("You said: once more"));
    let asked: Vec<_> = town.llm.requests().iter().map(|it| user_texts(it).pop().unwrap()).collect();
    assert_eq!(asked, ["hello", "hold the only place", "the changed question", "once more"]);
}
