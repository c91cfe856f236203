//! The HTML that is being written: its open elements, and the text that waits to be written. Only this file opens and
//! closes tags, so that they are balanced.

use super::words;
use crate::text;

/// The deepest nesting of elements. The deepest one may still hold a table, a paragraph or a code block with a file
/// name in it (at most five levels more).
pub(super) const DEPTH: usize = 20;

pub(super) const DETAILS: &[&str] = &["details"];
pub(super) const SUMMARY: &[&str] = &["summary"];
pub(super) const PARAGRAPH: &[&str] = &["p"];
pub(super) const BODY: &[&str] = &["tbody"];

/// An open element.
pub(super) struct Frame {
    /// Its tags, outermost first; empty if it is not written.
    pub(super) tags: &'static [&'static str],
    /// Whether no parser event ends it, so that it ends with the element around it.
    pub(super) implied: bool,
    /// A link's address, and how much was written before its text.
    pub(super) link: Option<(String, usize)>,
}

/// An element that is opened once it has content.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Wanted {
    Nothing,
    Paragraph,
    Cell,
}

pub(super) struct Page {
    pub(super) out: String,
    /// Text that is not written yet, since `@` and `room`, or the parts of a file name, may come in separate events.
    pub(super) pending: String,
    pub(super) stack: Vec<Frame>,
    /// The number of open tags.
    pub(super) depth: usize,
    pub(super) wanted: Wanted,
    /// Empty cells since the last one with text. The parser fills short rows, so that a few bytes could become as
    /// many cells as the table is wide; they are written only if one with text follows.
    pub(super) empty_cells: usize,
    pub(super) in_head: bool,
    pub(super) in_code: bool,
    pub(super) in_link: bool,
    /// The raw HTML block that is being read.
    pub(super) raw: String,
    /// Bytes that the addresses of links may still take: one definition can be used again and again.
    pub(super) addresses: usize,
}

impl Page {
    pub(super) fn new(length: usize) -> Self {
        Self {
            out: String::with_capacity(length * 2),
            pending: String::new(),
            stack: Vec::new(),
            depth: 0,
            wanted: Wanted::Nothing,
            empty_cells: 0,
            in_head: false,
            in_code: false,
            in_link: false,
            raw: String::new(),
            addresses: length * 2,
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.flush();
        while self.close() {}
        self.out
    }

    pub(super) fn line_break(&mut self) {
        self.flush();
        if self.wanted == Wanted::Nothing {
            self.out.push_str("<br>");
        }
    }

    /// Writes the pending text.
    pub(super) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        // The parser decodes entities, which can bring back what was removed from the source.
        let clean = text::strip(&pending);
        if self.wanted != Wanted::Nothing && clean.trim().is_empty() {
            return;
        }
        self.ensure();
        if self.in_code || self.in_link {
            words::push_escaped(&mut self.out, &words::defuse(&clean));
        } else {
            words::write(&mut self.out, &clean);
        }
    }

    /// Opens the elements that wait for content.
    pub(super) fn ensure(&mut self) {
        match std::mem::replace(&mut self.wanted, Wanted::Nothing) {
            Wanted::Nothing => {}
            Wanted::Paragraph => self.open_implied(PARAGRAPH),
            Wanted::Cell => {
                let (cell, empty): (&'static [&'static str], _) =
                    if self.in_head { (&["th"], "<th></th>") } else { (&["td"], "<td></td>") };
                for _ in 0..std::mem::take(&mut self.empty_cells) {
                    self.out.push_str(empty);
                }
                self.open_implied(cell);
            }
        }
    }

    pub(super) fn end_paragraph(&mut self) {
        self.flush();
        self.wanted = Wanted::Nothing;
        if self.stack.last().is_some_and(|frame| frame.tags == PARAGRAPH) {
            self.close();
        }
    }

    /// Opens an element that holds blocks; if it is too deep, only the blocks are written. A list needs a level for
    /// its items.
    pub(super) fn container(&mut self, tags: &'static [&'static str], attributes: &str) {
        self.end_paragraph();
        if self.depth + 1 < DEPTH { self.open(tags, attributes) } else { self.push(&[]) }
    }

    /// Opens an inline element; if it is too deep, only its text is written.
    pub(super) fn inline(&mut self, tags: &'static [&'static str], attributes: &str) {
        if self.depth < DEPTH {
            self.flush();
            self.ensure();
            self.open(tags, attributes);
        } else {
            self.unwritten();
        }
    }

    /// Notes an inline element that is not written; the paragraph around it is opened before it.
    pub(super) fn unwritten(&mut self) {
        self.ensure();
        self.push(&[]);
    }

    pub(super) fn open(&mut self, tags: &'static [&'static str], attributes: &str) {
        for (number, tag) in tags.iter().enumerate() {
            let attributes = if number + 1 == tags.len() { attributes } else { "" };
            self.out.extend(["<", tag, attributes, ">"]);
        }
        self.push(tags);
    }

    pub(super) fn open_implied(&mut self, tags: &'static [&'static str]) {
        self.open(tags, "");
        if let Some(frame) = self.stack.last_mut() {
            frame.implied = true;
        }
    }

    pub(super) fn push(&mut self, tags: &'static [&'static str]) {
        self.depth += tags.len();
        self.stack.push(Frame { tags, implied: false, link: None });
    }

    /// Closes the innermost element; returns whether one was open.
    pub(super) fn close(&mut self) -> bool {
        let Some(frame) = self.stack.pop() else { return false };
        for tag in frame.tags.iter().rev() {
            self.out.extend(["</", tag, ">"]);
            self.in_link &= *tag != "a";
        }
        self.depth -= frame.tags.len();
        true
    }

    /// Closes the element of one parser event, and all elements that it implied.
    pub(super) fn end_block(&mut self) {
        self.flush();
        self.wanted = Wanted::Nothing;
        while self.stack.last().is_some_and(|frame| frame.implied) {
            self.close();
        }
        self.close();
    }

    pub(super) fn end_inline(&mut self) {
        // An element that is not written does not separate the text around it.
        if self.stack.last().is_some_and(|frame| !frame.tags.is_empty()) {
            self.flush();
        }
        self.close();
    }
}
