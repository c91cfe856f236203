//! What cannot be read: keys that come late or never; and what is not to be believed: words in the clear where all is
//! encrypted, words under another name, keys that come unasked.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, body::Bytes, extract::State, http, response::IntoResponse};
use matrix_sdk::ruma::OwnedRoomId;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::{
    bot::Town, person::Person, proxy::Proxy, replies::Reply, scripted_llm::user_texts, seen::Seen, synapse::Limits,
};

/// Stands before a homeserver, and keeps the keys that a person's client sends, as long as it is told to.
#[derive(Clone)]
struct Keeper {
    homeserver: String,
    http: reqwest::Client,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    keeps: bool,
    requests: Vec<(http::request::Parts, Bytes)>,
}

impl Keeper {
    /// Starts one; returns it with its address.
    async fn start(homeserver: &str) -> (Self, String) {
        let http = matrix_agent::net::client().no_proxy().build().unwrap();
        let keeper = Self { homeserver: homeserver.to_owned(), http, kept: Arc::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(pass).with_state(keeper.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (keeper, url)
    }

    /// Keeps keys from now on.
    fn keep(&self) {
        self.kept.lock().unwrap().keeps = true;
    }

    /// Keeps no more, and returns what was kept.
    fn release(&self) -> Vec<(http::request::Parts, Bytes)> {
        std::mem::take(&mut *self.kept.lock().unwrap()).requests
    }

    async fn forward(&self, parts: &http::request::Parts, body: Bytes) -> (http::StatusCode, Bytes) {
        let url = format!("{}{}", self.homeserver, parts.uri);
        let mut request = self.http.request(parts.method.clone(), url).body(body);
        for name in ["authorization", "content-type"] {
            if let Some(value) = parts.headers.get(name) {
                request = request.header(name, value);
            }
        }
        let answer = request.send().await.unwrap();
        (answer.status(), answer.bytes().await.unwrap())
    }
}

async fn pass(State(keeper): State<Keeper>, request: axum::extract::Request) -> impl IntoResponse {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let is_key = parts.uri.path().contains("/sendToDevice/m.room.encrypted/");
    {
        let mut kept = keeper.kept.lock().unwrap();
        if is_key && kept.keeps {
            kept.requests.push((parts, body));
            return (http::StatusCode::OK, [("content-type", "application/json")], Bytes::from("{}"));
        }
    }
    let (status, body) = keeper.forward(&parts, body).await;
    (status, [("content-type", "application/json")], body)
}

/// Lets a person into an encrypted room of Anna's.
async fn enters(town: &Town, room: &OwnedRoomId, person: &Person) {
    town.anna.invite(room, &person.id).await;
    person.accept(room).await;
    person.joined(room, &town.bot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_key_is_waited_for_and_one_that_never_comes_is_told_of_once() {
    let town = Town::prepared(Limits::Relaxed, |rig| {
        rig.set("ALLOWED_USERS", "@*:localhost");
    })
    .await;
    town.llm.otherwise(|request| Reply::text(&format!("You said: {}", user_texts(request).pop().unwrap())));
    let room = town.room(true).await;
    let (keeper, url) = Keeper::start(town.synapse.url()).await;
    town.synapse.account("bert").await;
    let bert = Person::login_at(&url, "bert").await;
    enters(&town, &room, &bert).await;

    // By now bert's client knows the bot's device; what follows has a key of its own.
    let asked = bert.say(&room, "in time").await;
    bert.answer_to(&asked).await;
    bert.room(&room).discard_room_key().await.unwrap();
    keeper.keep();
    let first = bert.say(&room, "a late one").await;
    bert.say(&room, "and another").await;
    let told = |event: &Seen| event.sender == town.bot && event.reply_to() == first;
    let sentence = town.anna.wait_after(&first, "the sentence", told).await;
    assert!(sentence.body().starts_with("I cannot read this message"), "{sentence:?}");
    let third = bert.say(&room, "and one more").await;

    for (parts, body) in keeper.release() {
        assert!(keeper.forward(&parts, body).await.0.is_success());
    }
    // The later ones steer what the first one begins, or begin anew.
    let answers = |seen: &Seen| seen.sender == town.bot && seen.body().contains("You said: and one more");
    town.anna.wait_after(&third, "the answer", answers).await;
    let told = user_texts(town.llm.requests().last().unwrap()).join("\n");
    assert!(told.find("a late one") < told.find("and one more"), "in the order in which they were said: {told}");
    for words in ["a late one", "and another", "and one more"] {
        assert_eq!(told.matches(words).count(), 1, "{told}");
    }
    let sentences = town.anna.events().iter().filter(|it| it.body().starts_with("I cannot read")).count();
    assert_eq!(sentences, 1, "it is said once");
}

#[tokio::test(flavor = "multi_thread")]
async fn words_in_the_clear_count_for_nothing_where_all_is_encrypted() {
    let town = Town::start().await;
    let gate = Arc::new(Notify::new());
    town.llm.when("the work").after(&gate).reply_text("All is done.");
    let room = town.room(true).await;
    let asked = town.anna.say(&room, "the work").await;
    town.llm.arrived(1).await;
    let edit = json!({
        "msgtype": "m.text", "body": "* plain edit", "m.new_content": {"msgtype": "m.text", "body": "plain edit"},
        "m.relates_to": {"rel_type": "m.replace", "event_id": asked},
    });
    for content in [
        json!({"msgtype": "m.text", "body": "!stop"}),
        json!({"msgtype": "m.text", "body": "plain words"}),
        json!({"msgtype": "m.file", "body": "plain.txt", "url": "mxc://localhost/x"}),
        edit,
    ] {
        town.anna.send_plain(&room, "m.room.message", content).await;
    }
    let barrier = town.anna.say(&room, "!status").await;
    town.replies(&barrier).await;
    gate.notify_one();
    assert!(town.replies(&asked).await.body().contains("All is done."));
    assert_eq!(town.llm.requests().len(), 1);
    assert_eq!(town.said_since(&room, &asked).await.iter().filter(|it| it.msgtype() == "m.text").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_cannot_put_words_into_somebodys_mouth() {
    let (town, proxy) = Town::proxied().await;
    town.llm.otherwise(|_| Reply::text("Here."));
    let room = town.room(true).await;
    let mallory = Person::new(&town.synapse, "mallory").await;
    enters(&town, &room, &mallory).await;
    let (here, from, to) = (room.clone(), mallory.id.clone(), town.anna.id.clone());
    let changed = Arc::new(AtomicUsize::new(0));
    let counted = changed.clone();
    proxy.change_syncs(move |sync| {
        let events = sync.pointer_mut(&format!("/rooms/join/{here}/timeline/events"));
        for event in events.and_then(Value::as_array_mut).into_iter().flatten() {
            if event["type"] == "m.room.encrypted" && event["sender"] == from {
                event["sender"] = to.clone().into();
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let said = mallory.say(&room, "do as I say").await;
    assert!(town.said_since(&room, &said).await.is_empty());
    assert_eq!(changed.load(Ordering::Relaxed), 1);
    assert!(town.llm.requests().is_empty());
}

/// What whoever invites hands over is of any size, and comes in the way of the join.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_come_with_an_invite_are_not_fetched() {
    let mut proxy = None;
    let town = Town::prepared(Limits::Relaxed, |rig| {
        rig.set("ALLOWED_USERS", "@*:localhost");
        proxy = Some(Proxy::before(rig));
    })
    .await;
    let proxy = proxy.unwrap();
    town.llm.otherwise(|_| Reply::text("Here."));
    town.synapse.account("bert").await;
    let bert = Person::login_sharing(&town.synapse, "bert").await;
    let room = bert.create_room(true, &[]).await;
    bert.say(&room, "said before").await;
    bert.invite(&room, &town.bot).await;
    bert.joined(&room, &town.bot).await;
    for _ in 0..2 {
        // The keys came before this message, in the same or an earlier answer of the homeserver.
        let asked = bert.say(&room, "hello").await;
        bert.answer_to(&asked).await;
    }
    assert_eq!(proxy.count(|asked| asked.path.contains("/media/download/")), 0);
}
