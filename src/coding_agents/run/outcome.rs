//! What a run came to: its own word about its end and how its process ended have to agree.

use std::mem;

use tokio::time::Instant;

use super::{Ended, Run, patience::GivenUp};
use crate::{
    coding_agents::stream::{Step, Tokens},
    sandbox::Exit,
    text,
};

/// Characters of what the CLI says of why it failed.
const CAUSE: usize = 100;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it did its work, by its own word and by its exit code.
    pub ok: bool,
    /// How it ended: one sentence without its full stop.
    pub verdict: String,
    /// What the agent said at last; empty if it said nothing.
    pub summary: String,
    /// What it said and did, in lines with the time; empty if that was nothing.
    pub record: String,
    /// The last lines beside its events, oldest first; none after a success.
    pub noise: Vec<String>,
    /// Tokens, as far as they are known.
    pub tokens: Tokens,
    /// How often it used a tool.
    pub tools: u32,
    /// Its session, if it has begun: the CLI's own word.
    pub session: Option<String>,
    /// Whether it came to nothing because it was silent or its model refused: another may do better.
    pub stalled: bool,
    /// Its todo list, a line a step.
    pub todo: String,
    /// What people said meanwhile and it was told, oldest first.
    pub told: Vec<String>,
}

impl Outcome {
    /// Takes that something was to be said, as a plan or a review is: without a word there is none, and another agent may
    /// do better.
    pub fn must_say_something(&mut self) {
        if self.ok && self.summary.is_empty() {
            (self.ok, self.stalled) = (false, true);
            "ended without a word".clone_into(&mut self.verdict);
        }
    }
}

impl Run {
    /// Returns what it came to, given how its process ended; `None`: it has answered and stays. `stopped`: a person wanted it to
    /// end.
    pub fn outcome(mut self, exit: Option<&Exit>, stopped: bool, now: Instant) -> Outcome {
        for event in self.stream.end() {
            self.event(event, now);
        }
        let tokens = self.tokens();
        let ended = self.ended.take();
        let stalled = !stopped && exit.is_some_and(|exit| self.is_stalled(exit, ended.as_ref()));
        let is_over = exit == Some(&Exit::Killed) && self.given_up == Some(GivenUp::Over);
        let ok = (matches!(exit, None | Some(Exit::Code(0))) || is_over)
            && !stopped
            && ended.as_ref().is_some_and(|ended| ended.ok);
        let verdict = match exit {
            Some(exit) if !ok => self.verdict(exit, stopped, ended.as_ref()),
            None if !ok => by_its_own_word(ended.as_ref()),
            _ => "done".to_owned(),
        };
        Outcome {
            ok,
            verdict,
            summary: ended.map(|ended| ended.summary).unwrap_or_default(),
            record: mem::take(&mut self.record).told(),
            noise: if ok { Vec::new() } else { mem::take(&mut self.noise).into() },
            tokens,
            tools: self.tools,
            session: self.session,
            stalled,
            todo: self.todo.iter().map(Step::to_string).collect::<Vec<_>>().join("\n"),
            told: self.told,
        }
    }

    /// A run that calls itself done has nothing left for another, and what ended for a reason of its own would end so again;
    /// so does whoever comes without tokens.
    fn is_stalled(&self, exit: &Exit, ended: Option<&Ended>) -> bool {
        let refuses = self.refused.is_some() || self.wire.refused > 0;
        let is_silent = matches!(self.given_up, Some(GivenUp::Silent(_) | GivenUp::Refused(_)));
        let is_done = ended.is_some_and(|ended| ended.ok);
        !is_done
            && !self.wire.over
            && (*exit == Exit::Killed && (is_silent || refuses) || matches!(exit, Exit::Code(_)) && refuses)
    }

    fn verdict(&self, exit: &Exit, stopped: bool, ended: Option<&Ended>) -> String {
        let but = if ended.is_some_and(|ended| ended.ok) { ", although it calls itself done" } else { "" };
        if *exit == Exit::Killed && !stopped {
            match &self.given_up {
                Some(GivenUp::Silent(time)) => {
                    return format!("ended: nothing was heard of it for {}{but}", text::human_duration(*time));
                }
                Some(GivenUp::Refused(cause)) => return format!("ended: its model refuses every request ({cause})"),
                Some(GivenUp::Over) => return by_its_own_word(ended),
                Some(GivenUp::Late) => return self.verdict(&Exit::TimedOut, stopped, ended),
                Some(GivenUp::Flood) => return format!("ended: it writes without end{but}"),
                Some(GivenUp::NoTokens) | None => {}
            }
        }
        // It may have ended by itself when it was told.
        if self.wire.over && !stopped {
            return format!("ended: today's tokens are used up{but}");
        }
        match (exit, ended) {
            (Exit::Killed, _) if stopped => "stopped by the person".to_owned(),
            (Exit::Killed, _) => "ended from outside".to_owned(),
            (Exit::TimedOut, _) => "ended: it was not done within CODING_TIMEOUT_SECONDS".to_owned(),
            (Exit::OutOfMemory, _) => "ended: it needs more memory than the sandbox has (SANDBOX_MEMORY)".to_owned(),
            (Exit::DiskFull, _) => "ended: the sandbox's disk is full (SANDBOX_DISK)".to_owned(),
            (Exit::Signal(signal), _) => format!("ended by signal {signal}"),
            (Exit::NotStarted(_) | Exit::Code(127), None) if self.session.is_none() => self.missing(),
            (Exit::NotStarted(why), _) => format!("not started: {}", text::one_line(why, 200)),
            (Exit::Code(0), Some(_)) => by_its_own_word(ended),
            (Exit::Code(0), None) => "ended without a result: whether it did its work is not known".to_owned(),
            (Exit::Code(code), _) => {
                let means = self.agent.means(*code).map(|means| format!(": {means}")).unwrap_or_default();
                format!("failed with exit code {code}{means}{}{but}", cause(ended))
            }
        }
    }

    fn missing(&self) -> String {
        format!(
            "not started: there is no program `{}` in this sandbox's image (SANDBOX_IMAGE), or it cannot run",
            self.agent.program
        )
    }
}

/// Says that a run failed although its process ended well.
fn by_its_own_word(ended: Option<&Ended>) -> String {
    format!("failed, by its own word{}", cause(ended))
}

/// Returns what the CLI said of why it failed, to be put behind that it did; empty if it said nothing.
fn cause(ended: Option<&Ended>) -> String {
    let said = ended.filter(|ended| !ended.ok).map(|ended| text::one_line(&ended.summary, CAUSE)).unwrap_or_default();
    if said.is_empty() { said } else { format!(" ({said})") }
}
