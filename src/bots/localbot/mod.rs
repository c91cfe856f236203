//! The `/lb` commands: what the operator's inference servers do, told in a room.
//!
//! The room's coding bot takes them from people whom it hears ([`LocalBot`]), and a bot of its own takes `/lbn` from
//! everybody in public rooms ([`Guests`]).

mod command;
mod guests;
mod sessions;
mod switch;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

pub(crate) use command::LocalCommand;
pub use guests::Guests;

use crate::{
    ids::BotName,
    inference::{self, Inference, LocalModel, Online, Probed, Served, Snapshot},
    store::Store,
    strings::localbot,
    text,
};

/// How long a command may take: a large model is read from a disk, twice if the first time comes to nothing.
pub(crate) const PATIENCE: Duration = Duration::from_mins(12);

/// Who gave a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Somebody whom the coding bot hears.
    Authorised,
    /// Anybody else in the room.
    Guest,
}

/// What carries the commands out. Cheap to clone.
#[derive(Clone)]
pub struct LocalBot {
    inference: Inference,
    store: Store,
    /// The bots that are served, by account, once that is known.
    bots: Arc<OnceLock<Vec<(String, BotName)>>>,
}

impl LocalBot {
    /// Returns what carries the commands out.
    pub fn new(inference: Inference, store: Store) -> Self {
        Self { inference, store, bots: Arc::default() }
    }

    /// Notes which bots are served; the first call counts.
    pub fn serves(&self, bots: Vec<(String, BotName)>) {
        let _ = self.bots.set(bots);
    }

    /// Carries a command out and returns the reply.
    pub(crate) async fn carry_out(&self, command: &LocalCommand, asker: Asker) -> String {
        let snapshot = self.inference.registry().read();
        let reply = self.reply(&snapshot, command, asker).await;
        match asker {
            Asker::Authorised => told(reply, &snapshot),
            Asker::Guest => reply,
        }
    }

    async fn reply(&self, snapshot: &Snapshot, command: &LocalCommand, asker: Asker) -> String {
        match command {
            LocalCommand::New(room) => self.reset(snapshot, room, asker).await,
            // Whoever wires another command to guests by mistake gets nothing.
            _ if asker == Asker::Guest => String::new(),
            LocalCommand::Help => localbot::HELP.to_owned(),
            LocalCommand::Usage(command) => localbot::written_so(command),
            LocalCommand::Status => self.status(snapshot).await,
            LocalCommand::Models => self.models(snapshot).await,
            LocalCommand::Endpoints => self.endpoints(snapshot).await,
            LocalCommand::Performance => self.performance(snapshot).await,
            LocalCommand::Switch(model) => self.switch(snapshot, model).await,
            LocalCommand::Queue => self.queue(snapshot).await,
            LocalCommand::Log => self.log(snapshot).await,
        }
    }

    async fn status(&self, snapshot: &Snapshot) -> String {
        let (probed, (sessions, tokens)) = tokio::join!(self.inference.probe(snapshot), self.sessions(snapshot));
        let mut lines = vec![localbot::STATUS.to_owned(), String::new()];
        match inference::active(&probed) {
            Some((endpoint, online)) => {
                lines.push(localbot::active(&endpoint.name));
                match online.loaded().next() {
                    Some(served) => lines.extend(model_lines(snapshot.known(endpoint.kind, served), served)),
                    None => lines.push(localbot::endpoint_idle(online.models.len()).trim_start().to_owned()),
                }
            }
            None => lines.push(self.none_online(&probed)),
        }
        lines.extend([String::new(), localbot::sessions(sessions, &text::short(tokens))]);
        lines.join("\n")
    }

    async fn models(&self, snapshot: &Snapshot) -> String {
        if snapshot.models.is_empty() {
            return localbot::no_models(&self.folder());
        }
        let probed = self.inference.probe(snapshot).await;
        let active = inference::active(&probed);
        let is_active = |model: &LocalModel| {
            active.is_some_and(|(endpoint, online)| {
                endpoint.kind == model.kind && online.loaded().any(|served| served.is(model))
            })
        };
        let mut lines = vec![localbot::MODELS.to_owned()];
        for model in snapshot.models.iter() {
            let context = model.context.map(text::short);
            let speeds = localbot::speeds(model.speeds.generation, model.speeds.prompt);
            lines.extend([String::new(), localbot::listed(&model.alias, &model.name, is_active(model))]);
            lines.extend(localbot::listed_facts(context.as_deref(), speeds.as_deref()));
        }
        lines.join("\n")
    }

    async fn endpoints(&self, snapshot: &Snapshot) -> String {
        if snapshot.endpoints.is_empty() {
            return localbot::no_endpoints(&self.folder());
        }
        let probed = self.inference.probe(snapshot).await;
        let mut lines = vec![localbot::ENDPOINTS.to_owned()];
        for Probed { endpoint, found } in &probed {
            lines.push(String::new());
            lines.push(localbot::endpoint(found.is_ok(), &endpoint.name, endpoint.kind.as_str(), &endpoint.url));
            match found {
                Ok(online) => lines.extend(online_lines(snapshot, endpoint.kind, online)),
                Err(fault) => lines.push(localbot::endpoint_fault(&fault.to_string())),
            }
        }
        let count = probed.iter().filter(|probed| probed.found.is_ok()).count();
        lines.extend([String::new(), localbot::online(count, probed.len())]);
        lines.join("\n")
    }

    async fn performance(&self, snapshot: &Snapshot) -> String {
        let probed = self.inference.probe(snapshot).await;
        let Some((endpoint, online)) = inference::active(&probed) else { return self.none_online(&probed) };
        let Some(served) = online.loaded().next() else { return localbot::nothing_loaded(&endpoint.name) };
        match self.inference.measure(endpoint, served).await {
            Ok(measured) => localbot::measured(
                &endpoint.name,
                inference::shown_name(served.name()),
                measured.generation,
                measured.prompt,
                measured.roundtrip.as_millis(),
            ),
            Err(fault) => localbot::not_measured(&endpoint.name, &fault.to_string()),
        }
    }

    fn none_online(&self, probed: &[Probed]) -> String {
        match probed.len() {
            0 => localbot::no_endpoints(&self.folder()),
            count => localbot::none_online(count),
        }
    }

    fn folder(&self) -> String {
        self.inference.registry().folder().display().to_string()
    }
}

fn model_lines(known: Option<&LocalModel>, served: &Served) -> Vec<String> {
    let alias = known.map(|model| model.alias.as_str());
    let mut lines = vec![localbot::model(inference::shown_name(served.name()), alias)];
    let context = served.context.or_else(|| known?.context).map(text::short);
    lines.extend(context.map(|size| localbot::context(&size, known.and_then(|model| model.fit.as_deref()))));
    let speeds = known.and_then(|model| localbot::speeds(model.speeds.generation, model.speeds.prompt));
    lines.extend(speeds.map(|speeds| localbot::speed(&speeds)));
    lines
}

fn online_lines(snapshot: &Snapshot, kind: inference::Kind, online: &Online) -> Vec<String> {
    let loaded: Vec<_> = online.loaded().collect();
    let Some(first) = loaded.first() else { return vec![localbot::endpoint_idle(online.models.len())] };
    let names: Vec<_> = loaded.iter().map(|served| inference::shown_name(served.name())).collect();
    let known = snapshot.known(kind, first);
    let speeds = known.and_then(|model| localbot::speeds(model.speeds.generation, model.speeds.prompt));
    [localbot::endpoint_models(&names)]
        .into_iter()
        .chain(speeds.map(|speeds| localbot::endpoint_speed(&speeds)))
        .collect()
}

/// Returns a reply with the mistakes of the registry behind it.
fn told(reply: String, snapshot: &Snapshot) -> String {
    if snapshot.mistakes.is_empty() {
        return reply;
    }
    let mistakes = snapshot.mistakes.iter().map(|mistake| localbot::mistake(mistake));
    [reply, String::new()].into_iter().chain(mistakes).collect::<Vec<_>>().join("\n")
}
