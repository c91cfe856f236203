//! Devices that nobody has signed: a homeserver can add one to anybody's account.

use std::sync::{Arc, Mutex};

use matrix_sdk::ruma::{OwnedRoomId, UserId};
use serde_json::Value;
use tokio::sync::Notify;

use crate::support::{
    bot::Town,
    person::Person,
    proxy::Fault,
    replies::Reply,
    rig::wait,
    scripted_llm::user_texts,
    seen::{Seal, Seen},
    synapse::Limits,
};

/// A reaction of the bot's that says that a message does not count.
fn refuses<'a>(town: &'a Town, room: &'a OwnedRoomId, asked: &'a str) -> impl Fn(&Seen) -> bool + 'a {
    move |event| {
        event.room == *room
            && event.kind == "m.reaction"
            && event.sender == town.bot
            && event.target() == asked
            && event.content["m.relates_to"]["key"] == "❌"
    }
}

/// Lets Anna sign another device of hers.
async fn sign(town: &Town, other: &Person) {
    let (anna, device) = (UserId::parse(&town.anna.id).unwrap(), other.client.device_id().unwrap());
    let encryption = town.anna.client.encryption();
    encryption.request_user_identity(&anna).await.unwrap();
    encryption.get_device(&anna, device).await.unwrap().expect("the device is known").verify().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_from_a_device_that_nobody_signed_is_dropped_and_told_and_never_runs() {
    let (mut town, proxy) = Town::proxied().await;
    town.llm.otherwise(|_| Reply::text("Done."));
    let room = town.room(true).await;
    let hello = town.anna.say(&room, "hello").await;
    town.replies(&hello).await;

    let other = Person::login(&town.synapse, "anna").await;
    // The homeserver keeps the message and tells it again before each later one.
    let events = format!("/rooms/join/{room}/timeline/events");
    let (device, kept) = (other.client.device_id().unwrap().to_string(), Arc::new(Mutex::new(None)));
    let keeps = kept.clone();
    proxy.change_syncs(move |sync| {
        let Some(events) = sync.pointer_mut(&events).and_then(Value::as_array_mut) else { return };
        let mut kept = keeps.lock().unwrap();
        if let Some(kept) = &*kept {
            events.insert(0, Value::clone(kept));
        } else {
            *kept = events.iter().find(|event| event["content"]["device_id"] == device.as_str()).cloned();
        }
    });
    let asked = other.say(&room, "do it").await;
    town.anna.wait_for("the refusal", refuses(&town, &room, &asked)).await;
    // Nor does that device get the key of an answer.
    let again = town.anna.say(&room, "hello again").await;
    let answer = town.replies(&again).await;
    let came = other.wait_for("the answer's event", |event| event.id == answer.id).await;
    assert_eq!(came.seal, Seal::Locked, "{came:?}");

    // Signed later, it may speak; what it has said before stays unsaid, also after a restart.
    sign(&town, &other).await;
    town.server.take().unwrap().kill();
    town.serve();
    let now = other.say(&room, "and now").await;
    town.replies(&now).await;
    assert!(kept.lock().unwrap().is_some());
    let told = town.llm.requests().iter().flat_map(user_texts).collect::<Vec<_>>().join("\n");
    assert!(!told.contains("do it") && told.contains("and now"), "{told}");
    assert!(town.log().contains("comes from a device that its owner has not signed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_a_moment_for_its_device_to_be_signed() {
    let town = Town::start().await;
    town.llm.otherwise(|request| Reply::text(&format!("You said: {}", user_texts(request).pop().unwrap())));
    let room = town.room(true).await;
    let other = Person::login(&town.synapse, "anna").await;
    let asked = other.say(&room, "in time").await;
    let waits = || town.log().contains("a message waits for somebody to vouch for its device");
    tokio::task::block_in_place(|| wait("the message waits", waits));
    sign(&town, &other).await;
    assert!(town.replies(&asked).await.body().contains("in time"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_lets_unsigned_devices_count() {
    let town = Town::prepared(Limits::Relaxed, |rig| rig.set("ALLOW_UNSIGNED_DEVICES", "true")).await;
    town.llm.otherwise(|_| Reply::text("Done."));
    let room = town.room(true).await;
    let other = Person::login(&town.synapse, "anna").await;
    let asked = other.say(&room, "do it").await;
    town.replies(&asked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_whose_own_device_is_unsigned_is_a_named_failure_of_doctor() {
    let (town, proxy) = Town::proxied().await;
    let doctor = || {
        let ran = tokio::task::block_in_place(|| town.rig.run(&["doctor"]));
        String::from_utf8(ran.stdout).unwrap()
    };
    let told = doctor();
    assert!(told.lines().any(|line| line.starts_with("✅ account") && line.contains("signed")), "{told}");
    let bot = town.bot.clone();
    let asked = Arc::new(Notify::new());
    let rung = asked.clone();
    proxy.rule(move |asked| {
        let (bot, rung) = (bot.clone(), rung.clone());
        asked.path.contains("/keys/query").then(|| {
            Fault::change(move |keys| {
                let devices = keys["device_keys"][&bot].as_object_mut().unwrap();
                for (device, keys) in devices.iter_mut() {
                    let own = format!("ed25519:{device}");
                    keys["signatures"][&bot].as_object_mut().unwrap().retain(|key, _: &mut Value| *key == own);
                }
                rung.notify_one();
            })
        })
    });
    let told = doctor();
    let line = told.lines().find(|line| line.starts_with("❌ account")).unwrap_or_else(|| panic!("{told}"));
    assert!(line.contains("not signed"), "{told}");
    asked.notified().await;
}
