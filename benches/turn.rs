//! The real server in a turn: the time from the end of the model's tool call to the arrival of the next request at the
//! model, with `true` as the command and 200 KB of context, all writing down included; and the idle server's memory.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use matrix_agent::ids::random;
use serde_json::{Value, json};

use rig::{BARE, Chat, Rig};
use support::{Times, end, memory, row, table};

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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(connection, &state));
            }
        });
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

/// Answers the requests of one connection.
fn serve(connection: TcpStream, state: &Mutex<State>) {
    connection.set_nodelay(true).unwrap();
    let (mut reader, mut writer) = (BufReader::new(connection.try_clone().unwrap()), connection);
    while let Some(length) = read_head(&mut reader) {
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let arrived = Instant::now();
        let mut state = state.lock().unwrap();
        if let Some(sent) = state.sent.take() {
            state.taken.push(arrived - sent);
        }
        state.longest = state.longest.max(length);
        state.calls += 1;
        let number = state.calls;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        writer.write_all(head.as_bytes()).unwrap();
        let (delta, reason) = if number <= CALLS { (call(number), "tool_calls") } else { (word(), "stop") };
        writer
            .write_all(&chunk(&event(&json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]}))))
            .unwrap();
        let mut last = event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}));
        last.push_str(&event(&json!({"choices": [], "usage": {"prompt_tokens": 60_000, "completion_tokens": 10}})));
        last += "data: [DONE]\n\n";
        let mut last = chunk(&last);
        last.extend_from_slice(b"0\r\n\r\n");
        state.sent = (number <= CALLS).then(Instant::now); // before the write: ours is what the write costs, too
        drop(state);
        writer.write_all(&last).unwrap();
    }
}

/// Reads a request's head and returns how long its body is; `None`: the connection has ended.
fn read_head(reader: &mut BufReader<TcpStream>) -> Option<usize> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            None if line.trim_end().is_empty() => return Some(length),
            _ => {}
        }
    }
}

fn call(number: usize) -> Value {
    // Each another line, for the same call with the same result again and again would be a loop.
    let arguments = json!({"command": format!("true {number}")}).to_string();
    let id = format!("call_{}", random(6));
    json!({"role": "assistant", "content": null,
        "tool_calls": [{"index": 0, "id": id, "type": "function", "function": {"name": "run_command", "arguments": arguments}}]})
}

fn word() -> Value {
    json!({"role": "assistant", "content": "Done."})
}

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}
