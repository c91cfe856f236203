//! matrix-agent: a self-hosted agentic coding server. Each chat room gets its own hardened Podman container, in which
//! an orchestrator model works with tools.
//!
//! The modules in the order in which data flows down; none may import one above it (`tests/architecture.rs`).

pub mod tools;

pub mod llm;
pub mod sandbox;

pub mod clock;
pub mod ids;
pub mod text;
