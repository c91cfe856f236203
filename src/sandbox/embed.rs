//! The sandboxd binary inside the server's own. `build.rs` builds it statically and embeds it, so that a server is
//! one file; it is written to the state directory, from where each container mounts it read-only.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::error::SandboxError;

/// Identifies this sandboxd: a short hash of its sources, which its greeting carries too.
pub const BUILD: &str = env!("SANDBOXD_BUILD");

static BYTES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sandboxd.bin"));

/// Writes sandboxd to `state_dir` unless it is there, and returns its path. The name contains [`BUILD`], so that
/// containers with an earlier sandboxd keep theirs.
pub fn install(state_dir: &Path) -> Result<PathBuf, SandboxError> {
    let path = state_dir.join(format!("sandboxd-{BUILD}"));
    put(&path, BYTES, 0o755)?;
    Ok(path)
}

/// Writes a file for containers, unless it is there with this content.
pub(super) fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SandboxError> {
    let put = if fs::read(path).is_ok_and(|there| there == bytes) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    } else {
        write(path, bytes, mode)
    };
    put.map_err(|source| SandboxError::Install { path: path.to_owned(), source })
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", crate::ids::random(4)));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_once_and_mended_when_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = install(dir.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        fs::write(&path, b"cut").unwrap();
        assert_eq!(install(dir.path()).unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), BYTES);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
