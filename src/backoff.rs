//! Exponential backoff: each pause is twice as long as the one before, up to a longest; after a success the first one
//! is next.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The pauses of something that is tried again without end.
#[derive(Debug)]
pub(crate) struct Backoff {
    builder: ExponentialBuilder,
    pauses: ExponentialBackoff,
    longest: Duration,
}

impl Backoff {
    /// Returns a backoff that begins with `first`; no pause is longer than `longest`.
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        let builder = ExponentialBuilder::default().with_min_delay(first).with_max_delay(longest).without_max_times();
        Self { builder, pauses: builder.build(), longest }
    }

    /// Returns how long to wait before the next try.
    pub(crate) fn next_pause(&mut self) -> Duration {
        // The iterator has no end without a number of tries.
        self.pauses.next().unwrap_or(self.longest)
    }

    /// Notes a success: the next pause is the first one again.
    pub(crate) fn reset(&mut self) {
        self.pauses = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_once_it_worked() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(3));
        let pauses: Vec<_> = (0..6).map(|_| backoff.next_pause().as_millis()).collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 3_000, 3_000, 3_000]);
        backoff.reset();
        assert_eq!(backoff.next_pause().as_millis(), 500);
    }
}
