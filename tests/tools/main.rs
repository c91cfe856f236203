//! Every tool against a real sandbox: good calls, bad ones, and what a hostile or careless program does to them.
//!
//! Needs Podman and its images `debian:trixie-slim` and, for the tests with Python or a browser, the sandbox image.

mod agents;
mod bench;
mod commands;
mod environment;
mod files;
mod jobs;
mod pages;
