//! What GitHub's events say, as far as anything is done about them. Pure; the bytes are signed, their texts are anybody's.

use serde::{Deserialize, Serialize};

use crate::{rights::Repository, text};

/// The most characters of a title, of a text, and of a name.
const TITLE: usize = 200;
const LONGEST: usize = 40_000;
const NAME: usize = 60;

/// Something that happened at GitHub. It is stored as JSON, so variants and fields may be added, never renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// An open issue got the label that makes it a task.
    Labeled {
        /// `owner/name`.
        repository: String,
        /// The issue's number.
        issue: u64,
        /// Its title.
        title: String,
        /// What it says, as of now.
        text: String,
        /// Who wrote it.
        author: Person,
        /// Who gave the label.
        by: Person,
    },
    /// Somebody commented on an issue.
    Commented {
        /// `owner/name`.
        repository: String,
        /// The issue's number.
        issue: u64,
        /// The comment's id.
        comment: u64,
        /// What it says.
        text: String,
        /// Who wrote it.
        author: Person,
    },
    /// A check of a commit failed.
    Failed {
        /// `owner/name`.
        repository: String,
        /// The branch whose commit it is.
        branch: String,
        /// The commit's whole id.
        commit: String,
        /// The check's name.
        check: String,
    },
    /// Somebody ended a review of a pull request.
    Reviewed {
        /// `owner/name`.
        repository: String,
        /// The pull request's number.
        pull: u64,
        /// The review's id.
        review: u64,
        /// What it says as a whole; its comments GitHub is asked for.
        text: String,
        /// Who wrote it.
        author: Person,
    },
}

/// Somebody at GitHub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Their name there.
    pub login: String,
    /// Whether GitHub calls them an owner, a member or a collaborator of what this is about.
    pub belongs: bool,
}

/// What came is no event of GitHub's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no event as GitHub sends it")]
pub struct BadEvent;

/// Reads the body of an event by its kind, the header `X-GitHub-Event`. `label` makes an issue a task. Returns `None` for what
/// nothing is done about, as for what programs do there.
///
/// # Errors
///
/// It is no JSON, or lacks what such an event has.
pub fn read(kind: &str, body: &[u8], label: &str) -> Result<Option<Event>, BadEvent> {
    match kind {
        "issues" => {
            let Labels { action, issue, label: given, repository, sender } = json(body)?;
            let given = given.is_some_and(|given| given.name == label);
            if action != "labeled" || !given || issue.state != "open" || !sender.is_person() {
                return Ok(None);
            }
            Ok(Some(Event::Labeled {
                repository: repository.name()?,
                issue: issue.number,
                title: text::one_line(&issue.title, TITLE),
                text: cleaned(issue.body.as_deref()),
                author: issue.user.with(&issue.author_association)?,
                by: sender.with("")?,
            }))
        }
        "issue_comment" => {
            let Comments { action, issue, comment, repository } = json(body)?;
            if action != "created" || !comment.user.is_person() {
                return Ok(None);
            }
            Ok(Some(Event::Commented {
                repository: repository.name()?,
                issue: issue.number,
                comment: comment.id,
                text: cleaned(comment.body.as_deref()),
                author: comment.user.with(&comment.author_association)?,
            }))
        }
        "check_run" => {
            let Runs { action, check_run: Check { name, head_sha, conclusion, suite, .. }, repository } = json(body)?;
            let branch = suite.and_then(|suite| suite.head_branch);
            failed(&action, conclusion.as_deref(), &repository, branch, &head_sha, name.as_deref().unwrap_or("?"))
        }
        "check_suite" => {
            let Suites { action, check_suite: Check { head_sha, conclusion, head_branch, app, .. }, repository } =
                json(body)?;
            let name = app.map_or_else(|| "?".to_owned(), |app| app.name);
            failed(&action, conclusion.as_deref(), &repository, head_branch, &head_sha, &name)
        }
        "status" => {
            let Status { sha, state, context, branches, repository } = json(body)?;
            let state = if state == "error" { "failure" } else { &state };
            let branch = branches.into_iter().map(|branch| branch.name).find(|name| is_agents(name));
            failed("completed", Some(state), &repository, branch, &sha, &context)
        }
        "pull_request_review" => {
            let Reviews { action, review, pull_request, repository } = json(body)?;
            if action != "submitted" || !review.user.is_person() {
                return Ok(None);
            }
            Ok(Some(Event::Reviewed {
                repository: repository.name()?,
                pull: pull_request.number,
                review: review.id,
                text: cleaned(review.body.as_deref()),
                author: review.user.with(&review.author_association)?,
            }))
        }
        _ => Ok(None),
    }
}

impl Event {
    /// Returns `owner/name`.
    pub fn repository(&self) -> &str {
        match self {
            Self::Labeled { repository, .. }
            | Self::Commented { repository, .. }
            | Self::Failed { repository, .. }
            | Self::Reviewed { repository, .. } => repository,
        }
    }
}

fn failed(
    action: &str,
    conclusion: Option<&str>,
    repository: &Named,
    branch: Option<String>,
    commit: &str,
    check: &str,
) -> Result<Option<Event>, BadEvent> {
    let is_failure = matches!(conclusion, Some("failure" | "timed_out" | "startup_failure"));
    let Some(branch) = branch.filter(|branch| action == "completed" && is_failure && is_agents(branch)) else {
        return Ok(None);
    };
    let is_id = matches!(commit.len(), 40 | 64) && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (repository, commit) = (repository.name()?, is_id.then(|| commit.to_owned()).ok_or(BadEvent)?);
    Ok(Some(Event::Failed { repository, branch, commit, check: text::one_line(check, NAME) }))
}

/// Returns whether a branch may be one of ours.
fn is_agents(branch: &str) -> bool {
    branch.starts_with("agent/") && branch.len() <= 255 && !branch.contains(char::is_control)
}

fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, BadEvent> {
    serde_json::from_slice(body).map_err(|_| BadEvent)
}

/// Returns a text without control characters, bounded.
fn cleaned(said: Option<&str>) -> String {
    let said = said.unwrap_or_default().replace("\r\n", "\n");
    let mut clean: String =
        said.chars().filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t')).take(LONGEST).collect();
    if clean.len() < said.len() && clean.chars().count() == LONGEST {
        clean.push_str("\n[…]");
    }
    clean.trim().to_owned()
}

#[derive(Deserialize)]
struct Labels {
    action: String,
    issue: Issue,
    label: Option<Label>,
    repository: Named,
    sender: User,
}

#[derive(Deserialize)]
struct Issue {
    number: u64,
    #[serde(default)]
    title: String,
    body: Option<String>,
    #[serde(default)]
    state: String,
    user: User,
    #[serde(default)]
    author_association: String,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

#[derive(Deserialize)]
struct Comments {
    action: String,
    issue: Number,
    comment: Said,
    repository: Named,
}

#[derive(Deserialize)]
struct Number {
    number: u64,
}

#[derive(Deserialize)]
struct Said {
    id: u64,
    body: Option<String>,
    user: User,
    #[serde(default)]
    author_association: String,
}

#[derive(Deserialize)]
struct Runs {
    action: String,
    check_run: Check,
    repository: Named,
}

#[derive(Deserialize)]
struct Suites {
    action: String,
    check_suite: Check,
    repository: Named,
}

#[derive(Deserialize)]
struct Check {
    name: Option<String>,
    head_sha: String,
    conclusion: Option<String>,
    head_branch: Option<String>,
    #[serde(rename = "check_suite")]
    suite: Option<Suite>,
    app: Option<Label>,
}

#[derive(Deserialize)]
struct Suite {
    head_branch: Option<String>,
}

#[derive(Deserialize)]
struct Status {
    sha: String,
    state: String,
    #[serde(default)]
    context: String,
    #[serde(default)]
    branches: Vec<Label>,
    repository: Named,
}

#[derive(Deserialize)]
struct Reviews {
    action: String,
    review: Said,
    pull_request: Number,
    repository: Named,
}

#[derive(Deserialize)]
struct Named {
    full_name: String,
}

impl Named {
    fn name(&self) -> Result<String, BadEvent> {
        Ok(Repository::parse(&self.full_name).ok_or(BadEvent)?.to_string())
    }
}

#[derive(Deserialize)]
struct User {
    login: String,
    #[serde(default, rename = "type")]
    kind: String,
}

impl User {
    /// Returns whether it is no program, such as our own GitHub App.
    fn is_person(&self) -> bool {
        self.kind == "User"
    }

    fn with(&self, association: &str) -> Result<Person, BadEvent> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'[' | b']');
        if !(1..=NAME).contains(&self.login.len()) || !self.login.bytes().all(plain) {
            return Err(BadEvent);
        }
        let belongs = matches!(association, "OWNER" | "MEMBER" | "COLLABORATOR");
        Ok(Person { login: self.login.clone(), belongs })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn of(kind: &str, body: &Value) -> Result<Option<Event>, BadEvent> {
        read(kind, body.to_string().as_bytes(), "agent-task")
    }

    fn labeled() -> Value {
        json!({
            "action": "labeled",
            "label": {"name": "agent-task"},
            "issue": {
                "number": 12, "title": "Fix\u{7} the login", "body": "It\r\nfails.\u{0}", "state": "open",
                "user": {"login": "ann", "type": "User"}, "author_association": "MEMBER",
            },
            "repository": {"full_name": "Acme/Site"},
            "sender": {"login": "ben", "type": "User"},
        })
    }

    #[test]
    fn a_label_makes_a_task_of_what_the_issue_says_now() {
        let Ok(Some(Event::Labeled { repository, issue, title, text, author, by })) = of("issues", &labeled()) else {
            panic!("it is one")
        };
        assert_eq!((repository.as_str(), issue, title.as_str()), ("acme/site", 12, "Fix the login"));
        assert_eq!((text.as_str(), author.login.as_str(), author.belongs), ("It\nfails.", "ann", true));
        assert_eq!(by.login, "ben");
        for (pointer, value) in [
            ("/action", json!("unlabeled")),
            ("/label/name", json!("bug")),
            ("/issue/state", json!("closed")),
            ("/sender/type", json!("Bot")),
        ] {
            let mut other = labeled();
            *other.pointer_mut(pointer).unwrap() = value;
            assert_eq!(of("issues", &other), Ok(None), "{pointer}");
        }
        for (pointer, value) in [
            ("/repository/full_name", json!("../x")),
            ("/issue/number", json!("12")),
            ("/sender/login", json!("a b")),
            ("/issue", Value::Null),
        ] {
            let mut other = labeled();
            *other.pointer_mut(pointer).unwrap() = value;
            assert_eq!(of("issues", &other), Err(BadEvent), "{pointer}");
        }
        let mut long = labeled();
        long["issue"]["body"] = "x".repeat(100_000).into();
        let Ok(Some(Event::Labeled { text, .. })) = of("issues", &long) else { panic!("it is one") };
        assert!(text.len() < LONGEST + 20 && text.ends_with("[…]"));
    }

    #[test]
    fn a_check_counts_when_it_has_failed_on_a_branch_of_ours() {
        let commit = "a".repeat(40);
        let run = |conclusion: &str, branch: &str| {
            json!({
                "action": "completed",
                "check_run": {
                    "name": "test", "head_sha": commit, "conclusion": conclusion, "check_suite": {"head_branch": branch},
                },
                "repository": {"full_name": "acme/site"},
            })
        };
        let failed = Some(Event::Failed {
            repository: "acme/site".into(),
            branch: "agent/gh-12".into(),
            commit: commit.clone(),
            check: "test".into(),
        });
        assert_eq!(of("check_run", &run("failure", "agent/gh-12")), Ok(failed.clone()));
        assert_eq!(of("check_run", &run("success", "agent/gh-12")), Ok(None));
        assert_eq!(of("check_run", &run("failure", "main")), Ok(None));
        let status = json!({
            "sha": commit, "state": "error", "context": "test", "branches": [{"name": "main"}, {"name": "agent/gh-12"}],
            "repository": {"full_name": "acme/site"},
        });
        assert_eq!(of("status", &status), Ok(failed.clone()));
        let suite = json!({
            "action": "completed",
            "check_suite": {"head_sha": commit, "conclusion": "failure", "head_branch": "agent/gh-12", "app": {"name": "test"}},
            "repository": {"full_name": "acme/site"},
        });
        assert_eq!(of("check_suite", &suite), Ok(failed));
        assert_eq!(of("ping", &json!({"zen": "x"})), Ok(None));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(kind in "issues|issue_comment|check_run|status", body in any::<Vec<u8>>()) {
            let _ = read(&kind, &body, "x");
        }
    }
}
