//! The line under an answer: `src/login.rs +12 −3 · 7 turns · 5 tools · 84k tokens · $0.42 · 1:12`, and in brief:
//! `5 tools · 1:12`.
//!
//! Pure text from counts; called by the driver when a turn ends.

use std::time::Duration;

use crate::{ledger::Cost, llm::Usage, strings, text};

use super::{
    line::{Edit, ModelUse},
    proof::Proof,
};

/// Files named in full; further ones are counted.
const FILES: usize = 3;

/// What a turn used and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Requests to the model that it answered.
    pub rounds: u32,
    /// Calls that ran.
    pub calls: u32,
    /// Tokens of the orchestrator's own model.
    pub spent: Usage,
    /// Tokens of coding agents, by model.
    pub agents: Vec<ModelUse>,
    /// Files changed, each once, lines summed.
    pub edits: Vec<Edit>,
    /// How far test runs back the result.
    pub proof: Proof,
}

impl Tally {
    /// Returns all tokens, in and out.
    pub(crate) fn tokens(&self) -> u64 {
        let all = self.agents.iter().map(|used| used.usage).chain([self.spent]);
        all.map(|usage| usage.input.saturating_add(usage.output)).fold(0, u64::saturating_add)
    }

    /// Counts what a coding agent has used of a model.
    pub(super) fn used(&mut self, used: &ModelUse) {
        match self.agents.iter_mut().find(|known| known.model == used.model) {
            Some(known) => known.usage += used.usage,
            None => self.agents.push(used.clone()),
        }
    }

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

/// Returns the line under the answer. `cost` is what the tokens cost, as far as their prices are known.
pub(crate) fn footer(tally: &Tally, cost: Cost, elapsed: Duration) -> String {
    let mut parts: Vec<String> =
        tally.edits.iter().take(FILES).map(|edit| format!("{} +{} −{}", edit.path, edit.added, edit.removed)).collect();
    if tally.edits.len() > FILES {
        parts.push(strings::counted((tally.edits.len() - FILES) as u64, "more file"));
    }
    match tally.proof {
        Proof::None | Proof::Green => {}
        Proof::Unverified | Proof::Stale => parts.push("tests: not run since the last edit".to_owned()),
        Proof::Red => parts.push("tests: red".to_owned()),
    }
    parts.push(strings::counted(tally.rounds.into(), "turn"));
    if tally.calls > 0 {
        parts.push(strings::counted(tally.calls.into(), "tool"));
    }
    parts.push(format!("{} tokens", text::short(tally.tokens())));
    parts.extend(cost.is_known().then(|| cost.to_string()));
    parts.push(text::stopwatch(elapsed));
    parts.join(" · ")
}

/// Returns the line in a few words, for where there is little room.
pub(crate) fn brief(tally: &Tally, elapsed: Duration) -> String {
    let time = text::stopwatch(elapsed);
    if tally.calls > 0 { format!("{} · {time}", strings::counted(tally.calls.into(), "tool")) } else { time }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{PerMillion, Price},
        ledger::{Prices, Tokens},
    };

    fn used(input: u64) -> Usage {
        Usage { input, cached: 0, output: 10 }
    }

    #[test]
    fn a_footer_names_files_counts_and_time() {
        let mut tally = Tally { rounds: 7, calls: 5, spent: used(54_200), proof: Proof::Green, ..Tally::default() };
        for tokens in [10_000, 19_980] {
            tally.used(&ModelUse { model: "qwen".into(), usage: used(tokens) });
        }
        tally.edited(&Edit { path: "src/login.rs".into(), added: 10, removed: 3 });
        tally.edited(&Edit { path: "src/login.rs".into(), added: 2, removed: 0 });
        assert_eq!(
            footer(&tally, Cost::default(), Duration::from_secs(72)),
            "src/login.rs +12 −3 · 7 turns · 5 tools · 84k tokens · 1:12"
        );
    }

    #[test]
    fn a_footer_shows_money_where_prices_are_set() {
        let price = PerMillion::try_from(10.0).unwrap();
        let prices = Prices::new([("own".to_owned(), Price { input: price, cached: None, output: price })]);
        let tally = Tally { rounds: 1, spent: used(99_990), ..Tally::default() };
        let [own, other] = ["own", "other"].map(|model| {
            prices.cost(model, Tokens { input: tally.spent.input, cached: 0, output: tally.spent.output })
        });
        let told = |cost| footer(&tally, cost, Duration::from_secs(7));
        assert_eq!(told(own), "1 turn · 100k tokens · $1.00 · 0:07");
        assert_eq!(told(other), "1 turn · 100k tokens · 0:07");
        assert_eq!(told([own, other].into_iter().sum()), "1 turn · 100k tokens · over $1.00 · 0:07");
    }

    #[test]
    fn a_footer_says_what_no_test_run_shows() {
        let tally = Tally { rounds: 1, spent: used(989), proof: Proof::Stale, ..Tally::default() };
        assert_eq!(
            footer(&tally, Cost::default(), Duration::from_secs(7)),
            "tests: not run since the last edit · 1 turn · 999 tokens · 0:07"
        );
        let tally = Tally { rounds: 1, spent: used(1_234_557), proof: Proof::Red, ..Tally::default() };
        assert_eq!(
            footer(&tally, Cost::default(), Duration::from_secs(3723)),
            "tests: red · 1 turn · 1.2M tokens · 1:02:03"
        );
    }

    #[test]
    fn in_brief_it_is_tools_and_time() {
        let tally = Tally { rounds: 9, calls: 7, spent: used(84_200), ..Tally::default() };
        assert_eq!(brief(&tally, Duration::from_secs(72)), "7 tools · 1:12");
        assert_eq!(brief(&Tally::default(), Duration::from_secs(3)), "0:03");
    }
}
