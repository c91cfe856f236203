//! What people say during a turn: it reaches the model once no call is open, or a running call that asks for it.

use super::{Action, CallId, Machine, Out, Phase, Progress};

/// Messages that wait for the batch to end; more stay in the channel, and then in the journal.
const HEARD: usize = 16;

impl Machine {
    /// Returns whether another message can be taken in.
    pub(crate) fn listens(&self) -> bool {
        self.heard.len() < HEARD
    }

    /// Returns how many messages wait for the model, or for a call that takes them.
    pub(crate) fn waiting(&self) -> usize {
        self.heard.len()
    }

    /// Shows the model what was said meanwhile: only here, where no call is open.
    pub(super) fn take_in_heard(&mut self, out: &mut Out) {
        while let Some(message) = self.heard.pop_front() {
            let line = message.to_line();
            self.keep(line.message, line.origin, out);
            out.push(Action::Show(Progress::Seen(message.event)));
        }
    }

    /// Gives a running call the next of what was said: it is the call's from now on, and shown to the model
    /// after the call's result.
    pub(super) fn pass(&mut self, call: &CallId, out: &mut Out) {
        let said = match &mut self.phase {
            Phase::Running(batch) if batch.runs(call) => self.heard.pop_front().map(|said| (batch, said)),
            _ => None,
        };
        let Some((batch, said)) = said else { return out.push(Action::Pass(None)) };
        let line = said.to_line_of(call);
        out.push(Action::Keep(line.clone()));
        out.push(Action::Show(Progress::Seen(said.event)));
        out.push(Action::Pass(line.word()));
        batch.taken.push(line);
    }
}
