//! Returns free pages of the file to the file system.

use std::time::Instant;

use rusqlite::Transaction;

use crate::store::{Store, StoreError};

/// Free pages that the file keeps, since new rows need them again.
const RESERVE: i64 = 256;
/// Pages that are returned before the time is checked again.
const GIVEN: u32 = 16;

impl Store {
    /// Returns free pages to the file system, if the file has `auto_vacuum`; otherwise SQLite reuses them.
    pub(super) async fn give_back(&self) -> Result<(), StoreError> {
        let mut more =
            self.read(|tx| Ok(number(tx, "auto_vacuum")? == 2 && number(tx, "freelist_count")? > RESERVE)).await?;
        while more {
            more = self
                .step(|tx, until| {
                    let mut vacuum = tx.prepare(&format!("PRAGMA incremental_vacuum({GIVEN})"))?;
                    loop {
                        let mut pages = vacuum.query([])?;
                        // Each row that this pragma yields is one page.
                        while pages.next()?.is_some() {}
                        let free = number(tx, "freelist_count")?;
                        if free <= RESERVE || Instant::now() >= until {
                            return Ok(free > RESERVE);
                        }
                    }
                })
                .await?;
        }
        Ok(())
    }
}

fn number(tx: &Transaction<'_>, pragma: &str) -> rusqlite::Result<i64> {
    tx.pragma_query_value(None, pragma, |row| row.get(0))
}
