//! The coding bot: a message is work for the orchestrator, or a command.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    ids::TurnId,
    llm::Model,
    orchestrator::{self, Limits, Outcome, Progress, Start, TurnContext, UserMessage},
    sandbox::Sandboxes,
    store::{Address, Store},
    strings,
};

/// The days that `!cost` shows.
const COST_DAYS: usize = 7;

/// What a message asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Work.
    Ask(String),
    /// Something that needs no model.
    Command(Command),
}

/// A command, written as `!word`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Lists the commands.
    Help,
    /// Stops the running turn.
    Stop,
    /// Begins a new conversation.
    New,
    /// Shows the room's sandbox.
    Sandbox,
    /// Shows the tokens used.
    Cost,
    /// A word that is no command.
    Unknown(String),
}

impl Intent {
    /// Reads a message. Only a lone `!word` is a command: `!important: fix the login` is work.
    pub fn of(text: &str) -> Self {
        let trimmed = text.trim();
        let Some(word) = trimmed.strip_prefix('!') else { return Self::Ask(text.to_owned()) };
        if word.is_empty() || !word.chars().all(|letter| letter.is_ascii_alphabetic()) {
            return Self::Ask(text.to_owned());
        }
        Self::Command(match word.to_ascii_lowercase().as_str() {
            "help" => Command::Help,
            "stop" => Command::Stop,
            "new" => Command::New,
            "sandbox" => Command::Sandbox,
            "cost" => Command::Cost,
            _ => Command::Unknown(trimmed.to_owned()),
        })
    }
}

/// One turn's work.
#[derive(Debug)]
pub struct TurnJob {
    /// The bot and the room.
    pub address: Address,
    /// The turn; its first message is stored.
    pub turn: TurnId,
    /// From the beginning, or from where a crash left it.
    pub start: Start,
    /// What people say meanwhile.
    pub steering: mpsc::Receiver<UserMessage>,
    /// What is worth seeing.
    pub progress: mpsc::Sender<Progress>,
    /// Somebody wants it stopped: it ends with an answer.
    pub stop: CancellationToken,
    /// The program ends: it is left as it is, to be resumed.
    pub abandon: CancellationToken,
}

/// The bot. Cheap to clone.
#[derive(Clone)]
pub struct Coder {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    sandboxes: Sandboxes,
    model: Model,
    limits: Limits,
}

impl Coder {
    /// Puts the bot together.
    pub fn new(store: Store, sandboxes: Sandboxes, model: Model, limits: Limits) -> Self {
        Self { inner: Arc::new(Inner { store, sandboxes, model, limits }) }
    }

    /// Carries out a command and returns what to say.
    pub async fn command(&self, address: &Address, command: Command) -> String {
        match command {
            Command::Help => strings::HELP.to_owned(),
            Command::Stop => strings::NOTHING_RUNS.to_owned(),
            Command::New => match self.inner.store.replace_context(address, Vec::new()).await {
                Ok(()) => strings::NEW.to_owned(),
                Err(error) => strings::command_failed(&error.to_string()),
            },
            Command::Sandbox => match self.inner.sandboxes.observe(&address.room).await {
                Ok(observed) => observed.to_string(),
                Err(error) => strings::command_failed(&error.to_string()),
            },
            Command::Cost => self.cost(address).await,
            Command::Unknown(word) => strings::unknown_command(&word),
        }
    }

    async fn cost(&self, address: &Address) -> String {
        let days = match self.inner.store.usage(address, COST_DAYS).await {
            Ok(days) => days,
            Err(error) => return strings::command_failed(&error.to_string()),
        };
        if days.is_empty() {
            return strings::NO_COST.to_owned();
        }
        let mut text = format!("Tokens used in this room with `{}`:\n", self.inner.model.name());
        for day in days {
            text += &strings::cost_of_day(&day.day, day.input, day.cached, day.output, day.requests);
        }
        text
    }

    /// Works on a turn. `None`: the program ends, the turn stays open.
    pub async fn turn(&self, job: TurnJob) -> Option<Outcome> {
        // The sandbox starts while the model thinks; if that fails, the first tool call says why.
        let warm = self.inner.sandboxes.clone();
        let room = job.address.room.clone();
        let warming = tokio::spawn(async move { warm.ensure(&room).await.map(drop) });
        let context = TurnContext {
            store: self.inner.store.clone(),
            model: self.inner.model.clone(),
            sandboxes: self.inner.sandboxes.clone(),
            limits: self.inner.limits.clone(),
            address: job.address,
            turn: job.turn,
            steering: job.steering,
            progress: job.progress,
            stop: job.stop,
        };
        let outcome = tokio::select! {
            () = job.abandon.cancelled() => None,
            outcome = orchestrator::run_turn(context, job.start) => Some(outcome),
        };
        warming.abort();
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lone_word_is_a_command() {
        assert_eq!(Intent::of(" !STOP \n"), Intent::Command(Command::Stop));
        assert_eq!(Intent::of("!frobnicate"), Intent::Command(Command::Unknown("!frobnicate".into())));
        for work in ["!important: fix it", "!", "!!", "stop", "", "! stop"] {
            assert_eq!(Intent::of(work), Intent::Ask(work.into()), "{work:?}");
        }
    }
}
