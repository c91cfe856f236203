//! The server while others look on, and its end: how long turns take beside many viewers of the dashboard, and how long a shutdown
//! takes with many turns, none of which may be lost.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
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
/// Rooms in which people ask one question after the other, and how many each asks.
const ROOMS: usize = 4;
const QUESTIONS: usize = 60;
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
    let alone = ask_all(&mut people, QUESTIONS);
    let (over, loads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let eyes = rig::block_on(looker::Looker::come_in(&rig, &address));
    let viewing = {
        let (over, loads) = (Arc::clone(&over), Arc::clone(&loads));
        std::thread::spawn(move || {
            rig::block_on(async {
                let views = (0..VIEWERS).map(|_| async {
                    while !over.load(Ordering::Relaxed) {
                        eyes.see("/dashboard").await;
                        loads.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                });
                futures_util::future::join_all(views).await;
            });
        })
    };
    let begun = Instant::now();
    let beside = ask_all(&mut people, QUESTIONS);
    let rate = loads.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    viewing.join().unwrap();
    let shown = |times: &Times| format!("{:.0} ms (p95 {:.0})", times.median(), times.percentile(95));
    row(
        &format!(
            "a turn with a command, {ROOMS} rooms at once, beside {VIEWERS} viewers ({rate:.0} pages a second), median"
        ),
        "≤ 1.2 ×",
        &shown(&beside),
        &format!("{} (nobody looks)", shown(&alone)),
        &format!("{:.2} ×", beside.median() / alone.median()),
    );
}

/// Everybody asks so many questions, one after the other.
fn ask_all(people: &mut [Terminal], questions: usize) -> Times {
    let mut all = Times::default();
    std::thread::scope(|scope| {
        let asking: Vec<_> = people
            .iter_mut()
            .map(|person| {
                scope.spawn(move || {
                    (0..questions).map(|number| person.ask(&format!("run a command: {number}"))).collect::<Vec<_>>()
                })
            })
            .collect();
        for time in asking.into_iter().flat_map(|asking| asking.join().unwrap()) {
            all.add(time);
        }
    });
    all
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
