//! What is done at GitHub, each once: a pull request, a comment, an answer to a thread; and what is asked there.
//!
//! An act is named by whoever wants it, always by the same name. Before it is done, and again whenever its answer does not come,
//! GitHub is asked whether it was done: a pull request is found by its branch, a comment by a mark that holds the act's name.
//! So it may be asked for again after a crash, at any time.

use std::fmt::{self, Write};

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{GitHub, api::GRAPHQL, diff::Diff, error::GitHubError};
use crate::{crash, ids::digest, rights::Repository, text};

/// How often something is done until it is given up because no answer comes.
const TRIES: u32 = 3;
/// Pages of a hundred comments in which one is looked for.
const PAGES: u32 = 20;
/// The most characters of a check's name.
const NAME: usize = 60;
/// Checks that failed, of which the names are told.
const NAMED: usize = 8;

/// A pull request that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where.
    pub repository: Repository,
    /// Its branch, there as well: `agent/login`.
    pub branch: String,
    /// The branch into which it is to go.
    pub base: String,
    /// Its title.
    pub title: String,
    /// Its text.
    pub body: String,
    /// The act's name.
    pub act: String,
}

/// A pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// Its number.
    pub number: u64,
    /// Its page.
    pub url: String,
    /// Its branch.
    pub branch: String,
    /// The branch's head, as the pull request has it.
    pub head: String,
    /// Whether its branch is in another repository.
    pub foreign: bool,
    /// Whether it is open.
    pub open: bool,
    /// Whether this act opened it; else it was there.
    pub opened: bool,
}

/// What GitHub's checks say of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// How many have passed, or had nothing to say.
    pub passed: usize,
    /// How many are not at their end.
    pub running: usize,
    /// Names of those that failed, each with what they say in a few words.
    pub failed: Vec<String>,
}

impl GitHub {
    /// Returns the repository's default branch.
    pub async fn default_branch(&self, repository: &Repository) -> Result<String, GitHubError> {
        let answer = self.read(repository, "").await?;
        answer["default_branch"].as_str().map(str::to_owned).ok_or(GitHubError::Strange)
    }

    /// Tells whether the key shows a repository.
    pub async fn shows(&self, repository: &Repository) -> bool {
        self.read(repository, "").await.is_ok()
    }

    /// Returns the commit at which a branch stands; `None` if there is no such branch.
    pub async fn head(&self, repository: &Repository, branch: &str) -> Result<Option<String>, GitHubError> {
        match self.read(repository, &format!("/git/ref/heads/{}", encoded(branch))).await {
            Ok(answer) => answer["object"]["sha"].as_str().map(str::to_owned).map(Some).ok_or(GitHubError::Strange),
            Err(GitHubError::Gone(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns what the commit `head` has that the branch `base` does not.
    pub async fn diff(&self, repository: &Repository, base: &str, head: &str) -> Result<Diff, GitHubError> {
        let answer = self.read(repository, &format!("/compare/{}...{}", encoded(base), encoded(head))).await?;
        Diff::read(&answer).ok_or(GitHubError::Strange)
    }

    /// Returns the pull request with this number.
    pub async fn pull(&self, repository: &Repository, number: u64) -> Result<Pull, GitHubError> {
        let answer = self.read(repository, &format!("/pulls/{number}")).await;
        pull(&answer.map_err(|error| numbered(error, repository, number))?, false).ok_or(GitHubError::Strange)
    }

    /// Opens a pull request, unless its branch has an open one: then returns that.
    ///
    /// # Errors
    ///
    /// [`GitHubError::Closed`] if the act was done before and its pull request was closed since.
    pub async fn open_pull(&self, wanted: &Wanted) -> Result<Pull, GitHubError> {
        let Wanted { repository, branch, base, title, body, act } = wanted;
        let mark = mark(act);
        let asked = json!({ "title": title, "head": branch, "base": base, "body": format!("{body}\n\n{mark}") });
        let mut last = GitHubError::Strange;
        for tried in 0..TRIES {
            if tried > 0 {
                sleep(self.inner.settle).await;
            }
            let found = self.pull_of(repository, branch, &mark).await?;
            crash::point("github-pull-looked");
            match found {
                Some(found) if found.open => return Ok(found),
                Some(closed) => return Err(GitHubError::Closed(closed.number)),
                None => {}
            }
            let answer = self.write(repository, "/pulls", &asked).await;
            crash::point("github-pull-sent");
            match answer {
                Ok(answer) => return pull(&answer, true).ok_or(GitHubError::Strange),
                // The one that is there is found the next time.
                Err(error @ GitHubError::Lost(_)) => last = error,
                Err(GitHubError::Refused(why)) if why.contains("already exists") => last = GitHubError::Refused(why),
                Err(error) => return Err(error),
            }
        }
        // Its last answer may be the one that did not come.
        match self.pull_of(repository, branch, &mark).await? {
            Some(found) if found.open => Ok(found),
            _ => Err(last),
        }
    }

    /// Returns the open pull request of a branch, else a closed one that has the mark.
    async fn pull_of(&self, repository: &Repository, branch: &str, mark: &str) -> Result<Option<Pull>, GitHubError> {
        let head = format!("{}:{branch}", repository.owner());
        let path = format!("/pulls?head={}&state=all&sort=created&direction=desc&per_page=100", encoded(&head));
        let answer = self.read(repository, &path).await?;
        let pulls = answer.as_array().ok_or(GitHubError::Strange)?;
        let open = |pull: &&Value| pull["state"] == "open";
        let ours = |pull: &&Value| pull["body"].as_str().is_some_and(|body| body.contains(mark));
        let Some(found) = pulls.iter().find(open).or_else(|| pulls.iter().find(ours)) else { return Ok(None) };
        // The answer of an act that did not hear it.
        pull(found, ours(&found)).map(Some).ok_or(GitHubError::Strange)
    }

    /// Comments on a pull request or an issue, unless the act was done before; returns the comment's page.
    pub async fn comment(
        &self,
        repository: &Repository,
        number: u64,
        body: &str,
        act: &str,
    ) -> Result<String, GitHubError> {
        let comments = format!("/issues/{number}/comments");
        self.say(repository, number, &comments, &comments, body, act).await
    }

    /// Answers a thread of a pull request's comments, which is named by its first comment, unless the act was done before; returns
    /// the answer's page.
    pub async fn reply(
        &self,
        repository: &Repository,
        number: u64,
        thread: u64,
        body: &str,
        act: &str,
    ) -> Result<String, GitHubError> {
        let comments = format!("/pulls/{number}/comments");
        self.say(repository, number, &comments, &format!("{comments}/{thread}/replies"), body, act).await
    }

    /// Says something at `path`, unless it is already found in `list`.
    async fn say(
        &self,
        repository: &Repository,
        number: u64,
        list: &str,
        path: &str,
        body: &str,
        act: &str,
    ) -> Result<String, GitHubError> {
        let mark = mark(act);
        let asked = json!({ "body": format!("{body}\n\n{mark}") });
        let mut last = GitHubError::Strange;
        for tried in 0..=TRIES {
            if tried > 0 {
                sleep(self.inner.settle).await;
            }
            let found = self.comment_with(repository, number, list, &mark).await?;
            crash::point("github-comment-looked");
            if let Some(url) = found {
                return Ok(url);
            }
            if tried == TRIES {
                break;
            }
            let answer = self.write(repository, path, &asked).await;
            crash::point("github-comment-sent");
            match answer {
                Ok(answer) => return page(&answer).ok_or(GitHubError::Strange),
                Err(error @ GitHubError::Lost(_)) => last = error,
                Err(error) => return Err(numbered(error, repository, number)),
            }
        }
        Err(last)
    }

    /// Returns the page of the comment that has the mark.
    async fn comment_with(
        &self,
        repository: &Repository,
        number: u64,
        list: &str,
        mark: &str,
    ) -> Result<Option<String>, GitHubError> {
        for nth in 1..=PAGES {
            let path = format!("{list}?per_page=100&page={nth}");
            let answer = self.read(repository, &path).await.map_err(|error| numbered(error, repository, number))?;
            let comments = answer.as_array().ok_or(GitHubError::Strange)?;
            let ours = |comment: &&Value| comment["body"].as_str().is_some_and(|body| body.contains(mark));
            if let Some(found) = comments.iter().find(ours) {
                return page(found).map(Some).ok_or(GitHubError::Strange);
            }
            if comments.len() < 100 {
                return Ok(None);
            }
        }
        Err(GitHubError::Refused(format!("#{number} has more comments than are looked through.")))
    }

    /// Returns what the checks say of a commit: those of apps and actions, and the older statuses.
    pub async fn checks(&self, repository: &Repository, commit: &str) -> Result<Checks, GitHubError> {
        let commit = encoded(commit);
        let runs = self.read(repository, &format!("/commits/{commit}/check-runs?per_page=100")).await?;
        let statuses = self.read(repository, &format!("/commits/{commit}/status?per_page=100")).await?;
        let mut checks = Checks::default();
        for run in runs["check_runs"].as_array().into_iter().flatten() {
            let state = run["conclusion"].as_str().filter(|_| run["status"] == "completed");
            checks.count(&run["name"], state, &run["output"]["title"]);
        }
        for status in statuses["statuses"].as_array().into_iter().flatten() {
            let state = status["state"].as_str().filter(|state| *state != "pending");
            checks.count(&status["context"], state, &status["description"]);
        }
        Ok(checks)
    }

    /// Returns whether this server, or another one like it, wrote a text: it has the mark of an act.
    pub fn wrote(text: &str) -> bool {
        text.contains(MARK)
    }

    pub(super) async fn read(&self, repository: &Repository, path: &str) -> Result<Value, GitHubError> {
        self.ask(repository, Method::GET, &format!("/repos/{repository}{path}"), None).await
    }

    async fn write(&self, repository: &Repository, path: &str, body: &Value) -> Result<Value, GitHubError> {
        self.ask(repository, Method::POST, &format!("/repos/{repository}{path}"), Some(body)).await
    }

    pub(super) async fn query(&self, repository: &Repository, body: &Value) -> Result<Value, GitHubError> {
        self.ask(repository, Method::POST, GRAPHQL, Some(body)).await
    }

    async fn ask(
        &self,
        repository: &Repository,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, GitHubError> {
        let token = self.token(repository).await?;
        let answer = self.inner.api.ask(&token, method, path, body).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            self.token_refused(repository);
        }
        answer.good(repository, self.inner.clock.millis())
    }
}

impl Checks {
    /// Counts one; `state` is `None` while it runs.
    fn count(&mut self, name: &Value, state: Option<&str>, says: &Value) {
        match state {
            None => self.running += 1,
            Some("success" | "neutral" | "skipped") => self.passed += 1,
            Some(state) => {
                let says = says.as_str().filter(|says| !says.is_empty()).unwrap_or(state);
                let name = name.as_str().unwrap_or("?");
                self.failed.push(format!("{} ({})", text::one_line(name, NAME), text::one_line(says, NAME)));
            }
        }
    }
}

impl fmt::Display for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, running, failed } = self;
        let mut parts = Vec::new();
        if !failed.is_empty() {
            let mut names = failed.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            if failed.len() > NAMED {
                names.push_str(" …");
            }
            parts.push(format!("{} failed: {names}", failed.len()));
        }
        if *running > 0 {
            parts.push(format!("{running} running"));
        }
        if *passed > 0 {
            parts.push(format!("{passed} passed"));
        }
        if parts.is_empty() { f.write_str("none yet") } else { f.write_str(&parts.join("; ")) }
    }
}

/// Begins each mark.
const MARK: &str = "<!-- matrix-agent ";

/// The mark by which an act is found again. It tells a stranger nothing.
fn mark(act: &str) -> String {
    format!("{MARK}{} -->", digest(&["act", act], 12))
}

fn pull(answer: &Value, opened: bool) -> Option<Pull> {
    Some(Pull {
        number: answer["number"].as_u64()?,
        url: page(answer)?,
        branch: answer["head"]["ref"].as_str()?.to_owned(),
        head: answer["head"]["sha"].as_str()?.to_owned(),
        foreign: answer["head"]["repo"]["full_name"] != answer["base"]["repo"]["full_name"],
        open: answer["state"] == "open",
        opened,
    })
}

/// The page of a pull request or comment, if it is one that may be shown.
fn page(answer: &Value) -> Option<String> {
    let url = answer["html_url"].as_str()?;
    (url.starts_with("https://") && url.len() <= 300 && url.bytes().all(|byte| byte.is_ascii_graphic()))
        .then(|| url.to_owned())
}

/// What is not there has a number.
fn numbered(error: GitHubError, repository: &Repository, number: u64) -> GitHubError {
    match error {
        GitHubError::Gone(_) => GitHubError::NoNumber(repository.clone(), number),
        error => error,
    }
}

/// Encodes a name for a path or a query; slashes and colons may stand in both.
pub(super) fn encoded(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            text.push(byte as char);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_summed_up_with_the_failures_first() {
        assert_eq!(Checks::default().to_string(), "none yet");
        let mut checks = Checks::default();
        checks.count(&json!("build"), Some("success"), &Value::Null);
        checks.count(&json!("docs"), None, &Value::Null);
        checks.count(&json!("lint\n"), Some("failure"), &json!("2 warnings"));
        checks.count(&json!("e2e"), Some("timed_out"), &json!(""));
        assert_eq!(checks.to_string(), "2 failed: lint (2 warnings), e2e (timed_out); 1 running; 1 passed");
    }

    #[test]
    fn names_are_encoded_and_pages_are_addresses() {
        assert_eq!(encoded("agent/ä b?#"), "agent/%C3%A4%20b%3F%23");
        assert_eq!(page(&json!({"html_url": "javascript:alert(1)"})), None);
        assert_eq!(page(&json!({"html_url": "https://a b"})), None);
        assert!(page(&json!({"html_url": "https://github.com/acme/site/pull/1"})).is_some());
    }
}
