//! Copies the database of a server that may be running, for a newer program that is tried on the copy.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{BUSY, StoreError};

/// What belongs to the installation and not to its data: the id that its containers carry as a label, the secret of which its keys are
/// made, and where it is. A store makes its own when it finds none.
const OF_THE_INSTALLATION: &str = "DELETE FROM meta WHERE key IN ('instance', 'secret', 'home')";

/// Copies a database as it is at this moment, while others may read and write it, into the file `to`, which must not exist.
/// The copy has everything but the installation's id and secret, so that whoever opens it takes nothing of the installation's
/// for its own; it bears its name only once that is so. Blocks; the copy needs as much space as the original.
///
/// # Errors
///
/// The original cannot be read or is no database of this program, or the copy cannot be written.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let open = |cause| StoreError::Open { path: from.to_owned(), cause };
    let part = to.with_added_extension("part");
    let connection = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(open)?;
    connection.busy_timeout(BUSY)?;
    // One reading transaction: whoever writes meanwhile does not wait, and what they write is not in the copy.
    connection.execute("VACUUM INTO ?1", [part.to_string_lossy()])?;
    drop(connection);
    let copied = Connection::open_with_flags(&part, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    copied.execute_batch(OF_THE_INSTALLATION)?;
    drop(copied);
    std::fs::rename(&part, to).map_err(StoreError::File)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        store::{Durability, Store},
    };

    #[tokio::test]
    async fn a_copy_has_the_rows_of_a_database_in_use_and_belongs_to_no_installation() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("db"), folder.path().join("copy"));
        let store = Store::open(&from, Durability::Normal, Clock::fixed_at(1_000)).unwrap();
        store.note("coder", "what", "noted").await.unwrap();
        copy(&from, &to).unwrap();
        // What is written later is not in it.
        store.note("coder", "what", "later").await.unwrap();
        let copied = Store::open(&to, Durability::Normal, Clock::fixed_at(1_000)).unwrap();
        assert_eq!(copied.noted("coder", "what").await.unwrap().as_deref(), Some("noted"));
        assert_ne!(copied.instance(), store.instance());
        assert_ne!(copied.secret(), store.secret());
        assert!(copy(&from, &to).is_ok() && copy(&folder.path().join("none"), &to).is_err());
    }
}
