//! The ends of coding agents' runs, each told once: by a hook of the agent, or else by whoever ran it, since some ends fire no
//! hook. Pure; called by the watcher.

use std::{collections::VecDeque, mem};

use super::event::Event;

/// Ends that are remembered of a room.
const MOST: usize = 64;

/// A run of a coding agent that has ended, as whoever ran it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnded {
    /// The agent, as its hooks call it.
    pub agent: String,
    /// Its session, if it had one.
    pub session: Option<String>,
    /// How it ended, for the room.
    pub event: Event,
}

/// Those of one room.
#[derive(Default)]
pub(super) struct Ends {
    /// Whose end hooks have told: sessions, or agents where a hook names no session; the last ones.
    told: VecDeque<String>,
    /// Runs whose end is to be told unless a hook has done so.
    waiting: Vec<RunEnded>,
}

impl Ends {
    /// Takes the end of a run; `false`: too many wait.
    pub(super) fn add(&mut self, run: RunEnded) -> bool {
        let has_room = self.waiting.len() < MOST;
        if has_room {
            self.waiting.push(run);
        }
        has_room
    }

    /// Takes those out that wait: of them, hooks have written all that they will.
    pub(super) fn take(&mut self) -> Vec<RunEnded> {
        mem::take(&mut self.waiting)
    }

    /// Has them wait again, before others.
    pub(super) fn give_back(&mut self, runs: Vec<RunEnded>) {
        self.waiting.splice(0..0, runs);
    }

    /// Notes whose ends hooks have told.
    pub(super) fn note(&mut self, told: Vec<String>) {
        self.told.extend(told);
        let old = self.told.len().saturating_sub(MOST);
        self.told.drain(..old);
    }

    /// Tells whether a hook has told the end of a run, and forgets that: the session may go on.
    pub(super) fn was_told(&mut self, run: &RunEnded) -> bool {
        let before = self.told.len();
        self.told.retain(|told| *told != run.agent && run.session.as_ref() != Some(told));
        self.told.len() < before
    }
}
