//! The rig of the Matrix tests proves itself: two persons on a homeserver of their own.

mod support;

use reqwest::Method;
use serde_json::json;
use support::{
    person::Person,
    seen::{Seal, Seen},
    synapse::{Limits, Synapse, password},
};

/// Two persons in a room.
async fn two(synapse: &Synapse, encrypted: bool) -> (Person, Person, matrix_sdk::ruma::OwnedRoomId) {
    let (anna, bert) = tokio::join!(Person::new(synapse, "anna"), Person::new(synapse, "bert"));
    let room = anna.create_room(encrypted, &[&bert.id]).await;
    bert.accept(&room).await;
    anna.joined(&room, &bert.id).await;
    (anna, bert, room)
}

fn says(text: &str) -> impl Fn(&Seen) -> bool {
    move |event| event.is_message() && event.body() == text
}

#[tokio::test(flavor = "multi_thread")]
async fn two_persons_talk_in_plain_and_what_a_room_shows_is_told() {
    let synapse = Synapse::start(Limits::Relaxed).await;
    let (anna, bert, room) = two(&synapse, false).await;
    let asked = anna.say(&room, "how are you?").await;
    let seen = bert.wait_for("the question", says("how are you?")).await;
    assert_eq!((seen.id.as_str(), seen.seal), (asked.as_str(), Seal::Plain));
    bert.unread_is(&room, (1, 0)).await;
    bert.read(&room, &asked).await;
    bert.unread_is(&room, (0, 0)).await;

    let thread = bert.say_in_thread(&room, &asked, "in a thread").await;
    let answer = bert.reply(&room, &asked, "well").await;
    assert_eq!(anna.answer_to(&asked).await.id, thread);
    bert.edit(&room, &answer, "very well").await;
    anna.edit(&room, &answer, "not mine to change").await;
    bert.react(&room, &asked, "👍").await;
    let slip = bert.say(&room, "a slip").await;
    bert.redact(&room, &slip).await;
    let shown = anna.shows(&room, "the slip taken back", |shown| shown.iter().any(|message| message.redacted)).await;
    let told: Vec<_> =
        shown.iter().map(|message| (message.id.as_str(), message.body.as_str(), message.edits)).collect();
    let wanted =
        [(&*asked, "how are you?", 0), (&*thread, "in a thread", 0), (&*answer, "very well", 1), (&*slip, "", 0)];
    assert_eq!(told, wanted);
    assert_eq!(shown[0].reactions, [(bert.id.clone(), "👍".to_owned())]);
    assert_eq!(shown[1].thread, asked);

    let file = anna.upload(&room, "notes.txt", b"all of it".to_vec(), "text/plain").await;
    let file = bert.wait_for("the file", |event| event.id == file).await;
    assert_eq!((file.msgtype(), file.body()), ("m.file", "notes.txt"));
    assert_eq!(bert.download(&file).await, b"all of it");

    let successor = anna.upgrade(&room).await;
    let tombstone = bert.wait_for("the tombstone", |event| event.kind == "m.room.tombstone").await;
    assert_eq!(tombstone.content["replacement_room"], successor.as_str());
    anna.kick(&room, &bert.id).await;
    bert.member(&room, &bert.id, "leave").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_persons_talk_encrypted_and_who_comes_later_cannot_read_what_was_said() {
    let synapse = Synapse::start(Limits::Relaxed).await;
    let (anna, bert, room) = two(&synapse, true).await;
    let asked = anna.say(&room, "a secret").await;
    let seen = bert.wait_for("the secret", says("a secret")).await;
    assert_eq!((seen.id.as_str(), seen.seal), (asked.as_str(), Seal::Opened { shield: false }));
    bert.edit(&room, &asked, "somebody else's").await;
    let answer = bert.reply(&room, &asked, "kept").await;
    bert.edit(&room, &answer, "kept well").await;
    anna.shows(&room, "the edit", |shown| shown.last().is_some_and(|last| last.body == "kept well")).await;
    assert_eq!(anna.answer_to(&asked).await.id, answer);

    let file = anna.upload(&room, "secret.png", b"no picture".to_vec(), "image/png").await;
    let file = bert.wait_for("the file", |event| event.id == file).await;
    assert!(file.content["file"].is_object() && file.content["url"].is_null(), "{file:?}");
    assert_eq!(bert.download(&file).await, b"no picture");

    let plain = anna.send_plain(&room, "m.room.message", json!({"msgtype": "m.text", "body": "in the open"})).await;
    assert_eq!(bert.wait_for("the plain one", |event| event.id == plain).await.seal, Seal::Plain);

    let carl = Person::new(&synapse, "carl").await;
    let unread = anna.say(&room, "before carl").await;
    anna.invite(&room, &carl.id).await;
    carl.accept(&room).await;
    let locked = carl.wait_for("what he cannot read", |event| event.id == unread).await;
    assert_eq!(locked.seal, Seal::Locked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_comes_back_with_what_it_knew() {
    let synapse = Synapse::start(Limits::Relaxed).await;
    let (anna, bert, room) = two(&synapse, false).await;
    synapse.kill().await;
    synapse.restart().await;
    anna.say(&room, "back").await;
    bert.wait_for("the message after the kill", says("back")).await;
    synapse.stop().await;
    synapse.restart().await;
    bert.say(&room, "again").await;
    anna.wait_for("the message after the stop", says("again")).await;
    synapse.freeze().await;
    let (said, ()) = tokio::join!(anna.say(&room, "late"), synapse.thaw());
    bert.wait_for("what was said to the frozen one", |event| event.id == said).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unmodified_homeserver_limits_all_but_the_exempt() {
    let synapse = Synapse::start(Limits::Default).await;
    let anna = Person::new(&synapse, "anna").await;
    let room = anna.create_room(false, &[]).await;
    for number in 0..15 {
        anna.say(&room, &number.to_string()).await;
    }
    synapse.account("bot").await;
    let login = json!({
        "type": "m.login.password", "password": password("bot"), "identifier": {"type": "m.id.user", "user": "bot"},
    });
    let (_, session) = synapse.call(Method::POST, "/_matrix/client/v3/login", None, Some(login)).await;
    let token = session["access_token"].as_str();
    let (_, made) = synapse.call(Method::POST, "/_matrix/client/v3/createRoom", token, Some(json!({}))).await;
    let room = made["room_id"].as_str().unwrap();
    let mut limited = None;
    for number in 0..15 {
        let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{number}");
        let (status, answer) =
            synapse.call(Method::PUT, &path, token, Some(json!({"msgtype": "m.text", "body": "x"}))).await;
        if status == 429 {
            limited = answer["retry_after_ms"].as_u64();
            break;
        }
    }
    assert!(limited.is_some_and(|wait| wait > 1000), "{limited:?}");
}
