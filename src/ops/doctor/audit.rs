//! Checks the newest file of the audit log: is each line as it was written, and is none missing behind the last?

use std::path::Path;

use super::Check;
use crate::{
    audit::{self, NotProven},
    text,
};

const NAME: &str = "audit log";

/// Older files are left to `matrix-agent audit verify`, since they may be many.
pub(super) async fn check(folder: &Path) -> Vec<Check> {
    let newest = match audit::all(folder).map(|files| files.last().cloned()) {
        Ok(Some(newest)) => newest,
        // No server has been here yet.
        Ok(None) | Err(NotProven::Nothing) => return vec![],
        Err(error @ NotProven::Folder { .. }) => {
            let what = error.to_string().trim_end_matches('.').to_owned();
            return vec![Check::warning(NAME, what, "Run this as the server's user, or as root")];
        }
        Err(error) => return vec![changed(&error)],
    };
    // Reading a month's file blocks.
    let shown = newest.display().to_string();
    let proven = tokio::task::spawn_blocking(move || audit::verify(&[newest], None)).await;
    vec![match proven {
        Ok(Ok(proven)) if proven.gaps > 0 => Check::warning(
            NAME,
            format!("{shown} is as it was written, and {} of its lines say that others are missing", proven.gaps),
            "The disk was full, or more was done at once than could be noted. Look at the lines of the kind `gap`",
        ),
        Ok(Ok(proven)) => Check::good(
            NAME,
            format!("{shown}, lines {} to {}, as they were written", proven.first, proven.head.number),
        ),
        // A server that has just begun a month's file has not written to it yet.
        Ok(Err(NotProven::Empty(_))) => Check::good(NAME, format!("{shown} holds no line yet")),
        Ok(Err(error)) => changed(&error),
        Err(_) => Check::bad(NAME, "the check itself failed", "Report this with the lines above it, please"),
    }]
}

fn changed(error: &NotProven) -> Check {
    Check::bad(
        NAME,
        text::one_line(error.to_string().trim_end_matches('.'), 400),
        "Find out who could write there, and compare with what AUDIT_ROOM was told; `matrix-agent audit verify` looks at all files",
    )
}
