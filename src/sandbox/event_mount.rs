//! What is mounted into a container for its events. `events.rs` makes and bounds it.

use std::path::PathBuf;

/// The directory in the sandbox for events.
pub(super) const MOUNT: &str = "/workspace/.ipc";

/// What is mounted there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The volume with this name.
    Volume(String),
    /// This directory.
    Directory(PathBuf),
}
