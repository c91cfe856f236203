//! Why GitHub did not do what was asked, each as one sentence with the mend.
//!
//! Pure. What GitHub says itself is shown cleaned and short, and only where it says what to change.

use std::time::Duration;

use hyper::{HeaderMap, StatusCode, header::RETRY_AFTER};
use serde_json::Value;

use crate::{rights::Repository, text};

/// The most characters of GitHub's own words.
const WORDS: usize = 300;

/// Why GitHub did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitHubError {
    /// The operator has set none.
    #[error(
        "The server has no key for GitHub: the operator has to set GITHUB_APP_ID and GITHUB_APP_KEY, or GITHUB_TOKEN."
    )]
    NoKey,
    /// The token is wrong or has expired.
    #[error(
        "GitHub does not take the server's key any more: it has expired, or it was revoked. The operator has to make a new one \
         (GITHUB_TOKEN, or the key of the GitHub App)."
    )]
    BadKey,
    /// The App is not installed where the repository is.
    #[error("The server's GitHub App is not installed for {0}. Its owner has to install it there.")]
    NotInstalled(Repository),
    /// The key may not do that.
    #[error(
        "The server's key may not do that in {0}. It needs the permissions “contents” and “pull requests” (write), for a comment \
         “issues” too, for checks “checks” (read); the operator adds them in the key's settings at GitHub."
    )]
    Scope(Repository),
    /// The repository is not there for the key.
    #[error(
        "GitHub shows no {0} to the server's key: it does not exist, or the key was not given it. The operator can add it to the key."
    )]
    Gone(Repository),
    /// The repository has another name.
    #[error(
        "{0} has moved. Use its new name, `git remote set-url origin URL`, which has to be granted like the old one."
    )]
    Moved(Repository),
    /// Nothing can be written there any more.
    #[error("{0} is archived, so that nothing can be written there. Its owner can change that at GitHub.")]
    Archived(Repository),
    /// An issue or pull request with this number is not there.
    #[error("{0} has no pull request or issue #{1}. Give the number of one that it has.")]
    NoNumber(Repository, u64),
    /// Too many requests were sent.
    #[error("GitHub takes no more requests with the server's key for now. Try again in {}.", text::human_duration(*.0))]
    Limited(Duration),
    /// GitHub refuses what was asked, and says why.
    #[error("GitHub refuses it: {0}")]
    Refused(String),
    /// The branch at GitHub is not what was pushed.
    #[error(
        "Somebody else has pushed to {branch} meanwhile: GitHub has {there} where {here} was pushed. Fetch it, bring both together, \
         and try again."
    )]
    BranchDiffers {
        /// The branch.
        branch: String,
        /// What it holds at GitHub, shortened.
        there: String,
        /// What it should hold, shortened.
        here: String,
    },
    /// The branch is not at GitHub.
    #[error("GitHub has no branch {0}. Push it first.")]
    NoBranch(String),
    /// The pull request was opened and is closed.
    #[error("Pull request #{0} of this branch was closed meanwhile. Reopen it at GitHub, or work on in a new branch.")]
    Closed(u64),
    /// No answer came, or one that says nothing about what became of the request.
    #[error(
        "GitHub does not answer properly at the moment ({0}). Whatever was asked is not known to be done; try again later."
    )]
    Lost(String),
    /// The answer is larger than what is taken of one.
    #[error(
        "GitHub's answer is larger than 8 MiB, which is as much as is taken. Ask for less: a page, or a single file."
    )]
    TooLarge,
    /// What came is none of GitHub's answers.
    #[error("GitHub's answer could not be understood. Try again later.")]
    Strange,
}

impl GitHubError {
    /// Reads an answer that is no success.
    pub(super) fn of(repository: &Repository, status: StatusCode, headers: &HeaderMap, body: &Value, now: i64) -> Self {
        let said = words(body);
        match status.as_u16() {
            401 => Self::BadKey,
            403 | 429 if is_limit(status, headers, &said) => Self::Limited(pause(headers, now)),
            403 if said.contains("archived") => Self::Archived(repository.clone()),
            403 => Self::Scope(repository.clone()),
            404 | 451 => Self::Gone(repository.clone()),
            301 | 302 | 307 | 308 => Self::Moved(repository.clone()),
            409 | 410 | 422 => Self::Refused(said),
            500.. => Self::Lost(format!("status {}", status.as_u16())),
            _ => Self::Strange,
        }
    }
}

/// Returns GitHub's own words, with the details of what is invalid.
fn words(body: &Value) -> String {
    let mut parts: Vec<String> = body["message"].as_str().map(str::to_owned).into_iter().collect();
    for error in body["errors"].as_array().into_iter().flatten().take(3) {
        let told = error["message"].as_str().or_else(|| error.as_str()).map(str::to_owned);
        let field = || Some(format!("{} is {}", error["field"].as_str()?, error["code"].as_str()?));
        parts.extend(told.or_else(field));
    }
    if parts.is_empty() {
        return "it gave no reason.".to_owned();
    }
    format!("{}.", text::one_line(&parts.join(": "), WORDS).trim_end_matches('.'))
}

fn is_limit(status: StatusCode, headers: &HeaderMap, said: &str) -> bool {
    let none_left = headers.get("x-ratelimit-remaining").is_some_and(|left| left == "0");
    status == StatusCode::TOO_MANY_REQUESTS
        || none_left
        || headers.contains_key(RETRY_AFTER)
        || said.contains("rate limit")
}

/// How long a limit lasts; `now` in milliseconds since 1970.
fn pause(headers: &HeaderMap, now: i64) -> Duration {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.parse::<i64>().ok();
    let seconds = number("retry-after").or_else(|| Some(number("x-ratelimit-reset")? - now / 1000)).unwrap_or(60);
    Duration::from_secs(seconds.clamp(1, 24 * 60 * 60) as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn told(status: u16, headers: &[(&'static str, &str)], body: &Value) -> String {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let repository = Repository::parse("acme/site").unwrap();
        GitHubError::of(&repository, StatusCode::from_u16(status).unwrap(), &headers, body, NOW).to_string()
    }

    #[test]
    fn each_bad_answer_is_one_sentence_with_the_mend() {
        let message = |text: &str| json!({ "message": text });
        for (status, headers, body, says) in [
            (
                401,
                vec![],
                message("Bad credentials"),
                "has expired, or it was revoked. The operator has to make a new one",
            ),
            (
                403,
                vec![],
                message("Resource not accessible by personal access token"),
                "It needs the permissions “contents”",
            ),
            (403, vec![], message("Resource not accessible by integration"), "may not do that in acme/site"),
            (403, vec![], message("Repository was archived so is read-only."), "acme/site is archived"),
            (
                403,
                vec![("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1800000300")],
                message("API rate limit exceeded for user ID 1."),
                "Try again in 5 min",
            ),
            (
                403,
                vec![("retry-after", "60")],
                message("You have exceeded a secondary rate limit."),
                "Try again in 1 min",
            ),
            (429, vec![], Value::Null, "Try again in 1 min"),
            (404, vec![], message("Not Found"), "GitHub shows no acme/site to the server's key"),
            (451, vec![], message("Repository access blocked"), "GitHub shows no acme/site"),
            (301, vec![], message("Moved Permanently"), "acme/site has moved. Use its new name"),
            (
                410,
                vec![],
                message("Issues are disabled for this repo"),
                "refuses it: Issues are disabled for this repo.",
            ),
            (
                422,
                vec![],
                json!({"message": "Validation Failed", "errors": [{"message": "No commits between main and agent/x"}]}),
                "refuses it: Validation Failed: No commits between main and agent/x.",
            ),
            (
                422,
                vec![],
                json!({"message": "Validation Failed", "errors": [{"field": "base", "code": "invalid"}]}),
                "Validation Failed: base is invalid.",
            ),
            (502, vec![], json!("<html>Unicorn!</html>"), "does not answer properly at the moment (status 502)"),
            (418, vec![], Value::Null, "could not be understood"),
        ] {
            let said = told(status, &headers, &body);
            assert!(said.contains(says), "{status} {body}: {said}");
            assert!(!said.contains('\n') && said.ends_with('.'), "{said}");
        }
    }

    #[test]
    fn what_github_says_is_cleaned_and_short() {
        let said = told(422, &[], &json!({ "message": format!("a\u{1b}[31m\nb{}", "x".repeat(9000)) }));
        assert!(said.len() < 400 && !said.contains(['\n', '\u{1b}']), "{said}");
    }
}
