//! Markup: what stands in the program goes in as it is, everything else only as text.

use std::fmt::{Display, Write};

use crate::text;

/// A piece of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Html(String);

impl Html {
    /// Adds markup, which can only be the program's own.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds a text on one line of at most `limit` characters, whoever wrote it. It may stand in an attribute between quotes.
    pub(super) fn line(&mut self, line: &str, limit: usize) -> &mut Self {
        self.escaped(&text::one_line(line, limit))
    }

    /// Adds a text of several lines and at most `limit` bytes, whoever wrote it.
    pub(super) fn lines(&mut self, lines: &str, limit: usize) -> &mut Self {
        self.escaped(&text::cut_middle(&text::strip(lines), limit))
    }

    /// Adds a number, or another short value of the program's own.
    pub(super) fn value(&mut self, value: impl Display) -> &mut Self {
        let mut shown = String::new();
        // Writing to a string does not fail.
        let _ = write!(shown, "{value}");
        self.escaped(&shown)
    }

    /// Adds another piece.
    pub(super) fn add(&mut self, other: &Self) -> &mut Self {
        self.0.push_str(&other.0);
        self
    }

    /// Returns the markup.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn escaped(&mut self, text: &str) -> &mut Self {
        for char in text.chars() {
            match char {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                char => self.0.push(char),
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_becomes_markup(text in ".{0,200}") {
            let (mut line, mut lines) = (Html::default(), Html::default());
            line.line(&text, 100);
            lines.lines(&text, 100);
            for shown in [line.as_str(), lines.as_str()] {
                prop_assert!(!shown.contains(['<', '>', '"', '\'']), "{shown}");
                let named = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
                let plain = named.iter().fold(shown.to_owned(), |rest, name| rest.replace(name, ""));
                prop_assert!(!plain.contains('&'), "{shown}");
            }
        }
    }
}
