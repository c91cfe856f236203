//! Small facts that a chat protocol wants to find again after a restart: which event a progress message has, where an
//! upload lies. The store does not know what they mean; they are pruned with old turns.

use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError};

impl Store {
    /// Notes a value under a key, in place of an older one.
    pub async fn note(&self, account: &str, key: &str, value: &str) -> Result<(), StoreError> {
        let (account, key, value, now) = (account.to_owned(), key.to_owned(), value.to_owned(), self.clock.millis());
        self.write(move |tx| {
            tx.prepare_cached(
                "INSERT INTO notes (bot, key, value, noted) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (bot, key) DO UPDATE SET value = excluded.value, noted = excluded.noted",
            )?
            .execute(params![account, key, value, now])?;
            Ok(())
        })
        .await
    }

    /// Returns what was noted under a key.
    pub async fn noted(&self, account: &str, key: &str) -> Result<Option<String>, StoreError> {
        let (account, key) = (account.to_owned(), key.to_owned());
        self.read(move |tx| {
            let mut select = tx.prepare_cached("SELECT value FROM notes WHERE bot = ?1 AND key = ?2")?;
            Ok(select.query_row([&account, &key], |row| row.get(0)).optional()?)
        })
        .await
    }

    /// Forgets a key.
    pub async fn forget(&self, account: &str, key: &str) -> Result<(), StoreError> {
        let (account, key) = (account.to_owned(), key.to_owned());
        self.write(move |tx| {
            tx.prepare_cached("DELETE FROM notes WHERE bot = ?1 AND key = ?2")?.execute([&account, &key])?;
            Ok(())
        })
        .await
    }
}
