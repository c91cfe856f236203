//! The rooms' sandboxes: Podman's containers, and the connection to the sandboxd that is PID 1 of each.
//!
//! Knows the gateway, to which it hands the sandboxes' proxied connections, and `ipc`, which it tells where events
//! are; nothing above: no tools, no model, no chat. Used by `hub`, `bots`, `orchestrator`, `tools`, `coding_agents`
//! and `ops`.

mod cgroup;
mod client;
mod connection;
mod counting;
mod creation;
mod disk;
pub mod embed;
mod ending;
pub(crate) mod engine;
pub(crate) mod engine_info;
mod error;
mod event_mount;
mod events;
mod files;
mod fixed;
mod fleet;
mod frozen;
mod hidden;
mod id_range;
mod image;
mod kill;
mod life;
mod limit;
mod link;
pub(crate) mod memory;
mod mounts;
mod moving;
mod name;
mod observe;
mod options;
mod prepare;
mod process;
mod program;
mod queue;
mod reconcile;
mod reserve;
mod room;
mod runtime;
mod sandboxes;
mod seccomp;
mod service;
mod silence;
mod sockets;
mod space;
mod spec;
mod spooled;
mod streams;
mod usage;
mod work;
mod workshop;

pub(crate) use client::{FileSlice, RunningCommand};
pub use client::{Lookup, Sandbox};
pub use error::{FileProblem, SandboxError};
pub(crate) use fleet::Notice;
pub(crate) use image::try_out as try_images;
pub use link::{Link, LinkState, ProxyStream};
pub use observe::Attempt;
pub use options::SandboxOptions;
pub use process::{Captured, Command, Ended, Process, Stdin};
pub use room::{SandboxState, SandboxSummary};
pub use runtime::Runtime;
pub(crate) use runtime::wall;
pub use sandboxd::protocol::{Exit, KillCause, ProxyKind, User};
pub(crate) use sandboxd::protocol::{LOG_DIR, WRITE_LIMIT};
pub use sandboxes::{SandboxLimits, Sandboxes};
pub(crate) use service::own_socket;
pub use spooled::Word;
pub use workshop::Workshop;
