//! What a branch changes, as GitHub counts it.
//!
//! Pure.

use serde_json::Value;

use crate::text;

/// Files that are shown; GitHub tells 300 at most.
const SHOWN: usize = 12;
/// The most characters of a path.
const PATH: usize = 80;

/// What a branch changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Commits that the base does not have.
    pub commits: u64,
    /// Changed files, as many as GitHub tells.
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

impl Diff {
    /// Reads the comparison of two commits.
    pub(super) fn read(answer: &Value) -> Option<Self> {
        let files = answer["files"].as_array().map(Vec::as_slice).unwrap_or_default();
        let changes = files.iter().map(|file| Change {
            path: text::one_line(file["filename"].as_str().unwrap_or("?"), PATH),
            added: file["additions"].as_u64().unwrap_or_default(),
            removed: file["deletions"].as_u64().unwrap_or_default(),
        });
        Some(Self { commits: answer["ahead_by"].as_u64()?, changes: changes.collect() })
    }

    /// Returns the sum in one line: `3 files +12 −4`.
    pub fn sum(&self) -> String {
        let (added, removed) =
            self.changes.iter().fold((0, 0), |(added, removed), file| (added + file.added, removed + file.removed));
        let files = if self.changes.len() == 1 { "file" } else { "files" };
        format!("{} {files} +{added} −{removed}", self.changes.len())
    }

    /// Returns the sum and a line for each of the first files.
    pub fn lines(&self) -> String {
        let mut lines = self.sum();
        for Change { path, added, removed } in self.changes.iter().take(SHOWN) {
            lines.extend(["\n", path, &format!(" +{added} −{removed}")]);
        }
        if self.changes.len() > SHOWN {
            lines.extend(["\n", &format!("… and {} more", self.changes.len() - SHOWN)]);
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
        assert!(many.lines().ends_with("… and 28 more") && many.lines().lines().count() == SHOWN + 2);
        assert_eq!(Diff::read(&json!({"message": "Not Found"})), None);
    }
}
