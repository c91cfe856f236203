//! What is said of a text that is too long for one event.

use super::{Rendered, html, markdown};
use crate::text;

/// The most bytes that body and HTML may have together, as JSON. An event may have 65,536, encrypted and with all
/// around it; encryption makes four of three. With a mention, a footer and what relates it to others (4 KB at most)
/// that is 49 KB. It holds for an event that is not edited: an edit carries everything twice, and its text must be
/// kept below 12 KB.
pub(super) const LIMIT: usize = 32 * 1024;

/// What stands where a text was cut off.
const CUT: &str = "*This is only the beginning: the whole text is in the attached file.*";

/// Returns what is said instead of a text that is too long for one event: its beginning, up to the end of a paragraph
/// or line, and a sentence that the whole is attached. Returns none if the text fits.
pub(in crate::chat::matrix) fn shortened(text: &str) -> Option<String> {
    let clean = text::strip(text);
    if clean.len() <= LIMIT && weight(&markdown(&clean)) <= LIMIT {
        return None;
    }
    let mut wished = (LIMIT / 2).min(clean.len());
    loop {
        let start = clean[..cut_at(&clean, wished)].trim_end();
        let short = format!("{start}{}\n\n{CUT}", html::closing(start)).trim_start_matches('\n').to_owned();
        // HTML grows with the markup, not with the length: only looking tells. Nothing but the sentence fits.
        if wished == 0 || weight(&markdown(&short)) <= LIMIT {
            return Some(short);
        }
        wished = wished * 3 / 4;
    }
}

/// Returns how many bytes of JSON an event has for this.
pub(super) fn weight(rendered: &Rendered) -> usize {
    let json = |text: &str| text.len() + text.matches(['"', '\\', '\n', '\t']).count();
    json(&rendered.body) + rendered.html.as_deref().map_or(0, json)
}

/// Returns where to cut so that at most `wished` bytes stay: at the end of a paragraph, a line or a word, if one lies
/// in the second half.
fn cut_at(text: &str, wished: usize) -> usize {
    let end = text.floor_char_boundary(wished);
    if end == text.len() {
        return end;
    }
    let head = &text[..end];
    ["\n\n", "\n", " "].iter().filter_map(|gap| head.rfind(gap)).find(|at| *at > end / 2).unwrap_or(end)
}
