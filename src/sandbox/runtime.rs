//! The OCI runtime that runs the sandboxes' containers, if the operator has chosen one (`SANDBOX_RUNTIME`).
//!
//! Podman takes the runtime for a whole engine, not for a container, so a chosen one means an engine of our own
//! (`service.rs`), to which it is given; nobody's `containers.conf` changes. runc and crun run a sandbox on the host's
//! kernel. runsc (gVisor) puts a kernel of its own between the two, which is another machine to the host in some ways:
//! whoever asks for them asks [`Runtime::shows_pids`].

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::time::timeout;

use super::program::{Program, find};
use crate::{child, strings::sandboxes as words};

/// The folder in the state directory for what Podman is given in place of runsc.
const FOLDER: &str = "runtime";

/// The oldest runsc with which the sandboxes were tried: the day of its release. Earlier ones lack some of [`FLAGS`].
const OLDEST: u32 = 20_240_729;

/// How runsc is told to run sandboxes:
///
/// - `platform`: the one that needs nothing of the machine. KVM would need a machine that has it.
/// - `network`: loopback alone.
/// - `host-uds`: sandboxd may connect to the socket that the server has made; nobody inside makes one on the host.
/// - `overlay2`: what is written to the container's root is a file on the host, so that it outlives a stop and `disk.rs`
///   can count it.
/// - `oci-seccomp`: our seccomp profile holds inside, too.
const FLAGS: &str = "--platform=systrap --network=none --host-uds=open --overlay2=none --oci-seccomp";

/// How long a runtime may take to tell its version, and to try itself.
const VERSION_LIMIT: Duration = Duration::from_secs(5);
const TRY_LIMIT: Duration = Duration::from_secs(20);

/// An OCI runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// runc, on the host's kernel.
    Runc,
    /// crun, on the host's kernel.
    Crun,
    /// gVisor's runsc, with a kernel of its own.
    Runsc,
}

impl Runtime {
    /// Returns the name of its program, by which Podman knows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Runsc => "runsc",
        }
    }

    /// Returns the one that has this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Runc, Self::Crun, Self::Runsc].into_iter().find(|runtime| runtime.name() == name)
    }

    /// Returns whether the host's kernel knows each process of a sandbox: under gVisor it sees gVisor's alone.
    pub(crate) const fn shows_pids(self) -> bool {
        !matches!(self, Self::Runsc)
    }

    /// Returns whether a command in a sandbox can be kept from writing, if this machine's kernel can do that: gVisor's has no
    /// Landlock.
    pub(crate) const fn has_landlock(self) -> bool {
        !matches!(self, Self::Runsc)
    }

    /// Returns the path that Podman is to be given. For runsc that is a script in `state_dir` that calls it with our
    /// flags: what Podman itself can be told of flags it would give to other containers' runtimes, too.
    pub(super) async fn install(self, state_dir: &Path) -> Result<PathBuf, Unusable> {
        let (program, _) = self.program().await?;
        if self.shows_pids() {
            return Ok(program);
        }
        enterable(state_dir)?;
        let script = state_dir.join(FOLDER).join(self.name());
        let text = format!("#!/bin/sh\nexec '{}' {FLAGS} \"$@\"\n", program.display());
        write_script(&script, &text)
            .map_err(|error| Unusable::Broken { path: script.clone(), cause: error.to_string() })?;
        Ok(script)
    }

    /// Tries whether it can run anything here, and returns what it says of itself.
    pub(crate) async fn try_out(self, state_dir: &Path) -> Result<String, Unusable> {
        let (program, version) = self.program().await?;
        if !self.shows_pids() {
            enterable(state_dir)?;
            let mut tried = Program::new(&program.to_string_lossy());
            tried.args(["--platform=systrap", "--network=none", "--ignore-cgroups", "do", "true"]);
            tried.run(TRY_LIMIT).await.map_err(|error| Unusable::Fails(error.to_string()))?;
        }
        Ok(version)
    }

    /// Returns the path of its program, if that is one with which sandboxes can run, and the first line of what it tells of
    /// its version.
    async fn program(self) -> Result<(PathBuf, String), Unusable> {
        let path = find(self.name()).ok_or(Unusable::Missing(self.name()))?;
        let told = match version(&path).await {
            Ok(told) => told.lines().next().unwrap_or_default().to_owned(),
            Err(error) => return Err(Unusable::Broken { path, cause: error.to_string() }),
        };
        if self.shows_pids() {
            return Ok((path, told));
        }
        if !nix::unistd::geteuid().is_root() {
            return Err(Unusable::Rootless);
        }
        if path.to_str().is_none_or(|path| path.contains('\'')) {
            return Err(Unusable::Broken { path, cause: "its path holds a quote".to_owned() });
        }
        match released(&told) {
            Some(day) if day >= OLDEST => Ok((path, told)),
            _ => Err(Unusable::TooOld { path, told }),
        }
    }
}

/// Why no sandbox can run with the runtime that the operator has chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", self.what(), self.mend())]
pub(crate) enum Unusable {
    /// There is no such program.
    Missing(&'static str),
    /// It cannot be started, or what Podman is to be given in its place cannot be written.
    Broken {
        /// The program, or that.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// Podman is rootless, and runsc is not made for that.
    Rootless,
    /// A folder above the state directory is closed to others, among whom is gVisor.
    Closed(PathBuf),
    /// runsc is older than [`OLDEST`], or does not tell how old it is.
    TooOld {
        /// The program.
        path: PathBuf,
        /// What it tells of its version.
        told: String,
    },
    /// It runs nothing on this machine; holds its last words.
    Fails(String),
}

impl Unusable {
    /// Returns what is amiss.
    pub(crate) fn what(&self) -> String {
        match self {
            Self::Missing(name) => words::runtime_missing(name),
            Self::Broken { path, cause } => words::runtime_broken(path, cause),
            Self::Rootless => words::RUNSC_ROOTLESS.to_owned(),
            Self::Closed(path) => words::runsc_closed(path),
            Self::TooOld { path, told } => words::runsc_too_old(path, told),
            Self::Fails(cause) => words::runsc_fails(cause),
        }
    }

    /// Returns what to do.
    pub(crate) fn mend(&self) -> &'static str {
        match self {
            Self::Missing(_) | Self::Broken { .. } => words::RUNTIME_MEND,
            Self::Rootless => words::RUNSC_ROOTLESS_MEND,
            Self::Closed(_) => words::RUNSC_CLOSED_MEND,
            Self::TooOld { .. } | Self::Fails(_) => words::RUNSC_MEND,
        }
    }
}

/// Writes a program that root alone starts, whole or not at all: Podman may be about to start it.
fn write_script(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let part = path.with_extension("part");
    fs::write(&part, text)?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o700))?;
    fs::rename(part, path)
}

/// Lets the runtime pass through these folders to what a sandbox is given from below, if that needs it: gVisor holds the ids of
/// the sandbox already when it opens that, while runc and crun still have root's. Passing is all, since nobody can list the
/// folders, and what is in them is closed to others by itself.
pub(super) fn let_pass(runtime: Option<Runtime>, folders: &[PathBuf]) -> io::Result<()> {
    if runtime.is_none_or(Runtime::shows_pids) {
        return Ok(());
    }
    folders.iter().try_for_each(|folder| fs::set_permissions(folder, fs::Permissions::from_mode(0o711)))
}

/// The same for the folders above a volume of Podman's: its own, and that of all volumes, which Podman 5 closes to others.
pub(super) fn let_pass_to_volume(runtime: Option<Runtime>, mountpoint: &Path) -> io::Result<()> {
    let above: Vec<_> = mountpoint.ancestors().skip(1).take(2).map(Path::to_owned).collect();
    let_pass(runtime, &above)
}

/// Checks that others can pass through all folders above the state directory.
fn enterable(state_dir: &Path) -> Result<(), Unusable> {
    let passable = |folder: &&Path| fs::metadata(folder).is_ok_and(|folder| folder.permissions().mode() & 0o001 != 0);
    match state_dir.ancestors().skip(1).find(|folder| folder.is_absolute() && !passable(folder)) {
        Some(closed) => Err(Unusable::Closed(closed.to_owned())),
        None => Ok(()),
    }
}

/// Returns which wall stands between a sandbox and the host, by the name of its runtime.
pub(crate) fn wall(runtime: &str) -> &'static str {
    match Runtime::named(runtime) {
        Some(Runtime::Runsc) => words::WALL_OWN_KERNEL,
        _ => words::WALL_SHARED_KERNEL,
    }
}

/// Asks a program for its version.
async fn version(program: &Path) -> io::Result<String> {
    let asked = child::command(program).arg("--version").stderr(Stdio::null()).output();
    let output = timeout(VERSION_LIMIT, asked).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the day of a release of gVisor, as in `runsc version release-20240729.0`.
fn released(version: &str) -> Option<u32> {
    let numbers = version.lines().next()?.split(|letter: char| !letter.is_ascii_digit());
    numbers.filter(|number| number.len() == 8).find_map(|number| number.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_of_gvisor_is_known_by_its_day() {
        assert_eq!(released("runsc version 0.0~20240729.0\nspec: 1.2.0\n"), Some(20_240_729));
        assert_eq!(released("runsc version release-20251110.0-12-gabc\n"), Some(20_251_110));
        assert_eq!(released("runsc version VERSION_MISSING\nspec: 20240729\n"), None);
    }

    #[test]
    fn a_closed_folder_above_the_state_directory_is_named() {
        let closed = tempfile::tempdir().unwrap();
        fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let state = closed.path().join("state");
        assert_eq!(enterable(&state), Err(Unusable::Closed(closed.path().to_owned())));
        let_pass(Some(Runtime::Crun), &[closed.path().to_owned()]).unwrap();
        assert!(enterable(&state).is_err(), "it is opened only for whom that is needed");
        let_pass(Some(Runtime::Runsc), &[closed.path().to_owned()]).unwrap();
        assert_eq!(enterable(&state), Ok(()));
    }

    #[test]
    fn what_the_service_gives_podman_has_the_same_flags() {
        assert!(include_str!("../../scripts/gvisor/runsc").contains(&format!("\nexec runsc {FLAGS} \"$@\"\n")));
    }

    #[test]
    fn each_is_known_by_its_name() {
        for runtime in [Runtime::Runc, Runtime::Crun, Runtime::Runsc] {
            assert_eq!(Runtime::named(runtime.name()), Some(runtime));
        }
        assert_eq!(Runtime::named("krun"), None);
    }
}
