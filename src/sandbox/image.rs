//! The image of a room's files: a sparse file with an ext4 file system, which Podman mounts as a volume. Its size and
//! its number of inodes are limits that nothing in a sandbox can exceed. It is made, checked and enlarged here with
//! the programs of e2fsprogs, always while it is not mounted; Podman mounts it.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::task::spawn_blocking;

use super::{files, program::Program};

/// The type of the file system, as Podman's options and the kernel name it.
pub(super) const TYPE: &str = "ext4";

/// The block size in bytes.
pub(super) const BLOCK: u64 = 4096;

/// Bytes for each inode: half of what is usual, since package trees consist of small files.
pub(super) const BYTES_AN_INODE: u64 = 8192;

/// How long making an empty file system may take.
const MAKE_LIMIT: Duration = Duration::from_mins(1);

/// How long filling, checking or enlarging a file system may take.
const COPY_LIMIT: Duration = Duration::from_hours(2);

/// `s_state` of a file system that was unmounted cleanly and has no noted error.
const UNMOUNTED: u16 = 1;

/// `s_feature_incompat` of a file system whose journal must be replayed (`needs_recovery`).
const TO_BE_REPLAYED: u32 = 4;

/// From this size on the journal gets a size of its own, since the usual one would cost the host too much.
const LARGE: u64 = 4 << 30;

/// Returns the options of a Podman volume that mounts this image. Blocks that are deleted in it return to the host
/// (discard).
pub(super) fn volume_options(image: &Path) -> HashMap<String, String> {
    let options = [("type", TYPE), ("device", &image.to_string_lossy()), ("o", "loop,discard")];
    options.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Returns whether this machine has the programs that make images.
pub(super) fn can_be_made() -> bool {
    Program::exists("mke2fs")
}

/// Makes an image of `size` bytes at `path` with everything in the directory `from`, including owners, modes, times,
/// links and extended attributes. `entries` is the most entries that there may be, if they are many. Nothing may be
/// written to `from` meanwhile.
pub(super) async fn make(path: &Path, size: u64, from: &Path, entries: u64) -> io::Result<()> {
    files::remove_file(path)?;
    File::create_new(path)?.set_len(size)?;
    let inodes = (size / BYTES_AN_INODE).max(entries + entries / 4);
    let mut program = Program::new("mke2fs");
    program.args(["-q", "-F", "-t", TYPE, "-m", "0", "-b", &BLOCK.to_string(), "-N", &inodes.to_string()]);
    program.args(["-E", "lazy_journal_init=1"]); // a sparse file reads as zeros, so the journal needs no clearing
    if size >= LARGE {
        program.args(["-J", "size=32"]);
    }
    let limit = if entries == 0 { MAKE_LIMIT } else { COPY_LIMIT };
    let made = program.arg("-d").arg(from).arg("--").arg(path).run(limit).await;
    if made.is_err() {
        files::remove_file(path)?;
    }
    made
}

/// What an image's superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Bytes of the file system.
    pub(super) size: u64,
    /// Whether it was unmounted cleanly and has no noted error.
    pub(super) sound: bool,
}

/// Reads an image's superblock; the error says why it cannot be mounted.
pub(super) fn check(path: &Path) -> io::Result<Found> {
    let broken = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    let file = File::open(path)?;
    let mut superblock = [0; 1024];
    let read = file.read_exact_at(&mut superblock, 1024);
    read.map_err(|_| broken("it is too short for a file system"))?;
    let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| superblock[at + byte]));
    if u16::from_le_bytes([superblock[56], superblock[57]]) != 0xef53 {
        return Err(broken("it holds no ext4 file system"));
    }
    let large = number(96) & 0x80 != 0; // the feature `64bit`
    let blocks = u64::from(number(4)) + if large { u64::from(number(336)) << 32 } else { 0 };
    let bytes = 1024_u64.checked_shl(number(24)).and_then(|block| block.checked_mul(blocks));
    match bytes {
        Some(size) if size <= file.metadata()?.len() => {
            let state = u16::from_le_bytes([superblock[58], superblock[59]]);
            Ok(Found { size, sound: state == UNMOUNTED && number(96) & TO_BE_REPLAYED == 0 })
        }
        Some(_) => Err(broken("it was cut off")),
        None => Err(broken("it holds no ext4 file system")),
    }
}

/// Checks and repairs an image that was not unmounted cleanly. Fails if it is in use.
pub(super) async fn mend(path: &Path) -> io::Result<()> {
    let path = path.canonicalize()?;
    if is_attached(&path)? {
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "it is still mounted"));
    }
    // Exit code 1: errors were found and corrected.
    Program::new("e2fsck").arg("-p").arg(path).run_to(COPY_LIMIT, &[0, 1]).await
}

/// Returns whether a file is attached to a loop device.
fn is_attached(path: &Path) -> io::Result<bool> {
    let devices = std::fs::read_dir("/sys/block")?.flatten();
    let mut files = devices.filter_map(|device| std::fs::read(device.path().join("loop/backing_file")).ok());
    Ok(files.any(|file| file.trim_ascii_end() == path.as_os_str().as_bytes()))
}

/// Enlarges the image to `size` through a copy at `part`, so that an interruption leaves the image whole.
pub(super) async fn grow(image: &Path, part: &Path, size: u64) -> io::Result<()> {
    files::remove_file(part)?;
    Program::new("cp").args(["--sparse=always", "--reflink=auto", "--"]).arg(image).arg(part).run(COPY_LIMIT).await?;
    // Exit code 1: errors were found and corrected.
    Program::new("e2fsck").args(["-f", "-p"]).arg(part).run_to(COPY_LIMIT, &[0, 1]).await?;
    File::options().write(true).open(part)?.set_len(size)?;
    Program::new("resize2fs").arg(part).run(COPY_LIMIT).await?;
    let (part, image) = (part.to_owned(), image.to_owned());
    spawn_blocking(move || files::sync(&part).and_then(|()| std::fs::rename(&part, &image))).await?
}

/// Makes an image in `folder`, mounts and unmounts it as Podman would; the error says why that does not work.
pub(crate) async fn try_out(folder: &Path) -> io::Result<()> {
    let [from, image, at] = ["from", "image", "at"].map(|name| folder.join(name));
    for directory in [&from, &at] {
        files::make_directory(directory)?;
    }
    make(&image, 16 << 20, &from, 0).await?;
    Program::new("mount").args(["-t", TYPE, "-o", "loop"]).arg(&image).arg(&at).run(MAKE_LIMIT).await?;
    Program::new("umount").arg(&at).run(MAKE_LIMIT).await
}

/// Returns the bytes that an image takes on the host's disk now.
pub(super) fn used(path: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.blocks() * 512)
}

/// Returns the image of a volume with these options; `None` if it has none.
pub(super) fn device(options: &HashMap<String, String>) -> Option<PathBuf> {
    (options.get("type").map(String::as_str) == Some(TYPE)).then(|| options.get("device").map(PathBuf::from))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[tokio::test]
    async fn an_image_is_made_with_what_is_there_and_enlarged() {
        let directory = tempfile::tempdir().unwrap();
        let (from, image, part) = ["from", "image", "part"].map(|name| directory.path().join(name)).into();
        std::fs::create_dir(&from).unwrap();
        std::fs::write(from.join("file"), vec![7; 3 << 20]).unwrap();
        make(&image, 64 * MIB, &from, 1).await.unwrap();
        assert_eq!(check(&image).unwrap(), Found { size: 64 * MIB, sound: true });
        let taken = used(&image).unwrap();
        assert!((3 * MIB..8 * MIB).contains(&taken), "it is sparse: {taken}");

        grow(&image, &part, 256 * MIB).await.unwrap();
        assert_eq!(check(&image).unwrap(), Found { size: 256 * MIB, sound: true });
        assert!(!part.exists());
        let listed = std::process::Command::new("debugfs").args(["-R", "stat /file"]).arg(&image).output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert!(listed.contains("Size: 3145728"), "{listed}");
    }

    #[tokio::test]
    async fn what_does_not_fit_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let from = directory.path().join("from");
        std::fs::create_dir(&from).unwrap();
        let mut random = File::open("/dev/urandom").unwrap();
        io::copy(&mut io::Read::take(&mut random, 32 * MIB), &mut File::create(from.join("file")).unwrap()).unwrap();
        let image = directory.path().join("image");
        let error = make(&image, 16 * MIB, &from, 1).await.unwrap_err();
        assert!(error.to_string().contains("mke2fs"), "{error}");
        assert!(!image.exists());
    }

    #[tokio::test]
    async fn an_error_that_was_noted_is_seen_and_mended() {
        let directory = tempfile::tempdir().unwrap();
        let (from, image) = (directory.path().join("from"), directory.path().join("image"));
        std::fs::create_dir(&from).unwrap();
        make(&image, 16 * MIB, &from, 0).await.unwrap();
        let noted =
            std::process::Command::new("debugfs").args(["-w", "-R", "ssv state 2"]).arg(&image).output().unwrap();
        assert!(noted.status.success(), "{noted:?}");
        assert!(!check(&image).unwrap().sound);
        mend(&image).await.unwrap();
        assert!(check(&image).unwrap().sound);
    }

    #[test]
    fn a_broken_image_is_told_from_a_whole_one() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        for (bytes, why) in [(100, "too short"), (1 << 20, "no ext4")] {
            std::fs::write(&image, vec![0; bytes]).unwrap();
            let error = check(&image).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
