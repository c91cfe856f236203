//! What is observed of a stream while it is read: when the last byte came, whether it ended properly, why it broke.
//!
//! Written by `events.rs` and read by `model.rs`; async-openai between them would turn it into text.

use std::sync::{
    Mutex, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::time::Instant;

/// Why a stream broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection was lost.
    Cut,
    /// An event was not JSON.
    Garbled,
    /// The stream was longer than any answer.
    TooMuch,
    /// It was a web page.
    WebPage,
}

/// What was observed of a stream so far.
#[derive(Debug, Default)]
pub(super) struct Watch {
    fault: OnceLock<Fault>,
    done: AtomicBool,
    heard: Mutex<Option<Instant>>,
    stray: OnceLock<String>,
    passed_over: AtomicBool,
}

impl Watch {
    /// Returns why the stream broke, if it did.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.get().copied()
    }

    /// Returns whether the stream ended with `[DONE]`, or was one complete JSON document.
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Returns when the last byte came. Comments count: they keep a connection alive while the model thinks.
    pub(super) fn heard(&self) -> Option<Instant> {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the first plain text that came instead of an event.
    pub(super) fn words(&self) -> Option<&str> {
        self.stray.get().map(String::as_str)
    }

    /// Returns whether an event that was not JSON was skipped.
    pub(super) fn has_passed_over(&self) -> bool {
        self.passed_over.load(Ordering::Acquire)
    }

    pub(super) fn pass_over(&self) {
        self.passed_over.store(true, Ordering::Release);
    }

    pub(super) fn close(&self) {
        self.done.store(true, Ordering::Release);
    }

    pub(super) fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(super) fn stray(&self, words: &str) {
        self.stray.get_or_init(|| words.to_owned());
    }

    pub(super) fn fail(&self, fault: Fault) -> std::io::Error {
        // The first fault causes all later ones.
        let _ = self.fault.set(fault);
        std::io::Error::other("broken stream")
    }
}
