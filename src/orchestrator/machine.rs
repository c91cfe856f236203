//! One turn as a sans-I/O state machine: events in, actions out. It holds every rule of a turn and touches nothing:
//! no clock, no network, no store.
//!
//! The driver carries out actions in their order, each finished before the next (a kept line is durable before anything
//! that follows from it); `Ask` and `Run` only begin something whose end comes back as an event. A turn ends with
//! exactly one [`Action::Answer`]; after it every event is ignored.

mod heard;
mod room;
mod settle;

use std::{
    collections::{HashMap, VecDeque},
    mem,
    time::Duration,
};

use crate::{
    ids::{CallId, TurnId},
    llm::{AssistantMessage, Chunk, Completion, Finish, Message, Remedy, Usage},
    strings::turns,
    text,
};

use super::{
    batch::{self, Batch, CallResult, CallState, CallToRun, KnownTool, Slot},
    compaction::Plan,
    context::{self, Context},
    event::{Action, Answer, Event, Request, TurnInput},
    ledger::{Open, TurnLedger, Verdict},
    limits::{self, Limit, TurnLimits},
    line::{Ending, Line, Note, Origin, UserMessage},
    progress::Progress,
    stuck::Stream,
    words,
};
use room::ContextRoom;

/// The state of one turn.
#[derive(Debug)]
pub(crate) struct Machine {
    turn: TurnId,
    tools: Vec<KnownTool>,
    limits: TurnLimits,
    time_left: Duration,
    window: u64,
    max_output: Option<u64>,
    context: Context,
    ledger: TurnLedger,
    boots: HashMap<CallId, String>,
    /// Said during this turn, not yet shown to the model.
    heard: VecDeque<UserMessage>,
    /// The number of the last request.
    requests: u32,
    /// Set once the turn only wraps up.
    wrap: Option<Limit>,
    /// Whether the wrapping up was asked for without tools.
    bare: bool,
    summaries: u32,
    weak: u32,
    overflows: u32,
    /// Whether room was made because of a refusal whose reason is not known.
    guessed: bool,
    /// How often the answer was asked for in fewer tokens.
    shortened: u32,
    /// Whether the text of the model's last message is its reasoning, since it has no other.
    only_thought: bool,
    /// What the turn was about to do before a crash; used when it begins.
    open: Open,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Between two steps; never seen from outside once the turn has begun.
    Ready,
    Asking(Stream),
    Summarising {
        plan: Plan,
        before: u64,
    },
    Running(Batch),
    Ended,
}

type Out = Vec<Action>;

/// Returns whether a person would see nothing of a message.
fn is_silent(message: &AssistantMessage) -> bool {
    text::strip(&message.text).trim().is_empty()
}

impl Machine {
    /// Takes up a turn where its lines leave it.
    pub(crate) fn new(input: TurnInput) -> Self {
        let mut replayed = TurnLedger::replay(input.stored, &input.tools);
        let mut context = Context::new(input.system, input.overhead);
        let mut history = input.history;
        if let Open::Batch(mut open) = replayed.open {
            let message = history.iter().rposition(|line| matches!(line.origin, Origin::Model { .. }));
            if let Some(message) = message.filter(|message| *message >= input.base) {
                // Its results follow when all are there, as in a turn that was not interrupted; what was said follows
                // them.
                let said = |line: &Line| matches!(line.origin, Origin::Person { .. });
                open.batch.taken = history.drain(message..).filter(said).collect();
                context.extend(history);
                context.push(Message::Assistant(open.message.clone()), open.origin.clone());
                replayed.open = Open::Batch(open);
            } else {
                // A compaction came after the batch, so it was complete and had led to nothing.
                _ = replayed.ledger.batch(&open.batch);
                context.extend(history);
                replayed.open = Open::Ask;
            }
        } else {
            context.extend(history);
        }
        Self {
            turn: input.turn,
            tools: input.tools,
            max_output: input.limits.max_output,
            limits: input.limits,
            time_left: input.time_left,
            window: input.window,
            context,
            ledger: replayed.ledger,
            boots: input.boots,
            heard: VecDeque::new(),
            requests: 0,
            wrap: replayed.wrap,
            bare: false,
            summaries: 0,
            weak: 0,
            overflows: 0,
            guessed: false,
            shortened: 0,
            only_thought: false,
            open: replayed.open,
            phase: Phase::Ready,
        }
    }

    /// Takes in an event and says what is to be done, in this order.
    pub(crate) fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut out = Out::new();
        if matches!(self.phase, Phase::Ended) {
            return out;
        }
        match event {
            Event::Begin => self.begin(&mut out),
            Event::Chunk(chunk) => self.chunk(chunk, &mut out),
            Event::ModelDone { request, completion } if request == self.requests => match self.take_phase() {
                Phase::Asking(_) => self.answered(completion, &mut out),
                Phase::Summarising { plan, before } => {
                    self.ledger.spent += completion.usage.unwrap_or_default();
                    let summary = (completion.finish != Finish::BadCall).then_some(completion.message.text);
                    self.summarised(plan, before, summary, &mut out);
                }
                other => self.phase = other,
            },
            Event::ModelFailed { request, remedy, why } if request == self.requests => match self.take_phase() {
                Phase::Asking(_) => self.failed(remedy, &why, &mut out),
                Phase::Summarising { plan, before } => self.summarised(plan, before, None, &mut out),
                other => self.phase = other,
            },
            Event::Refused { request, why } if request == self.requests => {
                self.end_plainly(turns::failed(&why, self.ledger.worked()), Ending::Limit, &mut out);
            }
            // These belong to a request that was given up.
            Event::ModelDone { .. } | Event::ModelFailed { .. } | Event::Refused { .. } => {}
            Event::Window(tokens) => self.resize(tokens),
            Event::ToolDone { call, result } => self.tool_done(&call, result, &mut out),
            Event::Said(message) => self.heard.push_back(message),
            Event::Takes(call) => self.pass(&call, &mut out),
            Event::TimeUp => self.time_up(&mut out),
            Event::Stop => {
                self.cut_short(words::CALL_STOPPED, words::CALL_STOPPED_EARLY, &mut out);
                self.end_plainly(turns::STOPPED.to_owned(), Ending::Stopped, &mut out);
            }
        }
        out
    }

    fn take_phase(&mut self) -> Phase {
        mem::replace(&mut self.phase, Phase::Ready)
    }

    fn begin(&mut self, out: &mut Out) {
        out.push(Action::Arm(if self.wrap.is_some() { limits::WRAP_UP } else { self.time_left }));
        match mem::take(&mut self.open) {
            Open::Ask => self.advance(out),
            Open::Batch(open) => self.go_on(open.batch, out),
            Open::Claim => self.doubt(out),
        }
    }

    fn chunk(&mut self, chunk: Chunk, out: &mut Out) {
        let Phase::Asking(stream) = &mut self.phase else { return };
        let text = match chunk {
            Chunk::Text(text) => text,
            Chunk::Restart => {
                *stream = Stream::default();
                return out.push(Action::Show(Progress::Thinking));
            }
            Chunk::Reasoning | Chunk::CallStarted(_) => return,
        };
        if stream.runs_away(&text, limits::ANSWER_BYTES) {
            out.push(Action::Cancel);
            self.phase = Phase::Ready;
            let usage = Usage { input: self.context.tokens(), ..Usage::default() };
            self.ledger.answered(usage);
            self.nudge_empty(words::RUNAWAY, turns::NO_ANSWER, out);
        } else {
            out.push(Action::Show(Progress::Text(text)));
        }
    }

    fn failed(&mut self, remedy: Remedy, why: &str, out: &mut Out) {
        if self.relieve(remedy, out) {
            return;
        }
        match (self.wrap, remedy) {
            (Some(limit), _) => self.end_at(limit, out),
            (None, Remedy::Shorter(_)) => self.end_at(Limit::Context, out),
            (None, _) => self.end_plainly(turns::failed(why, self.ledger.worked()), Ending::Failed, out),
        }
    }

    fn tool_done(&mut self, call: &CallId, result: CallResult, out: &mut Out) {
        let mut batch = match self.take_phase() {
            Phase::Running(batch) => batch,
            other => return self.phase = other,
        };
        if let Some(slot) = batch.open(call) {
            out.push(Action::Keep(slot.end(result, true)));
        }
        self.go_on(batch, out);
    }

    /// Starts the calls that may start; if all have ended, closes the batch.
    fn go_on(&mut self, mut batch: Batch, out: &mut Out) {
        while let Some(slot) = batch.start_next() {
            let boot = self.boots.remove(&slot.id);
            let call = slot.to_run(boot);
            let taken = batch.taken_by(&call.id);
            out.push(Action::Run(CallToRun { taken, ..call }));
        }
        if !batch.is_complete() {
            self.phase = Phase::Running(batch);
            return;
        }
        match self.close(batch) {
            Verdict::Nudge => self.say(Note::Stuck, words::STUCK.to_owned(), out),
            Verdict::Stop(limit) if self.wrap.is_none() => self.wrap_up(limit, out),
            Verdict::Fine | Verdict::Stop(_) => {}
        }
        self.advance(out);
    }

    /// Shows the model a complete batch, then what its calls took of what people said.
    fn close(&mut self, batch: Batch) -> Verdict {
        let verdict = self.ledger.batch(&batch);
        self.context.answer(batch.slots.into_iter().filter_map(Slot::into_result));
        for Line { message, origin } in batch.taken {
            self.context.push(message, origin);
        }
        verdict
    }

    /// Ends whatever is under way; calls without a result get one.
    fn cut_short(&mut self, running: &str, waiting: &str, out: &mut Out) {
        out.push(Action::Cancel);
        let Phase::Running(mut batch) = self.take_phase() else { return };
        for slot in &mut batch.slots {
            let (text, ran) = match slot.state {
                CallState::Done { .. } => continue,
                CallState::Running => (running, true),
                CallState::Waiting => (waiting, false),
            };
            out.push(Action::Keep(slot.end(CallResult::refused(text), ran)));
        }
        _ = self.close(batch);
    }

    fn time_up(&mut self, out: &mut Out) {
        self.cut_short(words::CALL_TIME, words::CALL_TIME_EARLY, out);
        if let Some(limit) = self.wrap {
            return self.end_at(limit, out);
        }
        self.wrap_up(Limit::Time, out);
        self.advance(out);
    }

    /// Returns the limit that is reached, if one is.
    fn limit(&self) -> Option<Limit> {
        if self.ledger.rounds >= self.limits.rounds {
            Some(Limit::Rounds)
        } else if self.ledger.spent.input + self.ledger.spent.output >= self.limits.tokens {
            Some(Limit::Tokens)
        } else {
            None
        }
    }

    fn wrap_up(&mut self, limit: Limit, out: &mut Out) {
        self.wrap = Some(limit);
        self.say(Note::WrapUp { limit }, words::wrap_up(limit, &self.limits), out);
        out.push(Action::Arm(limits::WRAP_UP));
        out.push(Action::Show(Progress::Notice(turns::WRAPPING_UP.to_owned())));
    }

    /// Takes the next step when nothing is under way.
    fn advance(&mut self, out: &mut Out) {
        if self.wrap.is_none() {
            match self.limit() {
                Some(limit) => self.wrap_up(limit, out),
                None => self.take_in_heard(out),
            }
        }
        match self.make_room(out) {
            ContextRoom::Enough => self.ask(out),
            ContextRoom::BeingMade => {}
            ContextRoom::Gone => self.end_at(Limit::Context, out),
        }
    }

    fn ask(&mut self, out: &mut Out) {
        self.requests += 1;
        out.push(Action::Show(Progress::Thinking));
        out.push(Action::Ask(Request {
            number: self.requests,
            messages: self.context.messages(),
            asked: self.context.tokens(),
            tools: !self.bare,
            max_output: self.max_output,
        }));
        self.phase = Phase::Asking(Stream::default());
    }

    /// Appends a message and stores it.
    fn keep(&mut self, message: Message, origin: Origin, out: &mut Out) {
        out.push(Action::Keep(Line { message: message.clone(), origin: origin.clone() }));
        self.context.push(message, origin);
    }

    /// Speaks to the model.
    fn say(&mut self, note: Note, text: String, out: &mut Out) {
        let line = Line::program(note, text);
        self.keep(line.message, line.origin, out);
    }

    fn end_at(&mut self, limit: Limit, out: &mut Out) {
        self.end_plainly(words::limit_reached(limit, &self.limits), Ending::Limit, out);
    }

    /// Ends the turn with a sentence of the program's own, which the model never sees as its words.
    fn end_plainly(&mut self, text: String, ending: Ending, out: &mut Out) {
        let note = match ending {
            Ending::Stopped => words::NOTE_STOPPED,
            Ending::Limit => words::NOTE_LIMIT,
            Ending::Failed | Ending::Done => words::NOTE_FAILED,
        };
        self.answer(text, ending, Line::ended(ending, note.to_owned()), out);
    }

    fn end(&mut self, message: AssistantMessage, finish: Finish, ending: Ending, out: &mut Out) {
        let cut = matches!(finish, Finish::Length | Finish::Filtered);
        // The text may relay what a command wrote, with terminal escapes.
        let before = if self.only_thought { turns::ONLY_THOUGHT } else { "" };
        let behind = if cut { turns::ANSWER_CUT } else { "" };
        let text = format!("{before}{}{behind}", text::strip(&message.text).trim());
        self.answer(text, ending, Line { message: Message::Assistant(message), origin: Origin::Final { ending } }, out);
    }

    fn answer(&mut self, text: String, ending: Ending, line: Line, out: &mut Out) {
        out.push(Action::Answer(Answer { text, ending, line, tally: self.ledger.tally() }));
        self.phase = Phase::Ended;
    }
}
