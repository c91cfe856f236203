//! Those who want to start a sandbox and wait for a place, in order of their coming. How the first gets one is `limit.rs`.

use tokio::sync::{Mutex, watch};

use super::error::Full;

/// Those who want to start, in order of their coming.
pub(super) struct Queue {
    /// Held by the first.
    pub(super) first: Mutex<()>,
    /// Why the first has to wait, if it does.
    pub(super) why: watch::Sender<Option<Full>>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { first: Mutex::default(), why: watch::Sender::new(None) }
    }
}
