//! Which guides of repositories the model has seen, so that each is shown once.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A call that took so long may have brought repositories.
const LONG: Duration = Duration::from_millis(500);
/// The words before each guide. The guide's name comes next, by which it is recognised in a stored conversation.
pub(super) const HEAD: &str = "[matrix-agent] Guide ";

/// The guides that the model was shown in this conversation. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct GuidesSeen(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// The names of the guides that were shown.
    shown: HashSet<String>,
    /// Whether guides were looked for in this turn.
    looked: bool,
}

impl GuidesSeen {
    /// Returns what was shown in a conversation with these messages.
    pub fn of<'a>(messages: impl Iterator<Item = &'a str>) -> Self {
        let names = messages.flat_map(|text| text.split(HEAD).skip(1)).filter_map(|rest| rest.split(' ').next());
        let shown = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Self(Arc::new(Mutex::new(Seen { shown, looked: false })))
    }

    /// Returns whether guides are to be looked for after a call that took so long.
    pub(super) fn is_due(&self, took: Duration) -> bool {
        !std::mem::replace(&mut self.lock().looked, true) || took >= LONG
    }

    /// Returns whether a guide of this name was not shown yet, and notes that it is.
    pub(super) fn is_new(&self, name: &str) -> bool {
        self.lock().shown.insert(name.to_owned())
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_looks_once_and_after_what_took_long() {
        let seen = GuidesSeen::default();
        let short = Duration::from_millis(3);
        assert!(seen.is_due(short) && !seen.is_due(short) && seen.is_due(LONG) && !seen.is_due(short));
    }
}
