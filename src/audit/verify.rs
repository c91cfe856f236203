//! Proves that the files of a log are as they were written, one after the other, and that none of it was cut off behind.

use std::{
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use super::{
    Head, files,
    line::{Unproven, begins_after, check},
    open_regular, witness,
};

/// What was proven of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proven {
    /// The number of its first line.
    pub first: u64,
    /// Its last line.
    pub head: Head,
    /// How many of its lines say that others are missing.
    pub gaps: u64,
}

/// Why a log is not shown to be what was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotProven {
    /// There is no file.
    #[error("There is no audit log yet.")]
    Nothing,
    /// There is no file any more.
    #[error("The audit log is gone: the file `head` in {} says that it has come to line {lines}.", folder.display())]
    Gone { folder: PathBuf, lines: u64 },
    /// A folder cannot be read.
    #[error("{} cannot be read: {cause}.", folder.display())]
    Folder { folder: PathBuf, cause: io::Error },
    /// A file cannot be read.
    #[error("{} cannot be read as an audit log: {cause}.", file.display())]
    File { file: PathBuf, cause: io::Error },
    /// A line is not as it was written, or cannot be read.
    #[error("{} is not as it was written: {cause}.", file.display())]
    Changed { file: PathBuf, cause: Unproven },
    /// A file holds no line.
    #[error("{} is empty: it holds no line of an audit log.", .0.display())]
    Empty(PathBuf),
    /// A file does not go on from the one before it.
    #[error("{} does not follow the file before it, which ends with line {ends}.", file.display())]
    Apart { file: PathBuf, ends: u64 },
    /// A line that the log should hold is not there.
    #[error("The log does not hold line {0} as it was written: it was cut, or written anew.")]
    Missing(u64),
    /// Nothing says how far the log had come.
    #[error(
        "Lines {first} to {last} are as they were written, but whether lines were cut off behind them cannot be told: {why}. Name a line \
         that the log must hold with `--head`, as a room was told (AUDIT_ROOM), or as this command said earlier."
    )]
    NoWitness { first: u64, last: u64, why: String },
}

/// Returns the files of the log in a folder, oldest first.
///
/// # Errors
///
/// There is none, or the folder cannot be read.
pub(crate) fn all(folder: &Path) -> Result<Vec<PathBuf>, NotProven> {
    let files = files(folder).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => NotProven::Nothing,
        _ => NotProven::Folder { folder: folder.to_owned(), cause },
    })?;
    match witness(folder) {
        _ if !files.is_empty() => Ok(files),
        Ok(Some(head)) => Err(NotProven::Gone { folder: folder.to_owned(), lines: head.number }),
        _ => Err(NotProven::Nothing),
    }
}

/// Checks files, each of which goes on from the one before it, and that they hold the line `wanted`.
///
/// # Errors
///
/// What is wrong first, or why it cannot be told.
pub(crate) fn verify(files: &[PathBuf], wanted: Option<&Head>) -> Result<Proven, NotProven> {
    let last = files.last().ok_or(NotProven::Nothing)?;
    // Before the log is read, which may grow meanwhile.
    let witness = behind(last)?;
    let sought: Vec<&Head> = witness.as_ref().ok().into_iter().chain(wanted).collect();
    let (mut head, mut first, mut gaps, mut holds) = (None::<Head>, None, 0, vec![false; sought.len()]);
    for file in files {
        let checked =
            check(opened(file)?, &sought).map_err(|cause| NotProven::Changed { file: file.clone(), cause })?;
        if checked.head.number == 0 {
            // A server that begins a month's file may be interrupted before its first line.
            if file == last && files.len() > 1 {
                break;
            }
            return Err(NotProven::Empty(file.clone()));
        }
        if let Some(head) = head.filter(|head| *head != checked.after) {
            return Err(NotProven::Apart { file: file.clone(), ends: head.number });
        }
        for (holds, found) in holds.iter_mut().zip(checked.holds) {
            *holds |= found;
        }
        gaps += checked.gaps;
        first.get_or_insert(checked.after.number + 1);
        head = Some(checked.head);
    }
    let (head, first) = (head.unwrap_or_default(), first.unwrap_or_default());
    let mut missing = sought.iter().zip(holds).filter(|(_, holds)| !holds).map(|(sought, _)| sought.number);
    if let Some(number) = missing.next() {
        return Err(NotProven::Missing(number));
    }
    match witness.err().filter(|_| wanted.is_none()) {
        Some(why) => Err(NotProven::NoWitness { first, last: head.number, why }),
        None => Ok(Proven { first, head, gaps }),
    }
}

/// Returns a line that a file must hold: the one that the next file follows, or how far the log has come. What says that may say nothing;
/// then it returns why.
fn behind(file: &Path) -> Result<Result<Head, String>, NotProven> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let all = files(folder).map_err(|cause| NotProven::Folder { folder: folder.to_owned(), cause })?;
    let next = all.iter().find(|other| other.file_name() > file.file_name());
    if let Some(next) = next {
        let shown = next.display();
        return Ok(match begins_after(opened(next)?) {
            Ok(Some(after)) => Ok(after),
            Ok(None) => Err(format!("the next file, {shown}, is empty")),
            Err(error) => Err(format!("the next file, {shown}, is no log: {error}")),
        });
    }
    Ok(match witness(folder) {
        Ok(Some(head)) => Ok(head),
        Ok(None) => Err(format!("the file `head` in {} does not say how far the log has come", folder.display())),
        Err(error) => Err(format!("the file `head` in {} cannot be read ({error})", folder.display())),
    })
}

fn opened(file: &Path) -> Result<BufReader<File>, NotProven> {
    let opened = open_regular(file).map_err(|cause| NotProven::File { file: file.to_owned(), cause })?;
    Ok(BufReader::new(opened))
}
