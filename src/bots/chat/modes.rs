//! Modes: how far an answer may go, chosen by the first word of a question. Pure.

use std::time::Duration;

/// How far an answer may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mode {
    /// The word that chooses it, in small letters.
    pub word: &'static str,
    /// The most tokens of an answer.
    pub max_tokens: u64,
    /// How long it may take, from when the model is asked.
    pub time: Duration,
    /// How many turns of the conversation the model is told of.
    pub history_turns: usize,
    /// Whether models that can leave out their thinking think.
    pub thinks: bool,
}

/// Returns the mode that `words` begin with, and what is asked. `fast: …`, `!fast …` and `/fast …` are orders, which the
/// model does not read; a word that only stands there, as in `fast food`, chooses the mode too and stays.
pub(super) fn read<'m, 'w>(words: &'w str, modes: &'m [Mode]) -> (Option<&'m Mode>, &'w str) {
    let words = words.trim();
    let bare = words.trim_start_matches(['!', '/']);
    let end = bare.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(bare.len());
    let (word, rest) = bare.split_at(end);
    let Some(mode) = modes.iter().find(|mode| mode.word.eq_ignore_ascii_case(word)) else { return (None, words) };
    let ordered = bare.len() < words.len() || rest.starts_with([':', ',']) || rest.trim().is_empty();
    let parted = rest.is_empty() || rest.starts_with([':', ',', ' ', '\u{a0}', '\n', '\t']);
    match (parted, ordered) {
        (false, _) => (None, words),
        (true, true) => (Some(mode), rest.trim_start_matches([':', ',', ' ', '\u{a0}', '\n', '\t'])),
        (true, false) => (Some(mode), words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_chooses_and_is_not_read_if_it_is_an_order() {
        let mode = |word| Mode { word, max_tokens: 1, time: Duration::ZERO, history_turns: 0, thinks: false };
        let modes = [mode("fast"), mode("deepreason")];
        for (words, expected, asked) in [
            ("why?", None, "why?"),
            ("fast: why?", Some("fast"), "why?"),
            ("!Fast why?", Some("fast"), "why?"),
            ("/deepreason, why?", Some("deepreason"), "why?"),
            ("fast food?", Some("fast"), "fast food?"),
            ("fast\nfood?", Some("fast"), "fast\nfood?"),
            ("fast", Some("fast"), ""),
            (" fast: ", Some("fast"), ""),
            ("faster: why?", None, "faster: why?"),
            ("fast-moving rivers", None, "fast-moving rivers"),
            ("fast.com", None, "fast.com"),
            ("how fast is it?", None, "how fast is it?"),
            ("", None, ""),
            ("!reset", None, "!reset"),
        ] {
            let (mode, rest) = read(words, &modes);
            assert_eq!((mode.map(|mode| mode.word), rest), (expected, asked), "{words:?}");
        }
    }
}
