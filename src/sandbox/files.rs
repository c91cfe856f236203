//! Where a room's files are on the host: under `workspaces/` in the state directory, out of reach of Podman's
//! `prune`. They are either an image, a file with an ext4 file system that Podman mounts as the room's volume, so
//! that its size is a hard limit; or, where no image can be mounted, a directory. The room's record lies beside them.
//!
//! Reads only names of its own, never a workspace. `image.rs` knows how an image is made, `creation.rs` makes the
//! volume.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::{error::SandboxError, id_range::IdRange, spec};
use crate::ids::Address;

/// The directory of all rooms' files.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
}

/// The paths of one room's files, whether or not they exist.
#[derive(Clone, Debug)]
pub(super) struct RoomFiles {
    /// The image.
    pub(super) image: PathBuf,
    /// The directory, if there is no image.
    pub(super) directory: PathBuf,
    /// An unfinished image or directory, which is renamed to one of the above once it is whole.
    pub(super) part: PathBuf,
    record: PathBuf,
}

/// Which of the two a room has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Directory,
}

/// What must be known of a room's files even when Podman has lost the room's volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The owner. Records of older versions name no account and belong to the first one.
    #[serde(flatten)]
    pub(super) address: Address,
    /// The first host id of the range to which the files belong; `None` if rootless Podman made them.
    pub(super) ids: Option<u32>,
    /// Whether the files were lost and replaced, and the model has not been told yet.
    #[serde(default)]
    pub(super) lost: bool,
}

impl Record {
    pub(super) fn new(address: &Address, ids: Option<IdRange>) -> Self {
        Self { address: address.clone(), ids: ids.map(|ids| ids.on_host(0)), lost: false }
    }

    pub(super) fn ids(&self) -> Option<IdRange> {
        self.ids.map(IdRange::from_first)
    }
}

impl Files {
    /// Opens the directory, which nobody else on the host may enter.
    pub(super) fn open(state_dir: &Path) -> io::Result<Self> {
        let directory = state_dir.join("workspaces");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        Ok(Self { directory })
    }

    /// Returns the paths of a room's files.
    pub(super) fn of(&self, address: &Address) -> RoomFiles {
        let name = address.digest(16);
        let path = |ending: &str| self.directory.join(format!("{name}{ending}"));
        RoomFiles { image: path(".ext4"), directory: path(""), part: path(".part"), record: path(".json") }
    }

    /// Reads all records. One that cannot be read is logged and skipped.
    pub(super) fn records(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a record of a room's files is unreadable");
                }
            }
        }
        Ok(records)
    }
}

impl RoomFiles {
    /// Returns what the room has; `None` if it has no files.
    pub(super) fn kind(&self) -> Option<Kind> {
        if self.image.exists() {
            Some(Kind::Image)
        } else if self.directory.exists() {
            Some(Kind::Directory)
        } else {
            None
        }
    }

    /// Writes the record.
    pub(super) fn note(&self, record: &Record) -> io::Result<()> {
        let fresh = self.record.with_extension("json.tmp");
        fs::write(&fresh, serde_json::to_vec(record)?)?;
        sync(&fresh)?;
        fs::rename(&fresh, &self.record)
    }

    /// Renames what was made at [`Self::part`] to its final name.
    fn finish(&self, kind: Kind) -> io::Result<()> {
        let finished = match kind {
            Kind::Image => &self.image,
            Kind::Directory => &self.directory,
        };
        fs::rename(&self.part, finished)?;
        sync(finished.parent().unwrap_or(finished))
    }

    /// Writes the record, then makes the finished part count.
    pub(super) async fn keep(&self, kind: Kind, record: &Record) -> Result<(), SandboxError> {
        let (places, record) = (self.clone(), record.clone());
        let work = move || {
            sync(&places.part)?;
            places.note(&record)?;
            places.finish(kind)
        };
        let kept = spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        kept.map_err(|source| SandboxError::Files { path: self.part.clone(), source })
    }

    /// Makes the room's two directories in `root`, on a blocking thread.
    pub(super) async fn furnish(&self, root: PathBuf, ids: Option<IdRange>) -> Result<(), SandboxError> {
        let furnished = spawn_blocking(move || furnish(&root, ids)).await;
        let furnished = furnished.unwrap_or_else(|error| Err(io::Error::other(error)));
        furnished.map_err(|source| SandboxError::Files { path: self.directory.clone(), source })
    }

    /// Removes the record, after everything else of the room is gone.
    pub(super) fn forget(&self) -> io::Result<()> {
        remove_file(&self.image)?;
        remove_file(&self.record)
    }
}

/// Makes the room's two directories in `root` and gives them to the agent's user.
fn furnish(root: &Path, ids: Option<IdRange>) -> io::Result<()> {
    make_directory(root)?;
    for directory in spec::part_directories(root) {
        make_directory(&directory)?;
        // Without root only the container's own root can change owners; sandboxd does it then.
        if let Some(ids) = ids
            && fs::symlink_metadata(&directory)?.uid() == 0
        {
            let agent = ids.on_host(spec::AGENT);
            lchown(&directory, Some(agent), Some(agent))?;
        }
    }
    Ok(())
}

/// Makes a directory, unless it is there.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a file, unless it is gone.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Waits until a file or directory is on the disk (fsync).
pub(super) fn sync(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

fn read(path: &Path) -> io::Result<Record> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_again_and_a_broken_one_is_passed_over() {
        let state = tempfile::tempdir().unwrap();
        let files = Files::open(state.path()).unwrap();
        let (one, two) = (Address::of_first("!one:x"), Address::of_first("!two:x"));
        let record = Record::new(&one, IdRange::from_label("2147614719"));
        files.of(&one).note(&record).unwrap();
        fs::write(files.of(&two).record, b"{").unwrap();
        assert_eq!(files.records().unwrap(), std::slice::from_ref(&record));
        assert_eq!(record.ids(), IdRange::from_label("2147614719"));
    }

    /// Earlier versions made these paths, and existing rooms still have them.
    #[test]
    fn the_files_of_the_first_account_are_those_of_ever() {
        let state = tempfile::tempdir().unwrap();
        let files = Files::open(state.path()).unwrap();
        let of = files.of(&Address::of_first("!room:example.com"));
        let at = |name: &str| state.path().join("workspaces").join(name);
        assert_eq!(of.image, at("7a1d4f8902a98e5a5b3dd81e5966a57c.ext4"));
        assert_eq!(of.directory, at("7a1d4f8902a98e5a5b3dd81e5966a57c"));
        assert_eq!(of.part, at("7a1d4f8902a98e5a5b3dd81e5966a57c.part"));
        let written = r#"{"room":"!room:example.com","ids":2147614719,"lost":false}"#;
        fs::write(at("7a1d4f8902a98e5a5b3dd81e5966a57c.json"), written).unwrap();
        let record = Record::new(&Address::of_first("!room:example.com"), IdRange::from_label("2147614719"));
        assert_eq!(files.records().unwrap(), std::slice::from_ref(&record));
        of.note(&record).unwrap();
        assert_eq!(fs::read_to_string(at("7a1d4f8902a98e5a5b3dd81e5966a57c.json")).unwrap(), written);
    }

    #[test]
    fn accounts_in_one_room_have_files_and_records_of_their_own() {
        let state = tempfile::tempdir().unwrap();
        let files = Files::open(state.path()).unwrap();
        let coder = Address::of_first("!r:x");
        let talk = Address { account: "talk".into(), ..coder.clone() };
        let (ours, theirs) = (files.of(&coder), files.of(&talk));
        assert!(ours.image != theirs.image && ours.directory != theirs.directory && ours.part != theirs.part);
        ours.note(&Record::new(&coder, None)).unwrap();
        theirs.note(&Record::new(&talk, None)).unwrap();
        let mut owners: Vec<_> = files.records().unwrap().into_iter().map(|record| record.address).collect();
        owners.sort();
        assert_eq!(owners, [coder, talk.clone()]);
        ours.forget().unwrap();
        assert_eq!(files.records().unwrap(), [Record::new(&talk, None)]);
    }

    #[test]
    fn what_is_not_finished_does_not_count() {
        let state = tempfile::tempdir().unwrap();
        let files = Files::open(state.path()).unwrap().of(&Address::of_first("!one:x"));
        fs::write(&files.part, b"").unwrap();
        assert_eq!(files.kind(), None);
        files.finish(Kind::Image).unwrap();
        assert_eq!(files.kind(), Some(Kind::Image));
        files.forget().unwrap();
        assert_eq!(files.kind(), None);
    }
}
