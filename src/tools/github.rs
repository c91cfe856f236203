//! `github`: what was committed in the sandbox becomes a pull request; comments, what the checks say, and rounds with reviewers.
//!
//! Branch, commit and push happen in the sandbox by git, and the gateway looks through what leaves; the rest is asked of GitHub from
//! here. What is to be done is stored with the call before it begins, so that a server that comes back ends it: the push is
//! compared with the branch that GitHub has, the rest is found again by [`crate::github`].

mod look;
mod push;
mod rounds;

use std::{future::Future, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::look::Worktree;
use super::{Access, Tool, ToolContext, ToolLimits, ToolResult, error::ToolError};
use crate::{
    crash,
    github::{GitHubError, Pull, Wanted, secrets},
    ids::{EventId, digest, login},
    rights::{Act, Answerer, Question, Refusal, Repository, Task},
    store::StoredPull,
    strings, text,
};

/// The most bytes of a text, and the most characters of a title.
const LONGEST: usize = 30_000;
const TITLE: usize = 200;
/// The most characters of a branch's name that are made of a title.
const SLUG: usize = 40;
/// How long somebody has to say yes or no.
const ANSWER: Duration = Duration::from_mins(30);
/// Refused hosts that are named.
const HOSTS: usize = 12;

pub(super) struct GitHub;

/// For the model.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    action: String,
    title: Option<String>,
    body: Option<String>,
    number: Option<u64>,
    path: Option<String>,
}

/// What a call is about to do, stored before it begins.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Intent {
    /// `owner/name`.
    github: String,
    /// The pull request's branch, and the commit that is pushed to it; empty for a comment.
    branch: String,
    head: String,
    /// The branch into which it is to go.
    base: String,
    /// The clone's folder.
    root: String,
    /// Files that are changed there and not committed.
    dirty: usize,
    /// What the push changes, in lines; empty for a comment.
    #[serde(default)]
    diff: String,
}

impl Tool for GitHub {
    const NAME: &'static str = "github";
    const ACCESS: Access = Access::Exclusive;
    const EXAMPLE: &'static str =
        r#"{"action":"pull_request","title":"Fix the login","body":"What and why","path":"/workspace/site"}"#;
    type Arguments = Arguments;

    fn description(_limits: &ToolLimits, _vision: bool) -> String {
        "action pull_request (title, body): push your commits to agent/… and open or update it; comment (number, body); \
         checks (number); reviews (number); answer (number, body of lines `thread N: …`): push, then reply."
            .to_owned()
    }

    fn label(arguments: &Arguments) -> String {
        let number = arguments.number.map(|number| format!(" #{number}")).unwrap_or_default();
        match &arguments.title {
            Some(title) => format!("pull request: {}", text::one_line(title, 70)),
            None => format!("github {}{number}", text::one_line(&arguments.action, 20)),
        }
    }

    async fn run(context: &ToolContext, arguments: Arguments) -> Result<ToolResult, ToolError> {
        work(context, &arguments, None).await
    }

    async fn resume(context: &ToolContext, arguments: Arguments, boot_id: &str) -> Result<ToolResult, ToolError> {
        work(context, &arguments, Some(boot_id)).await
    }
}

/// Does it, or goes on with it under the sandbox's `boot_id` of before.
async fn work(context: &ToolContext, arguments: &Arguments, boot_id: Option<&str>) -> Result<ToolResult, ToolError> {
    if !context.github.has_key() {
        return Err(GitHubError::NoKey.into());
    }
    let stored = match boot_id {
        None => None,
        Some(_) => stored(context).await?,
    };
    match arguments.action.trim() {
        "pull_request" => open(context, arguments, stored.zip(boot_id)).await,
        "comment" => comment(context, arguments, stored).await,
        "checks" => checks(context, arguments).await,
        "reviews" => rounds::read(context, arguments).await,
        "answer" => rounds::answer(context, arguments, stored.zip(boot_id)).await,
        other => Err(ToolError::Refused(format!(
            "action `{}` is not known: it is pull_request, comment, checks, reviews or answer. Nothing was sent.",
            text::one_line(other, 40)
        ))),
    }
}

async fn stored(context: &ToolContext) -> Result<Option<Intent>, ToolError> {
    let state = context.store.call_state(&context.call).await.map_err(|error| unstored(context, &error))?;
    // Nothing else is stored with such a call.
    Ok(state.and_then(|state| serde_json::from_value(state).ok()))
}

/// Stores what is about to be done.
async fn intend(context: &ToolContext, intent: &Intent) -> Result<(), ToolError> {
    let state = serde_json::to_value(intent).unwrap_or_default();
    context.store.keep_call_state(&context.call, state).await.map_err(|error| unstored(context, &error))?;
    crash::point("github-intended");
    Ok(())
}

fn unstored(context: &ToolContext, error: &crate::store::StoreError) -> ToolError {
    tracing::error!(room = %context.address, %error, "a call's state");
    ToolError::Refused("The server's database does not work now, so nothing was sent. Try again later.".to_owned())
}

/// Pushes and opens a pull request.
async fn open(
    context: &ToolContext,
    arguments: &Arguments,
    before: Option<(Intent, &str)>,
) -> Result<ToolResult, ToolError> {
    let title = text::one_line(arguments.title.as_deref().unwrap_or_default(), TITLE);
    let body = arguments.body.as_deref().unwrap_or_default().trim();
    if title.is_empty() || body.is_empty() {
        return Err(ToolError::Refused(
            "A pull request needs title and body: what was changed, why, and how it was checked. Nothing was sent."
                .to_owned(),
        ));
    }
    may_leave(&[&title, body])?;
    let github = &context.github;
    let (intent, boot_id) = match before {
        Some((intent, boot_id)) => (intent, Some(boot_id)),
        None => (prepare(context, arguments, &title).await?, None),
    };
    let repository = Repository::parse(&intent.github).ok_or(GitHubError::Strange)?;
    let what = strings::github::to_propose(&intent.github, &intent.branch, &intent.head, &title);
    let details = strings::github::verbatim(&format!("{}\n\n{title}\n\n{body}", intent.diff));
    let for_task = task_of(context, &repository).is_some_and(|task| task.branch() == intent.branch);
    permitted(context, &repository, Act::PullRequest, what, details, for_task).await?;
    let permitted = github.permit_push(&context.address, &repository, &intent.branch, &intent.head);
    push::push(context, &repository, &intent, boot_id).await?;
    drop(permitted);
    let diff = asked(context, github.diff(&repository, &intent.base, &intent.head)).await?;
    if diff.commits == 0 {
        return Err(ToolError::Refused(format!(
            "There is nothing to propose: {} has no commit that {} does not have. Commit your changes first.",
            intent.branch, intent.base
        )));
    }
    let wanted = Wanted {
        repository: repository.clone(),
        branch: intent.branch.clone(),
        base: intent.base.clone(),
        title,
        body: with_facts(context, body),
        act: context.call.to_string(),
    };
    let pull = asked(context, github.open_pull(&wanted)).await?;
    crash::point("github-opened");
    remember(context, &repository, &intent.branch, &pull).await?;
    let checks = asked(context, github.checks(&repository, &intent.head)).await;
    let checks = checks.map_or_else(|error| format!("not known: {error}"), |checks| checks.to_string());
    let told = strings::github::pull(pull.number, &pull.url, pull.opened, &diff.sum(), &checks);
    let verb = if pull.opened { "opened" } else { "was open and has the new commits" };
    let dirty = match intent.dirty {
        0 => String::new(),
        files => format!("\n[{files} changed files in {} are not committed, so they are not in it.]", intent.root),
    };
    let number = pull.number;
    let result = ToolResult::good(
        format!("pull request #{number} {}", if pull.opened { "opened" } else { "updated" }),
        format!(
            "Pull request #{number} {verb}: {}\nBranch {} into {} of {repository}, at {}\n{}\nChecks: {checks}{dirty}\nGive the \
             link to the person.",
            pull.url,
            intent.branch,
            intent.base,
            intent.head,
            diff.lines()
        ),
    );
    Ok(ToolResult { told: Some(told), ..result })
}

/// Looks at the clone, and stores what is to be done with it.
async fn prepare(context: &ToolContext, arguments: &Arguments, title: &str) -> Result<Intent, ToolError> {
    let sandbox = context.sandbox().await?;
    let clone = look::look(context, &sandbox, arguments.path.as_deref(), &trailer(&context.person)).await?;
    let repository = granted(context, clone.repository()?)?;
    let base = asked(context, context.github.default_branch(&repository)).await?;
    let branch = match task_of(context, &repository) {
        Some(task) => task.branch(),
        None if clone.branch.starts_with("agent/") => clone.branch.clone(),
        None => branch(context, title),
    };
    let diff = strings::github::to_leave(clone.diff()?.commits, &clone.diff()?.lines());
    let Worktree { head, root, dirty, .. } = clone;
    let intent = Intent { github: repository.to_string(), branch, head, base, root, dirty, diff };
    intend(context, &intent).await?;
    Ok(intent)
}

/// Comments on an issue or a pull request.
async fn comment(
    context: &ToolContext,
    arguments: &Arguments,
    before: Option<Intent>,
) -> Result<ToolResult, ToolError> {
    let body = arguments.body.as_deref().unwrap_or_default().trim();
    let Some(number) = arguments.number.filter(|_| !body.is_empty()) else {
        return Err(ToolError::Refused("A comment needs number and body. Nothing was sent.".to_owned()));
    };
    may_leave(&[body])?;
    let repository = if let Some(intent) = before {
        Repository::parse(&intent.github).ok_or(GitHubError::Strange)?
    } else {
        let repository = repository_of(context, arguments).await?;
        let github = repository.to_string();
        intend(context, &Intent { github, ..Intent::default() }).await?;
        repository
    };
    let what = strings::github::to_comment(repository.as_str(), number);
    let for_task = task_of(context, &repository).is_some_and(|task| task.issue == number);
    permitted(context, &repository, Act::Comment, what, strings::github::verbatim(body), for_task).await?;
    let url = asked(context, context.github.comment(&repository, number, body, context.call.as_str())).await?;
    crash::point("github-commented");
    Ok(ToolResult::good(format!("commented on #{number}"), format!("The comment is at {url}")))
}

/// Tells what the checks say.
async fn checks(context: &ToolContext, arguments: &Arguments) -> Result<ToolResult, ToolError> {
    let Some(number) = arguments.number else {
        return Err(ToolError::Refused("checks needs the number of a pull request.".to_owned()));
    };
    let repository = repository_of(context, arguments).await?;
    let pull = asked(context, context.github.pull(&repository, number)).await?;
    let checks = asked(context, context.github.checks(&repository, &pull.head)).await?;
    let state = if pull.open { "open" } else { "closed" };
    let reviews = asked(context, context.github.reviews(&repository, number)).await?;
    let reviews = rounds::state(context, &reviews);
    let mut result = ToolResult::good(
        format!("checks of #{number}: {checks}"),
        format!("#{number} is {state}, at {}. Checks: {checks}. Reviews: {reviews}\n{}", pull.head, pull.url),
    );
    result.facts.waits = checks.running > 0;
    Ok(result)
}

/// Returns the repository from which the clone comes.
async fn repository_of(context: &ToolContext, arguments: &Arguments) -> Result<Repository, ToolError> {
    let sandbox = context.sandbox().await?;
    let clone = look::look(context, &sandbox, arguments.path.as_deref(), "").await?;
    granted(context, clone.repository()?)
}

/// Returns the repository if the server's key may be used for it here.
fn granted(context: &ToolContext, repository: Repository) -> Result<Repository, ToolError> {
    let read = Act::Read(repository.clone());
    if context.github.lists(&repository) || context.rights.covers(&context.address, &read) {
        return Ok(repository);
    }
    Err(ToolError::Refused(strings::github::not_granted(repository.as_str())))
}

/// Returns what the room is for, if that is an issue of the repository.
fn task_of(context: &ToolContext, repository: &Repository) -> Option<Task> {
    context.rights.task(&context.address).filter(|task| task.repository == *repository)
}

/// Stores where a pull request comes from, so that what GitHub tells of it later gets there.
async fn remember(context: &ToolContext, repository: &Repository, branch: &str, pull: &Pull) -> Result<(), ToolError> {
    let asked = context.store.claimed(&context.turn).await.map_err(|error| unstored(context, &error))?;
    let thread = asked.first().and_then(|said| said.body["thread"].as_str()).map(EventId::from);
    let pull = StoredPull {
        repository: repository.to_string(),
        number: pull.number,
        branch: branch.to_owned(),
        url: pull.url.clone(),
        at: context.address.clone(),
        thread,
        rounds: 0,
        head: None,
    };
    context.store.add_pull(pull).await.map_err(|error| unstored(context, &error))
}

/// Returns when somebody who may has said yes to an act, now or before.
async fn permitted(
    context: &ToolContext,
    repository: &Repository,
    act: fn(Repository) -> Act,
    what: String,
    details: String,
    for_task: bool,
) -> Result<(), ToolError> {
    let (key, why) = (context.call.to_string(), context.rights.running(&context.address));
    let answerer = Answerer::Anybody;
    let question = Question { key, act: act(repository.clone()), what, why, details, answerer, for_task };
    context.rights.permit(&context.address, question, ANSWER, &context.cancel).await.map_err(|refusal| match refusal {
        Refusal::Stopped(_) => ToolError::Stopped,
        refusal => ToolError::Refused(refusal.to_string()),
    })
}

/// Waits for GitHub, unless somebody stops it.
async fn asked<T>(context: &ToolContext, asking: impl Future<Output = Result<T, GitHubError>>) -> Result<T, ToolError> {
    tokio::select! {
        biased;
        () = context.cancel.cancelled() => Err(ToolError::Stopped),
        answer = asking => Ok(answer?),
    }
}

/// Refuses texts that are too long, or hold what looks like a secret.
fn may_leave(texts: &[&str]) -> Result<(), ToolError> {
    for text in texts {
        if text.len() > LONGEST {
            let (size, most) = (text::human_bytes(text.len() as u64), text::human_bytes(LONGEST as u64));
            return Err(ToolError::Refused(format!("The text has {size}, and {most} is the limit. Nothing was sent.")));
        }
        if let Some(found) = secrets::find(text.as_bytes()) {
            return Err(ToolError::Refused(format!(
                "The text holds what looks like {} (`{}…`, line {}). Take it out. Nothing was sent.",
                found.kind, found.start, found.line
            )));
        }
    }
    Ok(())
}

/// Returns the text with what the server knows of the work: who asked, what was tested, what was refused.
fn with_facts(context: &ToolContext, body: &str) -> String {
    let tests = context.tests.all();
    let mut hosts = context.sandboxes.refused_hosts(&context.address);
    hosts.truncate(HOSTS);
    strings::github::body(body, &context.person, &tests, &hosts)
}

/// Returns the line that makes a person an author of a commit beside the agent. The address belongs to nobody.
fn trailer(person: &str) -> String {
    if let Some(login) = login(person) {
        return format!("Co-authored-by: {login} <{login}@users.noreply.github.com>");
    }
    let name = text::one_line(person, 100).replace(['<', '>', '"'], "");
    let local: String = name
        .trim_start_matches('@')
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_') { letter } else { '.' })
        .collect();
    format!("Co-authored-by: {name} <{}@chat.invalid>", local.trim_matches('.'))
}

/// Returns the name of a turn's branch, made of the title.
fn branch(context: &ToolContext, title: &str) -> String {
    let mark = digest(&["branch", &context.address.to_string(), context.turn.as_str()], 3);
    let slug = slug(title);
    if slug.is_empty() { format!("agent/{mark}") } else { format!("agent/{slug}-{mark}") }
}

fn slug(title: &str) -> String {
    let mut slug = String::new();
    for letter in title.to_lowercase().chars() {
        if letter.is_ascii_alphanumeric() {
            slug.push(letter);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() >= SLUG {
            break;
        }
    }
    slug.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asked_is_an_author_with_an_address_that_is_nobodys() {
        assert_eq!(trailer("@ann:a.org"), "Co-authored-by: @ann:a.org <ann.a.org@chat.invalid>");
        assert_eq!(trailer("github:ann"), "Co-authored-by: ann <ann@users.noreply.github.com>");
        assert_eq!(trailer("github:a/b"), "Co-authored-by: github:a/b <github.a.b@chat.invalid>");
        assert_eq!(trailer("a\n<b@c.org>"), "Co-authored-by: a b@c.org <a.b.c.org@chat.invalid>");
    }

    #[test]
    fn branches_are_named_after_titles() {
        assert_eq!(slug("Fix: the login page (again)!"), "fix-the-login-page-again");
        assert_eq!(slug("Ärger & más"), "rger-m-s");
        assert_eq!(slug("…"), "");
        assert!(slug(&"word ".repeat(50)).len() <= SLUG);
    }

    #[test]
    fn texts_with_secrets_or_without_end_stay_here() {
        assert!(may_leave(&["Fix", "All is well."]).is_ok());
        let secret = format!("see\nghp_{}", ('a'..='z').chain('0'..='9').collect::<String>());
        let told = may_leave(&["Fix", &secret]).unwrap_err().to_string();
        assert!(told.contains("a GitHub token (`ghp_…`, line 2)") && !told.contains(&secret), "{told}");
        assert!(may_leave(&[&"x".repeat(LONGEST + 1)]).is_err());
    }
}
