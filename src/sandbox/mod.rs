//! The rooms' sandboxes: Podman's containers from outside, and the connection to the sandboxd that is each one's PID 1.
//!
//! Knows the gateway (it hands over the sandboxes' proxied connections) and nothing above: no tools, no model, no chat.
//! Called by `tools`, `hub` and `ops`.

mod client;
pub mod embed;
mod error;
mod link;
mod process;

pub use client::{FileSlice, Lookup, RunningCommand, Sandbox};
pub use error::{FileProblem, SandboxError};
pub use link::{Link, LinkState, ProxyStream};
pub use process::{Captured, Command, Ended, Process, Stdin};
pub use sandboxd::protocol::{Exit, KillCause, ProxyKind, User};
