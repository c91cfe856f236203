//! The only source of wall-clock time. Timers use `tokio::time`, which tests can pause; dates that are stored or
//! shown come from here, so that tests can set them.

mod jumps;
mod lasting;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use jiff::Timestamp;

use jumps::Jumps;
pub(crate) use lasting::Lasting;

/// Milliseconds of a day.
const DAY: i64 = 24 * 60 * 60 * 1000;

/// Returns the day (UTC) of a time in milliseconds since 1970.
pub fn day_of(millis: i64) -> String {
    Timestamp::from_millisecond(millis).unwrap_or_default().strftime("%Y-%m-%d").to_string()
}

/// Returns the minute (UTC) of a time in milliseconds since 1970, as `2026-11-21 09:05`.
pub fn minute_of(millis: i64) -> String {
    Timestamp::from_millisecond(millis).unwrap_or_default().strftime("%Y-%m-%d %H:%M").to_string()
}

/// Tells the time. Cheap to clone.
#[derive(Clone, Default)]
pub struct Clock {
    /// The time that a test has set, in milliseconds since 1970; `None` for the system's clock.
    fixed: Option<Arc<AtomicI64>>,
    /// Whether it was set lately.
    jumps: Arc<Jumps>,
}

impl Clock {
    /// Returns a clock that stands at `millis` until [`Clock::advance`] moves it.
    pub fn fixed_at(millis: i64) -> Self {
        Self { fixed: Some(Arc::new(AtomicI64::new(millis))), jumps: Arc::default() }
    }

    /// Returns milliseconds since 1970.
    pub fn millis(&self) -> i64 {
        match &self.fixed {
            Some(fixed) => fixed.load(Ordering::Relaxed),
            #[expect(clippy::disallowed_methods, reason = "this is the one place that reads it")]
            None => Timestamp::now().as_millisecond(),
        }
    }

    /// Returns today (UTC) as `2026-11-21`, the unit in which usage is counted.
    pub fn day(&self) -> String {
        self.day_before(0)
    }

    /// Returns the day (UTC) so many days ago.
    pub fn day_before(&self, days: u32) -> String {
        day_of(self.millis().saturating_sub(i64::from(days).saturating_mul(DAY)))
    }

    /// Returns how long the day (UTC) goes on.
    pub fn left_of_day(&self) -> Duration {
        Duration::from_millis((DAY - self.millis().rem_euclid(DAY)) as u64)
    }

    /// Returns the minute (UTC) as `2026-11-21 09:05`.
    pub fn minute(&self) -> String {
        minute_of(self.millis())
    }

    /// Returns the time in the type of file dates.
    pub fn file_date(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(self.millis()).unwrap_or(0))
    }

    /// Moves a fixed clock on; does nothing to the system's clock.
    pub fn advance(&self, millis: i64) {
        if let Some(fixed) = &self.fixed {
            fixed.fetch_add(millis, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_utc_and_what_is_left_of_it_is_told() {
        let clock = Clock::fixed_at(0);
        assert_eq!((clock.day().as_str(), clock.left_of_day()), ("1970-01-01", Duration::from_hours(24)));
        clock.advance(DAY - 1);
        assert_eq!((clock.day().as_str(), clock.left_of_day()), ("1970-01-01", Duration::from_millis(1)));
        clock.advance(1);
        assert_eq!((clock.day().as_str(), clock.day_before(1).as_str()), ("1970-01-02", "1970-01-01"));
        let before = Clock::fixed_at(-1);
        assert_eq!((before.day().as_str(), before.left_of_day()), ("1969-12-31", Duration::from_millis(1)));
    }
}
