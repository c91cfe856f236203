//! Events that programs in a sandbox write as files to `/workspace/.ipc`: the hooks of coding agents, and any script.
//!
//! Everything there may be hostile: links, pipes, huge files, a million files. A file is opened without following
//! links, read up to a bound, turned into one clean line, and deleted once the line was passed on. Events are
//! decoration: nothing waits for one, and none is needed to know how a run went.
//!
//! Knows no container and no hub. `sandbox` says where each room's directory is; whoever opened the [`Ipc`] receives
//! the events.

mod directory;
mod ends;
mod event;
mod watcher;

pub use ends::RunEnded;
pub use event::{Event, Kind, parse};
pub(crate) use watcher::HookErrors;
pub use watcher::{Arrived, Ipc, Watch};
