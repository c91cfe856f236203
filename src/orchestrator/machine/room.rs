//! Making room for the next request: when, how often, and what if nothing helps. How it is done stands in
//! `compaction`.

use std::sync::Arc;

use super::{Action, Limit, Line, Machine, Out, Phase, Request, Show, limits, words};
use crate::orchestrator::compaction::{self, Measures, Plan};

/// Whether the next request fits.
pub(super) enum Room {
    Enough,
    BeingMade,
    Gone,
}

impl Machine {
    /// Sees to it that the next request fits.
    pub(super) fn make_room(&mut self, out: &mut Out) -> Room {
        let measures = Measures::new(self.window);
        if self.context.tokens() < measures.threshold() {
            return Room::Enough;
        }
        if let Some(lines) = compaction::mask(&self.context, measures) {
            self.rebase(lines, out);
            if self.context.tokens() < measures.threshold() {
                return Room::Enough;
            }
        }
        if self.wrap.is_some() {
            return Room::Enough;
        }
        let tired = self.weak >= limits::WEAK_SUMMARIES || self.summaries >= limits::SUMMARIES;
        if let Some(plan) = (!tired).then(|| compaction::plan(&self.context, measures)).flatten() {
            self.summaries += 1;
            self.requests += 1;
            out.push(Action::Show(Show::Notice(words::SUMMARISING)));
            out.push(Action::Ask(Request {
                number: self.requests,
                messages: Arc::new(plan.request.clone()),
                tools: false,
                max_output: None,
            }));
            self.phase = Phase::Summarising { plan, before: self.context.tokens() };
            return Room::BeingMade;
        }
        // Nothing is left to be gained; what still fits is tried.
        if self.context.tokens() < self.window * 95 / 100 { Room::Enough } else { Room::Gone }
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

    /// Takes in that a request was too long.
    pub(super) fn overflowed(&mut self, out: &mut Out) {
        self.overflows += 1;
        if self.overflows > limits::OVERFLOWS {
            return self.end_at(Limit::Context, out);
        }
        // The window is smaller than we were told, or our estimate too low: either way this was too much.
        self.window = self.window.min(self.context.tokens() * 9 / 10);
        self.advance(out);
    }
}
