//! The only source of wall-clock time. Timers use `tokio::time`, which tests can pause; dates that are stored or
//! shown come from here, so that tests can set them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use jiff::Timestamp;

/// Tells the time. Cheap to clone.
#[derive(Clone, Default)]
pub struct Clock {
    /// The time that a test has set, in milliseconds since 1970; `None` for the system's clock.
    fixed: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// Returns a clock that stands at `millis` until [`Clock::advance`] moves it.
    pub fn fixed_at(millis: i64) -> Self {
        Self { fixed: Some(Arc::new(AtomicI64::new(millis))) }
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
        Timestamp::from_millisecond(self.millis()).unwrap_or_default().strftime("%Y-%m-%d").to_string()
    }

    /// Returns the minute (UTC) as `2026-11-21 09:05`.
    pub fn minute(&self) -> String {
        Timestamp::from_millisecond(self.millis()).unwrap_or_default().strftime("%Y-%m-%d %H:%M").to_string()
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
