//! What a terminal is told that the server cannot serve, or not with what it has sent.

/// So many are open that no further one may be.
pub(crate) const FULL: &str = "Too many terminals are open. Close one and try again.";

/// A line could not be read.
pub(crate) fn unreadable(cause: &str) -> String {
    format!("That could not be read: {cause}.")
}

/// A line is no frame.
pub(crate) fn no_frame(cause: &str) -> String {
    format!("That is no frame of this protocol: {cause}.")
}

/// A message says nothing.
pub(crate) const BLANK: &str = "The message is empty. Write what is to be done.";

/// A message is too long; both in KiB, the size rounded up.
pub(crate) fn message_too_long(size: usize, limit: usize) -> String {
    format!("The message has {size} KiB; {limit} KiB can be taken.")
}

/// A message was not taken, since the disk is full.
pub(crate) const DISK_FULL: &str =
    "The disk that holds the database is full, so the message was not taken. Free some space and send it again.";
