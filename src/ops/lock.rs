//! The lock of a state directory: one process owns its database, its sandboxes and its sockets.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

/// The lock's file in the state directory, which contains the owner's pid.
const FILE: &str = "lock";
/// The file that `scripts/restore.sh` leaves in the state directory from its first change to its last: until then the database may
/// be away, and whoever began with an empty one would take all rooms' sandboxes for nobody's.
const RESTORING: &str = "restoring";

/// Holds the lock until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Another process holds it.
    #[error("Another matrix-agent (process {pid}) works with {}. Stop it first, or give this one another `STATE_DIR`.", state.display())]
    Held {
        /// Its pid.
        pid: String,
        /// The state directory.
        state: PathBuf,
    },
    /// A backup has come back only in part.
    #[error("A restore in {} was cut off, or is under way. If it is over, run scripts/restore.sh again with its backup: it puts back what was there, and begins anew.", state.display())]
    Restoring {
        /// The state directory.
        state: PathBuf,
    },
    /// The file cannot be used.
    #[error("The lock in {} cannot be taken: {cause}. Check that the folder belongs to this user.", state.display())]
    Io {
        /// The state directory.
        state: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

impl Lock {
    /// Takes the lock of a state directory, unless a restore has not come to its end there.
    pub(crate) fn take(state: &Path) -> Result<Self, LockError> {
        let io = |cause| LockError::Io { state: state.to_owned(), cause };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(state.join(FILE))
            .map_err(io)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0).map_err(io)?;
                file.rewind().map_err(io)?;
                write!(file, "{}", std::process::id()).map_err(io)?;
                // The script looks for the lock after it has left its file, so that one of both gives way.
                if is_restoring(state).map_err(io)? {
                    return Err(LockError::Restoring { state: state.to_owned() });
                }
                Ok(Self { _file: file })
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                // The owner may be writing it at this moment; the message is right without it too.
                let _ = file.read_to_string(&mut pid);
                Err(LockError::Held {
                    pid: if pid.is_empty() { "unknown".into() } else { pid },
                    state: state.to_owned(),
                })
            }
            Err((_, errno)) => Err(io(errno.into())),
        }
    }

    /// Returns the process that holds a state directory's lock, from the kernel's list of locks: taking the lock to find
    /// out would turn away a server that starts at that moment.
    pub(crate) fn owner(state: &Path) -> Option<u32> {
        let lock = fs::metadata(state.join(FILE)).ok()?;
        let (major, minor) = (nix::sys::stat::major(lock.dev()), nix::sys::stat::minor(lock.dev()));
        let file = format!("{major:02x}:{minor:02x}:{}", lock.ino());
        let locks = fs::read_to_string("/proc/locks").ok()?;
        let line =
            locks.lines().find(|line| line.contains("FLOCK") && line.split_whitespace().any(|word| word == file))?;
        // `1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF`
        line.split_whitespace().nth(4)?.parse().ok()
    }
}

/// Returns whether a restore of a state directory has begun and not come to its end.
pub(super) fn is_restoring(state: &Path) -> std::io::Result<bool> {
    match fs::symlink_metadata(state.join(RESTORING)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_holds_it_and_the_next_may_have_it() {
        let state = tempfile::tempdir().unwrap();
        let first = Lock::take(state.path()).unwrap();
        let refused = Lock::take(state.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        Lock::take(state.path()).unwrap();
    }

    #[test]
    fn nobody_works_with_a_state_directory_that_was_restored_in_part() {
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join("restoring"), "").unwrap();
        let refused = Lock::take(state.path()).unwrap_err().to_string();
        assert!(refused.contains("run scripts/restore.sh again"), "{refused}");
        fs::remove_file(state.path().join("restoring")).unwrap();
        Lock::take(state.path()).unwrap();
    }

    #[test]
    fn the_owner_of_the_lock_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Lock::owner(folder.path()), None);
        let file = File::create(folder.path().join("lock")).unwrap();
        file.lock().unwrap();
        assert_eq!(Lock::owner(folder.path()), Some(std::process::id()));
        drop(file);
        assert_eq!(Lock::owner(folder.path()), None);
    }
}
