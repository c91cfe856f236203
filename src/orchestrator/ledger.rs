//! What a turn has done so far: a fold over its lines, the same whether they are being written or read back after a
//! crash. Called by the machine.

use std::mem;

use crate::{
    llm::{AssistantMessage, Message, Usage},
    tools::Access,
};

use super::{
    batch::{Batch, CallResult, CallState, KnownTool, Slot},
    footer::Tally,
    limits::{BAD_CALLS, Limit},
    line::{Line, Note, Origin},
    proof::Evidence,
    stuck::{self, Step, Stuck},
};

/// Counts and remembers what later decisions need.
#[derive(Clone, Debug, Default)]
pub(super) struct TurnLedger {
    /// Requests that the model answered.
    pub(super) rounds: u32,
    /// Tokens of this turn.
    pub(super) spent: Usage,
    /// Messages of the model that were empty.
    pub(super) empty: u32,
    /// Messages of the model that were a call written as text.
    pub(super) in_text: u32,
    /// Whether a claim of success was sent back already.
    pub(super) doubted: bool,
    /// Messages in a row without one call that ran.
    bad: u32,
    tally: Tally,
    evidence: Evidence,
    stuck: Stuck,
}

/// What a batch of results leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Fine,
    /// Go on, and tell the model that it goes in circles.
    Nudge,
    /// Wrap up, since this limit is reached.
    Stop(Limit),
}

/// The state of a turn, as its stored lines tell it.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    pub(super) ledger: TurnLedger,
    /// Set when the turn was wrapping up.
    pub(super) wrap: Option<Limit>,
    /// What the turn was about to do.
    pub(super) open: Open,
}

/// What a turn was about to do when its stored lines end.
#[derive(Debug, Default)]
pub(super) enum Open {
    /// The model is to be asked.
    #[default]
    Ask,
    /// Results are missing, or were not looked at yet.
    Batch(Box<OpenBatch>),
    /// The last message is a text whose claim was about to be sent back.
    Claim,
}

/// The calls of a message whose results are missing, or were not looked at yet.
#[derive(Debug)]
pub(super) struct OpenBatch {
    pub(super) message: AssistantMessage,
    pub(super) origin: Origin,
    pub(super) batch: Batch,
}

/// Returns whether one of a message's calls waited for something that runs on. What the others did may have another
/// result each time then, so doing it again is no repetition.
fn waited(batch: &Batch) -> bool {
    let waits = |slot: &Slot| matches!(&slot.state, CallState::Done { result, .. } if result.facts.waits);
    batch.slots.iter().any(waits)
}

impl TurnLedger {
    /// Takes in an answered request.
    pub(super) fn answered(&mut self, usage: Usage) {
        self.rounds += 1;
        self.spent += usage;
    }

    /// Takes in the results of a message's calls and says what they lead to.
    pub(super) fn batch(&mut self, batch: &Batch) -> Verdict {
        let mut step = Step::default();
        let mut ran_any = false;
        for slot in &batch.slots {
            let CallState::Done { result, ran } = &slot.state else { continue };
            step.add(&slot.call.name, &slot.call.arguments, result.ok, &result.text);
            if *ran {
                ran_any = true;
                self.tally.calls += 1;
                for used in &result.facts.used {
                    self.tally.used(used);
                }
                self.evidence.note_call(&result.facts, result.ok, slot.access == Access::Shared);
                for edit in &result.facts.edits {
                    self.tally.edited(edit);
                }
            }
        }
        self.bad = if ran_any { 0 } else { self.bad + 1 };
        if waited(batch) {
            self.stuck.waited();
            return Verdict::Fine;
        }
        match self.stuck.step(&step) {
            _ if self.bad >= BAD_CALLS => Verdict::Stop(Limit::BadCalls),
            stuck::Verdict::Stop => Verdict::Stop(Limit::Stuck),
            stuck::Verdict::Nudge => Verdict::Nudge,
            stuck::Verdict::Fine => Verdict::Fine,
        }
    }

    /// Returns the evidence about what was edited and tested.
    pub(super) fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Returns whether any call ran.
    pub(super) fn worked(&self) -> bool {
        self.tally.calls > 0
    }

    /// Returns the counts for the footer.
    pub(super) fn tally(&self) -> Tally {
        Tally { rounds: self.rounds, spent: self.spent, proof: self.evidence.proof(), ..self.tally.clone() }
    }

    /// Returns the state of a turn whose stored lines these are.
    pub(super) fn replay(lines: Vec<Line>, tools: &[KnownTool]) -> Replayed {
        let mut replayed = Replayed::default();
        for line in lines {
            if let Origin::Result { call, ran, ok, facts, pictures } = line.origin {
                if let (Open::Batch(open), Message::Tool { text, .. }) = (&mut replayed.open, line.message)
                    && let Some(slot) = open.batch.open(&call)
                {
                    slot.state = CallState::Done { result: CallResult { text, ok, facts, pictures }, ran };
                }
                continue;
            }
            if matches!(line.origin, Origin::Person { taken_by: Some(_), .. }) {
                // It was said while the batch ran, which may run still.
                continue;
            }
            if let Open::Batch(open) = mem::take(&mut replayed.open) {
                // What the batch led to stands in the lines that follow.
                _ = replayed.ledger.batch(&open.batch);
            }
            match (&line.message, &line.origin) {
                (Message::Assistant(message), Origin::Model { calls, refused, usage }) => {
                    replayed.ledger.answered(*usage);
                    replayed.open = if calls.is_empty() {
                        Open::Claim
                    } else {
                        let batch = Batch::new(message, calls, refused, tools);
                        Open::Batch(Box::new(OpenBatch {
                            message: message.clone(),
                            origin: line.origin.clone(),
                            batch,
                        }))
                    };
                }
                (_, Origin::Program { note: Note::Empty }) => {
                    replayed.ledger.rounds += 1;
                    replayed.ledger.empty += 1;
                }
                (_, Origin::Program { note: Note::CallInText }) => {
                    replayed.ledger.rounds += 1;
                    replayed.ledger.in_text += 1;
                }
                (_, Origin::Program { note: Note::Unproven }) => replayed.ledger.doubted = true,
                (_, Origin::Program { note: Note::WrapUp { limit } }) => replayed.wrap = Some(*limit),
                _ => {}
            }
        }
        replayed
    }
}
