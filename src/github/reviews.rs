//! What reviewers say of a pull request, and who has approved it.

use serde_json::{Value, json};

use super::{GitHub, error::GitHubError};
use crate::{rights::Repository, text};

/// What is asked of a pull request: only GraphQL tells which threads are resolved.
const QUERY: &str = "query($owner:String!,$name:String!,$number:Int!){repository(owner:$owner,name:$name){pullRequest(number:$number){\
    author{login} body reviews(last:50){nodes{author{login} authorAssociation state body}} \
    reviewThreads(last:100){nodes{isResolved isOutdated path line comments(first:20){nodes{databaseId author{login} body}}}}}}}";
/// Who has a say in a repository, as GitHub names it.
const HAVE_A_SAY: [&str; 3] = ["OWNER", "MEMBER", "COLLABORATOR"];
/// The most bytes of one comment.
const COMMENT: usize = 2000;
/// The most characters of a name or a place.
const NAME: usize = 100;

/// What reviewers say of a pull request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reviews {
    /// Who opened it, by their login.
    pub author: String,
    /// Its text.
    pub body: String,
    /// The reviews, in their order.
    pub reviews: Vec<Review>,
    /// The threads of comments that are not resolved.
    pub threads: Vec<Thread>,
}

/// A review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// Whose, by their login.
    pub by: String,
    /// Whether they have a say in the repository.
    pub has_a_say: bool,
    /// What it comes to.
    pub verdict: Verdict,
    /// Its text; may be empty.
    pub says: String,
}

/// What a review comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It approves.
    Approved,
    /// It wants something else.
    ChangesRequested,
    /// It only says something.
    Commented,
    /// It was taken back.
    Dismissed,
}

/// Comments on one place of a pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// The number of its first comment, by which it is answered.
    pub id: u64,
    /// The file and the line: `src/login.rs:12`.
    pub place: String,
    /// Whether the place has changed since.
    pub outdated: bool,
    /// Who said what.
    pub said: Vec<(String, String)>,
}

impl GitHub {
    /// Returns what reviewers say of a pull request.
    pub async fn reviews(&self, repository: &Repository, number: u64) -> Result<Reviews, GitHubError> {
        let variables = json!({"owner": repository.owner(), "name": repository.name(), "number": number});
        let answer = self.query(repository, &json!({"query": QUERY, "variables": variables})).await?;
        let pull = &answer["data"]["repository"]["pullRequest"];
        if pull.is_null() {
            return Err(GitHubError::NoNumber(repository.clone(), number));
        }
        Reviews::read(pull).ok_or(GitHubError::Strange)
    }
}

impl Reviews {
    fn read(pull: &Value) -> Option<Self> {
        let reviews = pull["reviews"]["nodes"].as_array()?.iter().filter_map(|review| {
            Some(Review {
                by: login(&review["author"]),
                has_a_say: HAVE_A_SAY.iter().any(|name| review["authorAssociation"] == *name),
                verdict: match review["state"].as_str()? {
                    "APPROVED" => Verdict::Approved,
                    "CHANGES_REQUESTED" => Verdict::ChangesRequested,
                    "DISMISSED" => Verdict::Dismissed,
                    "COMMENTED" => Verdict::Commented,
                    _ => return None,
                },
                says: comment(&review["body"]),
            })
        });
        let unresolved =
            pull["reviewThreads"]["nodes"].as_array()?.iter().filter(|thread| thread["isResolved"] != true);
        let threads = unresolved.filter_map(|thread| {
            let comments = thread["comments"]["nodes"].as_array()?;
            let path = thread["path"].as_str().unwrap_or("?");
            let line = thread["line"].as_u64().map(|line| format!(":{line}")).unwrap_or_default();
            Some(Thread {
                id: comments.first()?["databaseId"].as_u64()?,
                place: text::one_line(&format!("{path}{line}"), NAME),
                outdated: thread["isOutdated"] == true,
                said: comments.iter().map(|said| (login(&said["author"]), comment(&said["body"]))).collect(),
            })
        });
        Some(Self {
            author: login(&pull["author"]),
            body: pull["body"].as_str().unwrap_or_default().to_owned(),
            reviews: reviews.collect(),
            threads: threads.collect(),
        })
    }

    /// Returns who wants changes, who approves, and whose approval does not count: of whoever opened the pull request or `asked` for
    /// it (by their logins), and of who has no say in the repository.
    pub fn state(&self, asked: &[String]) -> String {
        let mut last: Vec<&Review> = Vec::new();
        for review in self.reviews.iter().filter(|review| review.verdict != Verdict::Commented) {
            last.retain(|before| before.by != review.by);
            last.push(review);
        }
        let asks = |by: &str| self.author == by || asked.iter().any(|asked| asked.eq_ignore_ascii_case(by));
        let (mut changes, mut approved, mut not_counted) = (vec![], vec![], vec![]);
        for Review { by, has_a_say, verdict, .. } in last {
            match verdict {
                Verdict::ChangesRequested => changes.push(by.clone()),
                Verdict::Approved if asks(by) => not_counted.push(format!("{by} (asked for it)")),
                Verdict::Approved if !has_a_say => not_counted.push(format!("{by} (has no say in the repository)")),
                Verdict::Approved => approved.push(by.clone()),
                Verdict::Commented | Verdict::Dismissed => {}
            }
        }
        let parts = [
            ("changes requested by", changes),
            ("approved by", approved),
            ("does not count the approval of", not_counted),
        ];
        let parts = parts.iter().filter(|(_, who)| !who.is_empty());
        let told = parts.map(|(what, who)| format!("{what} {}", who.join(", "))).collect::<Vec<_>>().join("; ");
        if told.is_empty() { "nobody has approved".to_owned() } else { told }
    }
}

/// Who it is; whoever is gone has no name.
fn login(author: &Value) -> String {
    text::one_line(author["login"].as_str().unwrap_or("ghost"), NAME)
}

fn comment(body: &Value) -> String {
    text::cut_middle(text::strip(body.as_str().unwrap_or_default()).trim(), COMMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_are_resolved_are_left_out_and_those_who_asked_approve_nothing() {
        let review = |by: &str, role: &str, state: &str| json!({"author": {"login": by}, "authorAssociation": role, "state": state, "body": ""});
        let thread = |resolved: bool, id: u64| {
            json!({
                "isResolved": resolved, "isOutdated": false, "path": "src/a.rs", "line": 7,
                "comments": {"nodes": [{"databaseId": id, "author": {"login": "rev"}, "body": "Why\u{1b}[31m?"}, {"databaseId": 9, "author": null, "body": "x"}]},
            })
        };
        let pull = json!({
            "author": {"login": "bot"},
            "body": "b",
            "reviews": {"nodes": [
                review("rev", "MEMBER", "APPROVED"),
                review("rev", "MEMBER", "CHANGES_REQUESTED"),
                review("rev", "MEMBER", "COMMENTED"),
                review("lee", "COLLABORATOR", "APPROVED"),
                review("Ann", "OWNER", "APPROVED"),
                review("eve", "NONE", "APPROVED"),
                review("bot", "MEMBER", "APPROVED"),
                review("tom", "MEMBER", "APPROVED"),
                review("tom", "MEMBER", "DISMISSED"),
            ]},
            "reviewThreads": {"nodes": [thread(true, 1), thread(false, 2)]},
        });
        let reviews = Reviews::read(&pull).unwrap();
        assert_eq!(reviews.threads.len(), 1);
        assert_eq!((reviews.threads[0].id, reviews.threads[0].place.as_str()), (2, "src/a.rs:7"));
        assert_eq!(
            reviews.threads[0].said,
            [("rev".to_owned(), "Why?".to_owned()), ("ghost".to_owned(), "x".to_owned())]
        );
        assert_eq!(
            reviews.state(&["ann".to_owned()]),
            "changes requested by rev; approved by lee; does not count the approval of Ann (asked for it), eve (has no say in the \
             repository), bot (asked for it)"
        );
        assert_eq!(Reviews::default().state(&[]), "nobody has approved");
        assert_eq!(Reviews::read(&json!({})), None);
    }
}
