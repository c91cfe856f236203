//! Assembles the calls of a streamed answer from their pieces. Pure; part of `assemble.rs`.
//!
//! Providers differ in which piece has the id, whether `index` counts, and whether everything is sent once more at
//! the end.

use std::collections::HashSet;

use serde_json::{Deserializer, Value};

use super::{
    message::{Chunk, ToolCall},
    wire::CallDelta,
};
use crate::{ids, json::Braces};

/// The most bytes of one call's arguments.
const MAX_ARGUMENTS: usize = 1024 * 1024;
/// The most bytes of all calls' arguments, with what is sent back with them.
const MAX_ALL_ARGUMENTS: usize = 4 * 1024 * 1024;
/// The most calls of one message.
pub(super) const MAX_CALLS: usize = 64;
/// The longest id or name in bytes; a longer one is cut.
const MAX_LABEL: usize = 256;

/// Calls that are being assembled.
#[derive(Debug, Default)]
pub(super) struct Calls {
    all: Vec<PartialCall>,
    /// Bytes of what must be sent back with the calls.
    extras: usize,
    /// Whether a limit above was reached, so that the rest is not read.
    full: bool,
}

#[derive(Debug, Default)]
struct PartialCall {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
    braces: Braces,
    /// The length of the first piece of the arguments.
    first: usize,
    /// The last piece, if it could be all of the arguments.
    last: String,
    extra: Option<Value>,
}

/// A parsed piece of a call.
struct Piece {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
    extra: Option<Value>,
}

impl From<CallDelta> for Piece {
    fn from(delta: CallDelta) -> Self {
        let CallDelta { index, id, function, extra_content } = delta;
        let arguments = match function.arguments {
            Value::Null => String::new(),
            Value::String(text) => text,
            other => other.to_string(),
        };
        Self { index, id: label(id), name: label(function.name), arguments, extra: extra_content }
    }
}

impl Piece {
    fn says_nothing(&self) -> bool {
        self.id.is_empty() && self.name.is_empty() && self.arguments.is_empty() && self.extra.is_none()
    }
}

impl PartialCall {
    /// Returns the arguments: the joined pieces; or the last piece, if only that can be parsed and it begins like the
    /// joined ones, since some providers repeat all arguments so far in each piece.
    fn arguments(&mut self) -> String {
        let begins = self.arguments.get(..self.first).is_some_and(|first| self.last.starts_with(first));
        let readable = || Deserializer::from_str(&self.arguments).into_iter::<Value>().all(|value| value.is_ok());
        let last = begins && is_whole(&self.last) && !readable();
        std::mem::take(if last { &mut self.last } else { &mut self.arguments })
    }

    /// Returns whether the arguments are a complete object that is not empty.
    fn is_whole(&self) -> bool {
        is_whole(&self.arguments)
    }
}

fn is_whole(arguments: &str) -> bool {
    matches!(serde_json::from_str::<Value>(arguments), Ok(Value::Object(fields)) if !fields.is_empty())
}

/// Returns whether arguments are empty; some servers begin every call with such.
fn is_nothing(arguments: &str) -> bool {
    let bare = arguments.trim();
    bare.is_empty()
        || bare.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).is_some_and(|it| it.trim().is_empty())
}

impl Calls {
    /// Returns whether a limit is reached.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Returns whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Takes a piece of a call.
    pub(super) fn push(&mut self, delta: CallDelta, show: &mut dyn FnMut(Chunk)) {
        let piece = Piece::from(delta);
        if piece.says_nothing() {
            return;
        }
        if let Some(at) = self.continued(&piece) {
            self.go_on(at, piece, show);
        } else {
            self.begin(piece, show);
        }
    }

    /// Takes the calls of a whole message that came after pieces of it: they are the same calls, complete.
    pub(super) fn take_whole(&mut self, calls: Vec<CallDelta>, show: &mut dyn FnMut(Chunk)) {
        for (at, delta) in calls.into_iter().enumerate() {
            let mut piece = Piece::from(delta);
            let known = self.all.iter().position(|call| !piece.id.is_empty() && call.id == piece.id);
            let same = |call: &&PartialCall| call.name.is_empty() || piece.name.is_empty() || call.name == piece.name;
            let Some(at) = known.or_else(|| self.all.get(at).filter(same).map(|_| at)) else {
                self.begin(piece, show);
                continue;
            };
            let call = &mut self.all[at];
            if call.is_whole() || !is_whole(&piece.arguments) {
                piece.arguments.clear();
            } else {
                call.arguments.clear();
                call.braces = Braces::default();
            }
            self.go_on(at, piece, show);
        }
    }

    fn begin(&mut self, piece: Piece, show: &mut dyn FnMut(Chunk)) {
        if self.all.len() == MAX_CALLS {
            self.full = true;
            return;
        }
        self.all.push(PartialCall { index: piece.index, ..PartialCall::default() });
        self.go_on(self.all.len() - 1, piece, show);
    }

    /// Appends a piece to the call to which it belongs.
    fn go_on(&mut self, at: usize, piece: Piece, show: &mut dyn FnMut(Chunk)) {
        let Piece { id, name, arguments, extra, .. } = piece;
        let held: usize = self.all.iter().map(|call| call.arguments.len()).sum::<usize>() + self.extras;
        let call = &mut self.all[at];
        if call.id.is_empty() {
            call.id = id;
        }
        if let Some(extra) = extra {
            self.extras += super::wire::weight(&extra);
            if held + self.extras > MAX_ALL_ARGUMENTS {
                self.full = true;
                return;
            }
            call.extra = Some(extra);
        }
        let nameless = call.name.is_empty();
        if nameless || name.starts_with(&call.name) {
            // Some providers repeat the whole name so far in each piece.
            if !name.is_empty() {
                call.name = name;
            }
        } else if call.name.len() + name.len() <= MAX_LABEL {
            call.name.push_str(&name);
        }
        if nameless && !call.name.is_empty() {
            show(Chunk::CallStarted(call.name.clone()));
        }
        if call.arguments.len() + arguments.len() > MAX_ARGUMENTS || held + arguments.len() > MAX_ALL_ARGUMENTS {
            self.full = true;
        } else {
            if call.braces.is_closed() && is_nothing(&call.arguments) {
                call.braces = Braces::default();
            }
            call.braces.feed(arguments.as_bytes());
            call.arguments.push_str(&arguments);
            if !arguments.trim().is_empty() {
                if call.first == 0 {
                    call.first = call.arguments.len();
                }
                let whole = arguments.trim_start().starts_with('{') && arguments.trim_end().ends_with('}');
                call.last = if whole { arguments } else { String::new() };
            }
        }
    }

    /// Returns the call to which a piece belongs; `None` if it begins a new one.
    fn continued(&self, piece: &Piece) -> Option<usize> {
        let Piece { index, id, name, arguments, .. } = piece;
        let at = match index {
            Some(_) => self.all.iter().rposition(|call| call.index == *index)?,
            None if !id.is_empty() && self.all.iter().any(|call| call.id == *id) => {
                return self.all.iter().position(|call| call.id == *id);
            }
            None => self.all.len().checked_sub(1)?,
        };
        let call = &self.all[at];
        if name.is_empty() {
            // Some proxies make a new id for every piece, so only a name begins a call.
            return Some(at);
        }
        let another_id = !id.is_empty() && !call.id.is_empty() && call.id != *id;
        let another_name = call.name != *name && (index.is_none() || !call.arguments.is_empty());
        // Gemini and Ollama have given index 0 to every call. The same tool with other arguments is a new call; with
        // the same arguments it is a repetition, and `{}` was only the beginning.
        let again = call.braces.is_closed()
            && !is_nothing(arguments)
            && !is_nothing(&call.arguments)
            && arguments.trim() != call.arguments.trim()
            && (id.is_empty() || call.id != *id);
        let another = !call.name.is_empty() && (another_id || another_name || again);
        (!another).then_some(at)
    }

    /// Returns whether a list repeats all these calls completely.
    pub(super) fn are_all(&self, again: &[CallDelta]) -> bool {
        let same = |(call, delta): (&PartialCall, &CallDelta)| {
            let given = match &delta.function.arguments {
                Value::String(text) => serde_json::from_str(text).ok(),
                other => Some(other.clone()),
            };
            call.name == delta.function.name && call.is_whole() && given == serde_json::from_str(&call.arguments).ok()
        };
        !again.is_empty() && self.all.len() == again.len() && self.all.iter().zip(again).all(same)
    }

    /// Gives every call a unique id, since the history pairs calls and results by it. `extras` says whether fields
    /// that the provider wants back are kept.
    pub(super) fn finish(self, extras: bool) -> Vec<ToolCall> {
        let mut seen = HashSet::new();
        let mut finished = Vec::with_capacity(self.all.len());
        let mut add = |id: String, name: String, arguments: String, extra: Option<Value>| {
            let own = !id.is_empty() && !seen.contains(&id);
            let id = if own { id } else { format!("call_{}", ids::random(8)) };
            seen.insert(id.clone());
            finished.push(ToolCall { id, name, arguments, extra });
        };
        for mut call in self.all {
            let arguments = call.arguments();
            if let Some(inner) = side_by_side(&call.name, &arguments) {
                for (name, arguments) in inner {
                    add(String::new(), name, arguments, None);
                }
            } else {
                add(call.id, call.name, arguments, call.extra.filter(|_| extras));
            }
        }
        finished
    }
}

/// Returns the calls in `multi_tool_use.parallel`, a tool that does not exist and that OpenAI's models call all the
/// same.
fn side_by_side(name: &str, arguments: &str) -> Option<Vec<(String, String)>> {
    if !name.contains("multi_tool_use") {
        return None;
    }
    let mut value: Value = serde_json::from_str(arguments).ok()?;
    let uses = value.get_mut("tool_uses")?.as_array_mut()?;
    let calls = uses.iter_mut().take(MAX_CALLS).map(|one| {
        let name = ["recipient_name", "name"].iter().find_map(|key| one.get(*key)?.as_str()).map(str::to_owned);
        let given = one.get_mut("parameters").map(Value::take).unwrap_or_default();
        Some((label(name?), if given.is_null() { String::new() } else { given.to_string() }))
    });
    calls.collect::<Option<Vec<_>>>().filter(|calls| !calls.is_empty())
}

fn label(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_LABEL));
    text
}
