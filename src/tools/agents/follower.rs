//! Follows the processes of a coding agent's run: shows the room what it does, notices what people say meanwhile, and ends it
//! when it has to be ended.
//!
//! All that survives a crash of the server. How far the run has come is kept with its call each second, and a server that
//! comes back goes on from there, so that it sees each event once. Called by the parent alone.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::super::{
    Steering, ToolContext, ToolProgress, Word,
    exec::{Follow, Wish},
};
use crate::{
    coding_agents::{Assigned, Run, Standing, Tokens, Wire, asking, told},
    gateway::models::{Pass, Seen},
    ids::CallId,
    sandbox::{self, Captured, Sandbox},
    store::Store,
};

/// How often the room sees the time of an agent that says nothing.
const TICK: Duration = Duration::from_secs(10);
/// How often it is kept how far a run has come. What came since then comes again, to a server that has not seen it.
const KEEP: Duration = Duration::from_secs(1);
/// The most bytes that are read of a whole output, where there is no spool.
const LOG: u64 = 9 * 1024 * 1024;

/// What is kept with the call.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The run's id.
    pub(super) id: String,
    /// The id of the process with which the run began, where it is another one.
    #[serde(default)]
    first: Option<String>,
    /// The id of the process that is followed, where it is another one.
    #[serde(default)]
    process: Option<String>,
    /// The run whose key that process has, where it is another one: that run has left its process to this one.
    #[serde(default)]
    key: Option<String>,
    /// When that process is ended, if it is one that stays, in milliseconds since 1970.
    #[serde(default)]
    until: Option<i64>,
    /// How many of the words that the call has taken the agent was told.
    #[serde(default)]
    told: usize,
    /// When the run began, in milliseconds since 1970.
    begun: i64,
    run: Standing,
}

impl Kept {
    /// Returns which process the run began with.
    pub(super) fn first(self) -> First {
        let Self { id, first, key, until, .. } = self;
        // Whether it is left, the run knows.
        First { process: first.unwrap_or_else(|| id.clone()), key: key.unwrap_or(id), until, is_left: false }
    }
}

/// Which process a run begins with, and which key that has.
#[derive(Clone, Debug)]
pub(super) struct First {
    /// The process's id in the sandbox.
    pub(super) process: String,
    /// The run that the process was started for, after which its key is named.
    pub(super) key: String,
    /// Whether the process stays when it has answered, and until when at most, in milliseconds since 1970.
    pub(super) until: Option<i64>,
    /// Whether it is left then, for the next call.
    pub(super) is_left: bool,
}

impl First {
    /// A process that is named after its run, and ends when it has answered.
    pub(super) fn ends(run: &str) -> Self {
        Self { process: run.to_owned(), key: run.to_owned(), until: None, is_left: false }
    }

    /// Tells whether the process was started for another run, which has left it.
    pub(super) fn was_left(&self, run: &str) -> bool {
        self.key != run
    }
}

/// What a process that another run has left is to be asked first.
enum Question {
    /// This.
    Ask(Bytes),
    /// It may have been asked before the server crashed, which the sandbox knows.
    Find,
}

/// Who follows a run.
pub(super) struct Follower {
    pub(super) run: Run,
    pub(super) seen: watch::Receiver<Seen>,
    /// Which process the run began with.
    pub(super) first: First,
    /// The process that is followed.
    pub(super) process: String,
    /// What the call has taken of what people said, and the agent was not told.
    pub(super) untold: Vec<Word>,
    /// What the processes before this one wrote, in files in the sandbox.
    pub(super) logs: Vec<String>,
    /// What the process is to be asked before anything else.
    question: Option<Question>,
    /// Whether it turned out that the process was not asked, and cannot be.
    unasked: bool,
    /// How many of the words that the call has taken the agent was told.
    told: usize,
    /// Whether these words may have been told it already, before the server crashed: then it is told them at once.
    hurries: bool,
    /// The run as it was when the process began.
    before: Run,
    /// Whether the process takes no more words, although it is one that does.
    closed: bool,
    /// Whether the process is being ended, so that another one is told something.
    ending: bool,
    steering: Steering,
    /// Takes what the room is to be told at once.
    progress: mpsc::Sender<ToolProgress>,
    /// The last warning that it was told.
    warned: Option<String>,
    tick: Instant,
    shown: String,
    /// Up to which byte of its output it has come.
    upto: u64,
    /// Whether it was there while the run went on, which is not known of one that it took up.
    followed: bool,
    /// When the run began, in milliseconds since 1970, if that is known.
    begun: Option<i64>,
    /// When it was kept last how far the run has come, and that.
    kept: Option<(Instant, Standing)>,
    /// How long the run may take.
    limit: Duration,
    store: Store,
    call: CallId,
    /// The run's id.
    pub(super) id: String,
}

/// Returns the run after which the key is named that is used in a call, given what was kept with it.
pub(in crate::tools) fn key_in_use(call: &CallId, state: Option<Value>) -> String {
    let kept = state.and_then(|state| serde_json::from_value(state).ok());
    kept.map_or_else(|| call.to_string(), |kept: Kept| kept.key.unwrap_or(kept.id))
}

/// Returns what was kept with a call.
pub(super) async fn kept(context: &ToolContext) -> Option<Kept> {
    let state = context.store.call_state(&context.call).await.unwrap_or_else(|error| {
        tracing::error!(%error, "how far a coding agent had come cannot be read, so it is read from its beginning");
        None
    });
    state.and_then(|state| serde_json::from_value(state).ok())
}

impl Follower {
    /// Follows a run that is about to begin.
    pub(super) fn new(context: &ToolContext, assigned: &Assigned, pass: &Pass, id: String, first: First) -> Self {
        let (now, silence, limit) = (Instant::now(), context.limits.coding_idle, context.limits.coding);
        let run = Run::new(Arc::clone(&assigned.agent), silence, now);
        let run = if first.until.is_some() { run.staying(limit, first.is_left) } else { run };
        Self {
            before: run.clone(),
            run,
            seen: pass.seen(),
            process: first.process.clone(),
            first,
            untold: Vec::new(),
            logs: Vec::new(),
            question: None,
            unasked: false,
            told: 0,
            hurries: false,
            closed: false,
            ending: false,
            steering: context.steering.clone(),
            progress: context.progress.clone(),
            warned: None,
            tick: now + TICK,
            shown: String::new(),
            upto: 0,
            followed: false,
            begun: Some(context.store.clock().millis()),
            kept: None,
            limit,
            store: context.store.clone(),
            call: context.call.clone(),
            id,
        }
    }

    /// The process runs already, has written so many bytes, and is to be asked this.
    pub(super) fn asks(&mut self, question: String, written: u64) {
        self.question = Some(Question::Ask(question.into()));
        self.upto = written;
    }

    /// Returns up to which byte of its process's output it has come.
    pub(super) fn upto(&self) -> u64 {
        self.upto
    }

    /// Tells whether the process was not asked, and cannot be any more.
    pub(super) fn unasked(&self) -> bool {
        self.unasked
    }

    /// Follows a process of a run that was under way when the server crashed, from where it stood. It was told `told`
    /// when it began, and may have been told some of `more` since.
    pub(super) fn going_on(
        context: &ToolContext,
        assigned: &Assigned,
        pass: &Pass,
        (id, first, process): (String, First, String),
        (told, more): (&[Word], &[Word]),
        kept: Option<&Kept>,
    ) -> Self {
        let mut follower = Self { begun: None, ..Self::new(context, assigned, pass, id, first) };
        follower.goes_on(process, told.iter().map(|word| word.text.clone()).collect());
        follower.told = told.len();
        let is_it = |kept: &&Kept| *kept.process.as_ref().unwrap_or(&follower.first.process) == follower.process;
        if let Some(Kept { begun, run, told: since, .. }) = kept.filter(is_it).cloned() {
            let now = Instant::now();
            let lasted = Duration::from_millis((context.store.clock().millis() - begun).max(0) as u64);
            follower.upto = run.place();
            let (agent, begun_at) = (Arc::clone(&assigned.agent), now.checked_sub(lasted).unwrap_or(now));
            let silence = context.limits.coding_idle;
            let mut goes_on = Run::going_on(agent, silence, begun_at, now, run.clone());
            if follower.first.until.is_some() {
                goes_on = goes_on.staying(follower.limit, false);
            }
            follower.run = goes_on;
            (follower.kept, follower.begun) = (Some((now, run)), Some(begun));
            follower.told = since.clamp(told.len(), told.len() + more.len());
        }
        follower.untold = more[follower.told - told.len()..].to_vec();
        follower.hurries = !follower.untold.is_empty();
        if follower.first.was_left(&follower.id) && follower.told == 0 && !follower.run.has_begun() {
            follower.question = Some(Question::Find);
        }
        follower
    }

    /// Another process follows, which is told these words; none for the first.
    pub(super) fn goes_on(&mut self, process: String, told: Vec<String>) {
        if !told.is_empty() {
            self.run.goes_on(told, Instant::now());
        }
        self.before = self.run.clone();
        (self.process, self.ending, self.upto, self.followed) = (process, false, 0, false);
        (self.closed, self.hurries) = (false, false);
        self.told += self.untold.len();
        self.untold.clear();
    }

    /// Tells whether a process that has ended had begun with what waits to be told, and takes it as told then: the server was
    /// lost after it was written.
    pub(super) fn told_after_all(&mut self) -> bool {
        let told = self.run.was_asked_more();
        if told {
            self.is_told();
        }
        told
    }

    fn is_told(&mut self) {
        self.told += self.untold.len();
        let words = self.untold.drain(..).map(|word| word.text).collect();
        self.run.asked_again(words, Instant::now());
        self.hurries = false;
    }

    /// Returns how long the run has taken, if that is known.
    pub(super) fn elapsed(&self) -> Option<Duration> {
        self.begun.map(|_| self.run.elapsed(Instant::now()))
    }

    /// Keeps how far the run has come.
    pub(super) async fn keep_now(&mut self) {
        let Some(begun) = self.begun else { return };
        let run = self.run.standing(self.upto);
        self.kept = Some((Instant::now(), run.clone()));
        let First { process: first, key, until, .. } = &self.first;
        let kept = Kept {
            id: self.id.clone(),
            process: (self.process != *first).then(|| self.process.clone()),
            first: (*first != self.id).then(|| first.clone()),
            key: (*key != self.id).then(|| key.clone()),
            until: *until,
            told: self.told,
            begun,
            run,
        };
        let kept = match serde_json::to_value(kept) {
            Ok(state) => self.store.keep_call_state(&self.call, state).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = kept {
            // The run goes on all the same, and is read from further back after a crash.
            tracing::error!(%error, "how far a coding agent has come is not kept");
        }
    }

    /// Takes what did not come while the run went on: nobody was there, or its stream was lost.
    pub(super) async fn complete(&mut self, sandbox: &Sandbox, captured: &Captured) {
        let now = Instant::now();
        match sandbox.rest(captured, self.upto).await {
            Some(rest) => {
                self.run.take(&rest, now);
                self.upto += rest.len() as u64;
                if let Some(spooled) = &captured.spooled {
                    self.run.complain(&spooled.errors, now);
                }
            }
            None if !self.followed => {
                for piece in whole(sandbox, captured).await {
                    self.run.take(&piece, now);
                }
                self.followed = true;
            }
            None => {}
        }
    }
}

impl Follow for Follower {
    fn place(&self) -> Option<u64> {
        Some(self.upto)
    }

    fn anew(&mut self) {
        (self.upto, self.ending) = (0, false);
        self.run = self.before.anew(Instant::now());
    }

    fn take(&mut self, piece: &[u8], upto: u64) {
        self.followed = true;
        self.upto = upto;
        self.run.take(piece, Instant::now());
    }

    async fn keep(&mut self) {
        let is_due = self.kept.as_ref().is_none_or(|(at, _)| at.elapsed() >= KEEP);
        if is_due && self.kept.as_ref().is_none_or(|(_, kept)| *kept != self.run.standing(self.upto)) {
            self.keep_now().await;
        }
    }

    fn show(&mut self) -> Option<String> {
        let lines = self.run.lines(Instant::now());
        if lines == self.shown {
            return None;
        }
        self.shown.clone_from(&lines);
        Some(lines)
    }

    async fn wake(&mut self) {
        let deadline = self.run.deadline().filter(|_| !self.ending);
        let now = deadline.map_or(self.tick, |deadline| self.tick.min(deadline));
        tokio::select! {
            () = sleep_until(now) => self.tick = Instant::now() + TICK,
            Ok(()) = self.seen.changed() => {
                let seen = self.seen.borrow_and_update().clone();
                self.run.look(wire(&seen), Instant::now());
                if let Some(warning) = seen.warning.filter(|warning| self.warned.as_ref() != Some(warning)) {
                    let _ = self.progress.try_send(ToolProgress::Notice(warning.clone()));
                    self.warned = Some(warning);
                }
            }
            () = self.steering.changed() => {}
        }
    }

    async fn wish(&mut self) -> Wish {
        let now = Instant::now();
        if self.unasked {
            return Wish::Leave;
        }
        if let Some(question) = &self.question {
            let bytes = match question {
                Question::Ask(bytes) => bytes.clone(),
                Question::Find => Bytes::new(),
            };
            return Wish::Tell { key: self.id.clone(), bytes };
        }
        if self.run.rests() && self.untold.is_empty() {
            return Wish::Leave;
        }
        let takes_words = self.first.until.is_some() && !self.closed;
        let tells_at_once = takes_words && self.hurries && !self.ending;
        if !tells_at_once && self.run.give_up(now) {
            // Why, a server that takes it up has to know: another agent may have to go on.
            self.keep_now().await;
            return Wish::End;
        }
        let waits = !self.untold.is_empty() || self.steering.waits();
        if !waits || self.ending || !(tells_at_once || self.run.hears(now)) {
            return Wish::Nothing;
        }
        // What is taken is the agent's, whatever happens: it is stored before the agent gets it. What it may have got is
        // not mixed with more, so that it stays one word to the sandbox.
        while !tells_at_once && let Some(word) = self.steering.take().await {
            self.untold.push(word);
        }
        let Some(last) = self.untold.last() else { return Wish::Nothing };
        if takes_words {
            let words: Vec<_> = self.untold.iter().map(|word| word.text.clone()).collect();
            return Wish::Tell { key: last.event.to_string(), bytes: asking::instead(&told(&words)).into() };
        }
        self.ending = true;
        Wish::End
    }

    async fn told(&mut self, word: sandbox::Word) {
        let is_told = word != sandbox::Word::Closed;
        match self.question.take() {
            // It was not asked before the crash; now that it was, with nothing, it never will be.
            Some(Question::Find) => self.unasked = word == sandbox::Word::Taken,
            Some(Question::Ask(_)) => self.unasked = !is_told,
            None if is_told => {
                self.is_told();
                self.keep_now().await;
            }
            // It is ended, and another one is told.
            None => self.closed = true,
        }
    }
}

/// Returns what the door to models has seen, as a run takes it.
pub(super) fn wire(seen: &Seen) -> Wire {
    let failure = seen.failure.as_ref().filter(|_| seen.failures > 0);
    Wire {
        requests: seen.requests,
        tokens: Tokens { input: seen.tokens.input, output: seen.tokens.output },
        refused: seen.failures,
        heard: seen.heard,
        over: seen.over.is_some(),
        cause: failure.map(|failure| format!("{}: {}", failure.status, failure.cause)).unwrap_or_default(),
    }
}

/// Reads what was kept of an output that was not spooled, whole if there is a file of it.
async fn whole(sandbox: &Sandbox, captured: &Captured) -> Vec<Bytes> {
    let log = match &captured.log {
        Some(log) => sandbox.read_file(log, 0, LOG).await.ok(),
        None => None,
    };
    // The file holds the beginning, however long the output was.
    let head = log.map_or_else(|| captured.head.clone(), |file| file.bytes);
    vec![head, Bytes::from_static(b"\n"), captured.tail.clone()]
}
