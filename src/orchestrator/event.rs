//! What goes into the machine and what comes out of it.
//!
//! Types only. Called by the machine, its driver and its tests.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    ids::{CallId, TurnId},
    llm::{Chunk, Completion, Message, Remedy},
    tools::Word,
};

use super::{
    batch::{CallResult, CallToRun, KnownTool},
    footer::Tally,
    limits::TurnLimits,
    line::{Ending, Line, UserMessage},
    progress::Progress,
};

/// What a turn begins or goes on with.
#[derive(Debug)]
pub(crate) struct TurnInput {
    /// The turn.
    pub turn: TurnId,
    /// The system message.
    pub system: String,
    /// What the tools' descriptions cost, in tokens.
    pub overhead: u64,
    /// What the model is shown: the room's context, this turn's lines included.
    pub history: Vec<Line>,
    /// How many lines at the start of `history` the last compaction has written; the others came after it.
    pub base: usize,
    /// This turn's lines alone, all of them.
    pub stored: Vec<Line>,
    /// The sandbox's boot id for each call whose intent is stored without a result.
    pub boots: HashMap<CallId, String>,
    /// The tools.
    pub tools: Vec<KnownTool>,
    /// The model's context window, in tokens.
    pub window: u64,
    /// What the turn may use.
    pub limits: TurnLimits,
    /// What is left of its time.
    pub time_left: Duration,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The turn begins, or goes on after a restart: the first event, and only that.
    Begin,
    /// A piece of the model's message.
    Chunk(Chunk),
    /// The model's message is whole.
    ModelDone {
        /// The request's number.
        request: u32,
        /// The message.
        completion: Completion,
    },
    /// The request failed for good; retries are behind it.
    ModelFailed {
        /// The request's number.
        request: u32,
        /// What may make another try succeed.
        remedy: Remedy,
        /// A plain sentence for the person.
        why: String,
    },
    /// The request was not sent, because of a limit that is not the turn's own.
    Refused {
        /// The request's number.
        request: u32,
        /// A plain sentence for the person.
        why: String,
    },
    /// The model's context window is found to be another than was thought, in tokens.
    Window(u64),
    /// A call ended.
    ToolDone {
        /// The call.
        call: CallId,
        /// Its result.
        result: CallResult,
    },
    /// Somebody spoke in the room.
    Said(UserMessage),
    /// A running call asks for the next message that waits.
    Takes(CallId),
    /// The time that was armed last is over.
    TimeUp,
    /// The person wants it stopped.
    Stop,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Action {
    /// Store a line.
    Keep(Line),
    /// Replace the room's stored context by these lines.
    Rebase(Vec<Line>),
    /// Begin a request to the model.
    Ask(Request),
    /// Begin a call.
    Run(CallToRun),
    /// Answer the oldest [`Event::Takes`] that has no answer yet: with the word that was stored as the call's, or with
    /// `None` if no message waits.
    Pass(Option<Word>),
    /// Let `TimeUp` come after this long, instead of what was armed before.
    Arm(Duration),
    /// End the request and the calls under way; nothing more is heard of them.
    Cancel,
    /// Show the room something.
    Show(Progress),
    /// The turn is over.
    Answer(Answer),
}

/// A request to the model.
#[derive(Debug)]
pub(crate) struct Request {
    /// Its number, which comes back with its end.
    pub number: u32,
    /// The messages. Drop it before the end is handed in, else the next append copies them all.
    pub messages: Arc<Vec<Message>>,
    /// About how many tokens its prompt has.
    pub asked: u64,
    /// Whether tools are offered.
    pub tools: bool,
    /// The most tokens of the answer, if they are to be bounded.
    pub max_output: Option<u64>,
}

/// The turn's one answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What the person reads.
    pub text: String,
    /// How the turn ended.
    pub ending: Ending,
    /// The line that ends the turn in the conversation.
    pub line: Line,
    /// The counts for the footer.
    pub tally: Tally,
}
