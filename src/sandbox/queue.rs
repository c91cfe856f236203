//! The queue of starts that wait for a place. `limit.rs` decides when the first may go on.

use tokio::sync::{Mutex, watch};

use super::error::Full;

/// Starts that wait, in order of arrival.
pub(super) struct Queue {
    /// Held by the first of the queue; tokio's mutex is fair, so the others follow in order.
    pub(super) first: Mutex<()>,
    /// Why the first has to wait, if it does.
    pub(super) why: watch::Sender<Option<Full>>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { first: Mutex::default(), why: watch::Sender::new(None) }
    }
}
