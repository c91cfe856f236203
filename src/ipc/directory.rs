//! Scans one directory, whose content may be hostile: a scan takes the files that are events, and deletes what can
//! never be one. Blocking; called by the watcher.
//!
//! No link is followed, only regular files are opened, and a scan reads a bounded number of names and bytes. Events
//! stay in their files until the caller has passed them on and calls [`Scan::delete`].

use std::{
    ffi::{CStr, CString},
    fs::File,
    io::{self, Read},
    os::{
        fd::AsFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::Path,
    time::Duration,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::stat::{FileStat, Mode, SFlag, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::event::{self, Event, LONGEST, Unreadable};
use crate::{clock::Clock, metrics, text};

/// The most events of one scan; then other rooms have their turn.
const BATCH: usize = 128;
/// The most names of one scan, twice as many as a room's directory can hold.
const NAMES: usize = 8192;
/// The most bytes of one scan.
const BYTES: usize = 16 << 20;

/// A file without complete JSON may still be being written; after this time it counts as broken.
const SETTLED: Duration = Duration::from_secs(2);
/// A file with another name may be renamed to its own; after this time it counts as abandoned.
const FORGOTTEN: Duration = Duration::from_mins(1);

/// The file to which hooks write their errors.
const ERRORS: &CStr = c"hook-errors.log";
/// So many bytes at its end are read.
const ERRORS_READ: u64 = 4096;

/// The result of a scan.
pub(super) struct Scan {
    directory: Dir,
    found: Vec<Found>,
    /// The last lines of the hooks' error log, if there was one.
    pub(super) errors: Option<String>,
    /// Whether there may be more events.
    pub(super) more: bool,
    pub(super) counts: Counts,
}

/// Entries that were not taken.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Entries that were deleted because they can never be events.
    pub(super) deleted: u64,
    /// Entries that could not be deleted.
    pub(super) stuck: u64,
    /// Why the last one was not taken.
    pub(super) why: Option<String>,
}

struct Found {
    name: CString,
    event: Event,
    /// The session or agent whose run has ended, if the event says that.
    ended: Option<String>,
    stamp: Stamp,
}

/// Identifies a file, to find out whether it is still the one that was read.
#[derive(PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// What happens to an entry.
enum Verdict {
    Take(Event, Option<String>, Stamp),
    Log(String),
    /// It stays, since it may become an event; or it is gone.
    Leave,
    Delete(String),
}

/// Scans the directory, the oldest names first.
pub(super) fn scan(path: &Path) -> io::Result<Scan> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut directory = Dir::open(path, flags, Mode::empty())?;
    let mut names: Vec<_> = directory
        .iter()
        .take(NAMES)
        .map_while(Result::ok)
        .map(|entry| entry.file_name().to_owned())
        .filter(|name| !matches!(name.to_bytes(), b"." | b".."))
        .collect();
    names.sort_unstable(); // by time: our names begin with it
    let mut scan = Scan { directory, found: Vec::new(), errors: None, more: false, counts: Counts::default() };
    let mut bytes = BYTES;
    for name in names {
        if scan.found.len() == BATCH || bytes == 0 {
            scan.more = true;
            break;
        }
        match judge(&scan.directory, &name, &mut bytes) {
            Verdict::Leave => {}
            Verdict::Take(event, ended, stamp) => scan.found.push(Found { name, event, ended, stamp }),
            Verdict::Log(lines) => {
                scan.errors = Some(lines);
                let _ = unlinkat(&scan.directory, &*name, UnlinkatFlags::NoRemoveDir); // if it stays, it is reported again
            }
            Verdict::Delete(why) => {
                match unlinkat(&scan.directory, &*name, UnlinkatFlags::NoRemoveDir) {
                    Ok(()) => scan.counts.deleted += 1,
                    Err(_) => scan.counts.stuck += 1,
                }
                scan.counts.why = Some(why);
            }
        }
    }
    Ok(scan)
}

impl Scan {
    /// Removes and returns the sessions and agents whose runs have ended.
    pub(super) fn ended(&mut self) -> Vec<String> {
        self.found.iter_mut().filter_map(|found| found.ended.take()).collect()
    }

    /// Removes and returns the events.
    pub(super) fn events(&mut self) -> Vec<Event> {
        let empty = || Event { kind: event::Kind::Detail, line: String::new() };
        self.found.iter_mut().map(|found| std::mem::replace(&mut found.event, empty())).collect()
    }

    /// Deletes the files whose events were passed on, unless they were replaced meanwhile.
    pub(super) fn delete(&self) -> io::Result<()> {
        for Found { name, stamp, .. } in &self.found {
            let Ok(now) = fstatat(&self.directory, &**name, AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
            if stamp_of(&now) != *stamp {
                continue;
            }
            metrics::ipc_lag(age(&now));
            match unlinkat(&self.directory, &**name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Decides about one entry.
fn judge(directory: &Dir, name: &CStr, bytes: &mut usize) -> Verdict {
    let Ok(seen) = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) else { return Verdict::Leave };
    match SFlag::from_bits_truncate(seen.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => {}
        SFlag::S_IFDIR => {
            if age(&seen) >= FORGOTTEN {
                // A directory that is not empty stays; the whole directory has a bound of its own.
                let _ = unlinkat(directory, name, UnlinkatFlags::RemoveDir);
            }
            return Verdict::Leave;
        }
        _ => return Verdict::Delete("it is no regular file".to_owned()),
    }
    let is_log = name == ERRORS;
    let is_event = name.to_bytes().ends_with(b".json") && !name.to_bytes().starts_with(b".");
    if !is_log && !is_event {
        let forgotten = age(&seen) >= FORGOTTEN;
        return if forgotten { Verdict::Delete("it is not named like an event".to_owned()) } else { Verdict::Leave };
    }
    let opened = match open(directory, name) {
        Ok(Some(file)) => file,
        Ok(None) => return Verdict::Leave,
        Err(error) => return Verdict::Delete(error.to_string()),
    };
    let read = if is_log { log(&opened) } else { take(&opened, name, bytes) };
    read.unwrap_or_else(|error| Verdict::Delete(error.to_string()))
}

/// Opens a regular file; `None` if it is gone or has become something else.
fn open(directory: &Dir, name: &CStr) -> io::Result<Option<File>> {
    // If it has been replaced meanwhile, these flags avoid waiting for a pipe and acquiring a terminal.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = match openat(directory.as_fd(), name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT | Errno::ELOOP | Errno::ENXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(file.metadata()?.is_file().then_some(file))
}

/// Reads a file that may be an event.
fn take(file: &File, name: &CStr, budget: &mut usize) -> io::Result<Verdict> {
    let before = nix::sys::stat::fstat(file)?;
    if usize::try_from(before.st_size).is_ok_and(|size| size > LONGEST) {
        return Ok(Verdict::Delete(format!("it has {} bytes", before.st_size)));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    *budget = budget.saturating_sub(bytes.len());
    match event::read(name.to_bytes(), &bytes) {
        Ok((event, ended)) => Ok(Verdict::Take(event, ended, stamp_of(&before))),
        Err(Unreadable::NotJson) if age(&before) < SETTLED => Ok(Verdict::Leave),
        Err(why) => Ok(Verdict::Delete(why.to_string())),
    }
}

/// Reads the end of the hooks' error log.
fn log(file: &File) -> io::Result<Verdict> {
    let length = file.metadata()?.size();
    let mut bytes = vec![0; usize::try_from(length.min(ERRORS_READ)).unwrap_or_default()];
    let read = file.read_at(&mut bytes, length.saturating_sub(ERRORS_READ))?;
    let lines = text::strip(&bytes[..read]);
    Ok(if lines.trim().is_empty() { Verdict::Leave } else { Verdict::Log(lines) })
}

fn stamp_of(seen: &FileStat) -> Stamp {
    Stamp { inode: seen.st_ino, size: seen.st_size.unsigned_abs(), modified: (seen.st_mtime, seen.st_mtime_nsec) }
}

/// Returns the time since an entry was last changed in any way (ctime), which only the kernel can set.
fn age(seen: &FileStat) -> Duration {
    let changed = seen.st_ctime.saturating_mul(1000).saturating_add(seen.st_ctime_nsec / 1_000_000);
    Duration::from_millis(u64::try_from(Clock::default().millis().saturating_sub(changed)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        fs,
        os::unix::{
            ffi::OsStrExt,
            fs::{PermissionsExt, symlink},
            net::UnixListener,
        },
        path::PathBuf,
    };

    use nix::unistd::mkfifo;

    use super::*;

    const EVENT: &str = r#"{"version":1,"kind":"progress","text":"half way"}"#;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
            fs::write(self.at(name), text).unwrap();
            self.at(name)
        }

        fn scan(&self) -> Scan {
            scan(self.0.path()).unwrap()
        }

        /// Scans and deletes; returns the lines.
        fn take(&self) -> Vec<String> {
            let mut scan = self.scan();
            let lines = scan.events().into_iter().map(|event| event.line).collect();
            scan.delete().unwrap();
            lines
        }

        fn left(&self) -> usize {
            fs::read_dir(self.0.path()).unwrap().count()
        }
    }

    #[test]
    fn events_come_in_the_order_of_their_names_and_are_deleted_after() {
        let place = Place::new();
        for n in [3, 1, 2] {
            place.write(&format!("{n}-7-send-progress.json"), EVENT.replace("half way", &n.to_string()));
        }
        let mut scan = place.scan();
        assert_eq!(scan.events().iter().map(|event| event.line.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!(place.left(), 3, "not before somebody has them");
        scan.delete().unwrap();
        assert_eq!(place.left(), 0);
    }

    #[test]
    fn nothing_but_a_regular_file_is_opened() {
        let place = Place::new();
        let secret = tempfile::NamedTempFile::new().unwrap();
        fs::write(secret.path(), EVENT).unwrap();
        symlink(secret.path(), place.at("link.json")).unwrap();
        symlink("/dev/zero", place.at("zero.json")).unwrap();
        symlink(place.at("loop.json"), place.at("loop.json")).unwrap();
        symlink(secret.path(), place.at("hook-errors.log")).unwrap();
        mkfifo(&place.at("pipe.json"), Mode::from_bits_truncate(0o666)).unwrap();
        let _socket = UnixListener::bind(place.at("socket.json")).unwrap();
        fs::create_dir(place.at("folder.json")).unwrap();
        let scan = place.scan();
        assert!(scan.found.is_empty() && scan.errors.is_none());
        assert_eq!((scan.counts.deleted, scan.counts.stuck), (6, 0));
        assert_eq!(place.left(), 1, "a folder stays until it is old");
        assert!(secret.path().exists(), "what a link leads to is not touched");
    }

    #[test]
    fn devices_are_deleted_unopened() {
        let place = Place::new();
        let kind = SFlag::S_IFCHR;
        let mode = Mode::from_bits_truncate(0o666);
        if nix::sys::stat::mknod(&place.at("null.json"), kind, mode, nix::sys::stat::makedev(1, 3)).is_err() {
            return; // Only root can make a device.
        }
        assert_eq!(place.scan().counts.deleted, 1);
        assert_eq!(place.left(), 0);
    }

    #[test]
    fn giants_are_not_read() {
        let place = Place::new();
        File::create(place.at("sparse.json")).unwrap().set_len(1 << 40).unwrap();
        place.write("long.json", format!(r#"{{"version":1,"kind":"progress","text":"{}"}}"#, "x".repeat(LONGEST)));
        let scan = place.scan();
        assert_eq!(scan.counts.deleted, 2);
        assert!(scan.counts.why.unwrap().contains("bytes"));
        let log = File::create(place.at("hook-errors.log")).unwrap();
        log.set_len(1 << 40).unwrap();
        log.write_all_at(b"broken\n", (1 << 40) - 7).unwrap();
        assert_eq!(place.scan().errors.unwrap().trim(), "broken");
    }

    #[test]
    fn what_is_half_written_is_left_and_read_once_it_is_whole() {
        let place = Place::new();
        place.write("event-progress.json", "");
        assert!(place.take().is_empty() && place.left() == 1);
        place.write("event-progress.json", r#"{"tool_name":"wri"#);
        assert!(place.take().is_empty() && place.left() == 1);
        place.write("event-progress.json", r#"{"tool_name":"write_file"}"#);
        assert_eq!(place.take(), ["gemini ✓ write_file"]);
        assert_eq!(place.left(), 0);
        place.write("broken.json", r#"{"version":2,"kind":"progress"}"#);
        assert!(place.take().is_empty());
        assert_eq!(place.left(), 0, "whole, and no event");
    }

    #[test]
    fn what_was_written_after_it_was_read_is_not_deleted() {
        let place = Place::new();
        place.write("event-progress.json", r#"{"tool_name":"one"}"#);
        let mut scan = place.scan();
        assert_eq!(scan.events().len(), 1);
        fs::rename(place.write("new.json", r#"{"tool_name":"three"}"#), place.at("event-progress.json")).unwrap();
        scan.delete().unwrap();
        assert_eq!(place.take(), ["gemini ✓ three"]);
    }

    #[test]
    fn the_hooks_log_is_read_and_deleted() {
        let place = Place::new();
        place.write("hook-errors.log", "");
        assert!(place.scan().errors.is_none());
        place.write("hook-errors.log", b"no space\x1b[2J left\n\xff\n");
        assert_eq!(place.scan().errors.unwrap(), "no space left\n\u{fffd}\n");
        assert_eq!(place.left(), 0);
    }

    #[test]
    fn other_names_are_left_while_they_are_young() {
        let place = Place::new();
        for name in [".1-2-send-progress.json", "notes.txt", "a\nb.json.tmp"] {
            place.write(name, EVENT);
        }
        assert!(place.take().is_empty() && place.left() == 3);
        let odd = OsStr::from_bytes(b"a\n\xff\"\x1b[2J.json");
        fs::write(place.0.path().join(odd), EVENT).unwrap();
        assert_eq!(place.take(), ["half way"]);
    }

    #[test]
    fn a_scan_has_an_end() {
        let place = Place::new();
        for n in 0..BATCH + 3 {
            place.write(&format!("{n:05}-7-send-progress.json"), EVENT);
        }
        let mut scan = place.scan();
        assert!(scan.more && scan.events().len() == BATCH);
        scan.delete().unwrap();
        let scan = place.scan();
        assert!(!scan.more && scan.found.len() == 3);
    }

    #[test]
    fn a_million_bytes_each_are_a_scan_for_themselves() {
        let place = Place::new();
        let long = format!(r#"{{"version":1,"kind":"progress","text":"x","more":"{}"}}"#, "x".repeat(LONGEST - 100));
        for n in 0..20 {
            place.write(&format!("{n:02}.json"), &long);
        }
        let scan = place.scan();
        assert!(scan.more && scan.found.len() == BYTES / LONGEST + 1, "{}", scan.found.len());
    }

    #[test]
    fn a_directory_that_is_a_link_is_not_read() {
        let place = Place::new();
        fs::create_dir(place.at("real")).unwrap();
        symlink(place.at("real"), place.at("link")).unwrap();
        assert!(scan(&place.at("real")).is_ok());
        assert!(scan(&place.at("link")).is_err());
    }

    #[test]
    fn what_cannot_be_deleted_is_said() {
        let place = Place::new();
        place.write("1-7-send-progress.json", EVENT);
        let scan = place.scan();
        fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o555)).unwrap();
        let deleted = scan.delete();
        fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(deleted.is_ok(), nix::unistd::geteuid().is_root());
    }
}
