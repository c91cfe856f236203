//! Shows a model whose edit found no place the lines that it most likely meant, so that its next call is exact.
//!
//! Pure text; called by `edit_file` for its refusals only. Its measure is cheap rather than clever: whole lines that
//! agree, else how much of a line's beginning and end agree.

/// Lines of the old text that are compared; a longer text is known by its first ones.
const COMPARED: usize = 24;
/// Bytes of a line that are compared.
const LINE_BYTES: usize = 200;
/// Below this share of agreement nothing is shown: a wrong hint is worse than none.
const THRESHOLD: f64 = 0.45;

/// Where the file comes nearest to what the model wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nearest {
    /// The first of the lines, from 1.
    pub(super) line: usize,
    /// The lines, as the file has them.
    pub(super) text: String,
}

/// Returns the lines of `file` most like `old`, if any are like it at all.
pub(super) fn nearest(file: &str, old: &str) -> Option<Nearest> {
    let given: Vec<&str> = old.lines().collect();
    let lines: Vec<&str> = file.lines().collect();
    // Blank lines agree everywhere and say nothing.
    let telling: Vec<(usize, &str)> = given
        .iter()
        .enumerate()
        .filter_map(|(at, line)| Some((at, head(line.trim()))).filter(|(_, line)| !line.is_empty()))
        .take(COMPARED)
        .collect();
    let (first, _) = *telling.first()?;
    let mut best = (0.0, 0);
    for start in 0..lines.len() {
        let agreement: f64 = telling
            .iter()
            .map(|(at, line)| lines.get(start + at - first).map_or(0.0, |theirs| likeness(head(theirs.trim()), line)))
            .sum();
        if agreement > best.0 {
            best = (agreement, start);
        }
    }
    let (agreement, start) = best;
    if agreement / (telling.len() as f64) < THRESHOLD {
        return None;
    }
    let end = (start + given.len() - first).min(lines.len());
    Some(Nearest { line: start + 1, text: lines[start..end].join("\n") })
}

fn head(line: &str) -> &str {
    &line[..line.floor_char_boundary(LINE_BYTES)]
}

/// Returns how much of the longer of two lines agrees, from both ends: 1 for the same, 0 for nothing.
fn likeness(a: &str, b: &str) -> f64 {
    if a == b {
        return 1.0;
    }
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let front = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let back = a[front..].iter().rev().zip(b[front..].iter().rev()).take_while(|(a, b)| a == b).count();
    (front + back) as f64 / a.len().max(b.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "use std::fmt;\n\nfn add(a: u32, b: u32) -> u32 {\n    a + b\n}\n\nfn sub(a: u32, b: u32) -> u32 {\n    a - b\n}\n";

    #[test]
    fn a_slip_in_one_line_shows_the_lines_as_they_are() {
        let found = nearest(FILE, "\nfn sub(a: i32, b: u32) -> u32 {\n  a - b");
        assert_eq!(found, Some(Nearest { line: 7, text: "fn sub(a: u32, b: u32) -> u32 {\n    a - b".into() }));
    }

    #[test]
    fn nothing_is_shown_for_what_is_not_there() {
        assert_eq!(nearest(FILE, "import numpy as np"), None);
        assert_eq!(nearest(FILE, " \n\n"), None);
        assert_eq!(nearest("", "a"), None);
    }

    #[test]
    fn a_text_longer_than_the_file_ends_with_the_file() {
        let found = nearest("a b c\n", "a b d\nmore\n").map(|found| found.text);
        assert_eq!(found, None, "half of it is not there");
        let found = nearest("alpha beta\ngamma delta\n", "alpha beta!\ngamma delta\n\n\n").map(|found| found.text);
        assert_eq!(found.as_deref(), Some("alpha beta\ngamma delta"));
    }
}
