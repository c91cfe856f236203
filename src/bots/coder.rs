//! The coding bot: a message is work for the orchestrator, or a command.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{sync::mpsc, time};
use tokio_util::sync::CancellationToken;

use crate::{
    ids::{RoomKey, TurnId},
    llm::Model,
    orchestrator::{self, Limits, Outcome, Progress, Start, TurnContext, UserMessage},
    pictures::Gallery,
    sandbox::{SandboxError, Sandboxes},
    store::{Address, Store},
    strings, text,
    tools::LargeFiles,
};

use super::{
    intent::Command,
    jobs,
    upload::{self, Sent, Upload},
};

/// How long `!status` waits for word of the sandbox.
const LOOK: Duration = Duration::from_secs(5);
/// The days that `!cost` shows.
const COST_DAYS: usize = 7;

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

/// What the bot may use.
#[derive(Clone, Debug)]
pub struct Allowance {
    /// In one turn.
    pub turn: Limits,
    /// Turns that run at the same time, over all rooms.
    pub at_once: usize,
    /// How long the files of a room that was left are kept.
    pub grace: Duration,
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
    gallery: Gallery,
    large: LargeFiles,
    allowance: Allowance,
}

impl Coder {
    /// Puts the bot together.
    pub fn new(store: Store, sandboxes: Sandboxes, model: Model, gallery: Gallery, allowance: Allowance) -> Self {
        let large = LargeFiles::default();
        Self { inner: Arc::new(Inner { store, sandboxes, model, gallery, large, allowance }) }
    }

    /// Returns what the bot may use.
    pub fn allowance(&self) -> &Allowance {
        &self.inner.allowance
    }

    /// Carries out a command and returns what to say. `doing` says what the room's turn does, for `!status`.
    pub async fn command(&self, address: &Address, command: Command, doing: &str) -> String {
        match command {
            Command::Help => strings::HELP.to_owned(),
            Command::Stop => {
                let left = self.jobs_left(&address.room).await.map(|left| format!("\n\n{left}"));
                format!("{}{}", strings::NOTHING_RUNS, left.unwrap_or_default())
            }
            Command::StopJobs => match jobs::end(&self.inner.sandboxes, &address.room).await {
                Ok(ended) => ended,
                Err(error) => strings::command_failed(&error.to_string()),
            },
            Command::New => match self.inner.store.replace_context(address, Vec::new()).await {
                Ok(()) => {
                    self.forget_pictures(&address.room).await;
                    strings::NEW.to_owned()
                }
                Err(error) => strings::command_failed(&error.to_string()),
            },
            Command::Sandbox => match self.inner.sandboxes.observe(&address.room).await {
                Ok(observed) => observed.to_string(),
                Err(error) => strings::command_failed(&error.to_string()),
            },
            Command::Cost => self.cost(address).await,
            Command::Status => format!("{doing}\n{}", self.standing(address).await),
            Command::Model => {
                let model = &self.inner.model;
                model.ask_window().await;
                let window = model.window();
                strings::model(model.name(), window.tokens, &window.source.to_string(), model.vision())
            }
            Command::Unknown(word) => strings::unknown_command(&word),
        }
    }

    /// Says which background jobs are left running in a room, if any are: a stop ends none of them.
    pub async fn jobs_left(&self, room: &RoomKey) -> Option<String> {
        jobs::left(&self.inner.sandboxes, room).await
    }

    /// Tells the model and the sandbox's state in a line.
    async fn standing(&self, address: &Address) -> String {
        let sandbox = match time::timeout(LOOK, self.inner.sandboxes.list()).await {
            Ok(Ok(list)) => match list.into_iter().find(|summary| summary.room == address.room) {
                Some(summary) => {
                    let idle = text::human_duration(Duration::from_secs(summary.idle_seconds));
                    format!("{}, last used {idle} ago", summary.state.as_str())
                }
                None => "not made yet".to_owned(),
            },
            Ok(Err(error)) => format!("not to be seen ({error})"),
            Err(_) => "not to be seen just now".to_owned(),
        };
        strings::model_and_sandbox(self.inner.model.name(), &sandbox)
    }

    /// Saves a file in a room's sandbox. The error is a part of a sentence.
    pub async fn save(&self, address: &Address, sent: &Sent, bytes: Bytes) -> Result<Upload, String> {
        let Inner { store, sandboxes, model, gallery, .. } = &*self.inner;
        let sandbox = sandboxes.ensure(&address.room).await.map_err(|error| error.to_string())?;
        let mut upload = upload::save(store, &sandbox, address, sent, bytes.clone()).await?;
        if model.vision() {
            upload.show(gallery, address, bytes).await;
        }
        Ok(upload)
    }

    /// Removes the pictures of a conversation that nobody goes on with. What stays behind is bounded.
    async fn forget_pictures(&self, room: &RoomKey) {
        if let Err(error) = self.inner.gallery.clear(room).await {
            tracing::warn!(%room, %error, "the room's pictures could not be removed");
        }
    }

    /// Removes a room's container, and its files and pictures too if `with_files`.
    pub async fn remove(&self, room: &RoomKey, with_files: bool) -> Result<(), SandboxError> {
        if with_files {
            self.forget_pictures(room).await;
        }
        self.inner.sandboxes.remove(room, with_files).await
    }

    /// Says which rooms may have a sandbox; those of all others are removed. They are noted when this is polled first.
    pub async fn keep_only(&self, rooms: Vec<RoomKey>) {
        self.inner.sandboxes.keep_only(rooms).await;
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
            text.push_str(&strings::cost_of_day(&day.day, day.input, day.cached, day.output, day.requests));
        }
        text
    }

    /// Works on a turn. `None`: the program ends, the turn stays open.
    pub async fn turn(&self, job: TurnJob) -> Option<Outcome> {
        // The sandbox starts while the model thinks; if that fails, the first tool call says why.
        let warm = self.inner.sandboxes.clone();
        let room = job.address.room.clone();
        let stop = job.stop.clone();
        let warming = tokio::spawn(async move {
            if !stop.is_cancelled() {
                let _ = warm.ensure(&room).await;
            }
        });
        let context = TurnContext {
            store: self.inner.store.clone(),
            model: self.inner.model.clone(),
            sandboxes: self.inner.sandboxes.clone(),
            gallery: self.inner.gallery.clone(),
            large: self.inner.large.clone(),
            limits: self.inner.allowance.turn.clone(),
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
