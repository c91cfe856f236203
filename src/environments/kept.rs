//! The environments that are kept: in one folder, an archive each and beside it what is known of it.
//!
//! What counts was whole when it got its name: it is written under another one, brought to the disk and renamed, the
//! archive first. What a killed server has left unfinished is removed when the folder is opened.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

/// The most environments, however small.
const MOST: usize = 64;

/// What is known of an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// How people call the repository.
    pub(super) repository: String,
    /// The script that made it.
    pub(super) script: String,
    /// The archive's size in bytes.
    pub(super) bytes: u64,
    /// How many seconds the script took.
    pub(super) seconds: u64,
}

/// The folder.
#[derive(Debug)]
pub(super) struct Kept {
    folder: PathBuf,
    /// The most bytes that all take together.
    bound: u64,
}

/// An environment that is being written. Dropped, it was never there.
pub(super) struct Part {
    /// The unfinished archive.
    pub(super) path: PathBuf,
    key: String,
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path); // renamed already, or removed with the next start
    }
}

impl Kept {
    /// Opens the folder, which nobody else on the host may enter.
    pub(super) fn open(folder: PathBuf, bound: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)?.flatten() {
            let path = entry.path();
            let (archive, record) = (path.with_extension("tar"), path.with_extension("json"));
            if !(archive.exists() && record.exists() && (path == archive || path == record)) {
                fs::remove_file(&path)?;
            }
        }
        Ok(Self { folder, bound })
    }

    /// Returns what is known of an environment; `None` if it is not kept.
    pub(super) fn find(&self, key: &str) -> Option<Record> {
        let record = fs::read(self.path(key, "json")).ok()?;
        self.path(key, "tar").exists().then(|| serde_json::from_slice(&record).ok())?
    }

    /// Opens an environment's archive and notes that it is used.
    pub(super) fn read(&self, key: &str, now: SystemTime) -> io::Result<fs::File> {
        let file = fs::File::open(self.path(key, "tar"))?;
        file.set_modified(now)?;
        Ok(file)
    }

    /// Begins an environment.
    pub(super) fn begin(&self, key: &str) -> io::Result<(Part, fs::File)> {
        let part = Part { path: self.path(key, "part"), key: key.to_owned() };
        let file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&part.path)?;
        Ok((part, file))
    }

    /// Makes what was written count, and lets go of those that were used longest ago where there are too many.
    pub(super) fn keep(&self, part: &Part, file: &fs::File, record: &Record, now: SystemTime) -> io::Result<()> {
        file.sync_all()?;
        file.set_modified(now)?;
        let (fresh, key) = (self.path(&part.key, "new"), &part.key);
        let mut about = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        io::Write::write_all(&mut about, &serde_json::to_vec(record)?)?;
        about.sync_all()?;
        fs::rename(&part.path, self.path(key, "tar"))?;
        fs::rename(&fresh, self.path(key, "json"))?;
        fs::File::open(&self.folder)?.sync_all()?;
        self.prune(key)
    }

    /// Lets go of an environment.
    pub(super) fn remove(&self, key: &str) -> io::Result<()> {
        fs::remove_file(self.path(key, "json"))?;
        fs::remove_file(self.path(key, "tar"))
    }

    /// Returns the most bytes that all may take together, and therefore one.
    pub(super) fn bound(&self) -> u64 {
        self.bound
    }

    /// Returns the environments, the one that was used last first: their keys, records and times.
    pub(super) fn list(&self) -> io::Result<Vec<(String, Record, SystemTime)>> {
        let mut list = Vec::new();
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let path = entry.path();
            let is_archive = path.extension().is_some_and(|extension| extension == "tar");
            let Some(key) = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_archive) else { continue };
            if let Some(record) = self.find(key) {
                list.push((key.to_owned(), record, entry.metadata()?.modified()?));
            }
        }
        list.sort_by_key(|(key, _, used)| (std::cmp::Reverse(*used), key.clone()));
        Ok(list)
    }

    /// Removes those that were used longest ago until the bounds hold, `newest` apart.
    fn prune(&self, newest: &str) -> io::Result<()> {
        let (mut number, mut bytes) = (0, 0);
        let mut list = self.list()?;
        list.sort_by_key(|(key, ..)| key != newest);
        for (key, record, _) in list {
            number += 1;
            bytes += record.bytes;
            if key != newest && (number > MOST || bytes > self.bound) {
                tracing::info!(
                    repository = record.repository,
                    "an environment that was not used for long is let go of"
                );
                self.remove(&key)?;
            }
        }
        Ok(())
    }

    fn path(&self, key: &str, ending: &str) -> PathBuf {
        Path::new(&self.folder).join(format!("{key}.{ending}"))
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, time::Duration};

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn put(kept: &Kept, key: &str, bytes: u64, used: u64) {
        let (part, mut file) = kept.begin(key).unwrap();
        file.write_all(&vec![0; bytes as usize]).unwrap();
        let record = Record { repository: "acme/site".into(), script: "a.sh".into(), bytes, seconds: 1 };
        kept.keep(&part, &file, &record, at(used)).unwrap();
    }

    fn keys(kept: &Kept) -> Vec<String> {
        kept.list().unwrap().into_iter().map(|(key, ..)| key).collect()
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::open(folder.path().join("kept"), 250).unwrap();
        put(&kept, "a", 100, 1);
        put(&kept, "b", 100, 2);
        drop(kept.read("a", at(3)).unwrap());
        put(&kept, "c", 100, 4);
        assert_eq!(keys(&kept), ["c", "a"]);
        assert!(kept.find("b").is_none());
        put(&kept, "d", 1000, 1);
        assert_eq!(keys(&kept), ["d"], "the one just made stays, whatever it takes");
    }

    #[test]
    fn what_is_not_whole_is_gone_with_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Kept::open(folder.path().join("kept"), 1000).unwrap();
        let kept = open();
        put(&kept, "whole", 1, 1);
        let (part, _file) = kept.begin("part").unwrap();
        std::mem::forget(part); // as a kill does
        for name in ["archive.tar", "record.json", "record.new"] {
            fs::write(folder.path().join("kept").join(name), b"{}").unwrap();
        }
        let kept = open();
        assert_eq!(keys(&kept), ["whole"]);
        assert_eq!(fs::read_dir(folder.path().join("kept")).unwrap().count(), 2);
        drop(kept.begin("part").unwrap());
        assert_eq!(fs::read_dir(folder.path().join("kept")).unwrap().count(), 2, "what is dropped was never there");
    }
}
