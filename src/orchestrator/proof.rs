//! Whether test runs back a claim of "done": the last edit against the last test run.
//!
//! Two mechanisms, neither of which trusts the model: the footer always tells the state, and an answer that claims
//! success against it is sent back once. Recognising a claim is guesswork over words (English and German); a missed
//! one costs nothing but the nudge, since the footer speaks either way.

use serde::{Deserialize, Serialize};

use super::line::CallFacts;

/// How far the turn's test runs back its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Proof {
    /// Nothing was edited, no test was run.
    #[default]
    None,
    /// The last test run was green and came after the last edit.
    Green,
    /// The last test run was red.
    Red,
    /// Files were edited after the last test run.
    Stale,
    /// Files were edited and no test was run in this turn.
    Unverified,
}

/// Follows the edits and test runs of a turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    proof: Proof,
    /// Whether something other than prose was edited and nothing at all was run since.
    untried_code: bool,
}

impl Evidence {
    /// Takes in a call that ended. `reads` tells that it only looked.
    pub(super) fn note_call(&mut self, facts: &CallFacts, ok: bool, reads: bool) {
        if !facts.edits.is_empty() {
            self.proof = match self.proof {
                Proof::None | Proof::Unverified => Proof::Unverified,
                // A red run stays the truth until a run says otherwise.
                Proof::Red => Proof::Red,
                Proof::Green | Proof::Stale => Proof::Stale,
            };
            self.untried_code |= facts.edits.iter().any(|edit| !is_prose(&edit.path));
        } else if ok && !reads {
            self.untried_code = false;
        }
        if let Some(green) = facts.tests {
            self.proof = if green { Proof::Green } else { Proof::Red };
            self.untried_code = false;
        }
    }

    /// Returns the state for the footer.
    pub(super) fn proof(&self) -> Proof {
        self.proof
    }

    /// Returns whether `answer` claims what nothing shows. A command that ran after the edit counts as a try where the
    /// turn has seen no test: not every project has some.
    pub(super) fn contradicts(&self, answer: &str) -> bool {
        let unbacked = match self.proof {
            Proof::None | Proof::Green => false,
            Proof::Red | Proof::Stale => true,
            Proof::Unverified => self.untried_code,
        };
        unbacked && claims_success(answer) && !admits(answer)
    }
}

fn is_prose(path: &str) -> bool {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    ["md", "txt", "rst", "adoc", "csv", "log"].iter().any(|prose| prose.eq_ignore_ascii_case(extension))
}

fn claims_success(answer: &str) -> bool {
    const WORDS: &[&str] = &[
        "done",
        "fixed",
        "works",
        "working",
        "pass",
        "passes",
        "passed",
        "passing",
        "complete",
        "completed",
        "finished",
        "implemented",
        "resolved",
        "solved",
        "ready",
        "success",
        "successful",
        "successfully",
        "green",
        "fertig",
        "erledigt",
        "behoben",
        "funktioniert",
        "läuft",
        "grün",
        "bestanden",
        "umgesetzt",
        "gelöst",
    ];
    answer.contains(['✅', '✓', '✔'])
        || answer.split(|c: char| !c.is_alphanumeric()).any(|word| WORDS.contains(&word.to_lowercase().as_str()))
}

fn admits(answer: &str) -> bool {
    const PHRASES: &[&str] = &[
        "not run",
        "not tested",
        "untested",
        "not been run",
        "not been tested",
        "n't run",
        "n't tested",
        "no tests",
        "not verified",
        "unverified",
        "still fail",
        "still red",
        "tests fail",
        "test fails",
        "not pass",
        "n't pass",
        "nicht getestet",
        "ungetestet",
        "nicht ausgeführt",
        "keine tests",
        "noch rot",
        "schlägt fehl",
        "schlagen fehl",
    ];
    let answer = answer.to_lowercase().replace('’', "'");
    PHRASES.iter().any(|phrase| answer.contains(phrase))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orchestrator::line::Edit;

    fn edit(path: &str) -> CallFacts {
        CallFacts { edits: vec![Edit { path: path.into(), added: 1, removed: 0 }], ..CallFacts::default() }
    }

    fn test(green: bool) -> CallFacts {
        CallFacts { tests: Some(green), ..CallFacts::default() }
    }

    fn command() -> CallFacts {
        CallFacts::default()
    }

    #[test]
    fn the_last_test_run_is_weighed_against_the_last_edit() {
        let code = || edit("src/login.rs");
        let table: &[(&str, Vec<CallFacts>, Proof, bool)] = &[
            ("nothing", vec![], Proof::None, false),
            ("only commands", vec![command()], Proof::None, false),
            ("code, nothing run", vec![code()], Proof::Unverified, true),
            ("code, then tried", vec![code(), command()], Proof::Unverified, false),
            ("code, tried, code again", vec![code(), command(), code()], Proof::Unverified, true),
            ("prose", vec![edit("README.md")], Proof::Unverified, false),
            ("code, green", vec![code(), test(true)], Proof::Green, false),
            ("code, red", vec![code(), test(false)], Proof::Red, true),
            ("green, code", vec![test(true), code()], Proof::Stale, true),
            ("green, code, tried", vec![test(true), code(), command()], Proof::Stale, true),
            ("red, code", vec![test(false), code()], Proof::Red, true),
            ("red, code, green", vec![test(false), code(), test(true)], Proof::Green, false),
        ];
        for (name, calls, proof, contradicts) in table {
            let mut evidence = Evidence::default();
            for facts in calls {
                evidence.note_call(facts, true, false);
            }
            assert_eq!(evidence.proof(), *proof, "{name}");
            assert_eq!(evidence.contradicts("Fixed."), *contradicts, "{name}");
        }
    }

    #[test]
    fn reading_and_failed_commands_are_no_try() {
        let mut evidence = Evidence::default();
        evidence.note_call(&edit("a.py"), true, false);
        evidence.note_call(&command(), true, true);
        evidence.note_call(&command(), false, false);
        assert!(evidence.contradicts("It works."));
    }

    #[test]
    fn a_claim_is_told_from_an_honest_word() {
        let mut evidence = Evidence::default();
        evidence.note_call(&test(false), true, false);
        for claim in ["All tests pass now.", "✅ Login", "Ist behoben.", "I fixed the failing test."] {
            assert!(evidence.contradicts(claim), "{claim}");
        }
        for honest in
            ["Two tests still fail; the rest is done.", "Fixed, but I didn’t run the tests.", "I am at a loss."]
        {
            assert!(!evidence.contradicts(honest), "{honest}");
        }
    }
}
