//! Recognises a model that goes in circles: the same calls with the same results, alone or in a cycle, or one message
//! that repeats itself.
//!
//! Results count as much as calls: polling whose answer changes is no loop. In failed results digits do not count, for
//! a time or a process id changes while the error stays; but where a command sleeps before it looks, they may be the
//! progress that it waits for. A message of which a call only waited for something that runs on is no step, and what is
//! repeated after it is a new try. Called by the turn's ledger after each batch, and by the machine as text streams.

use std::{
    collections::{VecDeque, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

/// The longest cycle that is recognised.
const CYCLE: usize = 5;
/// Repetitions after which the model is told.
const NUDGE: usize = 3;
/// Repetitions after which the turn wraps up.
const STOP: usize = 5;

/// What the last steps ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: the model gets on.
    Fine,
    /// The model is told that it repeats itself.
    Nudge,
    /// The turn wraps up.
    Stop,
}

/// Remembers the last steps as hashes.
#[derive(Clone, Debug, Default)]
pub(super) struct Stuck {
    steps: VecDeque<u64>,
}

/// Builds a step's hash, call by call.
#[derive(Default)]
pub(super) struct Step(DefaultHasher);

impl Step {
    /// Adds a call and its result.
    pub(super) fn add(&mut self, name: &str, arguments: &str, ok: bool, result: &str) {
        (name, arguments, ok).hash(&mut self.0);
        if ok || arguments.contains("sleep ") {
            result.hash(&mut self.0);
        } else {
            for part in result.split(|c: char| c.is_ascii_digit()).filter(|part| !part.is_empty()) {
                part.hash(&mut self.0);
            }
        }
    }
}

impl Stuck {
    /// Takes in a step and says where it leads.
    pub(super) fn step(&mut self, step: &Step) -> Verdict {
        if self.steps.len() == CYCLE * STOP {
            self.steps.pop_front();
        }
        self.steps.push_back(step.0.finish());
        let mut verdict = Verdict::Fine;
        for period in 1..=CYCLE {
            let repeated = self.repeated(period);
            if repeated >= (STOP - 1) * period {
                return Verdict::Stop;
            }
            // This is said once, as the third round closes.
            if repeated == (NUDGE - 1) * period {
                verdict = Verdict::Nudge;
            }
        }
        verdict
    }

    /// Takes in that time has passed: what is done again from here on is a new try.
    pub(super) fn waited(&mut self) {
        self.steps.clear();
    }

    /// Returns how many steps at the end equal the one `period` before them.
    fn repeated(&self, period: usize) -> usize {
        self.steps.iter().rev().zip(self.steps.iter().rev().skip(period)).take_while(|(new, old)| new == old).count()
    }
}

/// The bytes at the end of a message that are checked, and the longest unit, in bytes, that must not fill them by
/// repetition.
const STRETCH: usize = 2048;
const UNIT: usize = 64;

/// Watches one streaming message for a text without end.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    bytes: usize,
    unchecked: usize,
    tail: Vec<u8>,
}

impl Stream {
    /// Takes in a piece. Returns whether the message must be broken off: it has more than `most` bytes, or repeats
    /// itself.
    pub(super) fn runs_away(&mut self, piece: &str, most: usize) -> bool {
        self.bytes += piece.len();
        self.unchecked += piece.len();
        let piece = piece.as_bytes();
        self.tail.extend_from_slice(&piece[piece.len().saturating_sub(STRETCH)..]);
        if self.unchecked < STRETCH {
            return self.bytes > most;
        }
        self.unchecked = 0;
        self.tail.drain(..self.tail.len().saturating_sub(STRETCH));
        self.bytes > most
            || self.tail.len() == STRETCH && (1..=UNIT).any(|unit| self.tail[unit..] == self.tail[..STRETCH - unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays steps, one a letter (capitals: the call failed; the result is the letter), and tells the verdicts.
    fn play(steps: &str) -> String {
        let mut stuck = Stuck::default();
        let verdicts = steps.chars().map(|letter| {
            let mut step = Step::default();
            step.add(&letter.to_lowercase().to_string(), "{}", letter.is_lowercase(), &letter.to_string());
            match stuck.step(&step) {
                Verdict::Fine => '.',
                Verdict::Nudge => 'n',
                Verdict::Stop => 'S',
            }
        });
        verdicts.collect()
    }

    #[test]
    fn circles_are_nudged_at_three_and_stopped_at_five() {
        let table = [
            ("aaaaa", "..n.S"),
            ("abcdefgh", "........"),
            ("AAAAA", "..n.S"),
            ("ababababab", ".....n...S"),
            ("xabcabcabcabcabc", ".........n.....S"),
            ("aabaabaabaabaab", "........n.....S"),
            ("aabaacaadaae", "............"),
        ];
        for (steps, verdicts) in table {
            assert_eq!(play(steps), verdicts, "{steps}");
        }
    }

    #[test]
    fn polling_is_no_loop_but_an_error_with_a_clock_is() {
        let run = |command: &str, ok: bool| {
            let mut stuck = Stuck::default();
            let verdicts = (0..5).map(|n| {
                let mut step = Step::default();
                step.add("run_command", command, ok, &format!("ended after {n}.{n} s"));
                stuck.step(&step)
            });
            verdicts.last()
        };
        assert_eq!(run(r#"{"command":"ci"}"#, true), Some(Verdict::Fine));
        assert_eq!(run(r#"{"command":"ci"}"#, false), Some(Verdict::Stop));
        assert_eq!(run(r#"{"command":"sleep 5; cat log; test -e done"}"#, false), Some(Verdict::Fine));
    }

    #[test]
    fn a_message_that_repeats_itself_is_broken_off() {
        let fed = |piece: &str, times: usize| {
            let mut stream = Stream::default();
            (0..times).any(|_| stream.runs_away(piece, 1 << 20))
        };
        assert!(fed("a", 5000));
        assert!(fed("I will now run the tests. ", 200));
        assert!(fed(&"ü".repeat(100_000), 1), "one huge piece");
        assert!(!fed("----------", 100), "a ruler");
        let mut stream = Stream::default();
        assert!(
            !(0..2000).any(|n| stream.runs_away(
                &format!(
                    "line {n}
"
                ),
                1 << 20
            )),
            "a long list"
        );
        assert!(stream.runs_away("x", 1000), "too long for a message");
    }
}
