//! Follows the processes of a coding agent's run and shows it to the room, notices what people say meanwhile, also across a crash of the server: how far it has come is
//! kept with its call, and a server that comes back goes on from there, so that it sees each event once.
//!
//! Called by the parent alone.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use super::super::{Steering, ToolContext, ToolProgress, Word, exec::Follow};
use crate::{
    coding_agents::{Assigned, Run, Standing, Tokens, Wire},
    gateway::models::{Pass, Seen},
    ids::CallId,
    sandbox::{Captured, Sandbox},
    store::Store,
};

/// How often the room sees the time of an agent that says nothing.
const TICK: Duration = Duration::from_secs(10);
/// How often it is kept how far a run has come. What came since then comes again, to a server that has not seen it.
const KEEP: Duration = Duration::from_secs(1);
/// The most bytes that are read of a whole output, where there is no spool.
const LOG: u64 = 9 * 1024 * 1024;

/// What is kept with the call.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The run's id, which its first process has in the sandbox.
    id: String,
    /// The id of the process that is followed, where it is another.
    #[serde(default)]
    process: Option<String>,
    /// When the run began, in milliseconds since 1970.
    begun: i64,
    run: Standing,
}

/// Who follows a run.
pub(super) struct Follower {
    pub(super) run: Run,
    pub(super) seen: watch::Receiver<Seen>,
    /// The process that is followed.
    pub(super) process: String,
    /// What the call has taken of what people said, and the agent was not told.
    pub(super) untold: Vec<Word>,
    /// What the processes before this one wrote, in files in the sandbox.
    pub(super) logs: Vec<String>,
    /// The run as it was when the process began.
    before: Run,
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
    store: Store,
    call: CallId,
    /// The run's id, which its first process has in the sandbox.
    pub(super) id: String,
}

/// Returns the id of the run that is under way in a call, given what was kept with it.
pub(in crate::tools) fn run_under_way(call: &CallId, state: Option<Value>) -> String {
    let kept = state.and_then(|state| serde_json::from_value(state).ok());
    kept.map_or_else(|| call.to_string(), |kept: Kept| kept.id)
}

impl Follower {
    /// Follows a run that is about to begin.
    pub(super) fn new(context: &ToolContext, assigned: &Assigned, pass: &Pass, id: String) -> Self {
        let (now, silence) = (Instant::now(), context.limits.coding_idle);
        let run = Run::new(Arc::clone(&assigned.agent), silence, now);
        Self {
            before: run.clone(),
            run,
            seen: pass.seen(),
            process: id.clone(),
            untold: Vec::new(),
            logs: Vec::new(),
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
            store: context.store.clone(),
            call: context.call.clone(),
            id,
        }
    }

    /// Follows a process of a run that was under way when the server crashed, from where it stood. It was told `told`
    /// and has yet to be told `untold`.
    pub(super) async fn going_on(
        context: &ToolContext,
        assigned: &Assigned,
        pass: &Pass,
        (id, process): (String, String),
        (told, untold): (&[Word], &[Word]),
    ) -> Self {
        let mut follower = Self { begun: None, ..Self::new(context, assigned, pass, id) };
        follower.goes_on(process, told.iter().map(|word| word.text.clone()).collect());
        follower.untold = untold.to_vec();
        let state = context.store.call_state(&context.call).await.unwrap_or_else(|error| {
            tracing::error!(%error, "how far a coding agent had come cannot be read, so it is read from its beginning");
            None
        });
        let kept = state.and_then(|state| serde_json::from_value(state).ok());
        let is_it = |kept: &Kept| *kept.process.as_ref().unwrap_or(&kept.id) == follower.process;
        let Some(Kept { begun, run, .. }) = kept.filter(is_it) else { return follower };
        let now = Instant::now();
        let lasted = Duration::from_millis((context.store.clock().millis() - begun).max(0) as u64);
        follower.upto = run.place();
        let (agent, begun_at) = (Arc::clone(&assigned.agent), now.checked_sub(lasted).unwrap_or(now));
        follower.run = Run::going_on(agent, context.limits.coding_idle, begun_at, now, run.clone());
        follower.kept = Some((now, run));
        Self { begun: Some(begun), ..follower }
    }

    /// Another process follows, which is told these words; none for the first.
    pub(super) fn goes_on(&mut self, process: String, told: Vec<String>) {
        if !told.is_empty() {
            self.run.goes_on(told, Instant::now());
        }
        self.before = self.run.clone();
        (self.process, self.ending, self.upto, self.followed) = (process, false, 0, false);
        self.untold.clear();
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
        let process = (self.process != self.id).then(|| self.process.clone());
        let kept = match serde_json::to_value(Kept { id: self.id.clone(), process, begun, run }) {
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

    async fn give_up(&mut self) -> bool {
        let now = Instant::now();
        if self.run.give_up(now) {
            return true;
        }
        let waits = !self.untold.is_empty() || self.steering.waits();
        if !waits || self.ending || !self.run.hears(now) {
            return false;
        }
        // What is taken is the agent's, whatever happens: it is stored before the agent is ended.
        while let Some(word) = self.steering.take().await {
            self.untold.push(word);
        }
        self.ending = !self.untold.is_empty();
        self.ending
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
