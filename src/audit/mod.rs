//! The audit log: who had what done, one line a deed, so that it can be proven later what happened and what did not.
//!
//! It holds names, digests and outcomes, never what was said or written. Its lines make a chain ([`check`]); how far it has come stands
//! in a file beside it, and in a room if the operator wants a witness elsewhere. Whoever notes something never waits: what cannot be
//! written is counted, and a line says how much is missing.

mod line;
mod verify;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use nix::fcntl::OFlag;
use tokio::sync::{mpsc, watch};

pub(crate) use line::{Deed, Head};
use line::{GAP, LONGEST_LINE, check};
pub(crate) use verify::{NotProven, all, verify};

use crate::clock::{Clock, day_of};

/// Deeds that wait to be written.
const WAITING: usize = 4096;
/// The file beside the log that says how far it has come.
const HEAD: &str = "head";
/// The most bytes of that file that are read.
const LONGEST_HEAD: u64 = 200;
/// How a log's file ends; it begins with the month.
const LOG: &str = "jsonl";

/// Notes deeds. Cheap to clone; the default notes nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Audit {
    inner: Option<Arc<Inner>>,
}

#[derive(Debug)]
struct Inner {
    sender: mpsc::Sender<Deed>,
    lost: Arc<AtomicU64>,
    head: watch::Receiver<Head>,
}

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the audit log in {} cannot be opened: {cause}", folder.display())]
pub(crate) struct NotOpened {
    folder: PathBuf,
    cause: io::Error,
}

impl Audit {
    /// Opens the log in a folder, which is made, and goes on where it ends. A line that a crash has cut is taken away; one that is not as
    /// it was written stays, and the log says so.
    ///
    /// # Errors
    ///
    /// The folder cannot be used.
    pub(crate) fn open(folder: &Path, clock: Clock) -> Result<Self, NotOpened> {
        let log = Log::open(folder, clock).map_err(|cause| NotOpened { folder: folder.to_owned(), cause })?;
        let (sender, waiting) = mpsc::channel(WAITING);
        let (told, head) = watch::channel(log.head.clone());
        let lost = Arc::new(AtomicU64::new(0));
        let missing = Arc::clone(&lost);
        let started = thread::Builder::new().name("audit".to_owned()).spawn(move || log.run(waiting, &missing, &told));
        started.map_err(|cause| NotOpened { folder: folder.to_owned(), cause })?;
        Ok(Self { inner: Some(Arc::new(Inner { sender, lost, head })) })
    }

    /// Notes a deed.
    pub(crate) fn note(&self, deed: Deed) {
        if let Some(inner) = &self.inner
            && inner.sender.try_send(deed).is_err()
        {
            inner.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how far the log has come; `None` if there is none.
    pub(crate) fn head(&self) -> Option<Head> {
        self.inner.as_ref().map(|inner| inner.head.borrow().clone())
    }
}

/// Returns the files of the log in a folder, oldest first.
///
/// # Errors
///
/// The folder cannot be read.
pub(crate) fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == LOG) {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

/// Returns how far the log in a folder should have come, as the file beside it says; `None` if that file says nothing that can be read.
///
/// # Errors
///
/// There is no such file, or it may not be read.
pub(crate) fn witness(folder: &Path) -> io::Result<Option<Head>> {
    let mut text = String::new();
    match open_regular(&folder.join(HEAD))?.take(LONGEST_HEAD).read_to_string(&mut text) {
        Ok(_) => Ok(Head::parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a regular file, and nothing that would be read for ever or waited for.
///
/// # Errors
///
/// It is none, or cannot be opened.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    Ok(file)
}

/// The log while it is written.
struct Log {
    folder: PathBuf,
    clock: Clock,
    head: Head,
    /// The newest file with its month.
    file: Option<(String, File)>,
    /// What is to be said first: that lines are missing.
    gap: Option<Deed>,
}

impl Log {
    fn open(folder: &Path, clock: Clock) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut log = Self { folder: folder.to_owned(), clock, head: Head::default(), file: None, gap: None };
        let witness = witness(folder).ok().flatten();
        let files = files(folder)?;
        let Some(newest) = files.last() else { return Ok(log) };
        let whole = without_cut_line(newest)?;
        let read = BufReader::new(open_regular(newest)?.take(whole));
        let sought: Vec<&Head> = witness.iter().collect();
        match check(read, &sought) {
            // An empty file says nothing of those before it.
            Ok(_) if whole == 0 => log.head = witness.unwrap_or_default(),
            Ok(checked) => {
                // The first line of a file may be written and how far the log has come not yet.
                let is_held = checked.holds.contains(&true) || witness.as_ref() == Some(&checked.after);
                if let Some(witness) = witness.filter(|_| !is_held) {
                    let outcome =
                        format!("ends with line {}, and line {} was written", checked.head.number, witness.number);
                    tracing::error!("the audit log {outcome}: its end was cut, or was lost with the machine's power");
                    log.gap = Some(Deed { kind: GAP.to_owned(), outcome, ..Deed::default() });
                }
                log.head = checked.head;
            }
            Err(error) => {
                let file = newest.display();
                tracing::error!(%error, "the audit log {file} is not as it was written; `matrix-agent audit verify` tells more");
                log.head = witness.unwrap_or_default();
            }
        }
        let month = newest.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // What begins an empty file must say what it follows.
        log.file = if whole > 0 { Some((month, OpenOptions::new().append(true).open(newest)?)) } else { None };
        Ok(log)
    }

    fn run(mut self, mut waiting: mpsc::Receiver<Deed>, lost: &AtomicU64, told: &watch::Sender<Head>) {
        let mut batch = Vec::new();
        if let Some(gap) = self.gap.take() {
            if let Err(error) = self.write(&[gap]) {
                tracing::error!(%error, "the audit log cannot be written");
            }
            told.send_replace(self.head.clone());
        }
        while waiting.blocking_recv_many(&mut batch, WAITING) > 0 {
            let missing = lost.swap(0, Ordering::Relaxed);
            if missing > 0 {
                let outcome = format!("{missing} lines are missing");
                batch.insert(0, Deed { kind: GAP.to_owned(), outcome, ..Deed::default() });
            }
            if let Err(error) = self.write(&batch) {
                lost.fetch_add(missing + batch.len() as u64, Ordering::Relaxed);
                tracing::error!(%error, "the audit log cannot be written");
            }
            told.send_replace(self.head.clone());
            batch.clear();
        }
    }

    /// Writes deeds; all of them, or none.
    fn write(&mut self, deeds: &[Deed]) -> io::Result<()> {
        let millis = self.clock.millis();
        let at = jiff::Timestamp::from_millisecond(millis).unwrap_or_default().to_string();
        let month = day_of(millis)[..7].to_owned();
        // A clock that goes back must not go on in an older file.
        let begins = self.file.as_ref().is_none_or(|(newest, _)| *newest < month);
        if begins {
            let path = self.folder.join(format!("{month}.{LOG}"));
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
            self.file = Some((month, file));
        }
        let Some((_, file)) = &mut self.file else { return Ok(()) };
        let (mut head, mut text) = (self.head.clone(), String::new());
        for (index, deed) in deeds.iter().enumerate() {
            text.push_str(&head.write(&at, deed, begins && index == 0)?);
        }
        let before = file.metadata()?.len();
        if let Err(error) = file.write_all(text.as_bytes()) {
            // A part of a line would make the rest of the log unreadable.
            file.set_len(before)?;
            if begins {
                self.file = None;
            }
            return Err(error);
        }
        self.head = head;
        let fresh = self.folder.join("head.new");
        let noted = fs::write(&fresh, format!("{}\n", self.head.shown()));
        if let Err(error) = noted.and_then(|()| fs::rename(fresh, self.folder.join(HEAD))) {
            tracing::error!(%error, "how far the audit log has come cannot be noted");
        }
        Ok(())
    }
}

/// Takes away a line of the file's end that a crash has cut; returns how many bytes the file has then.
fn without_cut_line(path: &Path) -> io::Result<u64> {
    let mut file = open_regular(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(LONGEST_LINE);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(LONGEST_LINE).read_to_end(&mut end)?;
    let whole = match end.iter().rposition(|byte| *byte == b'\n') {
        Some(at) => from + at as u64 + 1,
        None if from == 0 => 0,
        // So long a line is none of a log's, and the check says so.
        None => length,
    };
    if whole < length {
        OpenOptions::new().append(true).open(path)?.set_len(whole)?;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::{
        line::{Broken, Unproven, Why},
        *,
    };

    fn deed(about: &str) -> Deed {
        Deed { kind: "tool".into(), about: about.into(), outcome: "done".into(), ..Deed::default() }
    }

    fn log(folder: &Path, clock: &Clock) -> Log {
        Log::open(folder, clock.clone()).unwrap()
    }

    fn said(folder: &Path) -> Head {
        witness(folder).unwrap().unwrap()
    }

    /// All files of a folder, checked, and each as going on from the one before it.
    fn checked(folder: &Path) -> Head {
        let mut head = Head::default();
        for file in files(folder).unwrap() {
            let checked = check(&fs::read(file).unwrap()[..], &[]).unwrap();
            assert_eq!(checked.after, head);
            head = checked.head;
        }
        assert_eq!(head, said(folder));
        head
    }

    #[test]
    fn it_goes_on_after_a_restart_a_cut_line_and_in_a_new_month() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::fixed_at(1_796_000_000_000);
        log(folder.path(), &clock).write(&[deed("one"), deed("two")]).unwrap();
        log(folder.path(), &clock).write(&[deed("three")]).unwrap();
        let newest = files(folder.path()).unwrap().pop().unwrap();
        OpenOptions::new().append(true).open(&newest).unwrap().write_all(b"{\"n\":4,\"at\":\"20").unwrap();
        log(folder.path(), &clock).write(&[deed("four")]).unwrap();
        clock.advance(31 * 24 * 60 * 60 * 1000);
        log(folder.path(), &clock).write(&[deed("five")]).unwrap();
        assert_eq!(checked(folder.path()).number, 5);
        assert_eq!(files(folder.path()).unwrap().len(), 2);
        // A clock that goes back changes nothing about where it goes on.
        log(folder.path(), &Clock::fixed_at(0)).write(&[deed("six")]).unwrap();
        assert_eq!(checked(folder.path()).number, 6);
    }

    #[test]
    fn what_is_not_as_it_was_written_is_found_and_stays_so() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::fixed_at(1_796_000_000_000);
        log(folder.path(), &clock).write(&[deed("one"), deed("two"), deed("three")]).unwrap();
        let (file, head) = (files(folder.path()).unwrap().pop().unwrap(), said(folder.path()));
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("two", "TWO")).unwrap();
        log(folder.path(), &clock).write(&[deed("four")]).unwrap();
        let found = check(&fs::read(&file).unwrap()[..], &[]);
        assert!(matches!(found, Err(Unproven::Broken(Broken { place: 2, why: Why::Sum }))), "{found:?}");
        assert_eq!(said(folder.path()).number, head.number + 1);
    }

    #[tokio::test]
    async fn an_end_that_was_cut_while_nobody_wrote_is_noted_and_stays_so() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::fixed_at(1_796_000_000_000);
        log(folder.path(), &clock).write(&[deed("one"), deed("two"), deed("three")]).unwrap();
        let file = files(folder.path()).unwrap().pop().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.split_inclusive('\n').take(2).collect::<String>()).unwrap();
        let mut head = Audit::open(folder.path(), clock.clone()).unwrap().inner.as_ref().unwrap().head.clone();
        let noted = head.wait_for(|head| head.number == 3);
        tokio::time::timeout(std::time::Duration::from_secs(20), noted).await.unwrap().unwrap();
        assert!(fs::read_to_string(&file).unwrap().contains("ends with line 2, and line 3 was written"));
        assert_eq!(check(&fs::read(&file).unwrap()[..], &[]).unwrap().gaps, 1);
        assert_eq!(checked(folder.path()).number, 3);
        assert!(log(folder.path(), &clock).gap.is_none(), "it is said once");
    }

    #[tokio::test]
    async fn nobody_waits_for_it_and_what_is_missing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path(), Clock::fixed_at(1_796_000_000_000)).unwrap();
        // The folder is away, so nothing can be written.
        fs::remove_dir_all(folder.path()).unwrap();
        audit.note(deed("lost"));
        let lost = &audit.inner.as_ref().unwrap().lost;
        let wait = async {
            while lost.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
            fs::create_dir_all(folder.path()).unwrap();
            audit.note(deed("written"));
            audit.inner.as_ref().unwrap().head.clone().wait_for(|head| head.number == 2).await.unwrap();
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.unwrap();
        let files = files(folder.path()).unwrap();
        assert!(fs::read_to_string(&files[0]).unwrap().contains("1 lines are missing"));
    }
}
