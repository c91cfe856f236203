//! When to try again, and how long to wait before. Knows no HTTP except the header for that.
//!
//! async-openai's own retry layer is not used: it reads `Retry-After` in whole seconds only, waits however long it is
//! told, loses the status of a 429 whose body is not OpenAI's, and cannot try again after a stream was cut off.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::{error::LlmError, limits::ModelLimits};

/// The pauses of one request.
pub(super) struct Schedule {
    backoff: ExponentialBackoff,
    longest: Duration,
}

impl Schedule {
    pub(super) fn new(limits: &ModelLimits) -> Self {
        let backoff = ExponentialBuilder::default()
            .with_min_delay(limits.backoff)
            .with_max_delay(limits.longest_wait)
            .with_max_times(limits.attempts.saturating_sub(1))
            .with_jitter()
            .build();
        Self { backoff, longest: limits.longest_wait }
    }

    /// Returns how long to wait before trying again; `None` if that does not help.
    pub(super) fn next(&mut self, error: &LlmError) -> Option<Duration> {
        if !error.is_passing() {
            return None;
        }
        let own = self.backoff.next()?;
        match error.told_wait() {
            // Nobody waits so long in a chat, so the request fails.
            Some(told) if told > self.longest => None,
            // Some servers say 0, and one with a wrong clock sends a date in the past.
            Some(told) => Some(told.max(own)),
            None => Some(own),
        }
    }
}

/// Parses `Retry-After` (seconds or a date) and OpenAI's `retry-after-ms`. `now` is in milliseconds since 1970.
pub(super) fn retry_after(headers: &HeaderMap, now: i64) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(millis) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(millis / 1000.0).ok();
    }
    let value = text(RETRY_AFTER.as_str())?;
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(Duration::from_millis(u64::try_from(date.as_millisecond() - now).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::error::ProviderWords;

    fn limited(wait: Option<u64>) -> LlmError {
        LlmError::RateLimited { wait: wait.map(Duration::from_secs), said: ProviderWords::default() }
    }

    #[test]
    fn waits_double_obey_and_end() {
        let mut schedule = Schedule::new(&ModelLimits::default());
        for base in [1, 2, 4, 8] {
            let wait = schedule.next(&LlmError::Cut).expect("a wait");
            // A pause is up to twice as long, so that many rooms do not ask at the same moment.
            assert!((Duration::from_secs(base)..=Duration::from_secs(2 * base)).contains(&wait), "{base}: {wait:?}");
        }
        assert_eq!(schedule.next(&LlmError::Cut), None);

        let mut schedule = Schedule::new(&ModelLimits::default());
        assert_eq!(schedule.next(&limited(Some(7))), Some(Duration::from_secs(7)));
        for base in [2, 4, 8] {
            let wait = schedule.next(&limited(Some(0))).expect("a wait");
            assert!((Duration::from_secs(base)..=Duration::from_secs(2 * base)).contains(&wait), "{base}: {wait:?}");
        }
        let mut schedule = Schedule::new(&ModelLimits::default());
        assert_eq!(schedule.next(&limited(Some(61))), None);
        assert_eq!(schedule.next(&LlmError::KeyRefused(ProviderWords::default())), None);
    }

    #[test]
    fn retry_after_comes_in_seconds_and_as_a_date() {
        let read = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a header value"));
            retry_after(&headers, 1_445_412_480_000 - 90_000)
        };
        assert_eq!(read("retry-after", "12"), Some(Duration::from_secs(12)));
        assert_eq!(read("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::from_secs(90)));
        assert_eq!(read("retry-after", "Wed, 21 Oct 2009 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(read("retry-after", "soon"), None);
        assert_eq!(read("retry-after", "-5"), None);
    }
}
