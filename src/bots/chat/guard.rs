//! Ends loops: two programs that answer each other (bridges, relays, a second instance of a bot) would go on for ever. Pure, but
//! for the memory of it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::ids::Address;

/// Answers in a room within [`WITHIN`], without a listed person in between, after which the bot falls silent there.
const MOST: usize = 20;
const WITHIN: Duration = Duration::from_mins(1);
/// After so long without a question the bot answers there again.
const QUIET: Duration = Duration::from_mins(1);
/// Rooms that are remembered.
const ROOMS: usize = 512;

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

/// What was answered lately, room by room.
#[derive(Debug, Default)]
pub(super) struct Guard {
    rooms: Mutex<HashMap<Address, Lately>>,
}

#[derive(Debug)]
struct Lately {
    answers: VecDeque<Instant>,
    is_silent: bool,
    asked: Instant,
}

impl Guard {
    /// Takes a question; `listed` says whether a person asks who is surely no program.
    pub(super) fn pass(&self, at: &Address, listed: bool, now: Instant) -> Pass {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if rooms.len() >= ROOMS && !rooms.contains_key(at) {
            rooms.retain(|_, lately| now.duration_since(lately.asked) < QUIET);
        }
        if rooms.len() >= ROOMS && !rooms.contains_key(at) {
            return Pass::Answer;
        }
        let new = || Lately { answers: VecDeque::new(), is_silent: false, asked: now };
        let lately = rooms.entry(at.clone()).or_insert_with(new);
        if listed || now.duration_since(lately.asked) >= QUIET {
            *lately = new();
        }
        lately.asked = now;
        while lately.answers.front().is_some_and(|answer| now.duration_since(*answer) >= WITHIN) {
            lately.answers.pop_front();
        }
        if lately.is_silent {
            return Pass::Silent;
        }
        if lately.answers.len() >= MOST {
            lately.is_silent = true;
            return Pass::Tell;
        }
        lately.answers.push_back(now);
        Pass::Answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_too_often_falls_silent_until_a_person_comes_or_all_is_quiet() {
        let (guard, here, there) = (Guard::default(), Address::of_first("!a:a.org"), Address::of_first("!b:a.org"));
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        for second in 0..20 {
            assert_eq!(guard.pass(&here, false, at(second)), Pass::Answer, "{second}");
        }
        assert_eq!(guard.pass(&here, false, at(20)), Pass::Tell);
        for second in 21..200 {
            assert_eq!(guard.pass(&here, false, at(second)), Pass::Silent, "the loop goes on, at {second}");
        }
        assert_eq!(guard.pass(&there, false, at(200)), Pass::Answer, "another room has nothing to do with it");
        assert_eq!(guard.pass(&here, true, at(201)), Pass::Answer);
        assert_eq!(guard.pass(&here, false, at(202)), Pass::Answer);
        for second in 203..222 {
            guard.pass(&here, false, at(second));
        }
        assert_eq!(guard.pass(&here, false, at(222)), Pass::Silent);
        assert_eq!(guard.pass(&here, false, at(290)), Pass::Answer, "all was quiet");
    }

    #[test]
    fn slow_questions_are_answered_for_ever() {
        let (guard, here) = (Guard::default(), Address::of_first("!a:a.org"));
        let start = Instant::now();
        for question in 0..200 {
            assert_eq!(guard.pass(&here, false, start + Duration::from_secs(3 * question)), Pass::Answer);
        }
    }
}
