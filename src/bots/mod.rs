//! The bots: a [`Bot`] says what a message means to it, and does what the message asks for.
//!
//! The hub knows only the trait: it keeps the journal, decides which message is handled when, and delivers the
//! answers. A bot knows no chat protocol and sends nothing itself.

mod admin;
mod answering;
pub mod chat;
mod coder;
mod command;
mod costs;
pub mod exobot;
mod granting;
mod jobs;
mod localbot;
pub(crate) mod names;
mod neighbours;
mod permits;
mod policy;
mod replied;
mod upload;

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use admin::{AdminOrder, Administration, Administrator, Place, Told};
pub(crate) use coder::{Coder, Means};
pub(crate) use command::Command;
pub use localbot::{Guests, LocalBot};
pub use neighbours::Neighbours;
pub(crate) use permits::Permit;
pub use permits::{Permits, QueuePlace};
pub use policy::{Passers, People, Places, Policy};
pub(crate) use policy::{Policies, note_of_alias};
pub use upload::{SentFile, Upload};

pub(crate) use crate::orchestrator::Start;
pub use crate::orchestrator::{Enclosure, Ending, Outcome, Progress, Taken, Thoughts, TurnJob, UserMessage};
use crate::{
    ids::{Address, BotName, EventId},
    store::Conversation,
};

/// A bot that answers in the rooms of an account. An account has one or more; the first that wants a message gets it.
///
/// Object-safe, so that the hub can have any number of kinds. All methods may be called concurrently, for many rooms.
pub trait Bot: Send + Sync {
    /// Returns its name, which must not change: it is stored with its turns and conversations.
    fn name(&self) -> &BotName;

    /// Returns whom it hears, and in which rooms.
    fn policy(&self) -> &Policy;

    /// Returns the permits for its turns, which bound how many run at the same time, over all rooms and accounts.
    fn permits(&self) -> &Permits;

    /// Returns whether it works in sandboxes; then they are kept for the rooms of its accounts.
    fn owns_sandbox(&self) -> bool;

    /// Returns whether its answers are shown as they come, in the message that becomes the answer; if not, what its turns do is
    /// shown beside their answers.
    fn streams(&self) -> bool {
        false
    }

    /// Returns what a message means to it; `None` passes the message to the next bot. It may be called again for the
    /// same message at any time and must return the same.
    fn intent(&self, said: &Said<'_>) -> Option<Intent>;

    /// Returns a message's words as it takes them, for instance without its own name.
    fn words(&self, said: &Said<'_>) -> String {
        said.text.to_owned()
    }

    /// Returns its greeting for a room that it has just joined.
    fn greeting(&self) -> Option<String>;

    /// Returns a person's message as it is stored in the bot's conversation.
    fn line(&self, message: &UserMessage) -> Value;

    /// Returns the outcome of a turn that was stopped before it began.
    fn stopped(&self) -> Outcome;

    /// Works on a turn to its one answer. Returns `None` if the program ends; the turn stays open then and is resumed
    /// at the next start, as it also is if this is dropped.
    fn turn(&self, job: TurnJob) -> BoxFuture<'_, Option<Outcome>>;

    /// Returns how long an order may take; most are a matter of an instant.
    fn patience(&self, _order: &Order) -> Duration {
        Duration::from_mins(1)
    }

    /// Returns what is replied at once to an order that takes long. Where messages can be changed it is shown until the reply
    /// takes its place; elsewhere it is not shown.
    fn meanwhile(&self, _order: &Order) -> Option<String> {
        None
    }

    /// Carries out an order and returns the reply; empty for none. It may be dropped and called again for the same order.
    fn carry_out(&self, order: Order) -> BoxFuture<'_, String>;

    /// Saves a file that somebody sent, for later turns. The error is a sentence to that person.
    fn keep_file<'a>(
        &'a self,
        at: &'a Address,
        sent: &'a SentFile,
        bytes: Bytes,
    ) -> BoxFuture<'a, Result<Upload, String>>;

    /// Forgets a message that its sender has taken back after it was dealt with, so that no model is told of it again. The error
    /// is for the log.
    fn forget<'a>(&'a self, _at: &'a Conversation, _event: &'a EventId) -> BoxFuture<'a, Result<(), String>> {
        async { Ok(()) }.boxed()
    }

    /// Returns a sentence about what keeps running in a room although its turn was stopped; `None` if nothing does.
    fn left_running<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, Option<String>>;

    /// Removes what it holds for a room that was left; with `with_files` the files too, once nobody can come back for
    /// them. The error is for the log, and the call is repeated later.
    fn let_go<'a>(&'a self, at: &'a Address, with_files: bool) -> BoxFuture<'a, Result<(), String>>;
}

/// A message as a bot is asked about it.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// Its text; the caption of a file, which may be empty.
    pub text: &'a str,
    /// Whether it brings a file along.
    pub has_file: bool,
    /// Who sent it, by their chat protocol's name.
    pub sender: &'a str,
    /// What tells, besides its words, that the account is meant.
    pub addressed: &'a Addressed,
}

/// What tells that a message is meant for the account, as far as its chat protocol knows: the journal keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addressed {
    /// Whether it mentions the account in a way of the protocol.
    #[serde(default)]
    pub mentioned: bool,
    /// Whether it replies to something that the account has said.
    #[serde(default)]
    pub replied: bool,
    /// What stands in its text for the account.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Whom else it mentions, or calls by `@name` at its beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
}

impl Addressed {
    /// Returns whether nothing tells it.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// What a message means to a bot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// It begins a turn, or steers the running one.
    Work,
    /// It ends the room's running turn.
    Stop,
    /// An order, which is carried out at once, beside a running turn.
    Order,
    /// An order that waits until the bot's running turn has ended.
    OrderBetweenTurns,
}

/// An order for a bot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The conversation in which it was given.
    pub at: Conversation,
    /// The thread in which it was given.
    pub thread: Option<EventId>,
    /// Who gave it, by their chat protocol's name.
    pub sender: String,
    /// Whether they sit at this machine.
    pub local: bool,
    /// Its words as they were written.
    pub text: String,
    /// What the room's actor does now, in one line.
    pub doing: String,
}
