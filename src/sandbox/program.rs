//! Runs programs of the host that work on rooms' files, each with a time limit, and killed if its caller is dropped.
//! Where Podman is rootless, those that touch a workspace run in its user namespace, the only place where the files'
//! owners exist.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use crate::child;

/// Where programs are looked for, also for a user whose own path lacks the sbin directories.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long removing a directory may take.
const REMOVE_LIMIT: Duration = Duration::from_mins(10);

/// The most characters of a program's own words that are passed on.
const REASON: usize = 300;

/// A program with its arguments.
pub(super) struct Program {
    name: String,
    command: Command,
}

/// Finds a program of the host.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(env::split_paths(PATH)).collect::<Vec<PathBuf>>();
    places.iter().map(|place| place.join(name)).find(|program| program.is_absolute() && program.is_file())
}

impl Program {
    /// Returns a program for the server's own files.
    pub(super) fn new(name: &str) -> Self {
        Self::of(name, child::command(name))
    }

    /// Returns a program for files of sandboxes. `rootless` is the path of Podman where it is rootless.
    pub(super) fn inside(rootless: Option<&Path>, name: &str) -> Self {
        let Some(podman) = rootless else { return Self::new(name) };
        let mut command = child::command(podman);
        command.args(["unshare", name]);
        Self::of(name, command)
    }

    fn of(name: &str, mut command: Command) -> Self {
        let path = env::var("PATH").map_or_else(|_| PATH.to_owned(), |path| format!("{path}:{PATH}"));
        command.env("PATH", path).env("LC_ALL", "C");
        Self { name: name.to_owned(), command }
    }

    /// Returns whether the program exists.
    pub(super) fn exists(name: &str) -> bool {
        find(name).is_some()
    }

    pub(super) fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.command.arg(argument);
        self
    }

    pub(super) fn args(&mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.command.args(arguments);
        self
    }

    /// Runs it; an exit code other than 0 is an error.
    pub(super) async fn run(&mut self, limit: Duration) -> io::Result<()> {
        self.run_to(limit, &[0]).await
    }

    /// Runs it; an exit code that is not in `good` is an error, with the program's last line.
    pub(super) async fn run_to(&mut self, limit: Duration, good: &[i32]) -> io::Result<()> {
        let ended = self.output(limit).await?;
        if ended.status.code().is_some_and(|code| good.contains(&code)) {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&ended.stderr);
        let line = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let line: String = line.trim().chars().take(REASON).collect();
        Err(io::Error::other(format!("`{}` failed ({}): {line}", self.name, ended.status)))
    }

    /// Runs it and returns its output and exit status, whatever that is.
    pub(super) async fn output(&mut self, limit: Duration) -> io::Result<Output> {
        let ended = timeout(limit, self.command.output()).await;
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("`{}` took too long", self.name));
        ended.map_err(late)?.map_err(|error| io::Error::new(error.kind(), format!("`{}`: {error}", self.name)))
    }
}

/// Removes a directory or file to which a sandbox may have written; `rootless` is as for [`Program::inside`].
pub(super) async fn remove_directory(rootless: Option<&Path>, path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    Program::inside(rootless, "rm")
        .args(["--recursive", "--force", "--one-file-system", "--"])
        .arg(path)
        .run(REMOVE_LIMIT)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_fails_says_so_in_the_programs_words() {
        let limit = Duration::from_mins(1);
        let error = Program::new("ls").arg("/no/such/place").run(limit).await.unwrap_err().to_string();
        assert!(error.starts_with("`ls` failed") && error.contains("/no/such/place"), "{error}");
        let error = Program::new("no-such-program").run(limit).await.unwrap_err().to_string();
        assert!(error.contains("`no-such-program`"), "{error}");
        let error = Program::new("sleep").arg("600").run(Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(Program::exists("ls") && !Program::exists("no-such-program"));
    }
}
