//! One run of a coding agent, followed from outside: what the room is shown of it (`shown`), when it is ended before its end
//! (`patience`), when it can be told what people said meanwhile, and what it came to (`outcome`). Where its process stays
//! when it has answered, it is told in that process; else it goes on as another one, and is the same run.
//!
//! Pure: bytes, news of the door to models and the time are handed in. Called by `tools`.

mod outcome;
mod patience;
mod shown;
mod standing;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashSet, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use self::outcome::Outcome;
use self::patience::GivenUp;
pub(crate) use self::standing::Standing;
use super::{
    agent::CodingAgent,
    record::Record,
    stream::{self, AgentEvent, Step, Stream, Tokens},
};
use crate::{strings, text};

/// How long a word waits for none of the agent's tools to work. Then the agent is told all the same.
const WORD_WAITS: Duration = Duration::from_mins(1);
/// The last lines that were no events, which tell what went wrong.
const NOISE: usize = 5;
/// Tools that are followed at once.
const TOOLS: usize = 64;
/// Characters of a tool with what it is used on, and of a line with steps.
const WIDTH: usize = 90;

/// What the door to models has seen of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// Requests.
    pub requests: u64,
    /// What they have used.
    pub tokens: Tokens,
    /// How many of the last ones were refused in a row (429 and 5xx).
    pub refused: u32,
    /// Why the last one was, in a line.
    pub cause: String,
    /// Grows while an answer is being said.
    pub heard: u64,
    /// No more requests are sent today: the tokens are used up.
    pub over: bool,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Run {
    agent: Arc<CodingAgent>,
    stream: Stream,
    begun: Instant,
    /// How long it may be silent.
    silence: Duration,
    /// When it last did something.
    alive: Instant,
    /// Since when its model refuses.
    refused: Option<(Instant, String)>,
    /// What it uses, by the CLI's ids.
    open: HashSet<String>,
    /// What it used last, in a line.
    doing: String,
    /// How often it used a tool.
    tools: u32,
    todo: Vec<Step>,
    used: Tokens,
    wire: Wire,
    noise: VecDeque<String>,
    /// Lines that were no events.
    noisy: u32,
    written: u64,
    /// Its session, once it has begun.
    session: Option<String>,
    /// Whether it has done something with what it was asked last: before that its session may not hold it.
    moved: bool,
    /// Whether its session can be gone on with.
    begun_session: bool,
    /// Since when a word waits to be told.
    word: Option<Instant>,
    /// What it is told, and has yet to begin with.
    telling: Vec<String>,
    /// What it was told.
    told: Vec<String>,
    /// How far its process has come with what it was asked, if that is one that stays.
    asked: Option<Questions>,
    /// When it is ended in any case, where nobody else sees to that.
    limit: Option<Instant>,
    ended: Option<Ended>,
    given_up: Option<GivenUp>,
    /// Whether whoever follows it was told that it is given up.
    is_ending: bool,
    record: Record,
}

/// How far a process that stays has come with what it was asked in a run. It answers each question by a result, also one that
/// was cut short by the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Questions {
    /// Questions that it was asked,
    asked: u32,
    /// that it has begun with,
    begun: u32,
    /// and that it has answered.
    answered: u32,
    /// Whether it is left when it has answered, for another run. Otherwise it is ended then.
    is_left: bool,
}

/// The CLI's own word about its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ended {
    #[serde(skip, default = "Instant::now")]
    at: Instant,
    ok: bool,
    summary: String,
    tokens: Option<Tokens>,
}

impl Run {
    /// Returns a run that begins `now` and may be silent for so long.
    pub fn new(agent: Arc<CodingAgent>, silence: Duration, now: Instant) -> Self {
        Self {
            stream: Stream::new(agent.dialect),
            agent,
            begun: now,
            silence,
            alive: now,
            refused: None,
            open: HashSet::new(),
            doing: String::new(),
            tools: 0,
            todo: Vec::new(),
            used: Tokens::default(),
            wire: Wire::default(),
            noise: VecDeque::new(),
            noisy: 0,
            written: 0,
            session: None,
            moved: false,
            begun_session: false,
            word: None,
            telling: Vec::new(),
            told: Vec::new(),
            asked: None,
            limit: None,
            ended: None,
            given_up: None,
            is_ending: false,
            record: Record::default(),
        }
    }

    /// Returns the run as one whose process stays when it has answered: it takes at most so long, and is over with its answer.
    /// `is_left`: the process is left then, for another run, unless this one goes on from where it stood.
    #[must_use]
    pub fn staying(self, limit: Duration, is_left: bool) -> Self {
        let asked = self.asked.unwrap_or(Questions { asked: 1, begun: 0, answered: 0, is_left });
        Self { asked: Some(asked), limit: self.begun.checked_add(limit), ..self }
    }

    /// Takes the last of its standard error, where that is apart.
    pub fn complain(&mut self, errors: &[u8], now: Instant) {
        for event in stream::noises(errors) {
            self.event(event, now);
        }
    }

    /// Returns the run as it is when its process is looked at from its beginning once more.
    #[must_use]
    pub fn anew(&self, now: Instant) -> Self {
        Self { alive: now, ..self.clone() }
    }

    /// Takes that its process was ended and another one begins, in which it is told these words.
    pub fn goes_on(&mut self, words: Vec<String>, now: Instant) {
        self.stream = Stream::new(self.agent.dialect);
        (self.ended, self.given_up, self.is_ending, self.written) = (None, None, false, 0);
        self.asked = self.asked.map(|before| Questions { asked: 1, begun: 0, answered: 0, ..before });
        self.is_told(words, now);
    }

    /// Takes that its process, which stays, was asked once more: it is told these words.
    pub fn asked_again(&mut self, words: Vec<String>, now: Instant) {
        let has_begun = self.was_asked_more();
        if let Some(asked) = &mut self.asked {
            asked.asked += 1;
            if asked.answered < asked.asked {
                self.ended = None;
            }
        }
        if has_begun {
            // That was seen before it was known what it was told.
            (self.word, self.told) = (None, [mem::take(&mut self.told), words].concat());
        } else {
            self.is_told(words, now);
        }
    }

    /// Tells whether its process has begun with a question of which it is not known that it was asked: the server was lost
    /// in between.
    pub fn was_asked_more(&self) -> bool {
        self.asked.is_some_and(|it| it.begun > it.asked)
    }

    /// Tells whether it has begun at all with what it was asked.
    pub fn has_begun(&self) -> bool {
        self.asked.is_none_or(|it| it.begun > 0)
    }

    /// Tells whether it is over with a good answer, and its process is left.
    pub fn rests(&self) -> bool {
        self.asked.is_some_and(|it| it.is_left)
            && self.given_up.is_none()
            && self.ended.as_ref().is_some_and(|ended| ended.ok)
    }

    fn is_told(&mut self, words: Vec<String>, now: Instant) {
        self.open.clear();
        (self.alive, self.refused, self.moved, self.word) = (now, None, false, None);
        self.doing = strings::agents::told(&text::one_line(&words.join(" "), WIDTH / 2));
        self.telling.extend(words);
        self.record.line(&self.doing, now.duration_since(self.begun));
    }

    /// Tells, while a word waits, whether what it does may be cut short now, so that it is told: where none of its
    /// tools works, or the word has waited for long. Once it has said its last there is nothing to steer any more.
    pub fn hears(&mut self, now: Instant) -> bool {
        let since = *self.word.get_or_insert(now);
        let is_safe = self.moved && self.open.is_empty();
        self.works() && (is_safe || now >= since + WORD_WAITS)
    }

    fn works(&self) -> bool {
        self.ended.is_none() && self.given_up.is_none()
    }

    /// Returns its session, if that can be gone on with.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref().filter(|_| self.begun_session && self.agent.goes_on())
    }

    /// Takes what it has written.
    pub fn take(&mut self, bytes: &[u8], now: Instant) {
        self.written += bytes.len() as u64;
        for event in self.stream.feed(bytes) {
            self.event(event, now);
        }
    }

    /// Takes what the door to its model has seen until now.
    pub fn look(&mut self, wire: Wire, now: Instant) {
        if wire.heard != self.wire.heard {
            // A long answer is counted at its end only.
            self.sign(now);
        } else if wire.refused > 0 {
            self.refuse(&wire.cause, now);
        } else if (wire.requests, wire.tokens) != (self.wire.requests, self.wire.tokens) {
            self.sign(now);
        }
        self.wire = wire;
    }

    fn event(&mut self, event: AgentEvent, now: Instant) {
        self.record.note(&event, now.duration_since(self.begun));
        match event {
            AgentEvent::Noise(line) => {
                self.noisy = self.noisy.saturating_add(1);
                // A line of a JavaScript program's stack tells nothing to those who did not write it.
                if line.starts_with("at ") {
                    return;
                }
                if self.noise.len() == NOISE {
                    self.noise.pop_front();
                }
                self.noise.push_back(line);
                return;
            }
            AgentEvent::Retry { reason } => return self.refuse(&reason, now),
            AgentEvent::Started { session, .. } => {
                self.session = Some(session);
                if let Some(asked) = &mut self.asked {
                    asked.begun += 1;
                    // If there was an end before, it was that of what is cut short.
                    self.ended = None;
                }
                if self.asked.is_none_or(|it| it.begun >= it.asked) {
                    self.told.append(&mut self.telling);
                }
                return self.sign(now);
            }
            AgentEvent::Said(_) => {}
            AgentEvent::ToolUsed { id, name, target } => {
                self.tools = self.tools.saturating_add(1);
                let target = target.strip_prefix("/workspace/").unwrap_or(&target);
                self.doing = text::one_line(&format!("{} {target}", name.replace('_', " ")), WIDTH / 2);
                if self.open.len() < TOOLS {
                    self.open.insert(id);
                }
            }
            AgentEvent::ToolEnded { id, .. } => drop(self.open.remove(&id)),
            AgentEvent::Todo(steps) => self.todo = steps,
            AgentEvent::Used(tokens) => self.used.add(tokens),
            AgentEvent::Ended { ok, summary, mut tokens } => {
                if let Some(asked) = &mut self.asked {
                    asked.answered += 1;
                    self.open.clear();
                    if asked.answered < asked.asked {
                        return self.sign(now);
                    }
                    // It counts those of its process's whole life.
                    tokens = None;
                }
                self.ended = Some(Ended { at: now, ok, summary, tokens });
            }
        }
        (self.moved, self.begun_session) = (true, true);
        self.sign(now);
    }

    fn sign(&mut self, now: Instant) {
        self.alive = now;
        self.refused = None;
    }

    fn refuse(&mut self, cause: &str, now: Instant) {
        let since = self.refused.take().map_or(now, |(since, _)| since);
        self.refused = Some((since, text::one_line(cause, WIDTH)));
    }

    fn tokens(&self) -> Tokens {
        let told = self.ended.as_ref().and_then(|ended| ended.tokens).unwrap_or(self.used);
        if self.wire.tokens.total() > told.total() { self.wire.tokens } else { told }
    }

    /// Returns for how long it has been followed.
    pub fn elapsed(&self, now: Instant) -> Duration {
        now.duration_since(self.begun)
    }
}
