//! Tasks from GitHub: what rooms, issues and models are told.

/// The first comment on an issue that became a task.
pub(crate) const BEGUN: &str = "I am working on this. I ask here if something is not clear; whoever may write to this repository can answer by a comment.";

/// In place of an answer that may hold a secret.
pub(crate) const IN_THE_ROOM: &str =
    "What I have to say stands in the task's room, and not here: it holds what looks like a secret.";

/// The name of a task's room.
pub(crate) fn room(repository: &str, issue: u64, title: &str) -> String {
    format!("{repository} gh-{issue}: {title}")
}

/// The first message of a task's room.
pub(crate) fn opened(repository: &str, issue: u64, title: &str, author: &str, by: &str, text: &str) -> String {
    let text = quoted(text);
    format!(
        "**gh-{issue}: {title}**\n\nhttps://github.com/{repository}/issues/{issue}, written by github:{author}, made a task by \
         github:{by}.\n\n{text}"
    )
}

/// A task as the model gets it.
pub(crate) fn order(repository: &str, issue: u64, branch: &str, title: &str, author: &str, text: &str) -> String {
    format!(
        "[Task gh-{issue}: somebody who may write to {repository} has asked that issue #{issue} there be done. github:{author} wrote \
         it. Clone https://github.com/{repository} to /workspace/{name}, work on the branch {branch}, test what you did, commit it, and \
         open the pull request with the tool `github`; its text says `Closes #{issue}`. If you need to know something first, end with \
         your question: your answer becomes a comment on the issue, so keep it short.]\n\n# {title}\n\n{text}",
        name = repository.split_once('/').map_or(repository, |(_, name)| name),
    )
}

/// A comment on a task's issue, told in its room.
pub(crate) fn commented(author: &str, text: &str) -> String {
    format!("github:{author} commented:\n\n{}", quoted(text))
}

/// A comment on a task's issue as the model gets it.
pub(crate) fn comment(issue: u64, author: &str, text: &str) -> String {
    format!("[github:{author} commented on issue #{issue}:]\n\n{text}")
}

/// A comment on a pull request, told in its room.
pub(crate) fn commented_on(number: u64, author: &str, text: &str) -> String {
    format!("github:{author} commented on #{number}:\n\n{}", quoted(text))
}

/// A comment on a pull request as the model gets it.
pub(crate) fn pull_comment(repository: &str, number: u64, branch: &str, author: &str, text: &str) -> String {
    format!(
        "[github:{author} commented on pull request #{number} of {repository}, whose branch is {branch}:]\n\n{text}"
    )
}

/// What an issue is told when a turn has ended.
pub(crate) fn ended(answered: bool, pull: Option<&str>, answer: &str) -> String {
    let begin = match (answered, pull) {
        (true, Some(url)) => format!("Pull request: {url}\n\n"),
        (true, None) => String::new(),
        (false, Some(url)) => format!("I have stopped before I was done with {url}.\n\n"),
        (false, None) => "I have stopped before I was done.\n\n".to_owned(),
    };
    format!("{begin}{answer}")
}

/// A failed check, told in the room.
pub(crate) fn failed_told(number: u64, check: &str) -> String {
    format!("The check `{}` of #{number} failed. I am looking into it.", code(check))
}

/// A failed check as the model gets it.
pub(crate) fn failed(repository: &str, number: u64, branch: &str, check: &str, round: u32, rounds: u32) -> String {
    format!(
        "[GitHub reports: the check `{}` of pull request #{number} of {repository} failed on the newest commit of {branch}. Look at all \
         its checks with the tool `github`, find the cause, mend it on that branch, test it, commit, and push it by opening the pull \
         request again, which updates it. This is round {round} of {rounds}.]",
        code(check)
    )
}

/// Failed checks have begun as many turns as they may.
pub(crate) fn enough(number: u64, check: &str, rounds: u32) -> String {
    format!(
        "The check `{}` of #{number} failed. I have tried to mend its checks {rounds} times (GITHUB_FIX_ROUNDS) and leave it now: say so \
         if I shall go on.",
        code(check)
    )
}

/// A check failed of what is closed.
pub(crate) fn closed(number: u64, check: &str) -> String {
    format!(
        "The check `{}` of #{number} failed, but #{number} was closed meanwhile: nothing is done about it.",
        code(check)
    )
}

/// A review of what is closed.
pub(crate) fn closed_for(number: u64, author: &str) -> String {
    format!("github:{author} reviewed #{number}, but it was closed meanwhile: nothing is done about it.")
}

/// A review, told in the room.
pub(crate) fn reviewed_told(number: u64, author: &str) -> String {
    format!("github:{author} reviewed #{number}. I am looking into it.")
}

/// A review as the model gets it.
pub(crate) fn reviewed(
    repository: &str,
    number: u64,
    branch: &str,
    author: &str,
    text: &str,
    comments: &[(String, String)],
) -> String {
    let mut all = format!(
        "[github:{author} reviewed pull request #{number} of {repository}, whose branch is {branch}. Take all of it as one piece of work: \
         mend what is right, test it, commit, push once by opening the pull request again, which updates it, and answer each comment.]"
    );
    if !text.is_empty() {
        all.extend(["\n\n", text]);
    }
    for (place, said) in comments {
        all.extend(["\n\n", place, ":\n", said]);
    }
    all
}

/// Returns text within backquotes that it cannot leave.
fn code(text: &str) -> String {
    text.replace('`', "'")
}

/// Returns somebody's text as a quotation.
fn quoted(text: &str) -> String {
    text.lines().map(|line| format!("> {line}")).collect::<Vec<_>>().join("\n")
}
