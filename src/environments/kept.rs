//! The environments that are kept: in one folder, an archive each and beside it what is known of it.
//!
//! What counts was whole when it got its name: it is written under another one, brought to the disk and renamed, the
//! archive first. What a killed server has left unfinished is removed when the folder is opened.

use std::{
    cmp::Reverse,
    fs,
    io::{self, Write},
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
    /// The archives' size in bytes.
    pub(super) bytes: u64,
    /// Whether there is one for root.
    #[serde(default)]
    pub(super) system: bool,
    /// How many seconds the script took.
    pub(super) seconds: u64,
}

/// An environment that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name in the folder.
    pub(super) key: String,
    /// How people call the repository.
    pub repository: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was brought into a room last, or made.
    pub used: SystemTime,
}

/// One of an environment's archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Archive {
    /// What is unpacked as the agent's user. Every environment has it.
    Agent,
    /// What is unpacked as root.
    System,
}

impl Archive {
    fn ending(self) -> &'static str {
        match self {
            Self::Agent => "tar",
            Self::System => "system",
        }
    }
}

/// The folder.
#[derive(Debug)]
pub(super) struct Kept {
    folder: PathBuf,
    /// The most bytes that all take together.
    bound: u64,
}

/// An archive that is being written. Dropped, it was never there.
pub(super) struct Part {
    path: PathBuf,
    finished: PathBuf,
    file: fs::File,
}

impl Part {
    /// Writes the next bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }
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
            let [agent, system, record] = ["tar", "system", "json"].map(|ending| path.with_extension(ending));
            if !(agent.exists() && record.exists() && [agent, system, record].contains(&path)) {
                fs::remove_file(&path)?;
            }
        }
        Ok(Self { folder, bound })
    }

    /// Returns what is known of an environment; `None` if it is not kept.
    pub(super) fn find(&self, key: &str) -> Option<Record> {
        find(&self.folder, key)
    }

    /// Opens an archive and notes that it is used.
    pub(super) fn read(&self, key: &str, archive: Archive, now: SystemTime) -> io::Result<fs::File> {
        let file = fs::File::open(self.path(key, archive.ending()))?;
        file.set_modified(now)?;
        Ok(file)
    }

    /// Begins an archive.
    pub(super) fn begin(&self, key: &str, archive: Archive) -> io::Result<Part> {
        let finished = self.path(key, archive.ending());
        let path = self.path(key, &format!("{}-part", archive.ending()));
        let file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        Ok(Part { path, finished, file })
    }

    /// Makes what was written count, and lets go of those that were used longest ago where there are too many.
    pub(super) fn keep(&self, key: &str, parts: &[Part], record: &Record, now: SystemTime) -> io::Result<()> {
        for part in parts {
            part.file.set_modified(now)?;
            part.file.sync_all()?;
        }
        let fresh = self.path(key, "new");
        let mut about = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        about.write_all(&serde_json::to_vec(record)?)?;
        about.sync_all()?;
        for part in parts {
            fs::rename(&part.path, &part.finished)?;
        }
        fs::rename(&fresh, self.path(key, "json"))?;
        fs::File::open(&self.folder)?.sync_all()?;
        self.prune(key)
    }

    /// Lets go of an environment.
    pub(super) fn remove(&self, key: &str) -> io::Result<()> {
        fs::remove_file(self.path(key, "json"))?;
        let _ = fs::remove_file(self.path(key, "system")); // few have one
        fs::remove_file(self.path(key, "tar"))
    }

    /// Returns the most bytes that all may take together, and therefore one.
    pub(super) fn bound(&self) -> u64 {
        self.bound
    }

    /// Removes those that were used longest ago until the bounds hold, `newest` apart.
    fn prune(&self, newest: &str) -> io::Result<()> {
        let (mut number, mut bytes) = (0, 0);
        let mut list = list(&self.folder)?;
        list.sort_by_key(|listed| listed.key != newest);
        for listed in list {
            number += 1;
            bytes += listed.bytes;
            if listed.key != newest && (number > MOST || bytes > self.bound) {
                tracing::info!(
                    repository = listed.repository,
                    "an environment that was not used for long is let go of"
                );
                self.remove(&listed.key)?;
            }
        }
        Ok(())
    }

    fn path(&self, key: &str, ending: &str) -> PathBuf {
        path(&self.folder, key, ending)
    }
}

/// Lists what is kept in a folder, what was used last first, and changes nothing.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Listed>> {
    let mut list = Vec::new();
    for entry in fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        let is_archive = path.extension().is_some_and(|extension| extension == "tar");
        let Some(key) = path.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_archive) else { continue };
        if let Some(Record { repository, bytes, .. }) = find(folder, key) {
            list.push(Listed { key: key.to_owned(), repository, bytes, used: entry.metadata()?.modified()? });
        }
    }
    list.sort_by_key(|listed| (Reverse(listed.used), listed.key.clone()));
    Ok(list)
}

fn find(folder: &Path, key: &str) -> Option<Record> {
    let record = fs::read(path(folder, key, "json")).ok()?;
    path(folder, key, "tar").exists().then(|| serde_json::from_slice(&record).ok())?
}

fn path(folder: &Path, key: &str, ending: &str) -> PathBuf {
    folder.join(format!("{key}.{ending}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn put(kept: &Kept, key: &str, bytes: u64, used: u64) {
        let parts = [Archive::Agent, Archive::System].map(|archive| {
            let mut part = kept.begin(key, archive).unwrap();
            part.write(&vec![0; bytes as usize / 2]).unwrap();
            part
        });
        let (repository, script) = ("acme/site".to_owned(), "a.sh".to_owned());
        let record = Record { repository, script, bytes, system: true, seconds: 1 };
        kept.keep(key, &parts, &record, at(used)).unwrap();
    }

    fn keys(kept: &Kept) -> Vec<String> {
        list(&kept.folder).unwrap().into_iter().map(|listed| listed.key).collect()
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::open(folder.path().join("kept"), 250).unwrap();
        put(&kept, "a", 100, 1);
        put(&kept, "b", 100, 2);
        drop(kept.read("a", Archive::Agent, at(3)).unwrap());
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
        let part = kept.begin("part", Archive::Agent).unwrap();
        std::mem::forget(part); // as a kill does
        for name in ["archive.tar", "other.system", "record.json", "record.new"] {
            fs::write(folder.path().join("kept").join(name), b"{}").unwrap();
        }
        let kept = open();
        assert_eq!(keys(&kept), ["whole"]);
        assert_eq!(fs::read_dir(folder.path().join("kept")).unwrap().count(), 3);
        drop(kept.begin("part", Archive::System).unwrap());
        assert_eq!(fs::read_dir(folder.path().join("kept")).unwrap().count(), 3, "what is dropped was never there");
    }
}
