//! What has come along with a message: its file and the message to which it replies, as the model is told of them.

use crate::{bots::Upload, llm::Part};

/// What came along.
#[derive(Clone, Debug, Default)]
pub(super) struct Brought {
    /// What the person is told of the message's own file.
    pub(super) saved: Option<String>,
    /// What the model is told of all that.
    notes: Vec<String>,
    /// What the model is shown of it.
    pub(super) pictures: Vec<Part>,
}

impl Brought {
    /// Returns a message's words with what came along behind them.
    pub(super) fn behind(&self, words: &str) -> String {
        let words = Some(words).filter(|words| !words.trim().is_empty());
        let all: Vec<_> = words.into_iter().chain(self.notes.iter().map(String::as_str)).collect();
        all.join("\n\n")
    }

    /// Takes in a file that lies in the sandbox.
    pub(super) fn add_file(&mut self, upload: Upload) {
        self.notes.push(upload.text);
        self.pictures.extend(upload.picture);
    }

    /// Takes in what the model is to know.
    pub(super) fn add_note(&mut self, note: String) {
        self.notes.push(note);
    }
}
