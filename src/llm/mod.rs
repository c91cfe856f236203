//! Any OpenAI-compatible endpoint, streaming, with tool calls.
//!
//! Knows no rooms, no tools and no chat: messages in, a message out. The orchestrator uses a [`Model`]; `ops::settings`
//! validates settings with [`parse_model`].
//!
//! ```text
//! routed.rs → model.rs: complete() → request.rs (body) → async-openai → guard.rs (HTTP) → events.rs (clean events) → wire.rs (chunks) → assemble.rs → Completion
//!      ↑ retry.rs                                      ↓ refusal.rs → LlmError
//! ```

mod assemble;
mod body;
mod calls;
mod causes;
mod clean;
mod demo_model;
mod endpoint;
mod error;
mod events;
mod families;
mod guard;
mod halves;
mod limits;
mod message;
mod meter;
mod model;
mod providers;
mod refusal;
mod request;
mod retry;
mod routed;
mod servers;
mod think;
mod watch;
mod window;
mod wire;

pub use demo_model::DemoModel;
pub(crate) use endpoint::{Endpoint, SettingError, model_string, parse_model};
pub use error::{LlmError, Stage};
pub(crate) use error::{Remedy, ToldTokens};
pub use limits::ModelLimits;
pub(crate) use message::{AssistantMessage, ToolCall, words};
pub use message::{Chunk, Completion, Finish, Message, Part, ToolSpec, Usage};
pub use meter::Meter;
pub use model::ModelSettings;
pub use routed::{Choice, Chosen, Model, Route};
pub use servers::Listed;
pub use window::{Window, WindowSource};
