//! The coding agents as a whole: who serves which role, the way to their models, and which room was told who stands in.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    agent::Role,
    roster::{Assigned, Roster},
};
use crate::{
    gateway::models::{Grant, ModelDoor, Pass},
    ids::Address,
    metrics::AGENTS,
};

/// Rooms that are remembered to have been told who stands in.
const ROOMS: usize = 10_000;

/// The coding agents of all rooms. Cheap to clone.
#[derive(Clone)]
pub struct CodingAgents {
    roster: Arc<Roster>,
    door: ModelDoor,
    /// The rooms that were told who stands in for whom.
    told: Arc<Mutex<HashSet<Address>>>,
}

impl CodingAgents {
    /// Puts together who serves which role, and the door through which they reach their models.
    pub fn new(roster: Roster, door: ModelDoor) -> Self {
        for assigned in [Role::Plan, Role::Implement, Role::Review].iter().flat_map(|role| roster.of(*role)) {
            AGENTS.add(&assigned.agent.program);
        }
        Self { roster: Arc::new(roster), door, told: Arc::default() }
    }

    /// Returns who serves a role, in the order in which they are tried.
    pub(crate) fn of(&self, role: Role) -> &[Assigned] {
        self.roster.of(role)
    }

    /// Opens the door to models for one run.
    pub(crate) fn open(&self, grant: Grant) -> Pass {
        self.door.open(grant)
    }

    /// Returns what a room is to be told of who stands in, the first time that somebody does.
    pub(crate) fn instead(&self, address: &Address, assigned: &Assigned) -> Option<String> {
        let other = assigned.instead_of.as_ref()?;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= ROOMS {
            told.clear();
        }
        told.insert(address.clone()).then(|| {
            format!("{} plans and reviews in place of {other}: GEMINI_API_KEY is not set.", assigned.agent.name)
        })
    }
}
