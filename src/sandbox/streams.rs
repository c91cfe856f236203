//! The streams of bytes that were asked of a sandboxd and have not come yet, by the nonce with which each will come.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::{net::UnixStream, sync::oneshot};

/// Streams of one room that are expected.
#[derive(Default)]
pub(super) struct Streams {
    expected: Mutex<HashMap<String, oneshot::Sender<UnixStream>>>,
}

impl Streams {
    /// Begins to expect a stream; the one that names `nonce` arrives at the receiver.
    pub(super) fn expect(&self, nonce: &str) -> oneshot::Receiver<UnixStream> {
        let (sender, receiver) = oneshot::channel();
        self.expected().insert(nonce.to_owned(), sender);
        receiver
    }

    /// Forgets a nonce whose stream nobody wants any more.
    pub(super) fn forget(&self, nonce: &str) {
        self.expected().remove(nonce);
    }

    /// Gives a stream that has come to whoever expects it. One that nobody expects is closed, and sandboxd goes on without
    /// a listener.
    pub(super) fn deliver(&self, nonce: &str, stream: UnixStream) {
        let expecting = self.expected().remove(nonce);
        if let Some(expecting) = expecting {
            let _ = expecting.send(stream); // whoever waited may have gone
        }
    }

    fn expected(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<UnixStream>>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
