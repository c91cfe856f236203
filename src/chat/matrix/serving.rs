//! Counts the accounts that can be served: a lost one keeps trying while another one works.

use std::sync::{Arc, Mutex, PoisonError};

/// The count over all Matrix accounts of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Serving {
    accounts: Arc<Mutex<usize>>,
}

impl Serving {
    /// Starts with this many accounts, all of which count as working.
    pub fn new(accounts: usize) -> Self {
        Self { accounts: Arc::new(Mutex::new(accounts)) }
    }

    /// Notes that one account cannot be served; returns whether another one can.
    pub(super) fn lose(&self) -> bool {
        self.count(|accounts| {
            *accounts = accounts.saturating_sub(1);
            *accounts > 0
        })
    }

    /// Notes that the account can be served again.
    pub(super) fn found(&self) {
        self.count(|accounts| *accounts += 1);
    }

    fn count<T>(&self, work: impl FnOnce(&mut usize) -> T) -> T {
        work(&mut self.accounts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_account_that_is_lost_is_told_apart() {
        let serving = Serving::new(2);
        assert!(serving.lose());
        assert!(!serving.lose());
        serving.found();
        serving.found();
        assert!(serving.lose(), "one that came back serves on");
    }
}
