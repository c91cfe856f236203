//! Pictures for models: what people send and tools read is decoded, scaled down and stored in files, so that a
//! conversation holds nothing that a provider would refuse for ever.
//!
//! Knows no model, no sandbox and no chat. Called by `tools` and `bots`, which have the bytes, by `orchestrator`,
//! which shows them, and by the hub's keeper, which removes them.

mod gallery;
mod prepare;

pub use gallery::Gallery;
pub(crate) use prepare::{FILE_LIMIT, NotShown, prepare};
