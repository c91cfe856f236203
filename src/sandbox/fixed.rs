//! Files that Podman makes for each container beside its writable layer, on the host, and lets its root write to: what
//! is written there is in no count of the sandbox's disk, and mostly lies in the host's memory (`/run`). So each sandbox
//! gets ours in their place, read-only. Written out by the fleet, mounted by `spec.rs`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{embed, error::SandboxError};

/// Where each is in a container, and what stands in it.
const FILES: [(&str, &str); 3] = [
    ("/etc/hosts", "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost ip6-loopback\n"),
    ("/etc/hostname", "sandbox\n"),
    ("/run/.containerenv", ""),
];

/// Writes them to a folder in `state_dir`, unless they are there, and returns it.
pub(super) fn install(state_dir: &Path) -> Result<PathBuf, SandboxError> {
    let folder = state_dir.join("fixed");
    fs::create_dir_all(&folder).map_err(|source| SandboxError::Install { path: folder.clone(), source })?;
    for (place, text) in FILES {
        embed::put(&source(&folder, place), text.as_bytes(), 0o644)?;
    }
    Ok(folder)
}

/// Returns each file in `folder`, and where it belongs in a container.
pub(super) fn files(folder: &Path) -> impl Iterator<Item = (PathBuf, &'static str)> {
    FILES.into_iter().map(move |(place, _)| (source(folder, place), place))
}

fn source(folder: &Path, place: &str) -> PathBuf {
    folder.join(Path::new(place).file_name().unwrap_or_default())
}
