//! The page that is being written: what is open in it, and the text that waits to be written. Tags are opened and
//! closed here alone, so that they are balanced.

use super::words;
use crate::text;

/// How many elements stand inside one another. A table, a paragraph or a block of code, and a file's name in it, may
/// still stand in the deepest (at most five more).
pub(super) const DEPTH: usize = 20;

pub(super) const DETAILS: &[&str] = &["details"];
pub(super) const SUMMARY: &[&str] = &["summary"];
pub(super) const PARAGRAPH: &[&str] = &["p"];
pub(super) const BODY: &[&str] = &["tbody"];

/// An element that was opened and not closed yet.
pub(super) struct Frame {
    /// Its tags, outermost first; none if it is not written.
    pub(super) tags: &'static [&'static str],
    /// Whether no event of the parser ends it: it ends with what stands around it.
    pub(super) implied: bool,
    /// Where a link leads, and how much was written before its text.
    pub(super) link: Option<(String, usize)>,
}

/// An element that is opened as soon as there is content for it.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Wanted {
    Nothing,
    Paragraph,
    Cell,
}

pub(super) struct Page {
    pub(super) out: String,
    /// Text that is not yet written: `@` and `room` may come apart, and so may a file's name.
    pub(super) pending: String,
    pub(super) stack: Vec<Frame>,
    /// How many tags are open.
    pub(super) depth: usize,
    pub(super) wanted: Wanted,
    /// Cells without text since the last one with some. The parser fills up short rows: a few bytes for each row
    /// would become as many cells as the table is wide, so these are written only when one with text follows.
    pub(super) empty_cells: usize,
    pub(super) in_head: bool,
    pub(super) in_code: bool,
    pub(super) in_link: bool,
    /// The raw HTML of a block, as it comes.
    pub(super) raw: String,
    /// How many bytes the addresses of links may still have: one definition can be used again and again.
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
        // The parser decodes entities: what was taken from the source can be back.
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

    /// Opens what holds blocks; too deep, only they are written. A list needs room for its items.
    pub(super) fn container(&mut self, tags: &'static [&'static str], attributes: &str) {
        self.end_paragraph();
        if self.depth + 1 < DEPTH { self.open(tags, attributes) } else { self.push(&[]) }
    }

    /// Opens what stands in a line; too deep, only its text is written.
    pub(super) fn inline(&mut self, tags: &'static [&'static str], attributes: &str) {
        if self.depth < DEPTH {
            self.flush();
            self.ensure();
            self.open(tags, attributes);
        } else {
            self.unwritten();
        }
    }

    /// Notes something in a line that is not written itself; the paragraph that it stands in is opened before it.
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

    /// Closes the innermost element. Returns whether one was open.
    pub(super) fn close(&mut self) -> bool {
        let Some(frame) = self.stack.pop() else { return false };
        for tag in frame.tags.iter().rev() {
            self.out.extend(["</", tag, ">"]);
            self.in_link &= *tag != "a";
        }
        self.depth -= frame.tags.len();
        true
    }

    /// Ends what one event of the parser began, and all that is implied in it.
    pub(super) fn end_block(&mut self) {
        self.flush();
        self.wanted = Wanted::Nothing;
        while self.stack.last().is_some_and(|frame| frame.implied) {
            self.close();
        }
        self.close();
    }

    pub(super) fn end_inline(&mut self) {
        // What is not written does not part the text around it.
        if self.stack.last().is_some_and(|frame| !frame.tags.is_empty()) {
            self.flush();
        }
        self.close();
    }
}
