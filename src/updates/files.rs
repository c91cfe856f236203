//! JSON in files that are there whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use super::UpdateError;
use crate::ids;

/// The largest file that is read, in bytes.
const MOST: u64 = 1 << 20;

fn fail(path: &Path) -> impl FnOnce(io::Error) -> UpdateError + use<> {
    let path = path.to_owned();
    move |cause| UpdateError::Io { path, cause }
}

/// Reads a file; `None` if it is not there.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, UpdateError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(fail(path))?,
    };
    let value = serde_json::from_reader(io::Read::take(file, MOST));
    value.map(Some).map_err(|cause| UpdateError::Broken { path: path.to_owned(), cause })
}

/// Writes a file in place of what was there; it is on the disk when this returns.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), UpdateError> {
    let new = written(path, value)?;
    fs::rename(&new, path).map_err(fail(path))?;
    sync_folder(path)
}

/// The same, unless there is one.
pub(super) fn make<T: Serialize>(path: &Path, value: &T) -> Result<(), UpdateError> {
    let new = written(path, value)?;
    let made = fs::hard_link(&new, path);
    let removed = fs::remove_file(&new);
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(UpdateError::Busy),
        made => made.and(removed).map_err(fail(path))?,
    }
    sync_folder(path)
}

/// Removes a file, which need not be there.
pub(super) fn remove(path: &Path) -> Result<(), UpdateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(fail(path))?,
    }
    sync_folder(path)
}

/// Writes a value beside the file that it is for, under a name of its own.
fn written<T: Serialize>(path: &Path, value: &T) -> Result<PathBuf, UpdateError> {
    let folder = path.parent().unwrap_or(path);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fail(folder))?;
    let new = path.with_added_extension(ids::random(4));
    let text = serde_json::to_vec(value).map_err(|cause| UpdateError::Broken { path: path.to_owned(), cause })?;
    let put = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()
    };
    put().map_err(|cause| {
        // On a full disk an empty one would stay.
        let _ = fs::remove_file(&new);
        fail(&new)(cause)
    })?;
    Ok(new)
}

fn sync_folder(path: &Path) -> Result<(), UpdateError> {
    let folder = path.parent().unwrap_or(path);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_and_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.json");
        assert_eq!(read::<String>(&path).unwrap(), None);
        make(&path, &"one").unwrap();
        assert!(matches!(make(&path, &"two"), Err(UpdateError::Busy)));
        assert_eq!(read::<String>(&path).unwrap().as_deref(), Some("one"));
        write(&path, &"three").unwrap();
        assert_eq!(read::<String>(&path).unwrap().as_deref(), Some("three"));
        fs::write(&path, "\"one").unwrap();
        assert!(matches!(read::<String>(&path), Err(UpdateError::Broken { .. })));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }
}
