//! From a room's word to a pull request: the whole server as a process, with a scripted model, real Podman and a GitHub on this
//! machine.
//!
//! Needs Podman and the sandbox image; `rooms` needs Synapse, too.

mod asked;
mod house;
mod kills;
mod rooms;
#[path = "../support/mod.rs"]
mod support;
