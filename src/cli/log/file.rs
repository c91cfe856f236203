//! A log file of bounded size, for servers without journald: when it is full it is renamed to `NAME.1`, replacing the
//! last one, and a new file begins.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing_subscriber::fmt::MakeWriter;

/// The size in bytes at which a file is full.
const FULL: u64 = 16 << 20;

/// The log file.
pub(super) struct LogFile {
    path: PathBuf,
    full: u64,
    open: Mutex<Open>,
}

/// The file that is being written.
struct Open {
    file: Arc<File>,
    written: u64,
}

impl LogFile {
    /// Opens the file for appending; creates it for this user alone.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::of_size(path, FULL)
    }

    fn of_size(path: &Path, full: u64) -> io::Result<Self> {
        let file = append(path)?;
        let written = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), full, open: Mutex::new(Open { file: Arc::new(file), written }) })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renames the full file and begins a new one. If that fails the old one is used on: a long log is better than
    /// none.
    fn turn(&self, open: &mut Open) {
        let mut aside = self.path.clone().into_os_string();
        aside.push(".1");
        if let Ok(file) = fs::rename(&self.path, aside).and_then(|()| append(&self.path)) {
            open.file = Arc::new(file);
        }
        open.written = 0;
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Writer<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Writer(self)
    }
}

/// Writes to the file that is current at that moment.
pub(super) struct Writer<'a>(&'a LogFile);

impl Write for Writer<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut open = self.0.lock();
        if open.written >= self.0.full {
            self.0.turn(&mut open);
        }
        let count = (&*open.file).write(line)?;
        open.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_aside_once_and_the_newest_lines_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.log");
        fs::write(&path, "earlier\n").unwrap();
        let log = LogFile::of_size(&path, 100).unwrap();
        for number in 0..100 {
            log.make_writer().write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        let (old, new) = (fs::read_to_string(folder.path().join("server.log.1")), fs::read_to_string(&path));
        let (old, new) = (old.unwrap(), new.unwrap());
        assert!(old.len() < 120 && new.len() < 120, "{old}{new}");
        assert!(new.ends_with("line 99\n") && !old.contains("earlier"), "{old}{new}");
    }
}
