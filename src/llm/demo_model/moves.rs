//! A step of the demo model: what it says and which calls it makes.

use serde_json::Value;

/// A text with calls; without calls the turn ends.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Move {
    /// The text for the person.
    pub text: String,
    /// The tools that are called, with their arguments.
    pub calls: Vec<(&'static str, Value)>,
}

impl Move {
    pub(super) fn say(text: impl Into<String>) -> Self {
        Self { text: text.into(), calls: Vec::new() }
    }

    pub(super) fn call(text: impl Into<String>, calls: Vec<(&'static str, Value)>) -> Self {
        Self { text: text.into(), calls }
    }
}

/// Returns a text's first line, shortened to 200 characters.
pub(super) fn first_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or("(nothing)");
    if line.chars().count() > 200 { line.chars().take(200).chain(['…']).collect() } else { line.to_owned() }
}
