//! What bounds a turn: the limits that an operator sets, and those that nobody needs to set.
//!
//! Knows no clock: the driver keeps the time that the machine asks for. Called by the machine and by whoever configures it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::tools::ToolLimits;

/// The most calls of one message that run; the rest is answered with a refusal.
pub(super) const CALLS_AT_ONCE: usize = 16;
/// The most calls of one message that are kept at all.
pub(super) const CALLS_KEPT: usize = 64;
/// Messages in a row without one call that could run before the turn wraps up.
pub(super) const BAD_CALLS: u32 = 4;
/// How often the model is asked again after empty answers.
pub(super) const EMPTY_NUDGES: u32 = 2;
/// How often the model is asked again after calls written as text.
pub(super) const IN_TEXT_NUDGES: u32 = 1;
/// How long the model may take to wrap up.
pub(super) const WRAP_UP: Duration = Duration::from_mins(1);
/// The most summaries in one turn.
pub(super) const SUMMARIES: u32 = 6;
/// Summaries in a row that hardly helped before no more are made.
pub(super) const WEAK_SUMMARIES: u32 = 2;
/// Requests refused as too long before the turn gives up.
pub(super) const OVERFLOWS: u32 = 3;
/// How often a turn asks for a shorter answer before it gives up.
pub(super) const SHORTENED: u32 = 2;
/// The most bytes of text in one message of the model; a longer one is broken off.
pub(super) const ANSWER_BYTES: usize = 256 * 1024;

/// What a turn may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TurnLimits {
    /// Requests to the model (`MAX_AGENT_TURNS`); wrapping up has one more, or two if the model calls tools all the
    /// same.
    pub rounds: u32,
    /// Time; wrapping up has a minute more.
    pub time: Duration,
    /// Tokens, in and out.
    pub tokens: u64,
    /// Tokens of one answer; `None` leaves it to the provider.
    pub max_output: Option<u64>,
    /// What a single call may use.
    pub tools: ToolLimits,
}

impl Default for TurnLimits {
    fn default() -> Self {
        Self {
            rounds: 25,
            time: Duration::from_mins(30 + 5),
            tokens: 4_000_000,
            max_output: None,
            tools: ToolLimits::default(),
        }
    }
}

/// The limit that a turn reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Requests to the model.
    Rounds,
    /// Time.
    Time,
    /// Tokens.
    Tokens,
    /// The same calls with the same results, again and again.
    Stuck,
    /// Calls that could not run, again and again.
    BadCalls,
    /// The conversation no longer fits into the model's window.
    Context,
}
