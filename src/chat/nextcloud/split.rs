//! Splits a text into messages of a length that the server takes. Where that cuts a block of code, one message closes it and the next
//! opens it again, so that each is shown as it was meant. Pure.

use std::fmt;

/// The longest line that opens or closes a block of code, in bytes; a longer one counts as any other line.
const LONGEST_FENCE: usize = 40;

/// A message of a text. It is shown as it is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// Opens the block again that the message before has closed.
    head: String,
    /// What it holds of the text.
    pub(super) words: &'a str,
    /// Closes the block in which it ends.
    tail: String,
    /// Where the next one begins in the text, in bytes.
    pub(super) next: usize,
}

impl fmt::Display for Piece<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.head, self.words, self.tail)
    }
}

/// Returns the message that begins at `at` in a text: the longest that is no longer than `most` characters and ends at a line's end if
/// one is near, else at a word's, else anywhere. The blank at which it ends belongs to no message.
pub(super) fn piece(text: &str, at: usize, most: usize) -> Piece<'_> {
    let head = Fence::around(text, at).map(|fence| fence.opening()).unwrap_or_default();
    let room = most.saturating_sub(head.chars().count());
    let mut kept = 0;
    loop {
        let Cut { end, next } = cut(text, at, room.saturating_sub(kept));
        let open = Fence::around(text, next).filter(|_| next < text.len());
        let tail = open.map(|fence| fence.closing()).unwrap_or_default();
        // What closes it needs room of its own, which moves the cut.
        if tail.len() <= kept {
            return Piece { head, words: &text[at..end], tail, next };
        }
        kept = tail.len();
    }
}

/// Where one message ends in a text, and the next begins, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    end: usize,
    next: usize,
}

/// Cuts a text where a message that begins at `at` has at most `most` characters (at least one), but not within a line that opens or
/// closes a block of code, nor between the one that opens it and the block.
fn cut(text: &str, at: usize, most: usize) -> Cut {
    let Cut { end, next } = cut_anywhere(&text[at..], most);
    let cut = Cut { end: at + end, next: at + next };
    let Some(before) = text[at..cut.end].rfind('\n').map(|before| at + before) else { return cut };
    let line = before + 1;
    let whole = text[line..].split('\n').next().unwrap_or_default();
    let is_left = cut.end == text.len() || Fence::opened_by(whole).is_none();
    if is_left || (cut.end == line + whole.len() && Fence::around(text, line).is_some()) {
        return cut;
    }
    Cut { end: before, next: line }
}

/// Cuts the beginning off a text.
fn cut_anywhere(text: &str, most: usize) -> Cut {
    let Some((edge, at_edge)) = text.char_indices().nth(most.max(1)) else {
        return Cut { end: text.len(), next: text.len() };
    };
    let head = &text[..edge];
    // A blank right behind the edge ends the message as well as one before it.
    let line = if at_edge == '\n' { Some(edge) } else { head.rfind('\n') };
    if let Some(end) = line.filter(|end| *end >= edge / 2) {
        return Cut { end, next: end + 1 };
    }
    if at_edge.is_whitespace() {
        return Cut { end: edge, next: edge + at_edge.len_utf8() };
    }
    match head.char_indices().rev().find(|(_, c)| c.is_whitespace()) {
        Some((end, blank)) if end >= edge / 2 => Cut { end, next: end + blank.len_utf8() },
        _ => Cut { end: edge, next: edge },
    }
}

/// The line that has opened a block of code, as Markdown has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fence<'a> {
    indent: &'a str,
    /// Three or more backticks or tildes.
    marker: &'a str,
    /// Which language the code is.
    info: &'a str,
}

impl<'a> Fence<'a> {
    /// Returns the fence of the block in which a text is at `at`, as its whole lines before tell.
    fn around(text: &'a str, at: usize) -> Option<Self> {
        let whole = text[..at].split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.fold(None, |open: Option<Self>, line| match open {
            Some(fence) if fence.is_closed_by(line) => None,
            Some(fence) => Some(fence),
            None => Self::opened_by(line),
        })
    }

    fn opened_by(line: &'a str) -> Option<Self> {
        let line = line.trim_end();
        let fence = line.trim_start();
        let indent = &line[..line.len() - fence.len()];
        let letter = fence.chars().next().filter(|letter| matches!(letter, '`' | '~'))?;
        let info = fence.trim_start_matches(letter);
        let marker = &fence[..fence.len() - info.len()];
        let is_one = line.len() <= LONGEST_FENCE && marker.len() >= 3 && !(letter == '`' && info.contains('`'));
        is_one.then_some(Self { indent, marker, info })
    }

    fn is_closed_by(&self, line: &str) -> bool {
        Fence::opened_by(line).is_some_and(|other| other.info.is_empty() && other.marker.starts_with(self.marker))
    }

    /// Returns what opens the block at the beginning of a message.
    fn opening(&self) -> String {
        format!("{}{}\n", self.marker, self.info)
    }

    /// Returns what closes it at the end of one.
    fn closing(&self) -> String {
        format!("\n{}{}", self.indent, self.marker)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &str, most: usize) -> Vec<Piece<'_>> {
        let (mut at, mut pieces) = (0, vec![]);
        while at < text.len() {
            let piece = piece(text, at, most);
            assert!(piece.next > at, "it goes on");
            at = piece.next;
            pieces.push(piece);
        }
        pieces
    }

    fn solid(text: &str) -> String {
        text.chars().filter(|c| !c.is_whitespace()).collect()
    }

    fn messages(text: &str, most: usize) -> Vec<String> {
        all(text, most).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn it_splits_at_a_line_then_at_a_word_then_anywhere() {
        for (text, most, pieces) in [
            ("short", 10, vec!["short"]),
            ("exact", 5, vec!["exact"]),
            ("one two\nthree", 9, vec!["one two", "three"]),
            ("one two three", 9, vec!["one two", "three"]),
            ("one two", 3, vec!["one", "two"]),
            ("one\ntwo", 3, vec!["one", "two"]),
            ("abcdefgh", 3, vec!["abc", "def", "gh"]),
            ("a bcdefghij", 6, vec!["a bcde", "fghij"]),
            ("äöüß€", 2, vec!["äö", "üß", "€"]),
            ("👍👍👍", 1, vec!["👍", "👍", "👍"]),
            ("", 4, vec![]),
        ] {
            assert_eq!(messages(text, most), pieces, "{text}");
        }
    }

    #[test]
    fn a_block_of_code_that_is_cut_is_closed_and_opened_again() {
        for (text, most, pieces) in [
            (
                "Look:\n```rust\nfn a() {}\nfn b() {}\n```\ndone",
                24,
                vec!["Look:", "```rust\nfn a() {}\n```", "```rust\nfn b() {}\n```", "done"],
            ),
            // A shorter marker within a longer one is code, and what stands in a list is closed there.
            ("  ````\n```\nabcdefg\n  ````", 22, vec!["  ````\n```\n  ````", "````\nabcdefg\n  ````"]),
            // A line that closes a block is not cut.
            ("~~~\nabcd\nefghijkl\n~~~\nrest of it", 21, vec!["~~~\nabcd\nefghijkl\n~~~", "rest of it"]),
            ("~~~\nabcd\nefghijkl\n~~~\nrest of it", 20, vec!["~~~\nabcd\n~~~", "~~~\nefghijkl\n~~~", "rest of it"]),
            // Backticks within a line are none of a block's.
            ("a ```b``` c\nd e f g", 14, vec!["a ```b``` c", "d e f g"]),
        ] {
            assert_eq!(messages(text, most), pieces, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_piece_is_too_long_and_nothing_but_blanks_is_lost(text in "[a-zé👍 \\n]{0,200}", most in 1_usize..40) {
            let pieces = messages(&text, most);
            prop_assert!(pieces.iter().all(|piece| piece.chars().count() <= most));
            prop_assert_eq!(solid(&pieces.concat()), solid(&text));
        }

        #[test]
        fn every_message_closes_what_it_opens(
            lines in prop::collection::vec(
                prop_oneof![
                    4 => "[a-zé👍 ]{0,60}",
                    2 => "( {0,5})(```|````|~~~)(rust)?( ?)",
                    1 => "[a-z]{150,400}",
                ],
                0..60,
            ),
            most in 143_usize..400,
        ) {
            let text = lines.join("\n");
            let pieces = all(&text, most);
            for (number, piece) in pieces.iter().enumerate() {
                let message = piece.to_string();
                prop_assert!(message.chars().count() <= most, "{message}");
                let whole = format!("{message}\n");
                let open = Fence::around(&whole, whole.len());
                prop_assert!(number + 1 == pieces.len() || open.is_none(), "{message}");
            }
            prop_assert_eq!(pieces.iter().map(|piece| solid(piece.words)).collect::<String>(), solid(&text));
        }
    }
}
