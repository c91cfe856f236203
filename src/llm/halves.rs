//! Characters that a server has cut in two: one half ends a string of an event, the other begins a string of the next
//! event. Servers that stream text by UTF-16 units or by bytes do that to every other emoji.
//!
//! Pure. Used by `events.rs` for events that strict parsers refuse, as they do if there is half a character.

use std::ops::Range;

/// A half character at the end or the beginning of a string.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Half {
    at: Range<usize>,
    /// Whether it is an escaped surrogate instead of bytes.
    escaped: bool,
}

/// Returns whether a string of an event ends in the first half of a character.
pub(super) fn ends_in_half(event: &[u8]) -> bool {
    !halves(event).0.is_empty()
}

/// Moves first halves at the ends of strings of `event` to the beginnings of those strings of `next` that start with
/// second halves. Nothing is moved if it is not clear which belong together.
pub(super) fn carry(event: &mut Vec<u8>, next: &mut Vec<u8>) {
    let (ends, _) = halves(event);
    let (_, begins) = halves(next);
    let fit = |(end, begin): (&Half, &Half)| end.escaped == begin.escaped;
    if ends.len() != begins.len() || !ends.iter().zip(&begins).all(fit) {
        return;
    }
    // From the last to the first, so that the earlier positions stay valid.
    for (end, begin) in ends.into_iter().zip(begins).rev() {
        let half: Vec<u8> = event.drain(end.at).collect();
        next.splice(begin.at.start..begin.at.start, half);
    }
}

/// Finds the strings of an event that end in a first half, and those that begin with a second half.
fn halves(event: &[u8]) -> (Vec<Half>, Vec<Half>) {
    let (mut ends, mut begins) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(open) = event[at..].iter().position(|byte| *byte == b'"') {
        let start = at + open + 1;
        // Finds the last character of the string.
        let (mut last, mut here) = (start, start);
        while let Some(byte) = event.get(here).filter(|byte| **byte != b'"') {
            let length = match byte {
                b'\\' if surrogate(&event[here..]).is_some() => 6,
                b'\\' => 2,
                // Continuation bytes belong to the first byte before them.
                0xC0.. => 1 + event[here + 1..].iter().take(3).take_while(|byte| is_later(**byte)).count(),
                _ => 1,
            };
            last = here;
            here = (here + length).min(event.len());
        }
        let string = start..here;
        if surrogate(&event[string.clone()]) == Some(Surrogate::Second) {
            begins.push(Half { at: start..start + 6, escaped: true });
        } else if event[string.clone()].first().is_some_and(|byte| is_later(*byte)) {
            begins.push(Half { at: start..start + 1, escaped: false });
        }
        let tail = &event[last..string.end];
        let escaped = tail.len() == 6 && surrogate(tail) == Some(Surrogate::First);
        if escaped || is_begun(tail) {
            ends.push(Half { at: last..string.end, escaped });
        }
        at = (string.end + 1).min(event.len());
    }
    (ends, begins)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Surrogate {
    First,
    Second,
}

/// Parses the escaped surrogate at the beginning of `text`.
fn surrogate(text: &[u8]) -> Option<Surrogate> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    let unit = digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))?;
    match unit {
        0xD800..=0xDBFF => Some(Surrogate::First),
        0xDC00..=0xDFFF => Some(Surrogate::Second),
        _ => None,
    }
}

/// Returns whether a byte is a UTF-8 continuation byte.
fn is_later(byte: u8) -> bool {
    matches!(byte, 0x80..=0xBF)
}

/// Returns whether bytes are the beginning of an incomplete UTF-8 character.
fn is_begun(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carried(event: &[u8], next: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut event, mut next) = (event.to_vec(), next.to_vec());
        carry(&mut event, &mut next);
        (event, next)
    }

    #[test]
    fn a_half_goes_to_where_the_other_is() {
        for (event, next, left, whole) in [
            (
                &br#"{"a":"x\ud83d"}"#[..],
                &br#"{"a":"\ude00y"}"#[..],
                &br#"{"a":"x"}"#[..],
                &br#"{"a":"\ud83d\ude00y"}"#[..],
            ),
            (
                br#"{"a":"\uD83D","b":1}"#,
                br#"{"b":"c","a":"\uDE00"}"#,
                br#"{"a":"","b":1}"#,
                br#"{"b":"c","a":"\uD83D\uDE00"}"#,
            ),
            (
                br#"{"a":"x\ud83d","b":"x\ud83d"}"#,
                br#"{"a":"\ude00","b":"\ude00"}"#,
                br#"{"a":"x","b":"x"}"#,
                br#"{"a":"\ud83d\ude00","b":"\ud83d\ude00"}"#,
            ),
            (b"{\"a\":\"x\xf0\x9f\"}", b"{\"a\":\"\x98\"}", b"{\"a\":\"x\"}", b"{\"a\":\"\xf0\x9f\x98\"}"),
            (b"{\"a\":\"\xe2\"}", b"{\"a\":\"\x82\xac.\"}", b"{\"a\":\"\"}", b"{\"a\":\"\xe2\x82\xac.\"}"),
        ] {
            assert_eq!(carried(event, next), (left.to_vec(), whole.to_vec()), "{}", String::from_utf8_lossy(event));
            assert!(ends_in_half(event));
        }
    }

    #[test]
    fn what_is_no_half_stays() {
        for (event, next) in [
            (&br#"{"a":"x\ud83d"}"#[..], &br#"{"a":"y"}"#[..]),
            (br#"{"a":"x\ud83d"}"#, b"{\"a\":\"\x98\"}"),
            (br#"{"a":"x\ud83d","b":"y\ud83d"}"#, br#"{"a":"\ude00"}"#),
            (br#"{"a":"x\\ud83d"}"#, br#"{"a":"\ude00"}"#),
            (br#"{"a":"\ud83d\ude00"}"#, br#"{"a":"\ude00"}"#),
            (br#"{"a":"\ude00"}"#, br#"{"a":"\ude00"}"#),
        ] {
            assert_eq!(carried(event, next), (event.to_vec(), next.to_vec()), "{}", String::from_utf8_lossy(event));
        }
        for whole in [
            &br#"{"a":"\ud83d\ude00"}"#[..],
            br#"{"a":"\\ud83d"}"#,
            b"{\"a\":\"\xf0\x9f\x98\x80\"}",
            b"\"",
            b"{\"a\":\"\\",
        ] {
            assert!(!ends_in_half(whole), "{}", String::from_utf8_lossy(whole));
        }
    }
}
