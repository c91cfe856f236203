//! What `doctor --fix` does: only what takes rights away, or adds a line that nothing else depends on.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// A mend that can do no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fix {
    /// Closes files to all but their owner.
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
    /// Does it, and returns what was done, one thing a line; the first failure ends it.
    ///
    /// # Errors
    ///
    /// What could not be done, and why.
    pub(crate) fn carry_out(&self) -> Result<Vec<String>, String> {
        match self {
            Self::Close(files) => files.iter().map(|file| change_mode(file, |mode| mode & !0o077)).collect(),
            Self::LetRead(file) => Ok(vec![change_mode(file, |mode| mode | 0o004)?]),
            Self::Append { files, line } => files.iter().map(|file| append(file, line)).collect(),
        }
    }
}

fn change_mode(file: &Path, change: impl FnOnce(u32) -> u32) -> Result<String, String> {
    let changed = || -> io::Result<u32> {
        let mode = change(fs::metadata(file)?.permissions().mode() & 0o7777);
        fs::set_permissions(file, fs::Permissions::from_mode(mode))?;
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
        assert_eq!(fix.carry_out().unwrap().len(), 2);
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
            assert!(fix.carry_out().unwrap_err().contains("/nowhere/secrets"), "{fix:?}");
        }
    }
}
