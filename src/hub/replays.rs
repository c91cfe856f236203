//! Counts messages that a homeserver sends again under another event id, and logs the count at most once a minute,
//! since a homeserver may do so in a loop.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The shortest time between two lines in the log.
const PAUSE: Duration = Duration::from_mins(1);

/// The count since the last line.
#[derive(Debug, Default)]
pub(super) struct Replays {
    count: Mutex<Count>,
}

#[derive(Debug, Default)]
struct Count {
    untold: usize,
    told: Option<Instant>,
}

impl Replays {
    /// Adds to the count.
    pub(super) fn count(&self, more: usize) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        count.untold += more;
        if count.untold > 0 && count.told.is_none_or(|told| told.elapsed() >= PAUSE) {
            tracing::warn!(
                count = count.untold,
                "encrypted messages were told again under another id; each was acted on once"
            );
            *count = Count { untold: 0, told: Some(Instant::now()) };
        }
    }
}
