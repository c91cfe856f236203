//! GitHub: what the room and the readers of a pull request are told.

use super::counted;

/// A repository for which the key may not be used.
pub(crate) fn not_granted(repository: &str) -> String {
    format!(
        "Nothing was sent: {repository} is not among the repositories to which work may be sent from here. The operator can add it to \
         GITHUB_REPOS, or somebody who may writes `!grant {repository} 2h` in the room."
    )
}

/// What a person is asked to say yes to: a push with its pull request.
pub(crate) fn to_propose(repository: &str, branch: &str, commit: &str, title: &str) -> String {
    let commit: String = commit.chars().take(10).collect();
    format!("push {branch} (commit {commit}) to {repository} and open a pull request there: “{title}”")
}

/// What a person is asked to say yes to: a comment.
pub(crate) fn to_comment(repository: &str, number: u64) -> String {
    format!("comment on #{number} of {repository}")
}

/// What a person is asked to say yes to: a push, and answers to reviewers.
pub(crate) fn to_answer(repository: &str, branch: &str, commit: &str, number: u64, threads: usize) -> String {
    let commit: String = commit.chars().take(10).collect();
    format!("push {branch} (commit {commit}) to {repository} and answer {} on #{number}", in_threads(threads))
}

/// Said in the room once reviewers are answered.
pub(crate) fn answered(number: u64, repository: &str, commit: &str, threads: usize) -> String {
    let commit: String = commit.chars().take(10).collect();
    format!("https://github.com/{repository}/pull/{number} is at {commit}; {} answered.", in_threads(threads))
}

fn in_threads(count: usize) -> String {
    counted(count as u64, "review thread")
}

/// What would leave by a push: its commits, and the files in lines.
pub(crate) fn to_leave(commits: u64, files: &str) -> String {
    format!("{}, {files}", counted(commits, "commit"))
}

/// What leaves as it stands, with nothing in it that a reader does not see: in Markdown nobody sees a comment.
pub(crate) fn verbatim(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let longest = text.split(|letter| letter != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}\n{text}\n{fence}")
}

/// Said in the room once a pull request is there.
pub(crate) fn pull(number: u64, url: &str, opened: bool, diff: &str, checks: &str) -> String {
    let verb = if opened { "is open" } else { "has new commits" };
    format!("Pull request #{number} {verb}: {url} · {diff} · checks: {checks}")
}

/// The text of a pull request: the model's own, and what the server knows of the work. Names stand in code, so that they call
/// nobody at GitHub.
pub(crate) fn body(own: &str, person: &str, tests: &[String], refused: &[String]) -> String {
    let code = |text: &str| format!("`{}`", text.replace('`', "'"));
    let tests = if tests.is_empty() {
        "no test run was seen in this task".to_owned()
    } else {
        tests.iter().map(|run| code(run)).collect::<Vec<_>>().join(", ")
    };
    let mut text = format!("{own}\n\n---\n{ASKED_BY}{}; written by matrix-agent.\nTests: {tests}.", code(person));
    if !refused.is_empty() {
        let hosts = refused.iter().map(|host| code(host)).collect::<Vec<_>>().join(", ");
        text.extend(["\nHosts that the sandbox was refused: ", &hosts, "."]);
    }
    text
}

/// Begins the line of a pull request that names who asked for it.
const ASKED_BY: &str = "Asked for in chat by ";

/// Returns who asked for a pull request, by its text.
pub(crate) fn asked_by(body: &str) -> Vec<&str> {
    let lines = body.lines().filter_map(|line| line.strip_prefix(ASKED_BY)?.strip_prefix('`'));
    lines.filter_map(|line| line.split_once('`')).map(|(person, _)| person).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_is_shown_to_its_last_letter() {
        assert_eq!(verbatim("a <!-- b -->\rc"), "```\na <!-- b -->\nc\n```");
        assert_eq!(verbatim("a\n````\nb"), "`````\na\n````\nb\n`````");
        assert_eq!(to_leave(1, "2 files +3 −0"), "1 commit, 2 files +3 −0");
    }

    #[test]
    fn a_pull_request_says_who_asked_what_was_tested_and_what_was_refused() {
        let body =
            body("It works.", "@ann:a.org", &["[PASS] tests passed in `x`".to_owned()], &["evil.org".to_owned()]);
        assert_eq!(
            body,
            "It works.\n\n---\nAsked for in chat by `@ann:a.org`; written by matrix-agent.\nTests: `[PASS] tests passed in \
             'x'`.\nHosts that the sandbox was refused: `evil.org`."
        );
        assert_eq!(asked_by(&body), ["@ann:a.org"]);
    }
}
