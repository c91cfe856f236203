//! Creates directories that only this service may enter, and refuses those that somebody else has prepared.
//!
//! The default for IPC is in `/tmp`, where anybody may come first. No path is used that a stranger could redirect:
//! every directory above must belong to root or to this user, and one that others can write to must be sticky.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::DATABASE;
use crate::text;

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    /// It, or a directory above it, belongs to somebody else.
    #[error("{} belongs to user {owner}, who could read or replace what is in it. Choose another directory, or remove it if you know who made it.", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The owner's user id.
        owner: u32,
    },
    /// Others can rename entries of a directory above.
    #[error("Everybody may rename what lies in {}. Choose a directory elsewhere, or take the right to write from the others.", path.display())]
    Open {
        /// That directory.
        path: PathBuf,
    },
    /// It is open to others and holds what is somebody else's, so it is not closed.
    #[error("{} is open to other users and holds what is not this program's, such as `{entry}`. Choose a directory of its own.", path.display())]
    Shared {
        /// The directory.
        path: PathBuf,
        /// An entry in it.
        entry: String,
    },
    /// It is a link or a file.
    #[error("{} is no directory (a link is not followed). Remove it or choose another one.", path.display())]
    NotAFolder {
        /// Its path.
        path: PathBuf,
    },
    /// The system refused an operation.
    #[error("{} cannot be used: {cause}.", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// What people put into a state directory before a server has used it, and what a disk of its own has.
/// With `secrets` comes `matrix`, where a bot's account was logged in before the first start.
const BEFORE_US: [&str; 4] = ["secrets", "matrix", "redeploy", "lost+found"];

/// Returns whether other users can look into a directory of this mode, or write there. To pass through is harmless, and some runtimes
/// of containers need it.
pub(crate) fn is_open(mode: u32) -> bool {
    mode & 0o066 != 0
}

/// Makes a directory of the settings private, as [`make_private`] does, unless it is open to others and holds what is not this
/// program's: it is the system's then, or somebody's. With its database in it a directory is this program's.
pub(crate) fn take_over(path: &Path) -> Result<(), FolderError> {
    check_unshared(path)?;
    make_private(path)
}

/// Checks whether [`take_over`] would refuse the directory for what is in it.
pub(crate) fn check_unshared(path: &Path) -> Result<(), FolderError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.is_dir() || !is_open(metadata.mode()) || path.join(DATABASE).exists() {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(fail(path))? {
        let entry = entry.map_err(fail(path))?.file_name().to_string_lossy().into_owned();
        if !BEFORE_US.contains(&entry.as_str()) {
            return Err(FolderError::Shared { path: path.to_owned(), entry: text::one_line(&entry, 60) });
        }
    }
    Ok(())
}

/// Makes the directory private to this user (mode 0700); creates it and missing directories above it.
pub(crate) fn make_private(path: &Path) -> Result<(), FolderError> {
    let parent = path.parent().ok_or_else(|| FolderError::NotAFolder { path: path.to_owned() })?;
    DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(fail(parent))?;
    check_all_above(parent)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fail(path)(error)),
        _ => {}
    }
    let folder = open_ours(path)?;
    if folder.metadata().map_err(fail(path))?.mode() & 0o7777 != 0o700 {
        folder.set_permissions(Permissions::from_mode(0o700)).map_err(fail(path))?;
    }
    Ok(())
}

/// Checks whether [`make_private`] would refuse the directory, without changing anything; returns whether it exists.
pub(crate) fn check_private(path: &Path) -> Result<bool, FolderError> {
    if fs::symlink_metadata(path).is_ok() {
        check_all_above(path.parent().unwrap_or(path))?;
        let owner = open_ours(path)?.metadata().map_err(fail(path))?.uid();
        return match check_writable(path) {
            // The owner gets the right to write from `make_private`.
            Err(FolderError::Io { cause, .. })
                if cause.kind() == io::ErrorKind::PermissionDenied && owner == nix::unistd::geteuid().as_raw() =>
            {
                Ok(true)
            }
            checked => checked.map(|()| true),
        };
    }
    let existing = path.ancestors().find(|above| above.exists()).unwrap_or(path);
    check_all_above(existing)?;
    check_writable(existing).map(|()| false)
}

/// Checks whether this user can make files in the directory: its file system may be read-only, too.
fn check_writable(path: &Path) -> Result<(), FolderError> {
    nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).map_err(|errno| fail(path)(errno.into()))
}

fn fail(path: &Path) -> impl FnOnce(io::Error) -> FolderError + use<> {
    let path = path.to_owned();
    move |cause| FolderError::Io { path, cause }
}

/// Checks the path as given, with its links, and the path to which these lead: both must stay as they are.
fn check_all_above(parent: &Path) -> Result<(), FolderError> {
    let real = fs::canonicalize(parent).map_err(fail(parent))?;
    parent.ancestors().chain(real.ancestors()).try_for_each(check_above)
}

fn check_above(path: &Path) -> Result<(), FolderError> {
    const STICKY: u32 = 0o1000;
    let metadata = fs::symlink_metadata(path).map_err(fail(path))?;
    if !trusted(metadata.uid()) {
        return Err(FolderError::Foreign { path: path.to_owned(), owner: metadata.uid() });
    }
    // A group of this user's own (Ubuntu gives every user one) has no other members.
    let ours = metadata.gid() == 0 || metadata.gid() == nix::unistd::getegid().as_raw();
    let shared = if ours { 0o002 } else { 0o022 };
    // A link has no mode of its own; only its owner can change where it leads.
    if !metadata.is_symlink() && metadata.mode() & shared != 0 && metadata.mode() & STICKY == 0 {
        return Err(FolderError::Open { path: path.to_owned() });
    }
    Ok(())
}

fn trusted(owner: u32) -> bool {
    owner == 0 || owner == nix::unistd::geteuid().as_raw()
}

fn open_ours(path: &Path) -> Result<File, FolderError> {
    let foreign = |owner| FolderError::Foreign { path: path.to_owned(), owner };
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let folder = match opened.map_err(|cause| (cause.raw_os_error(), cause)) {
        Ok(folder) => folder,
        Err((Some(libc::ENOTDIR | libc::ELOOP), _)) => return Err(FolderError::NotAFolder { path: path.to_owned() }),
        // Only somebody else's directory cannot be opened by its user or root.
        Err((Some(libc::EACCES), _)) => {
            return Err(foreign(fs::symlink_metadata(path).map_err(fail(path))?.uid()));
        }
        Err((_, cause)) => return Err(fail(path)(cause)),
    };
    let owner = folder.metadata().map_err(fail(path))?.uid();
    if trusted(owner) { Ok(folder) } else { Err(foreign(owner)) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    /// Returns a directory like `/tmp`: sticky and open to everybody.
    fn shared() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        folder
    }

    #[test]
    fn is_made_for_us_alone_and_tightened() {
        let shared = shared();
        let path = shared.path().join("a/b/ipc");
        assert!(!check_private(&path).unwrap(), "looking makes nothing");
        make_private(&path).unwrap();
        assert!(check_private(&path).unwrap());
        assert_eq!(mode(&path), 0o700);
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        make_private(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn what_is_open_to_all_and_holds_others_things_is_not_closed() {
        let shared = shared();
        for (of_it, mode_of_it, is_ours) in [
            (&["a"][..], 0o755, false),
            (&["a"], 0o1777, false),
            (&["a"], 0o700, true),
            (&["a"], 0o711, true),
            (&["a"], 0o2700, true),
            (&[], 0o1777, true),
            (&["lost+found", "matrix", "redeploy", "secrets"], 0o755, true),
            (&["lock", "secrets"], 0o755, false),
            (&["a", "matrix-agent.db"], 0o755, true),
        ] {
            let path = tempfile::tempdir_in(shared.path()).unwrap().keep();
            for name in of_it {
                fs::write(path.join(name), "").unwrap();
            }
            fs::set_permissions(&path, Permissions::from_mode(mode_of_it)).unwrap();
            let checked = check_unshared(&path);
            let taken = take_over(&path);
            assert_eq!((checked.is_ok(), taken.is_ok()), (is_ours, is_ours), "{of_it:?} {mode_of_it:o}: {taken:?}");
            assert_eq!(mode(&path), if is_ours { 0o700 } else { mode_of_it }, "{of_it:?}");
        }
        for system in ["/", "/etc", "/usr", "/var"] {
            assert!(matches!(check_unshared(Path::new(system)), Err(FolderError::Shared { .. })), "{system}");
        }
    }

    #[test]
    fn links_and_files_are_refused() {
        let shared = shared();
        let target = shared.path().join("target");
        fs::create_dir(&target).unwrap();
        fs::set_permissions(&target, Permissions::from_mode(0o755)).unwrap();
        let link = shared.path().join("link");
        symlink(&target, &link).unwrap();
        assert!(matches!(make_private(&link), Err(FolderError::NotAFolder { .. })));
        assert_eq!(mode(&target), 0o755, "what a link leads to is not touched");
        let dangling = shared.path().join("dangling");
        symlink(shared.path().join("nowhere"), &dangling).unwrap();
        assert!(matches!(make_private(&dangling), Err(FolderError::NotAFolder { .. })));
        assert!(!shared.path().join("nowhere").exists());
        let file = shared.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(make_private(&file), Err(FolderError::NotAFolder { .. })));
        assert!(make_private(Path::new("/")).is_err());
    }

    #[test]
    fn what_everybody_may_rename_is_refused() {
        let shared = shared();
        let open = shared.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(make_private(&open.join("ipc")), Err(FolderError::Open { path }) if path == open));
    }

    #[test]
    fn strangers_folders_are_refused() {
        if !nix::unistd::geteuid().is_root() {
            return; // Only root can make a stranger's folder.
        }
        let shared = shared();
        let path = shared.path().join("ipc");
        fs::create_dir(&path).unwrap();
        chown(&path, Some(4242), Some(4242)).unwrap();
        let refused = make_private(&path).unwrap_err();
        assert!(matches!(refused, FolderError::Foreign { owner: 4242, .. }), "{refused}");
        assert!(matches!(check_private(&path), Err(FolderError::Foreign { owner: 4242, .. })));
        assert!(matches!(make_private(&path.join("below")), Err(FolderError::Foreign { owner: 4242, .. })));
        // A stranger's link to a directory of this user.
        let ours = shared.path().join("ours");
        fs::create_dir(&ours).unwrap();
        let link = shared.path().join("link");
        symlink(&ours, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(4242), Some(4242)).unwrap();
        // A kernel that protects links says so itself.
        assert!(make_private(&link.join("ipc")).is_err());
        assert!(!ours.join("ipc").exists());
    }
}
