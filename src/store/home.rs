//! In which directory a database is used: a copy that is opened elsewhere is known by it for one of a database that another server
//! works with, whose sandboxes it would take for its own.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension};

/// The directory in which it was opened last.
pub(super) const HOME: &str = "home";

/// Notes in which directory it is used from now on.
pub(super) fn settle(connection: &Connection, path: &Path) -> rusqlite::Result<()> {
    let Some(folder) = folder(path) else { return Ok(()) };
    let noted = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value
                 WHERE value != excluded.value";
    connection.execute(noted, [HOME, &folder.to_string_lossy()]).map(drop)
}

/// Returns the directory of the database of which the one at `path` is a copy, if there is that still: it says so itself, and both
/// belong to the same installation. What cannot be read is no copy.
pub(crate) fn copied_from(path: &Path) -> Option<PathBuf> {
    let home = PathBuf::from(noted(path, HOME)?);
    if folder(path).is_none_or(|here| here == home) {
        return None;
    }
    let there = home.join(path.file_name()?);
    (noted(&there, "instance")? == noted(path, "instance")?).then_some(home)
}

fn folder(path: &Path) -> Option<PathBuf> {
    path.parent()?.canonicalize().ok()
}

fn noted(path: &Path, key: &str) -> Option<String> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    let found = connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional();
    found.ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        clock::Clock,
        store::{Durability, Store},
    };

    #[test]
    fn a_copy_knows_where_it_comes_from_and_one_that_was_moved_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).join("db");
        for name in ["one", "two", "three"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let open = |name| drop(Store::open(&at(name), Durability::Normal, Clock::default()).unwrap());
        assert_eq!(copied_from(&at("one")), None, "there is none yet");
        open("one");
        assert_eq!(copied_from(&at("one")), None, "it is at home");
        let copy = |from, to: &str| {
            let connection = Connection::open(at(from)).unwrap();
            connection.execute("VACUUM INTO ?1", [at(to).to_string_lossy()]).unwrap();
        };
        copy("one", "two");
        assert_eq!(copied_from(&at("two")).unwrap(), folder.path().join("one").canonicalize().unwrap());
        open("two");
        assert_eq!(copied_from(&at("two")), None, "it has settled there");
        copy("two", "three");
        assert!(copied_from(&at("three")).is_some());
        fs::remove_file(at("two")).unwrap();
        assert_eq!(copied_from(&at("three")), None, "there is none any more where it was");
        open("two");
        assert_eq!(copied_from(&at("three")), None, "what is there is another installation's");
    }
}
