//! What a coding agent's CLI writes while it runs, as one set of events, whichever CLI it is.
//!
//! Pure: bytes in, events out, in whatever pieces the bytes come. All of it is hostile until it is parsed: lines are
//! bounded, texts are cleaned and cut, what is no event of the CLI is told as [`AgentEvent::Noise`] (its standard error
//! comes on the same stream). Called by the parent module alone.

mod codex;
mod gemini;
mod lines;
mod opencode;
mod qwen;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::{
    codex::Codex,
    gemini::Gemini,
    lines::{Line, Lines},
    opencode::OpenCode,
};
use crate::{json, text};

/// Characters of a tool's name, of what it is used on, of a step of a todo list and of a line of noise.
const BRIEF: usize = 200;
/// Bytes of what an agent says at last.
const SAID: usize = 64 * 1024;
/// Bytes of a piece of what it says meanwhile.
const PIECE: usize = 2 * 1024;
/// Stands before the beginning of a line that is too long.
const LEFT_OUT: &[u8] = b"(a line of more than 1 MiB, left out) ";
/// Steps of a todo list.
const STEPS: usize = 50;

/// What happened in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AgentEvent {
    /// The CLI has begun.
    Started {
        /// The session, by which it can be continued.
        session: String,
        /// The model, as the CLI calls it.
        model: String,
    },
    /// The agent said something: a message or a piece of one, clean and cut.
    Said(String),
    /// It uses a tool.
    ToolUsed {
        /// The CLI's id of the use.
        id: String,
        /// The CLI's name of the tool.
        name: String,
        /// The file, the command or what else the tool is used on; empty where it is none of these.
        target: String,
    },
    /// A tool has ended.
    ToolEnded {
        /// The CLI's id of the use.
        id: String,
        /// Whether it did what it was to do.
        ok: bool,
    },
    /// The agent wrote down what it is about to do.
    Todo(Vec<Step>),
    /// A request to the model failed and is made again.
    Retry {
        /// Why, in the CLI's words; may be empty.
        reason: String,
    },
    /// Tokens that one request has used.
    Used(Tokens),
    /// The CLI's own word about the end of its run. The process's exit code has to agree.
    Ended {
        /// Whether it calls the run a success.
        ok: bool,
        /// What the agent said at last, or what went wrong.
        summary: String,
        /// What the whole run has used, if it says so.
        tokens: Option<Tokens>,
    },
    /// A line that is no event: cleaned and cut, never empty.
    Noise(String),
}

/// A step of a todo list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Step {
    /// What is to be done.
    pub text: String,
    /// How far it is.
    pub state: StepState,
}

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StepState {
    /// Not begun.
    Open,
    /// Under way.
    Doing,
    /// Done, or given up.
    Closed,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, more) = match self.state {
            StepState::Open => (' ', ""),
            StepState::Doing => (' ', " (begun)"),
            StepState::Closed => ('x', ""),
        };
        write!(f, "- [{mark}] {}{more}", self.text)
    }
}

/// Tokens of one or of several requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Read by the model, those from a cache included.
    pub input: u64,
    /// Written by it.
    pub output: u64,
}

impl Tokens {
    /// Returns all of them.
    pub fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// Adds those of another request.
    pub fn add(&mut self, more: Self) {
        self.input = self.input.saturating_add(more.input);
        self.output = self.output.saturating_add(more.output);
    }
}

/// How a CLI writes its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Dialect {
    /// `gemini -o stream-json`.
    Gemini,
    /// `qwen -o stream-json`.
    Qwen,
    /// `claude -p --output-format stream-json --verbose`, of which Qwen Code's is the child.
    Claude,
    /// `codex exec --json`.
    Codex,
    /// `opencode run --format json`.
    OpenCode,
}

/// Reads the output of one run.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    lines: Lines,
    reader: Reader,
}

/// What a CLI's lines mean, with what has to be remembered between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reader {
    Gemini(Gemini),
    Qwen,
    Claude,
    Codex(Codex),
    OpenCode(OpenCode),
}

impl Stream {
    /// Returns a reader at the beginning of an output.
    pub(super) fn new(dialect: Dialect) -> Self {
        let reader = match dialect {
            Dialect::Gemini => Reader::Gemini(Gemini::default()),
            Dialect::Qwen => Reader::Qwen,
            Dialect::Claude => Reader::Claude,
            Dialect::Codex => Reader::Codex(Codex::default()),
            Dialect::OpenCode => Reader::OpenCode(OpenCode::default()),
        };
        Self { lines: Lines::default(), reader }
    }

    /// Goes on where a line begins; `reader`: what [`Stream::reader`] was there.
    pub(super) fn going_on(reader: Reader) -> Self {
        Self { lines: Lines::default(), reader }
    }

    /// Returns what it remembers between lines.
    pub(super) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Returns how many bytes have come of a line that has not ended.
    pub(super) fn pending(&self) -> u64 {
        self.lines.pending()
    }

    /// Takes the next bytes and returns what they tell.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<AgentEvent> {
        let mut events = Vec::new();
        for line in self.lines.feed(bytes) {
            self.reader.line(&line, &mut events);
        }
        events
    }

    /// Takes the end of the output: what is left is a line that was not ended.
    pub(super) fn end(&mut self) -> Vec<AgentEvent> {
        let mut events = Vec::new();
        if let Some(line) = self.lines.end() {
            self.reader.line(&line, &mut events);
        }
        events
    }
}

impl Reader {
    fn line(&mut self, line: &Line, events: &mut Vec<AgentEvent>) {
        let line = match line {
            Line::Whole(line) => line,
            // What it would have told is missed, so that must not look as if nothing had been there.
            Line::Head(head) => return events.extend(noise(&[LEFT_OUT, head].concat())),
        };
        match value(line) {
            // As `-o json` writes them.
            Some(Value::Array(values)) => values.iter().for_each(|value| self.event(value, events)),
            Some(value) => self.event(&value, events),
            None => events.extend(noise(line)),
        }
    }

    fn event(&mut self, value: &Value, events: &mut Vec<AgentEvent>) {
        match self {
            Self::Gemini(gemini) => gemini.event(value, events),
            Self::Qwen => qwen::event(value, events),
            Self::Claude => qwen::event_of_claude(value, events),
            Self::Codex(codex) => codex.event(value, events),
            Self::OpenCode(opencode) => opencode.event(value, events),
        }
    }
}

/// Returns the JSON of a line, also where a word of somebody else's has got before it.
fn value(line: &[u8]) -> Option<Value> {
    const BEGIN: &[u8] = br#"{"type":""#;
    let is_whole = |value: &Value| value.is_object() || value.is_array();
    let read = |bytes: &[u8]| {
        let strict = serde_json::from_slice::<Value>(bytes).ok();
        strict.or_else(|| serde_json::from_str(&json::lossy(bytes)).ok()).filter(is_whole)
    };
    match line.trim_ascii_start().first()? {
        b'{' | b'[' => read(line),
        _ => read(&line[line.windows(BEGIN.len()).position(|window| window == BEGIN)?..]),
    }
}

/// Returns lines that are no events.
pub(super) fn noises(bytes: &[u8]) -> impl Iterator<Item = AgentEvent> {
    bytes.split(|byte| *byte == b'\n').filter_map(noise)
}

fn noise(line: &[u8]) -> Option<AgentEvent> {
    // Of a long line its beginning says enough.
    let line = text::one_line(&String::from_utf8_lossy(&line[..line.len().min(8 * BRIEF)]), BRIEF);
    (!line.is_empty()).then_some(AgentEvent::Noise(line))
}

/// Returns a text of an event as one short line; empty where there is none.
fn brief(value: &Value) -> String {
    value.as_str().map(|text| text::one_line(text, BRIEF)).unwrap_or_default()
}

/// Returns what a tool is used on.
fn target(parameters: &Value) -> String {
    const KEYS: [&str; 13] = [
        "file_path",
        "filePath",
        "absolute_path",
        "notebook_path",
        "path",
        "dir_path",
        "command",
        "pattern",
        "query",
        "url",
        "prompt",
        "title",
        "description",
    ];
    KEYS.iter().map(|key| brief(&parameters[*key])).find(|text| !text.is_empty()).unwrap_or_default()
}

/// Returns the todo list that a tool is given, if it is given one.
fn todo(parameters: &Value) -> Option<AgentEvent> {
    let steps = parameters["todos"].as_array()?;
    let step = |step: &Value| {
        let text =
            ["description", "content", "title"].iter().map(|key| brief(&step[*key])).find(|it| !it.is_empty())?;
        let state = match step["status"].as_str() {
            Some("in_progress") => StepState::Doing,
            Some("completed" | "cancelled" | "done") => StepState::Closed,
            _ => StepState::Open,
        };
        Some(Step { text, state })
    };
    Some(AgentEvent::Todo(steps.iter().take(STEPS).filter_map(step).collect()))
}

/// Returns a piece of what an agent says, with its spaces, since the next piece may belong to the same word.
fn piece_of(said: &str) -> String {
    text::strip(&said.as_bytes()[..said.floor_char_boundary(PIECE)])
}

/// Returns what an agent said, clean and bounded.
fn said(text: &str) -> String {
    text::cut_middle(text::strip(text).trim(), SAID)
}
