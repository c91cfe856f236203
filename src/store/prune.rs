//! Rows that are not needed any more go, in steps so small that others write in between.
//!
//! What goes is found by a read that looks at one page of rows after the other, along the primary key or an index; then
//! the writer deletes what was found, a few milliseconds at a time (`steps.rs`). Whatever was found stays right until then:
//! what has ended does not begin again, and what a compaction hides is never shown again. Of events and ciphertexts it
//! stays known that they were taken (`known`).

mod ciphertexts;
mod forgotten;
mod old;
mod rows;
mod space;
mod steps;

use std::{collections::HashSet, time::Duration};

pub(super) use forgotten::{forget, forgotten_until};

use super::{Store, StoreError};
use crate::ids::Address;

impl Store {
    /// Deletes what is older than `keep` and not needed: events and answers of turns that were closed, what a compaction
    /// or `!new` hides from the model, its calls, what could never be read; and what was given up, whatever its age.
    /// Returns the rooms of whose conversation something went.
    pub async fn prune(&self, keep: Duration) -> Result<HashSet<Address>, StoreError> {
        let before = self.clock.millis() - keep.as_millis() as i64;
        let mut rooms = self.finish_forgetting().await?;
        self.prune_inbound(before).await?;
        self.prune_outbox(before).await?;
        rooms.extend(self.prune_messages(before).await?);
        self.prune_orphans().await?;
        self.prune_turns(before).await?;
        self.prune_notes(before).await?;
        self.prune_locked(before).await?;
        self.fold_ciphertexts(before).await?;
        self.sweep_files().await?;
        self.give_back().await?;
        Ok(rooms)
    }

    /// Deletes what was given up ([`Store::replace_context`] with nothing, [`Store::clear_room`]). What still waits for
    /// its end stays until the next call. Returns the rooms of whose conversation something went.
    pub async fn finish_forgetting(&self) -> Result<HashSet<Address>, StoreError> {
        let mut rooms = HashSet::new();
        for forgotten in self.read(forgotten::forgotten).await? {
            self.forget_room_rows(&forgotten).await?;
            rooms.insert(forgotten.address);
        }
        if !rooms.is_empty() {
            self.give_back().await?;
        }
        Ok(rooms)
    }

    /// Returns when something was given up since the last time, or soon after.
    pub async fn something_forgotten(&self) {
        self.forgetting.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::{ciphertexts::CIPHERTEXTS, forgotten::*, old::*, *};
    use crate::{
        clock::Clock,
        store::{Durability, rooms},
    };

    /// All that looks for what goes, or deletes it.
    const QUERIES: [&str; 20] = [
        FORGOTTEN_MESSAGES,
        FORGOTTEN_INBOUND,
        FORGOTTEN_OUTBOX,
        FORGOTTEN_UNSENT,
        FORGOTTEN_TURNS,
        OLD_INBOUND,
        OLD_OUTBOX,
        OLD_MESSAGES,
        ORPHANS,
        OLD_TURNS,
        OLD_NOTES,
        OLD_LOCKED,
        UNSTAMPED_LOCKED,
        CIPHERTEXTS,
        rooms::HOMES_IN_USE,
        "DELETE FROM calls WHERE message = ?1",
        "DELETE FROM messages WHERE seq = ?1",
        "DELETE FROM inbound WHERE seq = ?1",
        "DELETE FROM outbox WHERE seq = ?1",
        "DELETE FROM turns WHERE turn = ?1",
    ];
    /// Tables that never have more than some rows for each room, what a page was read into, and no table at all.
    const SMALL: [&str; 11] =
        ["CONSTANT", "contexts", "contexts_of_bots", "r", "m", "i", "o", "c", "said", "heard", "worked"];

    #[test]
    fn what_goes_is_found_by_indexes_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        drop(Store::open(&path, Durability::Normal, Clock::fixed_at(1_000)).unwrap());
        let connection = Connection::open(&path).unwrap();
        for query in QUERIES {
            let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
            let count = explain.parameter_count();
            let plan: Vec<String> = explain
                .query_map(rusqlite::params_from_iter(vec![1; count]), |row| row.get(3))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            // Comparisons of several columns at once use the index for all of them, or a page is read again and again.
            let together = query.matches(") > (").count();
            let used = plan.iter().filter(|step| step.contains(")>(")).count();
            // But for a person's events in a room: what was read of them before is deleted by then.
            assert!(used == together || query == FORGOTTEN_INBOUND, "{query}\n{plan:#?}");
            for step in &plan {
                let scanned = step.strip_prefix("SCAN ").map(|rest| rest.split(' ').next().unwrap_or_default());
                // It wants the first row of each index alone.
                let is_first = step.contains("COVERING INDEX") && query == rooms::HOMES_IN_USE;
                let is_small = scanned.is_none_or(|table| SMALL.contains(&table) || table.starts_with('(')) || is_first;
                assert!(is_small && !step.contains("AUTOMATIC"), "{query}\n{plan:#?}");
                assert!(!step.contains("TEMP B-TREE") || query == rooms::HOMES_IN_USE, "{query}\n{plan:#?}");
            }
        }
    }
}
