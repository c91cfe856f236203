//! The messages between the orchestrator and a model, independent of any provider. `wire.rs` and `request.rs` know a
//! provider's format. The store keeps these as JSON, so fields may be added, never renamed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Message {
    /// Standing instructions; only ever the first message.
    System {
        /// The prompt.
        text: String,
    },
    /// What a person wrote, or what the program tells the model on a person's behalf.
    User {
        /// Text and images in the order in which they were given.
        parts: Vec<Part>,
    },
    /// The model's own message, stored whole with its calls.
    Assistant(AssistantMessage),
    /// The result of one call.
    Tool {
        /// The model's id of the call that this answers.
        call_id: String,
        /// The result for the model.
        text: String,
    },
}

/// Returns the texts of a message's pieces, and a word for each picture.
pub(crate) fn words(parts: &[Part]) -> String {
    let words: Vec<_> = parts
        .iter()
        .map(|part| match part {
            Part::Text { text } => text.as_str(),
            Part::Image { .. } | Part::Picture { .. } => "(a picture)",
        })
        .collect();
    words.join("\n")
}

/// A piece of a user message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Plain text.
    Text {
        /// The text.
        text: String,
    },
    /// A picture stored in the message, as older versions did.
    Image {
        /// `image/png`, `image/jpeg` …
        mime: String,
        /// The bytes in base64.
        data: String,
    },
    /// A picture, whose file is kept elsewhere.
    Picture {
        /// The name of its file.
        name: String,
        /// `image/png` or `image/jpeg`.
        mime: String,
        /// Its bytes in base64 while it is in memory; `None` if it is not read yet, or gone.
        #[serde(skip)]
        data: Option<Arc<str>>,
    },
}

impl Part {
    /// Returns whether it is a picture.
    pub fn is_picture(&self) -> bool {
        matches!(self, Self::Image { .. } | Self::Picture { data: Some(_), .. })
    }
}

/// A complete message of the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AssistantMessage {
    /// The text for the person; empty if it only calls tools.
    #[serde(default)]
    pub text: String,
    /// The calls, in the model's order.
    #[serde(default)]
    pub calls: Vec<ToolCall>,
    /// Fields that the provider wants back with the next request and that no other may see (DeepSeek's
    /// `reasoning_content`, OpenRouter's `reasoning_details`), by name, at the top level of the message.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub echo: serde_json::Map<String, Value>,
    /// The model that wrote it, as in [`super::Model::name`]. Another model gets neither `echo` nor the calls'
    /// `extra`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
}

/// A call that the model asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The model's id (or ours if it gave none), which pairs the call with its result.
    pub id: String,
    /// The tool's name as the model wrote it; it may not exist.
    pub name: String,
    /// The arguments as the model wrote them; they may not parse.
    pub arguments: String,
    /// What the provider wants back with this call (Gemini's `extra_content` with a thought signature).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Value>,
}

/// Why the model's answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// It was complete.
    Stop,
    /// The model waits for the results of its calls.
    ToolCalls,
    /// The output limit cut it off; its calls may be incomplete and must not run.
    Length,
    /// The provider withheld it.
    Filtered,
    /// The provider could not parse a call that the model wrote; the text is the reason.
    BadCall,
}

/// The tokens of a request, or a sum of such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub input: u64,
    /// Of `input`, those that the provider's cache served.
    pub cached: u64,
    /// Completion tokens, reasoning included.
    pub output: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input += other.input;
        self.cached += other.cached;
        self.output += other.output;
    }
}

/// A tool as the model is told about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ToolSpec {
    /// The name.
    pub name: &'static str,
    /// When to use it, with its limits.
    pub description: String,
    /// JSON Schema of the arguments: an object with at least one property (Ollama, llama.cpp and vLLM reject less).
    pub parameters: Value,
}

/// A complete answer of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The message, which is stored and sent back unchanged.
    pub message: AssistantMessage,
    /// Why it ended.
    pub finish: Finish,
    /// The tokens it used; `None` if the provider did not say.
    pub usage: Option<Usage>,
    /// The end of the model's reasoning, for an answer without anything else.
    pub reasoning: String,
}

/// A piece of an answer as it arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Text for the person.
    Text(String),
    /// The model is reasoning; that is shown, the reasoning is not.
    Reasoning,
    /// A call has begun: its name is known, its arguments are still coming.
    CallStarted(String),
    /// The answer broke off and is asked for again; what was shown of it is void.
    Restart,
}
