//! Files that are to be sent to a room. They lie beside the database, since SQLite would write their bytes into its
//! log as well, and neither gives the space back. A row of the outbox names its file; a file that no row names is
//! removed.

use std::{
    collections::HashSet,
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use rusqlite::{Connection, Transaction};
use tracing::Span;

use super::{Store, StoreError};
use crate::ids;

/// A file younger than this is not swept: the row that names it may not be written yet.
const SETTLED: Duration = Duration::from_hours(1);

impl Store {
    /// Stores a file for the outbox row with this transaction id, and returns its name for that row. Storing the same
    /// file again returns the same name.
    pub async fn keep_file(&self, txn: &str, data: Bytes) -> Result<String, StoreError> {
        let (folder, name) = (self.files.to_path_buf(), ids::digest(&["file", txn], 16));
        let kept = name.clone();
        blocking(move || write(&folder, &kept, &data)).await?;
        Ok(name)
    }

    /// Reads a stored file; `None` if it is gone.
    pub async fn kept_file(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.files.join(name);
        match blocking(move || fs::read(path)).await {
            Ok(data) => Ok(Some(data)),
            Err(StoreError::File(cause)) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the files of rows that were sent or dropped.
    pub(super) async fn remove_files(&self, names: Vec<String>) {
        if names.is_empty() {
            return;
        }
        let folder = self.files.to_path_buf();
        let removed = blocking(move || {
            for name in names {
                remove(&folder.join(name));
            }
            Ok(())
        });
        // A file that could not be removed is found by the next sweep.
        let _ = removed.await;
    }

    /// Removes files older than [`SETTLED`] that no row names.
    pub(super) async fn sweep_files(&self) -> Result<(), StoreError> {
        let waiting = self.read(|tx| waiting(tx)).await?;
        let folder = self.files.to_path_buf();
        blocking(move || {
            sweep(&folder, &waiting, SETTLED);
            Ok(())
        })
        .await
    }
}

/// Returns the directory for the files of a database.
pub(super) fn folder(database: &Path) -> PathBuf {
    database.with_file_name("outgoing")
}

/// Removes at startup what a crash has left.
pub(super) fn tidy(folder: &Path, connection: &Connection) -> Result<(), StoreError> {
    sweep(folder, &waiting(connection)?, Duration::ZERO);
    Ok(())
}

/// Returns the names of the files of a room's unsent rows.
pub(super) fn unsent(tx: &Transaction<'_>, account: &str, room: &str) -> Result<Vec<String>, StoreError> {
    let mut select = tx
        .prepare_cached("SELECT file FROM outbox WHERE bot = ?1 AND room = ?2 AND sent IS NULL AND file IS NOT NULL")?;
    Ok(select.query_map([account, room], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

fn waiting(connection: &Connection) -> Result<HashSet<String>, StoreError> {
    let mut select = connection.prepare("SELECT file FROM outbox WHERE sent IS NULL AND file IS NOT NULL")?;
    Ok(select.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, StoreError> {
    let span = Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(work)).await.map_err(|_| StoreError::Closed)?;
    done.map_err(|cause| match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
        _ => StoreError::File(cause),
    })
}

fn write(folder: &Path, name: &str, data: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let half = folder.join(format!("{name}.part"));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
    let written = file.write_all(data).and_then(|()| file.sync_data());
    if let Err(error) = written.and_then(|()| fs::rename(&half, folder.join(name))) {
        remove(&half);
        return Err(error);
    }
    Ok(())
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "a file that was sent could not be removed from STATE_DIR");
    }
}

fn sweep(folder: &Path, waiting: &HashSet<String>, settled: Duration) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let needed = entry.file_name().to_str().is_some_and(|name| waiting.contains(name));
        let age = entry.metadata().and_then(|metadata| metadata.modified()).ok().and_then(|at| at.elapsed().ok());
        if !needed && age.unwrap_or_default() >= settled {
            remove(&entry.path());
        }
    }
}
