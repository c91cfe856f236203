//! Files that every sandbox gets read-only in place of those that Podman makes for each container (such as
//! `/etc/hosts`). Podman's lie on the host outside the writable layer, often in memory (`/run`), and the container's
//! root may write to them without being counted. The fleet writes ours, `spec.rs` mounts them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{embed, error::SandboxError};

/// The path of each in a container, and its content.
const FILES: [(&str, &str); 3] = [
    ("/etc/hosts", "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost ip6-loopback\n"),
    ("/etc/hostname", "sandbox\n"),
    ("/run/.containerenv", ""),
];

/// Writes the files to a directory in `state_dir` unless they are there; returns the directory.
pub(super) fn install(state_dir: &Path) -> Result<PathBuf, SandboxError> {
    let folder = state_dir.join("fixed");
    fs::create_dir_all(&folder).map_err(|source| SandboxError::Install { path: folder.clone(), source })?;
    for (place, text) in FILES {
        embed::put(&source(&folder, place), text.as_bytes(), 0o644)?;
    }
    Ok(folder)
}

/// Returns each file in `folder` with its path in a container.
pub(super) fn files(folder: &Path) -> impl Iterator<Item = (PathBuf, &'static str)> {
    FILES.into_iter().map(move |(place, _)| (source(folder, place), place))
}

fn source(folder: &Path, place: &str) -> PathBuf {
    folder.join(Path::new(place).file_name().unwrap_or_default())
}
