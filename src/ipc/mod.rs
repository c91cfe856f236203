//! What programs in a sandbox tell by files in `/workspace/.ipc`: the coding agents' hooks, and any script that cares to.
//!
//! Everything there is a stranger's: links, pipes, giants, a million files. A file is opened without following anything,
//! read up to a bound, made into one clean line, and deleted once the line was handed on. Events are decoration:
//! nothing waits for one, and none is needed to know how a run went.
//!
//! Knows no container and no hub. `sandbox` says whose directory is where; whoever opened the [`Ipc`] takes the events.

mod directory;
mod ends;
mod event;
mod watcher;

pub use ends::RunEnded;
pub use event::{Event, Kind, LONGEST, Unreadable, VERSION, parse};
pub use watcher::{Arrived, HookErrors, Ipc, Watch};
