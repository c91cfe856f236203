//! What is seen of one stream while it is read: when the last byte came, whether it came to its end, why it broke.
//!
//! Written by `events.rs`, read by `model.rs`; between the two stands async-openai, which would turn all of it into text.

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
    /// An event was no JSON.
    Garbled,
    /// More came than any answer holds.
    TooMuch,
    /// It is a page for people.
    WebPage,
}

/// What was seen of one stream so far.
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

    /// Returns whether the stream was closed with `[DONE]`, or was one whole piece of JSON.
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Returns when the last byte came: comments keep a connection alive while the model thinks.
    pub(super) fn heard(&self) -> Option<Instant> {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the first words that stood where an event should.
    pub(super) fn words(&self) -> Option<&str> {
        self.stray.get().map(String::as_str)
    }

    /// Returns whether an event was no JSON and was passed over.
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
        // The first reason is the cause of all later ones.
        let _ = self.fault.set(fault);
        std::io::Error::other("broken stream")
    }
}
