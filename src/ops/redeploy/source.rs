//! Where updates come from and where they go: `update.env`, which `scripts/install-service.sh` writes.

use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

/// The most bytes of it that are read.
const LARGEST: u64 = 64 << 10;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// The clone in which the service was installed.
    pub(super) clone: PathBuf,
    /// The branch that it follows.
    pub(super) branch: String,
    /// The program of the service.
    pub(super) program: PathBuf,
    /// Whether the service is a user's and not the system's.
    pub(super) of_user: bool,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// It cannot be read.
    #[error("{} cannot be read ({cause}), so nobody knows where updates come from. `scripts/install-service.sh` writes it.", path.display())]
    Unread {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Others can change what it says.
    #[error("{} can be changed by other users, and says which program runs as this one. Look at what it says, then: `chown {owner} {path}` and `chmod 600 {path}`.", path.display(), path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Whose it has to be.
        owner: u32,
    },
    /// A line is missing or wrong.
    #[error("{key} in {} is {problem}. `scripts/install-service.sh` writes that file anew.", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line's key.
        key: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Source {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<Self, SourceError> {
        let unread = |cause| SourceError::Unread { path: path.to_owned(), cause };
        // A pipe is not waited for.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unread)?;
        let (about, owner) = (file.metadata().map_err(unread)?, geteuid().as_raw());
        if ![0, owner].contains(&about.uid()) || about.mode() & 0o022 != 0 {
            return Err(SourceError::Open { path: path.to_owned(), owner });
        }
        let text = io::read_to_string(file.take(LARGEST)).map_err(unread)?;
        Self::parse(&text).map_err(|(key, problem)| SourceError::Wrong { path: path.to_owned(), key, problem })
    }

    fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        let value = |key: &'static str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            lines.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
        };
        let path = |key: &'static str| match value(key).map(PathBuf::from) {
            None => Err((key, "missing")),
            Some(path) if !path.is_absolute() => Err((key, "no absolute path")),
            Some(path) => Ok(path),
        };
        let branch = value("UPDATE_BRANCH").ok_or(("UPDATE_BRANCH", "missing"))?;
        if !is_name(&branch) {
            return Err(("UPDATE_BRANCH", "no name of a branch"));
        }
        let of_user = match value("UPDATE_MANAGER").as_deref() {
            None | Some("system") => false,
            Some("user") => true,
            Some(_) => return Err(("UPDATE_MANAGER", "neither `system` nor `user`")),
        };
        let program = path("UPDATE_PROGRAM")?;
        if program.file_name().is_none_or(|name| name != env!("CARGO_PKG_NAME")) {
            return Err(("UPDATE_PROGRAM", "no file of this program's name"));
        }
        Ok(Self { clone: path("UPDATE_SOURCE")?, branch, program, of_user })
    }

    /// Returns a file beside the program, such as the one that served before.
    pub(super) fn beside(&self, ending: &str) -> PathBuf {
        self.program.with_added_extension(ending)
    }
}

/// Returns whether git cannot take a name for anything but the name of a branch, a tag or a commit.
pub(super) fn is_name(name: &str) -> bool {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "-_./+".contains(letter);
    !name.is_empty() && name.len() <= 200 && !name.starts_with('-') && !name.contains("..") && name.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn the_file_names_clone_branch_and_program() {
        let text =
            "UPDATE_SOURCE=/home/me/matrix-agent\nUPDATE_BRANCH=main\nUPDATE_PROGRAM=/usr/local/bin/matrix-agent\n";
        let source = Source::parse(text).unwrap();
        assert_eq!((source.clone.to_str().unwrap(), &*source.branch), ("/home/me/matrix-agent", "main"));
        assert_eq!(source.beside("new").to_str().unwrap(), "/usr/local/bin/matrix-agent.new");
        assert!(!source.of_user && Source::parse(&format!("{text}UPDATE_MANAGER=user\n")).unwrap().of_user);
        for (wrong, key, problem) in [
            (text.replace("/home/me", "me"), "UPDATE_SOURCE", "no absolute path"),
            (text.replace("main", "--upload-pack=evil"), "UPDATE_BRANCH", "no name of a branch"),
            (text.replace("UPDATE_PROGRAM", "X"), "UPDATE_PROGRAM", "missing"),
            (text.replace("bin/matrix-agent", "bin/sh"), "UPDATE_PROGRAM", "no file of this program's name"),
            (format!("{text}UPDATE_MANAGER=upstart\n"), "UPDATE_MANAGER", "neither `system` nor `user`"),
        ] {
            assert_eq!(Source::parse(&wrong), Err((key, problem)));
        }
    }

    #[test]
    fn a_file_that_others_can_change_is_not_obeyed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("update.env");
        fs::write(&file, "UPDATE_SOURCE=/c\nUPDATE_BRANCH=main\nUPDATE_PROGRAM=/bin/matrix-agent\n").unwrap();
        for (mode, obeyed) in [(0o600, true), (0o644, true), (0o664, false), (0o602, false)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let read = Source::read(&file);
            assert_eq!(read.is_ok(), obeyed, "{mode:o}: {read:?}");
            assert!(obeyed || matches!(read, Err(SourceError::Open { .. })));
        }
    }

    #[test]
    fn names_that_git_takes_for_something_else_are_none() {
        for good in ["main", "v1.2", "feature/x-1", "0123abc"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-x", "a..b", "a b", "x:y", "a^", "@{u}", "a\nb"] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
