//! Rewrites the database's file without its free pages, for the subcommand `compact`. The running store never does
//! that.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};

use super::{StoreError, schema};

/// The size of a database's file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The whole file.
    pub file: u64,
    /// Free pages in it.
    pub free: u64,
    /// Whether free pages are returned to the file system. Files that older versions made keep them and reuse them.
    pub gives_back: bool,
}

impl Size {
    /// Reads a database file's size. Blocks.
    ///
    /// # Errors
    ///
    /// The file is no database or cannot be read.
    pub fn of(path: &Path) -> Result<Self, StoreError> {
        let open = |cause| StoreError::Open { path: path.to_owned(), cause };
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(open)?;
        Self::read(&connection).map_err(open)
    }

    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let page = number("page_size")?;
        Ok(Self {
            file: (number("page_count")? * page) as u64,
            free: (number("freelist_count")? * page) as u64,
            gives_back: number("auto_vacuum")? != 0,
        })
    }

    /// Rewrites a database without its free pages and with `auto_vacuum`. The new file replaces the old one by a
    /// rename, so that a crash leaves one or the other. Needs disk space for both, and nobody may have the database
    /// open. Blocks; returns the size before and after.
    ///
    /// # Errors
    ///
    /// The file is missing, is no database or is in use, a newer version of the program has marked it as incompatible
    /// with this one, or the disk is full.
    pub fn compact(path: &Path) -> Result<(Self, Self), StoreError> {
        let open = |cause| StoreError::Open { path: path.to_owned(), cause };
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        remove(&new).map_err(StoreError::File)?;
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(open)?;
        let before = Self::read(&connection).map_err(open)?;
        if !schema::usable(&connection).map_err(open)? {
            return Err(StoreError::Newer { path: path.to_owned() });
        }
        // This also checkpoints and removes the write-ahead log, which must not be applied to the new file. SQLite
        // refuses it while anybody else has the database open.
        connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(())).map_err(open)?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        let made = write(&connection, &new);
        drop(connection);
        let put = made.and_then(|after| {
            fs::rename(&new, path).map_err(StoreError::File)?;
            Ok((before, after))
        });
        if put.is_err() {
            // What remains is removed by the next call.
            let _ = remove(&new);
        }
        put
    }
}

/// Writes a copy without free pages and syncs it to the disk; returns its size.
fn write(connection: &Connection, new: &Path) -> Result<Size, StoreError> {
    connection.execute("VACUUM INTO ?1", [new.to_string_lossy()])?;
    let written = Connection::open_with_flags(new, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let after = Size::read(&written)?;
    drop(written);
    File::open(new).and_then(|file| file.sync_all()).map_err(StoreError::File)?;
    Ok(after)
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::Clock,
        store::{Durability, Store},
    };

    /// Makes a file as an older version left it, with much free space.
    fn old(path: &Path) {
        let connection = Connection::open(path).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; CREATE TABLE t (x BLOB); PRAGMA user_version = 3;
                 INSERT INTO t WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
                     SELECT zeroblob(4000) FROM n;
                 DELETE FROM t WHERE rowid > 10;",
            )
            .unwrap();
    }

    #[test]
    fn an_old_file_gets_small_keeps_what_is_in_it_and_gives_back_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        old(&path);
        fs::write(folder.path().join("db.new"), "what a crash has left").unwrap();
        let (before, after) = Size::compact(&path).unwrap();
        assert!(!before.gives_back && before.free > 3_000_000, "{before:?}");
        assert!(after.gives_back && after.free == 0 && after.file < 100_000, "{after:?}");
        assert_eq!(Size::of(&path).unwrap(), after);
        assert_eq!(fs::metadata(&path).unwrap().len(), after.file);
        let connection = Connection::open(&path).unwrap();
        let rows: i64 = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!((rows, version), (10, 3));
        let beside: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(beside.len(), 1, "{beside:?}");
    }

    #[test]
    fn one_that_is_open_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        old(&path);
        let other = Connection::open(&path).unwrap();
        let _: i64 = other.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert!(matches!(Size::compact(&path), Err(StoreError::Open { .. })));
        assert!(Size::of(&path).unwrap().free > 3_000_000);
    }

    #[test]
    fn a_new_file_gives_back_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        drop(Store::open(&path, Durability::Normal, Clock::fixed_at(1_000)).unwrap());
        assert!(Size::of(&path).unwrap().gives_back);
    }
}
