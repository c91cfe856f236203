//! Raw HTML in Markdown: it becomes text, except for `<details>` and `<summary>`, which models use and clients fold.

use super::page::{DEPTH, DETAILS, PARAGRAPH, Page, SUMMARY, Wanted};

impl Page {
    /// Writes inline raw HTML as text, except for a tag that ends what a raw HTML block began.
    pub(super) fn inline_html(&mut self, raw: &str) {
        match RawTag::first(raw) {
            Some((_, tag @ (RawTag::DetailsEnd | RawTag::SummaryEnd), _)) if self.takes(tag) => {
                self.end_paragraph();
                self.apply(tag);
                self.wanted = Wanted::Paragraph;
            }
            _ => self.pending.push_str(raw),
        }
    }

    pub(super) fn raw_block(&mut self) {
        let raw = std::mem::take(&mut self.raw);
        let mut text_from = 0;
        let mut at = 0;
        while let Some((start, tag, end)) = RawTag::first(&raw[at..]) {
            if self.takes(tag) {
                self.raw_text(&raw[text_from..at + start]);
                self.apply(tag);
                text_from = at + end;
            }
            at += end;
        }
        self.raw_text(&raw[text_from..]);
    }

    fn raw_text(&mut self, raw: &str) {
        let in_summary = self.stack.last().is_some_and(|frame| frame.tags == SUMMARY);
        self.wanted = if in_summary { Wanted::Nothing } else { Wanted::Paragraph };
        for (number, line) in raw.trim().lines().enumerate() {
            if number > 0 {
                self.line_break();
            }
            self.pending.push_str(line);
        }
        self.end_paragraph();
    }

    /// Returns whether such a tag is allowed here; otherwise it becomes text.
    fn takes(&self, tag: RawTag) -> bool {
        let mut open = self.stack.iter().rev().map(|frame| frame.tags).filter(|tags| *tags != PARAGRAPH);
        let (inner, outer) = (open.next(), open.next());
        match tag {
            RawTag::Details => inner != Some(SUMMARY) && self.depth < DEPTH,
            RawTag::Summary => inner == Some(DETAILS) && self.depth < DEPTH,
            RawTag::SummaryEnd => inner == Some(SUMMARY),
            RawTag::DetailsEnd => inner == Some(DETAILS) || (inner == Some(SUMMARY) && outer == Some(DETAILS)),
        }
    }

    fn apply(&mut self, tag: RawTag) {
        match tag {
            RawTag::Details => self.open_implied(DETAILS),
            RawTag::Summary => self.open_implied(SUMMARY),
            RawTag::SummaryEnd => {
                self.close();
            }
            RawTag::DetailsEnd => {
                if self.stack.last().is_some_and(|frame| frame.tags == SUMMARY) {
                    self.close();
                }
                self.close();
            }
        }
    }
}

/// Raw tags that do not become text.
#[derive(Clone, Copy, Debug, PartialEq)]
enum RawTag {
    Details,
    DetailsEnd,
    Summary,
    SummaryEnd,
}

impl RawTag {
    const ALL: [(&'static str, Self); 4] = [
        ("<details", Self::Details),
        ("</details", Self::DetailsEnd),
        ("<summary", Self::Summary),
        ("</summary", Self::SummaryEnd),
    ];

    /// Finds the first such tag in `html`; returns where it starts and ends. Its attributes are ignored.
    fn first(html: &str) -> Option<(usize, Self, usize)> {
        for (start, _) in html.match_indices('<') {
            let rest = &html[start..];
            for (name, tag) in Self::ALL {
                if rest.as_bytes().get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name.as_bytes()))
                    && rest[name.len()..].starts_with(|c: char| c == '>' || c == '/' || c.is_ascii_whitespace())
                {
                    let end = rest.find('>')?;
                    return Some((start, tag, start + end + 1));
                }
            }
        }
        None
    }
}
