//! How much disk a sandbox takes: its volume, its writable layer, and files that were deleted but are still open.
//!
//! The host opens nothing in a workspace: `du` walks it, following no link, and open files are only counted through
//! `/proc`. Called by `disk.rs` and `observe.rs`.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use tokio::{task::spawn_blocking, time::timeout};

use super::cgroup::Cgroup;
use crate::child;

/// Open files that are looked at in one sandbox.
const OPEN_FILES: usize = 100_000;

/// Where a sandbox's files are.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// Directories on the host: the volume, the writable layer.
    pub(super) directories: Vec<PathBuf>,
    /// The host's pid of PID 1, while it runs.
    pub(super) pid: Option<u32>,
    /// Podman, if it runs rootless: the files then belong to ids that only its user namespace may read.
    pub(super) rootless: Option<PathBuf>,
}

/// Counts the bytes on disk, if that takes no longer than `limit`: a million files need some seconds.
pub(super) async fn measure(places: &Places, limit: Duration) -> io::Result<u64> {
    let pid = places.pid;
    let (walked, deleted) = tokio::join!(
        walk(places, limit),
        spawn_blocking(move || pid.map_or(0, |pid| deleted(pid).unwrap_or_default()))
    );
    Ok(walked? + deleted.unwrap_or_default())
}

async fn walk(places: &Places, limit: Duration) -> io::Result<u64> {
    if places.directories.is_empty() {
        return Ok(0);
    }
    let mut command = match &places.rootless {
        None => child::command("du"),
        Some(podman) => {
            let mut command = child::command(podman);
            command.args(["unshare", "du"]);
            command
        }
    };
    command.args(["--summarize", "--one-file-system", "--block-size=1", "--"]).args(&places.directories);
    command.stderr(Stdio::null());
    let output = timeout(limit, command.output()).await.map_err(|_| io::ErrorKind::TimedOut)??;
    // A file that vanished on the way makes it fail, and does not matter.
    sum(&String::from_utf8_lossy(&output.stdout), places.directories.len())
        .ok_or_else(|| io::Error::other("`du` did not tell the size of every directory"))
}

/// Adds up `du`'s lines: size, tab, path.
fn sum(text: &str, expected: usize) -> Option<u64> {
    let sizes: Option<Vec<u64>> = text.lines().map(|line| line.split('\t').next()?.parse().ok()).collect();
    sizes.filter(|sizes| sizes.len() == expected).map(|sizes| sizes.iter().sum())
}

/// Counts files that have no name any more but are held open: `du` cannot see them.
fn deleted(pid: u32) -> io::Result<u64> {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    let mut left = OPEN_FILES;
    for process in Cgroup::of(pid)?.processes() {
        let Ok(entries) = fs::read_dir(format!("/proc/{process}/fd")) else { continue };
        for entry in entries.flatten() {
            if left == 0 {
                return Ok(bytes);
            }
            left -= 1;
            // Through /proc this is the open file itself, wherever its name would lead.
            let Ok(file) = fs::metadata(entry.path()) else { continue };
            if file.is_file() && file.nlink() == 0 && seen.insert((file.dev(), file.ino())) && !in_memory(&entry.path())
            {
                bytes += file.blocks() * 512;
            }
        }
    }
    Ok(bytes)
}

/// Shared memory counts as memory.
fn in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_walk_that_misses_a_directory_does_not_count() {
        assert_eq!(sum("4096\t/a\n8192\t/b\tc\n", 2), Some(12_288));
        assert_eq!(sum("4096\t/a\n", 2), None);
        assert_eq!(sum("du: what\n", 1), None);
    }

    #[tokio::test]
    async fn it_counts_what_is_there_and_follows_no_link() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = fs::File::create(directory.path().join("file")).unwrap();
        file.write_all(&vec![1; 1 << 20]).unwrap();
        file.sync_all().unwrap();
        std::os::unix::fs::symlink("/usr", directory.path().join("link")).unwrap();
        let places = Places { directories: vec![directory.path().to_owned()], ..Places::default() };
        let bytes = measure(&places, Duration::from_mins(1)).await.unwrap();
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
    }
}
