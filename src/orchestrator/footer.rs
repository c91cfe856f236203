//! The line under an answer: `src/login.rs +12 −3 · 7 turns · 5 tools · 84k tokens · 1:12`, and in brief: `5 tools · 1:12`.
//!
//! Pure text from counts; called by the driver when a turn ends.

use std::time::Duration;

use crate::text;

use super::{line::Edit, proof::Proof};

/// Files named in full; further ones are counted.
const FILES: usize = 3;

/// What a turn used and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests to the model that it answered.
    pub rounds: u32,
    /// Calls that ran.
    pub calls: u32,
    /// Tokens, in and out.
    pub tokens: u64,
    /// Files changed, each once, lines summed.
    pub edits: Vec<Edit>,
    /// How far test runs back the result.
    pub proof: Proof,
}

impl Tally {
    /// Counts a file's change.
    pub(super) fn edited(&mut self, edit: &Edit) {
        if let Some(known) = self.edits.iter_mut().find(|known| known.path == edit.path) {
            known.added += edit.added;
            known.removed += edit.removed;
        } else {
            self.edits.push(edit.clone());
        }
    }
}

/// Returns the line under the answer.
pub fn footer(tally: &Tally, elapsed: Duration) -> String {
    let mut parts: Vec<String> =
        tally.edits.iter().take(FILES).map(|edit| format!("{} +{} −{}", edit.path, edit.added, edit.removed)).collect();
    if tally.edits.len() > FILES {
        parts.push(counted(tally.edits.len() - FILES, "more file"));
    }
    match tally.proof {
        Proof::None | Proof::Green => {}
        Proof::Unverified | Proof::Stale => parts.push("tests: not run since the last edit".to_owned()),
        Proof::Red => parts.push("tests: red".to_owned()),
    }
    parts.push(counted(tally.rounds as usize, "turn"));
    if tally.calls > 0 {
        parts.push(counted(tally.calls as usize, "tool"));
    }
    parts.push(format!("{} tokens", text::short(tally.tokens)));
    parts.push(text::stopwatch(elapsed));
    parts.join(" · ")
}

/// Returns the same in a few words, for where little room is.
pub fn brief(tally: &Tally, elapsed: Duration) -> String {
    let time = text::stopwatch(elapsed);
    if tally.calls > 0 { format!("{} · {time}", counted(tally.calls as usize, "tool")) } else { time }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_names_files_counts_and_time() {
        let mut tally = Tally { rounds: 7, calls: 5, tokens: 84_210, proof: Proof::Green, ..Tally::default() };
        tally.edited(&Edit { path: "src/login.rs".into(), added: 10, removed: 3 });
        tally.edited(&Edit { path: "src/login.rs".into(), added: 2, removed: 0 });
        assert_eq!(
            footer(&tally, Duration::from_secs(72)),
            "src/login.rs +12 −3 · 7 turns · 5 tools · 84k tokens · 1:12"
        );
    }

    #[test]
    fn a_footer_says_what_no_test_run_shows() {
        let tally = Tally { rounds: 1, tokens: 999, proof: Proof::Stale, ..Tally::default() };
        assert_eq!(
            footer(&tally, Duration::from_secs(7)),
            "tests: not run since the last edit · 1 turn · 999 tokens · 0:07"
        );
        let tally = Tally { rounds: 1, tokens: 1_234_567, proof: Proof::Red, ..Tally::default() };
        assert_eq!(footer(&tally, Duration::from_secs(3723)), "tests: red · 1 turn · 1.2M tokens · 1:02:03");
    }

    #[test]
    fn in_brief_it_is_tools_and_time() {
        let tally = Tally { rounds: 9, calls: 7, tokens: 84_210, ..Tally::default() };
        assert_eq!(brief(&tally, Duration::from_secs(72)), "7 tools · 1:12");
        assert_eq!(brief(&Tally::default(), Duration::from_secs(3)), "0:03");
    }
}
