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

pub use batch::{CallResult, CallToRun, KnownTool};
pub use driver::{Orchestrator, Outcome, Start, TurnJob};
pub use event::{Action, Answer, Event, Request, TurnInput};
pub use footer::{Tally, brief, footer};
pub use limits::{Limit, TurnLimits};
pub use line::{CallFacts, Edit, Ending, Line, ModelUse, Note, Origin, UserMessage};
pub use machine::Machine;
pub use progress::{Enclosure, Progress, Taken};
pub use prompt::system;
pub use proof::Proof;
