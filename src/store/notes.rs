//! Small values that a chat protocol needs after a restart: the event of a progress message, the address of an
//! upload. The store does not know what they mean. They are pruned like old turns.

use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError};

impl Store {
    /// Stores a value under a key, in place of an older one.
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

    /// Returns the value under a key.
    pub async fn noted(&self, account: &str, key: &str) -> Result<Option<String>, StoreError> {
        let (account, key) = (account.to_owned(), key.to_owned());
        self.read(move |tx| {
            let mut select = tx.prepare_cached("SELECT value FROM notes WHERE bot = ?1 AND key = ?2")?;
            Ok(select.query_row([&account, &key], |row| row.get(0)).optional()?)
        })
        .await
    }

    /// Deletes the value under a key.
    pub async fn forget(&self, account: &str, key: &str) -> Result<(), StoreError> {
        let (account, key) = (account.to_owned(), key.to_owned());
        self.write(move |tx| {
            tx.prepare_cached("DELETE FROM notes WHERE bot = ?1 AND key = ?2")?.execute([&account, &key])?;
            Ok(())
        })
        .await
    }
}
