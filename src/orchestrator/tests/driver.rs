//! The driver with a real store and a model behind HTTP; only the tools are scripted.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, mpsc},
    time::{self, timeout},
};
use tokio_util::sync::CancellationToken;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate, matchers::any};

use super::*;
use crate::{
    clock::Clock,
    config::{PerMillion, Price},
    ids::{Address, TurnId},
    ledger::{DayLimits, Ledger, ORCHESTRATOR, Prices, Rules, Spending, Tokens},
    llm::{Model, ModelSettings},
    orchestrator::{
        Enclosure, Outcome, Progress, Start, Taken,
        driver::{SETTLE, Turn},
        hands::Toolbox,
        journal::Journal,
    },
    pictures::Gallery,
    store::{Conversation, Durability, NewInbound, Store},
    strings::turns,
    tools::{Attachment, Steering, ToolProgress, ToolResult},
};

/// What a scripted call does.
pub(in crate::orchestrator) type Script = Arc<
    dyn Fn(CallToRun, String, CancellationToken, mpsc::Sender<ToolProgress>, Steering) -> BoxFuture<'static, ToolResult>
        + Send
        + Sync,
>;

/// No wait in a test is longer.
const LIMIT: Duration = Duration::from_secs(20);

/// A model that says what it is told, one answer a request.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<VecDeque<String>>>);

impl Respond for Lines {
    fn respond(&self, _: &Request) -> ResponseTemplate {
        match self.0.lock().unwrap().pop_front() {
            Some(body) => ResponseTemplate::new(200).set_body_raw(body, "text/event-stream"),
            None => ResponseTemplate::new(400).set_body_string("nothing more to say"),
        }
    }
}

fn stream(delta: &Value, finish: &str) -> String {
    let first = json!({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
    let last = json!({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": {}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010}});
    format!("data: {first}\n\ndata: {last}\n\ndata: [DONE]\n\n")
}

fn says(text: &str) -> String {
    stream(&json!({"role": "assistant", "content": text}), "stop")
}

fn asks(calls: &[(&str, &str)]) -> String {
    let calls = calls.iter().enumerate().map(|(index, (name, arguments))| {
        json!({"index": index, "id": format!("c{index}"), "type": "function",
            "function": {"name": name, "arguments": arguments}})
    });
    stream(&json!({"role": "assistant", "tool_calls": calls.collect::<Vec<_>>()}), "tool_calls")
}

struct Rig {
    server: MockServer,
    store: Store,
    folder: tempfile::TempDir,
    steer: mpsc::Sender<UserMessage>,
    progress: Option<mpsc::Receiver<Progress>>,
    stop: CancellationToken,
    rules: Rules,
}

impl Rig {
    /// A room in which anna has asked for something, and a model that will say `lines`.
    async fn new(lines: &[String]) -> Self {
        let server = MockServer::start().await;
        let said = Lines(Arc::new(Mutex::new(lines.iter().cloned().collect())));
        Mock::given(any()).respond_with(said).mount(&server).await;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), Durability::Normal, Clock::fixed_at(1_000_000)).unwrap();
        let (steer, stop) = (mpsc::channel(1).0, CancellationToken::new());
        let rig = Self { server, store, folder, steer, progress: None, stop, rules: Rules::default() };
        rig.admit("e0").await;
        let first = serde_json::to_value(said_by_anna("e0").to_line()).unwrap();
        rig.store.open_turn(&at(), &turn(), vec!["e0".into()], first).await.unwrap();
        rig
    }

    async fn admit(&self, event: &str) {
        let new = NewInbound {
            room: address().room,
            event: event.into(),
            sender: "anna".into(),
            body: Value::Null,
            target: None,
        };
        self.store.admit("coder", vec![new], vec![], None).await.unwrap();
    }

    /// What was counted, once all is settled.
    async fn spent(&self) -> Vec<Spending> {
        self.store.take_turn().await.unwrap();
        self.store.spending(&address(), 1).await.unwrap()
    }

    fn turn(&mut self, script: Script) -> Turn {
        let mut settings = ModelSettings::new("openai/test", SecretString::from("key"));
        settings.base_url = Some(format!("{}/v1", self.server.uri()));
        settings.context_window = Some(32_768); // so that it is not asked
        let (steer, steering) = mpsc::channel(16);
        let (progress, seen) = mpsc::channel(64);
        (self.steer, self.progress) = (steer, Some(seen));
        Turn {
            model: Model::new(settings).unwrap(),
            ledger: Ledger::new(self.store.clone(), self.rules.clone()),
            journal: self.journal(turn()),
            tools: Toolbox::Scripted(script),
            limits: TurnLimits::default(),
            steering,
            progress,
            stop: self.stop.clone(),
        }
    }

    fn journal(&self, turn: TurnId) -> Journal {
        let gallery = Gallery::new(self.folder.path().join("pictures"));
        Journal { store: self.store.clone(), at: at(), turn, person: "anna".to_owned(), gallery }
    }

    async fn run(&mut self, start: Start, script: Script) -> Outcome {
        let turn = self.turn(script);
        timeout(LIMIT, turn.run(start)).await.expect("the turn ends")
    }

    /// What the model was sent, each request's messages in lines.
    async fn heard(&self) -> Vec<Vec<String>> {
        let requests = self.server.received_requests().await.unwrap();
        let bodies = requests.iter().map(|request| request.body_json::<Value>().unwrap());
        let brief = |message: &Value| {
            let calls = message["tool_calls"].as_array().map_or(0, Vec::len);
            format!("{}: {} [{calls}]", message["role"].as_str().unwrap(), message["content"].as_str().unwrap_or("-"))
        };
        bodies.map(|body| body["messages"].as_array().unwrap()[1..].iter().map(brief).collect()).collect()
    }

    /// The calls without a result.
    async fn unanswered(&self) -> usize {
        let rows = self.store.turn_history(&address(), &turn()).await.unwrap();
        rows.iter().flat_map(|row| &row.calls).filter(|call| call.ended.is_none()).count()
    }

    fn seen(&mut self) -> Vec<Progress> {
        let progress = self.progress.as_mut().unwrap();
        std::iter::from_fn(|| progress.try_recv().ok()).collect()
    }
}

fn at() -> Conversation {
    Conversation { address: address(), bot: "coder".into() }
}

fn address() -> Address {
    Address { account: "coder".into(), room: "terminal:one".into() }
}

/// Returns a footer without the time that the turn took, which is the machine's.
fn without_time(footer: &str) -> &str {
    footer.rsplit_once(" · ").unwrap().0
}

fn turn() -> TurnId {
    "turn".into()
}

fn said_by_anna(event: &str) -> UserMessage {
    said(event, &format!("words of {event}"))
}

fn result(text: &str) -> ToolResult {
    ToolResult { text: text.into(), summary: format!("did {text}"), ok: true, ..ToolResult::default() }
}

/// Every call gives back its arguments.
fn echo() -> Script {
    Arc::new(|call, _, _, lines, _| {
        Box::pin(async move {
            let _ = lines.try_send(ToolProgress::Output("a line".into()));
            tokio::task::yield_now().await;
            result(&call.arguments)
        })
    })
}

const LS: (&str, &str) = ("run_command", r#"{"command":"ls"}"#);

#[tokio::test]
async fn a_turn_runs_from_its_message_to_its_answer() {
    let mut rig = Rig::new(&[asks(&[LS]), says("There are two files.")]).await;
    let outcome = rig.run(Start::New, echo()).await;
    assert_eq!((outcome.text.as_str(), outcome.ending), ("There are two files.", Ending::Done));
    assert_eq!(without_time(&outcome.footer), "2 turns · 1 tool · 2k tokens");
    assert_eq!(outcome.line.unwrap()["origin"], json!({"from": "final", "status": "done"}));
    assert_eq!(
        rig.heard().await,
        [
            vec!["user: anna: words of e0 [0]"],
            vec!["user: anna: words of e0 [0]", "assistant:  [1]", r#"tool: {"command":"ls"} [0]"#],
        ]
    );
    assert_eq!(rig.unanswered().await, 0);
    let spent = rig.spent().await;
    assert_eq!((spent[0].tokens, spent[0].requests), (Tokens { input: 2000, cached: 0, output: 20 }, 2));
    assert_eq!((spent[0].person.as_str(), spent[0].agent.as_str(), spent.len()), ("anna", ORCHESTRATOR, 1));
    let seen: Vec<String> = rig.seen().iter().map(|progress| format!("{progress:?}")).collect();
    insta::assert_snapshot!(seen.join("\n"), @r#"
    Thinking
    ToolStarted { call: CallId("6892e655d3c528ba-1-0"), name: "run_command", detail: "ls" }
    ToolOutput { call: CallId("6892e655d3c528ba-1-0"), line: "a line" }
    ToolEnded { call: CallId("6892e655d3c528ba-1-0"), summary: "did {\"command\":\"ls\"}", ok: true }
    Thinking
    Text("There are two files.")
    "#);
}

#[tokio::test]
async fn a_stop_ends_what_runs_and_answers_every_call() {
    let mut rig = Rig::new(&[asks(&[LS, LS])]).await;
    let (ended, mut has_ended) = mpsc::channel(4);
    let stop = rig.stop.clone();
    let script: Script = Arc::new(move |_, _, cancel, _, _| {
        let (ended, stop) = (ended.clone(), stop.clone());
        Box::pin(async move {
            stop.cancel();
            cancel.cancelled().await;
            ended.send(()).await.unwrap();
            result("too late")
        })
    });
    let outcome = rig.run(Start::New, script).await;
    assert_eq!((outcome.text.as_str(), outcome.ending), (turns::STOPPED, Ending::Stopped));
    assert_eq!(has_ended.recv().await, Some(()), "the call was told and waited for");
    assert_eq!(has_ended.recv().await, None, "the second never began");
    assert_eq!(rig.unanswered().await, 0);
}

#[tokio::test]
async fn a_call_that_is_slow_to_stop_is_ended_behind_the_turn() {
    let mut rig = Rig::new(&[asks(&[LS])]).await;
    let (ended, mut has_ended) = mpsc::channel(1);
    let (stop, gate) = (rig.stop.clone(), Arc::new(Notify::new()));
    let opens = Arc::clone(&gate);
    let script: Script = Arc::new(move |_, _, cancel, _, _| {
        let (ended, stop, gate) = (ended.clone(), stop.clone(), Arc::clone(&gate));
        Box::pin(async move {
            stop.cancel();
            cancel.cancelled().await;
            time::pause();
            time::advance(SETTLE).await;
            time::resume();
            gate.notified().await;
            ended.send(()).await.unwrap();
            result("ended at last")
        })
    });
    let outcome = rig.run(Start::New, script).await;
    assert_eq!((outcome.text.as_str(), outcome.ending), (turns::STOPPED, Ending::Stopped));
    assert_eq!(rig.unanswered().await, 0);
    opens.notify_one();
    let ended = timeout(LIMIT, has_ended.recv()).await.unwrap();
    assert_eq!(ended, Some(()), "what it had to end was not left running");
}

#[tokio::test]
async fn what_is_said_meanwhile_is_claimed_and_shown_after_the_batch() {
    let mut rig = Rig::new(&[asks(&[LS]), says("In German, then.")]).await;
    rig.admit("e1").await;
    let inbox: Arc<Mutex<Option<mpsc::Sender<UserMessage>>>> = Arc::default();
    let steer = Arc::clone(&inbox);
    let script: Script = Arc::new(move |_, _, _, _, _| {
        let steer = steer.lock().unwrap().take().unwrap();
        Box::pin(async move {
            steer.send(said_by_anna("e1")).await.unwrap();
            // Until the driver has taken it, the call does not end.
            steer.reserve_many(16).await.unwrap();
            result("done")
        })
    });
    let turn_to_run = rig.turn(script);
    *inbox.lock().unwrap() = Some(rig.steer.clone());
    let outcome = timeout(LIMIT, turn_to_run.run(Start::New)).await.unwrap();
    assert_eq!(outcome.text, "In German, then.");
    let claimed = rig.store.claimed(&turn()).await.unwrap();
    assert_eq!(claimed.iter().map(|event| event.event.as_str()).collect::<Vec<_>>(), ["e0", "e1"]);
    assert_eq!(rig.heard().await[1][2..], ["tool: done [0]", "user: anna: words of e1 [0]"]);
    assert!(rig.seen().iter().any(|progress| matches!(progress, Progress::Seen(event) if event.as_str() == "e1")));
}

#[tokio::test]
async fn a_running_call_gets_what_is_said_once_it_is_stored() {
    let mut rig = Rig::new(&[asks(&[LS]), says("In German, then.")]).await;
    rig.admit("e1").await;
    let inbox: Arc<Mutex<Option<mpsc::Sender<UserMessage>>>> = Arc::default();
    let (steer, store) = (Arc::clone(&inbox), rig.store.clone());
    let script: Script = Arc::new(move |call, _, _, _, mut steering| {
        let (steer, store) = (steer.lock().unwrap().take().unwrap(), store.clone());
        Box::pin(async move {
            assert_eq!(steering.take().await, None, "nothing waits");
            steer.send(said_by_anna("e1")).await.unwrap();
            steering.changed().await;
            assert!(steering.waits());
            let word = steering.take().await.unwrap();
            let stored = store.turn_history(&address(), &turn()).await.unwrap().pop().unwrap();
            assert_eq!(stored.message["origin"], json!({"from": "person", "event": "e1", "taken_by": call.id}));
            steering.changed().await;
            assert!(!steering.waits());
            result(&format!("told: {}", word.text))
        })
    });
    let turn_to_run = rig.turn(script);
    *inbox.lock().unwrap() = Some(rig.steer.clone());
    let outcome = timeout(LIMIT, turn_to_run.run(Start::New)).await.unwrap();
    assert_eq!(outcome.text, "In German, then.");
    let claimed = rig.store.claimed(&turn()).await.unwrap();
    assert_eq!(claimed.iter().map(|event| event.event.as_str()).collect::<Vec<_>>(), ["e0", "e1"]);
    assert_eq!(rig.heard().await[1][2..], ["tool: told: anna: words of e1 [0]", "user: anna: words of e1 [0]"]);
    assert!(rig.seen().iter().any(|progress| matches!(progress, Progress::Seen(event) if event.as_str() == "e1")));
    // The next turn reads the same.
    let history = rig.journal("next".into()).load(false).await.unwrap().history;
    let history: Vec<_> = history.iter().map(|line| brief(&line.message)).collect();
    assert_eq!(history[2..], ["c0: told: anna: words of e1", "user: anna: words of e1"]);
}

#[tokio::test]
async fn a_turn_that_was_cut_off_looks_its_call_up_and_goes_on() {
    let mut rig = Rig::new(&[asks(&[LS]), says("It went on without me.")]).await;
    let (began, mut has_begun) = mpsc::channel(1);
    let hangs: Script = Arc::new(move |_, _, _, _, _| {
        let began = began.clone();
        Box::pin(async move {
            began.send(()).await.unwrap();
            std::future::pending().await
        })
    });
    let turn_to_run = rig.turn(hangs);
    tokio::select! {
        _ = turn_to_run.run(Start::New) => panic!("it cannot end"),
        begun = timeout(LIMIT, has_begun.recv()) => assert_eq!(begun.unwrap(), Some(())),
    }
    assert_eq!(rig.unanswered().await, 1, "dropped: the turn is open, its call's intent is stored");
    let seen = Arc::new(Mutex::new(vec![]));
    let calls = Arc::clone(&seen);
    let script: Script = Arc::new(move |call, boot, _, _, _| {
        calls.lock().unwrap().push((call.resumed, boot));
        Box::pin(async { result("what it wrote meanwhile") })
    });
    let outcome = rig.run(Start::Resumed { opened: 1_000_000 - 72_000 }, script).await;
    assert_eq!(outcome.text, "It went on without me.");
    assert_eq!(outcome.footer, "2 turns · 1 tool · 2k tokens · 1:12");
    assert_eq!(*seen.lock().unwrap(), [(Some("boot".to_owned()), "boot".to_owned())]);
    assert_eq!(rig.unanswered().await, 0);
}

#[tokio::test]
async fn a_file_is_stored_before_the_result_that_tells_of_it() {
    let mut rig = Rig::new(&[asks(&[("send_file", r#"{"path":"a.pdf"}"#)]), says("Here it is.")]).await;
    let script: Script = Arc::new(|_, _, _, _, _| {
        let file = Attachment { name: "a.pdf".into(), mime: "application/pdf".into(), data: "bytes".into() };
        Box::pin(async { ToolResult { attachments: vec![file], ..result("sent") } })
    });
    let turn_to_run = rig.turn(script);
    let mut progress = rig.progress.take().unwrap();
    let work = tokio::spawn(turn_to_run.run(Start::New));
    let stored = loop {
        let next = timeout(LIMIT, progress.recv()).await.unwrap().unwrap();
        if let Progress::Enclosure { key, enclosure: Enclosure::File { name, data, .. }, stored } = next {
            assert_eq!((key.as_str(), name.as_str(), &data[..]), ("6892e655d3c528ba-1-0-0", "a.pdf", &b"bytes"[..]));
            break stored;
        }
    };
    assert_eq!(rig.unanswered().await, 1, "the result waits for the file");
    stored.send(Taken::Stored).unwrap();
    assert_eq!(timeout(LIMIT, work).await.unwrap().unwrap().text, "Here it is.");
    assert_eq!(rig.heard().await[1][2], "tool: sent [0]");
}

#[tokio::test]
async fn what_a_call_says_last_is_shown_and_its_news_are_stored() {
    let mut rig = Rig::new(&[asks(&[("github", "{}")]), says("Opened.")]).await;
    let script: Script = Arc::new(|_, _, _, lines, _| {
        lines.try_send(ToolProgress::Notice("at last".into())).unwrap();
        Box::pin(async { ToolResult { told: Some("#1 is open".into()), ..result("opened") } })
    });
    let turn_to_run = rig.turn(script);
    let mut progress = rig.progress.take().unwrap();
    let work = tokio::spawn(turn_to_run.run(Start::New));
    let (mut noticed, mut stored_news) = (false, false);
    while !(noticed && stored_news) {
        match timeout(LIMIT, progress.recv()).await.unwrap().unwrap() {
            Progress::Notice(text) => noticed |= text == "at last",
            Progress::Enclosure { key, enclosure: Enclosure::News(text), stored } => {
                assert_eq!((key.as_str(), text.as_str()), ("6892e655d3c528ba-1-0-news", "#1 is open"));
                stored.send(Taken::Stored).unwrap();
                stored_news = true;
            }
            _ => {}
        }
    }
    assert_eq!(timeout(LIMIT, work).await.unwrap().unwrap().text, "Opened.");
}

#[tokio::test]
async fn a_file_that_nobody_takes_is_told_to_the_model() {
    let mut rig = Rig::new(&[asks(&[("send_file", r#"{"path":"a.pdf"}"#)]), says("It could not be sent.")]).await;
    let script: Script = Arc::new(|_, _, _, _, _| {
        let file = Attachment { name: "a.pdf".into(), mime: "application/pdf".into(), data: "bytes".into() };
        Box::pin(async { ToolResult { attachments: vec![file], ..result("sent") } })
    });
    let turn_to_run = rig.turn(script);
    rig.progress = None;
    timeout(LIMIT, turn_to_run.run(Start::New)).await.unwrap();
    assert!(rig.heard().await[1][2].contains("`a.pdf` could not be handed to the room"));
}

#[tokio::test]
async fn nobody_watching_does_not_hold_up_the_turn() {
    let lines: Vec<_> = (0..8).map(|n| asks(&vec![("read_file", &*format!(r#"{{"path":"{n}"}}"#)); 16])).collect();
    let mut rig = Rig::new(&[lines, vec![says("All read.")]].concat()).await;
    let outcome = rig.run(Start::New, echo()).await;
    assert_eq!((outcome.text.as_str(), outcome.ending), ("All read.", Ending::Done));
    assert_eq!(without_time(&outcome.footer), "9 turns · 128 tools · 9k tokens");
}

#[tokio::test]
async fn a_model_that_refuses_ends_the_turn_in_words() {
    let mut rig = Rig::new(&[]).await;
    let outcome = rig.run(Start::New, echo()).await;
    assert_eq!(outcome.ending, Ending::Failed);
    assert!(outcome.text.starts_with("The model's provider rejected the request (400)."), "{}", outcome.text);
}

#[tokio::test]
async fn a_day_without_tokens_ends_the_turn_and_the_next_goes_on_when_more_are_allowed() {
    let mut rig = Rig::new(&[asks(&[LS]), says("Two files.")]).await;
    rig.rules.limits = DayLimits { room: Some(1000), person: None };
    rig.rules.admins = vec!["@ann:a.org".to_owned()];
    let outcome = rig.run(Start::New, echo()).await;
    assert_eq!(outcome.ending, Ending::Limit);
    for part in ["its 1k tokens of today", "`@ann:a.org`", "`!budget 2k`", "stays in the workspace"] {
        assert!(outcome.text.contains(part), "{part:?} is not in {}", outcome.text);
    }
    assert_eq!(rig.heard().await.len(), 1, "the second request is not sent");
    rig.store.allow_room(&address(), 1200).await.unwrap();
    // The call's result stands in the history: the turn goes on where it was stopped.
    let outcome = rig.run(Start::Resumed { opened: 1_000_000 }, echo()).await;
    assert_eq!(outcome.ending, Ending::Done);
    assert_eq!(outcome.text, "Two files.\n\n⚠️ This room has used 80 % of its 1k tokens of today.");
    let seen = rig.progress.as_mut().unwrap();
    let mut shown = vec![];
    while let Ok(progress) = seen.try_recv() {
        shown.push(format!("{progress:?}"));
    }
    assert!(shown.iter().any(|shown| shown.starts_with("Notice(\"This room has used 80 %")), "{shown:#?}");
    assert_eq!(rig.spent().await[0].requests, 2);
}

#[tokio::test]
async fn what_models_cost_stands_under_the_answer() {
    let mut rig = Rig::new(&[asks(&[LS]), says("Two files.")]).await;
    let price = PerMillion::try_from(100.0).unwrap();
    let price = Price { input: price, cached: None, output: price };
    rig.rules.prices = Prices::new([("openai/test".to_owned(), price), ("agent".to_owned(), price)]);
    let script: Script = Arc::new(|_, _, _, _, _| {
        Box::pin(async {
            let mut result = result("done");
            let used = Tokens { input: 10_000, cached: 0, output: 0 };
            result.facts.used = vec![("agent".to_owned(), used)];
            result
        })
    });
    let outcome = rig.run(Start::New, script).await;
    assert!(outcome.footer.contains("2 turns · 1 tool · 12k tokens · $1.20 · "), "{}", outcome.footer);
}

#[tokio::test]
async fn the_next_turn_sees_the_last_one_and_its_own_compaction_survives_a_crash() {
    let mut rig = Rig::new(&[asks(&[LS]), says("Two files.")]).await;
    let outcome = rig.run(Start::New, echo()).await;
    rig.store.answer_turn(&address(), &turn(), "done", outcome.line, vec![]).await.unwrap();
    let journal = rig.journal("next".into());
    let first = serde_json::to_value(said_by_anna("e9").to_line()).unwrap();
    rig.store.open_turn(&at(), &"next".into(), vec![], first).await.unwrap();
    let loaded = journal.load(false).await.unwrap();
    assert_eq!((loaded.history.len(), loaded.stored.len()), (5, 1));
    // A compaction within the turn hides its first line from the model, not from the turn.
    journal.rebase(vec![Line::program(Note::Empty, "all that was".into())]).await.unwrap();
    let loaded = journal.load(true).await.unwrap();
    assert_eq!((loaded.history.len(), loaded.stored.len()), (1, 1));
    assert_eq!(brief(&loaded.stored[0].message), "user: anna: words of e9");
}

#[tokio::test]
async fn a_coding_agent_s_time_is_its_own() {
    for (tool, ending) in [("implement", Ending::Done), ("run_command", Ending::Limit)] {
        let lines = [asks(&[(tool, "{}")]), says("Done."), says("Done.")];
        let mut rig = Rig::new(&lines).await;
        let script: Script = Arc::new(|_, _, cancel, _, _| {
            Box::pin(async move {
                time::pause();
                time::advance(Duration::from_mins(20)).await;
                time::resume();
                tokio::task::yield_now().await;
                if cancel.is_cancelled() { result("cut") } else { result("whole") }
            })
        });
        let mut turn = rig.turn(script);
        turn.limits.time = Duration::from_mins(10);
        let outcome = timeout(LIMIT.max(Duration::from_hours(1)), turn.run(Start::New)).await.expect("the turn ends");
        assert_eq!(outcome.ending, ending, "{tool}: {}", outcome.text);
    }
}
