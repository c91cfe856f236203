//! A session on the homeserver, as all parts of the adapter use it. How it comes about is `session`'s.

use std::{ops::Deref, time::Duration};

use matrix_sdk::{Client, config::RequestConfig};
use matrix_sdk_base::BaseClient;

/// How long one request may take; a sync adds the time for which it waits.
const REQUEST: Duration = Duration::from_secs(30);

/// A session on the homeserver.
#[derive(Clone, Debug)]
pub struct Session {
    /// All that the SDK offers.
    pub(super) client: Client,
    /// Its lower half, which keeps the state of rooms and keys. The same as inside the client.
    pub(super) base: BaseClient,
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// What holds for a request that the homeserver may answer as much later. The SDK's own retries last up to a quarter of an
/// hour; ours are said in the log.
pub(super) fn requests(later: Duration) -> RequestConfig {
    RequestConfig::new().timeout(REQUEST + later).disable_retry()
}
