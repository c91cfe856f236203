//! Lines of a file as a model reads them: a range with its limits, and the lines around an edit.
//!
//! Pure text; called by `read_file` and `edit_file`. Lines are not numbered: models copy what they read into
//! `edit_file`, and a number would not be in the file.

/// The most lines that one reading gives.
pub(super) const MOST_LINES: u64 = 2000;
/// The most bytes that one reading gives.
pub(super) const MOST_BYTES: usize = 50 * 1024;
/// The most characters of one line.
pub(super) const LINE_CHARS: usize = 2000;
/// Lines shown before and after an edit.
const AROUND: usize = 4;
/// Lines of a snippet: a longer one loses its middle.
const SNIPPET_LINES: usize = 40;
/// Characters of a line of a snippet.
const SNIPPET_CHARS: usize = 200;

/// Takes the wanted lines out of a file that comes in pieces.
pub(super) struct LineReader {
    /// What ends a line.
    end: u8,
    /// Lines still to skip.
    skip: u64,
    /// Lines still to take.
    left: u64,
    /// Bytes still to take.
    room: usize,
    /// The line in hand, as far as it is wanted.
    line: Vec<u8>,
    /// Bytes of the line in hand, wanted or not.
    length: u64,
    /// What was taken.
    text: String,
    taken: u64,
    /// Whole lines that went by, taken or not.
    seen: u64,
    cut_lines: u64,
}

/// What a [`LineReader`] found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// The lines, each with its end.
    pub(super) text: String,
    /// The number of lines.
    pub(super) lines: u64,
    /// How many of them were cut at [`LINE_CHARS`].
    pub(super) cut_lines: u64,
    /// The lines that were read, those included that were skipped: all of the file's, if it was read to its end.
    pub(super) seen: u64,
    /// Whether the last of them is the file's last and has no line end.
    pub(super) unended: bool,
}

impl LineReader {
    /// Prepares to take at most `limit` lines from line `offset` (from 1). `old_ends`: a carriage return alone ends a line.
    pub(super) fn new(offset: u64, limit: u64, old_ends: bool) -> Self {
        Self {
            end: if old_ends { b'\r' } else { b'\n' },
            skip: offset.saturating_sub(1),
            left: limit.min(MOST_LINES),
            room: MOST_BYTES,
            line: Vec::new(),
            length: 0,
            text: String::new(),
            taken: 0,
            seen: 0,
            cut_lines: 0,
        }
    }

    /// Returns whether more of the file is wanted.
    pub(super) fn wants_more(&self) -> bool {
        self.left > 0
    }

    /// Takes what is wanted of the next piece.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        let end = self.end;
        for part in piece.split_inclusive(|byte| *byte == end) {
            if !self.wants_more() {
                return;
            }
            let body = part.strip_suffix(&[end]).unwrap_or(part);
            self.length += body.len() as u64;
            // A character has four bytes at most; one character more tells that the line goes on.
            let room = (LINE_CHARS * 4 + 4).saturating_sub(self.line.len());
            if self.skip == 0 {
                self.line.extend_from_slice(&body[..body.len().min(room)]);
            }
            if body.len() < part.len() {
                self.end_line();
            }
        }
    }

    /// Takes the last line and returns what was taken.
    pub(super) fn finish(mut self) -> Taken {
        let before = self.taken;
        if self.length > 0 && self.wants_more() {
            self.end_line();
        }
        let unended = self.taken > before;
        Taken { text: self.text, lines: self.taken, cut_lines: self.cut_lines, seen: self.seen, unended }
    }

    fn end_line(&mut self) {
        let (line, length) = (std::mem::take(&mut self.line), std::mem::take(&mut self.length));
        if self.skip > 0 {
            self.skip -= 1;
            self.seen += 1;
            return;
        }
        let text = String::from_utf8_lossy(&line);
        let mut text = text.strip_suffix('\r').unwrap_or(&text);
        let mut cut = String::new();
        if let Some((end, _)) = text.char_indices().nth(LINE_CHARS) {
            cut = format!("… [line of {length} bytes cut]");
            text = &text[..end];
        }
        let needed = text.len() + cut.len() + 1;
        if needed > self.room {
            self.left = 0;
            return;
        }
        self.room -= needed;
        self.left -= 1;
        self.taken += 1;
        self.seen += 1;
        self.cut_lines += u64::from(!cut.is_empty());
        self.text.extend([text, &cut, "\n"]);
    }
}

/// Returns the lines of `file` that hold the bytes `from..to`, with some around them, under a heading that tells which
/// they are.
pub(super) fn snippet(file: &str, from: usize, to: usize) -> String {
    // Counted in bytes, since an edit may end inside a character of several.
    let line_of = |at: usize| file.as_bytes()[..at].split(|byte| *byte == b'\n').count() - 1;
    let lines: Vec<&str> = file.lines().collect();
    let first = line_of(from).saturating_sub(AROUND);
    // An end right behind a line end belongs to the line before.
    let last = line_of(if to > from { to - 1 } else { to }) + AROUND + 1;
    let shown = &lines[first.min(lines.len())..last.min(lines.len())];
    if shown.is_empty() {
        return "The file is empty now.".to_owned();
    }
    let mut text = format!("Lines {}–{} of {} now:\n", first + 1, first + shown.len(), lines.len());
    for (number, line) in shown.iter().enumerate() {
        let half = SNIPPET_LINES / 2;
        if shown.len() > SNIPPET_LINES && number == half {
            text.extend(["… [", &(shown.len() - 2 * half).to_string(), " lines not shown] …\n"]);
        }
        if shown.len() > SNIPPET_LINES && (half..shown.len() - half).contains(&number) {
            continue;
        }
        match line.char_indices().nth(SNIPPET_CHARS) {
            Some((end, _)) => text.extend([&line[..end], "…\n"]),
            None => text.extend([line, "\n"]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take(pieces: &[&[u8]], offset: u64, limit: u64) -> Taken {
        let mut reader = LineReader::new(offset, limit, false);
        for piece in pieces {
            reader.feed(piece);
        }
        reader.finish()
    }

    fn taken(text: &str, lines: u64, seen: u64) -> Taken {
        Taken { text: text.into(), lines, seen, ..Taken::default() }
    }

    #[test]
    fn what_ends_in_a_character_of_several_bytes_is_shown() {
        for end in ["é", "世界", "🙂", "a\u{301}"] {
            let file = format!("one\ntwo {end}\nthree\n");
            let shown = snippet(&file, 8, 8 + end.len());
            assert!(shown.contains(&format!("two {end}\n")), "{shown}");
        }
    }

    #[test]
    fn a_range_is_taken_and_the_rest_is_not_read() {
        assert_eq!(take(&[b"a\nb\nc\nd\n"], 2, 2), taken("b\nc\n", 2, 3));
        assert_eq!(take(&[b"a\nb"], 1, 10), Taken { unended: true, ..taken("a\nb\n", 2, 2) });
        assert_eq!(take(&[b"a\nb\n"], 5, 10), taken("", 0, 2));
        assert_eq!(take(&[b"a\r\n\r\nb\r\n"], 0, 10), taken("a\n\nb\n", 3, 3));
        assert_eq!(take(&[b""], 1, 10), taken("", 0, 0));
        let mut reader = LineReader::new(2, 1, true);
        reader.feed(b"a\rb\rc");
        assert_eq!(reader.finish(), taken("b\n", 1, 2));
        let mut reader = LineReader::new(1, 1, false);
        reader.feed(b"a\nb\n");
        assert!(!reader.wants_more());
    }

    #[test]
    fn a_long_line_is_cut_and_a_long_file_ends_at_a_line() {
        let long = "é".repeat(3000);
        let one = take(&[long.as_bytes(), b"\nnext\n"], 1, 10);
        assert_eq!((one.lines, one.cut_lines), (2, 1));
        assert!(one.text.starts_with(&"é".repeat(2000)) && one.text.contains("… [line of 6000 bytes cut]\nnext\n"));

        let many = "x".repeat(99) + "\n";
        let all = take(&[many.repeat(1000).as_bytes()], 1, 10_000);
        assert_eq!((all.lines, all.text.len()), (512, MOST_BYTES));
        let short = take(&["y\n".repeat(3000).as_bytes()], 1, 10_000);
        assert_eq!(short.lines, MOST_LINES);
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut reader = LineReader::new(1, 1, false);
        for _ in 0..100 {
            reader.feed(&[b'x'; 10_000]);
        }
        assert!(reader.line.capacity() < 20_000, "{}", reader.line.capacity());
        assert!(reader.finish().text.ends_with("[line of 1000000 bytes cut]\n"));
    }

    #[test]
    fn a_snippet_shows_the_lines_around_the_edit() {
        let file = (1..=20).fold(String::new(), |file, line| format!("{file}line {line}\n"));
        let at = file.find("line 10\n").expect("is there");
        let text = snippet(&file, at, at + "line 10\n".len());
        assert!(text.starts_with("Lines 6–14 of 20 now:\nline 6\n") && text.ends_with("line 14\n"), "{text}");
        assert!(snippet(&file, 0, 0).starts_with("Lines 1–5 of 20 now:\nline 1\n"));
        assert_eq!(snippet("", 0, 0), "The file is empty now.");
        let all = snippet(&"z\n".repeat(100), 0, 200);
        assert!(all.contains("… [60 lines not shown] …") && all.lines().count() == 42, "{all}");
        assert!(snippet("a\n", 2, 2).ends_with("\na\n"));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in "[aé\r\n]{0,60}", at in 0_usize..60, offset in 0_u64..6, limit in 1_u64..6) {
            let at = at.min(text.len());
            let (front, back) = text.as_bytes().split_at(at);
            prop_assert_eq!(take(&[front, back], offset, limit), take(&[text.as_bytes()], offset, limit));
        }
    }
}
