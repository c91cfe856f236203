//! Takes reasoning out of an answer's text: models behind plain servers write it there, in tags, before they answer.
//!
//! Only a tag at the very beginning counts. Further on `<think>` is a word like any other: people ask about templates.

/// The tags in use, with their ends.
const TAGS: [(&str, &str); 3] = [("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<thought>", "</thought>")];

/// A filter for a text that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct ThinkFilter {
    state: State,
    /// What may yet turn out to be a tag; never longer than the longest one.
    held: String,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Nothing but white space and finished thoughts so far.
    #[default]
    Start,
    /// Inside, until this tag.
    Thinking(&'static str),
    /// The answer itself.
    Answer,
}

impl ThinkFilter {
    /// Appends what of `piece` is for the person to `answer`; returns how many bytes were thought.
    pub(super) fn feed(&mut self, piece: &str, answer: &mut String) -> usize {
        if matches!(self.state, State::Answer) {
            answer.push_str(piece);
            return 0;
        }
        self.held.push_str(piece);
        let mut thought = 0;
        loop {
            match self.state {
                State::Answer => return thought,
                State::Start => {
                    let text = self.held.trim_start();
                    if let Some((open, close)) = TAGS.iter().find(|(open, _)| text.starts_with(open)) {
                        thought += open.len();
                        self.held = text[open.len()..].to_owned();
                        self.state = State::Thinking(close);
                    } else if TAGS.iter().any(|(open, _)| open.starts_with(text)) {
                        self.held = text.to_owned();
                        return thought;
                    } else {
                        answer.push_str(text);
                        self.held.clear();
                        self.state = State::Answer;
                    }
                }
                State::Thinking(close) => {
                    if let Some(at) = self.held.find(close) {
                        thought += at + close.len();
                        self.held.drain(..at + close.len());
                        self.state = State::Start;
                    } else {
                        // The end may be cut in two by the next piece.
                        let keep = self.held.floor_char_boundary(self.held.len().saturating_sub(close.len() - 1));
                        thought += keep;
                        self.held.drain(..keep);
                        return thought;
                    }
                }
            }
        }
    }

    /// Appends what was held back for a tag that never came.
    pub(super) fn finish(self, answer: &mut String) {
        if matches!(self.state, State::Start) {
            answer.push_str(&self.held);
        }
    }
}

/// Returns the answer behind a lone end tag on its own line: templates that put the opening tag into the prompt make
/// models write only the end.
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

    fn filter(pieces: &[&str]) -> String {
        let mut answer = String::new();
        let mut filter = ThinkFilter::default();
        for piece in pieces {
            filter.feed(piece, &mut answer);
        }
        filter.finish(&mut answer);
        answer
    }

    #[test]
    fn thoughts_go_wherever_the_pieces_are_cut() {
        let whole = "\n <think>a </thi b\u{e4}</think>\n\n<thinking>c</thinking>\nThe answer: <think> is a tag.";
        for cut in whole.char_indices().map(|(at, _)| at) {
            let (a, b) = whole.split_at(cut);
            assert_eq!(filter(&[a, b]), "The answer: <think> is a tag.", "cut at {cut}");
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
    fn a_lone_end_closes_what_came_before() {
        assert_eq!(after_lone_end("I ponder.\n</think>\n\nYes."), "Yes.");
        assert_eq!(after_lone_end("The tag `</think>` ends it."), "The tag `</think>` ends it.");
        assert_eq!(after_lone_end("```\n</think>\n```\nok"), "```\n</think>\n```\nok");
    }
}
