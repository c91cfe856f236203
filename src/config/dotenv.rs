//! Parses a `.env` file: `KEY = value`, with or without blanks, quotes, `export` and comments.
//!
//! Pure. Invalid lines are returned by number only, since they may contain a secret. Nothing is expanded: a `$` is a
//! dollar sign.

/// A setting on one line.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// The line's number, from 1.
    pub number: usize,
    /// The key as written.
    pub key: String,
    /// The value, unquoted.
    pub value: String,
}

/// Returns the settings in order, and the numbers of invalid lines.
pub(super) fn read(text: &str) -> (Vec<Line>, Vec<usize>) {
    let mut lines = Vec::new();
    let mut broken = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let number = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match setting(line) {
            Some((key, value)) => lines.push(Line { number, key: key.to_owned(), value }),
            None => broken.push(number),
        }
    }
    (lines, broken)
}

/// Returns a value as a line has it, in quotes where it needs them. Line breaks are written as `\\n`.
pub(super) fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "@!:/._-,+{}[]".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    if !value.contains(['\'', '\n', '\r']) {
        return format!("'{value}'");
    }
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

fn setting(line: &str) -> Option<(&str, String)> {
    let (key, value) = line.split_once('=')?;
    let key = key.trim();
    let key = key.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).map_or(key, str::trim_start);
    let name = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let value = value.trim_start();
    let value = match value.as_bytes().first() {
        Some(b'"') => double_quoted(&value[1..])?,
        Some(b'\'') => {
            let (inner, rest) = value[1..].split_once('\'')?;
            is_comment(rest).then(|| inner.to_owned())?
        }
        _ => without_comment(value).trim_end().to_owned(),
    };
    name.then_some((key, value))
}

/// Removes a comment. A `#` begins one only at the start or after a blank, since passwords contain it too.
fn without_comment(value: &str) -> &str {
    let comment = value.char_indices().find(|(at, c)| *c == '#' && (*at == 0 || value[..*at].ends_with([' ', '\t'])));
    comment.map_or(value, |(at, _)| &value[..at])
}

fn is_comment(rest: &str) -> bool {
    let rest = rest.trim_start();
    rest.is_empty() || rest.starts_with('#')
}

fn double_quoted(text: &str) -> Option<String> {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return is_comment(chars.as_str()).then_some(value),
            '\\' => match chars.next()? {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                escaped @ ('"' | '\\' | '$') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> Option<(String, String)> {
        let (mut lines, broken) = read(text);
        assert_eq!(lines.len() + broken.len(), 1, "{text}");
        lines.pop().map(|line| (line.key, line.value))
    }

    #[test]
    fn all_the_usual_notations() {
        for (text, value) in [
            ("KEY = value", "value"),
            ("KEY=value", "value"),
            ("  export KEY=value  ", "value"),
            ("KEY = a value # with a comment", "a value"),
            ("KEY=pass#word", "pass#word"),
            ("KEY = #nothing", ""),
            ("KEY =", ""),
            ("KEY = 'it # stays' # gone", "it # stays"),
            (r#"KEY = "a \"b\" \\ $HOME\n" # gone"#, "a \"b\" \\ $HOME\n"),
            ("KEY = a=b=", "a=b="),
            ("\u{feff}KEY=value\r\n", "value"),
            ("KEY = $HOME", "$HOME"),
        ] {
            assert_eq!(one(text), Some(("KEY".to_owned(), value.to_owned())), "{text}");
        }
    }

    #[test]
    fn broken_lines_are_named_by_number() {
        let (lines, broken) = read("# comment\n\nA=1\nno equals sign\nB='open\nC=\"open\nD D=1\n=1\nE='a'b\n");
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0].number, lines[0].key.as_str()), (3, "A"));
        assert_eq!(broken, [4, 5, 6, 7, 8, 9]);
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            read(&text);
        }

        #[test]
        fn what_is_quoted_is_read_again(value in "[^\r\u{85}\u{2028}\u{2029}]{0,60}") {
            prop_assert_eq!(one(&format!("KEY = {}", quoted(&value))).map(|(_, value)| value), Some(value));
        }

        #[test]
        fn single_quotes_keep_all(value in "[^'\n\r]{0,60}") {
            prop_assert_eq!(one(&format!("KEY='{value}'")).map(|(_, value)| value), Some(value));
        }
    }
}
