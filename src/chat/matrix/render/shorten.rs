//! Shortens a text that is too long for one event.

use super::{Rendered, html, markdown};
use crate::text;

/// The most bytes of body and HTML together, as JSON. An event may have 65,536 bytes, after encryption and with
/// everything around it; encryption turns three bytes into four. With a mention, a footer and relations (at most 4
/// KB) that makes 49 KB. This holds for an event that is not an edit: an edit carries its text twice, so that must
/// stay below 12 KB.
pub(super) const LIMIT: usize = 32 * 1024;

/// The same for an edit, which carries its text twice.
const LIMIT_OF_EDIT: usize = 14 * 1024;

/// Follows a text that was cut.
const CUT: &str = "*This is only the beginning: the whole text is in the attached file.*";

/// Returns the beginning of a text that is too long for one event, up to the end of a paragraph or line, and a
/// sentence that the whole is attached. Returns `None` if the text fits.
pub fn shortened(text: &str) -> Option<String> {
    shortened_to(text, LIMIT)
}

/// The same for an event that edits another one.
pub fn shortened_for_edit(text: &str) -> Option<String> {
    shortened_to(text, LIMIT_OF_EDIT)
}

fn shortened_to(text: &str, limit: usize) -> Option<String> {
    let clean = text::strip(text);
    if clean.len() <= limit && weight(&markdown(&clean)) <= limit {
        return None;
    }
    let mut wished = (limit / 2).min(clean.len());
    loop {
        let start = clean[..cut_at(&clean, wished)].trim_end();
        let short = format!("{start}{}\n\n{CUT}", html::closing(start)).trim_start_matches('\n').to_owned();
        // The size of the HTML depends on the markup, not on the length alone, so each cut is measured. If `wished`
        // is 0, only the sentence is left.
        if wished == 0 || weight(&markdown(&short)) <= limit {
            return Some(short);
        }
        wished = wished * 3 / 4;
    }
}

/// Returns the size of a rendered text in an event, in bytes of JSON.
pub(super) fn weight(rendered: &Rendered) -> usize {
    let json = |text: &str| text.len() + text.matches(['"', '\\', '\n', '\t']).count();
    json(&rendered.body) + rendered.html.as_deref().map_or(0, json)
}

/// Returns where to cut so that at most `wished` bytes remain: at the end of a paragraph, line or word if there is
/// one in the second half.
fn cut_at(text: &str, wished: usize) -> usize {
    let end = text.floor_char_boundary(wished);
    if end == text.len() {
        return end;
    }
    let head = &text[..end];
    ["\n\n", "\n", " "].iter().filter_map(|gap| head.rfind(gap)).find(|at| *at > end / 2).unwrap_or(end)
}
