//! What a turn's test runs came to, so that a pull request can say what was tested.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::text;

/// How many runs are remembered, and the most characters of each.
const KEPT: usize = 3;
const LONGEST: usize = 160;

/// The last test runs of a turn. A server that comes back knows none of before. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct TestsSeen(Arc<Mutex<Vec<String>>>);

impl TestsSeen {
    /// Notes what a run came to, by the first line of its result: `[PASS] tests passed in /workspace/site`.
    pub(super) fn note(&self, result: &str) {
        let line = text::one_line(result.lines().next().unwrap_or_default(), LONGEST);
        let mut runs = self.lock();
        runs.retain(|known| *known != line);
        runs.push(line);
        let many = runs.len().saturating_sub(KEPT);
        runs.drain(..many);
    }

    /// Returns the last runs, the newest last.
    pub(super) fn all(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_runs_are_known_each_once() {
        let seen = TestsSeen::default();
        for result in ["[FAIL] a\nmore", "[PASS] b", "[PASS] c", "[FAIL] a", "[PASS] d"] {
            seen.note(result);
        }
        assert_eq!(seen.all(), ["[PASS] c", "[FAIL] a", "[PASS] d"]);
    }
}
