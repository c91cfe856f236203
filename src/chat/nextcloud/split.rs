//! Splits a text into messages of a length that the server takes. Pure.

/// A piece at the beginning of a text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where it ends.
    pub(super) end: usize,
    /// Where the next one begins.
    pub(super) next: usize,
}

/// Returns the longest beginning of a text that is no longer than `most` characters (at least one) and ends at a line's end if one
/// is near, else at a word's, else anywhere. The blank at which it ends belongs to no piece.
pub(super) fn first(text: &str, most: usize) -> Piece {
    let Some((edge, at_edge)) = text.char_indices().nth(most.max(1)) else {
        return Piece { end: text.len(), next: text.len() };
    };
    let head = &text[..edge];
    // A blank right behind the edge ends the piece as well as one before it.
    let line = if at_edge == '\n' { Some(edge) } else { head.rfind('\n') };
    if let Some(end) = line.filter(|end| *end >= edge / 2) {
        return Piece { end, next: end + 1 };
    }
    if at_edge.is_whitespace() {
        return Piece { end: edge, next: edge + at_edge.len_utf8() };
    }
    match head.char_indices().rev().find(|(_, c)| c.is_whitespace()) {
        Some((end, blank)) if end >= edge / 2 => Piece { end, next: end + blank.len_utf8() },
        _ => Piece { end: edge, next: edge },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &str, most: usize) -> Vec<&str> {
        let (mut at, mut pieces) = (0, vec![]);
        while at < text.len() {
            let Piece { end, next } = first(&text[at..], most);
            assert!(next > 0 && next >= end, "it goes on");
            pieces.push(&text[at..at + end]);
            at += next;
        }
        pieces
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
            assert_eq!(all(text, most), pieces, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_piece_is_too_long_and_nothing_but_blanks_is_lost(text in "[a-zé👍 \\n]{0,200}", most in 1_usize..40) {
            let pieces = all(&text, most);
            prop_assert!(pieces.iter().all(|piece| piece.chars().count() <= most));
            let solid = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(solid(&pieces.concat()), solid(&text));
        }
    }
}
