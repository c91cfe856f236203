//! How long somebody who is asked now and then has answered nothing.

use std::time::Duration;

use tokio::time::Instant;

/// The questions without an answer up to now.
#[derive(Debug, Default)]
pub(super) struct Silence(Option<Unanswered>);

/// The first question of those in a row that got no answer, and the last.
#[derive(Clone, Copy, Debug)]
struct Unanswered {
    first: Instant,
    last: Instant,
}

impl Silence {
    /// Notes whether the question that has ended `now` was answered, and returns for how long none was. One that comes later than
    /// `apart` after the last begins anew, since nobody knows what was between.
    pub(super) fn note(&mut self, answered: bool, now: Instant, apart: Duration) -> Duration {
        let before = self.0.take().filter(|before| !answered && now.duration_since(before.last) < apart);
        if !answered {
            self.0 = Some(Unanswered { first: before.map_or(now, |before| before.first), last: now });
        }
        before.map_or(Duration::ZERO, |before| now.duration_since(before.first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_from_the_first_question_until_one_is_answered_or_nobody_asks() {
        let (begin, mut silence) = (Instant::now(), Silence::default());
        let mut note = |answered, second| {
            let now = begin + Duration::from_secs(second);
            silence.note(answered, now, Duration::from_secs(20)).as_secs()
        };
        assert_eq!([note(false, 0), note(false, 3), note(false, 22), note(false, 41)], [0, 3, 22, 41]);
        assert_eq!([note(true, 42), note(false, 43), note(false, 45)], [0, 0, 2]);
        // Between these two nobody has asked: they are no silence of an hour, nor of 20 seconds.
        assert_eq!([note(false, 3645), note(false, 3665), note(false, 3667)], [0, 0, 2]);
    }
}
