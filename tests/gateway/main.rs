//! The gateway through real sockets, real TLS and the real git; only names and routes are made up (`door.rs`).

mod asking;
mod door;
mod git;
mod limits;
mod models;
#[path = "../support/mod.rs"]
mod support;
mod web;
