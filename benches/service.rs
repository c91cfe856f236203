//! The server while others look on, and its end: how long turns take beside many viewers of the dashboard, and how long a shutdown
//! takes with many turns, none of which may be lost.

use std::{
    io::{BufReader, Write},
    net::TcpListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

use rig::{BARE, Rig, Server};
use support::{
    Times, end,
    model::{self, Answer},
    row, table,
    terminal::Terminal,
};

#[expect(dead_code, unreachable_pub, reason = "as in the tests, of which this is a part")]
#[path = "../tests/support/looker.rs"]
mod looker;
#[expect(dead_code, unreachable_pub, reason = "as in the tests, of which this is a part")]
#[path = "../tests/support/rig.rs"]
mod rig;
mod support;

/// Viewers, each of whom loads the page once a second.
const VIEWERS: usize = 50;
const LOOK: Duration = Duration::from_secs(1);
/// Rooms in which people ask one question after the other, and how many each asks.
const ROOMS: usize = 4;
const QUESTIONS: usize = 60;
/// How often the ways of looking take turns.
const ROUNDS: usize = 4;
/// Turns that run when the server ends.
const RUNNING: usize = 20;

fn main() {
    let started = Instant::now();
    table("The service");
    beside_viewers();
    shutdown();
    end(started);
}

fn beside_viewers() {
    let mut rig = Rig::new(BARE, &model::serve(reply));
    rig.set("RUST_LOG", "warn,matrix_agent=info");
    let address = looker::with_port(&mut rig);
    let _server = rig.serve();
    let state = rig.path().join("s");
    let mut people: Vec<_> = (0..ROOMS).map(|room| Terminal::join(&state, &format!("room-{room}"))).collect();
    ask_all(&mut people, 10);
    let (ours, page) = rig::block_on(async {
        let eyes = looker::Looker::come_in(&rig, &address).await;
        let page = eyes.see("/dashboard").await;
        (eyes, page)
    });
    let bare = ours.elsewhere(&serve_bare(&page));
    let (mut alone, mut beside_bare, mut beside_ours) = (Times::default(), Times::default(), Times::default());
    // In turns, for conversations grow.
    for _ in 0..ROUNDS {
        ask_round(&mut people, &mut alone);
        for (eyes, times) in [(&bare, &mut beside_bare), (&ours, &mut beside_ours)] {
            let viewers = Viewers::begin(eyes);
            ask_round(&mut people, times);
            viewers.end();
        }
    }
    let shown = |times: &Times| format!("{:.0} ms (p95 {:.0})", times.median(), times.percentile(95));
    let what = format!("a turn with a command, {ROOMS} rooms at once, beside {VIEWERS} viewers, median");
    let ratio = |times: &Times| format!("{:.2} ×", times.median() / alone.median());
    let nobody = format!("{} (nobody looks)", shown(&alone));
    row(&what, "≤ 1.2 ×", &shown(&beside_ours), &nobody, &ratio(&beside_ours));
    row(
        "the same, the page from a server that does nothing else",
        "",
        &shown(&beside_bare),
        &nobody,
        &ratio(&beside_bare),
    );
}

/// Has everybody ask their questions of a round.
fn ask_round(people: &mut [Terminal], times: &mut Times) {
    for time in ask_all(people, QUESTIONS / ROUNDS) {
        times.add(time);
    }
}

/// Serves a page that is there already, for comparison; returns the address.
fn serve_bare(page: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n", page.len());
    let answer: Arc<[u8]> = (head + page).into_bytes().into();
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                let (mut reader, mut writer) = (BufReader::new(connection.try_clone().unwrap()), connection);
                while model::read_head(&mut reader).is_some() && writer.write_all(&answer).is_ok() {}
            });
        }
    });
    address
}

/// Viewers who look until they are told to end.
struct Viewers {
    over: Arc<AtomicBool>,
    looking: JoinHandle<()>,
}

impl Viewers {
    fn begin(eyes: &looker::Looker) -> Self {
        let (over, eyes) = (Arc::<AtomicBool>::default(), eyes.clone());
        let ends = Arc::clone(&over);
        let looking = std::thread::spawn(move || {
            rig::block_on(async {
                let views = (0..VIEWERS).map(|number| {
                    let (ends, eyes) = (&ends, &eyes);
                    async move {
                        // They do not all look at the same moment.
                        tokio::time::sleep(LOOK.mul_f64(number as f64 / VIEWERS as f64)).await;
                        while !ends.load(Ordering::Relaxed) {
                            eyes.see("/dashboard").await;
                            tokio::time::sleep(LOOK).await;
                        }
                    }
                });
                futures_util::future::join_all(views).await;
            });
        });
        Self { over, looking }
    }

    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.looking.join().unwrap();
    }
}

/// Everybody asks so many questions, one after the other.
fn ask_all(people: &mut [Terminal], questions: usize) -> Vec<Duration> {
    std::thread::scope(|scope| {
        let asking: Vec<_> = people
            .iter_mut()
            .map(|person| {
                scope.spawn(move || {
                    (0..questions).map(|number| person.ask(&format!("run a command: {number}"))).collect::<Vec<_>>()
                })
            })
            .collect();
        asking.into_iter().flat_map(|asking| asking.join().unwrap()).collect()
    })
}

fn shutdown() {
    let mut rig = Rig::new(BARE, &model::serve(reply));
    rig.set("RUST_LOG", "warn,matrix_agent=info");
    rig.set("MAX_CONCURRENT_TURNS", &RUNNING.to_string());
    let server = rig.serve();
    let state = rig.path().join("s");
    let sit =
        |state: &Path| -> Vec<_> { (0..RUNNING).map(|room| Terminal::join(state, &format!("room-{room}"))).collect() };
    let mut people = sit(&state);
    let asked: Vec<_> = people
        .iter_mut()
        .enumerate()
        .map(|(room, person)| person.say(if room % 2 == 0 { "run a slow command" } else { "think slowly" }))
        .collect();
    for (room, person) in people.iter_mut().enumerate() {
        let kind = if room % 2 == 0 { "tool_started" } else { "thinking" };
        person.until(|frame| frame["kind"] == kind);
    }
    drop(people);
    let begun = Instant::now();
    let log = Server::stop(server);
    let took = begun.elapsed();
    let late = if log.contains("did not end in time") { "some tasks did not end in time" } else { "" };
    row(
        &format!("a shutdown with {RUNNING} running turns"),
        "≤ 5 s",
        &format!("{:.2} s", took.as_secs_f64()),
        late,
        "",
    );
    let _server = rig.serve();
    let mut people = sit(&state);
    let answered = people.iter_mut().zip(&asked).map(|(person, asked)| {
        let answered = person.answer();
        usize::from(answered.asked == *asked && answered.ending == "done")
    });
    let answered: usize = answered.sum();
    row("of these answered by the next server", &RUNNING.to_string(), &answered.to_string(), "", "");
}

/// Answers a request: with a call where one is asked for, slowly where that is asked for.
fn reply(request: &[u8], answer: &mut Answer) {
    let parsed: Value = serde_json::from_slice(request).unwrap();
    let messages = parsed["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last = messages.last().cloned().unwrap_or_default();
    let asked = if last["role"] == "user" { last["content"].to_string() } else { String::new() };
    let (delta, reason) = if asked.contains("run a slow command") {
        (model::command("sleep 15"), "tool_calls")
    } else if asked.contains("run a command") {
        // Each another one, for the same call again and again would be a loop.
        (model::command(&format!("echo {}", messages.len())), "tool_calls")
    } else {
        if asked.contains("think slowly") {
            std::thread::sleep(Duration::from_secs(10));
        }
        (model::text("Here you are."), "stop")
    };
    answer.begin(&delta);
    answer.write(&Answer::last(reason, 5_000));
}
