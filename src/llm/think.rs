//! Separates reasoning from an answer's text: models behind plain servers write it there, in tags, before they
//! answer.
//!
//! Only a tag at the very beginning counts. Later `<think>` is ordinary text: people ask about templates.

/// The tags, with their ends.
const TAGS: [(&str, &str); 3] = [("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<thought>", "</thought>")];

/// The most bytes of reasoning that are kept: its end, where a conclusion would be, for an answer without anything
/// else.
const KEPT: usize = 32 * 1024;

/// The model's reasoning: its length, and its end.
#[derive(Debug, Default)]
pub(super) struct Thoughts {
    text: String,
    bytes: usize,
}

impl Thoughts {
    /// Appends a piece.
    pub(super) fn push(&mut self, piece: &str) {
        self.count(piece.len());
        self.text.push_str(piece);
        if self.text.len() > 2 * KEPT {
            self.cut();
        }
    }

    /// Counts bytes of reasoning that has no readable text.
    pub(super) fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Returns the number of bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the end of the reasoning.
    pub(super) fn into_text(mut self) -> String {
        self.cut();
        self.text
    }

    fn cut(&mut self) {
        self.text.drain(..self.text.ceil_char_boundary(self.text.len().saturating_sub(KEPT)));
    }
}

/// Filters a text that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct ThinkFilter {
    state: ThinkState,
    /// Text that may still become a tag; never longer than the longest tag.
    held: String,
}

#[derive(Clone, Copy, Debug, Default)]
enum ThinkState {
    /// So far only white space and finished reasoning have come.
    #[default]
    Start,
    /// In the reasoning, until this tag.
    Thinking(&'static str),
    /// In the answer itself.
    Answer,
}

impl ThinkFilter {
    /// Appends the answer's part of `piece` to `answer`, and the rest to `thoughts`.
    pub(super) fn feed(&mut self, piece: &str, answer: &mut String, thoughts: &mut Thoughts) {
        if matches!(self.state, ThinkState::Answer) {
            answer.push_str(piece);
            return;
        }
        self.held.push_str(piece);
        loop {
            match self.state {
                ThinkState::Answer => return,
                ThinkState::Start => {
                    let text = self.held.trim_start();
                    if let Some((open, close)) = TAGS.iter().find(|(open, _)| text.starts_with(open)) {
                        thoughts.count(open.len());
                        self.held = text[open.len()..].to_owned();
                        self.state = ThinkState::Thinking(close);
                    } else if TAGS.iter().any(|(open, _)| open.starts_with(text)) {
                        self.held = text.to_owned();
                        return;
                    } else {
                        answer.push_str(text);
                        self.held.clear();
                        self.state = ThinkState::Answer;
                    }
                }
                ThinkState::Thinking(close) => {
                    if let Some(at) = self.held.find(close) {
                        thoughts.push(&self.held[..at]);
                        thoughts.count(close.len());
                        self.held.drain(..at + close.len());
                        self.state = ThinkState::Start;
                    } else {
                        // The end tag may continue in the next piece.
                        let keep = self.held.floor_char_boundary(self.held.len().saturating_sub(close.len() - 1));
                        thoughts.push(&self.held[..keep]);
                        self.held.drain(..keep);
                        return;
                    }
                }
            }
        }
    }

    /// Appends text that was held back for a tag that did not come.
    pub(super) fn finish(self, answer: &mut String, thoughts: &mut Thoughts) {
        match self.state {
            ThinkState::Start => answer.push_str(&self.held),
            ThinkState::Thinking(_) => thoughts.push(&self.held),
            ThinkState::Answer => {}
        }
    }
}

/// Returns the answer after a lone end tag on its own line: if a template puts the opening tag into the prompt, the
/// model writes only the end.
pub(super) fn after_lone_end(text: &str) -> &str {
    let mut fenced = false;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        at += line.len();
        let line = line.trim();
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced && TAGS.iter().any(|(_, close)| line == *close) {
            return text[at..].trim_start();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the answer and the reasoning.
    fn parted(pieces: &[&str]) -> (String, String) {
        let (mut answer, mut thoughts) = (String::new(), Thoughts::default());
        let mut filter = ThinkFilter::default();
        for piece in pieces {
            filter.feed(piece, &mut answer, &mut thoughts);
        }
        filter.finish(&mut answer, &mut thoughts);
        (answer, thoughts.into_text())
    }

    fn filter(pieces: &[&str]) -> String {
        parted(pieces).0
    }

    #[test]
    fn thoughts_go_wherever_the_pieces_are_cut() {
        let whole = "\n <think>a </thi b\u{e4}</think>\n\n<thinking>c</thinking>\nThe answer: <think> is a tag.";
        for cut in whole.char_indices().map(|(at, _)| at) {
            let (a, b) = whole.split_at(cut);
            let (answer, thoughts) = parted(&[a, b]);
            assert_eq!((&*answer, &*thoughts), ("The answer: <think> is a tag.", "a </thi b\u{e4}c"), "cut at {cut}");
        }
        let single: Vec<_> = whole.split("").collect();
        assert_eq!(filter(&single), "The answer: <think> is a tag.");
    }

    #[test]
    fn what_only_looks_like_a_tag_stays() {
        assert_eq!(filter(&["<thi", "ng>x"]), "<thing>x");
        assert_eq!(filter(&["<thi"]), "<thi");
        assert_eq!(filter(&["a <think>b</think>"]), "a <think>b</think>");
        assert_eq!(filter(&["<think>never closed"]), "");
    }

    #[test]
    fn of_endless_thoughts_the_end_is_kept() {
        let mut thoughts = Thoughts::default();
        for n in 0..100_000 {
            thoughts.push(&format!("ä{n} "));
        }
        assert!(thoughts.bytes() > 700_000);
        let text = thoughts.into_text();
        assert!(text.len() <= KEPT && text.ends_with("ä99999 "), "{}", text.len());
        assert_eq!(parted(&["<think>never ", "closed"]).1, "never closed");
    }

    #[test]
    fn a_lone_end_closes_what_came_before() {
        assert_eq!(after_lone_end("I ponder.\n</think>\n\nYes."), "Yes.");
        assert_eq!(after_lone_end("The tag `</think>` ends it."), "The tag `</think>` ends it.");
        assert_eq!(after_lone_end("```\n</think>\n```\nok"), "```\n</think>\n```\nok");
    }
}
