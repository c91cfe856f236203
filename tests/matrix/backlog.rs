//! What was said while nobody read: everything that the bot was told, once, in order, however much it is; and nothing
//! from before it came.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use matrix_sdk::ruma::OwnedRoomId;
use serde_json::{Value, json};

use crate::support::{
    bot::Town,
    person::Person,
    proxy::{Asked, Fault, Proxy},
    replies::Reply,
    scripted_llm::user_texts,
};

/// Messages of somebody whom the bot does not serve, said before each of Anna's.
const CHATTER: usize = 40;
/// Events that the history of the largest backlog has, and on a page of it.
const MANY: usize = 10_000;
const PAGE: usize = 250;
/// Which of them is an order of Anna's.
const EACH: usize = 500;

/// A town behind a proxy, whose model takes note.
async fn noting() -> (Town, Proxy) {
    let (town, proxy) = Town::proxied().await;
    town.llm.otherwise(|_| Reply::text("Noted."));
    (town, proxy)
}

/// The orders among all that the model was told in its last request.
fn orders(town: &Town) -> Vec<String> {
    let texts = town.llm.requests().last().map(user_texts).unwrap_or_default().join("\n");
    let words = texts.split_whitespace().filter(|word| word.starts_with("order-"));
    words.map(ToOwned::to_owned).collect()
}

impl Town {
    /// Waits until the last order was answered by a turn, and nothing of the bot comes any more.
    async fn answered(&self, room: &OwnedRoomId, orders: usize) {
        let told = |event: &crate::support::seen::Seen| {
            event.room == *room && event.sender == self.bot && event.msgtype() == "m.text"
        };
        while self::orders(self).len() < orders {
            let last = self.anna.events().last().unwrap().id.clone();
            if self::orders(self).len() < orders {
                self.anna.wait_after(&last, "a message of the bot", told).await;
            }
        }
    }
}

/// Sends as fast as the homeserver takes it.
async fn chatter(who: &Person, room: &OwnedRoomId, count: usize) {
    let (room, body) = (who.room(room), json!({"msgtype": "m.text", "body": "blah"}));
    for _ in 0..count.div_ceil(8) {
        let sent = (0..8).map(|_| async { room.send_raw("m.room.message", body.clone()).await.unwrap() });
        futures_util::future::join_all(sent).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_while_it_was_down_is_answered_and_what_was_said_before_it_came_is_not() {
    let (mut town, proxy) = noting().await;
    let bert = Person::new(&town.synapse, "bert").await;
    let room = town.anna.create_room(false, &[&bert.id]).await;
    bert.accept(&room).await;
    let early = town.anna.say(&room, "order-early").await;
    town.anna.invite(&room, &town.bot).await;
    let early_too = town.anna.say(&room, "!help").await;
    town.greeted(&room).await;

    town.server.take().unwrap().kill();
    let mut asked = Vec::new();
    for n in 0..4 {
        chatter(&bert, &room, CHATTER).await;
        asked.push(town.anna.say(&room, &format!("order-{n}")).await);
    }
    let help = town.anna.say(&room, "!help").await;
    chatter(&bert, &room, CHATTER).await;
    // All clocks but the bot's are wrong, and each answer with something new in it comes twice.
    let (repeat, repeated) = (Arc::new(Mutex::new(None)), Arc::new(AtomicUsize::new(0)));
    let counted = repeated.clone();
    proxy.rule(move |asked| {
        if !asked.is_sync() {
            return asked.path.contains("/messages").then(|| Fault::change(|page| misdate(&mut page["chunk"])));
        }
        if let Some(before) = repeat.lock().unwrap().take() {
            counted.fetch_add(1, Ordering::Relaxed);
            return Some(Fault::Answer(200, before));
        }
        let repeat = repeat.clone();
        Some(Fault::change(move |sync| {
            for room in sync["rooms"]["join"].as_object_mut().into_iter().flat_map(|rooms| rooms.values_mut()) {
                misdate(&mut room["timeline"]["events"]);
            }
            if !sync["rooms"]["join"].is_null() {
                *repeat.lock().unwrap() = Some(sync.to_string());
            }
        }))
    });
    town.serve();
    town.answered(&room, 4).await;
    town.anna.say(&room, "order-last").await;
    town.answered(&room, 5).await;
    // What it says now comes after all that it had to say before.
    let barrier = town.anna.say(&room, "!help").await;
    town.anna.wait_for("the last answer", |event| event.reply_to() == barrier).await;
    assert_eq!(orders(&town), ["order-0", "order-1", "order-2", "order-3", "order-last"]);
    assert!(repeated.load(Ordering::Relaxed) > 1, "answers came twice");
    let bots: Vec<_> = town.anna.events().into_iter().filter(|it| it.sender == town.bot && it.is_message()).collect();
    let to = |asked: &str| bots.iter().filter(|it| it.msgtype() == "m.text" && it.reply_to() == asked).count();
    assert_eq!((to(&asked[0]), to(&help), to(&barrier)), (1, 1, 1));
    assert!(asked[1..].iter().all(|asked| to(asked) <= 1));
    assert_eq!((to(&early), to(&early_too)), (0, 0), "said before it came");
    assert!(proxy.count(|asked| asked.path.contains("/messages")) > 0, "more was said than one answer has");
}

/// Half of the events are from long ago, half from the future.
fn misdate(events: &mut Value) {
    for (n, event) in events.as_array_mut().into_iter().flatten().enumerate() {
        event["origin_server_ts"] = if n % 2 == 0 { 1.into() } else { 9_000_000_000_000_u64.into() };
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_messages_lose_none_and_take_little_memory() {
    let (mut town, proxy) = noting().await;
    let room = town.room(false).await;
    town.server.take().unwrap().kill();
    let mark = town.anna.say(&room, "order-9999").await;
    town.serve();
    town.anna.answer_to(&mark).await;
    let before = memory(&town);
    // The next answer has a gap before it.
    let (here, anna) = (room.to_string(), town.anna.id.clone());
    proxy.rule(move |asked: &Asked| {
        asked.path.contains("/messages").then(|| Fault::Answer(200, page(asked, &anna).to_string()))
    });
    let mut cut = false;
    proxy.change_syncs(move |sync| {
        let timeline = sync.pointer_mut(&format!("/rooms/join/{here}/timeline"));
        let said = |timeline: &&mut Value| timeline.to_string().contains("!help");
        let Some(timeline) = timeline.filter(said) else { return };
        if !std::mem::replace(&mut cut, true) {
            timeline["limited"] = true.into();
            timeline["prev_batch"] = format!("page-{MANY}").into();
        }
    });
    town.anna.say(&room, "!help").await;
    town.anna.say(&room, "order-last").await;
    town.answered(&room, MANY / EACH + 2).await;
    let orders = orders(&town);
    let expected: Vec<_> = (0..MANY / EACH).map(|n| format!("order-{n}")).collect();
    assert_eq!(orders[1..=MANY / EACH], expected[..]);
    let grown = memory(&town).saturating_sub(before);
    assert!(grown < 100 << 10, "{grown} KiB for {MANY} messages");
}

/// A page of a made-up history, backwards: now and then an order of Anna's, else a stranger's words.
fn page(asked: &Asked, anna: &str) -> Value {
    let from = asked.path.split("from=page-").nth(1).and_then(|rest| rest.split('&').next()).unwrap();
    let from: usize = from.parse().unwrap();
    let chunk: Vec<_> = (from.saturating_sub(PAGE)..from)
        .rev()
        .map(|n| {
            let (sender, body) = match n % EACH {
                0 => (anna, format!("order-{}", n / EACH)),
                _ => ("@eve:localhost", "blah ".repeat(100)),
            };
            json!({"type": "m.room.message", "event_id": format!("$made-up-{n}"), "sender": sender,
                "origin_server_ts": 1, "content": {"msgtype": "m.text", "body": body}})
        })
        .collect();
    let mut page = json!({"start": format!("page-{from}"), "chunk": chunk});
    if from > PAGE {
        page["end"] = format!("page-{}", from - PAGE).into();
    }
    page
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_told_when_more_was_said_than_is_read() {
    let (town, proxy) = noting().await;
    let room = town.room(false).await;
    // The history has no end, and a page one message.
    let (here, anna) = (room.to_string(), town.anna.id.clone());
    proxy.rule(move |asked: &Asked| {
        asked.path.contains("/messages").then(|| {
            let n: usize = rand::random_range(0..usize::MAX);
            let event = json!({"type": "m.room.message", "event_id": format!("$made-up-{n}"), "sender": "@eve:localhost",
                "origin_server_ts": 1, "content": {"msgtype": "m.text", "body": "blah"}});
            let page = json!({"start": "a", "end": format!("page-{n}"), "chunk": [event]});
            Fault::Answer(200, page.to_string())
        })
    });
    proxy.change_syncs(move |sync| {
        let timeline = sync.pointer_mut(&format!("/rooms/join/{here}/timeline"));
        let said = |timeline: &&mut Value| timeline.to_string().contains(&format!("\"sender\":\"{anna}\""));
        if let Some(timeline) = timeline.filter(said) {
            timeline["limited"] = true.into();
            timeline["prev_batch"] = "page-0".into();
        }
    });
    let asked = town.anna.say(&room, "!help").await;
    let told = |event: &crate::support::seen::Seen| {
        event.sender == town.bot && event.msgtype() == "m.notice" && event.body().contains("please say it again")
    };
    town.anna.wait_after(&asked, "the notice", told).await;
    town.anna.answer_to(&asked).await;
}

/// The most memory that the bot has used, in KiB.
fn memory(town: &Town) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", town.server.as_ref().unwrap().pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}
