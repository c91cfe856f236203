//! What is asked of GitHub about people there: who may write to a repository, and what a review of theirs says.

use serde_json::Value;

use super::{GitHub, acts::encoded, error::GitHubError};
use crate::rights::Repository;

/// The most comments of a review that are read.
const COMMENTS: usize = 100;

/// A comment of a review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReviewComment {
    /// The file, and the line in it, if it still has one.
    pub place: String,
    /// What it says.
    pub text: String,
}

impl GitHub {
    /// Returns whether somebody may write to a repository.
    pub async fn may_write(&self, repository: &Repository, login: &str) -> Result<bool, GitHubError> {
        match self.read(repository, &format!("/collaborators/{}/permission", encoded(login))).await {
            Ok(answer) => Ok(matches!(answer["permission"].as_str(), Some("admin" | "maintain" | "write"))),
            // Nobody whom GitHub knows there.
            Err(GitHubError::Gone(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the comments of a review, without those that this server has written.
    pub async fn review_comments(
        &self,
        repository: &Repository,
        pull: u64,
        review: u64,
    ) -> Result<Vec<ReviewComment>, GitHubError> {
        let answer =
            self.read(repository, &format!("/pulls/{pull}/reviews/{review}/comments?per_page={COMMENTS}")).await?;
        let comment = |comment: &Value| {
            let text = comment["body"].as_str().filter(|text| !Self::wrote(text))?.to_owned();
            let path = comment["path"].as_str().unwrap_or("?");
            let line = comment["line"].as_u64().or_else(|| comment["original_line"].as_u64());
            let place = line.map_or_else(|| path.to_owned(), |line| format!("{path}:{line}"));
            Some(ReviewComment { place, text })
        };
        Ok(answer.as_array().ok_or(GitHubError::Strange)?.iter().filter_map(comment).collect())
    }
}
