//! The text of an answer on its way from the request to the machine. `asking` puts it in, the driver takes it out.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::event::Event;
use crate::llm::Chunk;

/// Text on its way from the model to the machine: pieces that come while nobody takes them are joined into one.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Set when the answer begins anew: text that was taken before is void.
    restarted: bool,
    text: String,
}

impl Chunks {
    /// Takes in a piece.
    pub(super) fn push(&self, chunk: Chunk) {
        let mut waiting = self.waiting();
        match chunk {
            Chunk::Text(piece) => waiting.text.push_str(&piece),
            Chunk::Restart => *waiting = Waiting { restarted: true, text: String::new() },
            Chunk::Reasoning | Chunk::CallStarted(_) => return,
        }
        self.more.notify_one();
    }

    /// Returns what has come since the last call.
    pub(super) fn take(&self) -> impl Iterator<Item = Event> {
        let Waiting { restarted, text } = mem::take(&mut *self.waiting());
        let restart = restarted.then_some(Event::Chunk(Chunk::Restart));
        restart.into_iter().chain((!text.is_empty()).then_some(Event::Chunk(Chunk::Text(text))))
    }

    /// Waits until there is something to take.
    pub(super) async fn come(&self) {
        self.more.notified().await;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
