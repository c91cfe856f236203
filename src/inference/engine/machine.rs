//! The life of the one child that serves a model: when it is started, how long that may take, when it is put to sleep, and
//! what becomes of those who wait when it dies. Holds the rules and does no I/O; [`super::driver`] carries them out.
//!
//! ```text
//! asleep → starting → restoring → up → saving → stopping → asleep
//!             └──────────┴─────────┴───── dies ──→ backing off → starting …, or degraded
//! ```

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use super::{Failure, Pressure, Unready};

/// Questions that may wait for the model at the same time.
const WAITING: usize = 64;

/// The times by which it lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// How long the child may take until it answers.
    pub(super) start: Duration,
    /// How long it stays without a question; `None`: always.
    pub(super) idle: Option<Duration>,
    /// How long saving or restoring a conversation may take.
    pub(super) slots: Duration,
    /// How long saving may take when the whole program ends.
    pub(super) last: Duration,
    /// How long it may take to end by itself before it is killed.
    pub(super) grace: Duration,
    /// How long it has to live until it counts as healthy.
    pub(super) healthy: Duration,
    /// The pause after a failure; it doubles with each further one.
    pub(super) first_pause: Duration,
    /// The longest pause, and that of a child that is given up.
    pub(super) longest_pause: Duration,
    /// After so many failures in a row, none of them healthy in between, it is given up.
    pub(super) most: u32,
    /// The longest pause that somebody is let wait for.
    pub(super) patience: Duration,
}

impl Rules {
    /// Returns the usual times; `idle` is how long it stays without a question, `None` for always.
    pub(super) fn usual(idle: Option<Duration>) -> Self {
        Self {
            start: Duration::from_mins(1),
            idle,
            slots: Duration::from_secs(20),
            last: Duration::from_secs(1),
            grace: Duration::from_secs(5),
            healthy: Duration::from_mins(1),
            first_pause: Duration::from_secs(5),
            longest_pause: Duration::from_mins(5),
            most: 5,
            patience: Duration::from_secs(30),
        }
    }
}

/// What the child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none, and none is wanted.
    Asleep,
    /// It was started, and does not answer yet.
    Starting {
        /// When it was started.
        since: Instant,
    },
    /// It answers, and gets back the conversation that was saved.
    Restoring {
        /// When that began.
        since: Instant,
    },
    /// It answers.
    Up {
        /// When the last question was done.
        idle: Instant,
    },
    /// It answers, and its conversation is saved before it is stopped.
    Saving {
        /// When that began.
        since: Instant,
    },
    /// It was told to end.
    Stopping {
        /// When it was told.
        since: Instant,
        /// Whether it is being killed.
        killed: bool,
        /// Whether that is since it was too slow.
        slow: bool,
    },
    /// It has failed, and is started again then if it is still wanted.
    BackingOff {
        /// When.
        until: Instant,
    },
    /// It has failed too often, or in a way that does not mend itself.
    Degraded {
        /// Before that nobody tries again.
        until: Instant,
    },
}

/// Who asks for the model.
pub(super) type Who = u64;

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Starts the child.
    Start,
    /// Gives it back the saved conversation, if there is one.
    Restore,
    /// Has it save its conversation.
    Save,
    /// Removes the saved conversation, with which something is wrong.
    Forget,
    /// Asks it to end.
    Terminate,
    /// Ends it.
    Kill,
    /// Lets these ask it.
    Admit(Vec<Who>),
    /// Tells these why they cannot.
    Refuse(Vec<Who>, Unready),
    /// Tells the operator that it is given up, and why.
    Report(Failure),
}

/// The machine.
#[derive(Debug)]
pub(super) struct Machine {
    rules: Rules,
    state: State,
    /// Those who wait for it, in order.
    waiting: Vec<Who>,
    /// Those who ask it.
    using: BTreeSet<Who>,
    /// Since when it answers.
    answers: Option<Instant>,
    /// Failures in a row.
    failures: u32,
    /// The last of them.
    why: Option<Failure>,
    /// Whether the operator knows.
    reported: bool,
    /// Whether the program ends.
    ending: bool,
}

impl Machine {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            state: State::Asleep,
            waiting: vec![],
            using: BTreeSet::new(),
            answers: None,
            failures: 0,
            why: None,
            reported: false,
            ending: false,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Returns whether somebody is being answered.
    pub(super) fn is_busy(&self) -> bool {
        !self.using.is_empty()
    }

    /// Returns why it failed last, unless it has been healthy since.
    pub(super) fn why(&self) -> Option<&Failure> {
        self.why.as_ref()
    }

    /// Returns whether the program ends and nothing is left of the child.
    pub(super) fn is_over(&self) -> bool {
        self.ending && matches!(self.state, State::Asleep)
    }

    /// Begins: a model that is kept warm is started at once.
    pub(super) fn begin(&mut self, now: Instant) -> Vec<Act> {
        if self.rules.idle.is_none() { self.start(now) } else { vec![] }
    }

    /// Somebody asks for the model, while the machine is under `pressure` or not.
    pub(super) fn want(&mut self, who: Who, pressure: Option<Pressure>, now: Instant) -> Vec<Act> {
        let refuse = |why| vec![Act::Refuse(vec![who], why)];
        if self.ending {
            return refuse(Unready::Ending);
        }
        if let Some(pressure) = pressure {
            let mut acts = self.press(now);
            acts.extend(refuse(Unready::Pressed(pressure)));
            return acts;
        }
        if self.waiting.len() >= WAITING {
            return refuse(Unready::Crowded);
        }
        match self.state {
            State::Up { .. } => {
                self.using.insert(who);
                return vec![Act::Admit(vec![who])];
            }
            State::BackingOff { until } if until.saturating_duration_since(now) > self.rules.patience => {
                return refuse(Unready::BackingOff(until.saturating_duration_since(now)));
            }
            State::Degraded { until } if now < until => {
                return refuse(Unready::Degraded(self.why.clone()));
            }
            _ => self.waiting.push(who),
        }
        match self.state {
            State::Asleep | State::Degraded { .. } => self.start(now),
            _ => vec![],
        }
    }

    /// Somebody is done with it, or waits no more.
    pub(super) fn done(&mut self, who: Who, now: Instant) {
        self.waiting.retain(|waiting| *waiting != who);
        if self.using.remove(&who)
            && self.using.is_empty()
            && let State::Up { idle } = &mut self.state
        {
            *idle = now;
        }
    }

    /// The machine is short of memory or processors: a model that nobody asks right now goes.
    pub(super) fn press(&mut self, now: Instant) -> Vec<Act> {
        match self.state {
            State::Up { .. } if self.using.is_empty() => self.unload(now),
            _ => vec![],
        }
    }

    /// The child answers.
    pub(super) fn healthy(&mut self, now: Instant) -> Vec<Act> {
        if !matches!(self.state, State::Starting { .. }) {
            return vec![];
        }
        self.answers = Some(now);
        self.state = State::Restoring { since: now };
        vec![Act::Restore]
    }

    /// The saved conversation is back, or could not be brought back.
    pub(super) fn restored(&mut self, now: Instant) -> Vec<Act> {
        if matches!(self.state, State::Restoring { .. }) { self.open(now) } else { vec![] }
    }

    /// The conversation is saved, or could not be.
    pub(super) fn saved(&mut self, now: Instant) -> Vec<Act> {
        match self.state {
            // Somebody came meanwhile.
            State::Saving { .. } if !self.waiting.is_empty() => self.open(now),
            State::Saving { .. } => self.stop(now),
            _ => vec![],
        }
    }

    /// The child has ended, or could not be started.
    pub(super) fn ended(&mut self, failure: Failure, now: Instant) -> Vec<Act> {
        let failed = match self.state {
            State::Asleep | State::BackingOff { .. } | State::Degraded { .. } => return vec![],
            _ if self.ending => None,
            State::Stopping { slow: true, .. } => Some(Failure::Slow),
            State::Stopping { .. } => None,
            _ => Some(failure),
        };
        // What it was given just before it died may be why.
        let forget = matches!(self.state, State::Restoring { .. }) && failed.is_some();
        let mut acts = if forget { vec![Act::Forget] } else { vec![] };
        if let Some(failure) = failed {
            acts.extend(self.fail(failure, now));
            return acts;
        }
        self.note_health(now);
        self.answers = None;
        self.state = State::Asleep;
        if !self.waiting.is_empty() {
            acts.extend(self.start(now));
        }
        acts
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Act> {
        self.note_health(now);
        if self.deadline().is_none_or(|due| now < due) {
            return vec![];
        }
        match self.state {
            State::Starting { .. } => {
                self.state = State::Stopping { since: now, killed: true, slow: true };
                vec![Act::Kill]
            }
            State::Restoring { .. } => {
                let mut acts = vec![Act::Forget];
                acts.extend(self.open(now));
                acts
            }
            State::Up { .. } if self.is_idle(now) => self.unload(now),
            State::Saving { .. } => self.saved(now),
            State::Stopping { since, killed: false, slow } => {
                self.state = State::Stopping { since, killed: true, slow };
                vec![Act::Kill]
            }
            State::BackingOff { .. } if self.waiting.is_empty() && self.rules.idle.is_some() => {
                self.state = State::Asleep;
                vec![]
            }
            State::BackingOff { .. } | State::Degraded { .. } => self.start(now),
            State::Asleep | State::Up { .. } | State::Stopping { .. } => vec![],
        }
    }

    /// The program ends.
    pub(super) fn end(&mut self, now: Instant) -> Vec<Act> {
        self.ending = true;
        let mut acts = vec![];
        if !self.waiting.is_empty() {
            acts.push(Act::Refuse(std::mem::take(&mut self.waiting), Unready::Ending));
        }
        match self.state {
            State::Up { .. } => acts.extend(self.unload(now)),
            State::Starting { .. } | State::Restoring { .. } => acts.extend(self.stop(now)),
            // It was saved from then on, and has less time now.
            State::Saving { .. } => self.state = State::Saving { since: now },
            State::BackingOff { .. } | State::Degraded { .. } => self.state = State::Asleep,
            State::Asleep | State::Stopping { .. } => {}
        }
        acts
    }

    /// Returns when [`Machine::tick`] has something to do, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let rules = &self.rules;
        match self.state {
            State::Asleep | State::Stopping { killed: true, .. } => None,
            State::Starting { since } => Some(since + rules.start),
            State::Restoring { since } => Some(since + rules.slots),
            State::Up { idle } => {
                let healthy =
                    self.answers.filter(|_| self.failures > 0 || self.why.is_some()).map(|at| at + rules.healthy);
                let idle = rules.idle.filter(|_| self.using.is_empty()).map(|stays| idle + stays);
                healthy.into_iter().chain(idle).min()
            }
            State::Saving { since } => Some(since + if self.ending { rules.last } else { rules.slots }),
            State::Stopping { since, .. } => Some(since + rules.grace),
            State::BackingOff { until } => Some(until),
            // Nobody tries again before somebody asks, unless it is to be there always.
            State::Degraded { until } => rules.idle.is_none().then_some(until),
        }
    }

    fn is_idle(&self, now: Instant) -> bool {
        match (self.state, self.rules.idle) {
            (State::Up { idle }, Some(stays)) => self.using.is_empty() && now.saturating_duration_since(idle) >= stays,
            _ => false,
        }
    }

    fn start(&mut self, now: Instant) -> Vec<Act> {
        self.answers = None;
        self.state = State::Starting { since: now };
        vec![Act::Start]
    }

    /// Lets all in who wait.
    fn open(&mut self, now: Instant) -> Vec<Act> {
        self.state = State::Up { idle: now };
        let waiting = std::mem::take(&mut self.waiting);
        self.using.extend(&waiting);
        if waiting.is_empty() { vec![] } else { vec![Act::Admit(waiting)] }
    }

    fn unload(&mut self, now: Instant) -> Vec<Act> {
        self.state = State::Saving { since: now };
        vec![Act::Save]
    }

    fn stop(&mut self, now: Instant) -> Vec<Act> {
        self.state = State::Stopping { since: now, killed: false, slow: false };
        vec![Act::Terminate]
    }

    /// Forgets failures once the child has lived long enough after them.
    fn note_health(&mut self, now: Instant) {
        if self.answers.is_some_and(|since| now.saturating_duration_since(since) >= self.rules.healthy) {
            (self.failures, self.why, self.reported) = (0, None, false);
        }
    }

    fn fail(&mut self, failure: Failure, now: Instant) -> Vec<Act> {
        self.note_health(now);
        self.answers = None;
        self.failures = self.failures.saturating_add(1);
        self.why = Some(failure.clone());
        if self.failures < self.rules.most && !failure.stays() {
            self.state = State::BackingOff { until: now + self.pause() };
            return self.impatient(now);
        }
        self.state = State::Degraded { until: now + self.rules.longest_pause };
        let mut acts = vec![];
        if !self.waiting.is_empty() {
            let waiting = std::mem::take(&mut self.waiting);
            acts.push(Act::Refuse(waiting, Unready::Degraded(Some(failure.clone()))));
        }
        if !std::mem::replace(&mut self.reported, true) {
            acts.push(Act::Report(failure));
        }
        acts
    }

    /// Refuses those who would wait too long.
    fn impatient(&mut self, now: Instant) -> Vec<Act> {
        let State::BackingOff { until } = self.state else { return vec![] };
        let wait = until.saturating_duration_since(now);
        if wait <= self.rules.patience || self.waiting.is_empty() {
            return vec![];
        }
        vec![Act::Refuse(std::mem::take(&mut self.waiting), Unready::BackingOff(wait))]
    }

    fn pause(&self) -> Duration {
        let doubled = 2_u32.checked_pow(self.failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.rules.first_pause.saturating_mul(doubled).min(self.rules.longest_pause)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
