//! What a message of the model comes to: calls to be run, the turn's answer, or a word to the model about why it is none
//! (it is empty, it claims what no test run shows, it is a call written as text).

use std::mem;

use super::{
    AssistantMessage, Batch, Completion, Ending, Finish, Machine, Message, Note, Origin, Out, Usage, batch, context,
    is_silent, limits, words,
};
use crate::{
    orchestrator::{markup, proof::Proof},
    strings::turns,
    text,
};

impl Machine {
    /// Takes in a whole message of the model.
    pub(super) fn answered(&mut self, completion: Completion, out: &mut Out) {
        let Completion { mut message, finish, usage, reasoning } = completion;
        let counted = usage.filter(|usage| usage.input > 0);
        let usage = counted.unwrap_or_else(|| Usage {
            input: self.context.tokens(),
            cached: 0,
            output: context::tokens(&Message::Assistant(message.clone())),
        });
        self.ledger.answered(usage);
        if finish == Finish::BadCall {
            let why = mem::take(&mut message.text);
            return match self.wrap {
                Some(_) => self.wrapped_up(message, finish, out),
                None => self.nudge_empty(&words::bad_call(&why), turns::BAD_CALLS, out),
            };
        }
        self.only_thought = take_thought(&mut message, finish, &reasoning);
        let silent = is_silent(&message);
        if self.wrap.is_some() {
            message.calls.clear();
            return self.wrapped_up(message, finish, out);
        }
        if finish == Finish::Filtered && (silent || !message.calls.is_empty()) {
            return self.end_plainly(turns::FILTERED.to_owned(), Ending::Failed, out);
        }
        if message.calls.is_empty() {
            if silent {
                let nudge = if finish == Finish::Length { words::CUT_EMPTY } else { words::EMPTY };
                return self.nudge_empty(nudge, turns::NO_ANSWER, out);
            }
            return self.settle(message, finish, usage, out);
        }
        if finish == Finish::Length {
            // A small cap would cut off the next try as well.
            self.max_output = self.max_output.map(|most| (most * 2).min(self.window / 2));
        }
        let refused = batch::vet(&mut message, finish);
        let ids = batch::ids(&self.turn, self.ledger.rounds, message.calls.len());
        let batch = Batch::new(&message, &ids, &refused, &self.tools);
        let refused = if refused.iter().any(Option::is_some) { refused } else { vec![] };
        self.keep(Message::Assistant(message), Origin::Model { calls: ids, refused, usage }, out);
        if let Some(usage) = counted {
            self.context.measure(usage);
        }
        self.go_on(batch, out);
    }

    /// Decides whether a text is the answer.
    pub(super) fn settle(&mut self, message: AssistantMessage, finish: Finish, usage: Usage, out: &mut Out) {
        if markup::ends_in_call(&message.text) {
            return self.call_in_text(&message, out);
        }
        let doubtful = !self.ledger.doubted && self.ledger.evidence().contradicts(&message.text);
        if doubtful && self.limit().is_none() {
            let origin = Origin::Model { calls: vec![], refused: vec![], usage };
            self.keep(Message::Assistant(message), origin, out);
            return self.doubt(out);
        }
        self.end(message, finish, Ending::Done, out);
    }

    /// Sends a claim of success back to the model, since no test run shows it.
    pub(super) fn doubt(&mut self, out: &mut Out) {
        self.ledger.doubted = true;
        let nudge = match self.ledger.evidence().proof() {
            Proof::Red => words::UNPROVEN_RED,
            _ => words::UNPROVEN_EDIT,
        };
        self.say(Note::Unproven, nudge.to_owned(), out);
        self.advance(out);
    }

    /// Asks again for an answer that said nothing; `gave_up` is what the person reads once that was done often enough.
    pub(super) fn nudge_empty(&mut self, nudge: &str, gave_up: &str, out: &mut Out) {
        if let Some(limit) = self.wrap {
            return self.end_at(limit, out);
        }
        self.ledger.empty += 1;
        if self.ledger.empty > limits::EMPTY_NUDGES {
            return self.end_plainly(gave_up.to_owned(), Ending::Failed, out);
        }
        self.say(Note::Empty, nudge.to_owned(), out);
        self.advance(out);
    }

    pub(super) fn wrapped_up(&mut self, message: AssistantMessage, finish: Finish, out: &mut Out) {
        let Some(limit) = self.wrap else { return };
        if !is_silent(&message) && !markup::ends_in_call(&message.text) {
            self.end(message, finish, Ending::Limit, out);
        } else if self.bare {
            self.end_at(limit, out);
        } else {
            // The model called a tool all the same, so it is asked once more without tools.
            self.bare = true;
            self.ask(out);
        }
    }

    /// Takes in a call that the model wrote as text. It is never run: the model is told once, then the person.
    pub(super) fn call_in_text(&mut self, message: &AssistantMessage, out: &mut Out) {
        self.ledger.in_text += 1;
        if self.ledger.in_text > limits::IN_TEXT_NUDGES {
            return self.end_plainly(turns::calls_no_tools(&message.model), Ending::Failed, out);
        }
        // The message is not kept: a model that sees its slip in the history repeats it.
        self.say(Note::CallInText, words::CALL_IN_TEXT.to_owned(), out);
        self.advance(out);
    }
}

/// Takes the reasoning as the answer if the model wrote nothing else; returns whether it did. The person is told so,
/// and the note is not written into the model's own words.
fn take_thought(message: &mut AssistantMessage, finish: Finish, reasoning: &str) -> bool {
    let alone = finish == Finish::Stop && message.calls.is_empty() && is_silent(message);
    let taken = alone && !text::strip(reasoning).trim().is_empty();
    if taken {
        reasoning.trim().clone_into(&mut message.text);
    }
    taken
}
