//! The coding agents: programs in the sandbox that plan, write and review code with a model of their own.
//!
//! What one is stands in a profile ([`CodingAgent`]): its command line, its environment, how it writes what it does, what
//! ends it, what its exit codes mean. Which of them serves which role is the operator's choice ([`Roster`]). [`Run`] follows one run:
//! what the room is shown, when it has been silent too long, what it came to. Nothing here starts anything: whoever runs the
//! command in the sandbox feeds the run with what it writes.

mod agent;
mod agents;
pub(crate) mod asking;
mod profiles;
mod prompt;
mod record;
mod roster;
mod run;
mod stream;

pub use self::{agent::CodingAgent, agents::CodingAgents, profiles::Profiles, roster::Roster, run::Outcome, run::Run};
pub(crate) use self::{
    agent::Launch, agent::Role, agent::Session, prompt::Begun, prompt::Brief, prompt::prompt, prompt::told,
    roster::Assigned, run::Standing, run::Wire, stream::Tokens,
};
