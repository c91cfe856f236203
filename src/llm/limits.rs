//! Time limits and retries for a model. Set by whoever makes [`ModelSettings`](super::ModelSettings).

use std::time::Duration;

/// Time limits and retries for a model.
#[derive(Clone, Debug)]
pub struct ModelLimits {
    /// For making the connection.
    pub connect: Duration,
    /// From the request to the first event. Local models may need minutes to read a long prompt.
    pub first_token: Duration,
    /// Between two bytes, comments included.
    pub idle: Duration,
    /// For the whole answer, over all attempts.
    pub whole: Duration,
    /// The most attempts for one request.
    pub attempts: usize,
    /// The pause before the second attempt; it doubles with each further one.
    pub backoff: Duration,
    /// If a provider asks for a longer wait, the request fails instead.
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
