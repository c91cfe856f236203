//! The server under a steady load: so many questions a second over some rooms, for an hour. Each minute a row says what it takes
//! and how long answers take, which should not grow; at the end each question must have been answered, and once. What fails is
//! counted, with the words of the first few, and the load goes on.
//!
//! `MINUTES=60 cargo bench --bench soak`: without a number of minutes it does nothing, so that all benchmarks together do not take an
//! hour more. `RATE` (questions a second, 10) and `ROOMS` (30) choose another load. Every fifth question has a command run in the room's
//! sandbox, and conversations are compacted as they grow.

use std::{
    fs,
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;

use rig::{BARE, Rig};
use support::{
    Times, end, memory,
    model::{self, Answer},
    row, table,
    terminal::Terminal,
};

#[expect(dead_code, unreachable_pub, reason = "as in the tests, of which this is a part")]
#[path = "../tests/support/rig.rs"]
mod rig;
mod support;

/// Every so many questions one has a command run.
const COMMANDS: u64 = 5;
/// Tokens of the model's context, so that each room's is compacted every few minutes.
const WINDOW: usize = 40_000;
/// Bytes of a token, as the model counts them.
const TOKEN: usize = 4;
const MINUTE: Duration = Duration::from_mins(1);
/// Failures whose words are shown.
const SHOWN: usize = 10;

fn main() -> ExitCode {
    let chosen = |name: &str, usual: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (minutes, rate, rooms) = (chosen("MINUTES", 0), chosen("RATE", 10), chosen("ROOMS", 30));
    if minutes == 0 {
        table("A soak: not asked for (MINUTES=60)");
        return ExitCode::SUCCESS;
    }
    let mut rig = Rig::new(BARE, &model::serve(reply));
    rig.set("RUST_LOG", "warn,matrix_agent=info");
    rig.set("MAX_CONCURRENT_TURNS", &rooms.to_string());
    rig.configure(&format!("[models.\"openai/scripted\"]\ncontext_window = {WINDOW}\n"));
    let started = Instant::now();
    table(&format!("{minutes} minutes of {rate} questions a second in {rooms} rooms"));
    let server = rig.serve();
    let (state, pid) = (rig.path().join("s"), server.pid().to_string());

    // The sandboxes start before the clock does.
    let mut people: Vec<_> = (0..rooms).map(|room| Terminal::join(&state, &format!("room-{room}"))).collect();
    for person in &mut people {
        person.ask("run a command (the first)");
    }
    let (begun, taken, failed) =
        (Instant::now(), Arc::<Mutex<Minute>>::default(), Arc::<Mutex<Vec<String>>>::default());
    let asked: Vec<_> = people
        .into_iter()
        .zip(0..)
        .map(|(person, room)| {
            let pace = Pace { room, rooms, rate, begun, until: begun + MINUTE * minutes as u32 };
            let (state, taken, failed) = (state.clone(), Arc::clone(&taken), Arc::clone(&failed));
            std::thread::spawn(move || ask(person, &state, &pace, &taken, &failed))
        })
        .collect();
    let mut busy = cpu(&pid);
    for minute in 1..=minutes {
        std::thread::sleep((begun + MINUTE * minute as u32).saturating_duration_since(Instant::now()));
        let now = cpu(&pid);
        std::mem::take(&mut *taken.lock().unwrap()).tell(minute, &pid, &state, now - std::mem::replace(&mut busy, now));
    }
    let asked: u64 = asked.into_iter().map(|person| person.join().unwrap()).sum::<u64>() + rooms;
    let failed = std::mem::take(&mut *failed.lock().unwrap());
    let good = tell_once(&rig.database(), asked) && failed.is_empty();
    row("questions that failed", "0", &failed.len().to_string(), "", "");
    for words in failed.iter().take(SHOWN) {
        row("of these", "", words, "", "");
    }
    end(started);
    let log = server.stop();
    let strange: Vec<_> = log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect();
    row("warnings and errors in the log", "0", &strange.len().to_string(), strange.first().unwrap_or(&""), "");
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a minute was like.
#[derive(Default)]
struct Minute {
    times: Times,
    /// Questions that were asked later than they were due, since the one before had no answer yet.
    late: usize,
    /// Questions that were not answered, or with words that something has failed.
    failed: usize,
}

impl Minute {
    fn tell(&self, minute: u64, pid: &str, state: &Path, busy: f64) {
        let count = |folder: &str| fs::read_dir(format!("/proc/{pid}/{folder}")).map_or(0, Iterator::count);
        let size = |file: &str| fs::metadata(state.join(file)).map_or(0.0, |file| file.len() as f64 / 1e6);
        let times = &self.times;
        if times.count() == 0 {
            return row(&format!("minute {minute}"), "", "no answer came", "", "");
        }
        let latency = format!(
            "{} answers, {:.0} / {:.0} / {:.0} ms (p50 / p95 / longest), {} late, {} failed",
            times.count(),
            times.median(),
            times.percentile(95),
            times.percentile(100),
            self.late,
            self.failed
        );
        let memory = format!(
            "RSS {:.1} MB ({:.2} anonymous), {} files, {} threads, database {:.1} + {:.1} MB, {:.0} % of a processor",
            memory(pid, "status", "VmRSS"),
            memory(pid, "status", "RssAnon"),
            count("fd"),
            count("task"),
            size("matrix-agent.db"),
            size("matrix-agent.db-wal"),
            busy / 60.0 * 100.0
        );
        row(&format!("minute {minute}"), "flat", &latency, &memory, "");
    }
}

/// When a person asks.
struct Pace {
    room: u64,
    rooms: u64,
    rate: u64,
    begun: Instant,
    until: Instant,
}

/// One person asks at their times until the end; returns how often the server took the question.
fn ask(mut person: Terminal, state: &Path, pace: &Pace, taken: &Mutex<Minute>, failed: &Mutex<Vec<String>>) -> u64 {
    let pause = Duration::from_secs_f64(pace.rooms as f64 / pace.rate as f64);
    let mut due = pace.begun + pause.mul_f64(pace.room as f64 / pace.rooms as f64);
    let (mut number, mut admitted) = (0, 0);
    while due < pace.until {
        let late = Instant::now() > due;
        // Nobody asks twice at once for having waited.
        due = due.max(Instant::now());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let what = if (number + pace.room).is_multiple_of(COMMANDS) { "run a command" } else { "say something" };
        let answered = person.try_ask(&format!("{what}, for the {number}th time"));
        let mut minute = taken.lock().unwrap();
        minute.late += usize::from(late);
        match answered {
            Ok(time) => minute.times.add(time),
            Err(_) => minute.failed += 1,
        }
        drop(minute);
        number += 1;
        admitted += 1;
        due += pause;
        if let Err(failure) = answered {
            admitted -= u64::from(!failure.is_taken);
            let at = pace.begun.elapsed().as_secs();
            failed.lock().unwrap().push(format!("room {}, second {at}: {}", pace.room, failure.words));
            if failure.is_lost {
                person = Terminal::join(state, &format!("room-{}", pace.room));
            }
        }
    }
    admitted
}

/// Answers a request: with a call where one is asked for, then with some words.
fn reply(request: &[u8], answer: &mut Answer) {
    let parsed: Value = serde_json::from_slice(request).unwrap();
    let messages = parsed["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last = messages.last().cloned().unwrap_or_default();
    let runs = last["role"] == "user" && last["content"].to_string().contains("run a command");
    let (delta, reason) = if runs {
        // Each another one, for the same call again and again would be a loop.
        (model::command(&format!("echo {}", messages.len())), "tool_calls")
    } else {
        (model::text(&"Here are some words, as an answer has them. ".repeat(10)), "stop")
    };
    answer.begin(&delta);
    answer.write(&Answer::last(reason, request.len() / TOKEN));
}

/// Tells whether each question was answered once, as the database has it.
fn tell_once(database: &Path, asked: u64) -> bool {
    let connection =
        rusqlite::Connection::open_with_flags(database, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let count = |query: &str| connection.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs();
    // The last confirmations may be on their way.
    rig::wait("the answers to be noted as sent", || {
        count("SELECT count(*) FROM outbox WHERE sent IS NULL")
            + count("SELECT count(*) FROM turns WHERE state <> 'closed'")
            == 0
    });
    let questions = count("SELECT count(*) FROM inbound");
    let done = count("SELECT count(*) FROM turns WHERE state = 'closed' AND outcome = 'done'");
    let once = count(
        "SELECT count(*) FROM (SELECT i.event FROM inbound i JOIN outbox o ON o.turn = i.turn
         WHERE o.payload ->> 'kind' = 'answer' AND o.payload ->> 'asked' = i.event GROUP BY i.event HAVING count(*) = 1)",
    );
    let answers = count("SELECT count(*) FROM outbox WHERE payload ->> 'kind' = 'answer'");
    let told = format!("{questions} in the journal, {once} answered once, {done} turns done, {answers} answers in all");
    let good = (questions, once, answers) == (asked, asked, asked);
    row("questions asked, each answered once", &asked.to_string(), &told, "", if good { "yes" } else { "NO" });
    good
}

/// Processor time in seconds.
fn cpu(pid: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
