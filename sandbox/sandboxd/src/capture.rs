//! What is kept of a command's output: its head and its tail in memory, the middle counted, and from the moment that
//! something would be lost, the whole in a log file that the agent can read. Called by a command's warden, and by its
//! spool, which makes its files in the same way.

use std::{
    collections::VecDeque,
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sandboxd::protocol::{HEAD, LOG_DIR, LOG_LIMIT, TAIL};

use crate::{account::Account, sys};

/// The most logs that are kept in the directory.
const LOGS: usize = 40;

/// A command's output so far.
pub(crate) struct Capture {
    head: Vec<u8>,
    /// The last bytes, as a ring: once full, `next` is both its oldest byte and the place of the next.
    tail: Vec<u8>,
    next: usize,
    total: u64,
    log: Log,
}

enum Log {
    /// Nothing is lost yet. The path and the owner that the log would have.
    Unneeded {
        path: PathBuf,
        uid: u32,
        gid: u32,
    },
    Open {
        path: PathBuf,
        file: fs::File,
        written: u64,
    },
    /// The log is at its limit, or the disk is full.
    Closed(PathBuf),
    /// There is no log: it could not be made, or is not wanted.
    Nowhere,
}

/// The parts of an output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) head: Vec<u8>,
    pub(crate) tail: Vec<u8>,
    pub(crate) omitted: u64,
}

impl Capture {
    pub(crate) fn new(id: &str, account: &Account) -> Self {
        let path = log_path(id, account);
        Self { log: Log::Unneeded { path, uid: account.uid, gid: account.gid }, ..Self::unlogged() }
    }

    /// Returns a capture without a log file.
    pub(crate) fn unlogged() -> Self {
        Self { head: Vec::new(), tail: Vec::new(), next: 0, total: 0, log: Log::Nowhere }
    }

    /// Takes more output.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.total + bytes.len() as u64 > (HEAD + TAIL) as u64 {
            self.open_log();
            self.write_log(bytes);
        }
        self.total += bytes.len() as u64;
        let (first, rest) = bytes.split_at(bytes.len().min(HEAD - self.head.len()));
        self.head.extend_from_slice(first);
        // Of a long piece only the end can stay.
        let rest = &rest[rest.len().saturating_sub(TAIL)..];
        let (fill, over) = rest.split_at(rest.len().min(TAIL - self.tail.len()));
        self.tail.extend_from_slice(fill);
        for piece in [&over[..over.len().min(TAIL - self.next)], &over[over.len().min(TAIL - self.next)..]] {
            self.tail[self.next..self.next + piece.len()].copy_from_slice(piece);
            self.next = (self.next + piece.len()) % TAIL;
        }
    }

    /// Returns what is kept.
    pub(crate) fn parts(&self) -> Parts {
        let (newer, older) = self.tail.split_at(self.next);
        let tail = [older, newer].concat();
        let omitted = self.total - (self.head.len() + tail.len()) as u64;
        Parts { head: self.head.clone(), tail, omitted }
    }

    /// Returns where the log is, if there is one.
    pub(crate) fn log(&self) -> Option<String> {
        match &self.log {
            Log::Open { path, .. } | Log::Closed(path) => Some(path.to_string_lossy().into_owned()),
            Log::Unneeded { .. } | Log::Nowhere => None,
        }
    }

    fn open_log(&mut self) {
        if let Log::Unneeded { path, uid, gid } = &self.log {
            // The log is made with the agent's rights, since the agent may have put links in the way.
            let opened = sys::with_rights_of(*uid, *gid, || create(path));
            let path = path.clone();
            self.log = opened.map_or(Log::Nowhere, |file| Log::Open { path, file, written: 0 });
            let Parts { head, tail, .. } = self.parts();
            self.write_log(&head);
            self.write_log(&tail);
        }
    }

    fn write_log(&mut self, bytes: &[u8]) {
        if let Log::Open { path, file, written } = &mut self.log {
            let room = LOG_LIMIT - *written;
            let bytes = &bytes[..bytes.len().min(room as usize)];
            *written += bytes.len() as u64;
            if file.write_all(bytes).is_err() || *written == LOG_LIMIT {
                self.log = Log::Closed(path.clone());
            }
        }
    }
}

/// The last bytes of something.
#[derive(Default)]
pub(crate) struct Last(VecDeque<u8>);

impl Last {
    /// Takes more, and forgets all but the last `limit` bytes.
    pub(crate) fn push(&mut self, bytes: &[u8], limit: usize) {
        self.0.extend(&bytes[bytes.len().saturating_sub(limit)..]);
        self.0.drain(..self.0.len().saturating_sub(limit));
    }

    /// Returns the bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.iter().copied().collect()
    }
}

/// Returns where a command's log file is, whatever its id.
pub(crate) fn log_path(id: &str, account: &Account) -> PathBuf {
    let name: String = id.chars().map(|it| if it.is_ascii_alphanumeric() || it == '-' { it } else { '_' }).collect();
    Path::new(&account.home).join(LOG_DIR).join(format!("{}.log", &name[..name.len().min(100)]))
}

/// Makes a log file, and room for it.
pub(crate) fn create(path: &Path) -> io::Result<fs::File> {
    let directory = path.parent().unwrap_or(path);
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    remove_oldest(directory)?;
    let _ = fs::remove_file(path);
    fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o644).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Makes room for one more log.
fn remove_oldest(directory: &Path) -> io::Result<()> {
    let mut logs: Vec<_> = fs::read_dir(directory)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let time = entry.metadata().ok()?.modified().ok()?;
            (entry.path().extension()? == "log").then(|| (time, entry.path()))
        })
        .collect();
    if logs.len() >= LOGS {
        logs.sort();
        for (_, path) in &logs[..=logs.len() - LOGS] {
            let _ = fs::remove_file(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    fn capture(home: &str) -> Capture {
        let id = sys::ids();
        let account = Account { uid: id.0, gid: id.1, groups: Vec::new(), home: home.into(), shell: String::new() };
        Capture::new("a/b", &account)
    }

    /// Bytes that tell their place.
    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|place| (place % 251) as u8).collect()
    }

    #[test]
    fn head_and_tail_stay_and_the_middle_is_counted_however_it_comes() {
        for count in [0, 1, HEAD, HEAD + 1, HEAD + TAIL, HEAD + TAIL + 1, HEAD + 2 * TAIL + 77, 200_000] {
            for piece in [1_000, 4_096, TAIL + 5, 65_536, 1 << 20] {
                let all = bytes(count);
                let mut capture = capture("/nonexistent");
                for part in all.chunks(piece) {
                    capture.push(part);
                }
                let Parts { head, tail, omitted } = capture.parts();
                assert_eq!(head, all[..count.min(HEAD)], "{count} by {piece}");
                assert_eq!(tail, all[count.min(HEAD).max(count.saturating_sub(TAIL))..], "{count} by {piece}");
                assert_eq!(omitted as usize, count - head.len() - tail.len(), "{count} by {piece}");
            }
        }
    }

    #[test]
    fn the_last_bytes_stay() {
        let mut last = Last::default();
        for (bytes, stay) in [("ab", "ab"), ("cdef", "bcdef"), ("", "bcdef"), ("0123456789", "56789")] {
            last.push(bytes.as_bytes(), 5);
            assert_eq!(last.bytes(), stay.as_bytes());
        }
    }

    #[test]
    fn the_log_holds_the_whole_once_something_would_be_lost() {
        let home = env::temp_dir().join(format!("sandboxd-capture-{}", std::process::id()));
        let mut capture = capture(&home.to_string_lossy());
        let all = bytes(100_000);
        capture.push(&all[..HEAD + TAIL]);
        assert_eq!(capture.log(), None);
        capture.push(&all[HEAD + TAIL..]);
        let path = capture.log().unwrap();
        assert_eq!(Path::new(&path).file_name().unwrap(), "a_b.log");
        assert_eq!(fs::read(&path).unwrap(), all);
        let more = vec![0; LOG_LIMIT as usize];
        capture.push(&more);
        capture.push(&more);
        assert_eq!(fs::metadata(&path).unwrap().len(), LOG_LIMIT);
        assert_eq!(capture.log(), Some(path));
        fs::remove_dir_all(home).unwrap();
    }
}
