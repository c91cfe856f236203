//! What the server does at GitHub, each once: against an API that drops answers, with the process killed at every boundary.

mod support;

use std::{os::unix::process::ExitStatusExt, process::Output, time::Duration};

use matrix_agent::{
    clock::Clock,
    github::{GitHub, GitHubError, Key, Repositories, Wanted},
    rights::Repository,
};
use support::github::{Fault, ScriptedGitHub, TOKEN};
use tokio::process::Command;

/// The variable that tells the process of [`acts_once`] where GitHub is.
const API: &str = "TEST_GITHUB_API";

fn github(api: &str) -> GitHub {
    let listed = Repositories::parse(["acme/site"]).unwrap();
    GitHub::new(Some(Key::Token(TOKEN.into())), listed, Clock::default()).at(api, Duration::from_millis(1))
}

fn site() -> Repository {
    Repository::parse("acme/site").unwrap()
}

fn wanted(act: &str) -> Wanted {
    Wanted {
        repository: site(),
        branch: "agent/login".into(),
        base: "main".into(),
        title: "Fix the login".into(),
        body: "It works.".into(),
        act: act.into(),
    }
}

/// Not a test: the process that is killed. It opens a pull request and comments on it, as a server does that comes back.
#[tokio::test]
#[ignore = "run by the others, with GitHub's address"]
async fn acts_once() {
    let Ok(api) = std::env::var(API) else { return };
    let github = github(&api);
    let pull = github.open_pull(&wanted("call-1")).await.unwrap();
    github.comment(&site(), pull.number, "Done.", "call-2").await.unwrap();
}

async fn act(api: &str, crash: Option<String>) -> Output {
    let mut process = Command::new(std::env::current_exe().unwrap());
    process.args(["--exact", "acts_once", "--ignored"]).env(API, api);
    if let Some(crash) = crash {
        process.env("MATRIX_AGENT_CRASH_AT", crash);
    }
    process.kill_on_drop(true).output().await.unwrap()
}

#[tokio::test]
async fn one_pull_request_and_one_comment_wherever_it_is_killed_and_whatever_answer_is_lost() {
    let points = ["github-pull-looked", "github-pull-sent", "github-comment-looked", "github-comment-sent"];
    let faults = [
        None,
        Some(Fault::LostBefore),
        Some(Fault::LostAfter),
        Some(Fault::StatusBefore(502)),
        Some(Fault::StatusAfter(502)),
    ];
    let rounds = std::env::var("ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    let mut kills = 0;
    for _ in 0..rounds {
        for point in points {
            for fault in faults {
                let server = ScriptedGitHub::start(None).await;
                for start in ["POST /repos/acme/site/pulls", "POST /repos/acme/site/issues/1/comments"] {
                    if let Some(fault) = fault {
                        server.fail(start, fault);
                    }
                }
                let folder = tempfile::tempdir().unwrap();
                let crash = format!("{point}:{}", folder.path().display());
                let killed = act(&server.api(), Some(crash.clone())).await;
                assert_eq!(killed.status.signal(), Some(9), "at {point}: {killed:?}");
                kills += 1;
                let ended = act(&server.api(), Some(crash)).await;
                assert!(ended.status.success(), "at {point}, {fault:?}: {ended:?}");
                let (pulls, comments) = (server.pulls(), server.comments());
                assert_eq!((pulls.len(), comments.len()), (1, 1), "at {point}, {fault:?}: {:?}", server.requests());
                assert_eq!(comments[0].0, 1);
                assert!(pulls[0][1].starts_with("It works.\n\n<!-- matrix-agent "), "{}", pulls[0][1]);
            }
        }
    }
    assert_eq!(kills, rounds * points.len() * faults.len());
}

#[tokio::test]
async fn what_goes_on_failing_is_told_and_nothing_is_doubled() {
    let server = ScriptedGitHub::start(None).await;
    let github = github(&server.api());
    for _ in 0..3 {
        server.fail("POST /repos/acme/site/pulls", Fault::StatusBefore(502));
    }
    let error = github.open_pull(&wanted("a")).await.unwrap_err();
    assert_eq!(error, GitHubError::Lost("status 502".into()));
    assert!(error.to_string().contains("try again later"), "{error}");
    // The last of three answers does not come, and GitHub is asked once more.
    server.fail("POST /repos/acme/site/pulls", Fault::StatusBefore(502));
    server.fail("POST /repos/acme/site/pulls", Fault::StatusBefore(502));
    server.fail("POST /repos/acme/site/pulls", Fault::LostAfter);
    let pull = github.open_pull(&wanted("a")).await.unwrap();
    assert!(pull.opened && pull.open);
    let again = github.open_pull(&wanted("b")).await.unwrap();
    assert_eq!(
        (again.number, again.opened, server.pulls().len()),
        (pull.number, false, 1),
        "the branch has one already"
    );
    // Reading is tried again by itself.
    server.fail("GET /repos/acme/site", Fault::LostBefore);
    assert_eq!(github.default_branch(&site()).await.unwrap(), "main");
}

#[tokio::test]
async fn a_pull_request_that_was_closed_meanwhile_is_not_opened_again_by_the_same_act() {
    let server = ScriptedGitHub::start(None).await;
    let github = github(&server.api());
    github.open_pull(&wanted("a")).await.unwrap();
    server.close(1);
    let error = github.open_pull(&wanted("a")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Pull request #1 of this branch was closed meanwhile. Reopen it at GitHub, or work on in a new branch."
    );
    assert!(github.open_pull(&wanted("b")).await.unwrap().opened, "another act opens another");
    assert_eq!(server.pulls().len(), 2);
}

#[tokio::test]
async fn a_comment_is_found_among_many_and_a_number_that_is_not_there_is_told() {
    let server = ScriptedGitHub::start(None).await;
    let github = github(&server.api());
    let first = github.comment(&site(), 7, "One.", "act-0").await.unwrap();
    for number in 1..150 {
        github.comment(&site(), 7, "More.", &format!("act-{number}")).await.unwrap();
    }
    assert_eq!(github.comment(&site(), 7, "One.", "act-0").await.unwrap(), first);
    let late = github.comment(&site(), 7, "More.", "act-149").await.unwrap();
    assert!(late.ends_with("#c150"), "{late}");
    assert_eq!(server.comments().len(), 150);
    let error = github.comment(&site(), 100, "x", "act").await.unwrap_err().to_string();
    assert!(error.contains("acme/site has no pull request or issue #100"), "{error}");
    let error = github.pull(&site(), 9).await.unwrap_err().to_string();
    assert!(error.contains("no pull request or issue #9"), "{error}");
}

#[tokio::test]
async fn a_key_that_is_not_taken_is_told() {
    let server = ScriptedGitHub::start(None).await;
    let listed = Repositories::parse(["acme/site"]).unwrap();
    let wrong = GitHub::new(Some(Key::Token("expired".into())), listed, Clock::default());
    let error = wrong.at(&server.api(), Duration::ZERO).open_pull(&wanted("a")).await.unwrap_err();
    assert_eq!(error, GitHubError::BadKey);
    assert_eq!(GitHub::default().open_pull(&wanted("a")).await.unwrap_err(), GitHubError::NoKey);
}

#[tokio::test]
async fn the_key_is_looked_at_before_it_is_needed() {
    let server = ScriptedGitHub::start(None).await;
    let listed = || Repositories::parse(["acme/site", "acme/gone", "other/*"]).unwrap();
    let way = |token: &str| {
        GitHub::new(Some(Key::Token(token.into())), listed(), Clock::default())
            .at(&server.api(), Duration::from_millis(1))
    };
    let health = way(TOKEN).key_health().await.unwrap();
    let gone = Repository::parse("acme/gone").unwrap();
    assert_eq!((health.name.as_str(), health.workflows, health.ends), ("ann", false, None));
    assert_eq!(health.closed, [(gone.clone(), GitHubError::Gone(gone))]);
    assert_eq!(way("revoked").key_health().await, Err(GitHubError::BadKey));
}
