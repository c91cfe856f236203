//! Rooms that were encrypted once. This is never forgotten: if it could be, whoever brought that about could have
//! later messages sent in the clear.

use super::{Store, StoreError};
use crate::ids::RoomKey;

impl Store {
    /// Notes that rooms are encrypted.
    pub async fn note_encrypted(&self, account: &str, rooms: Vec<RoomKey>) -> Result<(), StoreError> {
        let account = account.to_owned();
        self.write(move |tx| {
            let mut note =
                tx.prepare_cached("INSERT INTO encrypted (bot, room) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
            for room in rooms {
                note.execute([&account, &room.0])?;
            }
            Ok(())
        })
        .await
    }

    /// Returns the rooms that any account has noted as encrypted.
    pub async fn encrypted(&self) -> Result<Vec<RoomKey>, StoreError> {
        self.read(move |tx| {
            let mut select = tx.prepare_cached("SELECT DISTINCT room FROM encrypted")?;
            let rows = select.query_map([], |row| row.get::<_, String>(0).map(RoomKey))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}
