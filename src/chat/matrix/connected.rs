//! A session on the homeserver, as all parts of the adapter use it. `session.rs` makes it.

use std::{ops::Deref, time::Duration};

use matrix_sdk::{Client, config::RequestConfig};
use matrix_sdk_base::BaseClient;

/// How long a request may take. A sync request gets the time for which it is held on top.
const REQUEST: Duration = Duration::from_secs(30);

/// A session on the homeserver.
#[derive(Clone, Debug)]
pub struct Session {
    /// The SDK's client.
    pub(super) client: Client,
    /// The SDK's lower half inside the client, which keeps the state of rooms and keys.
    pub(super) base: BaseClient,
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// The settings of a request to which the homeserver may take `later` longer to answer. The SDK's own retries, up to
/// a quarter of an hour, are off: ours are logged.
pub(super) fn requests(later: Duration) -> RequestConfig {
    RequestConfig::new().timeout(REQUEST + later).disable_retry()
}
