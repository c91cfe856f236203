//! What people say while a call runs, for a call that can pass it on to whatever it waits for.
//!
//! A word waits at the turn until a call takes it. It is stored as taken by this call before the call gets it, and the
//! turn no longer has it; what no call takes, the turn shows its model once all calls have ended. Knows neither turns
//! nor coding agents.

use tokio::sync::{mpsc, oneshot, watch};

use crate::ids::{CallId, EventId};

/// What a person said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The event by which it came.
    pub event: EventId,
    /// The words, after the speaker's name where several people speak.
    pub text: String,
}

/// A call asks for the next word that waits.
#[derive(Debug)]
pub struct Take {
    /// The call.
    pub call: CallId,
    /// Gets the word once it is stored; dropped where none waits.
    pub word: oneshot::Sender<Word>,
}

/// A call's way to what people say.
#[derive(Clone, Debug)]
pub struct Steering {
    call: CallId,
    taken: Vec<Word>,
    waiting: watch::Receiver<usize>,
    takes: mpsc::Sender<Take>,
}

impl Steering {
    /// Returns a call's way to what people say: what it took before the server crashed, how many words wait at the
    /// turn, and where it asks for them.
    pub fn new(call: CallId, taken: Vec<Word>, waiting: watch::Receiver<usize>, takes: mpsc::Sender<Take>) -> Self {
        Self { call, taken, waiting, takes }
    }

    /// Returns what the call took before the server crashed, in its order.
    pub(super) fn taken(&self) -> &[Word] {
        &self.taken
    }

    /// Returns whether a word waits.
    pub(crate) fn waits(&self) -> bool {
        *self.waiting.borrow() > 0
    }

    /// Waits until the number of words that wait has changed. May be dropped and called again.
    pub(crate) async fn changed(&mut self) {
        if self.waiting.changed().await.is_err() {
            // The turn is over, so nothing more comes.
            std::future::pending::<()>().await;
        }
    }

    /// Takes the next word that waits. If this is dropped, the word may be stored as the call's all the same.
    pub(crate) async fn take(&self) -> Option<Word> {
        let (word, taken) = oneshot::channel();
        self.takes.send(Take { call: self.call.clone(), word }).await.ok()?;
        taken.await.ok()
    }
}
