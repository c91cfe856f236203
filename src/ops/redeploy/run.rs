//! Programs that a replacement starts: without the server's secrets, as whoever owns the clone where that is meant, with a limit.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::unistd::{Uid, User, geteuid};
use tokio::{process::Command, time};

use crate::{child, text};

/// The most characters of what a program has said that are told.
const SAID: usize = 600;

/// Returns a command that is run as the owner of a directory, in it: root compiles nothing and obeys no clone's settings.
pub(super) fn as_owner_of(folder: &Path, program: &str) -> io::Result<Command> {
    let owner = fs::metadata(folder)?;
    let mut command = child::command(program);
    command.current_dir(folder).env("LC_ALL", "C");
    if geteuid().is_root() && owner.uid() != 0 {
        command.uid(owner.uid()).gid(owner.gid());
        if let Some(user) = User::from_uid(Uid::from_raw(owner.uid()))? {
            command.env("HOME", &user.dir).env("USER", &user.name).env("LOGNAME", &user.name);
            command.env_remove("XDG_RUNTIME_DIR").env_remove("XDG_CONFIG_HOME");
            command.env("PATH", with_cargo(&user.dir));
        }
    } else if let Some(home) = std::env::var_os("HOME") {
        command.env("PATH", with_cargo(Path::new(&home)));
    }
    Ok(command)
}

/// Returns the search path, behind which a user's own Rust stands.
fn with_cargo(home: &Path) -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let own = home.join(".cargo/bin");
    let all: Vec<PathBuf> = std::env::split_paths(&path).chain([own]).collect();
    std::env::join_paths(all).unwrap_or(path)
}

/// Runs a command to its end, and returns what it has said on standard output.
///
/// # Errors
///
/// It cannot be started, fails, or takes longer than `limit`; the sentence has the end of what it said.
pub(super) async fn output(mut command: Command, limit: Duration) -> Result<String, String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = match time::timeout(limit, command.output()).await {
        Err(_) => return Err(format!("{name} has not ended within {}", text::human_duration(limit))),
        Ok(ran) => ran.map_err(|error| format!("{name} cannot be started: {error}"))?,
    };
    if ran.status.success() {
        return Ok(String::from_utf8_lossy(&ran.stdout).into_owned());
    }
    let said = if ran.stderr.trim_ascii().is_empty() { &ran.stdout } else { &ran.stderr };
    Err(ending(&String::from_utf8_lossy(said)).unwrap_or_else(|| format!("{name} has failed ({})", ran.status)))
}

/// Runs a command whose output goes to a log file.
///
/// # Errors
///
/// As [`output`].
pub(super) async fn logged(mut command: Command, log: &Path, limit: Duration) -> Result<(), String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let files = || {
        let file = File::options().create(true).append(true).open(log)?;
        Ok::<_, io::Error>((file.try_clone()?, file))
    };
    let (out, err) = files().map_err(|error| format!("{} cannot be written: {error}", log.display()))?;
    let from = out.metadata().map_or(0, |file| file.len());
    let mut running =
        command.stdout(out).stderr(err).spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
    match time::timeout(limit, running.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => {
            let said = fs::read(log).unwrap_or_default();
            let said = String::from_utf8_lossy(said.get(from as usize..).unwrap_or_default()).into_owned();
            let why = ending(&said).unwrap_or_else(|| format!("{name} has failed ({status})"));
            Err(format!("{why} (the whole: {})", log.display()))
        }
        Ok(Err(error)) => Err(format!("{name}: {error}")),
        Err(_) => Err(format!("{name} has not ended within {}", text::human_duration(limit))),
    }
}

/// Returns what a program's last lines say, those with an error first of all.
fn ending(said: &str) -> Option<String> {
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let told = match lines.iter().position(|line| line.starts_with("error") || line.starts_with("fatal:")) {
        // What git has started, such as ssh, has said why before git says what it could not do.
        Some(at) if at > 0 && lines[at].starts_with("fatal:") => format!("{} {}", lines[at - 1], lines[at]),
        Some(at) => lines[at].to_owned(),
        None => (*lines.last()?).to_owned(),
    };
    Some(text::one_line(&told, SAID).trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn script(script: &str) -> Command {
        let mut command = child::command("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn what_a_program_says_at_its_end_is_told() {
        assert_eq!(output(script("echo good"), LIMIT).await.unwrap(), "good\n");
        let failed = |what: &'static str| async move { output(script(what), LIMIT).await.unwrap_err() };
        assert_eq!(
            failed("echo 'error: no field `x`' >&2; echo 'note: that.' >&2; exit 1").await,
            "error: no field `x`"
        );
        let git = "echo 'x: Permission denied (publickey).' >&2; echo 'fatal: Could not read.' >&2; echo 'Please' >&2; exit 1";
        assert_eq!(failed(git).await, "x: Permission denied (publickey). fatal: Could not read");
        assert_eq!(failed("echo this; exit 3").await, "this");
        assert!(failed("exit 3").await.contains("exit status: 3"));
        let slow = output(script("sleep 100"), Duration::from_millis(50)).await.unwrap_err();
        assert!(slow.contains("has not ended within"), "{slow}");
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        logged(script("echo before"), &log, LIMIT).await.unwrap();
        let told = logged(script("echo 'error: now' >&2; exit 1"), &log, LIMIT).await.unwrap_err();
        assert!(told.starts_with("error: now (the whole: "), "{told}");
    }

    #[tokio::test]
    async fn a_program_gets_none_of_our_secrets() {
        // This process has some variable that is no program's business.
        let said = output(script("env"), LIMIT).await.unwrap();
        assert!(!said.contains("CARGO_MANIFEST_DIR") && std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "{said}");
    }
}
