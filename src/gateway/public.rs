//! Repositories that were seen to be public a moment ago.
//!
//! Pure. `git` notes what GitHub answers to requests without a key, and `cloning` asks.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long it is believed that a repository is public.
const BELIEVED: Duration = Duration::from_mins(1);
/// Of how many; more are asked for again.
const MOST: usize = 256;

/// Repositories that are public, by where they are cloned from.
#[derive(Debug, Default)]
pub(super) struct Public(Mutex<HashMap<String, Instant>>);

impl Public {
    /// Notes what was seen of a repository just now.
    pub(super) fn note(&self, url: &str, is_public: bool) {
        let mut seen = self.lock();
        seen.retain(|_, since| since.elapsed() < BELIEVED);
        if !is_public {
            seen.remove(url);
        } else if seen.len() < MOST || seen.contains_key(url) {
            seen.insert(url.to_owned(), Instant::now());
        }
    }

    /// Tells whether a repository was public a moment ago.
    pub(super) fn has(&self, url: &str) -> bool {
        self.lock().get(url).is_some_and(|since| since.elapsed() < BELIEVED)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_believed_for_a_minute_and_of_a_bounded_number() {
        let public = Public::default();
        public.note("https://x.org/a", true);
        tokio::time::advance(BELIEVED / 2).await;
        public.note("https://x.org/b", true);
        assert!(public.has("https://x.org/a") && public.has("https://x.org/b") && !public.has("https://x.org/c"));
        public.note("https://x.org/b", false);
        assert!(!public.has("https://x.org/b"));
        tokio::time::advance(BELIEVED / 2).await;
        assert!(!public.has("https://x.org/a"));
        for number in 0..2 * MOST {
            public.note(&number.to_string(), true);
        }
        assert_eq!(public.lock().len(), MOST);
    }
}
