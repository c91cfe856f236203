//! Deleting rows while others write: page after page is read, and what goes is deleted a few milliseconds at a time.

use std::{
    mem,
    time::{Duration, Instant},
};

use rusqlite::Transaction;
use tokio::time;

use crate::store::{Store, StoreError};

/// Rows that are read at a time.
pub(super) const PAGE: usize = 512;
/// How long a step may hold the writer.
const HOLD: Duration = Duration::from_millis(3);
/// The shortest pause between two steps. The pause is twice as long as the step before took, including its wait for
/// the writer. So two thirds of the time are left for other writes, and the more of them there are, the slower this
/// goes.
const PAUSE: Duration = Duration::from_millis(2);

/// A page of rows that was read.
pub(super) struct Page<C, R> {
    /// The rows to delete.
    pub(super) gone: Vec<R>,
    /// How many rows stay only because their turn has not ended.
    left: usize,
    seen: usize,
    last: Option<C>,
}

impl<C: Ord, R> Page<C, R> {
    pub(super) fn new() -> Self {
        Self { gone: Vec::new(), left: 0, seen: 0, last: None }
    }

    /// Notes the place of the row that was read last.
    pub(super) fn see(&mut self, at: C) {
        self.seen += 1;
        self.last = self.last.take().max(Some(at));
    }

    /// Adds a row to delete if `ended`; otherwise counts it.
    pub(super) fn sort(&mut self, row: R, ended: bool) {
        if ended {
            self.gone.push(row);
        } else {
            self.left += 1;
        }
    }

    /// Marks the page as the last one, since all rows after it are too young.
    pub(super) fn end(mut self) -> Self {
        self.last = None;
        self
    }

    /// Returns the place after which the next page begins; `None` after the last page.
    pub(super) fn next(self) -> Option<C> {
        self.last.filter(|_| self.seen == PAGE)
    }
}

impl Store {
    /// Reads page after page with `page` and deletes the rows of each. Returns how many rows stay because their turn
    /// has not ended.
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

    /// Applies a function to each of these rows, in as many steps as it takes.
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

    /// Runs one transaction with the time by which it should end, then pauses.
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
        let over = CancellationToken::new();
        let (wanted, taken) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (others, is_over, wants, turns) = (store.clone(), over.clone(), wanted.clone(), taken.clone());
        let others = tokio::spawn(async move {
            while !is_over.is_cancelled() {
                let turns = turns.clone();
                wants.fetch_add(1, Ordering::SeqCst);
                others.write(move |_| Ok(turns.fetch_add(1, Ordering::SeqCst))).await.unwrap();
            }
        });
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let noted = seen.clone();
        let slow = move |_: &Transaction<'_>, _: &u32| {
            let begun = Instant::now();
            noted.lock().unwrap().insert(taken.load(Ordering::SeqCst));
            // The next of the others is about to wait, however late its thread goes on.
            while wanted.load(Ordering::SeqCst) == taken.load(Ordering::SeqCst) && begun.elapsed().as_secs() < 20 {
                std::thread::yield_now();
            }
            std::thread::sleep(HOLD);
            Ok(())
        };
        store.delete((0..ROWS).collect(), slow).await.unwrap();
        over.cancel();
        others.await.unwrap();
        assert_eq!(seen.lock().unwrap().len(), ROWS as usize);
    }
}
