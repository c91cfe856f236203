//! Pictures for a model's eyes: what people send and what tools read is decoded, scaled down and kept in files, so that
//! nothing is stored that a provider would refuse for ever.
//!
//! Knows no model, no sandbox and no chat. Called by tools and bots, which have the bytes, and by the orchestrator, which
//! shows them.

mod gallery;
mod prepare;

pub use gallery::Gallery;
pub use prepare::{FILE_LIMIT, NotShown, Picture, prepare};
