//! One turn of the agent: the model and the tools in turns, within limits, to exactly one answer.
//!
//! [`Machine`] holds the rules and does no I/O; [`Orchestrator`] drives it with a model, tools and the store. Knows no chat
//! protocol and no room's manners. Called by `bots`.

mod asking;
mod batch;
mod chunks;
mod compaction;
mod context;
mod driver;
mod event;
mod footer;
mod hands;
mod journal;
mod ledger;
mod limits;
mod line;
mod machine;
mod markup;
mod progress;
mod prompt;
mod proof;
mod stuck;
mod words;

#[cfg(test)]
mod tests;

pub(crate) use driver::{Orchestrator, Start};
pub use driver::{Outcome, Thoughts, TurnJob};
pub(crate) use limits::TurnLimits;
pub use line::{Ending, UserMessage};
pub(crate) use line::{Line, Origin};
pub use progress::{Enclosure, Progress, Taken};
