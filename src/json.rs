//! Parses JSON leniently, as others write it. What has only one meaning is accepted (half an emoji, invalid UTF-8, a
//! raw line break in a string); what is cut off or broken in another way stays an error.
//!
//! Pure. Used for what providers, models, coding agents and programs in sandboxes send.

use std::borrow::Cow;

/// Finds the end of an object or a list that comes in pieces, without parsing it again for each piece.
#[derive(Debug, Default)]
pub(crate) struct Braces {
    depth: usize,
    in_string: bool,
    escaped: bool,
    closed: bool,
}

impl Braces {
    /// Takes the next piece; returns where in it the value ends, if it does. What follows is ignored.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Option<usize> {
        for (at, byte) in piece.iter().enumerate() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => self.depth += 1,
                b'}' | b']' if !self.in_string => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        self.closed = true;
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Returns whether a value has begun and not ended yet.
    pub(crate) fn is_open(&self) -> bool {
        self.depth > 0
    }

    /// Returns whether the last piece ended inside a string.
    pub(crate) fn is_in_string(&self) -> bool {
        self.depth > 0 && self.in_string
    }

    /// Returns whether a value has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }
}

/// Returns JSON text without what strict parsers refuse although it has only one meaning: invalid UTF-8 and unpaired
/// surrogates become U+FFFD, control characters in strings are escaped, and `NaN` and `Infinity` (Python writes them)
/// become null.
pub(crate) fn lossy(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len() + 16);
    let mut in_string = false;
    let mut rest: &str = &text;
    while let Some(c) = rest.chars().next() {
        let (written, length): (Cow<'_, str>, usize) = match c {
            '\\' if in_string => escape(rest),
            '\n' if in_string => ("\\n".into(), 1),
            '\r' if in_string => ("\\r".into(), 1),
            '\t' if in_string => ("\\t".into(), 1),
            control if in_string && u32::from(control) < 0x20 => (format!("\\u{:04x}", u32::from(control)).into(), 1),
            'N' | 'I' | '-' if !in_string && let Some(length) = no_number(rest) => ("null".into(), length),
            plain => {
                in_string ^= plain == '"';
                (rest[..plain.len_utf8()].into(), plain.len_utf8())
            }
        };
        out.push_str(&written);
        rest = &rest[length..];
    }
    out
}

/// Returns the length of `NaN`, `Infinity` or `-Infinity` at the beginning of `text`.
fn no_number(text: &str) -> Option<usize> {
    let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| text.starts_with(word))?;
    let ends = !text[word.len()..].starts_with(|c: char| c.is_alphanumeric());
    ends.then_some(word.len())
}

/// Returns the escape at the beginning of `text`, U+FFFD for an unpaired surrogate, and its length in `text`.
fn escape(text: &str) -> (Cow<'_, str>, usize) {
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
    };
    match unit(text) {
        Some(0xD800..=0xDBFF) if matches!(text.get(6..).and_then(unit), Some(0xDC00..=0xDFFF)) => {
            (text[..12].into(), 12)
        }
        Some(0xD800..=0xDFFF) => ("\\ufffd".into(), 6),
        // Any other escape is kept: the backslash with the character after it.
        _ => {
            let length = 1 + text[1..].chars().next().map_or(0, char::len_utf8);
            (text[..length].into(), length)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(bytes: &[u8]) -> Option<Value> {
        serde_json::from_str(&lossy(bytes)).ok()
    }

    #[test]
    fn what_leaves_no_doubt_is_read() {
        for (text, value) in [
            (&br#"{"a":"\ud83d"}"#[..], json!({"a": "\u{fffd}"})),
            (br#"{"a":"\ude00x\ud83d\ud83d\ude00"}"#, json!({"a": "\u{fffd}x\u{fffd}\u{1f600}"})),
            (br#"{"a":"\ud83d\n"}"#, json!({"a": "\u{fffd}\n"})),
            (b"{\"a\":\"b\xffc\"}", json!({"a": "b\u{fffd}c"})),
            (b"{\"a\":\"b\nc\r\td\x01\"}", json!({"a": "b\nc\r\td\u{1}"})),
            (b"{\n\t\"a\":\n1}", json!({"a": 1})),
            (br#"{"NaN":NaN,"b":[-Infinity,Infinity]}"#, json!({"NaN": null, "b": [null, null]})),
            (br#"{"a\\":"\\"}"#, json!({"a\\": "\\"})),
        ] {
            assert_eq!(read(text), Some(value), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn what_is_broken_stays_broken() {
        for text in [
            r#"{"a":"b"#,
            r#"{"a":"b\"#,
            r#"{"a":"\u12"#,
            r#"{"a":"\u12"}"#,
            r#"{"a":"\ud83d"#,
            "{'a':1}",
            r#"{"a":1,}"#,
            r#"{"a":NaNs}"#,
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn sound_json_is_left_alone_and_nothing_panics(text in any::<String>(), noise in prop::collection::vec(any::<u8>(), 0..64)) {
            let sound = json!({"a": text, "b": [text]}).to_string();
            prop_assert_eq!(lossy(sound.as_bytes()), sound);
            let _ = lossy(&noise);
            let _ = lossy(&[br#"{"\u"#, &noise[..]].concat());
        }

        #[test]
        fn a_value_ends_where_it_ends_however_it_is_cut(text in "[\"{}\\[\\]a\\\\]{0,24}", cut in any::<prop::sample::Index>()) {
            let value = json!({"k": text, "l": [{"m": text}]}).to_string();
            let cut = cut.index(value.len());
            let mut braces = Braces::default();
            prop_assert_eq!(braces.feed(&value.as_bytes()[..cut]), None);
            let rest = [&value.as_bytes()[cut..], b"}{"].concat();
            prop_assert_eq!(braces.feed(&rest), Some(value.len() - cut));
            prop_assert!(braces.is_closed() && !braces.is_open());
        }
    }
}
