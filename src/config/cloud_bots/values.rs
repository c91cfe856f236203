//! The parsers of settings that only cloud bots have.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use reqwest::header::{HeaderName, HeaderValue};
use secrecy::SecretString;

use super::{
    super::{
        Wrong,
        parse::{self, Parsed, quote},
    },
    Thinking,
};

/// The longest system prompt in bytes.
const LONGEST_PROMPT: usize = 16 << 10;
/// The longest name in characters.
const LONGEST_NAME: usize = 64;
/// The most headers.
const MOST_HEADERS: usize = 32;
/// Headers that say how a request is written, or that the client makes itself.
const NOT_OURS: [&str; 6] =
    ["host", "content-length", "content-type", "transfer-encoding", "connection", "authorization"];

/// A key or token; not the words that stand for one in examples.
pub(in crate::config) fn credential(value: &str) -> Parsed<SecretString> {
    if is_placeholder(value) {
        return Err(Wrong::new("it is still a placeholder", "Write the real one in its place"));
    }
    parse::token(value)
}

/// Returns whether this is what examples have in place of a key. No word here is likely within a random key.
fn is_placeholder(value: &str) -> bool {
    let small = value.trim().to_ascii_lowercase();
    let words = ["your-", "your_", "replace", "changeme", "change-me", "change_me", "placeholder", "example", "..."];
    let last = small.rsplit(['_', '-']).next().unwrap_or_default();
    let filled = |mark: char| last.len() >= 3 && last.chars().all(|c| c == mark);
    (small.starts_with('<') && small.ends_with('>'))
        || words.iter().any(|word| small.contains(word))
        || ['x', '*', '.', '0'].into_iter().any(filled)
}

/// A name that people read.
pub(in crate::config) fn name(value: &str) -> Parsed<String> {
    let name = parse::words(value)?;
    if name.chars().count() <= LONGEST_NAME {
        return Ok(name);
    }
    Err(Wrong::new("the name is too long", format!("Write at most {LONGEST_NAME} characters")))
}

/// One word.
pub(super) fn group(value: &str) -> Parsed<String> {
    let word = name(value)?;
    if word.contains(char::is_whitespace) {
        return Err(Wrong::new(format!("{} is not one word", quote(&word)), "Write one word, such as `groq`"));
    }
    Ok(word)
}

/// A text of several lines.
pub(in crate::config) fn prompt(value: &str) -> Parsed<String> {
    if value.len() > LONGEST_PROMPT {
        let mend = format!("Write at most {LONGEST_PROMPT} bytes");
        return Err(Wrong::new(format!("it has {} bytes", value.len()), mend));
    }
    if value.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
        return Err(Wrong::new("it holds control characters", "Write it again by hand"));
    }
    Ok(value.to_owned())
}

/// A list of rooms, which may be empty.
pub(in crate::config) fn rooms(value: &str) -> Parsed<Vec<String>> {
    if parse::list(value)?.is_empty() { Ok(Vec::new()) } else { parse::rooms(value) }
}

/// A sampling temperature.
pub(super) fn temperature(value: &str) -> Parsed<f64> {
    match f64::from_str(value) {
        Ok(number) if (0.0..=2.0).contains(&number) => Ok(number),
        _ => {
            Err(Wrong::new(format!("{} is no temperature", quote(value)), "Write a number from 0 to 2, such as `0.7`"))
        }
    }
}

/// How long an answer may take.
pub(in crate::config) fn timeout(value: &str) -> Parsed<Duration> {
    parse::count::<u32, 1, 3600>(value).map(|seconds| Duration::from_secs(seconds.into()))
}

/// How long a stream may bring nothing. A homeserver holds a request for half a minute while there is nothing new.
pub(super) fn watchdog(value: &str) -> Parsed<Duration> {
    parse::count::<u32, 45, 86_400>(value).map(|seconds| Duration::from_secs(seconds.into()))
}

/// How thoughts are shown.
pub(super) fn thinking(value: &str) -> Parsed<Thinking> {
    match value.to_ascii_lowercase().as_str() {
        "spoiler" => Ok(Thinking::Spoiler),
        "details" => Ok(Thinking::Details),
        "hidden" => Ok(Thinking::Hidden),
        _ => Err(Wrong::new(
            format!("{} is no way to show thoughts", quote(value)),
            "Write `spoiler`, `details` or `hidden`",
        )),
    }
}

/// Headers of requests, as a JSON object. No error shows any of it, since a value may be a key.
pub(super) fn headers(value: &str) -> Parsed<BTreeMap<String, SecretString>> {
    let mend = "Write it like `{\"X-Title\": \"Our bot\"}`";
    let Ok(read) = serde_json::from_str::<BTreeMap<String, String>>(value) else {
        return Err(Wrong::new("it is no JSON object of texts", mend));
    };
    if read.len() > MOST_HEADERS {
        return Err(Wrong::new("these are too many headers", format!("Write at most {MOST_HEADERS}")));
    }
    let mut headers = BTreeMap::new();
    for (name, value) in read {
        let known = HeaderName::from_bytes(name.as_bytes()).ok().filter(|_| HeaderValue::from_str(&value).is_ok());
        let Some(name) = known else {
            return Err(Wrong::new("a name or a value in it cannot be a header", mend));
        };
        if NOT_OURS.contains(&name.as_str()) {
            let what = format!("the header `{name}` is made by the client itself");
            return Err(Wrong::new(what, "Leave it out; the key stands in LLM_API_KEY"));
        }
        headers.insert(name.as_str().to_owned(), SecretString::from(value));
    }
    Ok(headers)
}
