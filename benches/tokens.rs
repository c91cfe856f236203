//! What the requests of a whole task cost at a model's provider, beside mini-swe-agent, the leanest agent that we know: both
//! run the same commands with the same output, told by one scripted model. A cost is the bytes that are sent; what stands
//! unchanged at the start since the request before counts a tenth, as at a provider that caches.
//!
//! mini-swe-agent comes from PyPI (750 MB with what it needs): only with `BENCH_MINI_SWE_AGENT=1` is it installed, into
//! `target/`, and run; without it only our own figures are printed. It works in a folder of the host, we in a sandbox.

use std::{
    fs,
    io::{BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use matrix_agent::ids::random;
use serde_json::{Value, json};

use rig::{BARE, Chat, Rig};
use support::{end, model, row, table};

#[expect(dead_code, unreachable_pub, reason = "as in the tests, of which this is a part")]
#[path = "../tests/support/rig.rs"]
mod rig;
mod support;

/// What both run in place of real commands.
const OUTPUTS: &str = include_str!("support/outputs.sh");
const TEN: [&str; 10] = ["listing", "source", "install", "build", "tests", "grep", "failing", "logs", "diff", "short"];
const SIXTY: [&str; 6] = ["source", "build", "grep", "tests", "diff", "failing"];
const MINI: &str = "mini-swe-agent==2.4.6";
/// The model's window, in tokens: what most have.
const WINDOW: u64 = 131_072;
/// The longest task may take so long.
const LIMIT: Duration = Duration::from_mins(5);

fn main() {
    let started = Instant::now();
    let mini = std::env::var_os("BENCH_MINI_SWE_AGENT").is_some().then(installed);
    let model = Model::start();
    table("The bytes of a task");
    let ten: Vec<_> = TEN.iter().map(|&kind| (kind, 1)).collect();
    let sixty =
        |kinds: &[&'static str]| (0..60).map(|number| (kinds[number % kinds.len()], number)).collect::<Vec<_>>();
    for (what, goal, task) in [
        ("ten commands with mixed output", "≤ 1.0 ×", ten),
        ("sixty commands with 8 KB each, of mixed kinds", "≤ 0.4 ×", sixty(&SIXTY)),
        ("sixty commands with 8 KB each in which nothing repeats", "", sixty(&["source", "grep", "diff"])),
    ] {
        let ours = cost(&model.play("run_command", &task, run_ours));
        let theirs =
            mini.as_deref().map(|mini| cost(&model.play("bash", &task, |model| run_mini(mini, &model.base_url))));
        let (compared, ratio) = theirs.map_or_else(Default::default, |theirs| {
            assert_eq!(ours.requests, theirs.requests, "both are asked as often");
            (theirs.to_string(), format!("{:.2} ×", ours.bytes / theirs.bytes))
        });
        row(what, goal, &ours.to_string(), &compared, &ratio);
    }
    end(started);
}

/// What the requests of a task came to.
struct Cost {
    requests: usize,
    first: usize,
    bytes: f64,
    /// Requests that did not begin with nearly all of the one before.
    breaks: usize,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { requests, first, bytes, breaks } = self;
        let (bytes, first) = (bytes / 1e3, *first as f64 / 1e3);
        write!(f, "{bytes:.0} KB in {requests} requests, the first of {first:.1} KB; {breaks} begin anew")
    }
}

fn cost(requests: &[Value]) -> Cost {
    let mut cost = Cost { requests: requests.len(), first: 0, bytes: 0.0, breaks: 0 };
    let mut before = String::new();
    for request in requests {
        // As a model reads it: the tools, then the messages.
        let mut rest = request.clone();
        let parts = ["tools", "messages"].map(|part| rest[part].take().to_string());
        let now = format!("{}{}", parts[0], parts[1].trim_end_matches(']'));
        let same = before.bytes().zip(now.bytes()).take_while(|(before, now)| before == now).count();
        let new = now.len() - same + rest.to_string().len();
        if before.is_empty() {
            cost.first = new;
        } else if same * 100 < before.len() * 95 {
            cost.breaks += 1;
        }
        cost.bytes += new as f64 + same as f64 / 10.0;
        before = now;
    }
    cost
}

fn run_ours(model: &Model) {
    let mut rig = Rig::new(BARE, &model.base_url);
    rig.configure(&format!("[models.\"openai/scripted\"]\ncontext_window = {WINDOW}\n"));
    rig.set("MAX_AGENT_TURNS", "100");
    rig.set("RUST_LOG", "info");
    let server = rig.serve();
    let ask = |words: &str| {
        let (code, frames) = Chat::start(rig.command(&["chat", "--json", "--room", "bench", "-p", words])).finish();
        assert_eq!(code, 0, "{frames:#?}\n{}", server.log());
    };
    // The sandbox gets the script in a conversation of its own.
    let write = format!("cat > outputs.sh <<'END_OF_SCRIPT'\n{OUTPUTS}END_OF_SCRIPT");
    let commands = std::mem::replace(&mut model.script.lock().unwrap().commands, vec![write]);
    ask("Write the script.");
    ask("!new");
    {
        let mut script = model.script.lock().unwrap();
        script.commands = commands;
        script.requests.clear();
    }
    ask(TASK);
}

const TASK: &str =
    "Find out why the orders of some customers are counted twice, mend it, and check that the tests pass.";

fn run_mini(program: &Path, base_url: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("outputs.sh"), OUTPUTS).unwrap();
    let mut mini = Command::new(program);
    mini.args([
        "--yolo",
        "--exit-immediately",
        "--model",
        "openai/scripted",
        "--task",
        TASK,
        "--output",
        "trajectory.json",
    ]);
    mini.current_dir(folder.path()).env("HOME", folder.path()).env("MSWEA_GLOBAL_CONFIG_DIR", folder.path());
    mini.env("MSWEA_CONFIGURED", "true").env("MSWEA_COST_TRACKING", "ignore_errors");
    mini.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("OPENAI_API_KEY", "none").env("OPENAI_API_BASE", base_url);
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let mut child = mini.stdin(Stdio::null()).stderr(log.try_clone().unwrap()).stdout(log).spawn().unwrap();
    let end = Instant::now() + LIMIT;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > end => child.kill().unwrap(),
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    assert!(status.success(), "{}", fs::read_to_string(folder.path().join("log")).unwrap());
}

/// Installs mini-swe-agent if it is not there, and returns its program.
fn installed() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(MINI.replace("==", "-"));
    let program = folder.join("bin/mini");
    if !program.exists() {
        let run = |program: &Path, arguments: &[&str]| {
            let status = Command::new(program).args(arguments).status().unwrap();
            assert!(status.success(), "{} {arguments:?}", program.display());
        };
        run(Path::new("python3"), &["-m", "venv", folder.to_str().unwrap()]);
        run(&folder.join("bin/pip"), &["install", "--quiet", MINI]);
    }
    program
}

/// A model that has a task done: each request is answered by the next of its commands, the last by a word.
struct Model {
    base_url: String,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    /// As the agent that is asked calls it.
    tool: &'static str,
    commands: Vec<String>,
    requests: Vec<Value>,
}

impl Model {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script::default()));
        let shared = Arc::clone(&script);
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let script = Arc::clone(&shared);
                std::thread::spawn(move || serve(connection, &script));
            }
        });
        Self { base_url, script }
    }

    /// Has an agent do a task and returns its requests.
    fn play(&self, tool: &'static str, task: &[(&'static str, usize)], agent: impl FnOnce(&Self)) -> Vec<Value> {
        let commands = task.iter().map(|(kind, number)| format!("sh outputs.sh {kind} {number}")).collect();
        *self.script.lock().unwrap() = Script { tool, commands, requests: Vec::new() };
        agent(self);
        std::mem::take(&mut self.script.lock().unwrap().requests)
    }
}

/// Answers the requests of one connection.
fn serve(connection: TcpStream, script: &Mutex<Script>) {
    connection.set_nodelay(true).unwrap();
    let (mut reader, mut writer) = (BufReader::new(connection.try_clone().unwrap()), connection);
    while let Some(length) = model::read_head(&mut reader) {
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        // A server that is asked what it holds has no body, and gets no answer that it could use.
        let request: Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = answer(&mut script.lock().unwrap(), &request);
        let reason = if message.get("tool_calls").is_some() { "tool_calls" } else { "stop" };
        // What a provider would count, roughly.
        let usage = json!({"prompt_tokens": length / 4, "completion_tokens": 20, "total_tokens": length / 4 + 20});
        let (label, body) = if request["stream"] == true {
            let delta = json!({"choices": [{"index": 0, "delta": message, "finish_reason": reason}]});
            let last = json!({"choices": [], "usage": usage});
            ("text/event-stream", format!("data: {delta}\n\ndata: {last}\n\ndata: [DONE]\n\n"))
        } else {
            let choice = json!({"index": 0, "message": message, "finish_reason": reason});
            let whole = json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "scripted",
                "choices": [choice], "usage": usage});
            ("application/json", whole.to_string())
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {label}\r\ncontent-length: {}\r\n\r\n", body.len());
        writer.write_all([head, body].concat().as_bytes()).unwrap();
    }
}

fn answer(script: &mut Script, request: &Value) -> Value {
    if request["messages"].is_null() {
        return json!({});
    }
    let number = script.requests.len();
    script.requests.push(request.clone());
    let command = match script.commands.get(number) {
        Some(command) => command.as_str(),
        // Its way to say that it is done.
        None if script.tool == "bash" => "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT",
        None => return json!({"role": "assistant", "content": "Done."}),
    };
    let arguments = json!({"command": command}).to_string();
    let call = json!({"index": 0, "id": format!("call_{}", random(6)), "type": "function",
        "function": {"name": script.tool, "arguments": arguments}});
    json!({"role": "assistant", "content": "I look at the next part.", "tool_calls": [call]})
}
