//! A homeserver that lies: answers with malformed parts, ciphertexts told twice, encryption that is hidden, rooms that say
//! they follow another one.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use matrix_sdk::ruma::{OwnedRoomId, RoomId};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    places::keeper,
    support::{
        bot::Town,
        person::Person,
        proxy::{Asked, Fault, Proxy},
        replies::Reply,
        rig::wait,
        scripted_llm::user_texts,
        seen::{Seal, Seen},
        synapse::Limits,
    },
};

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
    let (mut town, proxy) = Town::proxied().await;
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
            proxy.change_syncs(move |sync| {
                if sync["next_batch"].is_string() {
                    put(sync, &at.iter().map(String::as_str).collect::<Vec<_>>(), &wrong);
                }
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
    for folder in ["matrix", "secrets"] {
        std::fs::remove_dir_all(town.rig.path().join("s").join(folder)).unwrap();
    }
    proxy.change_syncs(|sync| put(sync, &["account_data", "events", "-"], &json!({"content": {}})));
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
    let (mut town, proxy) = Town::proxied().await;
    town.llm.otherwise(|_| Reply::text("Done."));
    let room = town.room(true).await;
    let hello = town.anna.say(&room, "hello").await;
    town.replies(&hello).await;

    let replay = Arc::new(Mutex::new(Replay::default()));
    let (here, anna, shared) = (room.clone(), town.anna.id.clone(), replay.clone());
    let gap = Arc::new(AtomicUsize::new(0));
    let cut = gap.clone();
    let paged = replay.clone();
    proxy.rule(move |asked| {
        let paged = paged.clone();
        asked.path.contains("/messages").then(|| {
            Fault::change(move |page| {
                let copy = paged.lock().unwrap().copy();
                page["chunk"].as_array_mut().unwrap().extend(copy);
            })
        })
    });
    proxy.change_syncs(move |sync| {
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

/// Lets somebody whom the bot does not list into Anna's room, who may do there whatever she may.
async fn admin(town: &Town, room: &OwnedRoomId, person: &Person) {
    town.anna.invite(room, &person.id).await;
    person.accept(room).await;
    town.anna.joined(room, &person.id).await;
    town.anna.state(room, "m.room.power_levels", "", json!({"users": {&person.id: 100}})).await;
    let told = |event: &Seen| event.kind == "m.room.power_levels" && event.content["users"][&person.id] == 100;
    person.wait_for("the rights", told).await;
}

/// Makes a room that claims to follow another one, which says so too.
async fn usurp(town: &Town, old: &OwnedRoomId, mallory: &Person) -> OwnedRoomId {
    let new = successor(town, old, mallory, json!({"preset": "public_chat", "invite": [town.anna.id]})).await;
    mallory.joined(&new, &town.bot).await;
    new
}

/// The same, made in a way of its own, and the bot need not be in it.
async fn successor(town: &Town, old: &OwnedRoomId, mallory: &Person, mut made: Value) -> OwnedRoomId {
    made["creation_content"] = json!({"predecessor": {"room_id": old, "event_id": "$any"}});
    let made = mallory.call(Method::POST, "/_matrix/client/v3/createRoom", Some(made)).await;
    let new = OwnedRoomId::try_from(made["room_id"].as_str().unwrap()).unwrap();
    mallory.joined(&new, &mallory.id).await;
    town.anna.accept(&new).await;
    mallory.state(old, "m.room.tombstone", "", json!({"body": "we moved", "replacement_room": new})).await;
    new
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_says_it_follows_an_encrypted_one_gets_nothing_of_it_in_the_clear() {
    let town = Town::start().await;
    town.llm.otherwise(keeper);
    let mallory = Person::new(&town.synapse, "mallory").await;
    let sealed = town.room(true).await;
    let asked = town.anna.say(&sealed, "keep it").await;
    town.replies(&asked).await;
    admin(&town, &sealed, &mallory).await;
    let open = usurp(&town, &sealed, &mallory).await;

    let asked = town.anna.say(&open, "read it").await;
    let answer = town.replies(&asked).await;
    assert!(answer.body().contains("nothing") && !answer.body().contains("treasure"), "{answer:?}");
    let texts = user_texts(town.llm.requests().last().unwrap());
    assert!(!texts.iter().any(|text| text.contains("keep it")), "{texts:?}");
    // Who asks in the old room is answered there, where it is encrypted.
    let asked = town.anna.say(&sealed, "read it").await;
    let answer = town.replies(&asked).await;
    assert!(answer.room == sealed && answer.body().contains("treasure"), "{answer:?}");
    assert_eq!(answer.seal, Seal::Opened { shield: false });
    assert_eq!(town.log().matches("takes nothing along").count(), 1, "it is told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_for_which_no_listed_person_has_asked_gets_no_answer_of_the_old_room() {
    let town = Town::start().await;
    town.llm.otherwise(keeper);
    let mallory = Person::new(&town.synapse, "mallory").await;
    let old = town.room(false).await;
    let asked = town.anna.say(&old, "keep it").await;
    town.replies(&asked).await;
    admin(&town, &old, &mallory).await;
    let new = usurp(&town, &old, &mallory).await;

    let asked = town.anna.say(&old, "read it").await;
    let answer = town.replies(&asked).await;
    assert!(answer.room == old && answer.body().contains("treasure"), "{answer:?}");
    let told = |event: &Seen| event.room == new && event.sender == town.bot && event.body().contains("treasure");
    assert!(!mallory.events().iter().any(told), "{:#?}", mallory.events());
    // A word of hers is what takes them along.
    let asked = town.anna.say(&new, "read it").await;
    let answer = town.replies(&asked).await;
    assert!(answer.room == new && answer.body().contains("treasure"), "{answer:?}");
}

/// Invites are never encrypted: the homeserver can make one up in anybody's name.
#[tokio::test(flavor = "multi_thread")]
async fn an_invite_in_a_listed_persons_name_takes_nothing_of_an_encrypted_room_along() {
    let (town, proxy) = Town::proxied().await;
    town.llm.otherwise(keeper);
    let mallory = Person::new(&town.synapse, "mallory").await;
    let sealed = town.room(true).await;
    let asked = town.anna.say(&sealed, "keep it").await;
    town.replies(&asked).await;
    admin(&town, &sealed, &mallory).await;
    let (forger, listed) = (mallory.id.clone(), town.anna.id.clone());
    proxy.change_syncs(move |sync| {
        for invite in sync["rooms"]["invite"].as_object_mut().into_iter().flat_map(|rooms| rooms.values_mut()) {
            for event in invite["invite_state"]["events"].as_array_mut().into_iter().flatten() {
                if event["sender"] == forger.as_str() && event["type"] == "m.room.member" {
                    event["sender"] = listed.as_str().into();
                }
            }
        }
    });
    let encryption = json!({"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}});
    let made = json!({"preset": "private_chat", "invite": [town.anna.id], "initial_state": [encryption]});
    let new = successor(&town, &sealed, &mallory, made).await;
    mallory.invite(&new, &town.bot).await;
    town.greeted(&new).await;

    let asked = town.anna.say(&sealed, "read it").await;
    let answer = town.replies(&asked).await;
    assert!(answer.room == sealed && answer.body().contains("treasure"), "{answer:?}");
    // A word of hers there takes it along.
    let asked = town.anna.say(&new, "read it").await;
    let answer = town.replies(&asked).await;
    assert!(answer.room == new && answer.body().contains("treasure"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_whose_encryption_the_homeserver_hides_takes_and_tells_nothing_in_the_clear() {
    let (town, proxy) = Town::proxied().await;
    town.llm.otherwise(|_| Reply::text("The treasure is here."));
    let room = town.room(true).await;
    let asked = town.anna.say(&room, "where is it?").await;
    town.replies(&asked).await;

    // The bot has to log in anew, and nothing says any more that the room is encrypted.
    let ended = AtomicUsize::new(0);
    proxy.rule(move |asked: &Asked| {
        if asked.path.contains("/state/m.room.encryption") {
            return Some(Fault::Answer(404, json!({"errcode": "M_NOT_FOUND", "error": "none"}).to_string()));
        }
        if !asked.is_sync() {
            return None;
        }
        if ended.fetch_add(1, Ordering::Relaxed) == 0 {
            let error = json!({"errcode": "M_UNKNOWN_TOKEN", "error": "gone", "soft_logout": false});
            return Some(Fault::Answer(401, error.to_string()));
        }
        Some(Fault::change(hide_encryption))
    });
    let device = || {
        let session = std::fs::read(town.rig.path().join("s/secrets/matrix-coder-session.json")).unwrap();
        serde_json::from_slice::<Value>(&session).unwrap()
    };
    let before = device()["device_id"].clone();
    town.anna.say(&room, "wake up").await;
    until("a new device", || device()["device_id"] != before && device()["ready"] == true);
    let mark = town.anna.events().last().unwrap().id.clone();

    let requests = || town.llm.requests().iter().flat_map(user_texts).collect::<Vec<_>>().join("\n");
    let spilled = town.anna.send_plain(&room, "m.room.message", json!({"msgtype": "m.text", "body": "spill it"})).await;
    town.anna.wait_for("the plain words", |event| event.id == spilled).await;
    // What she asks encrypted is heard; the answer would go out in the clear, and is held.
    let (bot, fresh) = (matrix_sdk::ruma::UserId::parse(&town.bot).unwrap(), device()["device_id"].clone());
    let encryption = town.anna.client.encryption();
    while encryption.get_device(&bot, fresh.as_str().unwrap().into()).await.unwrap().is_none() {
        encryption.request_user_identity(&bot).await.unwrap();
    }
    town.anna.say(&room, "a question").await;
    until("the question is heard", || requests().contains("a question"));
    until("the operator is told", || town.log().contains("the homeserver says now that it is not"));
    assert!(!requests().contains("spill it"), "{}", requests());
    let told = |event: &&Seen| event.sender == town.bot && event.is_message() && event.room == room;
    let events = town.anna.events();
    let since = events.iter().skip_while(|event| event.id != mark).filter(told);
    assert!(!since.clone().any(|event| event.seal == Seal::Plain), "{:#?}", since.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_encrypted_before_the_program_took_note_of_it_is_noted_before_anything_is_read() {
    let (mut town, proxy) = Town::proxied().await;
    let room = town.room(true).await;
    town.server.take().unwrap().kill();
    let noted = |room: &OwnedRoomId| -> bool {
        let store = rusqlite::Connection::open(town.rig.database()).unwrap();
        let select = "SELECT EXISTS (SELECT 1 FROM encrypted WHERE room = ?1)";
        store.query_row(select, [room.as_str()], |row| row.get(0)).unwrap()
    };
    assert!(noted(&room));
    // As an older version leaves it, of which only the SDK's store knows that the room is encrypted.
    rusqlite::Connection::open(town.rig.database()).unwrap().execute("DELETE FROM encrypted", []).unwrap();
    assert!(!noted(&room));
    let never = Arc::new(Notify::new());
    proxy.rule(move |asked| asked.is_sync().then(|| Fault::Held(never.clone())));
    let _server = tokio::task::block_in_place(|| town.rig.serve());
    until("it is noted", || noted(&room));
}

/// Takes out of an answer of `/sync` what says that rooms are encrypted.
fn hide_encryption(sync: &mut Value) {
    let rooms = sync["rooms"]["join"].as_object_mut().into_iter().flat_map(|rooms| rooms.values_mut());
    for room in rooms {
        for part in ["state", "timeline", "state_after", "org.matrix.msc4222.state_after"] {
            if let Some(events) = room[part]["events"].as_array_mut() {
                events.retain(|event| event["type"] != "m.room.encryption");
            }
        }
    }
}

/// Anybody can send what looks encrypted into a plain room.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_encrypted_does_not_mute_a_plain_room() {
    let town = Town::start().await;
    town.llm.otherwise(|_| Reply::text("Here."));
    let mallory = Person::new(&town.synapse, "mallory").await;
    let room = town.room(false).await;
    admin(&town, &room, &mallory).await;
    let content = json!({"algorithm": "m.megolm.v1.aes-sha2", "session_id": "none", "ciphertext": "AwgAEhA",
        "sender_key": "none", "device_id": "NONE"});
    for person in [&mallory, &town.anna] {
        person.send_plain(&room, "m.room.encrypted", content.clone()).await;
    }
    let asked = town.anna.say(&room, "hello").await;
    assert!(town.replies(&asked).await.body().contains("Here."));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_means_the_room_to_which_the_directory_leads_whatever_a_room_calls_itself() {
    let mut proxy = None;
    let town = Town::prepared(Limits::Relaxed, |rig| {
        rig.set("ALLOWED_ROOMS", "#work:localhost");
        proxy = Some(Proxy::before(rig));
    })
    .await;
    let proxy = proxy.unwrap();
    town.llm.otherwise(|_| Reply::text("Here."));
    let name = json!({"type": "m.room.canonical_alias", "state_key": "", "sender": town.anna.id,
        "content": {"alias": "#work:localhost", "alt_aliases": ["#work:localhost"]}});
    proxy.change_syncs(move |sync| {
        for invite in sync["rooms"]["invite"].as_object_mut().into_iter().flat_map(|rooms| rooms.values_mut()) {
            invite["invite_state"]["events"].as_array_mut().unwrap().push(name.clone());
        }
    });
    let other = town.anna.create_room(false, &[&town.bot]).await;
    town.anna.member(&other, &town.bot, "leave").await;

    let made = json!({"room_alias_name": "work", "invite": [town.bot]});
    let made = town.anna.call(Method::POST, "/_matrix/client/v3/createRoom", Some(made)).await;
    let work = OwnedRoomId::try_from(made["room_id"].as_str().unwrap()).unwrap();
    town.greeted(&work).await;
    let asked = town.anna.say(&work, "hello").await;
    town.replies(&asked).await;
}
