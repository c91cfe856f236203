//! Every tool against a real sandbox: good calls, bad ones, and what a hostile or careless program does to them.
//!
//! Needs Podman and its images `debian:trixie-slim` and, for the tests with Python or a browser, the sandbox image.

mod agents;
mod bench;
mod commands;
#[expect(dead_code, reason = "the gateway's own tests use the rest")]
#[path = "../gateway/door.rs"]
mod door;
mod environment;
mod files;
mod github;
mod jobs;
mod pages;
mod setups;
mod staying;
#[path = "../support/mod.rs"]
mod support;
