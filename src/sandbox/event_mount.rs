//! What a container has mounted for its events. What lies in it, and how it is bounded, is `events.rs`.

use std::path::PathBuf;

/// Where events are dropped in the sandbox.
pub(super) const MOUNT: &str = "/workspace/.ipc";

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The volume of this name.
    Volume(String),
    /// This directory.
    Directory(PathBuf),
}
