//! Lines out of bytes that come in any pieces. Of a line that is too long only the beginning is kept, however it comes.
//!
//! Pure; called by the parent alone.

use std::mem;

/// The longest line that is read. A line holds at most a file that a tool was given, or the answer of one.
pub(super) const LONGEST: usize = 1024 * 1024;

/// Bytes that are kept of a longer one.
const HEAD: usize = 1024;

/// A line without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// All of it.
    Whole(Vec<u8>),
    /// The beginning of one that is longer than [`LONGEST`].
    Head(Vec<u8>),
}

/// What has come of a line.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    begun: Vec<u8>,
    /// The bytes that have come of it, whether or not they are kept.
    pending: u64,
    /// It is longer than [`LONGEST`]: what comes after its head is dropped.
    too_long: bool,
}

impl Lines {
    /// Takes the next bytes and returns the lines that they end.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            self.push(&rest[..at]);
            lines.extend(self.end());
            rest = &rest[at + 1..];
        }
        self.push(rest);
        lines
    }

    /// Returns the line that has begun, if it is worth reading, and begins another.
    pub(super) fn end(&mut self) -> Option<Line> {
        self.pending = 0;
        let line = mem::take(&mut self.begun);
        if mem::take(&mut self.too_long) {
            return Some(Line::Head(line));
        }
        (!line.trim_ascii().is_empty()).then_some(Line::Whole(line))
    }

    /// Returns how many bytes have come of the line that has begun.
    pub(super) fn pending(&self) -> u64 {
        self.pending
    }

    fn push(&mut self, bytes: &[u8]) {
        self.pending += bytes.len() as u64;
        self.too_long |= self.begun.len() + bytes.len() > LONGEST;
        let room = if self.too_long { HEAD.saturating_sub(self.begun.len()) } else { bytes.len() };
        self.begun.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if self.too_long {
            self.begun.truncate(HEAD);
            self.begun.shrink_to_fit();
        }
    }
}
