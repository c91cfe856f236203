//! One run of a coding agent, followed from outside: what the room is shown of it, when it is given up, when it can be told
//! what people said meanwhile, what it came to. Told something, it goes on as another process, and is the same run.
//!
//! Pure: bytes, news of the door to models and the time are handed in. Called by `tools`.

use std::{
    collections::{HashSet, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    agent::{CodingAgent, End},
    record::Record,
    stream::{self, AgentEvent, Reader, Step, StepState, Stream, Tokens},
};
use crate::{sandbox::Exit, strings, text};

/// How much longer an agent may be silent while one of its tools works: builds and tests say nothing for a while.
const PATIENCE: u32 = 3;
/// How long an agent may go on asking a model that refuses each time.
const REFUSED: Duration = Duration::from_mins(1);
/// How long a run has to exit once it has told its result, where it may stay.
const GRACE: Duration = Duration::from_secs(3);
/// How long a word waits for none of the agent's tools to work. Then the agent is told all the same.
const WORD_WAITS: Duration = Duration::from_mins(1);
/// The bytes that a run may write: more is a loop, and no work.
const FLOOD: u64 = 64 * 1024 * 1024;
/// Likewise the lines beside its events.
const FLOOD_LINES: u32 = 50_000;
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
    /// Whether it has done something since its process began: before that its session may not hold what it was asked.
    moved: bool,
    /// Whether its session can be gone on with.
    begun_session: bool,
    /// Since when a word waits to be told.
    word: Option<Instant>,
    /// What its process is told, which has yet to begin.
    telling: Vec<String>,
    /// What it was told.
    told: Vec<String>,
    ended: Option<Ended>,
    given_up: Option<GivenUp>,
    record: Record,
}

/// How far a run has come, so that a server that comes back follows it from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Up to which byte of its output this is: there a line begins.
    place: u64,
    session: Option<String>,
    doing: String,
    /// What it uses, by the CLI's ids.
    open: Vec<String>,
    tools: u32,
    todo: Vec<Step>,
    used: Tokens,
    reader: Reader,
    noise: VecDeque<String>,
    noisy: u32,
    ended: Option<Ended>,
    record: Record,
    #[serde(default)]
    moved: bool,
    #[serde(default)]
    begun_session: bool,
    #[serde(default)]
    telling: Vec<String>,
    #[serde(default)]
    told: Vec<String>,
}

impl Standing {
    /// Returns the place in the output from which it goes on.
    pub fn place(&self) -> u64 {
        self.place
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ended {
    #[serde(skip, default = "Instant::now")]
    at: Instant,
    ok: bool,
    summary: String,
    tokens: Option<Tokens>,
}

/// Why a run is ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum GivenUp {
    /// It had told its result, and stayed.
    Over,
    Silent(Duration),
    Refused(String),
    Flood,
    NoTokens,
}

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
            ended: None,
            given_up: None,
            record: Record::default(),
        }
    }

    /// Returns a run that goes on from where it stood, begun at `begun`.
    pub fn going_on(
        agent: Arc<CodingAgent>,
        silence: Duration,
        begun: Instant,
        now: Instant,
        standing: Standing,
    ) -> Self {
        let Standing { place, session, doing, open, tools, todo, used, reader, noise, noisy, ended, record, .. } =
            standing;
        let Standing { moved, begun_session, telling, told, .. } = standing;
        Self {
            stream: Stream::going_on(reader),
            begun,
            open: open.into_iter().collect(),
            doing,
            tools,
            todo,
            used,
            noise,
            noisy,
            written: place,
            session,
            ended: ended.map(|ended| Ended { at: now, ..ended }),
            record,
            moved,
            begun_session,
            telling,
            told,
            ..Self::new(agent, silence, now)
        }
    }

    /// Returns how far it has come, if `upto` is the place behind what it has taken of the output.
    pub fn standing(&self, upto: u64) -> Standing {
        let mut open: Vec<_> = self.open.iter().cloned().collect();
        open.sort();
        Standing {
            place: upto.saturating_sub(self.stream.pending()),
            session: self.session.clone(),
            doing: self.doing.clone(),
            open,
            tools: self.tools,
            todo: self.todo.clone(),
            used: self.used,
            reader: self.stream.reader().clone(),
            noise: self.noise.clone(),
            noisy: self.noisy,
            ended: self.ended.clone(),
            record: self.record.clone(),
            moved: self.moved,
            begun_session: self.begun_session,
            telling: self.telling.clone(),
            told: self.told.clone(),
        }
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
        self.open.clear();
        (self.alive, self.refused, self.moved, self.word) = (now, None, false, None);
        (self.ended, self.given_up, self.written) = (None, None, 0);
        self.doing = strings::agents::told(&text::one_line(&words.join(" "), WIDTH / 2));
        self.telling.extend(words);
        self.record.line(&self.doing, now.duration_since(self.begun));
    }

    /// Tells, while a word waits, whether its process may be ended now, so that another one is told it: where none of its
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
                if self.noise.len() == NOISE {
                    self.noise.pop_front();
                }
                self.noise.push_back(line);
                return;
            }
            AgentEvent::Retry { reason } => return self.refuse(&reason, now),
            AgentEvent::Started { session, .. } => {
                self.session = Some(session);
                self.told.append(&mut self.telling);
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
            AgentEvent::Ended { ok, summary, tokens } => {
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

    /// Returns when [`Run::give_up`] or [`Run::hears`] has something to say, if nothing happens until then.
    pub fn deadline(&self) -> Option<Instant> {
        let word = self.word.filter(|_| self.works()).map(|since| since + WORD_WAITS);
        self.last_sign().into_iter().chain(word).min()
    }

    /// Returns when [`Run::give_up`] has something to say; `None` if it has said it.
    fn last_sign(&self) -> Option<Instant> {
        let silent = self.alive + self.patience();
        let deadline =
            self.refused.as_ref().map_or(silent, |(since, _)| silent.min(*since + REFUSED.min(self.silence)));
        let deadline = self.over().map_or(deadline, |over| deadline.min(over));
        let deadline = if self.wire.over { self.begun } else { deadline };
        self.given_up.is_none().then_some(deadline)
    }

    /// Returns when it has to be ended that has told its result, if it is one that may stay.
    fn over(&self) -> Option<Instant> {
        self.ended.as_ref().filter(|_| self.agent.end == End::Result).map(|ended| ended.at + GRACE)
    }

    fn patience(&self) -> Duration {
        if self.open.is_empty() { self.silence } else { self.silence * PATIENCE }
    }

    /// Tells whether the run has to be ended, because it has been silent or refused for too long, writes without end, or has
    /// no tokens left. Says so once.
    pub fn give_up(&mut self, now: Instant) -> bool {
        let Some(deadline) = self.last_sign() else { return false };
        self.given_up = if self.written > FLOOD || self.noisy > FLOOD_LINES {
            Some(GivenUp::Flood)
        } else if now < deadline {
            None
        } else if self.wire.over {
            Some(GivenUp::NoTokens)
        } else if self.over().is_some_and(|over| now >= over) {
            Some(GivenUp::Over)
        } else if let Some((_, cause)) = &self.refused {
            Some(GivenUp::Refused(cause.clone()))
        } else {
            Some(GivenUp::Silent(self.patience()))
        };
        self.given_up.is_some()
    }

    /// Returns what the room is shown: a line with the agent, what it does, time and tokens; below it its todo list, if
    /// it has one.
    pub fn lines(&self, now: Instant) -> String {
        let tokens = self.tokens().total();
        let doing = match &self.refused {
            Some((_, cause)) => format!("its model refuses: {cause}"),
            None if self.doing.is_empty() => "begins".to_owned(),
            None => self.doing.clone(),
        };
        let word = if self.word.is_some() && self.works() {
            [" · ", strings::agents::TOLD_NEXT].concat()
        } else {
            String::new()
        };
        let time = text::stopwatch(now.duration_since(self.begun));
        let mut line = format!("{} · {doing}{word} · {time}", self.agent.name);
        if tokens > 0 {
            line.extend([" · ", &text::short(tokens), " tokens"]);
        }
        if !self.todo.is_empty() {
            line.extend(["\n", &self.steps()]);
        }
        line
    }

    /// Returns the todo list from where it stands, on one line.
    fn steps(&self) -> String {
        let closed = self.todo.iter().filter(|step| step.state == StepState::Closed).count();
        let open = self.todo.iter().filter(|step| step.state != StepState::Closed);
        let open = open.map(|step| format!("{} {}", if step.state == StepState::Doing { '▸' } else { '☐' }, step.text));
        let line: Vec<_> = [format!("{closed}/{}", self.todo.len())].into_iter().chain(open).collect();
        text::one_line(&line.join(" "), WIDTH)
    }

    fn tokens(&self) -> Tokens {
        let told = self.ended.as_ref().and_then(|ended| ended.tokens).unwrap_or(self.used);
        if self.wire.tokens.total() > told.total() { self.wire.tokens } else { told }
    }

    /// Returns for how long it has been followed.
    pub fn elapsed(&self, now: Instant) -> Duration {
        now.duration_since(self.begun)
    }

    /// Returns what it came to, given how its process ended. `stopped`: a person wanted it to.
    pub fn outcome(mut self, exit: &Exit, stopped: bool, now: Instant) -> Outcome {
        for event in self.stream.end() {
            self.event(event, now);
        }
        let tokens = self.tokens();
        let ended = self.ended.take();
        let stalled = !stopped && self.is_stalled(exit, ended.as_ref());
        let is_over = *exit == Exit::Killed && self.given_up == Some(GivenUp::Over);
        let ok = (*exit == Exit::Code(0) || is_over) && !stopped && ended.as_ref().is_some_and(|ended| ended.ok);
        let verdict = if ok { "done".to_owned() } else { self.verdict(exit, stopped, ended.as_ref()) };
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
                Some(GivenUp::Over) => return "failed, by its own word".to_owned(),
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
            (Exit::Code(0), Some(_)) => "failed, by its own word".to_owned(),
            (Exit::Code(0), None) => "ended without a result: whether it did its work is not known".to_owned(),
            (Exit::Code(code), _) => {
                let means = self.agent.means(*code).map(|means| format!(": {means}")).unwrap_or_default();
                format!("failed with exit code {code}{means}{but}")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coding_agents::Profiles;

    const SILENCE: Duration = Duration::from_mins(5);
    const SECOND: Duration = Duration::from_secs(1);
    const STARTED: &str = r#"{"type":"system","subtype":"init","session_id":"a","model":"m"}"#;
    const DONE: &str = r#"{"type":"result","subtype":"success","is_error":false,"result":"All done.","usage":{"input_tokens":900,"output_tokens":100}}"#;
    const RETRY: &str = r#"{"type":"system","subtype":"retry","data":{"reason":"429 slow down"}}"#;

    fn tool(id: &str, name: &str, input: &str) -> String {
        format!(
            r#"{{"type":"assistant","message":{{"content":[{{"type":"tool_use","id":"{id}","name":"{name}","input":{input}}}],"usage":{{"input_tokens":70000,"output_tokens":500}}}}}}"#
        )
    }

    fn result(id: &str) -> String {
        format!(
            r#"{{"type":"user","message":{{"content":[{{"type":"tool_result","tool_use_id":"{id}","is_error":false}}]}}}}"#
        )
    }

    fn agent(name: &str) -> Arc<CodingAgent> {
        Arc::clone(Profiles::new([].into_iter()).of(name).unwrap())
    }

    fn run(lines: &[&str]) -> (Run, Instant) {
        let now = Instant::now();
        let mut run = Run::new(agent("qwen"), SILENCE, now);
        for line in lines {
            run.take(format!("{line}\n").as_bytes(), now);
        }
        (run, now)
    }

    fn verdict(lines: &[&str], exit: &Exit) -> String {
        let (run, now) = run(lines);
        run.outcome(exit, false, now).verdict
    }

    #[test]
    fn the_room_sees_the_agent_its_tool_its_list_time_and_tokens() {
        let (mut run, now) = run(&[STARTED]);
        assert_eq!(run.lines(now + SECOND), "Qwen Code · begins · 0:01");
        let todos = r#"{"todos":[{"content":"read","status":"completed"},{"content":"write","status":"in_progress"},{"content":"test","status":"pending"}]}"#;
        for line in
            [tool("1", "todo_write", todos), tool("2", "write_file", r#"{"file_path":"/workspace/src/login.rs"}"#)]
        {
            run.take(format!("{line}\n").as_bytes(), now);
        }
        assert_eq!(
            run.lines(now + 72 * SECOND),
            "Qwen Code · write file src/login.rs · 1:12 · 141k tokens\n1/3 ▸ write ☐ test"
        );
    }

    #[test]
    fn success_is_a_good_exit_and_a_result_that_says_so() {
        let (done, now) = run(&[STARTED, "Warning: x", DONE]);
        let outcome = done.outcome(&Exit::Code(0), false, now);
        let tokens = Tokens { input: 900, output: 100 };
        let (said, summary) = ("done".to_owned(), "All done.".to_owned());
        let (noise, session, told) = (Vec::new(), Some("a".to_owned()), Vec::new());
        let (stalled, todo, record) = (false, String::new(), "0:00 Warning: x".to_owned());
        assert_eq!(
            outcome,
            Outcome { ok: true, verdict: said, summary, noise, tokens, tools: 0, session, stalled, todo, told, record }
        );

        assert_eq!(verdict_of(&[STARTED, DONE], 1), "failed with exit code 1, although it calls itself done");
        assert_eq!(verdict_of(&[STARTED], 0), "ended without a result: whether it did its work is not known");
        assert_eq!(
            verdict_of(&[STARTED, &DONE[..40]], 0),
            "ended without a result: whether it did its work is not known"
        );
        assert_eq!(verdict_of(&[STARTED], 53), "failed with exit code 53: it reached its limit of turns");
        let failed =
            r#"{"type":"result","subtype":"error_during_execution","is_error":true,"error":{"message":"400 no"}}"#;
        assert_eq!(verdict_of(&[STARTED, failed], 0), "failed, by its own word");
        assert!(verdict(&["sh: qwen: not found"], &Exit::Code(127)).contains("no program `qwen`"));
        assert!(verdict(&[], &Exit::NotStarted("no such file".into())).contains("no program `qwen`"));
        for (exit, says) in [
            (Exit::TimedOut, "CODING_TIMEOUT_SECONDS"),
            (Exit::OutOfMemory, "SANDBOX_MEMORY"),
            (Exit::DiskFull, "SANDBOX_DISK"),
            (Exit::Signal(9), "ended by signal 9"),
            (Exit::Killed, "ended from outside"),
        ] {
            assert!(verdict(&[STARTED, DONE], &exit).contains(says), "{exit:?}");
        }
        let (stopped, now) = run(&[STARTED]);
        assert_eq!(stopped.outcome(&Exit::Killed, true, now).verdict, "stopped by the person");
    }

    fn verdict_of(lines: &[&str], code: i32) -> String {
        verdict(lines, &Exit::Code(code))
    }

    /// Wherever a server is lost, and however the output came: the next one that goes on from the stored place sees each
    /// event once.
    #[test]
    fn a_run_goes_on_from_any_place_as_if_nothing_had_been() {
        let todos = r#"{"todos":[{"content":"read","status":"completed"},{"content":"write","status":"pending"}]}"#;
        let qwen = [
            STARTED.to_owned(),
            "Warning: x".to_owned(),
            tool("1", "todo_write", todos),
            result("1"),
            tool("2", "write_file", r#"{"file_path":"/workspace/ä.rs"}"#),
            result("2"),
            tool("3", "run_shell_command", r#"{"command":"make"}"#),
            DONE.to_owned(),
        ];
        let gemini = [
            r#"{"type":"init","session_id":"a","model":"m"}"#,
            r#"{"type":"tool_use","tool_name":"read_file","tool_id":"1","parameters":{"file_path":"a"}}"#,
            r#"{"type":"tool_result","tool_id":"1","status":"success","output":"x"}"#,
            r#"{"type":"message","role":"assistant","content":"All ","delta":true}"#,
            r#"{"type":"message","role":"assistant","content":"done.","delta":true}"#,
            r#"{"type":"result","status":"success","stats":{"input_tokens":9,"output_tokens":1,"total_tokens":10}}"#,
        ];
        let now = Instant::now();
        for (agent, output) in [("qwen", qwen.join("\n") + "\n"), ("gemini", gemini.join("\n") + "\n")] {
            let (output, agent) = (output.as_bytes(), self::agent(agent));
            let mut whole = Run::new(Arc::clone(&agent), SILENCE, now);
            whole.take(output, now);
            let (standing, lines) = (whole.standing(output.len() as u64), whole.lines(now));
            let outcome = whole.outcome(&Exit::Code(0), false, now);
            assert!(outcome.ok && outcome.summary == "All done.", "{outcome:?}");
            for cut in 0..=output.len() {
                let mut before = Run::new(Arc::clone(&agent), SILENCE, now);
                before.take(&output[..cut], now);
                let stored = serde_json::to_string(&before.standing(cut as u64)).unwrap();
                let stored: Standing = serde_json::from_str(&stored).unwrap();
                let from = stored.place() as usize;
                assert!(from <= cut && (from == 0 || output[from - 1] == b'\n'), "{from} of {cut}");
                let mut after = Run::going_on(Arc::clone(&agent), SILENCE, now, now, stored);
                after.take(&output[from..], now);
                assert_eq!(after.standing(output.len() as u64), standing, "cut at {cut}");
                assert_eq!(after.lines(now), lines);
                assert_eq!(after.outcome(&Exit::Code(0), false, now), outcome);
            }
        }
    }

    #[test]
    fn a_standard_error_that_is_apart_tells_what_went_wrong_too() {
        let (mut run, now) = run(&[STARTED]);
        run.complain(b"Error: no key\n\n  at x\n", now);
        assert_eq!(run.outcome(&Exit::Code(1), false, now).noise, ["Error: no key", "at x"]);
    }

    #[test]
    fn what_went_wrong_is_in_the_last_lines() {
        let lines: Vec<String> = (0..9).map(|n| format!("Error {n}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (run, now) = run(&lines);
        assert_eq!(run.outcome(&Exit::Code(1), false, now).noise, lines[4..]);
    }

    #[test]
    fn a_silent_run_is_given_up_and_one_that_works_is_not() {
        let (mut run, now) = run(&[STARTED]);
        assert!(!run.give_up(now + SILENCE - SECOND));
        let later = now + SILENCE - SECOND;
        run.take(tool("1", "run_shell_command", r#"{"command":"make"}"#).as_bytes(), later);
        run.take(b"\nnoise is no sign of life\n", later + SILENCE);
        assert!(!run.give_up(later + 2 * SILENCE), "its tool works");
        run.take(format!("{}\n", result("1")).as_bytes(), later + 2 * SILENCE);
        assert!(!run.give_up(later + 3 * SILENCE - SECOND));
        assert!(run.give_up(later + 3 * SILENCE) && !run.give_up(later + 4 * SILENCE), "once");
        assert_eq!(run.outcome(&Exit::Killed, false, now).verdict, "ended: nothing was heard of it for 5 min");
    }

    #[test]
    fn a_model_that_refuses_is_silence_and_ends_the_run_sooner() {
        let (mut run, now) = run(&[STARTED, RETRY]);
        run.take(format!("{RETRY}\n").as_bytes(), now + 50 * SECOND);
        assert!(run.lines(now).contains("its model refuses: 429 slow down"), "{}", run.lines(now));
        assert!(!run.give_up(now + 59 * SECOND) && run.give_up(now + REFUSED));
        assert_eq!(
            run.outcome(&Exit::Killed, false, now).verdict,
            "ended: its model refuses every request (429 slow down)"
        );
    }

    #[test]
    fn the_door_s_news_are_signs_of_life_unless_they_are_refusals() {
        let now = Instant::now();
        let mut run = Run::new(agent("gemini"), SILENCE, now);
        let used = |requests, refused| Wire {
            requests,
            tokens: Tokens { input: 80 * requests, output: 4 },
            refused,
            cause: if refused > 0 { "429 from generativelanguage.googleapis.com".to_owned() } else { String::new() },
            ..Wire::default()
        };
        let later = now + SILENCE - SECOND;
        run.look(used(1, 0), later);
        assert!(!run.give_up(later + SILENCE - SECOND));
        assert_eq!(run.lines(now), "Gemini CLI · begins · 0:00 · 84 tokens");
        run.look(used(1, 0), later + SILENCE - SECOND);
        assert!(run.give_up(later + SILENCE), "the same again is no news");

        let mut run = Run::new(agent("gemini"), SILENCE, now);
        run.look(used(1, 1), now);
        run.look(used(2, 0), now + 30 * SECOND);
        run.look(used(3, 1), now + 40 * SECOND);
        assert!(!run.give_up(now + 99 * SECOND) && run.give_up(now + 100 * SECOND));
        assert!(run.outcome(&Exit::Killed, false, now).verdict.contains("429 from generativelanguage"));
    }

    #[test]
    fn a_run_that_was_silent_or_refused_is_for_another_to_go_on_with() {
        let stalled = |(run, now): (Run, Instant), exit| run.outcome(&exit, false, now).stalled;
        let given_up = |lines: &[&str]| {
            let (mut run, now) = run(lines);
            assert!(run.give_up(now + SILENCE));
            (run, now)
        };
        let todos = r#"{"todos":[{"content":"read","status":"completed"},{"content":"write","status":"in_progress"},{"content":"test","status":"pending"}]}"#;
        let (silent, now) = given_up(&[STARTED, &tool("1", "todo_write", todos), &result("1")]);
        let outcome = silent.outcome(&Exit::Killed, false, now);
        assert!(outcome.stalled);
        assert_eq!(outcome.todo, "- [x] read\n- [ ] write (begun)\n- [ ] test");
        assert!(stalled(given_up(&[STARTED, RETRY]), Exit::Killed));
        assert!(!stalled(given_up(&[STARTED, DONE]), Exit::Killed), "it calls itself done");
        // Gemini CLI ends by itself.
        let failed = r#"{"type":"result","status":"error","error":{"message":"429"}}"#;
        let gemini = |refused| {
            let mut run = Run::new(agent("gemini"), SILENCE, now);
            run.look(Wire { requests: 2, refused, ..Wire::default() }, now);
            run.take(format!("{failed}\n").as_bytes(), now);
            (run, now)
        };
        assert!(stalled(gemini(2), Exit::Code(173)));
        assert!(!stalled(gemini(0), Exit::Code(144)) && !stalled(gemini(2), Exit::OutOfMemory));
        let (stopped, now) = given_up(&[STARTED]);
        assert!(!stopped.outcome(&Exit::Killed, true, now).stalled);
    }

    #[test]
    fn a_word_waits_until_no_tool_works() {
        let (mut run, now) = run(&[STARTED]);
        assert!(!run.hears(now), "its session may hold nothing yet");
        run.take(format!("{}\n", tool("1", "run_shell_command", r#"{"command":"make"}"#)).as_bytes(), now);
        assert!(!run.hears(now + SECOND));
        assert!(
            run.lines(now).starts_with("Qwen Code · run shell command make · gets your word after this step · 0:00")
        );
        run.take(format!("{}\n", result("1")).as_bytes(), now);
        assert!(run.hears(now + SECOND) && run.session() == Some("a"));

        run.goes_on(vec!["anna: in blue".to_owned()], now);
        assert_eq!(run.lines(now), "Qwen Code · was told “anna: in blue” · 0:00 · 71k tokens");
        assert!(!run.hears(now), "it has done nothing with the last one yet");
        for line in [STARTED, DONE] {
            run.take(format!("{line}\n").as_bytes(), now);
        }
        assert!(!run.hears(now + SECOND), "it has said its last");
        assert!(!run.hears(now + 2 * WORD_WAITS) && run.deadline() > Some(now + 2 * WORD_WAITS), "and that stays so");
        let outcome = run.outcome(&Exit::Code(0), false, now);
        assert_eq!((outcome.ok, outcome.tools, outcome.told), (true, 1, vec!["anna: in blue".to_owned()]));
        assert_eq!(outcome.record, "0:00 run shell command make\n0:00 was told “anna: in blue”");
    }

    #[test]
    fn a_word_that_has_waited_for_long_is_told_all_the_same() {
        let (mut run, now) = run(&[STARTED, &tool("1", "run_shell_command", "{}")]);
        assert!(!run.hears(now) && run.deadline() == Some(now + WORD_WAITS));
        assert!(!run.hears(now + WORD_WAITS - SECOND) && run.hears(now + WORD_WAITS));
        run.goes_on(vec!["in blue".to_owned()], now);
        assert!(run.outcome(&Exit::Code(1), false, now).told.is_empty(), "its process has not begun");
    }

    #[test]
    fn an_answer_that_is_being_said_is_a_sign_of_life_long_before_it_is_counted() {
        let now = Instant::now();
        let mut run = Run::new(agent("gemini"), SILENCE, now);
        let said = |heard, refused| Wire { requests: 1, refused, heard, ..Wire::default() };
        let nearly = Duration::from_secs(299);
        for heard in 0..10 {
            let later = now + nearly * heard;
            run.look(said(heard.into(), 1), later);
            assert!(!run.give_up(later + REFUSED - SECOND), "an answer comes after all: {heard}");
        }
        assert!(run.give_up(now + nearly * 9 + SILENCE));
    }

    #[test]
    fn a_run_without_tokens_is_ended_at_once_and_says_so_however_it_ended() {
        for exit in [Exit::Killed, Exit::Code(1)] {
            let (mut run, now) = run(&[STARTED]);
            run.look(Wire { requests: 1, over: true, ..Wire::default() }, now);
            assert!(run.deadline().is_some_and(|deadline| deadline <= now));
            assert!(run.give_up(now) && !run.give_up(now), "once");
            run.look(Wire { refused: 1, over: true, ..Wire::default() }, now);
            let outcome = run.outcome(&exit, false, now);
            assert_eq!(outcome.verdict, "ended: today's tokens are used up");
            assert!(!outcome.stalled, "nobody else has any");
        }
        let (mut run, now) = run(&[STARTED, DONE]);
        run.look(Wire { over: true, ..Wire::default() }, now);
        assert!(run.outcome(&Exit::Code(0), false, now).ok, "what it wanted beside its work changes nothing");
    }

    #[test]
    fn a_run_that_has_told_its_end_has_to_end() {
        let (mut run, now) = run(&[STARTED, DONE]);
        assert!(run.give_up(now + SILENCE));
        assert_eq!(
            run.outcome(&Exit::Killed, false, now).verdict,
            "ended: nothing was heard of it for 5 min, although it calls itself done"
        );
    }

    #[test]
    fn a_run_that_may_stay_is_ended_after_its_result_which_counts() {
        let now = Instant::now();
        let told = |ok: bool| {
            let mut run = Run::new(agent("claude"), SILENCE, now);
            let result = if ok { DONE.to_owned() } else { DONE.replace("false", "true") };
            run.take(format!("{STARTED}\n{result}\n").as_bytes(), now);
            assert!(!run.give_up(now + GRACE - SECOND) && run.deadline() == Some(now + GRACE));
            assert!(run.give_up(now + GRACE));
            run
        };
        let outcome = told(true).outcome(&Exit::Killed, false, now);
        assert!(outcome.ok && outcome.verdict == "done" && !outcome.stalled, "{outcome:?}");
        let outcome = told(false).outcome(&Exit::Killed, false, now);
        assert_eq!((outcome.ok, &*outcome.verdict), (false, "failed, by its own word"));
        assert!(!told(true).outcome(&Exit::Killed, true, now).ok, "a person has stopped it");
        let mut silent = Run::new(agent("claude"), SILENCE, now);
        assert!(!silent.give_up(now + GRACE), "it has told nothing");
    }

    #[test]
    fn a_flood_is_ended() {
        let (mut run, now) = run(&[STARTED]);
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..65 {
            run.take(&piece, now);
            assert!(!run.give_up(now) || run.written > FLOOD);
        }
        assert_eq!(run.outcome(&Exit::Killed, false, now).verdict, "ended: it writes without end");
    }

    #[test]
    fn lines_without_end_are_ended_sooner() {
        let (mut run, now) = run(&[STARTED]);
        run.take("y\n".repeat(FLOOD_LINES as usize).as_bytes(), now);
        assert!(!run.give_up(now));
        run.take(b"y\n", now);
        assert!(run.give_up(now));
    }
}
