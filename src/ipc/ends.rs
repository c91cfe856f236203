//! Makes sure that each end of a coding agent's run is reported once: by a hook of the agent, or by whoever ran it,
//! since some ends fire no hook. Pure; called by the watcher.

use std::{collections::VecDeque, mem};

use super::event::Event;

/// The most ends that are remembered for a room.
const MOST: usize = 64;

/// A run of a coding agent that has ended, reported by whoever ran it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnded {
    /// The agent's name, as in its hooks.
    pub agent: String,
    /// The id of its session, if it had one.
    pub session: Option<String>,
    /// The event for the room.
    pub event: Event,
}

/// The ends in one room.
#[derive(Default)]
pub(super) struct Ends {
    /// The last ends that hooks have reported: session ids, or agents' names if a hook names no session.
    told: VecDeque<String>,
    /// Ends that are reported unless a hook has done so.
    waiting: Vec<RunEnded>,
}

impl Ends {
    /// Adds the end of a run; returns `false` if too many wait.
    pub(super) fn add(&mut self, run: RunEnded) -> bool {
        let has_room = self.waiting.len() < MOST;
        if has_room {
            self.waiting.push(run);
        }
        has_room
    }

    /// Removes and returns the waiting ends; their hooks have written everything by now.
    pub(super) fn take(&mut self) -> Vec<RunEnded> {
        mem::take(&mut self.waiting)
    }

    /// Puts ends back in front of the others.
    pub(super) fn give_back(&mut self, runs: Vec<RunEnded>) {
        self.waiting.splice(0..0, runs);
    }

    /// Notes ends that hooks have reported.
    pub(super) fn note(&mut self, told: Vec<String>) {
        self.told.extend(told);
        let old = self.told.len().saturating_sub(MOST);
        self.told.drain(..old);
    }

    /// Returns whether a hook has reported the end of a run, and forgets that, since the session may go on.
    pub(super) fn was_told(&mut self, run: &RunEnded) -> bool {
        let before = self.told.len();
        self.told.retain(|told| *told != run.agent && run.session.as_ref() != Some(told));
        self.told.len() < before
    }
}
