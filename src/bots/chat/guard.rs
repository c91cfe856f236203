//! Ends loops: two programs that answer each other (bridges, relays, a second instance of a bot) would go on for ever. Pure.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Answers in a room within [`WITHIN`], without a listed person in between, after which the bot falls silent there.
const MOST: usize = 20;
const WITHIN: i64 = 60_000;
/// After so long without a question the bot answers there again, in milliseconds as above.
const QUIET: i64 = 60_000;

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// It is answered.
    Answer,
    /// It is not, and the room is told why.
    Tell,
    /// It is not, and the room knows why.
    Silent,
}

/// What was answered lately in a room. It is stored, so that a restart begins no loop anew. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lately {
    answers: VecDeque<i64>,
    is_silent: bool,
    asked: i64,
}

impl Lately {
    /// Takes a question; `listed` says whether a person asks who is surely no program.
    pub(super) fn pass(&mut self, listed: bool, now: i64) -> Pass {
        if listed {
            *self = Self::default();
            return Pass::Answer;
        }
        if now - self.asked >= QUIET {
            *self = Self::default();
        }
        self.asked = now;
        while self.answers.front().is_some_and(|answer| now - answer >= WITHIN) {
            self.answers.pop_front();
        }
        if self.is_silent {
            return Pass::Silent;
        }
        if self.answers.len() >= MOST {
            self.is_silent = true;
            return Pass::Tell;
        }
        self.answers.push_back(now);
        Pass::Answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_too_often_falls_silent_until_a_person_comes_or_all_is_quiet() {
        let mut here = Lately::default();
        let at = |second: i64| 1_700_000_000_000 + 1_000 * second;
        for second in 0..20 {
            assert_eq!(here.pass(false, at(second)), Pass::Answer, "{second}");
        }
        assert_eq!(here.pass(false, at(20)), Pass::Tell);
        for second in 21..200 {
            let stored = serde_json::to_string(&here).unwrap();
            here = serde_json::from_str(&stored).unwrap();
            assert_eq!(here.pass(false, at(second)), Pass::Silent, "the loop goes on, at {second}");
        }
        assert_eq!(here.pass(true, at(201)), Pass::Answer);
        for second in 202..222 {
            assert_eq!(here.pass(false, at(second)), Pass::Answer, "{second}");
        }
        assert_eq!(here.pass(false, at(222)), Pass::Tell);
        assert_eq!(here.pass(false, at(223)), Pass::Silent);
        assert_eq!(here.pass(false, at(290)), Pass::Answer, "all was quiet");
    }

    #[test]
    fn slow_questions_are_answered_for_ever() {
        let mut here = Lately::default();
        for question in 0..200 {
            assert_eq!(here.pass(false, 3_000 * question), Pass::Answer);
        }
    }
}
