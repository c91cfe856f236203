//! Checks the newest file of the audit log: is each line as it was written, and is none missing behind the last?

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Check;
use crate::{
    audit::{self, NotProven},
    text,
};

const NAME: &str = "audit log";

/// Older files are left to `matrix-agent audit verify`, since they may be many.
pub(super) async fn check(folder: &Path) -> Vec<Check> {
    let files = match audit::all(folder) {
        Ok(files) => newest(files),
        // No server has been here yet.
        Err(NotProven::Nothing) => return vec![],
        Err(error) => return vec![told(&error)],
    };
    let shown = files.last().map(|file| file.display().to_string()).unwrap_or_default();
    // Reading a month's file blocks. How far the log had come is read first, since it may grow meanwhile.
    let folder = folder.to_owned();
    let looking = move || (audit::witness(&folder).ok().flatten(), audit::verify(&files, None));
    vec![match tokio::task::spawn_blocking(looking).await {
        Ok((_, Ok(proven))) if proven.gaps > 0 => Check::warning(
            NAME,
            format!("{shown} is as it was written, and {} of its lines say that others are missing", proven.gaps),
            "The disk was full, or more was done at once than could be noted. Look at the lines of the kind `gap`",
        ),
        Ok((_, Ok(proven))) => Check::good(
            NAME,
            format!("{shown}, lines {} to {}, as they were written", proven.first, proven.head.number),
        ),
        // A server that has just begun its first file has not written to it yet.
        Ok((None, Err(NotProven::Empty(_)))) => Check::good(NAME, format!("{shown} holds no line yet")),
        Ok((Some(head), Err(NotProven::Empty(_)))) => told(&NotProven::Missing(head.number)),
        Ok((_, Err(error))) => told(&error),
        Err(_) => Check::bad(NAME, "the check itself failed", "Report this with the lines above it, please"),
    }]
}

/// Returns the last file, and the one before it where a server has written nothing to the last one yet.
fn newest(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    let is_empty = files.last().and_then(|last| fs::metadata(last).ok()).is_some_and(|about| about.len() == 0);
    files.split_off(files.len().saturating_sub(if is_empty { 2 } else { 1 }))
}

fn told(error: &NotProven) -> Check {
    let what = text::one_line(error.to_string().trim_end_matches('.'), 400);
    match error {
        NotProven::File { .. } | NotProven::Folder { .. } => Check::warning(
            NAME,
            what,
            "Run this as the server's user, or as root; if that changes nothing, the disk may be failing",
        ),
        _ => Check::bad(
            NAME,
            what,
            "Find out who could write there, and compare with what AUDIT_ROOM was told; `matrix-agent audit verify` looks at all files",
        ),
    }
}
