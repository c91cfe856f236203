//! The homeserver goes away and comes back, for an hour too, answers with errors, loses answers, hangs, forgets what it
//! was told: each message is answered once, and the log says once that it went and once that it came back.

use std::{sync::Arc, time::Duration};

use matrix_sdk::ruma::RoomId;
use serde_json::json;
use tokio::sync::Notify;

use crate::support::{
    bot::Town,
    hosted::Hosted,
    proxy::{Asked, Fault, Proxy},
    replies::Reply,
    rig::wait,
};

const LOST: &str = "messages cannot be read now; it is tried again";
const BACK: &str = "messages are read again";

fn until(what: &str, holds: impl FnMut() -> bool) {
    tokio::task::block_in_place(|| wait(what, holds));
}

impl Town {
    fn logged(&self, words: &str) -> usize {
        self.log().matches(words).count()
    }

    /// Sees that a question has one answer, as people see the room.
    async fn answered_once(&self, room: &RoomId, asked: &str) {
        self.anna.wait_for("the answer", |event| event.reply_to() == asked).await;
        let barrier = self.anna.say(room, "!help").await;
        self.anna.wait_for("what comes after it", |event| event.reply_to() == barrier).await;
        let answers = self.anna.events().into_iter().filter(|event| event.reply_to() == asked && event.is_message());
        let answers: Vec<_> = answers.collect();
        assert_eq!(answers.len(), 1, "{answers:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_that_goes_away_during_a_turn_gets_the_answer_when_it_is_back() {
    let mut town = Town::start().await;
    let gate = Arc::new(Notify::new());
    town.llm.when("begin").after(&gate).reply_text("Ended.");
    town.llm.otherwise(|_| Reply::text("Here."));
    let (plain, sealed) = (town.room(false).await, town.room(true).await);
    let asked = town.anna.say(&plain, "begin").await;
    town.llm.arrived(1).await;
    town.synapse.stop().await;
    until("it is told", || town.logged(LOST) == 1);
    gate.notify_one();
    until("the answer cannot be sent", || town.logged("messages cannot be sent now") == 1);
    until("it is tried again", || {
        town.log().contains("a message still cannot be sent") && town.log().contains("messages still cannot be read")
    });
    let log = town.log();
    let of_turn = format!(" room{{room={plain}}}:turn{{turn=");
    let unnamed: Vec<_> =
        log.lines().filter(|line| line.contains("cannot be sent") && !line.contains(&of_turn)).collect();
    assert!(unnamed.is_empty(), "the room and the turn whose answer it is stand in the log: {unnamed:#?}");
    town.synapse.restart().await;
    town.answered_once(&plain, &asked).await;
    let told = [LOST, BACK, "messages cannot be sent now", "messages are sent again"].map(|words| town.logged(words));
    assert_eq!(told, [1, 1, 1, 1], "{}", town.log());

    // The answer has reached the room, the bot does not know it, and the homeserver has forgotten its transaction id.
    for room in [&plain, &sealed] {
        let folder = town.rig.path().to_str().unwrap().to_owned();
        town.has_noted();
        drop(town.server.take());
        // It dies once for each marker.
        let _ = std::fs::remove_file(town.rig.path().join("sent"));
        town.rig.set("MATRIX_AGENT_CRASH_AT", &format!("sent:{folder}"));
        town.serve();
        let asked = town.anna.say(room, "and then?").await;
        let mut server = town.server.take().unwrap();
        tokio::task::block_in_place(|| server.died());
        town.anna.wait_for("the answer", |event| event.reply_to() == asked).await;
        town.synapse.stop().await;
        assert!(
            town.synapse.sql("DELETE FROM event_txn_id_device_id") > 0,
            "Synapse keeps its transaction ids elsewhere"
        );
        let store = rusqlite::Connection::open(town.rig.database()).unwrap();
        let long_ago = "UPDATE outbox SET tried_at = tried_at - 7200000 WHERE sent IS NULL AND tried_at IS NOT NULL";
        assert!(store.execute(long_ago, []).unwrap() > 0);
        drop(store);
        // It is away at the start, too.
        town.serve();
        until("it is told", || town.log().lines().rev().any(|line| line.contains(LOST)));
        town.synapse.restart().await;
        town.answered_once(room, &asked).await;
    }
}

/// How often the log says that messages cannot be read, that they cannot be sent, and that they still cannot be read.
fn troubles(hosted: &Hosted) -> [usize; 3] {
    ["messages cannot be read now", "messages cannot be sent now", "messages still cannot be read"]
        .map(|words| hosted.logged(words))
}

/// The server hears nothing for an hour, and then, within a minute, that the homeserver answers again.
/// `before`: what was logged before it was away.
async fn an_hour_without(
    hosted: &Hosted,
    proxy: &Proxy,
    before: [usize; 3],
    away: impl Future<Output = ()>,
    back: impl Future<Output = ()>,
) {
    away.await;
    tokio::task::block_in_place(|| hosted.pass(Duration::from_hours(1)));
    let after = troubles(hosted);
    let [read, sent, tries] = std::array::from_fn(|at| after[at] - before[at]);
    assert!(read == 1 && sent <= 1, "it is told once: {}", hosted.log());
    assert!((30..80).contains(&tries), "it is tried about once in a minute, not {tries} times");
    back.await;
    let asked = proxy.count(Asked::is_sync);
    until("it is tried again", || {
        hosted.pass(Duration::from_secs(1));
        proxy.count(Asked::is_sync) > asked
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_without_a_homeserver_costs_no_message() {
    let (mut town, proxy) = Town::proxied().await;
    let gate = Arc::new(Notify::new());
    town.llm.when("refuses").after(&gate).reply_text("Ended.");
    town.llm.when("hangs").after(&gate).reply_text("Ended.");
    town.llm.otherwise(|_| Reply::text("Here."));
    let (plain, sealed) = (town.room(false).await, town.room(true).await);
    for room in [&plain, &sealed] {
        let asked = town.anna.say(room, "hello").await;
        town.answered_once(room, &asked).await;
        // A sandbox that is made meanwhile would not keep pace with the time; a quick answer does not wait for it.
        let used = ["sandbox", "exec", room.as_str(), "--", "true"];
        until("the room's sandbox", || town.rig.run(&used).status.success());
    }
    let host = |town: &mut Town| {
        drop(town.server.take());
        tokio::task::block_in_place(|| Hosted::start(&town.rig))
    };

    let hosted = host(&mut town);
    let asked = town.anna.say(&plain, "it refuses").await;
    town.llm.arrived(3).await;
    let away = async {
        town.synapse.stop().await;
        gate.notify_one();
    };
    an_hour_without(&hosted, &proxy, troubles(&hosted), away, town.synapse.restart()).await;
    town.answered_once(&plain, &asked).await;

    let asked = town.anna.say(&sealed, "it hangs").await;
    town.llm.arrived(4).await;
    let away = async {
        town.synapse.freeze().await;
        gate.notify_one();
    };
    an_hour_without(&hosted, &proxy, troubles(&hosted), away, town.synapse.thaw()).await;
    town.answered_once(&sealed, &asked).await;

    drop(hosted);
    let asked = town.anna.say(&sealed, "it is away at the start").await;
    town.synapse.stop().await;
    let hosted = host(&mut town);
    an_hour_without(&hosted, &proxy, [0; 3], async {}, town.synapse.restart()).await;
    town.answered_once(&sealed, &asked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_and_lost_answers_of_a_homeserver_cost_no_message_and_double_none() {
    let (town, proxy) = Town::proxied().await;
    town.llm.otherwise(|_| Reply::text("Here."));
    let (plain, sealed) = (town.room(false).await, town.room(true).await);

    // A proxy before it says so in HTML, the homeserver itself in JSON.
    let error = json!({"errcode": "M_UNKNOWN", "error": "Internal server error"}).to_string();
    let mut answers = vec![(502, "<html>Bad Gateway</html>".to_owned()), (500, error.clone()), (504, String::new())];
    proxy.rule(move |asked| {
        if !asked.is_sync() {
            return None;
        }
        answers.pop().map(|(status, body)| Fault::Answer(status, body))
    });
    let asked = town.anna.say(&plain, "are you here?").await;
    town.answered_once(&plain, &asked).await;
    until("it is told", || town.logged(BACK) == 1);
    assert_eq!(town.logged(LOST), 1, "{}", town.log());

    for room in [&plain, &sealed] {
        // The first three sends arrive, and nobody knows it; then it refuses one.
        let (mut lost, error) = (0, error.clone());
        proxy.rule(move |asked| {
            let send = asked.is_send() || asked.path.contains("/send/m.room.encrypted");
            lost += usize::from(send);
            match lost {
                1..=3 if send => Some(Fault::Lost),
                4 if send => Some(Fault::Answer(500, error.clone())),
                _ => None,
            }
        });
        let asked = town.anna.say(room, "and now?").await;
        town.answered_once(room, &asked).await;
        proxy.heal();
    }
}
