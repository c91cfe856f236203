//! How a text file is written: its encoding, byte order mark and line ends. A model sees nothing of them, so reading says
//! what they are and writing keeps them.
//!
//! Pure. Called by the tools that read and write files.

use std::{borrow::Cow, time::Duration};

use similar::{Algorithm, ChangeTag, TextDiff};

const BOM: char = '\u{feff}';
const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";
/// How long lines of two versions may be compared.
const COMPARING: Duration = Duration::from_millis(200);

/// How characters are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    #[default]
    Utf8,
    Utf16Le,
    Utf16Be,
    /// No encoding that is known here.
    Other,
}

/// How lines end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ends {
    /// LF, or there is no line end at all.
    #[default]
    Lf,
    CrLf,
    /// A carriage return alone, as in very old files.
    Cr,
    /// Some lines end in CRLF, others in LF.
    Mixed,
}

/// How a text file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) encoding: Encoding,
    pub(super) bom: bool,
    pub(super) ends: Ends,
}

impl Form {
    /// Recognises how a file is written by its bytes, or by its first ones.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let encoding = match bytes {
            [0xff, 0xfe, ..] => Encoding::Utf16Le,
            [0xfe, 0xff, ..] => Encoding::Utf16Be,
            // The last character may be cut off; other invalid bytes mean that it is no UTF-8.
            _ => match std::str::from_utf8(bytes) {
                Err(error) if error.error_len().is_some() => Encoding::Other,
                _ => Encoding::Utf8,
            },
        };
        let wide = matches!(encoding, Encoding::Utf16Le | Encoding::Utf16Be);
        let bom = wide || bytes.starts_with(UTF8_BOM);
        let ends =
            if wide { decode(encoding, bytes).map(|text| ends_of(text.as_bytes())) } else { Some(ends_of(bytes)) };
        Self { encoding, bom, ends: ends.unwrap_or_default() }
    }

    /// Returns a whole file as text: without its mark, and with LF where a carriage return alone ends its lines. `None`
    /// if it is no text that could be written back as it was.
    pub(super) fn read(self, bytes: &[u8]) -> Option<String> {
        let text = decode(self.encoding, bytes)?;
        let text = text.strip_prefix(BOM).filter(|_| self.bom).unwrap_or(&text);
        Some(if self.ends == Ends::Cr { text.replace('\r', "\n") } else { text.to_owned() })
    }

    /// Returns what to write so that a file of this form reads as `text`: the way back from [`Self::read`].
    pub(super) fn write(self, text: &str) -> Vec<u8> {
        let text = if self.ends == Ends::Cr { Cow::from(text.replace('\n', "\r")) } else { Cow::from(text) };
        let mark = if self.bom { "\u{feff}" } else { "" };
        match self.encoding {
            Encoding::Utf16Le => encode(mark, &text, u16::to_le_bytes),
            Encoding::Utf16Be => encode(mark, &text, u16::to_be_bytes),
            Encoding::Utf8 | Encoding::Other => [mark.as_bytes(), text.as_bytes()].concat(),
        }
    }

    /// Returns `new`, which replaces all of `old`, with this form's line ends; lines that stay keep their own.
    pub(super) fn fit(self, old: &str, new: &str) -> String {
        let new = new.strip_prefix(BOM).filter(|_| self.bom).unwrap_or(new);
        let mut text = if self.ends == Ends::Mixed { mixed(old, new, "\n") } else { self.ended(new) };
        keep_last_end(old, &mut text, if self.ends == Ends::CrLf { "\r\n" } else { "\n" });
        text
    }

    /// Returns `more`, which is put behind a text of this form, with this form's line ends.
    pub(super) fn ended(self, more: &str) -> String {
        match self.ends {
            Ends::Lf | Ends::Mixed => more.to_owned(),
            Ends::CrLf => lf(more).replace('\n', "\r\n"),
            Ends::Cr => lf(more).replace('\r', "\n"),
        }
    }

    /// Returns in words what differs from UTF-8 with LF; empty if nothing does.
    pub(super) fn told(self) -> Vec<&'static str> {
        let encoding = match self.encoding {
            Encoding::Utf8 if self.bom => Some("a byte order mark"),
            Encoding::Utf8 => None,
            Encoding::Utf16Le | Encoding::Utf16Be => Some("UTF-16"),
            Encoding::Other => Some("bytes that are not UTF-8"),
        };
        let ends = match self.ends {
            Ends::Lf => None,
            Ends::CrLf => Some("CRLF line ends"),
            Ends::Cr => Some("CR line ends"),
            Ends::Mixed => Some("mixed line ends, LF and CRLF"),
        };
        encoding.into_iter().chain(ends).collect()
    }
}

/// Returns how the lines of a text in ASCII or UTF-8 end.
pub(super) fn ends_of(bytes: &[u8]) -> Ends {
    let lines = bytes.split(|byte| *byte == b'\n').count() - 1;
    let crlf = bytes.windows(2).filter(|pair| *pair == b"\r\n").count();
    match (lines, crlf) {
        (0, _) if bytes.contains(&b'\r') => Ends::Cr,
        (_, 0) => Ends::Lf,
        (lines, crlf) if lines == crlf => Ends::CrLf,
        _ => Ends::Mixed,
    }
}

fn lf(text: &str) -> String {
    text.replace("\r\n", "\n")
}

/// Returns `new` in which each line that `old` has, too, ends as it does there, and the others as those in whose place
/// they stand, or as the line before them. `last` ends a line whose end is not in `old`.
pub(super) fn mixed(old: &str, new: &str, last: &str) -> String {
    let (plain_old, plain_new) = (lf(old), lf(new));
    let ends: Vec<&str> = old
        .split_inclusive('\n')
        .map(|line| match line.strip_suffix('\n') {
            Some(line) if line.ends_with('\r') => "\r\n",
            Some(_) => "\n",
            None => last,
        })
        .collect();
    // Lines as they are meant here: a carriage return alone ends none.
    let [old_lines, new_lines] = [&plain_old, &plain_new].map(|text| text.split_inclusive('\n').collect::<Vec<_>>());
    let diff = TextDiff::configure().algorithm(Algorithm::Myers).timeout(COMPARING).diff_slices(&old_lines, &new_lines);
    let mut text = String::with_capacity(new.len() + ends.len());
    let mut end = ends.first().copied().unwrap_or(last);
    for change in diff.iter_all_changes() {
        end = change.old_index().and_then(|at| ends.get(at)).copied().unwrap_or(end);
        match change.value().strip_suffix('\n') {
            _ if change.tag() == ChangeTag::Delete => {}
            Some(line) => text.extend([line, end]),
            None => text.push_str(change.value()),
        }
    }
    text
}

/// Ends `text` as `old` ends: a model does not see whether the last line has an end. Where that is the only difference,
/// it is what was meant.
fn keep_last_end(old: &str, text: &mut String, end: &str) {
    if old.is_empty() || text.is_empty() {
        return;
    }
    match (old.ends_with('\n'), text.ends_with('\n')) {
        (true, false) => text.push_str(end),
        (false, true) => {
            let kept = text.trim_end_matches('\n').trim_end_matches('\r');
            let same_last = kept.rsplit('\n').next() == old.rsplit('\n').next();
            if same_last && kept != old && text.len() - kept.len() <= 2 {
                text.truncate(kept.len());
            }
        }
        _ => {}
    }
}

fn decode(encoding: Encoding, bytes: &[u8]) -> Option<Cow<'_, str>> {
    let wide = |word: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let words = pairs.iter().map(|pair| word(*pair));
        let text: Result<String, _> = char::decode_utf16(words).collect();
        text.ok().filter(|_| rest.is_empty()).map(Cow::from)
    };
    match encoding {
        Encoding::Utf8 => std::str::from_utf8(bytes).ok().map(Cow::from),
        Encoding::Utf16Le => wide(u16::from_le_bytes),
        Encoding::Utf16Be => wide(u16::from_be_bytes),
        Encoding::Other => None,
    }
}

fn encode(mark: &str, text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    mark.encode_utf16().chain(text.encode_utf16()).flat_map(bytes).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn utf16(text: &str) -> Vec<u8> {
        encode("\u{feff}", text, u16::to_le_bytes)
    }

    /// Writes `new` over a file and returns what is in it then.
    fn over(old: &[u8], new: &str) -> Vec<u8> {
        let form = Form::of(old);
        let text = form.read(old).expect("is text");
        form.write(&form.fit(&text, new))
    }

    #[test]
    fn a_form_is_told_in_words() {
        for (bytes, told) in [
            (&b"a\nb\n"[..], &[][..]),
            (b"", &[]),
            (b"a\r\nb\r\n", &["CRLF line ends"]),
            (b"a\r\nb\n", &["mixed line ends, LF and CRLF"]),
            (b"a\rb\r", &["CR line ends"]),
            (b"\xef\xbb\xbfa\r\n", &["a byte order mark", "CRLF line ends"]),
            (b"caf\xe9\n", &["bytes that are not UTF-8"]),
            (b"caf\xc3", &[]),
        ] {
            assert_eq!(Form::of(bytes).told(), told, "{bytes:?}");
        }
        assert_eq!(Form::of(&utf16("a\r\n")).told(), ["UTF-16", "CRLF line ends"]);
    }

    #[test]
    fn one_changed_line_is_one_changed_line() {
        for (old, new, then) in [
            (&b"a\r\nb\r\nc\r\n"[..], "a\nB\nc\n", &b"a\r\nB\r\nc\r\n"[..]),
            (b"a\r\nb\r\n", "a\r\nB\r\n", b"a\r\nB\r\n"),
            (b"a\rb\rc\r", "a\nB\nc\n", b"a\rB\rc\r"),
            (b"a\r\nb\nc\r\nd\n", "a\nB\nc\nd\n", b"a\r\nB\nc\r\nd\n"),
            (b"a\r\nb\nc\n", "a\nx\nb\nC\n", b"a\r\nx\r\nb\nC\n"),
            (b"\xef\xbb\xbfa\r\nb\r\n", "A\nb\n", b"\xef\xbb\xbfA\r\nb\r\n"),
            (b"\xef\xbb\xbfa\n", "\u{feff}A\n", b"\xef\xbb\xbfA\n"),
            // A last line without an end is seen by nobody.
            (b"a\nb", "A\nb\n", b"A\nb"),
            (b"a\r\nb", "A\nb\n", b"A\r\nb"),
            (b"a\nb", "a\nb\n", b"a\nb\n"),
            (b"a\nb", "a\nc\n", b"a\nc\n"),
            (b"a\nb\n", "A\nb", b"A\nb\n"),
            (b"a\r\nb\r\n", "A\nb", b"A\r\nb\r\n"),
            (b"a\n", "", b""),
            (b"", "a", b"a"),
            (b"a\nb\n", "a\r\nb\r\n", b"a\r\nb\r\n"),
        ] {
            assert_eq!(over(old, new).escape_ascii().to_string(), then.escape_ascii().to_string(), "{new:?}");
        }
        assert_eq!(over(&utf16("ä\r\nb\r\n"), "ä\nB\n"), utf16("ä\r\nB\r\n"));
    }

    #[test]
    fn what_cannot_be_written_back_is_no_text() {
        for bytes in [&b"\xff\xfea"[..], b"\xff\xfe\x00\xd8", b"caf\xe9\n"] {
            assert_eq!(Form::of(bytes).read(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_unchanged_is_the_same(text in "\u{feff}?[aé\r\n]{0,40}", wide in any::<bool>()) {
            let bytes = if wide { utf16(&text) } else { text.into_bytes() };
            let form = Form::of(&bytes);
            let text = form.read(&bytes).expect("is text");
            prop_assert_eq!(form.write(&text), bytes.clone());
            // A second mark is taken for a slip.
            if !text.contains("\r\r") && !text.ends_with('\r') && !text.starts_with(BOM) {
                prop_assert_eq!(form.write(&form.fit(&text, &text)), bytes);
            }
        }

        #[test]
        fn lines_that_stay_keep_their_ends(lines in proptest::collection::vec(("[abc]", any::<bool>()), 1..12), at in 0_usize..12) {
            let at = at % lines.len();
            let write = |changed: bool| lines.iter().enumerate().map(|(index, (line, crlf))| {
                let line = if changed && index == at { "changed" } else { line };
                format!("{line}{}", if *crlf { "\r\n" } else { "\n" })
            }).collect::<Vec<_>>().concat();
            let old = write(false);
            prop_assert_eq!(String::from_utf8(over(old.as_bytes(), &lf(&write(true)))).unwrap(), write(true));
        }
    }
}
