//! Notices that the wall clock was set, as by the first answer of a time server after a machine's start.
//!
//! A clock that is a year ahead for a minute must not cost anybody a room's files. So what is deleted for its age, or given up
//! for it, asks first whether the clock is believed: it is not for a day after a jump, and after an absence of the server that
//! is so long that the clock may well be wrong. What only lets somebody in for a time ends by [`Lasting`](super::Lasting), at once.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Clock;

/// How far the clock may be from the time that has passed: a time server corrects by less all the time.
const TOLERATED: i64 = 5 * 60 * 1000;
/// How long a server may have been away without any doubt.
const AWAY: i64 = 3 * 24 * 60 * 60 * 1000;
/// How long the clock must go on evenly until it is believed again.
const PROBATION: Duration = Duration::from_hours(24);

/// What is known of the wall clock.
#[derive(Debug, Default)]
pub(super) struct Jumps(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What it showed when it was looked at last.
    last: Option<(i64, Instant)>,
    /// When it was seen to have jumped last.
    jumped: Option<Instant>,
}

impl Jumps {
    /// Compares what the clock shows with the time that has passed; returns whether it is believed.
    fn look(&self, wall: i64, now: Instant) -> bool {
        let mut state = self.state();
        if let Some((shown, at)) = state.last.replace((wall, now)) {
            let passed = i64::try_from(now.duration_since(at).as_millis()).unwrap_or(i64::MAX);
            let ahead = wall.saturating_sub(shown).saturating_sub(passed);
            if ahead.abs() > TOLERATED {
                tracing::warn!(
                    seconds = ahead / 1000,
                    "the system's clock was set; nothing is deleted for its age for a day"
                );
                state.jumped = Some(now);
            }
        }
        state.jumped.is_none_or(|at| now.duration_since(at) >= PROBATION)
    }

    fn doubt(&self, now: Instant) {
        self.state().jumped = Some(now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock {
    /// Tells what the clock showed when a server of this installation looked at it last, before this one began.
    pub(crate) fn goes_on_from(&self, seen: i64) {
        if !(-TOLERATED..AWAY).contains(&self.millis().saturating_sub(seen)) {
            tracing::warn!(
                "the system's clock shows another time than the server expects; nothing is deleted for its age for a day"
            );
            self.jumps.doubt(Instant::now());
        }
    }

    /// Returns whether ages that are told by the clock are believed.
    pub(crate) fn is_believed(&self) -> bool {
        let now = Instant::now();
        match &self.fixed {
            // Time passes for it by `advance` alone.
            Some(_) => self.jumps.state().jumped.is_none_or(|at| now.duration_since(at) >= PROBATION),
            None => self.jumps.look(self.millis(), now),
        }
    }

    /// Sets a fixed clock forward or back, as somebody sets a system's clock; does nothing to that.
    pub fn jump(&self, millis: i64) {
        if self.fixed.is_some() {
            self.advance(millis);
            self.jumps.doubt(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_goes_on_evenly_is_believed_and_one_that_was_set_is_after_a_day() {
        const YEAR: i64 = 365 * 24 * 60 * 60 * 1000;
        let start = 1_796_000_000_000;
        for jump in [YEAR, -YEAR, TOLERATED + 1, -TOLERATED - 1] {
            let jumps = Jumps::default();
            let begun = Instant::now();
            let shown = |jumped: i64| start + jumped + i64::try_from(begun.elapsed().as_millis()).unwrap();
            for _ in 0..100 {
                assert!(jumps.look(shown(0), Instant::now()));
                time::advance(Duration::from_mins(10)).await;
            }
            assert!(jumps.look(shown(TOLERATED), Instant::now()), "a time server corrects it a little");
            assert!(jumps.look(shown(0), Instant::now()));
            assert!(!jumps.look(shown(jump), Instant::now()), "{jump}");
            time::advance(PROBATION / 2).await;
            assert!(!jumps.look(shown(jump), Instant::now()), "{jump}");
            assert!(!jumps.look(shown(0), Instant::now()), "it was set right, which is another jump");
            time::advance(PROBATION / 2).await;
            assert!(!jumps.look(shown(0), Instant::now()));
            time::advance(PROBATION / 2).await;
            assert!(jumps.look(shown(0), Instant::now()));
        }
    }

    #[test]
    fn a_start_long_after_the_last_look_or_before_it_is_doubted() {
        let day = 24 * 60 * 60 * 1000;
        for (gap, believed) in [(0, true), (2 * day, true), (365 * day, false), (-365 * day, false), (-1000, true)] {
            let clock = Clock::fixed_at(1_796_000_000_000);
            clock.goes_on_from(clock.millis() - gap);
            assert_eq!(clock.is_believed(), believed, "{gap}");
        }
    }
}
