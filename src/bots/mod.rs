//! Who answers: a [`Bot`] says what a message means to it, and does what it asks for.
//!
//! The hub knows the trait and nothing more of a bot: it keeps the journal, decides whose turn it is, and brings the
//! answers to the room. A bot knows no chat protocol and sends nothing itself.

mod coder;
mod command;
mod jobs;
mod permits;
mod policy;
mod upload;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::Value;

pub use coder::{Allowance, Coder};
pub use command::Command;
pub use permits::{Permit, Permits};
pub use policy::{People, Policies, Policy};
pub use upload::{SentFile, Upload};

pub use crate::orchestrator::{Enclosure, Ending, Outcome, Progress, Start, Taken, TurnJob, UserMessage};
use crate::{
    ids::{Address, BotName},
    store::Conversation,
};

/// One who answers in the rooms of an account. An account has one or more of them; the first that wants a message has it.
///
/// Object-safe, so that the hub takes any number of kinds. All methods may be called at the same time, for many rooms.
pub trait Bot: Send + Sync {
    /// Returns its name, which is stored with its turns and its conversations: it must not change.
    fn name(&self) -> &BotName;

    /// Returns whom it hears and where.
    fn policy(&self) -> &Policy;

    /// Returns the permits for its turns: how many run at the same time, over all rooms and accounts.
    fn permits(&self) -> &Permits;

    /// Returns whether it works in sandboxes, which are kept for the rooms of its accounts.
    fn owns_sandbox(&self) -> bool;

    /// Returns what a message means to it, or `None` if the next bot is to be asked. Called again for the same message
    /// at any time, so it must always say the same.
    fn intent(&self, said: &Said<'_>) -> Option<Intent>;

    /// Returns what it says in a room into which it has just come.
    fn greeting(&self) -> Option<String>;

    /// Returns the line of its conversation that a person's words become, as it is stored.
    fn line(&self, message: &UserMessage) -> Value;

    /// Returns the outcome of a turn that somebody has stopped before it began.
    fn stopped(&self) -> Outcome;

    /// Works on a turn to its one answer. `None`: the program ends, the turn stays open and is resumed at the next
    /// start. May be dropped at any time; it is resumed then, too.
    fn turn(&self, job: TurnJob) -> BoxFuture<'_, Option<Outcome>>;

    /// Carries out an order and returns the reply. May be dropped and called again for the same order.
    fn carry_out(&self, order: Order) -> BoxFuture<'_, String>;

    /// Keeps a file that somebody sent, for the turns to come. The error is a part of a sentence to that person.
    fn keep_file<'a>(
        &'a self,
        at: &'a Address,
        sent: &'a SentFile,
        bytes: Bytes,
    ) -> BoxFuture<'a, Result<Upload, String>>;

    /// Says what goes on in a room although its turn was stopped, in a sentence or none.
    fn left_running<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, Option<String>>;

    /// Lets go of what it holds for a room that was left; of the files in it, too, once nobody may come back for them.
    /// The error is for the log; it is called again later.
    fn let_go<'a>(&'a self, at: &'a Address, with_files: bool) -> BoxFuture<'a, Result<(), String>>;
}

/// A message as a bot is asked about it.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// Its words; of a file its caption, which may be empty.
    pub text: &'a str,
    /// Whether it brings a file along.
    pub has_file: bool,
}

/// What a message means to a bot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// It begins a turn, or steers the running one.
    Work,
    /// It ends the room's running turn.
    Stop,
    /// An order that is carried out at once, beside a running turn.
    Order,
    /// An order that waits until the bot's running turn has ended.
    OrderBetweenTurns,
}

/// An order on its way to its bot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Where it was given.
    pub at: Conversation,
    /// Its words as they were written.
    pub text: String,
    /// What the room's turn does just now, in a line.
    pub doing: String,
}
