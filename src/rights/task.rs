//! Rooms that are for a task: an issue at GitHub that somebody who may write to its repository has labelled.
//!
//! The label is that person's yes for the task's own branch, its pull request, and comments on its issue; and for nothing else.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use super::{
    act::{Act, Subject},
    repository::Repository,
};
use crate::{ids::Address, store::StoredTask};

/// What a room is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The repository of the issue.
    pub repository: Repository,
    /// The issue's number.
    pub issue: u64,
}

impl Task {
    /// Returns the branch to which its work is pushed.
    pub fn branch(&self) -> String {
        format!("agent/gh-{}", self.issue)
    }

    /// Returns whether an act changes something in its repository.
    pub(super) fn is_about(&self, act: &Act) -> bool {
        act.writes() && act.subject() == Some(Subject::Repository(self.repository.clone()))
    }
}

/// The tasks of all rooms.
#[derive(Debug, Default)]
pub(super) struct Tasks(RwLock<HashMap<Address, Task>>);

impl Tasks {
    /// Takes over what is stored.
    pub(super) fn load(&self, stored: Vec<StoredTask>) {
        for StoredTask { repository, issue, at, .. } in stored {
            if let Some(repository) = Repository::parse(&repository) {
                self.add(at, Task { repository, issue });
            }
        }
    }

    fn add(&self, at: Address, task: Task) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(at, task);
    }
}

impl super::Rights {
    /// Notes what a room is for. Whoever labelled the issue has to be somebody who may write to its repository.
    pub fn add_task(&self, at: &Address, task: Task) {
        self.inner.tasks.add(at.clone(), task);
    }

    /// Returns what a room is for, if it was made for something.
    pub fn task(&self, at: &Address) -> Option<Task> {
        self.inner.tasks.0.read().unwrap_or_else(PoisonError::into_inner).get(at).cloned()
    }
}
