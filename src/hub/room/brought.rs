//! What came along with a message, as the model is told of it: its file, and the message to which it replies.

use crate::{bots::Upload, llm::Part};

/// A message's file and quote, once fetched.
#[derive(Clone, Debug, Default)]
pub(super) struct Brought {
    /// What the person is told about the message's own file; `None` if it has none.
    pub(super) saved: Option<String>,
    /// What the model is told, in order.
    notes: Vec<String>,
    /// The pictures that the model is shown.
    pub(super) pictures: Vec<Part>,
}

impl Brought {
    /// Returns a message's words with the notes after them.
    pub(super) fn behind(&self, words: &str) -> String {
        let words = Some(words).filter(|words| !words.trim().is_empty());
        let all: Vec<_> = words.into_iter().chain(self.notes.iter().map(String::as_str)).collect();
        all.join("\n\n")
    }

    /// Adds a file that was saved in the sandbox.
    pub(super) fn add_file(&mut self, upload: Upload) {
        self.notes.push(upload.text);
        self.pictures.extend(upload.picture);
    }

    /// Adds a note for the model.
    pub(super) fn add_note(&mut self, note: String) {
        self.notes.push(note);
    }
}
