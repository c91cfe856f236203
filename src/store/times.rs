//! What the store remembers of the time: the latest that anything lasted until, and what the clock showed last. By it a start knows
//! whether the clock can be right.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Store, StoreError, grants};
use crate::clock::{Clock, Lasting};

/// The key in `meta`: what the clock showed last, in milliseconds since 1970.
const SEEN: &str = "clock_seen";

/// Reads what is remembered, before anything is done by the clock.
pub(super) fn begin(connection: &Connection, clock: &Clock) -> rusqlite::Result<Lasting> {
    let number = |key: &str| {
        let mut select = connection.prepare("SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?1")?;
        select.query_row([key], |row| row.get::<_, i64>(0)).optional()
    };
    if let Some(seen) = number(SEEN)? {
        clock.goes_on_from(seen);
    }
    let lasting = Lasting::new(clock.clone());
    lasting.not_before(number(grants::LATEST)?.unwrap_or_default());
    Ok(lasting)
}

impl Store {
    /// Remembers what the clock shows.
    pub async fn note_clock(&self) -> Result<(), StoreError> {
        let now = self.clock.millis();
        self.write(move |tx| {
            let mut note = tx.prepare_cached(
                "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            )?;
            note.execute(params![SEEN, now.to_string()])?;
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Durability;

    #[tokio::test]
    async fn a_start_knows_what_the_clock_showed_last() {
        const YEAR: i64 = 365 * 24 * 60 * 60 * 1000;
        let folder = tempfile::tempdir().unwrap();
        let open = |at| {
            let clock = Clock::fixed_at(at);
            (Store::open(&folder.path().join("db"), Durability::Normal, clock.clone()).unwrap(), clock)
        };
        let (store, clock) = open(1_796_000_000_000);
        assert!(clock.is_believed(), "a new installation has nothing that could expire early");
        store.note_clock().await.unwrap();
        drop(store);
        for (later, believed) in [(3_600_000, true), (YEAR, false), (-YEAR, false)] {
            assert_eq!(open(1_796_000_000_000 + later).1.is_believed(), believed, "{later}");
        }
    }
}
