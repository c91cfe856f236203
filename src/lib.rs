//! matrix-agent: a self-hosted agentic coding server. Each chat room gets its own hardened Podman container, in which
//! an orchestrator model works with tools.
//!
//! The modules in the order in which data flows down; none may import one above it. A blank line is a step down: those
//! of one paragraph do not know each other (`tests/architecture/`).

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod cli;

pub mod ops;

pub mod chat;
pub mod tasks;

pub mod hub;

pub mod bots;

mod orchestrator;

pub mod tools;

pub mod coding_agents;
pub mod environments;
pub mod inference;

pub mod llm;
pub mod sandbox;

pub mod gateway;
pub mod ipc;

pub mod github;

pub mod ledger;
pub mod rights;

mod audit;
pub mod store;

pub mod config;

pub mod http;
pub mod links;
pub mod net;

pub mod pictures;
pub mod updates;

mod strings;

mod metrics;

mod backoff;
mod child;
pub mod clock;
mod crash;
pub mod ids;
mod json;
pub mod memory;
mod text;
