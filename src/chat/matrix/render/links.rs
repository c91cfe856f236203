//! Which addresses become links, and how they are written in an attribute.

use super::words;
use std::fmt::Write as _;

/// Returns the address as the value of an `href`; `None` if it is no link. Only `http`, `https` and `mailto` are
/// links, not paths, `javascript:` and the rest; nor is a link to a user, which clients show as a mention: only the
/// event's `m.mentions` mentions somebody.
pub(super) fn href(address: &str) -> Option<String> {
    let address = address.trim();
    let (scheme, rest) = address.split_once(':')?;
    let whole = match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => {
            let place = rest.strip_prefix("//")?;
            place.starts_with(|c: char| c.is_alphanumeric() || c == '[') && !words::names_user(place)
        }
        "mailto" => rest.contains('@'),
        _ => false,
    };
    whole.then(|| encode(address))
}

/// Returns the link to a user; `None` if `id` is no user id.
pub(super) fn user(id: &str) -> Option<String> {
    let (name, server) = id.strip_prefix('@')?.split_once(':')?;
    if name.is_empty() || server.is_empty() || id.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return None;
    }
    let name = name.replace('%', "%25").replace('/', "%2F").replace('?', "%3F").replace('#', "%23");
    Some(encode(&format!("https://matrix.to/#/@{name}:{server}")))
}

/// Percent-encodes what must not be in an address or attribute, and the `@` of each `@room`.
fn encode(address: &str) -> String {
    let mut encoded = String::with_capacity(address.len());
    for (at, c) in address.char_indices() {
        match c {
            '&' => encoded.push_str("&amp;"),
            '@' if words::is_room(&address[at + 1..]) => encoded.push_str("%40"),
            '"' | '\'' | '<' | '>' | '`' | '{' | '}' | '|' | '^' | '\\' => percent(&mut encoded, c),
            c if c.is_ascii_graphic() => encoded.push(c),
            c => percent(&mut encoded, c),
        }
    }
    encoded
}

fn percent(out: &mut String, c: char) {
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        // Writing to a string cannot fail.
        let _ = write!(out, "%{byte:02X}");
    }
}
