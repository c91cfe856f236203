//! Pruning: deletes rows that are not needed any more, in steps so small that others write in between.
//!
//! A read finds what goes, one page of rows after the other, along the primary key or an index; then the writer
//! deletes those rows, a few milliseconds at a time (`steps.rs`). What a read has found stays true until then: what
//! has ended does not begin again, and what a compaction hides is never shown again. For events and ciphertexts the
//! fact that they were taken is kept (`known.rs`).

mod ahead;
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
    /// or `!new` hides from the model, its calls, what could never be read, the tokens of a day; and what was given up,
    /// whatever its age. Returns the rooms of whose conversation something went.
    pub async fn prune(&self, keep: Duration) -> Result<HashSet<Address>, StoreError> {
        let before = self.clock.millis() - keep.as_millis() as i64;
        let mut rooms = self.finish_forgetting().await?;
        self.set_right().await?;
        self.prune_inbound(before).await?;
        self.prune_outbox(before).await?;
        rooms.extend(self.prune_messages(before).await?);
        self.prune_orphans().await?;
        self.prune_turns(before).await?;
        self.prune_notes(before).await?;
        self.prune_locked(before).await?;
        self.prune_spending(before).await?;
        self.prune_cards(before).await?;
        self.fold_ciphertexts(before).await?;
        self.sweep_files().await?;
        self.give_back().await?;
        Ok(rooms)
    }

    /// Deletes conversations that were given up ([`Store::replace_context`] without messages, [`Store::clear_room`]).
    /// Rows of turns that have not ended stay until a later call. Returns the rooms of which messages went.
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

    /// Waits until a conversation is given up; returns at once if one was since the last call.
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
        store::{Durability, rooms, spending},
    };

    /// All that looks for what goes, or deletes it.
    const QUERIES: [&str; 30] = [
        OLD_CARDS,
        DELETE_CARD,
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
        OLD_SPENT,
        OLD_USAGE,
        OLD_AGENT_USAGE,
        DELETE_SPENT,
        DELETE_USAGE,
        DELETE_AGENT_USAGE,
        spending::SUM,
        spending::PEOPLE_OF_DAY,
        rooms::HOMES_IN_USE,
        "DELETE FROM calls WHERE message = ?1",
        "DELETE FROM messages WHERE seq = ?1",
        "DELETE FROM inbound WHERE seq = ?1",
        "DELETE FROM outbox WHERE seq = ?1",
        "DELETE FROM turns WHERE turn = ?1",
    ];
    /// Tables with at most some rows for each room, subqueries over one page, and constants: a scan of these is
    /// allowed.
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
            // A comparison of several columns must use the index for all of them, or the same page is read again and
            // again.
            let together = query.matches(") > (").count();
            let used = plan.iter().filter(|step| step.contains(")>(")).count();
            // Except for one query, whose earlier rows are deleted by the time it runs again.
            assert!(used == together || query == FORGOTTEN_INBOUND, "{query}\n{plan:#?}");
            for step in &plan {
                let scanned = step.strip_prefix("SCAN ").map(|rest| rest.split(' ').next().unwrap_or_default());
                // This query reads the first row of each index alone.
                let is_first = step.contains("COVERING INDEX") && query == rooms::HOMES_IN_USE;
                let is_small = scanned.is_none_or(|table| SMALL.contains(&table) || table.starts_with('(')) || is_first;
                assert!(is_small && !step.contains("AUTOMATIC"), "{query}\n{plan:#?}");
                assert!(!step.contains("TEMP B-TREE") || query == rooms::HOMES_IN_USE, "{query}\n{plan:#?}");
            }
        }
    }
}
