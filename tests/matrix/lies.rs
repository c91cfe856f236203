//! A homeserver that lies: answers with malformed parts, ciphertexts told twice, encryption that is hidden, rooms that say
//! they follow another one.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use matrix_sdk::ruma::{OwnedRoomId, RoomId};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    bot::Town,
    person::Person,
    proxy::{Asked, Fault, Proxy},
    replies::Reply,
    rig::wait,
    scripted_llm::{results, user_texts},
    seen::{Seal, Seen},
    synapse::Limits,
};

/// A town whose bot reaches its homeserver through a proxy.
async fn proxied() -> (Town, Proxy) {
    let mut proxy = None;
    let town = Town::prepared(Limits::Relaxed, |rig| proxy = Some(Proxy::before(rig))).await;
    (town, proxy.unwrap())
}

fn until(what: &str, holds: impl FnMut() -> bool) {
    tokio::task::block_in_place(|| wait(what, holds));
}

/// The events of a room in an answer of `/sync`.
fn events<'a>(sync: &'a mut Value, room: &RoomId) -> Option<&'a mut Vec<Value>> {
    sync.pointer_mut(&format!("/rooms/join/{room}/timeline/events"))?.as_array_mut()
}

/// Puts something into an answer of `/sync`; `-` is the end of a list.
fn put(sync: &mut Value, at: &[&str], wrong: &Value) {
    let mut place = sync;
    for name in at {
        if *name == "-" {
            if !place.is_array() {
                *place = json!([]);
            }
            let list = place.as_array_mut().unwrap();
            list.push(Value::Null);
            place = list.last_mut().unwrap();
        } else {
            if !place.is_object() {
                *place = json!({});
            }
            place = &mut place[*name];
        }
    }
    *place = wrong.clone();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_part_of_the_homeservers_answer_costs_no_message() {
    let (mut town, proxy) = proxied().await;
    town.llm.otherwise(|_| Reply::text("Heard."));
    let other = "!other:localhost";
    for encrypted in [false, true] {
        let room = town.room(encrypted).await;
        let here = room.to_string();
        for (at, wrong) in [
            (vec!["account_data", "events", "-"], json!({"content": {"of": "no type"}})),
            (vec!["account_data", "events", "-"], json!(null)),
            (vec!["to_device", "events", "-"], json!("no event")),
            (vec!["to_device", "events", "-"], json!({"type": 7, "sender": [], "content": null})),
            (vec!["presence"], json!([])),
            (vec!["device_lists", "changed", "-"], json!("no user")),
            (vec!["device_one_time_keys_count", "signed_curve25519"], json!("fifty")),
            (vec!["rooms", "join", "no room"], json!({})),
            (vec!["rooms", "join", other, "timeline"], json!({"events": 5})),
            (vec!["rooms", "invite", other], json!("nobody")),
            (vec!["rooms", "join", &here, "unread_notifications", "notification_count"], json!(-1)),
            (vec!["rooms", "join", &here, "account_data", "events", "-"], json!({"content": {}})),
            (vec!["rooms", "join", &here, "state", "events", "-"], json!({"type": "m.room.member", "content": 3})),
            (vec!["rooms", "join", &here, "ephemeral", "events"], json!({})),
            (vec!["rooms", "join", &here, "timeline", "events", "-"], json!(["no event"])),
            (vec!["rooms", "join", &here, "summary"], json!(8)),
        ] {
            let (at, told) = (at.iter().map(ToString::to_string).collect::<Vec<_>>(), at.join("/"));
            proxy.rule(move |asked| {
                let (at, wrong) = (at.clone(), wrong.clone());
                let spoil = move |sync: &mut Value| {
                    if sync["next_batch"].is_string() {
                        put(sync, &at.iter().map(String::as_str).collect::<Vec<_>>(), &wrong);
                    }
                };
                asked.is_sync().then(|| Fault::change(spoil))
            });
            let asked = town.anna.say(&room, &format!("hello to {told}")).await;
            town.replies(&asked).await;
        }
        let log = town.log();
        let times = log.matches("parts of the homeserver's answer are malformed").count();
        assert!((1..=4).contains(&times), "it is told, and not with each answer: {times}");
    }
    // Also at a start, and in a login that begins with nothing.
    town.server.take().unwrap().kill();
    std::fs::remove_dir_all(town.rig.path().join("s")).unwrap();
    proxy.rule(|asked| {
        let spoil = |sync: &mut Value| put(sync, &["account_data", "events", "-"], &json!({"content": {}}));
        asked.is_sync().then(|| Fault::change(spoil))
    });
    town.serve();
    let room = town.room(false).await;
    let asked = town.anna.say(&room, "hello again").await;
    town.replies(&asked).await;
}

/// What a homeserver does that tells an encrypted message once more.
#[derive(Default)]
struct Replay {
    /// The message, once it has come.
    message: Option<Value>,
    /// How often it is told from now on, each time under a new id.
    times: usize,
    told: usize,
}

impl Replay {
    fn copy(&mut self) -> Option<Value> {
        let mut copy = self.message.clone().filter(|_| self.times > 0)?;
        self.times -= 1;
        self.told += 1;
        copy["event_id"] = format!("$told-again-{}", self.told).into();
        Some(copy)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_ciphertext_under_a_new_event_id_runs_once() {
    let (mut town, proxy) = proxied().await;
    town.llm.otherwise(|_| Reply::text("Done."));
    let room = town.room(true).await;
    let hello = town.anna.say(&room, "hello").await;
    town.replies(&hello).await;

    let replay = Arc::new(Mutex::new(Replay::default()));
    let (here, anna, shared) = (room.clone(), town.anna.id.clone(), replay.clone());
    let gap = Arc::new(AtomicUsize::new(0));
    let cut = gap.clone();
    proxy.rule(move |asked| {
        let (here, anna, shared, cut) = (here.clone(), anna.clone(), shared.clone(), cut.clone());
        if asked.path.contains("/messages") {
            return Some(Fault::change(move |page| {
                let copy = shared.lock().unwrap().copy();
                page["chunk"].as_array_mut().unwrap().extend(copy);
            }));
        }
        asked.is_sync().then(|| {
            Fault::change(move |sync| {
                let Some(events) = events(sync, &here) else { return };
                let mut replay = shared.lock().unwrap();
                let sealed = |event: &&Value| event["type"] == "m.room.encrypted" && event["sender"] == anna.as_str();
                let Some(came) = events.iter().find(sealed).cloned() else { return };
                if replay.message.is_none() {
                    replay.message = Some(came);
                } else if cut.load(Ordering::Relaxed) == 0 {
                    if let Some(copy) = replay.copy() {
                        events.insert(0, copy);
                    }
                } else {
                    sync["rooms"]["join"][here.as_str()]["timeline"]["limited"] = true.into();
                }
            })
        })
    });
    let once = town.anna.say(&room, "run it once").await;
    town.replies(&once).await;
    let ran = |town: &Town| {
        let told = |request: &&Value| user_texts(request).last().is_some_and(|text| text.contains("run it once"));
        town.llm.requests().iter().filter(told).count()
    };
    assert_eq!(ran(&town), 1);

    for way in ["at once", "after !new", "after a restart", "in the history"] {
        match way {
            "after !new" => {
                let new = town.anna.say(&room, "!new").await;
                town.replies(&new).await;
            }
            "after a restart" => {
                town.server.take().unwrap().kill();
                town.serve();
            }
            "in the history" => gap.store(1, Ordering::Relaxed),
            _ => {}
        }
        let told = replay.lock().unwrap().told;
        replay.lock().unwrap().times = 1;
        let asked = town.anna.say(&room, &format!("something else, {way}")).await;
        town.replies(&asked).await;
        let barrier = town.anna.say(&room, "and now?").await;
        town.replies(&barrier).await;
        assert_eq!(replay.lock().unwrap().told, told + 1, "{way}");
        assert_eq!(ran(&town), 1, "{way}");
        let texts = user_texts(town.llm.requests().last().unwrap()).join("\n");
        assert!(texts.matches("run it once").count() <= 1, "{way}: {texts}");
    }
    assert!(town.log().contains("told again under another id"), "the operator is told");
}
