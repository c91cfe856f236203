//! The ciphertexts that were read: each is taken once, for one event. This stays known when a room is deleted, since
//! a homeserver can send an old message again at any time.

use std::collections::HashSet;

use rusqlite::params;

use super::{
    Store, StoreError, journal,
    known::{self, Sealed},
};
use crate::ids::EventId;

impl Store {
    /// Takes ciphertexts for their events. Returns the events whose ciphertext another event has taken before; the
    /// same event may come again.
    pub async fn take_ciphertexts(
        &self,
        account: &str,
        sealed: Vec<(EventId, Sealed)>,
    ) -> Result<HashSet<EventId>, StoreError> {
        let (account, now) = (account.to_owned(), self.clock.millis());
        self.write(move |tx| {
            let mut take = tx.prepare_cached(
                "INSERT INTO ciphertexts (bot, session, place, event, taken) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (bot, session, place) DO NOTHING",
            )?;
            let mut taken =
                tx.prepare_cached("SELECT event FROM ciphertexts WHERE bot = ?1 AND session = ?2 AND place = ?3")?;
            let mut replayed = HashSet::new();
            for (event, sealed) in sealed {
                if known::has_ciphertext(tx, &account, &sealed)? {
                    // The event that took it is pruned. If it is this one, the journal knows it and does not take it
                    // again.
                    if !journal::has(tx, &account, &event)? {
                        replayed.insert(event);
                    }
                    continue;
                }
                let Sealed { session, place } = sealed;
                take.execute(params![account, session, place, event.as_str(), now])?;
                let by: String = taken.query_row(params![account, session, place], |row| row.get(0))?;
                if by != event.as_str() {
                    replayed.insert(event);
                }
            }
            Ok(replayed)
        })
        .await
    }
}
