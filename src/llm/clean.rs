//! Makes a provider's words fit to be shown: one line, bounded, without key and prompt.
//!
//! Of the prompt only what people wrote and tools returned is removed, since that is nobody else's business. The
//! system message and the program's own sentences are no secret, and a cause must not vanish because it repeats them.
//! Pure; used by `refusal.rs`.

use super::message::{Message, Part};

/// The longest quotation, in characters.
pub(super) const QUOTED: usize = 300;
/// A run of words that is also in the prompt counts as part of it from so many bytes on, punctuation around it apart.
const PROMPT_RUN: usize = 24;

/// What was sent. Of it only the model's name may be shown.
pub(super) struct Asked<'a> {
    /// The key that was sent.
    pub key: &'a str,
    /// The model's name that was sent.
    pub model: &'a str,
    /// The conversation that was sent.
    pub messages: &'a [Message],
}

impl Asked<'_> {
    /// Returns whether pictures were sent.
    pub(super) fn shows_pictures(&self) -> bool {
        let pictures = |message: &Message| match message {
            Message::User { parts } => parts.iter().any(Part::is_picture),
            _ => false,
        };
        self.messages.iter().any(pictures)
    }
}

/// Returns a provider's words fit to be shown.
pub(super) fn clean(message: &str, asked: &Asked<'_>) -> String {
    let bounded: String = message.chars().take(4 * QUOTED).collect();
    let without_key = if asked.key.len() >= 4 { bounded.replace(asked.key, "[key]") } else { bounded };
    let mut out = String::new();
    for word in without_key.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(if looks_like_key(word, asked) { "[key]" } else { word });
    }
    let mut out = without_prompt(&out, asked.messages);
    if out.chars().count() > QUOTED {
        out = out.chars().take(QUOTED).chain(['…']).collect();
    }
    out
}

/// Returns whether a word looks like a key. A masked key (`sk-ab***xyz`) still shows its ends, so the marks of a key
/// are enough. The model's name is long and full of digits too, but must stay readable.
fn looks_like_key(word: &str, asked: &Asked<'_>) -> bool {
    let bare = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '*');
    if bare.is_empty() || asked.model.contains(bare) {
        return false;
    }
    let marked = ["sk-", "AIza", "gsk_", "pk-", "xai-"].iter().any(|mark| bare.contains(mark));
    let head: String = asked.key.chars().take(6).collect();
    let shares_head = head.chars().count() == 6 && bare.contains(&head);
    let long = bare.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_')).any(|run| {
        run.len() >= 24 && run.bytes().any(|b| b.is_ascii_digit()) && run.bytes().any(|b| b.is_ascii_alphabetic())
    });
    marked || shares_head || long || bare.contains("***")
}

/// Removes runs of whole words that are also in the conversation.
fn without_prompt(text: &str, messages: &[Message]) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let mut quoted = vec![false; words.len()];
    for start in 0..words.len() {
        // The shortest run from here that is long enough to count.
        let run = (start + 1..=words.len())
            .map(|end| (end, words[start..end].join(" ")))
            .find(|(_, run)| bare(run).len() >= PROMPT_RUN);
        if let Some((end, run)) = run
            && in_conversation(bare(&run), messages)
        {
            quoted[start..end].fill(true);
        }
    }
    let mut out: Vec<&str> = Vec::new();
    for (word, quoted) in words.into_iter().zip(quoted) {
        if !quoted {
            out.push(word);
        } else if out.last() != Some(&"[…]") {
            out.push("[…]");
        }
    }
    out.join(" ")
}

fn bare(run: &str) -> &str {
    run.trim_matches(|c: char| !c.is_alphanumeric())
}

fn in_conversation(run: &str, messages: &[Message]) -> bool {
    messages.iter().any(|message| match message {
        Message::Tool { text, .. } => text.contains(run),
        Message::User { parts } => parts.iter().any(|part| matches!(part, Part::Text { text } if text.contains(run))),
        Message::System { .. } | Message::Assistant(_) => false,
    })
}
