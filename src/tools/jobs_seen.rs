//! What the model has seen of a room's background jobs, so that a look at one shows it what is new.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How much of each job's output the model was shown in this turn. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct JobsSeen(Arc<Mutex<HashMap<String, u64>>>);

impl JobsSeen {
    /// Returns how many bytes of a job's output were shown.
    pub(super) fn of(&self, job: &str) -> u64 {
        self.lock().get(job).copied().unwrap_or_default()
    }

    /// Notes that a job's output was shown up to this byte.
    pub(super) fn note(&self, job: &str, bytes: u64) {
        self.lock().insert(job.to_owned(), bytes);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
