//! The rooms' sandboxes: Podman's containers from outside, and the connection to the sandboxd that is each one's PID 1.
//!
//! Knows the gateway (it hands over the sandboxes' proxied connections), whom to tell where events lie, and nothing above: no tools, no model, no chat.
//! Called by `tools`, `hub` and `ops`.

mod cgroup;
mod client;
mod connection;
mod creation;
mod disk;
pub mod embed;
pub mod engine;
pub mod engine_info;
mod error;
mod events;
mod files;
mod fixed;
mod fleet;
mod hidden;
mod id_range;
mod image;
mod life;
mod limit;
mod link;
pub mod memory;
mod mounts;
mod moving;
mod name;
mod observe;
mod options;
mod process;
mod program;
mod reconcile;
mod reserve;
mod room;
mod seccomp;
mod service;
mod sockets;
mod spec;
mod usage;

pub use cgroup::Limits;
pub use client::{FileSlice, Lookup, RunningCommand, Sandbox};
pub use error::{FileProblem, SandboxError};
pub use fleet::{Notice, SandboxState, SandboxSummary, Sandboxes};
pub use image::try_out as try_images;
pub use limit::Full;
pub use link::{Holder, Link, LinkState, ProxyStream};
pub use observe::{Attempt, Inside, Observation, Outside};
pub use options::SandboxOptions;
pub use process::{Captured, Command, Ended, Process, Stdin};
pub use sandboxd::protocol::{Exit, KillCause, MODELS_PORT, ProxyKind, User};
