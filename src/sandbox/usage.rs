//! Measures the disk use of a sandbox in bytes and inodes: its files, its writable layer, and what no walk finds
//! (`hidden.rs`). The host itself opens nothing in a workspace: `du` walks it and follows no link.

use std::{io, path::PathBuf, time::Duration};

use tokio::task::spawn_blocking;

use super::{hidden, image, program::Program, space::Usage};

/// Where the files of a sandbox are.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// Directories on the host: the writable layer, and the room's files unless they are an image.
    pub(super) directories: Vec<PathBuf>,
    /// The image. Its inodes are its own, not the host's.
    pub(super) image: Option<PathBuf>,
    /// The host's pid of PID 1, while it runs.
    pub(super) pid: Option<u32>,
    /// The path of Podman if it is rootless: then only its user namespace can read the files.
    pub(super) rootless: Option<PathBuf>,
}

/// Counts what is on the disk, within `limit`: a million files need some seconds.
pub(super) async fn measure(places: &Places, limit: Duration) -> io::Result<Usage> {
    let (pid, image) = (places.pid, places.image.clone());
    let (bytes, inodes, hidden) = tokio::join!(
        walk(places, "--block-size=1", limit),
        walk(places, "--inodes", limit),
        spawn_blocking(move || pid.map_or_else(|| Ok(Usage::default()), |pid| hidden::deleted(pid, image.is_some())))
    );
    let hidden = hidden??;
    let image = places.image.as_deref().map(image::used).transpose()?.unwrap_or_default();
    Ok(Usage { bytes: bytes? + image + hidden.bytes, inodes: inodes? + hidden.inodes })
}

async fn walk(places: &Places, unit: &str, limit: Duration) -> io::Result<u64> {
    if places.directories.is_empty() {
        return Ok(0);
    }
    // `nice`, so that the count slows nothing else down.
    let mut du = Program::inside(places.rootless.as_deref(), "nice");
    du.args(["--adjustment=10", "du"]).args(["--summarize", "--one-file-system", unit, "--"]).args(&places.directories);
    // `du` fails if a file vanishes meanwhile, which does not matter.
    let output = du.output(limit).await?;
    sum(&String::from_utf8_lossy(&output.stdout), places.directories.len())
        .ok_or_else(|| io::Error::other("`du` did not tell the size of every directory"))
}

/// Adds up the lines of `du`: size, tab, path.
fn sum(text: &str, expected: usize) -> Option<u64> {
    let sizes: Option<Vec<u64>> = text.lines().map(|line| line.split('\t').next()?.parse().ok()).collect();
    sizes.filter(|sizes| sizes.len() == expected).map(|sizes| sizes.iter().sum())
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

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
        let taken = measure(&places, Duration::from_mins(1)).await.unwrap();
        assert!((1 << 20..2 << 20).contains(&taken.bytes), "{taken:?}");
        assert_eq!(taken.inodes, 3, "the directory, the file and the link");
    }
}
