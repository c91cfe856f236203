//! GitHub: what the room and the readers of a pull request are told.

/// A repository for which the key may not be used.
pub(crate) fn not_granted(repository: &str) -> String {
    format!(
        "{repository} is not among the repositories to which work may be sent from here. The operator can add it to \
         GITHUB_REPOS, or somebody who may writes `!grant {repository} 2h` in the room. Nothing was sent."
    )
}

/// What a person is asked to say yes to: a push with its pull request.
pub(crate) fn to_propose(repository: &str, branch: &str, commit: &str, title: &str) -> String {
    let commit: String = commit.chars().take(10).collect();
    format!("push {branch} (commit {commit}) to {repository} and open a pull request there: “{title}”")
}

/// What a person is asked to say yes to: a comment.
pub(crate) fn to_comment(repository: &str, number: u64, text: &str) -> String {
    format!("comment on #{number} of {repository}: “{text}”")
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
    let mut text =
        format!("{own}\n\n---\nAsked for in chat by {}; written by matrix-agent.\nTests: {tests}.", code(person));
    if !refused.is_empty() {
        let hosts = refused.iter().map(|host| code(host)).collect::<Vec<_>>().join(", ");
        text.extend(["\nHosts that the sandbox was refused: ", &hosts, "."]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_request_says_who_asked_what_was_tested_and_what_was_refused() {
        let body =
            body("It works.", "@ann:a.org", &["[PASS] tests passed in `x`".to_owned()], &["evil.org".to_owned()]);
        assert_eq!(
            body,
            "It works.\n\n---\nAsked for in chat by `@ann:a.org`; written by matrix-agent.\nTests: `[PASS] tests passed in \
             'x'`.\nHosts that the sandbox was refused: `evil.org`."
        );
    }
}
