//! Assembles a streamed answer from its chunks. Pure: no network, no clock; `model.rs` feeds it.
//!
//! Providers differ in nearly everything here: where the reasoning is, how the end is named, whether everything is
//! sent once more. The rules are beside the code, and each has a recorded stream in `tests/llm/`.

use serde_json::{Map, Value, json};

use super::{
    calls::Calls,
    error::LlmError,
    message::{AssistantMessage, Chunk, Completion, Finish, Usage},
    providers::Echo,
    think::{ThinkFilter, Thoughts, after_lone_end},
    wire::{Choice, Delta, StreamChunk, weight},
};

/// The longest text of an answer, in bytes. More comes from a model running wild, and would all stay in the context.
const MAX_TEXT: usize = 256 * 1024;
/// A piece of so many bytes that comes twice is a repetition, not chance.
const TELLING: usize = 32;
/// The most bytes of reasoning, shown or echoed, with everything wrapped around it.
const MAX_REASONING: usize = 1024 * 1024;

/// Parts of the finish reasons of answers that failed.
const FAILED: [&str; 11] = [
    "error",
    "insufficient_system_resource",
    "malformed",
    "unexpected_tool_call",
    "abort",
    "cancel",
    "timeout",
    "overload",
    "failed",
    "context_length_exceeded",
    "context_window_exceeded",
];

/// An answer that is being assembled.
#[derive(Debug)]
pub(super) struct Assembler {
    echo: Echo,
    text: String,
    /// Pieces of text that have come.
    pieces: usize,
    filter: ThinkFilter,
    /// Plain reasoning, kept only if it must be sent back.
    reasoning: String,
    /// Structured reasoning, kept only if it must be sent back.
    details: Vec<Value>,
    /// All reasoning, sent back or not.
    thoughts: Thoughts,
    calls: Calls,
    finish: Option<Finish>,
    usage: Option<Usage>,
    /// Whether a limit above was reached, so that the rest is not read.
    full: bool,
    /// The alternative that is read: the first that came, since some servers do not count from 0.
    choice: Option<u64>,
}

impl Assembler {
    pub(super) fn new(echo: Echo) -> Self {
        Self {
            echo,
            text: String::new(),
            pieces: 0,
            filter: ThinkFilter::default(),
            reasoning: String::new(),
            details: Vec::new(),
            thoughts: Thoughts::default(),
            calls: Calls::default(),
            finish: None,
            usage: None,
            full: false,
            choice: None,
        }
    }

    /// Takes the next chunk and shows what is new. Returns the provider's error if the chunk is one.
    pub(super) fn push(&mut self, chunk: StreamChunk, show: &mut dyn FnMut(Chunk)) -> Result<(), Value> {
        if let Some(error) = chunk.error {
            return Err(error);
        }
        let mut usage = chunk.usage;
        for choice in chunk.choices {
            let index = choice.index.unwrap_or(0);
            if *self.choice.get_or_insert(index) != index {
                continue;
            }
            let Choice { mut delta, message, finish_reason, usage: of_choice, .. } = choice;
            let finish_reason = finish_reason.filter(|reason| !reason.is_empty());
            usage = usage.or(of_choice);
            self.leave_out_repeats(&mut delta, finish_reason.is_some());
            self.delta(delta, show);
            if let Some(message) = message {
                self.whole(message, show);
            }
            if let Some(reason) = finish_reason {
                self.end(&reason)?;
            }
        }
        // Some providers send a running count in every chunk; the last one counts.
        self.usage = usage.and_then(|usage| usage.usage()).or(self.usage);
        Ok(())
    }

    /// Returns whether a limit was reached, so that nothing more is read.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Returns whether the model has ended its answer; only the usage may still come.
    pub(super) fn has_ended(&self) -> bool {
        self.finish.is_some()
    }

    /// Returns the whole answer. `closed` says that the stream ended by the protocol's own mark, not by a lost
    /// connection.
    pub(super) fn finish(mut self, closed: bool, model: &str) -> Result<Completion, LlmError> {
        self.filter.finish(&mut self.text, &mut self.thoughts);
        let finish = match self.finish {
            _ if self.full => Finish::Length,
            // Some providers say "stop" although there are calls, others say "tool_calls" although there are none.
            Some(Finish::Stop | Finish::ToolCalls) if self.calls.is_empty() => Finish::Stop,
            Some(Finish::Stop | Finish::ToolCalls) => Finish::ToolCalls,
            Some(other) => other,
            None if self.choice.is_none() && closed => return Err(LlmError::Broken("an empty stream")),
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
            calls: self.calls.finish(self.echo == Echo::CallExtra),
            echo,
            model: model.to_owned(),
        };
        Ok(Completion { message, finish, usage: self.usage, reasoning: self.thoughts.into_text() })
    }

    /// Removes from a delta what it only repeats: some providers send everything once more at or before the end.
    fn leave_out_repeats(&mut self, delta: &mut Delta, ends: bool) {
        let telling = ends || self.text.len() >= TELLING;
        let again = self.pieces > 1 && !self.text.is_empty() && telling;
        if again && delta.content.as_str().is_some_and(|text| !text.is_empty() && self.unsaid(text) == Some("")) {
            delta.content = Value::Null;
        }
        if ends && self.calls.are_all(&delta.tool_calls) {
            delta.tool_calls.clear();
        }
    }

    /// Takes a whole message. After pieces of the message only the missing rest is new.
    fn whole(&mut self, mut message: Delta, show: &mut dyn FnMut(Chunk)) {
        if self.thoughts.bytes() > 0 {
            (message.reasoning_content, message.reasoning) = (None, None);
            message.reasoning_details.clear();
        }
        if self.pieces > 0 {
            message.refusal = None;
            if let Value::String(text) = message.content.take()
                && let Some(unsaid) = self.unsaid(&text).filter(|unsaid| !unsaid.is_empty())
            {
                self.filter = ThinkFilter::default();
                let before = self.text.len();
                self.text.push_str(unsaid);
                self.show_from(before, show);
            }
        }
        let calls = if self.calls.is_empty() { Vec::new() } else { message.take_calls() };
        self.delta(message, show);
        self.calls.take_whole(calls, show);
        self.full |= self.calls.is_full();
    }

    /// Returns the part of a whole text that has not come yet; `None` if the texts differ.
    fn unsaid<'a>(&self, text: &'a str) -> Option<&'a str> {
        let (mut answer, mut thoughts, mut filter) = (String::new(), Thoughts::default(), ThinkFilter::default());
        filter.feed(text, &mut answer, &mut thoughts);
        let unsaid = answer.strip_prefix(self.text.as_str())?.len();
        text.get(text.len() - unsaid..)
    }

    fn delta(&mut self, mut delta: Delta, show: &mut dyn FnMut(Chunk)) {
        let thought_before = self.thoughts.bytes();
        let calls = delta.take_calls();
        let Delta { content, refusal, reasoning_content, reasoning, thinking, reasoning_details, .. } = delta;
        if self.echo == Echo::Content {
            self.reasoning.push_str(reasoning_content.as_deref().unwrap_or_default());
        }
        // Some providers send the same words in several fields, and in the details again.
        let thought = [reasoning_content, reasoning, thinking].into_iter().flatten().find(|text| !text.is_empty());
        let thought = thought.unwrap_or_default();
        self.thoughts.push(&thought);
        for detail in reasoning_details {
            self.thoughts.count(weight(&detail));
            if thought.is_empty()
                && let Some(text) = ["text", "summary"].iter().find_map(|key| detail.get(*key)?.as_str())
            {
                self.thoughts.push(text);
            }
            if self.echo == Echo::Details && self.thoughts.bytes() <= MAX_REASONING {
                self.detail(detail);
            }
        }
        self.content(&content, show);
        if let Some(refusal) = refusal {
            self.say(&refusal, show);
        }
        for call in calls {
            self.calls.push(call, show);
        }
        if self.thoughts.bytes() > thought_before {
            show(Chunk::Reasoning);
        }
        self.full |= self.thoughts.bytes() > MAX_REASONING || self.calls.is_full();
    }

    /// Takes a content: a string, or Mistral's list of pieces, some of which are reasoning.
    fn content(&mut self, content: &Value, show: &mut dyn FnMut(Chunk)) {
        match content {
            Value::String(text) => self.say(text, show),
            Value::Array(parts) => {
                for part in parts {
                    self.content(part, show);
                }
            }
            Value::Object(part) => {
                if part.get("type").and_then(Value::as_str) == Some("thinking") {
                    self.thinking(part.get("thinking").unwrap_or(&Value::Null));
                } else if let Some(text) = part.get("text").and_then(Value::as_str) {
                    self.say(text, show);
                }
            }
            _ => {}
        }
    }

    /// Takes Mistral's reasoning: a text, or a list of pieces.
    fn thinking(&mut self, thinking: &Value) {
        self.thoughts.count(weight(thinking));
        let pieces = thinking.as_array().map_or(std::slice::from_ref(thinking), Vec::as_slice);
        for piece in pieces {
            if let Some(text) = piece.as_str().or_else(|| piece.get("text")?.as_str()) {
                self.thoughts.push(text);
            }
        }
    }

    fn say(&mut self, text: &str, show: &mut dyn FnMut(Chunk)) {
        let before = self.text.len();
        self.pieces += usize::from(!text.is_empty());
        self.filter.feed(text, &mut self.text, &mut self.thoughts);
        self.show_from(before, show);
    }

    /// Shows the text from byte `before` on, within the limit.
    fn show_from(&mut self, before: usize, show: &mut dyn FnMut(Chunk)) {
        if self.text.len() > MAX_TEXT {
            self.full = true;
            self.text.truncate(self.text.floor_char_boundary(MAX_TEXT));
        }
        if let Some(new) = self.text.get(before..).filter(|new| !new.is_empty()) {
            show(Chunk::Text(new.to_owned()));
        }
    }

    /// Adds structured reasoning. Pieces of one text are joined; anything sealed or signed stays as it came.
    fn detail(&mut self, detail: Value) {
        let Some(new) = detail.as_object() else { return };
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

    fn end(&mut self, reason: &str) -> Result<(), Value> {
        let finish = match reason.to_ascii_lowercase().as_str() {
            "tool_calls" | "function_call" | "tool_use" => Finish::ToolCalls,
            "length" | "max_tokens" | "model_length" => Finish::Length,
            "content_filter" | "safety" | "refusal" | "recitation" | "prohibited_content" | "blocklist"
            | "sensitive" => Finish::Filtered,
            // DashScope, OpenRouter, DeepSeek, Gemini, vLLM, Zhipu: the answer failed half-way, or the context was
            // full.
            failed if FAILED.iter().any(|word| failed.contains(word)) => {
                return Err(json!({"error": {"message": format!("the answer ended with `{failed}`")}}));
            }
            // "stop", "end" (Ollama), "eos", "end_turn", and reasons that are not known.
            _ => Finish::Stop,
        };
        // OpenRouter sends two reasons; the one that is more specific than "stop" counts.
        if matches!(self.finish, None | Some(Finish::Stop)) {
            self.finish = Some(finish);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
