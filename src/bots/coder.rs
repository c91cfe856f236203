//! The coding bot: a message is work for the orchestrator or a command.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use serde_json::Value;
use tokio::time;
use tracing::Instrument;

use crate::{
    audit::Deed,
    ids::{self, Address, BotName},
    links::{Links, Opens},
    orchestrator::{Orchestrator, UserMessage},
    rights::Role,
    sandbox::SandboxError,
    store::StoreError,
    strings::{self, admin as words},
    text, tools,
};

use super::{
    Addressed, AdminOrder, Administration, Bot, Intent, Order, Outcome, Permits, Place, Policy, Said, Told, TurnJob,
    answering,
    command::Command,
    costs, granting, jobs,
    localbot::{Asker, LocalBot, PATIENCE},
    neighbours::Neighbours,
    replied::Replied,
    upload::{self, SentFile, Upload},
};

/// How long `!status` waits for the sandbox's answer.
const LOOK: Duration = Duration::from_secs(5);
/// The bot's name in the store.
const NAME: &str = "coder";

/// What the bot works with.
pub(crate) struct Means {
    /// What works on its turns.
    pub orchestrator: Orchestrator,
    /// The number of turns that run at the same time, over all rooms.
    pub at_once: usize,
    /// What carries the `/lb` commands out.
    pub local: LocalBot,
    /// The server's other bots.
    pub neighbours: Neighbours,
    /// The way to whoever runs the whole server.
    pub administration: Administration,
    /// Makes links to turns' logs; `None`: they are shown nowhere.
    pub links: Option<Links>,
}

/// The coding bot. Cheap to clone.
#[derive(Clone)]
pub struct Coder {
    policy: Policy,
    inner: Arc<Inner>,
}

/// What is shared by all accounts on which the bot answers.
struct Inner {
    name: BotName,
    permits: Permits,
    orchestrator: Orchestrator,
    local: LocalBot,
    neighbours: Neighbours,
    administration: Administration,
    links: Option<Links>,
}

impl Coder {
    /// Returns the bot.
    pub(crate) fn new(means: Means, policy: Policy) -> Self {
        let Means { orchestrator, at_once, local, neighbours, administration, links } = means;
        let (name, permits) = (BotName::from(NAME), Permits::new(at_once));
        let inner = Inner { name, permits, orchestrator, local, neighbours, administration, links };
        Self { policy, inner: Arc::new(inner) }
    }

    /// Returns the same bot for another account, with its own policy.
    #[must_use]
    pub fn hearing(&self, policy: Policy) -> Self {
        Self { policy, inner: self.inner.clone() }
    }

    async fn command(&self, order: &Order, command: Command) -> Replied {
        let (address, rights) = (&order.at.address, &self.inner.orchestrator.rights);
        match command {
            // A stop without a running turn is answered by the hub.
            Command::Help | Command::Stop => Replied::done(strings::commands::HELP),
            Command::StopJobs => replied(jobs::end(&self.inner.orchestrator.sandboxes, address).await),
            Command::New => match self.inner.orchestrator.store.replace_context(&order.at, Vec::new()).await {
                Ok(()) => {
                    self.forget_pictures(address).await;
                    Replied::done(strings::commands::NEW)
                }
                Err(error) => failed(&error),
            },
            Command::Sandbox => match self.inner.orchestrator.sandboxes.observe(address).await {
                Ok(observed) => Replied::done(format!("{observed}{}", self.set_up(address).await)),
                Err(error) => failed(&error),
            },
            Command::Memory => Replied::done(self.memory(address).await),
            Command::Link => replied(self.link(address).await),
            Command::Cost => replied(costs::told(&self.inner.orchestrator.ledger, address).await),
            Command::Budget(budget) => {
                let asked = costs::budget(&self.inner.orchestrator.ledger, order, budget).await;
                asked.unwrap_or_else(|error| failed(&error))
            }
            Command::Granting(granting) => {
                granting::carry_out(rights, order, granting).await.unwrap_or_else(|error| failed(&error))
            }
            Command::Answering(answer) => {
                answering::carry_out(rights, order, answer).await.unwrap_or_else(|error| failed(&error))
            }
            Command::Admin(asked) => self.administer(order, &asked).await,
            Command::Local(command) => Replied::done(self.inner.local.carry_out(&command, Asker::Authorised).await),
            Command::Status => {
                let open = granting::open(rights, address);
                Replied::done(format!("{open}{}\n{}", order.doing, self.standing(address).await))
            }
            Command::Model => {
                let model = &self.inner.orchestrator.model;
                model.ask_window().await;
                let window = model.window();
                let source = window.source.to_string();
                Replied::done(strings::commands::model(model.name(), window.tokens, &source, model.vision()))
            }
            Command::Unknown(word) => Replied::refused(strings::commands::unknown(&word)),
        }
    }

    async fn administer(&self, order: &Order, asked: &AdminOrder) -> Replied {
        let role = self.inner.orchestrator.rights.roles().of(&order.at.address, &order.sender);
        if !order.local && role != Role::Admin {
            return Replied::refused(words::NOT_YOURS);
        }
        match self.inner.administration.administrator() {
            Some(administrator) => match administrator.carry_out(asked, &order.sender, Place::Room).await {
                Ok(Told { text, .. }) => Replied::done(text),
                Err(text) => Replied::refused(text),
            },
            None => Replied::refused(words::NOT_YET),
        }
    }

    /// Returns a link to the log of the room's newest turn.
    async fn link(&self, address: &Address) -> Result<String, StoreError> {
        let Some(links) = &self.inner.links else { return Ok(strings::commands::NO_LINKS.to_owned()) };
        let newest = self.inner.orchestrator.store.newest_turn(address).await?;
        Ok(newest.map_or_else(
            || strings::commands::NO_TURN.to_owned(),
            |turn| strings::commands::link(&links.to_turn(&turn), &text::human_duration(Opens::Turn.lasts())),
        ))
    }

    /// Returns the model and the sandbox's state in one line.
    async fn standing(&self, address: &Address) -> String {
        let sandbox = match time::timeout(LOOK, self.inner.orchestrator.sandboxes.list()).await {
            Ok(Ok(list)) => match list.into_iter().find(|summary| summary.address == *address) {
                Some(summary) => {
                    let idle = text::human_duration(Duration::from_secs(summary.idle_seconds));
                    strings::commands::sandbox_last_used(summary.state.as_str(), &idle)
                }
                None => strings::commands::SANDBOX_NOT_MADE.to_owned(),
            },
            Ok(Err(error)) => strings::commands::sandbox_unseen(&error.to_string()),
            Err(_) => strings::commands::SANDBOX_UNSEEN_NOW.to_owned(),
        };
        strings::commands::model_and_sandbox(self.inner.orchestrator.model.name(), &sandbox)
    }

    /// Returns a line for each repository whose environment was brought into the room; none if its sandbox does not run.
    async fn set_up(&self, address: &Address) -> String {
        let Orchestrator { environments, sandboxes, .. } = &self.inner.orchestrator;
        let look = async {
            let sandbox = sandboxes.running(address).await.ok().flatten()?;
            environments.as_ref()?.here(&sandbox).await.ok()
        };
        let here = time::timeout(LOOK, look).await.ok().flatten().unwrap_or_default();
        let lines = here
            .iter()
            .map(|here| strings::environments::here(&here.repository, &here.folder, &text::human_bytes(here.bytes)));
        lines.collect()
    }

    /// Returns the memory files of the room's agents; makes no sandbox for that if the room has none.
    async fn memory(&self, address: &Address) -> String {
        let sandboxes = &self.inner.orchestrator.sandboxes;
        let read = async {
            let list = sandboxes.list().await?;
            if !list.iter().any(|summary| summary.address == *address) {
                return Ok(Vec::new());
            }
            Ok::<_, SandboxError>(tools::memory_files(&sandboxes.ensure(address).await?).await)
        };
        match read.await {
            Ok(files) => strings::commands::memory(&files),
            Err(error) => strings::commands::failed(&error.to_string()),
        }
    }

    async fn save(&self, address: &Address, sent: &SentFile, bytes: Bytes) -> Result<Upload, String> {
        let Orchestrator { store, sandboxes, model, gallery, .. } = &self.inner.orchestrator;
        let sandbox = sandboxes.ensure(address).await.map_err(|error| error.to_string())?;
        let mut upload = upload::save(store, &sandbox, address, sent, bytes.clone()).await?;
        if model.vision() {
            upload.show(gallery, address, &sent.mime, bytes).await;
        }
        Ok(upload)
    }

    /// Removes the pictures of a conversation that is over. Those that cannot be removed are bounded anyway.
    async fn forget_pictures(&self, address: &Address) {
        if let Err(error) = self.inner.orchestrator.gallery.clear(address).await {
            tracing::warn!(%error, "the room's pictures could not be removed");
        }
    }

    async fn work(&self, job: TurnJob) -> Option<Outcome> {
        // The sandbox starts while the model thinks; if that fails, the first tool call says why.
        let warm = self.inner.orchestrator.sandboxes.clone();
        let address = job.at.address.clone();
        let open = self.inner.orchestrator.rights.begin(&address, &job.turn);
        let stop = job.stop.clone();
        let warming = async move {
            if !stop.is_cancelled() {
                let _ = warm.ensure(&address).await;
            }
        };
        let warming = tokio::spawn(warming.in_current_span());
        let outcome = self.inner.orchestrator.run(job).await;
        warming.abort();
        if outcome.is_some() {
            open.ended().await;
        }
        outcome
    }
}

fn failed(error: &impl ToString) -> Replied {
    Replied::failed(strings::commands::failed(&error.to_string()))
}

fn replied(result: Result<String, impl ToString>) -> Replied {
    result.map_or_else(|error| failed(&error), Replied::done)
}

/// Returns which order it is, as the audit log has it: its word, and nothing else that was written.
fn about(command: &Command, text: &str) -> String {
    match command {
        Command::Admin(order) => format!("!{}", order.words()),
        Command::Unknown(_) => "an unknown word".to_owned(),
        _ => text.split_whitespace().next().unwrap_or_default().to_owned(),
    }
}

impl Bot for Coder {
    fn name(&self) -> &BotName {
        &self.inner.name
    }

    fn policy(&self) -> &Policy {
        &self.policy
    }

    fn permits(&self) -> &Permits {
        &self.inner.permits
    }

    fn owns_sandbox(&self) -> bool {
        true
    }

    fn intent(&self, said: &Said<'_>) -> Option<Intent> {
        let Addressed { mentioned, replied, others, .. } = said.addressed;
        let neighbours = &self.inner.neighbours;
        let for_another = !mentioned && !replied && others.iter().any(|other| neighbours.is_one(other));
        if for_another || neighbours.is_one(said.sender) {
            return None;
        }
        // A file's caption is about the file, never a command.
        let command = if said.has_file { None } else { Command::of(said.text) };
        Some(match command {
            None => Intent::Work,
            Some(Command::Stop) => Intent::Stop,
            Some(Command::New) => Intent::OrderBetweenTurns,
            Some(_) => Intent::Order,
        })
    }

    fn greeting(&self) -> Option<String> {
        Some(strings::rooms::GREETING.to_owned())
    }

    fn line(&self, message: &UserMessage) -> Value {
        message.to_line().to_json()
    }

    fn stopped(&self) -> Outcome {
        Outcome::stopped(strings::turns::STOPPED_BEFORE)
    }

    fn turn(&self, job: TurnJob) -> BoxFuture<'_, Option<Outcome>> {
        self.work(job).boxed()
    }

    fn patience(&self, order: &Order) -> Duration {
        let local = matches!(Command::of(&order.text), Some(Command::Local(_)));
        if local { PATIENCE } else { Duration::from_mins(1) }
    }

    fn meanwhile(&self, order: &Order) -> Option<String> {
        match Command::of(&order.text)? {
            Command::Local(command) => self.inner.local.meanwhile(&command),
            _ => None,
        }
    }

    fn carry_out(&self, order: Order) -> BoxFuture<'_, String> {
        async move {
            // The hub asks for an order only after `intent` said that it is one.
            let command = Command::of(&order.text).unwrap_or(Command::Help);
            let about = about(&command, &order.text);
            let Replied { text, outcome } = self.command(&order, command).await;
            let digest = ids::digest(&[&order.text], 16);
            let deed = Deed { digest, ..Deed::new("order", about, outcome).by(&order.sender) };
            self.inner.orchestrator.rights.note(&order.at.address, deed);
            text
        }
        .boxed()
    }

    fn keep_file<'a>(
        &'a self,
        at: &'a Address,
        sent: &'a SentFile,
        bytes: Bytes,
    ) -> BoxFuture<'a, Result<Upload, String>> {
        let told = |cause: String| strings::files::not_saved(&text::one_line(&sent.name, 100), &cause);
        async move { self.save(at, sent, bytes).await.map_err(told) }.boxed()
    }

    fn left_running<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, Option<String>> {
        jobs::left(&self.inner.orchestrator.sandboxes, at).boxed()
    }

    fn let_go<'a>(&'a self, at: &'a Address, with_files: bool) -> BoxFuture<'a, Result<(), String>> {
        async move {
            if with_files {
                self.forget_pictures(at).await;
            }
            let removed = self.inner.orchestrator.sandboxes.remove(at, with_files).await;
            removed.map_err(|error: SandboxError| error.to_string())
        }
        .boxed()
    }
}
