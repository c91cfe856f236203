//! The real server in a turn: the time from the end of the model's tool call to the arrival of the next request at the
//! model, with `true` as the command and 200 KB of context, all writing down included; and the idle server's memory.

use std::{
    fs,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rig::{BARE, Chat, Rig};
use support::{
    Times, end, memory,
    model::{self, Answer},
    row, table,
};

#[expect(dead_code, unreachable_pub, reason = "as in the tests, of which this is a part")]
#[path = "../tests/support/rig.rs"]
mod rig;
mod support;

const TURNS: usize = 4;
const CALLS: usize = 30;
/// Bytes of the first prompt, which all requests then carry. With what comes after it they have 200 KB in the middle.
const CONTEXT: usize = 175_000;

fn main() {
    let model = Model::start();
    let mut rig = Rig::new(BARE, &model.base_url);
    rig.set("RUST_LOG", "info");
    rig.configure("[models.\"openai/scripted\"]\ncontext_window = 400000\n");
    rig.set("MAX_AGENT_TURNS", &(CALLS + 5).to_string());
    let started = Instant::now();
    table("A turn");

    let server = rig.serve();
    std::thread::sleep(Duration::from_secs(3)); // what a start leaves behind settles
    let pid = server.pid().to_string();
    let [rss, pss] = ["Rss", "Pss"].map(|figure| memory(&pid, "smaps_rollup", figure));

    let words = "The quick brown fox jumps over the lazy dog, again and again. ";
    for turn in 0..=TURNS {
        // The first turn starts the sandbox and brings the context; it does not count.
        let prompt = if turn == 0 { words.repeat(CONTEXT / words.len()) } else { format!("Turn {turn}.") };
        let file = rig.path().join("prompt");
        fs::write(&file, prompt).unwrap();
        let mut chat = rig.command(&["chat", "--json", "--room", "bench"]);
        chat.stdin(fs::File::open(&file).unwrap()).stderr(Stdio::null());
        let (code, frames) = Chat::start(chat).finish();
        assert_eq!(code, 0, "{frames:#?}\n{}", server.log());
        let taken = model.turn_ended();
        assert_eq!(taken.len(), CALLS, "{frames:#?}");
        if turn > 0 {
            let mut all = model.times.lock().unwrap();
            for time in taken {
                all.add(time);
            }
        }
    }

    let times = model.times.lock().unwrap();
    row(
        &format!("the model's tool call → the next request at the model, p50 / p95 of {}", times.count()),
        "≤ 2.5 / 5 ms",
        &format!("{:.2} / {:.2} ms", times.median(), times.percentile(95)),
        &format!("requests of {:.0} KB", model.longest() / 1e3),
        "",
    );
    row("the idle server, resident memory (proportional)", "≤ 20 MB", &format!("{rss:.1} MB ({pss:.1})"), "", "");
    let [rss, pss] = ["Rss", "Pss"].map(|figure| memory(&pid, "smaps_rollup", figure));
    row("the same after these turns", "", &format!("{rss:.1} MB ({pss:.1})"), "", "");
    end(started);
}

/// A model on a plain socket, so that the times are those of the bytes: it answers every request with one call, and
/// after so many with a word.
struct Model {
    base_url: String,
    state: Arc<Mutex<State>>,
    times: Mutex<Times>,
}

#[derive(Default)]
struct State {
    calls: usize,
    /// When the call was sent that the next request answers.
    sent: Option<Instant>,
    taken: Vec<Duration>,
    longest: usize,
}

impl Model {
    fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let base_url = model::serve(move |request, answer| reply(request.len(), answer, &shared));
        Self { base_url, state, times: Mutex::default() }
    }

    /// Returns the times of the turn that has ended.
    fn turn_ended(&self) -> Vec<Duration> {
        let mut state = self.state.lock().unwrap();
        state.calls = 0;
        std::mem::take(&mut state.taken)
    }

    fn longest(&self) -> f64 {
        self.state.lock().unwrap().longest as f64
    }
}

/// Answers a request of this length.
fn reply(length: usize, answer: &mut Answer, state: &Mutex<State>) {
    let arrived = Instant::now();
    let mut state = state.lock().unwrap();
    if let Some(sent) = state.sent.take() {
        state.taken.push(arrived - sent);
    }
    state.longest = state.longest.max(length);
    state.calls += 1;
    let number = state.calls;
    // Each another line, for the same call with the same result again and again would be a loop.
    let (delta, reason) = match number {
        1..=CALLS => (model::command(&format!("true {number}")), "tool_calls"),
        _ => (model::text("Done."), "stop"),
    };
    answer.begin(&delta);
    let last = Answer::last(reason, 60_000);
    state.sent = (number <= CALLS).then(Instant::now); // before the write: ours is what the write costs, too
    drop(state);
    answer.write(&last);
}
