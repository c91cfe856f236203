//! A database that has served for a year beside an empty one: what its size costs, and what it costs to make it small
//! again. All rows are written as the server writes them. `MATRIX_AGENT_BENCH_TURNS` makes a smaller year, for trying.
//!
//! Each state is measured in a process of its own, which this program starts again for it: nothing that filled the
//! database is in that one's memory.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use matrix_agent::{
    clock::Clock,
    ids::{Address, CallId, EventId, TurnId},
    memory::{be_sparing, give_back},
    store::{
        Conversation, DayLimits, Durability, EndedCall, NewInbound, NewOutbox, ORCHESTRATOR, Size, Spender, Store,
        Tokens, Verdict,
    },
};
use serde_json::{Value, json};
use support::{Times, end, memory, row, run, table};

mod support;

const TURNS: usize = 100_000;
const ACCOUNTS: usize = 20;
const ROOMS: usize = 300;
/// Messages that are admitted for each turn; one asks, the others need no answer.
const SAID: usize = 10;
/// Calls of a turn.
const CALLS: usize = 10;
/// Turns of a room between two compactions.
const COMPACTED: usize = 40;
/// When the year begins and how long it takes, in milliseconds.
const BEGIN: i64 = 1_764_000_000_000;
const YEAR: i64 = 365 * 86_400_000;
const KEEP: Duration = Duration::from_hours(30 * 24);
/// Rooms in which turns run at the same time.
const AT_ONCE: usize = 32;
const QUESTIONS: usize = 300;
/// Rooms of the load, and turns of each.
const CROWD: usize = 30;
const LOAD: usize = 40;
/// How long writes to an empty database are watched, to be compared with those during a pruning.
const WATCH: Duration = Duration::from_secs(20);
/// Tells a process that this program has started what to do.
const TASK: &str = "MATRIX_AGENT_BENCH_TASK";

fn main() {
    match env::var(TASK) {
        Ok(task) => {
            // As the program does.
            be_sparing();
            run(work(task));
        }
        Err(_) => run(measure()),
    }
}

async fn measure() {
    let started = Instant::now();
    let turns = env::var("MATRIX_AGENT_BENCH_TURNS").map_or(TURNS, |turns| turns.parse().unwrap());
    table("store");
    let folder = tempfile::tempdir().unwrap();
    let (empty, year) = (folder.path().join("empty.db"), folder.path().join("year.db"));
    close(open(&empty), &empty).await;
    let most = fill(&year, turns).await;
    let filled = Size::of(&year).unwrap();
    row(
        &format!("a year of {turns} turns, written in {:.0} s", started.elapsed().as_secs_f64()),
        "",
        &mb(filled.file),
        "",
        "",
    );
    row("the log meanwhile, at most", "≤ 64 MB", &mb(most), "", "");
    let (fresh, full) = (child("figures", &empty), child("figures", &year));
    figures("before it is pruned", &full, &fresh);
    let (quiet, pruned) = (child("watch", &empty), child("prune", &year));
    let took = &pruned["seconds"];
    let what = format!("the longest stall of a write during {took} s of pruning (p99)");
    row(&what, "≤ 20 ms", &stall(&pruned), &format!("{} (nothing is pruned)", stall(&quiet)), "");
    row("the log meanwhile, at most", "≤ 64 MB", &mb(pruned["log"].as_u64().unwrap()), "", "");
    let small = Size::of(&year).unwrap();
    row("the file after that", "", &mb(small.file), &mb(filled.file), "");
    row("of that, free", "", &mb(small.free), "", "");
    let loaded = child("load", &year);
    let figure = |name: &str| loaded[name].as_f64().unwrap();
    row(
        &format!("memory (RssAnon) after {CROWD} rooms with {LOAD} turns each, given back"),
        "≤ 1.3 ×",
        &format!("{:.1} MB (at most {:.1} MB)", figure("after"), figure("most")),
        &format!("{:.1} MB (before)", figure("before")),
        &format!("{:.2} ×", figure("after") / figure("before")),
    );
    figures("after it was pruned", &child("figures", &year), &child("figures", &empty));
    end(started);
}

fn figures(when: &str, ours: &Value, empty: &Value) {
    for (figure, what) in [
        ("start", "start → ready"),
        ("question", "question → answer, median"),
        ("call", "a tool call → next request, median"),
        ("resident", "resident memory"),
    ] {
        let (ours, empty) = (ours[figure].as_f64().unwrap(), empty[figure].as_f64().unwrap());
        let unit = if figure == "resident" { "MB" } else { "ms" };
        row(
            &format!("{what}, {when}"),
            "≤ 1.1 ×",
            &format!("{ours:.2} {unit}"),
            &format!("{empty:.2} {unit} (empty)"),
            &format!("{:.2} ×", ours / empty),
        );
    }
}

fn stall(figures: &Value) -> String {
    format!("{:.1} ms ({:.1})", figures["longest"].as_f64().unwrap(), figures["p99"].as_f64().unwrap())
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Starts this program again for one task on one database; returns what it has found.
fn child(task: &str, database: &Path) -> Value {
    let mut command = Command::new(env::current_exe().unwrap());
    let ended = command.env(TASK, format!("{task} {}", database.display())).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    serde_json::from_slice(&ended.stdout).unwrap()
}

#[expect(clippy::print_stdout, reason = "its parent reads it")]
async fn work(task: String) {
    let (task, database) = task.split_once(' ').unwrap();
    let database = PathBuf::from(database);
    let found = match task {
        "figures" => look(&database).await,
        "prune" => watched(&database, true).await,
        "load" => load(&database).await,
        _ => watched(&database, false).await,
    };
    println!("{found}");
}

fn open(database: &Path) -> Store {
    Store::open(database, Durability::Normal, Clock::fixed_at(BEGIN + YEAR)).unwrap()
}

/// Closes a database in order: its log is folded back and gone then.
async fn close(store: Store, database: &Path) {
    drop(store);
    let log = PathBuf::from(format!("{}-wal", database.display()));
    let end = Instant::now() + Duration::from_secs(20);
    while log.exists() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What the server does at a start, for a question in a new room, and for a tool call in it.
async fn look(database: &Path) -> Value {
    let begun = Instant::now();
    let store = open(database);
    store.homes_in_use().await.unwrap();
    for account in (0..ACCOUNTS).map(account) {
        store.homes(&account).await.unwrap();
        store.encrypted().await.unwrap();
        store.rooms_with_unsent(&account).await.unwrap();
        store.rooms_with_work(&account).await.unwrap();
        store.joined_rooms(&account).await.unwrap();
        store.left_rooms(&account).await.unwrap();
        store.position(&account).await.unwrap();
        store.locked(&account, 1000).await.unwrap();
    }
    let start = begun.elapsed().as_secs_f64() * 1e3;
    let (mut questions, mut calls) = (Times::new(), Times::new());
    let name = matrix_agent::ids::random(6);
    for number in 0..QUESTIONS {
        let at = conversation(&account(0), &format!("!new-{name}-{}", number % 10));
        let turn = TurnId(format!("{name}-{number}"));
        let begun = Instant::now();
        store
            .admit(&at.address.account, said(&at.address, turn.as_str(), 1), vec![], Some(turn.0.clone()))
            .await
            .unwrap();
        let asked = store.next_waiting(&at.address).await.unwrap().unwrap();
        store.others_spoke(&at.address, &asked.sender).await.unwrap();
        store.open_turn(&at, &turn, vec![asked.event], text("a question")).await.unwrap();
        store.history(&at).await.unwrap();
        store.claimed(&turn).await.unwrap();
        answer(&store, &at, &turn).await;
        questions.since(begun);
        let begun = Instant::now();
        call(&store, &at, &turn, 0).await;
        calls.since(begun);
    }
    let resident = memory("self", "status", "VmRSS");
    close(store, database).await;
    json!({"start": start, "question": questions.median(), "call": calls.median(), "resident": resident})
}

/// What a load takes of memory, and what of it stays: rooms whose contexts are read whole for each turn.
async fn load(database: &Path) -> Value {
    let store = open(database);
    let name = matrix_agent::ids::random(6);
    let one = |number: usize| {
        let (store, name) = (store.clone(), name.clone());
        async move {
            let at = conversation(&account(number), &format!("!load-{name}-{}", number % CROWD));
            let turn = TurnId(format!("{name}-{number}"));
            let events =
                store.admit(&at.address.account, said(&at.address, turn.as_str(), 1), vec![], None).await.unwrap();
            store.open_turn(&at, &turn, events, text(&"a question ".repeat(8))).await.unwrap();
            for round in 0..CALLS {
                call(&store, &at, &turn, round).await;
            }
            let shown = serde_json::to_string(
                &store.history(&at).await.unwrap().iter().map(|line| &line.message).collect::<Vec<_>>(),
            );
            answer(&store, &at, &turn).await;
            shown.unwrap().len()
        }
    };
    let rss = || memory("self", "status", "RssAnon");
    for number in 0..CROWD {
        one(number).await;
    }
    let before = rss();
    let most = Arc::new(Mutex::new(before));
    stream::iter(CROWD..CROWD * LOAD)
        .for_each_concurrent(CROWD, |number| {
            let (turn, most) = (one(number), most.clone());
            async move {
                tokio::spawn(turn).await.unwrap();
                let now = memory("self", "status", "RssAnon");
                let mut most = most.lock().unwrap();
                *most = most.max(now);
            }
        })
        .await;
    // Threads that only blocked have ended by then.
    tokio::time::sleep(Duration::from_secs(15)).await;
    give_back();
    let most = *most.lock().unwrap();
    json!({"before": before, "most": most, "after": rss()})
}

/// How long writes take that come one after the other, while old rows are pruned or nothing else happens.
async fn watched(database: &Path, prune: bool) -> Value {
    let store = open(database);
    let begun = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let log = watch_log(database, &over);
    let writes = tokio::spawn({
        let (store, over) = (store.clone(), over.clone());
        async move {
            let mut writes = Times::new();
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                store.note("bot-0", "key", "value").await.unwrap();
                writes.since(begun);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            writes
        }
    });
    if prune {
        store.prune(KEEP).await.unwrap();
    } else {
        tokio::time::sleep(WATCH).await;
    }
    over.store(true, Ordering::Relaxed);
    let writes = writes.await.unwrap();
    close(store, database).await;
    json!({
        "longest": writes.percentile(100),
        "p99": writes.percentile(99),
        "seconds": begun.elapsed().as_secs(),
        "log": log.await.unwrap(),
    })
}

/// Looks at the log's size until it is over; returns the largest.
fn watch_log(database: &Path, over: &Arc<AtomicBool>) -> tokio::task::JoinHandle<u64> {
    let (log, over) = (PathBuf::from(format!("{}-wal", database.display())), over.clone());
    tokio::spawn(async move {
        let mut most = 0;
        while !over.load(Ordering::Relaxed) {
            most = most.max(std::fs::metadata(&log).map_or(0, |log| log.len()));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        most
    })
}

/// Writes a year; returns the largest size of the log.
async fn fill(database: &Path, turns: usize) -> u64 {
    let clock = Clock::fixed_at(BEGIN);
    let store = Store::open(database, Durability::Normal, clock.clone()).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let log = watch_log(database, &over);
    let each = YEAR / turns as i64;
    stream::iter(0..turns)
        .for_each_concurrent(AT_ONCE, |number| {
            let (store, clock) = (store.clone(), clock.clone());
            async move {
                clock.advance(each);
                // A task of its own, as in the server, where each room has one.
                tokio::spawn(async move { one_turn(&store, number).await }).await.unwrap();
            }
        })
        .await;
    over.store(true, Ordering::Relaxed);
    close(store, database).await;
    log.await.unwrap()
}

async fn one_turn(store: &Store, number: usize) {
    let room = number % ROOMS;
    let at = conversation(&account(room), &format!("!room-{room}:example.org"));
    let turn = TurnId(matrix_agent::ids::digest(&["turn", &number.to_string()], 16));
    let mut events = store
        .admit(&at.address.account, said(&at.address, turn.as_str(), SAID), vec![], Some(turn.0.clone()))
        .await
        .unwrap();
    let others = events.split_off(1);
    store.open_turn(&at, &turn, events, text(&"a question ".repeat(8))).await.unwrap();
    store.done(&at.address.account, others).await.unwrap();
    for round in 0..CALLS {
        call(store, &at, &turn, round).await;
    }
    answer(store, &at, &turn).await;
    if (number / ROOMS) % COMPACTED == COMPACTED - 1 {
        store.replace_context(&at, vec![text(&"what was said before ".repeat(50))]).await.unwrap();
    }
}

async fn call(store: &Store, at: &Conversation, turn: &TurnId, round: usize) {
    let call = CallId(format!("{turn}-{round}-0"));
    let message = json!({"message": {"role": "assistant", "calls": [{"name": "run_command", "arguments": "{}"}]}});
    let (agent, model, person) = (ORCHESTRATOR.to_owned(), "m".to_owned(), Some("@person:example.org".to_owned()));
    let spender = Spender { address: at.address.clone(), person, agent, model };
    let held = store.hold(spender, DayLimits::default(), 20_000, 36_000).await.unwrap();
    let Verdict::Held { id, .. } = held else { unreachable!("there is no limit") };
    store.settle(id, Tokens { input: 20_000, cached: 15_000, output: 100 });
    store.append_calls(&at.address, turn, message, vec![call.clone()]).await.unwrap();
    store.start_call(&call, "boot").await.unwrap();
    let result = EndedCall { text: "a line of output\n".repeat(15), details: json!({"ok": true, "exit": 0}) };
    store.end_call(&call, result).await.unwrap();
}

async fn answer(store: &Store, at: &Conversation, turn: &TurnId) {
    let rows = ["answer", "closing"].map(|part| NewOutbox {
        txn: format!("{turn}-{part}"),
        payload: text(&"the answer ".repeat(20)),
        file: None,
    });
    store.answer_turn(&at.address, turn, "done", Some(text(&"the answer ".repeat(20))), rows.to_vec()).await.unwrap();
    for _ in 0..2 {
        let Some(row) = store.next_unsent(&at.address).await.unwrap() else { return };
        store.trying(&row.txn, "device").await.unwrap();
        store.sent(row.seq, &EventId(format!("$sent-{}", row.txn))).await.unwrap();
    }
}

fn said(at: &Address, turn: &str, count: usize) -> Vec<NewInbound> {
    let event = |number| NewInbound {
        room: at.room.clone(),
        event: EventId(format!("${}", matrix_agent::ids::digest(&[turn, &format!("{number}")], 22))),
        sender: format!("@person-{}:example.org", number % 3),
        body: json!({"kind": "said", "text": "something that somebody says to others in the room"}),
        target: None,
    };
    (0..count).map(event).collect()
}

fn account(number: usize) -> String {
    format!("bot-{}", number % ACCOUNTS)
}

fn conversation(account: &str, room: &str) -> Conversation {
    Conversation { address: Address { account: account.to_owned(), room: room.into() }, bot: "coder".into() }
}

fn text(text: &str) -> Value {
    json!({"message": {"role": "user", "parts": [{"type": "text", "text": text}]}})
}
