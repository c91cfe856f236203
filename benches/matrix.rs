//! The bot in Matrix rooms beside a client on the same SDK that does no work: what the bot adds to the homeserver's own
//! time, what it takes in memory, and what happens when thirty rooms ask at once.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use matrix_sdk::{
    Client,
    config::{RequestConfig, SyncSettings, SyncToken},
    encryption::EncryptionSettings,
    ruma::OwnedRoomId,
};
use serde_json::{Value, json};

use support::{Times, end, memory, row, run, stamps::Stamps, table};
use town::{
    bot::Town,
    looker::with_port,
    person::Person,
    rig::Server,
    scripted_llm::Reply,
    synapse::{Limits, Synapse, password},
};

mod support;
#[path = "../tests/support/mod.rs"]
mod town;

/// Questions one after the other, and rooms in which both are invited.
const QUESTIONS: usize = 60;
const INVITES: usize = 12;
/// Rooms that ask at once.
const CROWD: usize = 30;
/// Rooms of the measurements of memory and start.
const IDLE: usize = 30;
const MANY: usize = 100;
const MOST: usize = 200;
/// How long the idle bot's processor time is watched.
const WATCH: Duration = Duration::from_mins(1);
const TOOLS: usize = 10;

fn main() {
    run(measure());
}

/// When the model was asked, and when it had answered.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Option<Instant>>>);

async fn measure() {
    let started = Instant::now();
    table("Matrix");
    let stamps = Stamps::default();
    let seen = stamps.clone();
    let mut town = Town::prepared(Limits::Relaxed, |rig| {
        let homeserver = rig.get("MATRIX_HOMESERVER").unwrap();
        let proxy = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(seen.proxy(&homeserver)));
        rig.set("MATRIX_HOMESERVER", &proxy);
        rig.set("RUST_LOG", "matrix_agent=info");
        with_port(rig);
    })
    .await;
    town.synapse.exempt(&town.bot).await;
    let asked = Asked::default();
    let model = asked.clone();
    town.llm.otherwise(move |request| {
        *model.0.lock().unwrap() = Some(Instant::now());
        reply(request)
    });
    let echo = Echo::start(&town.synapse).await;

    let rooms = idle(&mut town).await;
    // What the homeserver has to do for the answer shall be the same.
    let asked_first = town.anna.say(&rooms[0], "hi").await;
    *echo.answer.lock().unwrap() = town.anna.answer_to(&asked_first).await.content;
    invites(&town, &echo).await;
    for encrypted in [false, true] {
        questions(&town, &echo, &stamps, &asked, encrypted).await;
    }
    crowd(&town, &echo, &rooms[..CROWD]).await;
    end(started);
}

/// A model that answers at once, after ten calls where it is asked for them.
fn reply(request: &Value) -> Reply {
    let messages = request["messages"].as_array().unwrap();
    let begin = messages.iter().rposition(|message| message["role"] == "user").unwrap_or_default();
    let done = messages[begin..].iter().filter(|message| message["role"] == "tool").count();
    if messages[begin].to_string().contains("ten tools") && done < TOOLS {
        return Reply::calls(&[("run_command", json!({"command": "true"}))]);
    }
    Reply::text("Here you are.")
}

/// Memory and processor time of the idle bot, and its start.
async fn idle(town: &mut Town) -> Vec<OwnedRoomId> {
    let mut rooms = Vec::new();
    grow(town, &mut rooms, IDLE).await;
    let pid = town.server.as_ref().map(Server::pid).unwrap().to_string();
    let (before, busy) = (memory(&pid, "status", "RssAnon"), cpu(&pid));
    tokio::time::sleep(WATCH).await;
    let busy = (cpu(&pid) - busy) / WATCH.as_secs_f64() * 100.0;
    let rss = memory(&pid, "status", "VmRSS");
    row(&format!("the bot idle in {IDLE} rooms, resident memory"), "≤ 50 MB", &format!("{rss:.1} MB"), "", "");
    row("the same, processor time", "≤ 0.05 %", &format!("{busy:.2} % of one"), "", "");
    grow(town, &mut rooms, MANY).await;
    let each = (memory(&pid, "status", "RssAnon") - before) / (MANY - IDLE) as f64;
    row("each further room (RssAnon)", "≤ 0.2 MB", &format!("{each:.3} MB"), "", "");

    start(town, &rooms, "≤ 0.5 s above").await;
    grow(town, &mut rooms, MOST).await;
    start(town, &rooms, "").await;
    let pid = town.server.as_ref().map(Server::pid).unwrap().to_string();
    let rss = memory(&pid, "status", "VmRSS");
    row(&format!("the bot in {MOST} rooms, resident memory"), "", &format!("{rss:.1} MB"), "", "");
    rooms
}

/// Brings the bot into rooms, until it is in `count`.
async fn grow(town: &Town, rooms: &mut Vec<OwnedRoomId>, count: usize) {
    while rooms.len() < count {
        rooms.push(town.room(false).await);
    }
}

/// The bot's start, to its first answer.
async fn start(town: &mut Town, rooms: &[OwnedRoomId], goal: &str) {
    let login = json!({"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "bot"},
        "password": password("bot")});
    let call = |path, token, body| town.synapse.call(reqwest::Method::POST, path, token, body);
    let token =
        call("/_matrix/client/v3/login", None, Some(login)).await.1["access_token"].as_str().unwrap().to_owned();
    drop(town.server.take());
    let (mut ours, mut ready, mut bare) = (Times::default(), Times::default(), Times::default());
    let port = town.rig.get("HTTP_LISTEN").unwrap();
    for _ in 0..3 {
        let start = Instant::now();
        let path = "/_matrix/client/v3/sync?timeout=0";
        town.synapse.call(reqwest::Method::GET, path, Some(&token), None).await;
        bare.since(start);
        let start = Instant::now();
        town.serve();
        while !is_ready(&port).await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ready.since(start);
        let asked = town.anna.say(&rooms[0], "hi").await;
        town.anna.answer_to(&asked).await;
        ours.since(start);
        drop(town.server.take());
    }
    town.serve();
    row(
        &format!("start in {} rooms → systemd told and /readyz says yes, median of 3", rooms.len()),
        goal,
        &format!("{:.0} ms", ready.median()),
        &format!("{:.0} ms (the homeserver's answer to a first sync)", bare.median()),
        &format!("{:+.0} ms", ready.median() - bare.median()),
    );
    row(
        &format!("start in {} rooms → a question answered, median of 3", rooms.len()),
        goal,
        &format!("{:.0} ms", ours.median()),
        &format!("{:.0} ms (the homeserver's answer to a first sync)", bare.median()),
        &format!("{:+.0} ms", ours.median() - bare.median()),
    );
}

/// Whether the server serves, as it says itself.
async fn is_ready(port: &str) -> bool {
    let client = matrix_agent::net::client().no_proxy().build().unwrap();
    let asked = client.get(format!("http://127.0.0.1:{port}/readyz")).send().await;
    asked.is_ok_and(|answer| answer.status() == 200)
}

async fn invites(town: &Town, echo: &Echo) {
    let (mut ours, mut theirs) = (Times::default(), Times::default());
    for _ in 0..INVITES {
        for (who, times) in [(&town.bot, &mut ours), (&echo.id, &mut theirs)] {
            let room = town.anna.create_room(false, &[]).await;
            let start = Instant::now();
            town.anna.invite(&room, who).await;
            times.add(town.anna.joined(&room, who).await.at - start);
        }
    }
    compare("an invite → joined, median", "≤ 1.15 ×", &ours, &theirs);
}

async fn questions(town: &Town, echo: &Echo, stamps: &Stamps, asked: &Asked, encrypted: bool) {
    let kind = if encrypted { "encrypted" } else { "plain" };
    let ours_in = town.room(encrypted).await;
    let theirs_in = echo.room(&town.anna, encrypted).await;
    let (mut ours, mut theirs) = (Paths::default(), Paths::default());
    for number in 0..QUESTIONS + 5 {
        stamps.take_sent();
        let mine = ask(&town.anna, &ours_in, "hi").await;
        echo.stamps.take_sent();
        let other = ask(&town.anna, &theirs_in, "hi").await;
        // The first ones bring keys and containers.
        if number < 5 {
            continue;
        }
        let model = asked.0.lock().unwrap().unwrap();
        ours.add(mine, stamps, model, model);
        let (read, answers) = echo.last.lock().unwrap().unwrap();
        theirs.add(other, &echo.stamps, read, answers);
    }
    compare(
        &format!("a question → its answer at the person's client ({kind}), median"),
        "≤ 1.15 ×",
        &ours.whole,
        &theirs.whole,
    );
    beside(&format!("sync's bytes → request at the model ({kind}), p50 / p95"), "≤ 2 / 5 ms", &ours.to, &theirs.to);
    beside(
        &format!("the model's answer → request to the room ({kind}), p50 / p95"),
        "p95 ≤ 5 ms",
        &ours.from,
        &theirs.from,
    );
}

/// How long questions took, and of that the way in and the way out.
#[derive(Default)]
struct Paths {
    whole: Times,
    to: Times,
    from: Times,
}

impl Paths {
    /// Adds a question of which the way in ended at `reached`, and the way out began at `left`.
    fn add(&mut self, whole: Duration, stamps: &Stamps, reached: Instant, left: Instant) {
        self.whole.add(whole);
        self.from.add(stamps.take_sent().unwrap() - left);
        // A later answer to the same request for news would be one to what the bot itself has sent.
        if let Some(synced) = stamps.synced_before(reached) {
            self.to.add(reached - synced);
        }
    }
}

/// A row about a part of which the SDK takes its share.
fn beside(what: &str, goal: &str, ours: &Times, sdk: &Times) {
    let both = |times: &Times| format!("{:.2} / {:.2} ms", times.median(), times.percentile(95));
    let more = format!("{:+.2} ms", ours.median() - sdk.median());
    row(what, goal, &both(ours), &format!("{} (the SDK's call alone)", both(sdk)), &more);
}

async fn crowd(town: &Town, echo: &Echo, rooms: &[OwnedRoomId]) {
    let mut others = Vec::new();
    for _ in rooms {
        others.push(echo.room(&town.anna, false).await);
    }
    // Sandboxes are made by the first message.
    join_all(rooms.iter().map(|room| ask(&town.anna, room, "ten tools"))).await;
    let all = async |rooms: &[OwnedRoomId], text: &str| {
        let mut times = Times::default();
        for time in join_all(rooms.iter().map(|room| ask(&town.anna, room, text))).await {
            times.add(time);
        }
        times
    };
    let (theirs, ours) = (all(&others, "hi").await, all(rooms, "hi").await);
    compare(&format!("{CROWD} rooms at once, median"), "≤ 1.3 ×", &ours, &theirs);
    let tools = all(rooms, "ten tools").await;
    row(
        &format!("the same with {TOOLS} tool calls each, median (slowest)"),
        "≤ 1.5 s",
        &format!("{:.2} s ({:.2} s)", tools.median() / 1e3, tools.percentile(100) / 1e3),
        "20.6 s (the Python original)",
        "",
    );
}

async fn ask(anna: &Person, room: &OwnedRoomId, text: &str) -> Duration {
    let start = Instant::now();
    let asked = anna.say(room, text).await;
    anna.answer_to(&asked).await.at - start
}

fn compare(what: &str, goal: &str, ours: &Times, theirs: &Times) {
    row(
        what,
        goal,
        &format!("{:.0} ms (p95 {:.0})", ours.median(), ours.percentile(95)),
        &format!("{:.0} ms (p95 {:.0})", theirs.median(), theirs.percentile(95)),
        &format!("{:.2} ×", ours.median() / theirs.median()),
    );
}

/// Processor time in seconds.
fn cpu(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// A client that answers without doing anything.
struct Echo {
    id: String,
    stamps: Stamps,
    /// What it answers.
    answer: Arc<Mutex<Value>>,
    /// When the SDK had read the last question, and when it was told to send the answer.
    last: Arc<Mutex<Option<(Instant, Instant)>>>,
    task: tokio::task::AbortHandle,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Echo {
    async fn start(synapse: &Synapse) -> Self {
        let id = synapse.account("echo").await;
        synapse.exempt(&id).await;
        let (stamps, answer) = (Stamps::default(), Arc::<Mutex<Value>>::default());
        let last = Arc::<Mutex<Option<(Instant, Instant)>>>::default();
        let (noted, content) = (Arc::clone(&last), Arc::clone(&answer));
        let folder = tempfile::tempdir().unwrap();
        let client = Client::builder()
            .homeserver_url(stamps.proxy(synapse.url()).await)
            // Else it would pass the proxy by.
            .respect_login_well_known(false)
            .sqlite_store(folder.path(), None)
            .request_config(RequestConfig::new().disable_retry())
            .with_encryption_settings(EncryptionSettings { auto_enable_cross_signing: true, ..Default::default() })
            .build()
            .await
            .unwrap();
        client.matrix_auth().login_username("echo", &password("echo")).send().await.unwrap();
        client.encryption().wait_for_e2ee_initialization_tasks().await;
        let task = tokio::spawn(async move {
            let _folder = folder;
            let mut token = SyncToken::NoToken;
            loop {
                let settings = SyncSettings::new().token(token).timeout(Duration::from_secs(20));
                let response = client.sync_once(settings).await.unwrap();
                let read = Instant::now();
                let own = client.user_id().unwrap().to_owned();
                for room in client.invited_rooms() {
                    room.join().await.unwrap();
                }
                for (room, update) in response.rooms.joined {
                    for event in update.timeline.events {
                        let event: Value = serde_json::from_str(event.raw().json().get()).unwrap();
                        if event["type"] != "m.room.message" || event["sender"] == own.as_str() {
                            continue;
                        }
                        let asked = event["event_id"].as_str().unwrap().to_owned();
                        let room = client.get_room(&room).unwrap();
                        let (noted, mut content) = (Arc::clone(&noted), content.lock().unwrap().clone());
                        tokio::spawn(async move {
                            content["m.relates_to"] = json!({"m.in_reply_to": {"event_id": asked}});
                            *noted.lock().unwrap() = Some((read, Instant::now()));
                            room.send_raw("m.room.message", content).await.unwrap();
                        });
                    }
                }
                token = SyncToken::Specific(response.next_batch);
            }
        });
        Self { id, stamps, answer, last, task: task.abort_handle() }
    }

    async fn room(&self, anna: &Person, encrypted: bool) -> OwnedRoomId {
        let room = anna.create_room(encrypted, &[&self.id]).await;
        anna.joined(&room, &self.id).await;
        room
    }
}
