//! What a branch changes, as GitHub counts it, or git in the sandbox.
//!
//! Pure.

use serde_json::Value;

use crate::{strings, text};

/// Files that are shown.
const SHOWN: usize = 10;
/// The most characters of a path.
const PATH: usize = 80;

/// What a branch changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Commits that the base does not have.
    pub commits: u64,
    /// Changed files; GitHub tells 300 at most.
    pub files: u64,
    /// Lines that came, in all of them.
    pub added: u64,
    /// Lines that went.
    pub removed: u64,
    /// The first of the files.
    pub changes: Vec<Change>,
}

/// A changed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its path, in one clean line.
    pub path: String,
    /// Lines that came.
    pub added: u64,
    /// Lines that went.
    pub removed: u64,
}

impl Change {
    /// Returns a change whose path is cleaned.
    pub fn new(path: &str, added: u64, removed: u64) -> Self {
        Self { path: text::one_line(path, PATH), added, removed }
    }
}

impl Diff {
    /// Reads the comparison of two commits.
    pub(super) fn read(answer: &Value) -> Option<Self> {
        let mut diff = Self { commits: answer["ahead_by"].as_u64()?, ..Self::default() };
        for file in answer["files"].as_array().into_iter().flatten() {
            let count = |name: &str| file[name].as_u64().unwrap_or_default();
            let (added, removed) = (count("additions"), count("deletions"));
            diff.files += 1;
            diff.added += added;
            diff.removed += removed;
            diff.show(Change::new(file["filename"].as_str().unwrap_or("?"), added, removed));
        }
        Some(diff)
    }

    /// Adds a file to those that are shown, unless there are enough.
    pub fn show(&mut self, change: Change) {
        if self.changes.len() < SHOWN {
            self.changes.push(change);
        }
    }

    /// Returns the sum in one line: `3 files +12 −4`.
    pub fn sum(&self) -> String {
        let Self { files, added, removed, .. } = self;
        format!("{} +{added} −{removed}", strings::counted(*files, "file"))
    }

    /// Returns the sum and a line for each of the first files.
    pub fn lines(&self) -> String {
        let mut lines = self.sum();
        for Change { path, added, removed } in &self.changes {
            lines.extend(["\n", path, &format!(" +{added} −{removed}")]);
        }
        match self.files.saturating_sub(self.changes.len() as u64) {
            0 => {}
            more => lines.extend(["\n", &format!("… and {more} more")]),
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_comparison_is_read_and_shown_short() {
        let file = |name: &str| json!({"filename": name, "additions": 2, "deletions": 1});
        let answer = json!({"ahead_by": 2, "files": [file("src/a.rs"), file("b\n\u{1b}[31mc")]});
        let diff = Diff::read(&answer).unwrap();
        assert_eq!(diff.commits, 2);
        assert_eq!(diff.lines(), "2 files +4 −2\nsrc/a.rs +2 −1\nb c +2 −1");
        let many: Vec<_> = (0..40).map(|number| file(&format!("f{number}"))).collect();
        let many = Diff::read(&json!({"ahead_by": 1, "files": many})).unwrap();
        assert!(
            many.lines().starts_with("40 files +80 −40\n")
                && many.lines().ends_with("… and 30 more")
                && many.lines().lines().count() == SHOWN + 2
        );
        assert_eq!(Diff::read(&json!({"message": "Not Found"})), None);
    }
}
