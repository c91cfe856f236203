//! What the model has seen of repositories' guides, so that each is shown once.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A call that took so long may have brought repositories.
const LONG: Duration = Duration::from_millis(500);
/// What stands before each guide; the name by which it is known again comes next.
pub(super) const HEAD: &str = "[matrix-agent] Guide ";

/// What of it the model was shown in this conversation. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct GuidesSeen(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// The texts' names.
    shown: HashSet<String>,
    /// Whether this turn has looked.
    looked: bool,
}

impl GuidesSeen {
    /// Returns what was shown in a conversation with these messages.
    pub fn of<'a>(messages: impl Iterator<Item = &'a str>) -> Self {
        let names = messages.flat_map(|text| text.split(HEAD).skip(1)).filter_map(|rest| rest.split(' ').next());
        let shown = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Self(Arc::new(Mutex::new(Seen { shown, looked: false })))
    }

    /// Tells whether to look after a call that took so long.
    pub(super) fn is_due(&self, took: Duration) -> bool {
        !std::mem::replace(&mut self.lock().looked, true) || took >= LONG
    }

    /// Tells whether a text of this name was not shown yet, and notes that it is.
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
