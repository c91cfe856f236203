//! Puts a streamed answer together from its chunks. Pure: no network, no clock; `model.rs` feeds it.
//!
//! Providers disagree on nearly everything here (which chunk has the id, whether `index` counts, how an end is called):
//! the rules are beside the code, and each has a recorded stream in `tests/llm/providers.rs`.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::{
    error::LlmError,
    message::{AssistantMessage, Chunk, Completion, Finish, ToolCall, Usage},
    providers::Echo,
    think::{ThinkFilter, after_lone_end},
    wire::{CallDelta, Choice, Delta, StreamChunk},
};
use crate::ids;

/// The answer's text. More is no answer but a machine running wild, and all of it would stay in the context.
const MAX_TEXT: usize = 256 * 1024;
/// Reasoning, seen or echoed.
const MAX_REASONING: usize = 1024 * 1024;
/// Arguments of one call.
const MAX_ARGUMENTS: usize = 1024 * 1024;
/// Arguments of all calls.
const MAX_ALL_ARGUMENTS: usize = 4 * 1024 * 1024;
/// Calls of one message.
const MAX_CALLS: usize = 64;
/// Ids and names are labels; a longer one is cut.
const MAX_LABEL: usize = 256;

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Assembler {
    echo: Echo,
    text: String,
    filter: ThinkFilter,
    /// Plain reasoning, kept only where it goes back.
    reasoning: String,
    /// Structured reasoning, likewise.
    details: Vec<Value>,
    /// Bytes of reasoning, kept or not.
    thought: usize,
    calls: Vec<PartialCall>,
    finish: Option<Finish>,
    usage: Option<Usage>,
    /// A limit above is reached: the rest is not read.
    full: bool,
    /// At least one choice came.
    begun: bool,
}

#[derive(Debug, Default)]
struct PartialCall {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
    braces: Braces,
    extra: Option<Value>,
}

/// Tells when a JSON object that comes in pieces is whole, without reading it again with each piece.
#[derive(Debug, Default)]
struct Braces {
    depth: usize,
    in_string: bool,
    escaped: bool,
    closed: bool,
}

impl Braces {
    fn feed(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => self.depth += 1,
                b'}' | b']' if !self.in_string => {
                    self.depth = self.depth.saturating_sub(1);
                    self.closed |= self.depth == 0;
                }
                _ => {}
            }
        }
    }
}

impl Assembler {
    pub(super) fn new(echo: Echo) -> Self {
        Self {
            echo,
            text: String::new(),
            filter: ThinkFilter::default(),
            reasoning: String::new(),
            details: Vec::new(),
            thought: 0,
            calls: Vec::new(),
            finish: None,
            usage: None,
            full: false,
            begun: false,
        }
    }

    /// Takes the next chunk and shows what is new of it. An error that the provider sent instead comes back as it is.
    pub(super) fn take(&mut self, chunk: StreamChunk, show: &mut dyn FnMut(Chunk)) -> Result<(), Value> {
        if let Some(error) = chunk.error {
            return Err(error);
        }
        let mut usage = chunk.usage;
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            self.begun = true;
            let Choice { delta, message, finish_reason, usage: of_choice, .. } = choice;
            usage = usage.or(of_choice);
            for delta in [Some(delta), message].into_iter().flatten() {
                self.delta(delta, show);
            }
            if let Some(reason) = finish_reason.filter(|reason| !reason.is_empty()) {
                self.end(&reason)?;
            }
        }
        // Some count along in every chunk: the last word counts.
        self.usage = usage.and_then(|usage| usage.usage()).or(self.usage);
        Ok(())
    }

    /// Returns whether nothing more is wanted.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Returns whether the model has said that it ended; what may still come is the count of tokens.
    pub(super) fn has_ended(&self) -> bool {
        self.finish.is_some()
    }

    /// Returns the whole answer. `closed`: the stream ended by the protocol's own mark, not by a lost connection.
    pub(super) fn finish(mut self, closed: bool, model: &str) -> Result<Completion, LlmError> {
        self.filter.finish(&mut self.text);
        let finish = match self.finish {
            _ if self.full => Finish::Length,
            // "stop" beside calls, and calls' end without any, are both seen in the wild.
            Some(Finish::Stop | Finish::ToolCalls) if self.calls.is_empty() => Finish::Stop,
            Some(Finish::Stop | Finish::ToolCalls) => Finish::ToolCalls,
            Some(other) => other,
            None if !self.begun && closed => return Err(LlmError::Garbled("an empty stream")),
            None if !closed => return Err(LlmError::Cut),
            None if self.calls.is_empty() => Finish::Stop,
            None => Finish::ToolCalls,
        };
        let mut text = after_lone_end(&self.text);
        if text.trim().is_empty() {
            text = "";
        }
        let mut echo = Map::new();
        if !self.reasoning.is_empty() {
            echo.insert("reasoning_content".to_owned(), self.reasoning.into());
        }
        if !self.details.is_empty() {
            echo.insert("reasoning_details".to_owned(), self.details.into());
        }
        let message = AssistantMessage {
            text: text.to_owned(),
            calls: finished_calls(self.calls, self.echo),
            echo,
            model: model.to_owned(),
        };
        Ok(Completion { message, finish, usage: self.usage })
    }

    fn delta(&mut self, delta: Delta, show: &mut dyn FnMut(Chunk)) {
        let thought_before = self.thought;
        for thought in
            [&delta.reasoning_content, &delta.reasoning].into_iter().flatten().filter(|text| !text.is_empty())
        {
            self.thought += thought.len();
            if self.echo == Echo::Content && delta.reasoning_content.as_ref() == Some(thought) {
                self.reasoning.push_str(thought);
            }
        }
        for detail in delta.reasoning_details {
            self.thought += detail.as_object().map_or(0, |fields| fields.len() * 8);
            if self.echo == Echo::Details {
                self.detail(detail);
            }
        }
        self.content(&delta.content, show);
        if let Some(refusal) = delta.refusal {
            self.say(&refusal, show);
        }
        for call in delta.tool_calls {
            self.call(call, show);
        }
        if self.thought > thought_before {
            show(Chunk::Reasoning);
        }
        self.full |= self.thought > MAX_REASONING;
    }

    /// A string, or Mistral's list of pieces, some of which are thoughts.
    fn content(&mut self, content: &Value, show: &mut dyn FnMut(Chunk)) {
        match content {
            Value::String(text) => self.say(text, show),
            Value::Array(parts) => {
                for part in parts {
                    if part.get("type").and_then(Value::as_str) == Some("thinking") {
                        self.thought += part.get("thinking").map_or(0, |inner| inner.to_string().len());
                    } else if let Some(text) = part.get("text").and_then(Value::as_str) {
                        self.say(text, show);
                    }
                }
            }
            _ => {}
        }
    }

    fn say(&mut self, text: &str, show: &mut dyn FnMut(Chunk)) {
        let before = self.text.len();
        self.thought += self.filter.feed(text, &mut self.text);
        if self.text.len() > MAX_TEXT {
            self.full = true;
            self.text.truncate(self.text.floor_char_boundary(MAX_TEXT));
        }
        if let Some(new) = self.text.get(before..).filter(|new| !new.is_empty()) {
            show(Chunk::Text(new.to_owned()));
        }
    }

    /// Pieces of one thought are joined again; anything sealed or signed stays as it came.
    fn detail(&mut self, detail: Value) {
        let Some(new) = detail.as_object() else { return };
        self.thought +=
            ["text", "summary", "data"].iter().filter_map(|key| new.get(*key)?.as_str()).map(str::len).sum::<usize>();
        let open = self.details.last_mut().and_then(Value::as_object_mut).filter(|last| {
            let plain =
                matches!(last.get("type").and_then(Value::as_str), Some("reasoning.text" | "reasoning.summary"));
            plain && last.get("type") == new.get("type") && last.get("index") == new.get("index")
        });
        let Some(last) = open else {
            self.details.push(detail);
            return;
        };
        for (key, value) in new {
            match (last.get_mut(key), value) {
                (Some(Value::String(text)), Value::String(more)) if matches!(key.as_str(), "text" | "summary") => {
                    text.push_str(more);
                }
                (_, Value::Null) => {}
                _ => {
                    last.insert(key.clone(), value.clone());
                }
            }
        }
    }

    fn call(&mut self, delta: CallDelta, show: &mut dyn FnMut(Chunk)) {
        let CallDelta { index, id, function, extra_content } = delta;
        let id = label(id.unwrap_or_default());
        let name = label(function.name.unwrap_or_default());
        let arguments = match function.arguments {
            Value::Null => String::new(),
            Value::String(text) => text,
            other => other.to_string(),
        };
        let at = if let Some(at) = self.continued(index, &id, &name, &arguments) {
            at
        } else {
            if self.calls.len() == MAX_CALLS {
                self.full = true;
                return;
            }
            self.calls.push(PartialCall { index, ..PartialCall::default() });
            self.calls.len() - 1
        };
        let held: usize = self.calls.iter().map(|call| call.arguments.len()).sum();
        let call = &mut self.calls[at];
        if call.id.is_empty() {
            call.id = id;
        }
        call.extra = extra_content.or(call.extra.take());
        let nameless = call.name.is_empty();
        if nameless {
            call.name = name;
        } else if call.name != name && call.name.len() + name.len() <= MAX_LABEL {
            call.name.push_str(&name);
        }
        if nameless && !call.name.is_empty() {
            show(Chunk::CallStarted(call.name.clone()));
        }
        if call.arguments.len() + arguments.len() > MAX_ARGUMENTS || held + arguments.len() > MAX_ALL_ARGUMENTS {
            self.full = true;
        } else {
            call.braces.feed(&arguments);
            call.arguments.push_str(&arguments);
        }
    }

    /// Returns the call that a piece belongs to; `None` when it begins another.
    fn continued(&self, index: Option<u64>, id: &str, name: &str, arguments: &str) -> Option<usize> {
        let at = match index {
            Some(_) => self.calls.iter().rposition(|call| call.index == index)?,
            None if !id.is_empty() && self.calls.iter().any(|call| call.id == id) => {
                return self.calls.iter().position(|call| call.id == id);
            }
            None => self.calls.len().checked_sub(1)?,
        };
        let call = &self.calls[at];
        if name.is_empty() {
            // Some proxies make up a new id for every piece: only a name begins a call.
            return Some(at);
        }
        let another_id = !id.is_empty() && !call.id.is_empty() && call.id != id;
        let another_name = call.name != name && (index.is_none() || !call.arguments.is_empty());
        // Gemini and Ollama have given index 0 to every call: the same tool, called again with arguments of its own.
        let again = call.braces.closed && !arguments.trim().is_empty() && (id.is_empty() || call.id != id);
        let another = !call.name.is_empty() && (another_id || another_name || again);
        (!another).then_some(at)
    }

    fn end(&mut self, reason: &str) -> Result<(), Value> {
        let finish = match reason.to_ascii_lowercase().as_str() {
            "tool_calls" | "function_call" | "tool_use" => Finish::ToolCalls,
            "length" | "max_tokens" | "model_length" => Finish::Length,
            "content_filter" | "safety" | "refusal" | "recitation" | "prohibited_content" | "blocklist"
            | "sensitive" => Finish::Filtered,
            // DashScope, OpenRouter, DeepSeek, Gemini, vLLM: the answer failed half-way.
            failed @ ("error_finish"
            | "error"
            | "insufficient_system_resource"
            | "malformed_function_call"
            | "abort") => {
                return Err(json!({"error": {"message": format!("the answer ended with `{failed}`")}}));
            }
            // "stop", "end" (Ollama), "eos", "end_turn", and what nobody has thought of yet.
            _ => Finish::Stop,
        };
        // OpenRouter sends two: whichever says more than "stop" counts.
        if matches!(self.finish, None | Some(Finish::Stop)) {
            self.finish = Some(finish);
        }
        Ok(())
    }
}

/// Gives every call an id of its own, for the history pairs calls and results by it.
fn finished_calls(calls: Vec<PartialCall>, echo: Echo) -> Vec<ToolCall> {
    let mut seen = HashSet::new();
    let mut finished = Vec::with_capacity(calls.len());
    for call in calls {
        let id =
            if call.id.is_empty() || seen.contains(&call.id) { format!("call_{}", ids::random(8)) } else { call.id };
        seen.insert(id.clone());
        finished.push(ToolCall {
            id,
            name: call.name,
            arguments: call.arguments,
            extra: call.extra.filter(|_| echo == Echo::CallExtra),
        });
    }
    finished
}

fn label(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_LABEL));
    text
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
