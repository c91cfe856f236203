//! Rooms that the bot comes into, is thrown out of, and follows; what it may do there; what it shows while it works.

use std::sync::Arc;

use matrix_sdk::ruma::{OwnedRoomId, RoomId};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::{
    bot::Town,
    person::Person,
    proxy::Asked,
    replies::Reply,
    rig::wait,
    scripted_llm::{results, user_texts},
};

/// A model that writes a file when it is told to keep something, and else says what is in it.
pub(super) fn keeper(request: &Value) -> Reply {
    let texts = user_texts(request);
    let last = texts.last().map_or("", String::as_str);
    let messages = request["messages"].as_array().unwrap();
    match results(request).last() {
        Some(result) if messages.last().unwrap()["role"] == "tool" => Reply::text(&format!("It says: {result}")),
        _ if last.contains("keep") => {
            Reply::calls(&[("run_command", json!({"command": "echo treasure >> /workspace/x"}))])
        }
        _ => Reply::calls(&[("run_command", json!({"command": "cat /workspace/x || echo nothing"}))]),
    }
}

fn until(what: &str, holds: impl FnMut() -> bool) {
    tokio::task::block_in_place(|| wait(what, holds));
}

impl Town {
    /// Says something and returns the answer's text.
    async fn ask(&self, room: &RoomId, text: &str) -> String {
        let asked = self.anna.say(room, text).await;
        self.anna.answer_to(&asked).await.body().to_owned()
    }

    /// Changes a piece of a room's state.
    async fn changed(&self, room: &RoomId, kind: &str, change: impl FnOnce(&mut Value)) {
        let path = format!("/_matrix/client/v3/rooms/{room}/state/{kind}/");
        let mut content = self.anna.call(Method::GET, &path, None).await;
        change(&mut content);
        self.anna.state(room, kind, "", content).await;
    }

    /// How many answers the bot gave to what was asked.
    fn answers(&self, asked: &str) -> usize {
        let answers = |event: &&crate::support::seen::Seen| {
            event.sender == self.bot && event.is_message() && event.msgtype() == "m.text" && event.reply_to() == asked
        };
        self.anna.events().iter().filter(answers).count()
    }
}

/// Invites the bot again, and waits until it is there: by its log, for a room that one comes back to tells old joins anew.
async fn back(town: &Town, room: &OwnedRoomId) {
    let joins = || town.log().matches("rooms: joined inviter").count();
    let before = joins();
    town.anna.invite(room, &town.bot).await;
    until("the bot is back", || joins() > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_and_comes_back_finds_the_files_as_long_as_the_grace_lasts() {
    let mut town = Town::start().await;
    town.llm.otherwise(keeper);
    let bert = Person::new(&town.synapse, "bert").await;
    let room = town.room(false).await;
    town.ask(&room, "keep it").await;
    assert_eq!(town.rig.sandboxes(), (1, 1));
    town.changed(&room, "m.room.join_rules", |content| content["join_rule"] = "public".into()).await;

    for way in ["kick", "ban", "last listed"] {
        match way {
            "kick" => town.anna.kick(&room, &town.bot).await,
            "ban" => {
                town.anna.ban(&room, &town.bot).await;
                let bot = matrix_sdk::ruma::UserId::parse(&town.bot).unwrap();
                town.anna.room(&room).unban_user(&bot, None).await.unwrap();
            }
            _ => {
                bert.client.join_room_by_id(&room).await.unwrap();
                town.anna.joined(&room, &bert.id).await;
                town.anna.leave(&room).await;
                let gone = bert.member(&room, &town.anna.id, "leave").await;
                bert.wait_after(&gone.id, "the bot leaves", |event| {
                    event.raw["state_key"] == town.bot.as_str() && event.content["membership"] == "leave"
                })
                .await;
                town.anna.client.join_room_by_id(&room).await.unwrap();
                bert.leave(&room).await;
            }
        }
        until(way, || town.rig.sandboxes() == (0, 1));
        back(&town, &room).await;
        let answer = town.ask(&room, "read it").await;
        assert!(answer.contains("treasure"), "{way}: {answer}");
    }

    // A day and a bit later.
    town.anna.kick(&room, &town.bot).await;
    until("the container is gone", || town.rig.sandboxes() == (0, 1));
    town.server.take().unwrap().kill();
    let store = rusqlite::Connection::open(town.rig.database()).unwrap();
    assert_eq!(store.execute("UPDATE rooms SET missed = missed - 25 * 3600000", []).unwrap(), 1);
    drop(store);
    town.serve();
    until("the files are gone", || town.rig.sandboxes() == (0, 0));
    back(&town, &room).await;
    let requests = town.llm.requests().len();
    let answer = town.ask(&room, "read it").await;
    assert!(answer.contains("nothing") && !answer.contains("treasure"), "{answer}");
    assert_eq!(user_texts(&town.llm.requests()[requests]).len(), 1, "the conversation is gone, too");
    // A room in which it is alone is nothing to the bot either.
    town.anna.leave(&room).await;
    until("the container is gone", || town.rig.sandboxes() == (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_room_takes_sandbox_and_conversation_along() {
    let town = Town::start().await;
    town.llm.otherwise(keeper);
    let mut room = town.room(false).await;
    town.ask(&room, "keep it").await;
    for public in [true, false] {
        let rule = if public { "public" } else { "invite" };
        town.changed(&room, "m.room.join_rules", |content| content["join_rule"] = rule.into()).await;
        let next = town.anna.upgrade(&room).await;
        if !public {
            until("it needs an invite", || town.log().contains("cannot be joined without an invite"));
            town.anna.invite(&next, &town.bot).await;
        }
        town.anna.joined(&next, &town.bot).await;
        let answer = town.ask(&next, "read it").await;
        assert!(answer.contains("treasure"), "{answer}");
        let texts = user_texts(town.llm.requests().last().unwrap());
        assert!(texts.iter().any(|text| text.contains("keep it")), "{texts:?}");
        assert_eq!(town.rig.sandboxes(), (1, 1), "the same sandbox");
        // The old room is nothing to anybody any more; what is in the new one stays.
        town.anna.leave(&room).await;
        let (old, log) = (room.to_string(), || town.log());
        until("the bot leaves the old room", || {
            log().lines().any(|line| line.contains("the bot is no longer in this room") && line.contains(&old))
        });
        assert!(town.ask(&next, "read it").await.contains("treasure"));
        room = next;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_in_a_room_in_which_the_bot_may_not_speak_is_answered_once_it_may() {
    let town = Town::start().await;
    town.llm.when("speak").reply_text("I may.");
    let room = town.room(false).await;
    town.changed(&room, "m.room.power_levels", |content| content["events_default"] = 50.into()).await;
    let asked = town.anna.say(&room, "speak").await;
    let refused = || town.log().matches("a message could not be sent; it is tried again").count();
    until("the refusal is told", || refused() == 1);
    // Tried in vain a few times.
    until("it is tried again", || town.log().contains("a message still cannot be sent"));
    town.changed(&room, "m.room.power_levels", |content| content["events_default"] = 0.into()).await;
    assert!(town.anna.answer_to(&asked).await.body().contains("I may."));
    until("it is told", || town.log().contains("messages are sent to this room again"));
    assert_eq!((refused(), town.answers(&asked)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_marked_as_read_and_the_bot_types_while_it_works() {
    let (town, proxy) = Town::proxied().await;
    let gate = Arc::new(Notify::new());
    town.llm.when("work").after(&gate).reply_text("Done.");
    let room = town.room(false).await;
    let asked = town.anna.say(&room, "work").await;
    let types = |event: &crate::support::seen::Seen| {
        let typing = event.content["user_ids"].as_array();
        (event.kind == "m.typing").then(|| typing.is_some_and(|ids| ids.iter().any(|id| *id == town.bot.as_str())))
    };
    town.anna
        .wait_for("the receipt", |event| {
            event.kind == "m.receipt" && event.content[&asked]["m.read"][&town.bot].is_object()
        })
        .await;
    town.anna.wait_for("typing", |event| types(event) == Some(true)).await;
    gate.notify_one();
    town.anna.answer_to(&asked).await;
    let last = || town.anna.events().iter().rev().find_map(types);
    until("typing ends", || last() == Some(false));
    // By the bot's word, not by the homeserver's patience.
    let ends = |asked: &Asked| asked.path.contains("/typing/") && asked.body.windows(5).any(|word| word == b"false");
    proxy.asked(1, ends).await;
}
