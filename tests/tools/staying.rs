//! Agents whose process stays when they have answered, with a program in the place of the CLI: it is asked again by the next
//! call, told what people say in the middle, and outlives the server. The real one is in `tests/coding_agents.rs`.

use matrix_agent::tools::{self, ToolContext, ToolProgress, ToolResult};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::{
    agents::{until, word},
    bench::{Bench, FULL, LIMIT, bad, good, open, run, steering},
};

/// In the place of Qwen Code: notes its start, and each question that it is asked. One that has `wait` in it works until there
/// is a file, or another question cuts it short.
const PROGRAM: &str = r#"#!/bin/bash
echo "$*" >> /tmp/starts
say() { printf '%s\n' "$1"; }
init() { say '{"type":"system","subtype":"init","session_id":"12345678-1234-4234-a234-123456789abc","model":"m"}'; }
step() {
    say '{"type":"assistant","message":{"content":[{"type":"tool_use","id":"1","name":"write_file","input":{"file_path":"'"$1"'"}}],"usage":{"input_tokens":41000,"output_tokens":1000}}}'
    say '{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"1","is_error":false}]}}'
}
result() { say '{"type":"result","subtype":"success","is_error":'"$1"',"result":"'"$2"'","usage":{"input_tokens":990000,"output_tokens":1000}}'; }
work() {
    init; step "question-$1"
    case $2 in *wait*) until [ -e /tmp/go ]; do sleep 0.05; done; rm /tmp/go ;; esac
    result false "Answer $1."
}
asked=0
while IFS= read -r line; do
    case $line in
        *'"subtype":"interrupt"'*) kill $worker 2>/dev/null; wait $worker; result true cancelled ;;
        *'"type":"user"'*)
            asked=$((asked + 1)); printf '%s\n' "$line" >> /tmp/asked
            case $line in *die*) exit 3 ;; esac
            work $asked "$line" & worker=$! ;;
    esac
done
"#;

/// A room with the program in place.
async fn bench() -> Bench {
    let bench = Bench::staying(FULL).await;
    let path = "/home/agent/.local/bin/qwen";
    good(&bench.call("write_file", json!({"path": path, "content": PROGRAM})).await, &[]);
    bench.sh(&format!("chmod +x {path}; touch /tmp/starts /tmp/asked")).await;
    bench
}

/// How many processes were started, and how many questions they were asked.
async fn counts(bench: &Bench) -> (usize, usize) {
    let told = bench.sh("wc -l < /tmp/starts; wc -l < /tmp/asked").await;
    let counts: Vec<usize> = told.lines().map(|line| line.parse().unwrap()).collect();
    (counts[0], counts[1])
}

const STAYS: &str = "bin/qwe[n]";

/// A call under way, as the store knows it.
struct Call {
    context: ToolContext,
    task: &'static str,
    progress: mpsc::Receiver<ToolProgress>,
    result: JoinHandle<ToolResult>,
    boot: String,
}

impl Call {
    async fn start(bench: &Bench, turn: &ToolContext, task: &'static str) -> Self {
        let (context, progress) = bench.context_in(turn);
        let calls = vec![context.call.clone()];
        bench.store.append_calls(&context.address, &context.turn, json!({}), calls).await.unwrap();
        let before = context.clone();
        let result = tokio::spawn(async move { run(&before, "implement", &json!({"task": task})).await });
        Self { context, task, progress, result, boot: bench.boot_id().await }
    }

    async fn state(&self, bench: &Bench) -> Value {
        bench.store.call_state(&self.context.call).await.unwrap().unwrap()
    }

    /// Loses the server.
    async fn lose(&mut self, bench: &mut Bench) {
        self.result.abort();
        let _ = (&mut self.result).await;
        bench.sandboxes.shutdown().await;
        bench.sandboxes = open(&bench.options).await;
    }

    /// Comes back; the call had taken these words.
    fn resume(&mut self, bench: &Bench, taken: &[&'static str]) {
        let taken = taken.iter().map(|text| word(text, text)).collect();
        let (steering, ..) = steering(&self.context.call, taken);
        let again = ToolContext { sandboxes: bench.sandboxes.clone(), steering, ..self.context.clone() };
        let (boot, asked) = (self.boot.clone(), json!({"task": self.task}).to_string());
        self.result = tokio::spawn(async move { tools::resume(&again, "implement", &asked, &boot).await });
    }

    async fn ended(self) -> ToolResult {
        timeout(LIMIT, self.result).await.unwrap().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_call_of_the_turn_asks_the_same_process_and_the_turn_s_end_ends_it() {
    let bench = bench().await;
    let (turn, _progress) = bench.context();
    for answer in ["Answer 1.", "Answer 2."] {
        let (context, _progress) = bench.context_in(&turn);
        let result = run(&context, "implement", &json!({"task": "x"})).await;
        // Its own count is one of its whole life.
        good(&result, &["done: Qwen Code", "42k tokens)", answer, "[the whole log: /home/agent/.cache/"]);
    }
    assert_eq!(counts(&bench).await, (1, 2));
    assert_eq!(bench.running(STAYS).await, "1");

    assert_eq!(
        bench.sh("cat /proc/$(pgrep -of bin/qwe[n])/oom_score_adj").await,
        "1000",
        "memory is taken from it first"
    );

    // Another role has a process of its own, which is not left. Held to a home of its own it cannot even note that it starts.
    let (context, _progress) = bench.context_in(&turn);
    good(&run(&context, "review", &json!({})).await, &["done: Qwen Code", "Answer 1."]);
    assert_eq!(bench.running(STAYS).await, "1");

    tools::turn_ended(&bench.sandboxes, &bench.address).await;
    assert_eq!(bench.running(STAYS).await, "0");
    let (context, _progress) = bench.context_in(&turn);
    good(&run(&context, "implement", &json!({"task": "x"})).await, &["Answer 1."]);
    let starts = bench.sh("cat /tmp/starts").await;
    let starts: Vec<_> = starts.lines().collect();
    assert!(starts.len() == 2 && starts[1].contains("--resume 12345678"), "it goes on in its session: {starts:?}");
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_died_or_did_something_by_itself_is_not_asked_again() {
    let bench = bench().await;
    let (turn, _progress) = bench.context();
    let asks = async |task: &str| {
        let (context, _progress) = bench.context_in(&turn);
        run(&context, "implement", &json!({"task": task})).await
    };
    good(&asks("x").await, &["Answer 1."]);
    bad(&asks("die").await, &["failed with exit code 3"]);
    good(&asks("x").await, &["Answer 1."]);
    // Something that it had begun in the background.
    bench.sh("pid=$(pgrep -of bin/qwe[n]); echo noise > /proc/$pid/fd/1").await;
    good(&asks("x").await, &["Answer 1."]);
    assert_eq!(bench.running(STAYS).await, "1", "the one before is ended");
    bench.sh("pkill -9 -f bin/qwe[n]; while pgrep -f bin/qwe[n] > /dev/null; do sleep 0.02; done").await;
    good(&asks("x").await, &["Answer 1."]);
    assert_eq!(counts(&bench).await.0, 4);
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_reaches_it_in_the_middle() {
    let bench = bench().await;
    let (turn, _progress) = bench.context();
    for task in ["wait", "wait again"] {
        let (context, mut progress) = bench.context_in(&turn);
        let (steering, waiting, mut takes) = steering(&context.call, vec![]);
        let context = ToolContext { steering, ..context };
        let call = tokio::spawn(async move { run(&context, "implement", &json!({"task": task})).await });
        until(&mut progress, "write file question-").await;
        waiting.send(2).unwrap();
        let events = [format!("{task} 1"), format!("{task} 2")];
        for said in [Some(word(&events[0], "no, in red")), Some(word(&events[1], "in blue")), None] {
            let take = timeout(LIMIT, takes.recv()).await.unwrap().unwrap();
            match said {
                Some(word) => take.word.send(word).unwrap(),
                None => drop(waiting.send(0)),
            }
        }
        let result = timeout(LIMIT, call).await.unwrap().unwrap();
        let answer = if task == "wait" { "Answer 2." } else { "Answer 4." };
        good(&result, &["done: ", "it was told, and went on with:\n- no, in red\n- in blue", answer]);
    }
    assert_eq!(counts(&bench).await, (1, 4));
    let last = bench.sh("tail -n 1 /tmp/asked").await;
    assert!(last.contains("no, in red") && last.contains("in blue"), "{last}");
    bench.close().await;
}

/// In the first call and in one that has found the process: it is followed on from where it stood, and asked nothing again.
#[tokio::test(flavor = "multi_thread")]
async fn it_outlives_the_server_and_is_left_for_the_next_call_all_the_same() {
    let mut bench = bench().await;
    let (turn, _progress) = bench.context();
    for answer in ["Answer 1.", "Answer 2."] {
        let mut call = Call::start(&bench, &turn, "wait").await;
        until(&mut call.progress, "write file question-").await;
        for go in ["true", "touch /tmp/go"] {
            call.lose(&mut bench).await;
            call.resume(&bench, &[]);
            until(&mut call.progress, "write file question-").await;
            bench.sh(go).await;
        }
        good(&call.ended().await, &["done: Qwen Code", "42k tokens)", answer]);
    }
    // One that answered while nobody was there.
    let mut call = Call::start(&bench, &turn, "wait").await;
    until(&mut call.progress, "write file question-").await;
    call.lose(&mut bench).await;
    bench.sh("touch /tmp/go; while [ -e /tmp/go ]; do sleep 0.05; done").await;
    call.resume(&bench, &[]);
    good(&call.ended().await, &["done: Qwen Code", "Answer 3."]);
    assert_eq!(counts(&bench).await, (1, 3));
    bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_lost_before_it_asked_did_not_run() {
    let bench = bench().await;
    let (turn, _progress) = bench.context();
    let (context, _progress) = bench.context_in(&turn);
    good(&run(&context, "implement", &json!({"task": "x"})).await, &["Answer 1."]);
    let mut asked = Call::start(&bench, &turn, "x").await;
    good(&(&mut asked.result).await.unwrap(), &["Answer 2."]);
    // What is kept just before the question is written, of another call.
    let mut state = asked.state(&bench).await;
    let lost = Call { result: tokio::spawn(std::future::pending()), context: bench.context_in(&turn).0, ..asked };
    let (call, boot) = (&lost.context.call, &lost.boot);
    state["id"] = json!(call.as_str());
    state["run"]["asked"] = json!({"asked": 1, "begun": 0, "answered": 0});
    state["run"]["ended"] = Value::Null;
    bench.store.append_calls(&turn.address, &turn.turn, json!({}), vec![call.clone()]).await.unwrap();
    bench.store.keep_call_state(call, state).await.unwrap();
    let before = counts(&bench).await;
    bad(&tools::resume(&lost.context, "implement", r#"{"task":"x"}"#, boot).await, &["Did not run"]);
    assert_eq!(counts(&bench).await, before);
    bench.close().await;
}

/// Lost before a word was written, after it was and before that was kept, and after: each time it is told once.
#[tokio::test(flavor = "multi_thread")]
async fn a_word_is_told_once_wherever_the_server_is_lost() {
    let mut bench = bench().await;
    let (turn, _progress) = bench.context();
    let mut call = Call::start(&bench, &turn, "wait").await;
    until(&mut call.progress, "write file question-1").await;
    call.lose(&mut bench).await;
    let before = call.state(&bench).await;
    call.resume(&bench, &["wait, in blue"]);
    // That it was told is shown until the agent's next step, which may come at once.
    until(&mut call.progress, "write file question-2").await;
    assert_eq!(counts(&bench).await, (1, 2));

    call.lose(&mut bench).await;
    let after = call.state(&bench).await;
    for state in [&before, &after] {
        bench.store.keep_call_state(&call.context.call, state.clone()).await.unwrap();
        call.resume(&bench, &["wait, in blue"]);
        until(&mut call.progress, "question-2").await;
        call.lose(&mut bench).await;
        assert_eq!(counts(&bench).await, (1, 2));
    }

    // It answers, and its process ends, while nobody is there and nobody knows that it was told.
    bench.store.keep_call_state(&call.context.call, before).await.unwrap();
    bench.sh("touch /tmp/go; while [ -e /tmp/go ] || [ $(pgrep -fc bin/qwe[n]) -gt 1 ]; do sleep 0.05; done; pkill -f bin/qwe[n]; true").await;
    call.resume(&bench, &["wait, in blue"]);
    let result = call.ended().await;
    assert!(
        result.text.contains("Answer 2.") && result.text.contains("went on with:\n- wait, in blue"),
        "{}",
        result.text
    );
    assert_eq!(counts(&bench).await, (1, 2));
    bench.close().await;
}
