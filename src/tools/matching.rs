//! Where an edit goes: finds the one place in a file that the model means and says what to put there.
//!
//! Pure text: knows no sandbox and no tool. Called by `edit_file`. Matching goes through tiers from exact to the few
//! differences that models make without meaning them; similarity is never a reason to edit (a fuzzy edit in the wrong
//! place costs more than a refused one). Whatever the tier, only lines that the model changes are replaced: lines that
//! are the same in its old and new text keep the file's own bytes.

use std::ops::Range;

use similar::{Algorithm, DiffTag, capture_diff_slices};

use super::form::{self, Ends};
use crate::text::plain_punctuation;

/// More matches than this are not counted: the refusal reads the same.
const COUNT_LIMIT: usize = 1000;

/// How the old text was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tier {
    /// Byte for byte.
    Exact,
    /// LF for CRLF or the other way round.
    LineEnds,
    /// Blanks at ends of lines differ.
    TrailingBlanks,
    /// All lines are indented by the same amount more, or less.
    Indentation,
    /// Typographic quotes, dashes and spaces for plain ones or the other way round.
    Punctuation,
}

impl Tier {
    /// Returns what differed, as the model is told; `None` for an exact match.
    pub(super) fn difference(self) -> Option<&'static str> {
        match self {
            Self::Exact => None,
            Self::LineEnds => Some("line ends"),
            Self::TrailingBlanks => Some("blanks at the end of lines"),
            Self::Indentation => Some("indentation"),
            Self::Punctuation => Some("typographic punctuation"),
        }
    }
}

/// An edit: which bytes to replace, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Splice {
    /// Bytes of the file to replace.
    pub(super) range: Range<usize>,
    /// The text that replaces them.
    pub(super) replacement: String,
    /// How the place was found.
    pub(super) tier: Tier,
}

impl Splice {
    /// Returns the file with the edit made.
    pub(super) fn apply(&self, file: &str) -> String {
        let mut edited = String::with_capacity(file.len() + self.replacement.len());
        edited.push_str(&file[..self.range.start]);
        edited.push_str(&self.replacement);
        edited.push_str(&file[self.range.end..]);
        edited
    }
}

/// Why an edit has no place, or no single one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// The old text stands nowhere.
    Missing,
    /// The old text stands in more than one place.
    Ambiguous {
        /// The number of places, at most [`COUNT_LIMIT`].
        count: usize,
        /// The lines (from 1) on which the first of them begin.
        lines: Vec<usize>,
        /// The tier in which they are alike.
        tier: Tier,
    },
}

/// Finds the one place where `old` stands in `file` and says how `new` goes there.
pub(super) fn locate(file: &str, old: &str, new: &str) -> Result<Splice, Mismatch> {
    let whole = exact(file, old);
    if let Some(found) = one(file, &whole, Tier::Exact)? {
        let range = found..found + old.len();
        // In a file with both kinds of line ends, carriage returns that the model wrote are meant.
        let meant = old.contains('\r') && form::ends_of(file.as_bytes()) == Ends::Mixed;
        let replacement = if meant { new.to_owned() } else { with_line_ends(file, &range, new) };
        return Ok(Splice { range, replacement, tier: Tier::Exact });
    }
    if let Some(splice) = by_chars(file, old, new, Tier::LineEnds)? {
        return Ok(splice);
    }
    for tier in [Tier::TrailingBlanks, Tier::Indentation] {
        if let Some(splice) = by_lines(file, old, new, tier)? {
            return Ok(splice);
        }
    }
    if let Some(splice) = by_chars(file, old, new, Tier::Punctuation)? {
        return Ok(splice);
    }
    by_lines(file, old, new, Tier::Punctuation)?.ok_or(Mismatch::Missing)
}

/// Returns the line (from 1) on which `text` stands in `file`, if it does and is long enough to be no accident.
pub(super) fn already_there(file: &str, text: &str) -> Option<usize> {
    if text.trim().len() < 8 {
        return None;
    }
    file.find(text).map(|at| line_at(file, at))
}

/// Returns the line (from 1) of the byte `at`.
pub(super) fn line_at(file: &str, at: usize) -> usize {
    file[..at].matches('\n').count() + 1
}

/// Returns where `old` begins in `file`; overlapping places count, as either could be meant.
fn exact(file: &str, old: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let mut from = 0;
    let step = old.chars().next().map_or(1, char::len_utf8);
    while let Some(at) = file.get(from..).and_then(|rest| rest.find(old)) {
        found.push(from + at);
        if found.len() >= COUNT_LIMIT || old.is_empty() {
            break;
        }
        from += at + step;
    }
    found
}

/// Returns the only one of `starts`, `None` if there is none, and refuses more than one.
fn one(file: &str, starts: &[usize], tier: Tier) -> Result<Option<usize>, Mismatch> {
    match starts {
        [] => Ok(None),
        [at] => Ok(Some(*at)),
        many => {
            let lines = many.iter().take(5).map(|at| line_at(file, *at)).collect();
            Err(Mismatch::Ambiguous { count: many.len(), lines, tier })
        }
    }
}

/// Returns `new`, which goes to `range`, with the line ends that the file has there.
fn with_line_ends(file: &str, range: &Range<usize>, new: &str) -> String {
    match form::ends_of(file.as_bytes()) {
        Ends::Lf | Ends::Cr => new.to_owned(),
        Ends::CrLf => new.replace("\r\n", "\n").replace('\n', "\r\n"),
        Ends::Mixed => {
            let behind = &file[range.end..];
            let crlf = behind.find('\n').is_some_and(|end| file[..range.end + end].ends_with('\r'));
            form::mixed(&file[range.clone()], new, if crlf { "\r\n" } else { "\n" })
        }
    }
}

/// A text made comparable, each character with the place that it came from.
struct Plain {
    chars: Vec<char>,
    /// One more than `chars`: the last is the text's length.
    offsets: Vec<usize>,
}

impl Plain {
    fn of(text: &str, tier: Tier) -> Self {
        let mut plain = Self { chars: Vec::with_capacity(text.len()), offsets: Vec::with_capacity(text.len() + 1) };
        let mut rest = text.char_indices().peekable();
        while let Some((at, char)) = rest.next() {
            plain.offsets.push(at);
            if char == '\r' && rest.next_if(|(_, next)| *next == '\n').is_some() {
                plain.chars.push('\n');
            } else if tier == Tier::Punctuation {
                plain.chars.push(plain_punctuation(char));
            } else {
                plain.chars.push(char);
            }
        }
        plain.offsets.push(text.len());
        plain
    }
}

/// Finds `old` anywhere, also inside a line, in characters made comparable.
fn by_chars(file: &str, old: &str, new: &str, tier: Tier) -> Result<Option<Splice>, Mismatch> {
    if tier == Tier::LineEnds && !file.contains('\r') && !old.contains('\r') {
        return Ok(None);
    }
    let (hay, needle) = (Plain::of(file, tier), Plain::of(old, tier));
    if needle.chars.is_empty() || needle.chars.len() > hay.chars.len() {
        return Ok(None);
    }
    let starts: Vec<usize> = (0..=hay.chars.len() - needle.chars.len())
        .filter(|at| hay.chars[*at..].starts_with(&needle.chars))
        .take(COUNT_LIMIT)
        .collect();
    let places: Vec<usize> = starts.iter().map(|at| hay.offsets[*at]).collect();
    if one(file, &places, tier)?.is_none() {
        return Ok(None);
    }
    // The beginning and the end that the old and the new text share stay as the file has them.
    let (given, wanted) = (Plain::of(old, Tier::LineEnds).chars, Plain::of(new, Tier::LineEnds).chars);
    let head = given.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
    let tail = given[head..].iter().rev().zip(wanted[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let range = hay.offsets[starts[0] + head]..hay.offsets[starts[0] + given.len() - tail];
    let changed: String = wanted[head..wanted.len() - tail].iter().collect();
    let replacement = with_line_ends(file, &range, &changed);
    Ok(Some(Splice { range, replacement, tier }))
}

/// A line of a file without its end.
struct Line<'a> {
    text: &'a str,
    /// Where it begins.
    start: usize,
    /// Where its end, if it has one, begins.
    end: usize,
    /// Where the next line begins.
    next: usize,
}

impl Line<'_> {
    /// Returns its end; for a last line without one, LF.
    fn end_of_line(&self, file: &str) -> &'static str {
        if file[self.end..self.next].starts_with('\r') { "\r\n" } else { "\n" }
    }
}

fn lines_of(file: &str) -> Vec<Line<'_>> {
    let mut start = 0;
    file.split_inclusive('\n')
        .map(|line| {
            let text = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
            let this = Line { text, start, end: start + text.len(), next: start + line.len() };
            start = this.next;
            this
        })
        .collect()
}

/// Splits what a model gave into lines; the flag says that the last one has an end.
fn given_lines(text: &str) -> (Vec<&str>, bool) {
    let mut lines: Vec<&str> = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    let ended = lines.len() > 1 && lines.last() == Some(&"");
    if ended {
        lines.pop();
    }
    (lines, ended)
}

/// Returns `line` as `tier` compares it.
fn comparable(line: &str, tier: Tier) -> String {
    match tier {
        Tier::Indentation => line.trim().to_owned(),
        Tier::Punctuation => line.chars().map(plain_punctuation).collect::<String>().trim().to_owned(),
        Tier::Exact | Tier::LineEnds | Tier::TrailingBlanks => line.trim_end().to_owned(),
    }
}

/// Finds whole lines of the file that are, by the tier's measure, the lines of `old`.
fn by_lines(file: &str, old: &str, new: &str, tier: Tier) -> Result<Option<Splice>, Mismatch> {
    let (old_lines, old_ended) = given_lines(old);
    let lines = lines_of(file);
    let hay: Vec<String> = lines.iter().map(|line| comparable(line.text, tier)).collect();
    let needle: Vec<String> = old_lines.iter().map(|line| comparable(line, tier)).collect();
    let starts: Vec<usize> = hay
        .windows(needle.len())
        .enumerate()
        .filter(|(_, window)| *window == needle)
        .map(|(at, _)| at)
        .take(COUNT_LIMIT)
        .collect();
    let places: Vec<usize> = starts.iter().map(|at| lines[*at].start).collect();
    if one(file, &places, tier)?.is_none() {
        return Ok(None);
    }
    let matched = &lines[starts[0]..starts[0] + old_lines.len()];
    let (first, last) = (&matched[0], &matched[matched.len() - 1]);
    let Some(shift) = Shift::between(matched, &old_lines) else { return Ok(None) };

    let (new_lines, new_ended) = if new.is_empty() { (Vec::new(), false) } else { given_lines(new) };
    // Each with its end: a line that stays keeps its own, a new one ends as the line before it.
    let mut kept: Vec<(String, &str)> = Vec::with_capacity(new_lines.len());
    let mut end_of_line = first.end_of_line(file);
    for op in capture_diff_slices(Algorithm::Myers, &old_lines, &new_lines) {
        let (tag, of_old, of_new) = op.as_tag_tuple();
        let replaced = of_old.clone().filter_map(|at| matched.get(at));
        match tag {
            DiffTag::Equal => kept.extend(replaced.map(|line| {
                end_of_line = line.end_of_line(file);
                (line.text.to_owned(), end_of_line)
            })),
            DiffTag::Delete => {}
            DiffTag::Insert | DiffTag::Replace => {
                let mut ends = replaced.map(|line| line.end_of_line(file));
                for line in &new_lines[of_new] {
                    let Some(shifted) = shift.apply(line) else { return Ok(None) };
                    end_of_line = ends.next().unwrap_or(end_of_line);
                    kept.push((shifted, end_of_line));
                }
            }
        }
    }
    let end = if old_ended { last.next } else { last.end };
    let mut replacement: String = kept.iter().flat_map(|(line, end)| [line.as_str(), *end]).collect();
    if !new_ended || old_ended && last.next == last.end {
        let end_of_last = kept.last().map_or(0, |(_, end)| end.len());
        replacement.truncate(replacement.len() - end_of_last);
    }
    Ok(Some(Splice { range: first.start..end, replacement, tier }))
}

/// How much further in (or out) all lines of the file stand than the model wrote them.
enum Shift<'a> {
    In(&'a str),
    Out(&'a str),
}

impl<'a> Shift<'a> {
    /// Returns the one shift that fits all lines that are not blank; `None` if there is no such.
    fn between(file: &[Line<'a>], old: &[&'a str]) -> Option<Self> {
        let mut shift: Option<(bool, &str)> = None;
        for (line, given) in file.iter().zip(old).filter(|(_, given)| !given.trim().is_empty()) {
            let (theirs, ours) = (indentation(given), indentation(line.text));
            let this = match (ours.strip_suffix(theirs), theirs.strip_suffix(ours)) {
                (Some(more), _) => (true, more),
                (None, Some(less)) => (false, less),
                (None, None) => return None,
            };
            match shift {
                None => shift = Some(this),
                Some(before) if before == this => {}
                Some(_) => return None,
            }
        }
        shift.map(|(deeper, by)| if deeper { Self::In(by) } else { Self::Out(by) })
    }

    /// Returns a line of the new text as it must stand in the file; `None` if it cannot stand so far out.
    fn apply(&self, line: &str) -> Option<String> {
        match self {
            _ if line.trim().is_empty() => Some(line.to_owned()),
            Self::In(by) => Some(format!("{by}{line}")),
            Self::Out(by) => line.strip_prefix(by).map(str::to_owned),
        }
    }
}

fn indentation(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}

#[cfg(test)]
mod tests;
