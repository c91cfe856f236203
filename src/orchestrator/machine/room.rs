//! Makes room for the next request: decides when and how often, and what happens if nothing helps. How it is done
//! stands in `compaction`.

use std::sync::Arc;

use super::{Action, Line, Machine, Out, Phase, Progress, Request, limits};
use crate::{
    llm::{Remedy, ToldTokens},
    orchestrator::{
        compaction::{self, Measures, Plan},
        context::tokens,
    },
    strings::turns,
};

/// A conversation of more tokens may be too long, however large the window is said to be.
const SUSPICIOUS: u64 = 32_000;
/// The most tokens that an answer is asked for in where a provider refuses the usual number without naming another.
const SHORT_ANSWER: u64 = 4096;

/// Whether the next request fits.
pub(super) enum ContextRoom {
    Enough,
    BeingMade,
    Gone,
}

impl Machine {
    /// Makes the next request fit, as far as that can be done.
    pub(super) fn make_room(&mut self, out: &mut Out) -> ContextRoom {
        if let Some(lines) = self.context.with_fewer_pictures() {
            self.rebase(lines, out);
        }
        let measures = Measures::new(self.window);
        if self.context.tokens() >= measures.worth_a_look()
            && let Some(lines) = compaction::mask_old(&self.context, measures)
        {
            self.rebase(lines, out);
        }
        if self.context.tokens() < measures.threshold() {
            return ContextRoom::Enough;
        }
        if let Some(lines) = compaction::mask(&self.context, measures) {
            self.rebase(lines, out);
            if self.context.tokens() < measures.threshold() {
                return ContextRoom::Enough;
            }
        }
        if self.wrap.is_some() {
            return ContextRoom::Enough;
        }
        let tired = self.weak >= limits::WEAK_SUMMARIES || self.summaries >= limits::SUMMARIES;
        if let Some(plan) = (!tired).then(|| compaction::plan(&self.context, measures)).flatten() {
            self.summaries += 1;
            self.requests += 1;
            out.push(Action::Show(Progress::Notice(turns::SUMMARISING.to_owned())));
            out.push(Action::Ask(Request {
                number: self.requests,
                messages: Arc::new(plan.request.clone()),
                asked: plan.request.iter().map(tokens).sum(),
                tools: false,
                max_output: None,
            }));
            self.phase = Phase::Summarising { plan, before: self.context.tokens() };
            return ContextRoom::BeingMade;
        }
        // Nothing more can be removed; what may still fit is tried.
        if self.context.tokens() < self.window * 95 / 100 { ContextRoom::Enough } else { ContextRoom::Gone }
    }

    /// Goes on from a summary, or without one.
    pub(super) fn summarised(&mut self, plan: Plan, before: u64, summary: Option<String>, out: &mut Out) {
        let summary = summary.filter(|summary| !summary.trim().is_empty());
        self.rebase(plan.finish(summary.as_deref()), out);
        let after = self.context.tokens();
        let helped = after * 5 < before * 4 && after < Measures::new(self.window).threshold();
        self.weak = if helped { 0 } else { self.weak + 1 };
        self.advance(out);
    }

    fn rebase(&mut self, lines: Vec<Line>, out: &mut Out) {
        out.push(Action::Rebase(lines.clone()));
        self.context.rebase(lines);
    }

    /// Takes in that a request was refused, and asks again where something can be done about it. Returns whether it
    /// did.
    pub(super) fn relieve(&mut self, remedy: Remedy, out: &mut Out) -> bool {
        let wraps = self.wrap.is_some();
        match remedy {
            Remedy::NoPictures | Remedy::Unknown if self.context.has_pictures() => {
                self.rebase(self.context.without_pictures(), out);
            }
            Remedy::Shorter(told) if !wraps && self.overflows < limits::OVERFLOWS => {
                self.overflows += 1;
                self.shrink(told);
            }
            // The request may be too long, in words that are not recognised. If the reason was another, little is lost.
            Remedy::Unknown if !wraps && !self.guessed && self.context.at_most() > self.suspicious() => {
                self.guessed = true;
                self.shrink(ToldTokens::default());
            }
            Remedy::ShorterAnswer(longest) if self.shortened < limits::SHORTENED => {
                self.shortened += 1;
                let half = self.max_output.map_or(SHORT_ANSWER, |most| most / 2);
                self.max_output = Some(longest.map_or(half, |longest| longest.min(self.max_output.unwrap_or(longest))));
            }
            _ => return false,
        }
        self.advance(out);
        true
    }

    /// Takes in that the window is smaller than we were told, or our estimate too low: either way this was too much.
    fn shrink(&mut self, told: ToldTokens) {
        self.context.too_long();
        let tokens = self.context.tokens();
        let limit = match (told.limit, told.asked) {
            // The limit is converted into our own measure, which may be another than the provider's.
            (Some(limit), Some(asked)) if asked > 0 => limit.saturating_mul(tokens) / asked,
            (Some(limit), _) => limit,
            (None, _) => tokens,
        };
        self.window = self.window.min(limit).min(tokens * 9 / 10);
    }

    /// Takes in how large the window is. What a refusal has taught in this turn stays.
    pub(super) fn resize(&mut self, tokens: u64) {
        let taught = self.overflows > 0 || self.guessed;
        self.window = if taught { self.window.min(tokens) } else { tokens };
    }

    /// Returns the tokens above which a conversation may be what a refusal is about.
    fn suspicious(&self) -> u64 {
        (self.window / 3).min(SUSPICIOUS)
    }
}
