//! The time by which grants, questions, passes and ceilings end: it never goes back.
//!
//! The wall clock may be set back, before a start too, and the monotonic clock stands still while the machine sleeps. So the
//! time is the latest that either has shown, and the store keeps the latest that was seen. A clock that was set forward ends
//! things early; then somebody is asked again.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::Clock;

/// Tells the time, in milliseconds since 1970. Cheap to clone; all clones tell the same.
#[derive(Clone, Debug)]
pub(crate) struct Lasting {
    clock: Clock,
    /// The latest time, and when it was that.
    latest: Arc<Mutex<(i64, Instant)>>,
}

impl Lasting {
    pub(crate) fn new(clock: Clock) -> Self {
        let latest = Arc::new(Mutex::new((clock.millis(), Instant::now())));
        Self { clock, latest }
    }

    /// Notes that it was this late before.
    pub(crate) fn not_before(&self, time: i64) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if time > latest.0 {
            *latest = (time, Instant::now());
        }
    }

    /// Returns the time.
    pub(crate) fn now(&self) -> i64 {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, at) = *latest;
        let here = Instant::now();
        let passed = here.duration_since(at).as_millis();
        let steady = before.saturating_add(i64::try_from(passed).unwrap_or(i64::MAX));
        let wall = self.clock.millis();
        if wall >= steady {
            *latest = (wall, here);
        }
        wall.max(steady)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_whatever_is_done_to_the_clock() {
        let clock = Clock::fixed_at(100_000);
        let lasting = Lasting::new(clock.clone());
        assert_eq!(lasting.now(), 100_000);
        clock.advance(-60_000);
        assert_eq!(lasting.now(), 100_000, "a clock that is set back lengthens nothing");
        time::advance(Duration::from_secs(10)).await;
        assert_eq!(lasting.now(), 110_000, "and what is left runs off all the same");
        clock.advance(1_000_000);
        assert_eq!(lasting.now(), 1_040_000, "the machine slept");
        time::advance(Duration::from_secs(1)).await;
        assert_eq!(lasting.now(), 1_041_000);
        let after = Lasting::new(Clock::fixed_at(5));
        after.not_before(1_041_000);
        assert_eq!(after.now(), 1_041_000, "nor does a restart");
    }
}
