//! Sets right what was stamped while the clock was ahead: it would be kept for as much longer.

use rusqlite::params;

use crate::store::{Store, StoreError};

/// A stamp may be so far ahead, in milliseconds: a clock that is corrected a little is not wrong.
const TOLERATED: i64 = 60 * 60 * 1000;

/// The stamps by which rows grow old.
pub(super) const STAMPS: [(&str, &str); 8] = [
    ("inbound", "received"),
    ("outbox", "created"),
    ("messages", "said"),
    ("turns", "closed"),
    ("cards", "closed"),
    ("notes", "noted"),
    ("locked", "received"),
    ("ciphertexts", "taken"),
];

impl Store {
    /// Stamps with today what has a stamp of a time that is still to come, so that its age begins now. Called with a clock that is
    /// believed.
    pub(super) async fn set_right(&self) -> Result<(), StoreError> {
        let now = self.clock.millis();
        for (table, column) in STAMPS {
            // Nearly always there is none; then nobody who writes waits for the look.
            let ahead = self.read(move |tx| {
                let query = format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE {column} > ?1)");
                Ok(tx.prepare_cached(&query)?.query_row([now + TOLERATED], |row| row.get::<_, bool>(0))?)
            });
            if ahead.await? {
                self.write(move |tx| {
                    let update = format!("UPDATE {table} SET {column} = ?1 WHERE {column} > ?2");
                    tx.execute(&update, params![now, now + TOLERATED])?;
                    Ok(())
                })
                .await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{clock::Clock, store::Durability};

    #[tokio::test]
    async fn what_was_written_while_the_clock_was_ahead_lives_no_longer_than_anything_else() {
        const DAY: i64 = 24 * 60 * 60 * 1000;
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::fixed_at(1_796_000_000_000));
        let store = Store::open(&folder.path().join("db"), Durability::Normal, clock.clone()).unwrap();
        clock.jump(365 * DAY);
        store.note("coder", "key", "value").await.unwrap();
        clock.jump(-365 * DAY);
        for (days, is_kept) in [(0, true), (29, true), (2, false)] {
            clock.advance(days * DAY);
            store.prune(Duration::from_hours(30 * 24)).await.unwrap();
            assert_eq!(store.noted("coder", "key").await.unwrap().is_some(), is_kept, "after {days} days more");
        }
    }
}
