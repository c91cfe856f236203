//! How far a run has come, as it is stored with its call: a server that comes back after a crash goes on from there and
//! sees each event once.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Ended, Questions, Run, patience::GivenUp};
use crate::coding_agents::{
    agent::CodingAgent,
    record::Record,
    stream::{Reader, Step, Stream, Tokens},
};

/// How far a run has come, so that a server that comes back follows it from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Up to which byte of its output this is: there a line begins.
    place: u64,
    session: Option<String>,
    doing: String,
    /// What it uses, by the CLI's ids.
    open: Vec<String>,
    tools: u32,
    todo: Vec<Step>,
    used: Tokens,
    reader: Reader,
    noise: VecDeque<String>,
    noisy: u32,
    ended: Option<Ended>,
    record: Record,
    #[serde(default)]
    moved: bool,
    #[serde(default)]
    begun_session: bool,
    #[serde(default)]
    telling: Vec<String>,
    #[serde(default)]
    told: Vec<String>,
    #[serde(default)]
    asked: Option<Questions>,
    /// Why its model refused last, if it refuses.
    #[serde(default)]
    refused: Option<String>,
    #[serde(default)]
    given_up: Option<GivenUp>,
}

impl Standing {
    /// Returns the place in the output from which it goes on.
    pub fn place(&self) -> u64 {
        self.place
    }
}

impl Run {
    /// Returns a run that goes on from where it stood, begun at `begun`.
    pub fn going_on(
        agent: Arc<CodingAgent>,
        silence: Duration,
        begun: Instant,
        now: Instant,
        standing: Standing,
    ) -> Self {
        let Standing { place, session, doing, open, tools, todo, used, reader, noise, noisy, ended, record, .. } =
            standing;
        let Standing { moved, begun_session, telling, told, asked, refused, given_up, .. } = standing;
        Self {
            stream: Stream::going_on(reader),
            begun,
            open: open.into_iter().collect(),
            doing,
            tools,
            todo,
            used,
            noise,
            noisy,
            written: place,
            session,
            ended: ended.map(|ended| Ended { at: now, ..ended }),
            record,
            moved,
            begun_session,
            telling,
            told,
            asked,
            refused: refused.map(|cause| (now, cause)),
            given_up,
            ..Self::new(agent, silence, now)
        }
    }

    /// Returns how far it has come, if `upto` is the place behind what it has taken of the output.
    pub fn standing(&self, upto: u64) -> Standing {
        let mut open: Vec<_> = self.open.iter().cloned().collect();
        open.sort();
        Standing {
            place: upto.saturating_sub(self.stream.pending()),
            session: self.session.clone(),
            doing: self.doing.clone(),
            open,
            tools: self.tools,
            todo: self.todo.clone(),
            used: self.used,
            reader: self.stream.reader().clone(),
            noise: self.noise.clone(),
            noisy: self.noisy,
            ended: self.ended.clone(),
            record: self.record.clone(),
            moved: self.moved,
            begun_session: self.begun_session,
            telling: self.telling.clone(),
            told: self.told.clone(),
            asked: self.asked,
            refused: self.refused.as_ref().map(|(_, cause)| cause.clone()),
            given_up: self.given_up.clone(),
        }
    }
}
