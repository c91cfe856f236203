//! What `doctor --fix` does: only what takes rights away, or adds a line that nothing else depends on.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// A mend that can do no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fix {
    /// Closes files and folders to all but their owner.
    Close(Vec<PathBuf>),
    /// Lets everybody read a file that holds no secret.
    LetRead(PathBuf),
    /// Appends a line to each of these files.
    Append {
        /// The files.
        files: Vec<PathBuf>,
        /// The line, without its end.
        line: String,
    },
}

impl Fix {
    /// Does it, and returns what was done with each file, or why it could not be.
    pub(crate) fn carry_out(&self) -> Vec<String> {
        let done: Vec<_> = match self {
            Self::Close(files) => files.iter().map(|file| change_mode(file, |mode| mode & !0o077)).collect(),
            Self::LetRead(file) => vec![change_mode(file, |mode| mode | 0o004)],
            Self::Append { files, line } => files.iter().map(|file| append(file, line)).collect(),
        };
        done.into_iter().map(|done| done.unwrap_or_else(|why| why)).collect()
    }
}

fn change_mode(file: &Path, change: impl FnOnce(u32) -> u32) -> Result<String, String> {
    let changed = || -> io::Result<u32> {
        // A link that was put there meanwhile is not followed, and a pipe is not waited for.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(file)?;
        let mode = change(file.metadata()?.permissions().mode() & 0o7777);
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        Ok(mode)
    };
    let mode = changed().map_err(|error| format!("the mode of {} cannot be changed ({error})", file.display()))?;
    Ok(format!("{} has mode {mode:03o} now", file.display()))
}

fn append(file: &Path, line: &str) -> Result<String, String> {
    let appended = || -> io::Result<()> {
        let text = fs::read_to_string(file).unwrap_or_default();
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let mut file = OpenOptions::new().append(true).create(true).open(file)?;
        file.write_all(format!("{gap}{line}\n").as_bytes())?;
        file.sync_all()
    };
    appended().map_err(|error| format!("{} cannot be written ({error})", file.display()))?;
    Ok(format!("{} has the line {line} now", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_appended_after_one_without_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["subuid", "subgid"].map(|name| folder.path().join(name));
        fs::write(&one, "root:1:2").unwrap();
        let fix = Fix::Append { files: vec![one.clone(), two.clone()], line: "containers:3:4".into() };
        assert_eq!(fix.carry_out().len(), 2);
        assert_eq!(fs::read_to_string(one).unwrap(), "root:1:2\ncontainers:3:4\n");
        assert_eq!(fs::read_to_string(two).unwrap(), "containers:3:4\n");
    }

    #[test]
    fn what_cannot_be_mended_is_named() {
        let gone = PathBuf::from("/nowhere/secrets");
        for fix in [
            Fix::Close(vec![gone.clone()]),
            Fix::LetRead(gone.clone()),
            Fix::Append { files: vec![gone.clone()], line: "x".into() },
        ] {
            assert!(fix.carry_out()[0].contains("/nowhere/secrets"), "{fix:?}");
        }
    }

    #[test]
    fn one_that_cannot_be_mended_keeps_none_from_it_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let [open, other, link] = ["open", "other", "link"].map(|name| folder.path().join(name));
        for file in [&open, &other] {
            fs::write(file, "x").unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
        }
        std::os::unix::fs::symlink(&other, &link).unwrap();
        let done = Fix::Close(vec![link.clone(), PathBuf::from("/nowhere"), open.clone()]).carry_out();
        let mode = |file| fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&open), mode(&other), done.len()), (0o600, 0o644, 3), "{done:?}");
        assert!(done[0].contains("cannot be changed") && done[2].contains("has mode 600 now"), "{done:?}");
    }
}
