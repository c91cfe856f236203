//! The sandboxes of rooms on real Podman: they come to life, keep their files, stay apart, stay within their limits,
//! stop, are taken over by the next server, and go away. Needs root and Podman.

mod accounts;
mod events;
mod files;
mod house;
mod life;
mod limits;
mod memory;
mod models;
mod neighbours;
#[path = "../support/mod.rs"]
mod support;
mod trouble;
mod walls;
