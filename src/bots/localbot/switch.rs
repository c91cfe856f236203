//! `/lbm ALIAS`, `/lbq` and `/lbl`: what is loaded is changed, and what servers do is told.

use super::{LocalBot, LocalCommand};
use crate::{
    inference::{self, Endpoint, LoadFault, LocalModel, NoLease, NotOne, Snapshot, Standing},
    strings::localbot,
    text,
};

/// The lines of a log that are told.
const LINES: u32 = 20;

impl LocalBot {
    /// Returns what is told while a command of somebody who may give it is carried out.
    pub(crate) fn meanwhile(&self, command: &LocalCommand) -> Option<String> {
        let LocalCommand::Switch(said) = command else { return None };
        let snapshot = self.inference.registry().read();
        snapshot.model(said).ok().map(|model| localbot::switching(&model.alias))
    }

    /// Loads a model, and returns the reply.
    pub(super) async fn switch(&self, snapshot: &Snapshot, said: &str) -> String {
        let model = match snapshot.model(said) {
            Ok(model) => model,
            Err(NotOne::Unknown) => return localbot::unknown_model(said),
            Err(NotOne::Several(aliases)) => return localbot::several_models(said, &aliases),
        };
        let Some(endpoint) = self.inference.endpoint_of(snapshot, model).await else {
            return localbot::no_endpoint_for(&model.alias, model.kind.as_str());
        };
        match self.inference.lease(&endpoint, model).await {
            Ok(lease) => {
                drop(lease);
                self.switched(&endpoint, model).await
            }
            Err(NoLease::Offline(fault)) => localbot::no_server(endpoint.kind.as_str(), &fault.to_string()),
            Err(NoLease::NotServed) => localbot::not_switched(&localbot::not_served(&endpoint.name), None),
            Err(NoLease::Failed { why: LoadFault::Unreachable(why), .. }) => {
                localbot::no_server(endpoint.kind.as_str(), &why)
            }
            Err(NoLease::Failed { why: LoadFault::Failed(why), serving }) => {
                localbot::not_switched(&why, serving.as_deref().map(inference::file_name))
            }
            Err(NoLease::NoRoom) => localbot::not_switched(localbot::NO_ROOM, None),
            Err(NoLease::Waited) => localbot::not_switched(localbot::WAITED, None),
        }
    }

    async fn switched(&self, endpoint: &Endpoint, model: &LocalModel) -> String {
        let served = self.inference.look(endpoint).await.ok();
        let served = served.and_then(|online| online.loaded().find(|served| served.is(model)).cloned());
        let context = served.as_ref().and_then(|served| served.context).or(model.context).map(text::short);
        localbot::switched(&model.alias, inference::file_name(&model.file), context.as_deref())
    }

    /// Returns who is answered and who waits.
    pub(super) async fn queue(&self, snapshot: &Snapshot) -> String {
        if snapshot.endpoints.is_empty() {
            return localbot::no_endpoints(&self.folder());
        }
        let mut lines = vec![localbot::QUEUE.to_owned()];
        let slots = snapshot.endpoints.iter().map(|endpoint| self.inference.slots(endpoint));
        let slots = futures_util::future::join_all(slots).await;
        for (endpoint, slots) in snapshot.endpoints.iter().zip(slots) {
            lines.extend([String::new(), endpoint.name.clone()]);
            let standing: Vec<_> = self.inference.standing(endpoint);
            let asked = standing.iter().filter(|it| it.answering > 0 || it.waiting.is_some() || it.loading);
            let asked: Vec<_> = asked.map(line).collect();
            lines.extend(slots.map(|(busy, all)| localbot::slots(busy, all)));
            lines.extend(if asked.is_empty() { vec![localbot::QUEUE_EMPTY.to_owned()] } else { asked });
        }
        lines.join("\n")
    }

    /// Returns the last lines of the active server's log; of the first endpoint's if none is online.
    pub(super) async fn log(&self, snapshot: &Snapshot) -> String {
        let probed = self.inference.probe(snapshot).await;
        let active = inference::active(&probed).map(|(endpoint, _)| endpoint).or_else(|| snapshot.endpoints.first());
        let Some(endpoint) = active else { return localbot::no_endpoints(&self.folder()) };
        match self.inference.log(endpoint, LINES).await {
            Ok(log) => localbot::log(&endpoint.name, log.trim_end()),
            Err(fault) => localbot::no_log(&endpoint.name, &fault.to_string()),
        }
    }
}

fn line(standing: &Standing) -> String {
    let waiting = standing.waiting.map(|(count, time)| (count, time.as_secs()));
    localbot::queued(inference::file_name(&standing.model), standing.answering, waiting, standing.loading)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio_util::{sync::CancellationToken, task::TaskTracker};

    use super::*;
    use crate::{
        clock::Clock,
        inference::Inference,
        store::{Durability, Store},
    };

    #[tokio::test]
    async fn only_a_switch_to_a_known_model_is_told_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let models = r#"{"models": {"llama-cpp/q.gguf": {"alias": "q3", "name": "Qwen3"}}}"#;
        fs::write(folder.path().join("localbot-models.json"), models).unwrap();
        let inference = Inference::new(folder.path().to_owned(), TaskTracker::new(), CancellationToken::new()).unwrap();
        let store = Store::open(&folder.path().join("db"), Durability::Normal, Clock::default()).unwrap();
        let local = LocalBot::new(inference, store);
        let switch = |said: &str| local.meanwhile(&LocalCommand::Switch(said.to_owned()));
        assert_eq!(switch("Q3").as_deref(), Some("🔄 Switching to q3..."));
        assert_eq!((switch("other"), local.meanwhile(&LocalCommand::Models)), (None, None));
    }
}
