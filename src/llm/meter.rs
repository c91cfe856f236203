//! What requests for an answer have used of which their provider has told nothing: attempts that were cut, given up or
//! dropped. Whoever asks keeps it, so that it can be read also when the asking itself was dropped.
//!
//! Pure counting; filled by `model`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::message::Usage;

/// A meter for one [`Model::complete`](super::Model::complete).
#[derive(Debug)]
pub struct Meter {
    /// Tokens of the prompt, about.
    prompt: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of attempts that have ended.
    lost: Usage,
    /// Events of the attempt under way, once it is sent.
    events: Option<u64>,
}

impl Meter {
    /// Returns a meter for requests with so many tokens in their prompts, about.
    pub fn new(prompt: u64) -> Self {
        Self { prompt, state: Mutex::default() }
    }

    /// Returns what was used without being told, up to now. An event is a token at least.
    pub fn untold(&self) -> Usage {
        let state = self.state();
        let mut untold = state.lost;
        untold += self.under_way(&state);
        untold
    }

    /// An attempt is sent.
    pub(super) fn begin(&self) {
        let mut state = self.state();
        let before = self.under_way(&state);
        state.lost += before;
        state.events = Some(0);
    }

    /// An event of it has come.
    pub(super) fn event(&self) {
        if let Some(events) = &mut self.state().events {
            *events += 1;
        }
    }

    /// It has used nothing, or its provider has told what.
    pub(super) fn told(&self) {
        self.state().events = None;
    }

    fn under_way(&self, state: &State) -> Usage {
        state.events.map_or_else(Usage::default, |output| Usage { input: self.prompt, cached: 0, output })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_told_adds_up_over_attempts() {
        let meter = Meter::new(100);
        let untold = |input, output| Usage { input, cached: 0, output };
        assert_eq!(meter.untold(), untold(0, 0), "nothing is sent yet");
        meter.begin();
        assert_eq!(meter.untold(), untold(100, 0));
        meter.event();
        meter.event();
        assert_eq!(meter.untold(), untold(100, 2), "it may be dropped here");
        meter.begin();
        meter.told();
        assert_eq!(meter.untold(), untold(100, 2), "one that was refused costs nothing");
        meter.begin();
        meter.event();
        meter.begin();
        meter.event();
        meter.told();
        assert_eq!(meter.untold(), untold(200, 3), "the last one is told by its provider");
    }
}
