//! The disk use of a sandbox that no walk over directories finds, deleted files that are still open or mapped; and
//! how many bytes its processes have written. Read from `/proc`; the host opens none of the files.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::sys::{
    stat::makedev,
    statfs::{TMPFS_MAGIC, statfs},
};

use super::{cgroup::Cgroup, space::Usage, spec};

/// The most files of one sandbox that are looked at. A sandbox with more cannot be counted.
const MOST: usize = 300_000;

/// What the kernel appends to the name of a deleted file.
const DELETED: &str = " (deleted)";

/// Counts the deleted files of the sandbox with PID 1 `pid`. With an `image`, files in it are left out, since they
/// are part of the image's size.
pub(super) fn deleted(pid: u32, image: bool) -> io::Result<Usage> {
    let workspace = if image { Some(device_of_workspace(pid)?) } else { None };
    let mut held = Held { workspace, left: MOST, seen: HashSet::new(), taken: Usage::default() };
    for process in Cgroup::of(pid)?.processes() {
        // A process that ended meanwhile holds nothing.
        let mut tables: Vec<HashSet<OsString>> = Vec::new();
        let mut mapped = false;
        for thread in names(&PathBuf::from(format!("/proc/{process}/task"))) {
            let of_thread = Path::new("/proc").join(thread);
            // Threads mostly share their open files. One that does not most likely has other file numbers.
            let open = of_thread.join("fd");
            let numbers = names(&open);
            if !numbers.is_empty() && !tables.contains(&numbers) {
                numbers.iter().try_for_each(|number| held.open(&open.join(number)))?;
                tables.push(numbers);
            }
            // Threads share their memory, but the first one may have ended.
            if !mapped {
                let maps = of_thread.join("map_files");
                let ranges = names(&maps);
                mapped = !ranges.is_empty();
                ranges.iter().try_for_each(|range| held.mapped(&maps.join(range)))?;
            }
        }
    }
    Ok(held.taken)
}

/// Returns the bytes that a sandbox's processes have written so far, including ended ones whose parent waited for
/// them.
pub(super) fn written(pid: u32) -> u64 {
    let processes = Cgroup::of(pid).map(|cgroup| cgroup.processes()).unwrap_or_default();
    processes.iter().filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/io")).ok()).map(|io| bytes(&io)).sum()
}

/// Returns whether open files are being passed between the sandbox's processes. Sent over a Unix socket and not yet
/// received, a file belongs to no process.
pub(super) fn sends_files(pid: u32) -> bool {
    let processes = Cgroup::of(pid).map(|cgroup| cgroup.processes()).unwrap_or_default();
    let mut sockets = processes.iter().flat_map(|pid| {
        let (open, about) = (format!("/proc/{pid}/fd"), PathBuf::from(format!("/proc/{pid}/fdinfo")));
        names(Path::new(&open)).into_iter().filter_map(move |number| fs::read_to_string(about.join(number)).ok())
    });
    sockets.any(|about| sent(&about) > 0)
}

/// Reads from `/proc/PID/fdinfo/FD` how many files wait in a socket.
fn sent(about: &str) -> u64 {
    about.lines().find_map(|line| line.strip_prefix("scm_fds:")?.trim().parse().ok()).unwrap_or_default()
}

/// Reads the written bytes from `/proc/PID/io`.
fn bytes(io: &str) -> u64 {
    let value = |name: &str| io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    value("write_bytes:").unwrap_or_default().saturating_sub(value("cancelled_write_bytes:").unwrap_or_default())
}

struct Held {
    /// The device of the room's image, if it has one; its files are counted with the image.
    workspace: Option<u64>,
    left: usize,
    seen: HashSet<(u64, u64)>,
    taken: Usage,
}

impl Held {
    /// Counts an open file. The entry in `/proc` is the file itself, wherever its name would lead.
    fn open(&mut self, entry: &Path) -> io::Result<()> {
        self.use_one()?;
        if let Ok(file) = fs::metadata(entry) {
            self.count(entry, &file);
        }
        Ok(())
    }

    /// Counts a mapped file. Without root the kernel shows only its name and the mapped range.
    fn mapped(&mut self, entry: &Path) -> io::Result<()> {
        self.use_one()?;
        let Ok(name) = fs::read_link(entry) else { return Ok(()) };
        let Some(name) = name.to_str().filter(|name| name.ends_with(DELETED)) else { return Ok(()) };
        match fs::metadata(entry) {
            Ok(file) => self.count(entry, &file),
            Err(_) if ["/memfd:", "/dev/shm/", "/dev/zero", "/SYSV"].iter().any(|memory| name.starts_with(memory)) => {}
            Err(_) => {
                self.taken.bytes += entry.file_name().and_then(|range| length(range.to_str()?)).unwrap_or_default();
            }
        }
        Ok(())
    }

    fn count(&mut self, entry: &Path, file: &fs::Metadata) {
        let hidden = file.is_file() && file.nlink() == 0 && Some(file.dev()) != self.workspace;
        if hidden && !in_memory(entry) && self.seen.insert((file.dev(), file.ino())) {
            self.taken.bytes += file.blocks() * 512;
            self.taken.inodes += 1;
        }
    }

    fn use_one(&mut self) -> io::Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(|| io::Error::other("too many files are open"))?;
        Ok(())
    }
}

fn names(directory: &Path) -> HashSet<OsString> {
    fs::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.file_name()).collect())
        .unwrap_or_default()
}

/// Parses the length of an address range in hex: `7f00-8f00`.
fn length(range: &str) -> Option<u64> {
    let (from, to) = range.split_once('-')?;
    u64::from_str_radix(to, 16).ok()?.checked_sub(u64::from_str_radix(from, 16).ok()?)
}

/// Returns whether a file is shared memory, which counts as memory.
fn in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC)
}

/// Reads the device of the workspace from the sandbox's mounts, which nobody in it can change.
fn device_of_workspace(pid: u32) -> io::Result<u64> {
    let mounts = mounts(pid).ok_or_else(|| io::Error::other("the sandbox has no workspace"))?;
    device_of(&mounts, spec::WORKSPACE).ok_or_else(|| io::Error::other("the device of the workspace cannot be read"))
}

/// Returns the mounts of the sandbox: those of PID 1; under gVisor, whose own process stands for that and has none of them,
/// those of the process that opens files for it.
fn mounts(pid: u32) -> Option<String> {
    let read = |pid: u32| fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok();
    let has_workspace = |mounts: &String| mount_of(mounts, spec::WORKSPACE).is_some();
    let others = || Cgroup::of(pid).map(|cgroup| cgroup.processes()).unwrap_or_default();
    read(pid).filter(has_workspace).or_else(|| others().into_iter().filter_map(read).find(has_workspace))
}

fn device_of(mountinfo: &str, point: &str) -> Option<u64> {
    let (major, minor) = mount_of(mountinfo, point)?.get(2)?.split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// Returns whether the kernel refuses writes to the workspace because the disk below it has failed.
pub(super) fn workspace_has_failed(pid: u32) -> bool {
    mounts(pid).is_some_and(|mounts| has_failed(&mounts, spec::WORKSPACE))
}

/// The options after the dash are the file system's, not the mount's.
fn has_failed(mountinfo: &str, point: &str) -> bool {
    let options = mount_of(mountinfo, point).and_then(|mount| mount.last().copied()).unwrap_or_default();
    options.split(',').any(|option| matches!(option, "ro" | "emergency_ro"))
}

fn mount_of<'a>(mountinfo: &'a str, point: &str) -> Option<Vec<&'a str>> {
    let mut mounts = mountinfo.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    mounts.find(|fields| fields.get(4) == Some(&point))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        let mounts = "22 27 0:21 / /proc rw - proc proc rw\n30 22 7:3 /workspace /workspace rw - ext4 /dev/loop3 rw\n";
        assert_eq!(device_of(mounts, "/workspace"), Some(makedev(7, 3)));
        assert_eq!(device_of(mounts, "/elsewhere"), None);
        assert!(!has_failed(mounts, "/workspace"));
        for options in ["rw,discard,emergency_ro", "ro,discard"] {
            let mounts = format!("30 22 7:3 /workspace /workspace rw,relatime - ext4 /dev/loop3 {options}");
            assert!(has_failed(&mounts, "/workspace"), "{options}");
        }
        assert_eq!(bytes("rchar: 1\nwrite_bytes: 8192\ncancelled_write_bytes: 4096\n"), 4096);
        assert_eq!(bytes(""), 0);
        assert_eq!(sent("pos:\t0\nflags:\t02\nscm_fds: 3\n"), 3);
        assert_eq!(sent("pos:\t0\n"), 0);
        assert_eq!(length("7f0000000000-7f0000100000"), Some(1 << 20));
        assert_eq!(length("x"), None);
    }
}
