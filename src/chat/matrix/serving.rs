//! Counts the accounts that can be served: a lost one keeps trying while another one works. An account without which the
//! server goes on is counted alone.

use std::{future::pending, mem, sync::Arc};

use tokio::sync::watch;

use super::SessionError;

/// The count over all Matrix accounts of a server.
#[derive(Clone, Debug)]
pub(crate) struct Serving {
    counts: watch::Sender<Counts>,
}

#[derive(Debug)]
struct Counts {
    /// Accounts whose first try has not ended.
    untried: usize,
    /// Accounts whose messages are read as they come.
    synced: usize,
    /// All accounts.
    all: usize,
    /// Accounts that are served or will be without anybody's help, as far as is known.
    working: usize,
    /// Why the last one that worked was lost.
    failed: Option<Arc<SessionError>>,
    /// Whether the server goes on without any.
    spared: bool,
    /// Why there is no session now, as far as the last try tells.
    trouble: Option<Arc<SessionError>>,
}

/// How one account stands.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// It was not tried yet.
    Beginning,
    /// There is no session now; the error tells why.
    Away(Arc<SessionError>),
    /// It has a session.
    Served,
}

/// One account's place in the count.
#[derive(Debug)]
pub(crate) struct Seat {
    counts: watch::Sender<Counts>,
    untried: bool,
    synced: bool,
    lost: bool,
}

impl Serving {
    /// Starts with this many accounts, all of which count as working. Each must take its [`Serving::seat`].
    pub(crate) fn new(accounts: usize) -> Self {
        Self::of(accounts, false)
    }

    /// Starts with one account without which the server goes on, and which keeps trying whatever happens.
    pub(crate) fn of_one_spared() -> Self {
        Self::of(1, true)
    }

    fn of(accounts: usize, spared: bool) -> Self {
        let counts = Counts {
            untried: accounts,
            synced: 0,
            all: accounts,
            working: accounts,
            failed: None,
            spared,
            trouble: None,
        };
        Self { counts: watch::Sender::new(counts) }
    }

    /// Returns how the one account stands.
    pub(crate) fn standing(&self) -> Standing {
        match &*self.counts.borrow() {
            Counts { trouble: Some(error), .. } => Standing::Away(error.clone()),
            Counts { untried: 0, .. } => Standing::Served,
            _ => Standing::Beginning,
        }
    }

    /// Returns of how many accounts messages are read as they come, of how many, and why there was no session at the last
    /// failure, as far as there is none now.
    pub(crate) fn synced(&self) -> (usize, usize, Option<Arc<SessionError>>) {
        let counts = self.counts.borrow();
        (counts.synced, counts.all, counts.trouble.clone())
    }

    /// Returns an account's place, which counts until it is dropped.
    pub(crate) fn seat(&self) -> Seat {
        Seat { counts: self.counts.clone(), untried: true, synced: false, lost: false }
    }

    /// Waits until each account was tried once.
    ///
    /// # Errors
    ///
    /// There are accounts, and none of them can be served.
    pub(crate) async fn all_tried(&self) -> Result<(), Arc<SessionError>> {
        self.wait_until(|counts| counts.untried == 0).await.map_or(Ok(()), Err)
    }

    /// Waits until no account can be served any more, and returns why. Never returns without an account.
    pub(crate) async fn failed(&self) -> Arc<SessionError> {
        match self.wait_until(|counts| counts.failed.is_some()).await {
            Some(error) => error,
            None => pending().await,
        }
    }

    async fn wait_until(&self, holds: impl Fn(&Counts) -> bool) -> Option<Arc<SessionError>> {
        let mut counts = self.counts.subscribe();
        // It could only fail without a sender, and one is here.
        counts.wait_for(|counts| holds(counts)).await.ok()?.failed.clone()
    }
}

impl Seat {
    /// Notes that a try has ended without a session, for a reason that may pass.
    pub(super) fn tried(&mut self, error: &Arc<SessionError>) {
        self.note(|counts| counts.trouble = Some(error.clone()));
    }

    /// Notes that the account is served; returns whether it had been lost.
    pub(super) fn found(&mut self) -> bool {
        let was_lost = mem::take(&mut self.lost);
        self.note(|counts| {
            counts.working += usize::from(was_lost);
            counts.trouble = None;
        });
        was_lost
    }

    /// Notes that a person must do something before the account can be served; returns whether another one works.
    pub(super) fn lose(&mut self, error: &Arc<SessionError>) -> bool {
        let was_lost = mem::replace(&mut self.lost, true);
        let mut others = true;
        self.note(|counts| {
            counts.trouble = Some(error.clone());
            counts.working -= usize::from(!was_lost);
            others = counts.spared || counts.working > 0;
            if !others {
                counts.failed.get_or_insert_with(|| error.clone());
            }
        });
        others
    }

    /// Notes whether messages are read as they come.
    pub(super) fn reads(&mut self, synced: bool) {
        let before = mem::replace(&mut self.synced, synced);
        if before != synced {
            self.counts.send_modify(|counts| counts.synced = counts.synced + usize::from(synced) - usize::from(before));
        }
    }

    /// Changes the counts in one step with the end of the first try, so that nobody sees one without the other.
    fn note(&mut self, change: impl FnOnce(&mut Counts)) {
        let first = mem::take(&mut self.untried);
        self.counts.send_modify(|counts| {
            counts.untried -= usize::from(first);
            change(counts);
        });
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Nobody waits for a try of an account whose task has ended.
        self.reads(false);
        self.note(|_| {});
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time;

    use super::{super::Fault, *};

    const LIMIT: Duration = Duration::from_secs(10);

    fn error(what: &str) -> Arc<SessionError> {
        Arc::new(SessionError::Setup(Fault::new(what, "mend it")))
    }

    fn seats(serving: &Serving) -> [Seat; 2] {
        [serving.seat(), serving.seat()]
    }

    #[tokio::test]
    async fn the_last_account_that_is_lost_tells_why() {
        let serving = Serving::new(2);
        let [mut first, mut second] = seats(&serving);
        assert!(first.lose(&error("one")));
        assert!(first.lose(&error("one again")), "it counts once");
        assert!(!second.lose(&error("two")));
        let tried = time::timeout(LIMIT, serving.all_tried()).await.expect("all were tried");
        assert_eq!(tried.unwrap_err().to_string(), "two. mend it");
        assert_eq!(time::timeout(LIMIT, serving.failed()).await.unwrap().to_string(), "two. mend it");
    }

    #[tokio::test]
    async fn one_that_came_back_serves_on_although_each_first_try_failed() {
        let serving = Serving::new(2);
        let [mut first, mut second] = seats(&serving);
        assert!(first.lose(&error("one")));
        assert!(first.found());
        assert!(second.lose(&error("two")));
        time::timeout(LIMIT, serving.all_tried()).await.expect("all were tried").expect("the first one is served");
        assert!(!first.lose(&error("one again")));
        assert_eq!(time::timeout(LIMIT, serving.failed()).await.unwrap().to_string(), "one again. mend it");
    }

    #[tokio::test]
    async fn one_that_is_spared_keeps_trying_and_tells_how_it_stands() {
        let serving = Serving::of_one_spared();
        let mut seat = serving.seat();
        assert!(matches!(serving.standing(), Standing::Beginning));
        assert!(seat.lose(&error("one")), "it goes on");
        time::timeout(LIMIT, serving.all_tried()).await.expect("it was tried").unwrap();
        assert!(matches!(serving.standing(), Standing::Away(why) if why.to_string() == "one. mend it"));
        assert!(seat.found());
        assert!(matches!(serving.standing(), Standing::Served));
    }

    #[tokio::test]
    async fn an_account_counts_as_synced_while_its_messages_are_read() {
        let serving = Serving::new(2);
        let [mut first, mut second] = seats(&serving);
        assert_eq!(serving.synced().0, 0);
        first.found();
        first.reads(true);
        first.reads(true);
        second.reads(true);
        assert_eq!(serving.synced().0, 2);
        second.reads(false);
        second.tried(&error("two"));
        assert!(matches!(serving.synced(), (1, 2, Some(why)) if why.to_string() == "two. mend it"));
        drop(first);
        assert_eq!(serving.synced().0, 0);
    }

    #[tokio::test]
    async fn a_start_waits_for_each_account_once() {
        let serving = Serving::new(2);
        let [mut first, second] = seats(&serving);
        first.tried(&error("away"));
        first.tried(&error("away"));
        assert!(!first.found(), "it was never lost");
        tokio::select! {
            biased;
            tried = serving.all_tried() => panic!("one is not tried yet: {tried:?}"),
            () = std::future::ready(()) => {}
        }
        drop(second);
        time::timeout(LIMIT, serving.all_tried()).await.expect("nobody tries the second any more").unwrap();
        time::timeout(LIMIT, Serving::new(0).all_tried()).await.expect("there is none").unwrap();
    }
}
