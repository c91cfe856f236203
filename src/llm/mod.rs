//! Any OpenAI-compatible endpoint, streaming.

mod message;

pub use message::{AssistantMessage, Chunk, Completion, Finish, Message, Part, ToolCall, ToolSpec, Usage};
