//! Why the database did not do its part, for whoever waits and whoever runs the server.

use std::{fmt::Display, path::Path};

/// It could not be opened or brought up to date.
pub(crate) fn not_opened(path: &Path, cause: &dyn Display) -> String {
    let path = path.display();
    format!("The database {path} cannot be opened: {cause}. Check that the file and its folder belong to this user.")
}

/// A newer version has written it, and says that this one would harm it.
pub(crate) fn newer(path: &Path) -> String {
    format!(
        "The database {} belongs to a newer version of matrix-agent, which this one cannot go along with. Install that \
         version again, or put back the copy that was made before it.",
        path.display()
    )
}

/// The disk is full.
pub(crate) const FULL: &str = "The disk that holds the database is full. Free some space; work goes on by itself then.";

/// A read took longer than any read may.
pub(crate) const SLOW: &str =
    "The database takes too long to answer. See whether the disk is busy; what needs it is tried again.";

/// SQLite failed.
pub(crate) fn failed(cause: &dyn Display) -> String {
    format!("The database failed: {cause}.")
}

/// A file on its way to a room cannot be kept or read.
pub(crate) fn file_not_kept(cause: &dyn Display) -> String {
    format!("A file that is to be sent cannot be kept in STATE_DIR: {cause}.")
}

/// A stored value cannot be read back.
pub(crate) fn corrupt(cause: &dyn Display) -> String {
    format!("A stored value cannot be read: {cause}.")
}

/// The program ends.
pub(crate) const CLOSED: &str = "The database is closed.";
