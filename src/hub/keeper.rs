//! What concerns all accounts of a server: which rooms may have a sandbox, how long a left room's files stay, and
//! when old rows are pruned.
//!
//! All accounts share the host's sandboxes, so the list of those that may stay covers every account in the store,
//! also one that cannot be served now or is no longer configured: otherwise one account would delete another's
//! sandboxes.

use std::{
    collections::HashSet,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use super::{accounts::Accounts, homes::Encrypted};
use crate::{
    ids::Address,
    pictures::Gallery,
    sandbox::Sandboxes,
    store::{Store, StoreError},
};

/// The pause between two passes.
const LOOK: Duration = Duration::from_mins(1);
/// Passes between two prunings of old rows: one day.
const PRUNE: u64 = 24 * 60;
/// Passes between two notes of what the clock shows.
const NOTE: u64 = 10;

/// How long data that nobody needs any more is kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// How long the files of a left room are kept.
    pub files: Duration,
    /// How long rows of the database are kept ([`Store::prune`]).
    pub rows: Duration,
}

/// The one keeper of a server. Cheap to clone.
#[derive(Clone)]
pub struct Keeper {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    /// `None` where no bot works in a sandbox.
    sandboxes: Option<Sandboxes>,
    gallery: Gallery,
    retention: Retention,
    kept: Mutex<Kept>,
    encrypted: Encrypted,
    accounts: Accounts,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// Counts passes, and says what each of them does.
#[derive(Debug, Default)]
struct Passes {
    number: u64,
    /// Whether pruning is due and waits for a clock that is believed.
    is_due: bool,
}

/// What a pass does besides.
#[derive(Debug, PartialEq, Eq)]
struct Pass {
    /// Old rows are pruned.
    prunes: bool,
    /// What the clock shows is noted. What is not believed must not be believed after a restart for having been noted.
    notes: bool,
}

impl Passes {
    fn next(&mut self, is_believed: bool) -> Pass {
        self.is_due |= self.number.is_multiple_of(PRUNE);
        let notes = is_believed && self.number.is_multiple_of(NOTE);
        self.number += 1;
        Pass { prunes: is_believed && mem::take(&mut self.is_due), notes }
    }
}

/// The homes that may have a sandbox.
#[derive(Default)]
struct Kept {
    homes: HashSet<Address>,
    /// Whether the homes that the database knows have been read. No sandbox is removed before.
    is_read: bool,
    /// Homes that were forgotten before that; the database may still list them.
    cleared: HashSet<Address>,
}

impl Kept {
    /// Adds a home; returns whether it is new.
    fn keep(&mut self, home: &Address) -> bool {
        self.cleared.remove(home);
        self.homes.insert(home.clone())
    }

    fn clear(&mut self, home: &Address) {
        self.homes.remove(home);
        if !self.is_read {
            self.cleared.insert(home.clone());
        }
    }

    /// Adds the homes that the database knows.
    fn read(&mut self, homes: Vec<Address>) {
        let cleared = mem::take(&mut self.cleared);
        self.homes.extend(homes.into_iter().filter(|home| !cleared.contains(home)));
        self.is_read = true;
    }
}

impl Keeper {
    /// Starts the keeper's task, which runs until `cancel`. The task, not this call, reads which homes may have a
    /// sandbox: in a database with many rooms that takes longer than the rest of a start.
    pub async fn start(
        store: Store,
        sandboxes: Option<Sandboxes>,
        gallery: Gallery,
        retention: Retention,
        tasks: TaskTracker,
        cancel: CancellationToken,
    ) -> Result<Self, StoreError> {
        let kept = Mutex::default();
        let encrypted = Encrypted::load(store.encrypted().await?);
        let accounts = Accounts::default();
        let inner = Inner { store, sandboxes, gallery, retention, kept, encrypted, accounts, tasks, cancel };
        let keeper = Self { inner: Arc::new(inner) };
        keeper.inner.tasks.spawn(keeper.clone().run());
        Ok(keeper)
    }

    /// Returns how long the files of a room that was left are kept.
    pub(super) fn grace(&self) -> Duration {
        self.inner.retention.files
    }

    /// Returns the accounts that are served now.
    pub(crate) fn accounts(&self) -> &Accounts {
        &self.inner.accounts
    }

    /// Returns the set of encrypted rooms, which all accounts share.
    pub(super) fn encrypted(&self) -> Encrypted {
        self.inner.encrypted.clone()
    }

    /// Notes that a home may have a sandbox from now on. Never waits.
    pub(super) fn keep(&self, home: &Address) {
        let mut kept = self.kept();
        if kept.keep(home) {
            self.tell_kept(&kept);
        }
    }

    /// Notes that a home may have no sandbox any more.
    pub(super) fn forget(&self, home: &Address) {
        self.kept().clear(home);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from the database which homes may have a sandbox; a failed read is repeated at the next pass.
    async fn read_kept(&self) {
        if self.kept().is_read {
            return;
        }
        match self.inner.store.homes_in_use().await {
            Ok(homes) => {
                let mut kept = self.kept();
                kept.read(homes);
                self.tell_kept(&kept);
            }
            Err(error) => tracing::error!(%error, "no sandbox is removed, since the rooms cannot be read"),
        }
    }

    /// Lets [`Sandboxes::keep_only`] remove all sandboxes but those of these homes. Called with the list locked, so
    /// that the newest list is told last.
    fn tell_kept(&self, kept: &Kept) {
        let Some(sandboxes) = self.inner.sandboxes.clone().filter(|_| kept.is_read) else { return };
        let kept = kept.homes.clone();
        let mut told = Box::pin(async move { sandboxes.keep_only(kept).await });
        // `keep_only` takes the list over at its first poll; the removals may take longer.
        if told.as_mut().now_or_never().is_none() {
            let cancel = self.inner.cancel.clone();
            self.inner.tasks.spawn(async move {
                cancel.run_until_cancelled(told).await;
            });
        }
    }

    async fn run(self) {
        let (store, cancel) = (&self.inner.store, &self.inner.cancel);
        let mut ticks = time::interval(LOOK); // ticks at once, then each time
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut passes = Passes::default();
        loop {
            let is_time = tokio::select! {
                () = cancel.cancelled() => return,
                () = store.something_forgotten() => false,
                _ = ticks.tick() => {
                    // Asked each time, so that it notices each time that the clock was set.
                    let next = passes.next(store.clock().is_believed());
                    if next.notes
                        && let Err(error) = store.note_clock().await
                    {
                        tracing::warn!(%error, "what the clock shows cannot be noted");
                    }
                    next.prunes
                }
            };
            let pruned = async {
                self.read_kept().await;
                if is_time { store.prune(self.inner.retention.rows).await } else { store.finish_forgetting().await }
            };
            match cancel.run_until_cancelled(pruned).await {
                Some(Ok(rooms)) => self.remove_pictures(rooms).await,
                Some(Err(error)) => tracing::error!(%error, "old rows could not be pruned"),
                None => return,
            }
        }
    }

    /// Removes pictures that no stored message of their room names any more.
    async fn remove_pictures(&self, pruned: HashSet<Address>) {
        for home in pruned {
            self.remove_pictures_of(&home).instrument(home.span()).await;
        }
    }

    async fn remove_pictures_of(&self, home: &Address) {
        let (store, gallery) = (&self.inner.store, &self.inner.gallery);
        let kept = gallery.settled(home).await;
        match store.unnamed(home, kept).await {
            Ok(unnamed) => gallery.remove(home, unnamed).await,
            Err(error) => tracing::warn!(%error, "pictures that nothing names any more stay for now"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Clock, store::Durability};

    /// Longer than anything here takes.
    const LIMIT: Duration = Duration::from_secs(20);
    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn what_happens_while_the_homes_are_read_is_newer_than_what_is_read() {
        let [old, new, gone] = ["old", "new", "gone"].map(Address::of_first);
        let mut kept = Kept::default();
        assert!(kept.keep(&new));
        kept.clear(&gone);
        kept.clear(&old);
        assert!(kept.keep(&old));
        kept.read(vec![old.clone(), gone.clone()]);
        assert_eq!(kept.homes, [old.clone(), new.clone()].into());
        kept.clear(&old);
        assert_eq!(kept.homes, [new].into());
    }

    #[test]
    fn nothing_is_pruned_and_no_time_noted_while_the_clock_is_not_believed() {
        let mut passes = Passes::default();
        for _ in 0..3 * NOTE {
            assert_eq!(passes.next(false), Pass { prunes: false, notes: false });
        }
        assert_eq!(passes.next(true), Pass { prunes: true, notes: true }, "what was due is made up for");
        let rest: Vec<_> = (3 * NOTE + 1..=PRUNE).map(|_| passes.next(true)).collect();
        assert_eq!(rest.iter().filter(|pass| pass.prunes).count(), 1, "and again after a day");
        assert_eq!(rest.iter().filter(|pass| pass.notes).count() as u64, PRUNE / NOTE - 3);
    }

    #[tokio::test]
    async fn rows_are_kept_for_as_long_as_the_operator_says() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::fixed_at(0);
        let store = Store::open(&folder.path().join("db"), Durability::Normal, clock.clone()).unwrap();
        store.note("coder", "old", "value").await.unwrap();
        clock.advance(2 * DAY.as_millis() as i64);
        store.note("coder", "young", "value").await.unwrap();
        clock.advance(DAY.as_millis() as i64);

        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let gallery = Gallery::new(folder.path().join("pictures"));
        let retention = Retention { files: DAY, rows: 2 * DAY };
        Keeper::start(store.clone(), None, gallery, retention, tasks.clone(), cancel.clone()).await.unwrap();
        let pruned = async {
            while store.noted("coder", "old").await.unwrap().is_some() {
                tokio::task::yield_now().await;
            }
        };
        time::timeout(LIMIT, pruned).await.expect("what is older goes");
        assert_eq!(store.noted("coder", "young").await.unwrap().as_deref(), Some("value"));
        cancel.cancel();
        tasks.close();
        time::timeout(LIMIT, tasks.wait()).await.expect("the keeper ends");
    }
}
