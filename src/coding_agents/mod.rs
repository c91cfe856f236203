//! The coding agents: programs in the sandbox that plan, write and review code with a model of their own.
//!
//! What one is stands in a description ([`CodingAgent`]): its command line, its environment, how it writes what it does,
//! what its exit codes mean. [`Run`] follows one run: what the room is shown, when it has been silent too long, what it came
//! to. Nothing here starts anything: whoever runs the command in the sandbox feeds the run with what it writes. Knows no
//! room and no turn.

mod agent;
mod gemini;
mod prompt;
mod qwen;
mod run;
mod stream;

pub use self::{
    agent::{CodingAgent, Launch, Protocol, Role, Session},
    gemini::GEMINI,
    prompt::{Brief, prompt},
    qwen::QWEN,
    run::{Outcome, Run, Wire},
    stream::Tokens,
};
