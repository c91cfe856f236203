//! The file applets: `sandboxd fs read PATH OFFSET LIMIT`, `sandboxd fs write PATH SIZE` and `sandboxd fs list PATH LIMIT`.
//! They run as commands, as the agent, so that a file operation has the agent's rights, can be killed, and is found
//! again after a crash.
//!
//! Reading prints the file's size in eight bytes (big-endian), then what was asked for. Writing takes the content from
//! standard input, puts it in place only if it is whole, and prints the place if a link led there. Listing prints the
//! names in a directory, each behind a NUL. Knows nothing of the daemon.

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use sandboxd::protocol::{FILE_DENIED, FILE_IS_DIRECTORY, FILE_NO_SPACE, FILE_NOT_FOUND, FILE_NOT_REGULAR};

use crate::sys;

/// The most links that are followed one after the other, as in the kernel.
const LINKS: usize = 40;

/// Runs an applet and returns its exit code. An error that has no code of its own goes to `output` in words.
pub(crate) fn run(arguments: &[String], input: &mut impl Read, output: &mut impl Write) -> i32 {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let done = match arguments[..] {
        ["read", path, offset, limit] => {
            number(offset).and_then(|offset| read(Path::new(path), offset, number(limit)?, output))
        }
        ["write", path, size] => number(size).and_then(|size| write(Path::new(path), size, input, output)),
        ["list", path, limit] => number(limit).and_then(|limit| list(Path::new(path), limit, output)),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    let Err(error) = done else { return 0 };
    match error.kind() {
        io::ErrorKind::NotFound => FILE_NOT_FOUND,
        io::ErrorKind::IsADirectory => FILE_IS_DIRECTORY,
        io::ErrorKind::Unsupported => FILE_NOT_REGULAR,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => FILE_DENIED,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FILE_NO_SPACE,
        _ => {
            let _ = write!(output, "{error}");
            1
        }
    }
}

fn read(path: &Path, offset: u64, limit: u64, output: &mut impl Write) -> io::Result<()> {
    // A pipe without a writer must not make it wait.
    let mut file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let size = regular(&file.metadata()?)?;
    file.seek(SeekFrom::Start(offset))?;
    output.write_all(&size.to_be_bytes())?;
    io::copy(&mut file.take(limit), output)?;
    output.flush()
}

fn list(path: &Path, limit: u64, output: &mut impl Write) -> io::Result<()> {
    let mut left = limit;
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let bytes = [b"\0", name.as_bytes()].concat();
        // Who asked sees by the length that names are missing.
        left = left.saturating_sub(bytes.len() as u64);
        if left == 0 {
            break;
        }
        output.write_all(&bytes)?;
    }
    output.flush()
}

fn write(path: &Path, size: u64, input: &mut impl Read, output: &mut impl Write) -> io::Result<()> {
    // A link is followed, so that what it points to gets the content and the link stays.
    let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    let path = match fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => end_of_links(path),
        Err(error) => return Err(error),
    };
    let mode = match fs::metadata(&path) {
        Ok(metadata) => {
            regular(&metadata)?;
            Some(metadata.permissions().mode() & 0o7777)
        }
        Err(_) => None,
    };
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
        return Err(io::ErrorKind::IsADirectory.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    fs::create_dir_all(parent)?;
    let parent = fs::canonicalize(parent)?;
    let path = parent.join(name);
    let suffix = format!("{:016x}", u64::from_ne_bytes(sys::random()?));
    // The name is cut: with the suffix it must not become too long.
    let name: String = name.to_string_lossy().chars().take(40).collect();
    let temporary = Temporary(parent.join(format!(".{name}.{suffix}.tmp")));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary.0)?;
    let written = io::copy(&mut input.take(size), &mut file)?;
    if written != size {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the content did not come whole; nothing was written",
        ));
    }
    if let Some(mode) = mode {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    fs::rename(&temporary.0, &path)?;
    if is_link {
        output.write_all(path.as_os_str().as_bytes())?;
        output.flush()?;
    }
    Ok(())
}

/// Returns the path to which links lead whose last one points to nothing.
fn end_of_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    path
}

/// A temporary file: it is removed unless it was renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename there is nothing under this name.
        let _ = fs::remove_file(&self.0);
    }
}

/// Returns a regular file's size.
fn regular(metadata: &fs::Metadata) -> io::Result<u64> {
    if metadata.is_dir() {
        Err(io::ErrorKind::IsADirectory.into())
    } else if metadata.is_file() {
        Ok(metadata.len())
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    struct Room(PathBuf);

    impl Room {
        fn new(name: &str) -> Self {
            let path = env::temp_dir().join(format!("sandboxd-files-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn path(&self, name: &str) -> String {
            self.0.join(name).to_string_lossy().into_owned()
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn applet(arguments: &[&str], mut input: &[u8]) -> (i32, Vec<u8>) {
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut output = Vec::new();
        (run(&arguments, &mut input, &mut output), output)
    }

    #[test]
    fn what_is_written_is_read_in_parts() {
        let room = Room::new("parts");
        let path = room.path("a/b/c.txt");
        assert_eq!(applet(&["write", &path, "5"], b"hello"), (0, Vec::new()));
        let sized = |bytes: &[u8]| [&5_u64.to_be_bytes(), bytes].concat();
        assert_eq!(applet(&["read", &path, "0", "100"], b""), (0, sized(b"hello")));
        assert_eq!(applet(&["read", &path, "1", "3"], b""), (0, sized(b"ell")));
        assert_eq!(applet(&["read", &path, "9", "3"], b""), (0, sized(b"")));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(room.path("a/b")).unwrap().count(), 1);
    }

    #[test]
    fn an_existing_file_keeps_its_mode_and_a_link_its_target() {
        let room = Room::new("mode");
        let (file, link) = (room.path("run.sh"), room.path("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("run.sh", &link).unwrap();
        let told = fs::canonicalize(&file).unwrap().into_os_string().into_encoded_bytes();
        assert_eq!(applet(&["write", &link, "3"], b"new"), (0, told));
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn a_link_that_leads_nowhere_is_followed_and_that_is_told() {
        let room = Room::new("dangling");
        std::os::unix::fs::symlink("b", room.path("a")).unwrap();
        std::os::unix::fs::symlink("deep/c", room.path("b")).unwrap();
        let (code, told) = applet(&["write", &room.path("a"), "3"], b"new");
        assert_eq!(code, 0);
        assert_eq!(fs::read(room.path("deep/c")).unwrap(), b"new");
        assert!(fs::symlink_metadata(room.path("a")).unwrap().is_symlink());
        assert!(String::from_utf8(told).unwrap().ends_with("/deep/c"));
        // A link to itself has no end.
        std::os::unix::fs::symlink("loop", room.path("loop")).unwrap();
        assert_eq!(applet(&["write", &room.path("loop"), "1"], b"x").0, 1);
    }

    #[test]
    fn a_directory_is_listed_as_far_as_the_limit() {
        let room = Room::new("list");
        for name in ["a b", "c"] {
            fs::write(room.path(name), "").unwrap();
        }
        let (code, listed) = applet(&["list", &room.path(""), "100"], b"");
        let mut names: Vec<_> = listed.split(|byte| *byte == 0).skip(1).collect();
        names.sort_unstable();
        assert_eq!((code, names), (0, vec![&b"a b"[..], b"c"]));
        assert!(applet(&["list", &room.path(""), "4"], b"").1.len() < 4);
        assert_eq!(applet(&["list", &room.path("none"), "9"], b"").0, FILE_NOT_FOUND);
    }

    #[test]
    fn content_that_is_cut_short_changes_nothing() {
        let room = Room::new("short");
        let path = room.path("file");
        fs::write(&path, "old").unwrap();
        assert_eq!(applet(&["write", &path, "5"], b"new").0, 1);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(&room.0).unwrap().count(), 1);
    }

    #[test]
    fn each_failure_has_its_code() {
        let room = Room::new("codes");
        assert_eq!(applet(&["read", &room.path("none"), "0", "1"], b"").0, FILE_NOT_FOUND);
        assert_eq!(applet(&["read", &room.path(""), "0", "1"], b"").0, FILE_IS_DIRECTORY);
        assert_eq!(applet(&["write", &room.path(""), "0"], b"").0, FILE_IS_DIRECTORY);
        assert_eq!(applet(&["read", "/dev/zero", "0", "1"], b"").0, FILE_NOT_REGULAR);
        assert_eq!(applet(&["write", "/dev/null", "0"], b"").0, FILE_NOT_REGULAR);
        assert_eq!(applet(&["read", "x"], b"").0, 1);
    }
}
