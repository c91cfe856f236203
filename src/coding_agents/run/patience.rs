//! When a run is ended before its end: it is silent, its model refuses, it writes without end, it has no tokens left, or it
//! has told its result and stays.

use std::{mem, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Run, WORD_WAITS};
use crate::coding_agents::agent::End;

/// How much longer an agent may be silent while one of its tools works: builds and tests say nothing for a while.
const PATIENCE: u32 = 3;
/// How long an agent may go on asking a model that refuses each time.
pub(super) const REFUSED: Duration = Duration::from_mins(1);
/// How long a run has to exit once it has told its result, where it may stay.
pub(super) const GRACE: Duration = Duration::from_secs(3);
/// The bytes that a run may write: more is a loop, and no work.
pub(super) const FLOOD: u64 = 64 * 1024 * 1024;
/// Likewise the lines beside its events.
pub(super) const FLOOD_LINES: u32 = 50_000;

/// Why a run is ended before its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum GivenUp {
    /// It had told its result, and stayed.
    Over,
    /// Nothing was heard of it for so long.
    Silent(Duration),
    /// Its model refused each time, for this reason.
    Refused(String),
    /// It wrote without end.
    Flood,
    /// The day's tokens were used up.
    NoTokens,
    /// Its time was up.
    Late,
}

impl Run {
    /// Returns when [`Run::give_up`] or [`Run::hears`] has something to say, if nothing happens until then.
    pub fn deadline(&self) -> Option<Instant> {
        let word = self.word.filter(|_| self.works()).map(|since| since + WORD_WAITS);
        self.last_sign().into_iter().chain(word).min()
    }

    /// Returns when [`Run::give_up`] has something to say; `None` if it has said it, or never will.
    fn last_sign(&self) -> Option<Instant> {
        let silent = self.alive + self.patience();
        let deadline =
            self.refused.as_ref().map_or(silent, |(since, _)| silent.min(*since + REFUSED.min(self.silence)));
        let deadline = self.over().map_or(deadline, |over| deadline.min(over));
        let deadline = self.limit.map_or(deadline, |limit| deadline.min(limit));
        let deadline = if self.wire.over { self.begun } else { deadline };
        (self.given_up.is_none() && !self.rests()).then_some(deadline)
    }

    /// Returns when it has to be ended that has told its result, if it is one that may stay; one that stays to be told more is
    /// ended at once, if it is not left.
    fn over(&self) -> Option<Instant> {
        let ended = self.ended.as_ref()?;
        match self.asked {
            Some(_) => Some(ended.at),
            None => (self.agent.end == End::Result).then_some(ended.at + GRACE),
        }
    }

    fn patience(&self) -> Duration {
        if self.open.is_empty() { self.silence } else { self.silence * PATIENCE }
    }

    /// Tells whether the run has to be ended, because it has been silent or refused for too long, writes without end, has
    /// no tokens left, or has told its end. Says so once, and once more where the server was lost since.
    pub fn give_up(&mut self, now: Instant) -> bool {
        if self.given_up.is_some() {
            return !mem::replace(&mut self.is_ending, true);
        }
        let Some(deadline) = self.last_sign() else { return false };
        self.given_up = if self.written > FLOOD || self.noisy > FLOOD_LINES {
            Some(GivenUp::Flood)
        } else if now < deadline {
            None
        } else if self.wire.over {
            Some(GivenUp::NoTokens)
        } else if self.over().is_some_and(|over| now >= over) {
            Some(GivenUp::Over)
        } else if self.limit.is_some_and(|limit| now >= limit) {
            Some(GivenUp::Late)
        } else if let Some((_, cause)) = &self.refused {
            Some(GivenUp::Refused(cause.clone()))
        } else {
            Some(GivenUp::Silent(self.patience()))
        };
        self.is_ending = self.given_up.is_some();
        self.is_ending
    }
}
