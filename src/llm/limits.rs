//! How patient the server is with a model: how long it waits for what, and how often it asks. Set by whoever makes a
//! [`ModelSettings`](super::ModelSettings).

use std::time::Duration;

/// How long to wait for what, and how often to ask.
#[derive(Clone, Debug)]
pub struct ModelLimits {
    /// For the connection.
    pub connect: Duration,
    /// From the request to the first event. Local models read a long prompt for minutes.
    pub first_token: Duration,
    /// Between two bytes, comments included.
    pub idle: Duration,
    /// For the whole answer, however often it is asked for.
    pub whole: Duration,
    /// How often one request is sent at most.
    pub attempts: usize,
    /// The first wait before asking again; it doubles.
    pub backoff: Duration,
    /// A provider that asks to wait longer is not waited for.
    pub longest_wait: Duration,
}

impl Default for ModelLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_token: Duration::from_mins(5),
            idle: Duration::from_mins(2),
            whole: Duration::from_mins(30),
            attempts: 5,
            backoff: Duration::from_secs(1),
            longest_wait: Duration::from_mins(1),
        }
    }
}
