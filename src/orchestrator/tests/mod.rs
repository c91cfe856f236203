//! Plays turns without a model, tools or a store: a tiny driver that carries out the machine's actions, writes the
//! lines down, and checks after each step what must hold at all times.

mod chaos;
pub(super) mod driver;
mod mistakes;
mod room;
mod turn;

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    ids::CallId,
    llm::{AssistantMessage, Chunk, Completion, Finish, Message, Part, Remedy, ToldTokens, ToolCall, Usage},
    tools::Access,
};

use super::{
    Ending, TurnLimits, UserMessage,
    batch::{CallResult, CallToRun, KnownTool},
    event::{Action, Answer, Event, Request, TurnInput},
    line::{CallFacts, Edit, Line, Note, Origin},
    machine::Machine,
};

const TOOLS: &[KnownTool] = &[
    KnownTool { name: "read_file", access: Access::Shared },
    KnownTool { name: "run_command", access: Access::Exclusive },
    KnownTool { name: "edit_file", access: Access::Exclusive },
    KnownTool { name: "run_tests", access: Access::Exclusive },
];

/// A turn in play.
pub(super) struct Play {
    machine: Machine,
    limits: TurnLimits,
    window: u64,
    /// What the store shows the model of this room.
    context: Vec<Line>,
    /// How many of them a compaction has left.
    base: usize,
    /// This turn's lines.
    stored: Vec<Line>,
    /// The request under way.
    asked: Option<Request>,
    /// The messages of the last request of the conversation, to see that it only grows.
    last: Option<Arc<Vec<Message>>>,
    /// The calls under way.
    running: Vec<CallToRun>,
    /// What was said and no line has answered: the journal hands it in again after a crash.
    unclaimed: Vec<UserMessage>,
    /// The events that calls were given.
    passed: Vec<String>,
    /// Every call that was ever started, in order.
    started: Vec<CallToRun>,
    armed: Option<Duration>,
    /// What the room was shown, as it is printed for debugging.
    shown: Vec<String>,
    requests: u32,
    rebased: u32,
    /// The process dies after this many of the next event's actions.
    dies_after: Option<usize>,
    /// Calls that the room's earlier turns have left unanswered.
    lost: usize,
    /// The actions and events since the last look, a word each, for tables.
    log: String,
    answer: Option<Answer>,
}

impl Play {
    /// Begins a turn with one message in an empty room.
    pub(super) fn new() -> Self {
        Self::with(TurnLimits::default(), 200_000, vec![])
    }

    /// Begins a turn.
    pub(super) fn with(limits: TurnLimits, window: u64, history: Vec<Line>) -> Self {
        let first = said("e0", "fix the login").to_line();
        let mut context = history;
        context.push(first.clone());
        let stored = vec![first];
        let mut loaded = super::context::Context::new("system".into(), 100);
        loaded.extend(context.clone());
        let mut play = Self {
            lost: lost(&loaded.messages()),
            machine: machine(&limits, window, (&context, 0), &stored, HashMap::new()),
            limits,
            window,
            context,
            base: 0,
            stored,
            asked: None,
            last: None,
            running: vec![],
            unclaimed: vec![],
            passed: vec![],
            started: vec![],
            armed: None,
            shown: vec![],
            requests: 0,
            rebased: 0,
            dies_after: None,
            log: String::new(),
            answer: None,
        };
        play.feed(Event::Begin);
        play
    }

    /// The process dies and starts again: only what was stored is left.
    pub(super) fn crash(&mut self) {
        assert!(self.answer.is_none(), "an answered turn is not resumed");
        let boots = self.running.drain(..).map(|call| (call.id, "boot".to_owned())).collect();
        (self.asked, self.dies_after) = (None, None);
        // The store shows the same as before, but a result that came last may not have been looked at yet.
        self.last = None;
        self.machine = machine(&self.limits, self.window, (&self.context, self.base), &self.stored, boots);
        self.log.push_str(" crash");
        self.feed(Event::Begin);
        for message in self.unclaimed.clone() {
            if self.answer.is_none() && self.machine.listens() {
                self.feed(Event::Said(message));
            }
        }
    }

    /// Somebody speaks.
    pub(super) fn said(&mut self, event: &str, text: &str) {
        self.unclaimed.push(said(event, text));
        self.feed(Event::Said(said(event, text)));
    }

    /// A running call asks for what was said; returns what it is given.
    pub(super) fn takes(&mut self, which: usize) -> Option<String> {
        let before = self.passed.len();
        self.feed(Event::Takes(self.running[which].id.clone()));
        self.passed.get(before).cloned()
    }

    /// Stores a line as the store does: a result stands with its call, before what was said while it ran.
    fn store(lines: &mut Vec<Line>, line: Line) {
        let is_taken = |line: &Line| matches!(line.origin, Origin::Person { taken_by: Some(_), .. });
        let at = match line.origin {
            Origin::Result { .. } => lines.iter().rposition(|line| !is_taken(line)).map_or(0, |at| at + 1),
            _ => lines.len(),
        };
        lines.insert(at, line);
    }

    /// Hands in an event and carries out what follows.
    pub(super) fn feed(&mut self, event: Event) {
        if let Event::ToolDone { call, .. } = &event {
            self.running.retain(|running| running.id != *call);
        }
        if matches!(event, Event::ModelDone { .. } | Event::ModelFailed { .. }) {
            self.asked = None;
        }
        let dies_after = self.dies_after.take();
        for (count, action) in self.machine.handle(event).into_iter().enumerate() {
            assert!(self.answer.is_none(), "nothing follows the answer: {action:?}");
            if dies_after == Some(count) {
                return self.crash();
            }
            self.carry_out(action);
        }
        if dies_after.is_some() && self.answer.is_none() {
            return self.crash();
        }
        let alive = self.asked.is_some() || !self.running.is_empty();
        assert_ne!(alive, self.answer.is_some(), "a turn waits for something or is answered: {}", self.log);
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Keep(line) => {
                self.log.push_str(match &line.origin {
                    Origin::Person { event, taken_by } => {
                        let waits = self.unclaimed.iter().position(|message| message.event == *event);
                        self.unclaimed.remove(waits.expect("a word is answered once"));
                        if let Some(call) = taken_by {
                            assert!(self.running.iter().any(|running| running.id == *call), "it runs");
                            " taken"
                        } else {
                            " person"
                        }
                    }
                    Origin::Program { note: Note::Empty } => " empty!",
                    Origin::Program { note: Note::CallInText } => " in-text!",
                    Origin::Program { note: Note::Stuck } => " stuck!",
                    Origin::Program { note: Note::Unproven } => " prove!",
                    Origin::Program { note: Note::WrapUp { .. } } => " wrap!",
                    Origin::Model { .. } => " model",
                    Origin::Result { .. } => " result",
                    _ => panic!("the machine keeps no such line: {line:?}"),
                });
                let json = serde_json::to_string(&line).unwrap();
                assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line, "what is stored reads back");
                Self::store(&mut self.context, line.clone());
                Self::store(&mut self.stored, line);
            }
            Action::Rebase(lines) => {
                assert!(self.running.is_empty(), "no compaction within a batch");
                self.log.push_str(" rebase");
                self.rebased += 1;
                self.last = None;
                self.base = lines.len();
                self.context = lines;
            }
            Action::Ask(request) => {
                assert!(self.asked.is_none() && self.running.is_empty(), "one thing at a time: {}", self.log);
                self.requests += 1;
                self.log.push_str(if request.tools { " ask" } else { " ask-bare" });
                check(&request.messages);
                let summary = matches!(&request.messages[0], Message::System { text } if text != "system");
                if !summary {
                    if let Some(last) = &self.last {
                        assert!(request.messages.starts_with(last), "the context only grows");
                    }
                    self.last = Some(Arc::new(request.messages.to_vec()));
                    let mut loaded = super::context::Context::new("system".into(), 100);
                    loaded.extend(self.context.clone());
                    assert_eq!(*loaded.messages(), *request.messages, "the store would show the same: {}", self.log);
                }
                self.asked = Some(request);
            }
            Action::Run(call) => {
                assert!(self.asked.is_none());
                serde_json::from_str::<serde_json::Map<_, _>>(&call.arguments).expect("only what parses runs");
                self.log.push_str(if call.resumed.is_some() { " look-up" } else { " run" });
                let taken = self
                    .stored
                    .iter()
                    .filter(|line| matches!(&line.origin, Origin::Person { taken_by: Some(by), .. } if *by == call.id));
                assert!(call.taken.iter().cloned().eq(taken.filter_map(Line::word)), "it knows what it has taken");
                self.started.push(call.clone());
                self.running.push(call);
            }
            Action::Pass(word) => {
                let events = self.stored.iter().filter_map(|line| Some(line.word()?.event));
                let word = word.map(|word| word.event);
                assert!(
                    word.iter().all(|word| events.clone().any(|event| event == *word)),
                    "stored before it is given"
                );
                self.passed.extend(word.map(|word| word.0));
            }
            Action::Arm(time) => self.armed = Some(time),
            Action::Cancel => {
                self.log.push_str(" cancel");
                self.asked = None;
                self.running.clear();
            }
            Action::Show(progress) => self.shown.push(format!("{progress:?}")),
            Action::Answer(answer) => {
                assert!(self.asked.is_none() && self.running.is_empty(), "all has ended: {}", self.log);
                assert!(!answer.text.trim().is_empty(), "an answer says something");
                self.log.push_str(" answer");
                let mut whole = super::context::Context::new("system".into(), 0);
                let mut lines = self.context.clone();
                lines.push(answer.line.clone());
                whole.extend(lines);
                check(&whole.messages());
                assert_eq!(lost(&whole.messages()), self.lost, "every call was answered in the store itself");
                self.answer = Some(answer);
            }
        }
    }

    /// The model answers with a whole message.
    pub(super) fn reply(&mut self, message: AssistantMessage, finish: Finish, usage: Option<Usage>) {
        let request = self.asked.as_ref().expect("a request is under way").number;
        self.feed(Event::ModelDone {
            request,
            completion: Completion { message, finish, usage, reasoning: String::new() },
        });
    }

    /// The model answers with text.
    pub(super) fn text(&mut self, text: &str) {
        self.reply(AssistantMessage { text: text.into(), ..AssistantMessage::default() }, Finish::Stop, usage(1000));
    }

    /// The model asks for calls: a tool's name and its arguments each.
    pub(super) fn calls(&mut self, calls: &[(&str, &str)]) {
        self.reply(calling(calls), Finish::ToolCalls, usage(1000));
    }

    /// One call from a provider that does not count tokens.
    pub(super) fn uncounted(&mut self, arguments: &str) {
        self.reply(calling(&[("read_file", arguments)]), Finish::ToolCalls, None);
    }

    pub(super) fn fails(&mut self, remedy: Remedy) {
        let request = self.asked.as_ref().expect("a request is under way").number;
        self.feed(Event::ModelFailed { request, remedy, why: "The model cannot be reached.".into() });
    }

    /// The oldest running call ends.
    pub(super) fn result(&mut self, result: CallResult) {
        let call = self.running.first().expect("a call runs").id.clone();
        self.feed(Event::ToolDone { call, result });
    }

    /// One call and its result.
    pub(super) fn step(&mut self, name: &str, arguments: &str, result: CallResult) {
        self.calls(&[(name, arguments)]);
        self.result(result);
    }

    pub(super) fn piece(&mut self, text: &str) {
        self.feed(Event::Chunk(Chunk::Text(text.into())));
    }

    /// What has happened since this was asked last.
    pub(super) fn log(&mut self) -> String {
        std::mem::take(&mut self.log).trim().to_owned()
    }

    pub(super) fn answer(&self) -> &Answer {
        self.answer.as_ref().expect("the turn is answered")
    }

    pub(super) fn ended(&self) -> (Ending, &str) {
        (self.answer().ending, &self.answer().text)
    }

    /// The messages of the request under way, each in a line.
    pub(super) fn shown_to_model(&self) -> Vec<String> {
        let request = self.asked.as_ref().expect("a request is under way");
        request.messages.iter().map(brief).collect()
    }

    /// The text of the newest message in the request under way.
    pub(super) fn newest(&self) -> String {
        self.shown_to_model().pop().unwrap()
    }
}

fn machine(
    limits: &TurnLimits,
    window: u64,
    (context, base): (&[Line], usize),
    stored: &[Line],
    boots: HashMap<CallId, String>,
) -> Machine {
    Machine::new(TurnInput {
        turn: "turn".into(),
        system: "system".into(),
        overhead: 100,
        history: context.to_vec(),
        base,
        stored: stored.to_vec(),
        boots,
        tools: TOOLS.to_vec(),
        window,
        limits: limits.clone(),
        time_left: limits.time,
    })
}

/// Checks what every provider asks of a conversation: the system message first and alone, no empty message, every call
/// answered once, right after its message and in its order, no answer to nothing.
pub(super) fn check(messages: &[Message]) {
    let mut expected: Vec<&str> = vec![];
    for (index, message) in messages.iter().enumerate() {
        if let Message::Tool { call_id, .. } = message {
            assert!(!expected.is_empty(), "result {call_id} answers nothing");
            assert_eq!(expected.remove(0), call_id);
            continue;
        }
        assert!(expected.is_empty(), "unanswered: {expected:?} before {message:?}");
        match message {
            Message::System { .. } => assert_eq!(index, 0),
            Message::User { parts } => assert!(!parts.is_empty()),
            Message::Assistant(message) => {
                assert!(!message.text.is_empty() || !message.calls.is_empty(), "an empty message");
                expected = message.calls.iter().map(|call| call.id.as_str()).collect();
                for call in &message.calls {
                    serde_json::from_str::<serde_json::Map<_, _>>(&call.arguments).expect("stored arguments parse");
                    assert!(!call.name.is_empty() && !call.id.is_empty());
                }
            }
            Message::Tool { .. } => unreachable!(),
        }
    }
    assert!(expected.is_empty(), "unanswered at the end: {expected:?}");
}

fn lost(messages: &[Message]) -> usize {
    let lost = |message: &&Message| matches!(message, Message::Tool { text, .. } if text == super::words::CALL_LOST);
    messages.iter().filter(lost).count()
}

pub(super) fn brief(message: &Message) -> String {
    match message {
        Message::System { text } => format!("system: {text}"),
        Message::User { parts } => {
            let parts = parts.iter().map(|part| match part {
                Part::Text { text } => text.as_str(),
                Part::Image { .. } | Part::Picture { .. } => "<picture>",
            });
            format!("user: {}", parts.collect::<Vec<_>>().join(" "))
        }
        Message::Assistant(message) => format!("assistant: {}[{}]", message.text, message.calls.len()),
        Message::Tool { call_id, text } => format!("{call_id}: {text}"),
    }
}

pub(super) fn shorter() -> Remedy {
    Remedy::Shorter(ToldTokens::default())
}

pub(super) fn said(event: &str, text: &str) -> UserMessage {
    UserMessage { event: event.into(), speaker: Some("anna".into()), text: text.into(), pictures: vec![], thread: None }
}

pub(super) fn calling(calls: &[(&str, &str)]) -> AssistantMessage {
    let calls = calls.iter().enumerate().map(|(index, (name, arguments))| ToolCall {
        id: format!("c{index}"),
        name: (*name).into(),
        arguments: (*arguments).into(),
        extra: None,
    });
    AssistantMessage { calls: calls.collect(), ..AssistantMessage::default() }
}

#[expect(clippy::unnecessary_wraps, reason = "it stands where a provider may say nothing")]
pub(super) fn usage(input: u64) -> Option<Usage> {
    Some(Usage { input, cached: 0, output: 10 })
}

pub(super) fn good(text: &str) -> CallResult {
    CallResult { text: text.into(), ok: true, ..CallResult::default() }
}

pub(super) fn bad(text: &str) -> CallResult {
    CallResult { text: text.into(), ..CallResult::default() }
}

pub(super) fn edited(path: &str) -> CallResult {
    let facts = CallFacts { edits: vec![Edit { path: path.into(), added: 12, removed: 3 }], ..CallFacts::default() };
    CallResult { facts, ..good("edited") }
}

pub(super) fn tested(green: bool) -> CallResult {
    let facts = CallFacts { tests: Some(green), ..CallFacts::default() };
    CallResult { facts, ..good(if green { "[PASS]" } else { "[FAIL]" }) }
}
