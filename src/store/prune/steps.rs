//! How rows go while others write: page after page is looked at, and what was found is deleted a few milliseconds at a time.

use std::{
    mem,
    time::{Duration, Instant},
};

use rusqlite::Transaction;
use tokio::time;

use crate::store::{Store, StoreError};

/// Rows that are looked at together.
pub(super) const PAGE: usize = 512;
/// How long a step may hold up others who write.
const HOLD: Duration = Duration::from_millis(3);
/// The shortest pause between two steps. It is twice as long as the step before has taken, with its wait for the writer:
/// so two thirds of the writer's time are others', and the more they want, the slower this goes.
const PAUSE: Duration = Duration::from_millis(2);

/// A page of rows that was looked at.
pub(super) struct Page<C, R> {
    /// The rows that go.
    pub(super) gone: Vec<R>,
    /// How many would go if something else had ended.
    left: usize,
    seen: usize,
    last: Option<C>,
}

impl<C: Ord, R> Page<C, R> {
    pub(super) fn new() -> Self {
        Self { gone: Vec::new(), left: 0, seen: 0, last: None }
    }

    /// Counts a row, which stands at this place.
    pub(super) fn see(&mut self, at: C) {
        self.seen += 1;
        self.last = self.last.take().max(Some(at));
    }

    /// Lets a row go, if what it belongs to has ended.
    pub(super) fn sort(&mut self, row: R, ended: bool) {
        if ended {
            self.gone.push(row);
        } else {
            self.left += 1;
        }
    }

    /// Says that all after this is too young.
    pub(super) fn end(mut self) -> Self {
        self.last = None;
        self
    }

    /// Returns the place after which the next page begins; `None` if this was the last.
    pub(super) fn next(self) -> Option<C> {
        self.last.filter(|_| self.seen == PAGE)
    }
}

impl Store {
    /// Looks at page after page and deletes what each says. Returns how many rows stay for now.
    pub(super) async fn walk<C, R>(
        &self,
        mut from: C,
        page: impl Fn(&Transaction<'_>, &C) -> Result<Page<C, R>, StoreError> + Clone + Send + 'static,
        delete: impl Fn(&Transaction<'_>, &R) -> Result<(), StoreError> + Clone + Send + 'static,
    ) -> Result<usize, StoreError>
    where
        C: Ord + Send + 'static,
        R: Send + 'static,
    {
        let mut left = 0;
        loop {
            let look = page.clone();
            let mut found = self.read(move |tx| look(tx, &from)).await?;
            left += found.left;
            self.delete(mem::take(&mut found.gone), delete.clone()).await?;
            let Some(next) = found.next() else { return Ok(left) };
            from = next;
        }
    }

    /// Does something to each of these rows, in as many steps as it takes.
    pub(super) async fn delete<R: Send + 'static>(
        &self,
        mut rows: Vec<R>,
        delete: impl Fn(&Transaction<'_>, &R) -> Result<(), StoreError> + Clone + Send + 'static,
    ) -> Result<(), StoreError> {
        while !rows.is_empty() {
            let delete = delete.clone();
            rows = self
                .step(move |tx, until| {
                    let mut rows = rows.into_iter();
                    for row in rows.by_ref() {
                        delete(tx, &row)?;
                        if Instant::now() >= until {
                            break;
                        }
                    }
                    Ok(rows.collect())
                })
                .await?;
        }
        Ok(())
    }

    /// Writes until a time that is soon, then lets others write.
    pub(super) async fn step<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>, Instant) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let done = self.write(move |tx| work(tx, Instant::now() + HOLD)).await;
        time::sleep(PAUSE.max(begun.elapsed() * 2)).await;
        self.log.folded().await;
        done
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::{
            Arc, Mutex,
            atomic::{AtomicU32, Ordering},
        },
    };

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{clock::Clock, store::Durability};

    #[tokio::test(flavor = "multi_thread")]
    async fn others_write_between_any_two_rows_that_take_as_long_as_a_step_may() {
        const ROWS: u32 = 20;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), Durability::Normal, Clock::fixed_at(1_000)).unwrap();
        let (over, turns) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
        let (others, is_over, taken) = (store.clone(), over.clone(), turns.clone());
        let others = tokio::spawn(async move {
            while !is_over.is_cancelled() {
                others.take_turn().await.unwrap();
                taken.fetch_add(1, Ordering::Relaxed);
            }
        });
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let noted = seen.clone();
        let slow = move |_: &Transaction<'_>, _: &u32| {
            noted.lock().unwrap().insert(turns.load(Ordering::Relaxed));
            std::thread::sleep(HOLD);
            Ok(())
        };
        store.delete((0..ROWS).collect(), slow).await.unwrap();
        over.cancel();
        others.await.unwrap();
        assert_eq!(seen.lock().unwrap().len(), ROWS as usize);
    }
}
