//! From a commit in the sandbox to a pull request: the real git behind the gateway, against a GitHub on this machine.

use std::time::Duration;

use matrix_agent::{
    clock::Clock,
    gateway::GatewayLimits,
    github::{GitHub, Key, Repositories},
    rights::{Lasts, Repository, Rights, Roles, Subject},
    store::{Durability, Store},
    tools::{self, ToolContext, ToolProgress, ToolResult},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{
    bench::{Bench, FULL, LIMIT, bad, good, run},
    door::Door,
    support::{
        forge::Forge,
        github::{Fault, TOKEN},
    },
};

/// A room whose sandbox has a clone of `acme/site` with one commit more, and GitHub.
struct Rig {
    bench: Bench,
    forge: Forge,
    _folder: TempDir,
    _door: Door,
}

impl Rig {
    /// Whatever is pushed, somebody has said yes to.
    async fn new() -> Self {
        let rig = Self::unasked().await;
        let (rights, at) = (&rig.bench.rights, &rig.bench.address);
        let site = Subject::Repository(Repository::parse("acme/site").unwrap());
        rights.grant(at, site, true, "@ann:a.org", Lasts::Room).await.unwrap();
        rig
    }

    async fn unasked() -> Self {
        let forge = Forge::with("README.md", "A site.\n").await;
        let door = Door::with_root(&[], GatewayLimits::default(), Some(&forge.pem));
        door.name("github.com", &["203.0.113.5"]);
        door.route("203.0.113.5:0", forge.git);
        let folder = TempDir::new().unwrap();
        let listed = Repositories::parse(["acme/site"]).unwrap();
        let github = GitHub::new(Some(Key::Token(TOKEN.into())), listed, Clock::default());
        let github = github.at(&forge.api.api(), Duration::from_millis(1));
        let store = Store::open(&folder.path().join("rights.db"), Durability::Normal, Clock::default()).unwrap();
        let rights = Rights::new(store, Roles::default());
        rights.load().await.unwrap();
        let gateway = door.gateway.clone().with_github(github.clone()).with_rights(rights.clone());
        let mut bench = Bench::behind(FULL, gateway).await;
        (bench.github, bench.rights) = (github, rights);
        let rig = Self { bench, forge, _folder: folder, _door: door };
        rig.bench.sh("git clone -q https://github.com/acme/site").await;
        rig.commit("src.txt", "one\ntwo\n").await;
        rig
    }

    async fn commit(&self, file: &str, content: &str) {
        self.bench.sh(&format!("cd site && printf '{content}' > {file} && git add . && git commit -q -m work")).await;
    }

    /// A call that is recorded, as those of a turn are.
    async fn context(&self) -> (ToolContext, tokio::sync::mpsc::Receiver<ToolProgress>) {
        let (context, progress) = self.bench.context();
        let calls = vec![context.call.clone()];
        self.bench.store.append_calls(&context.address, &context.turn, json!({}), calls).await.unwrap();
        (context, progress)
    }

    async fn github(&self, arguments: Value) -> ToolResult {
        let (context, _progress) = self.context().await;
        run(&context, "github", &arguments).await
    }

    fn refs(&self) -> String {
        self.forge.git(&["for-each-ref", "--format=%(refname)"])
    }
}

fn pull_request() -> Value {
    json!({"action": "pull_request", "title": "Fix the login", "body": "The cookie is set after the redirect.", "path": "site"})
}

#[tokio::test]
async fn what_was_committed_becomes_one_pull_request_that_later_commits_update() {
    let rig = Rig::new().await;
    rig.bench.sh("cd site && echo draft > draft.txt; curl -s https://evil.example/ || true").await;
    let (mut context, _progress) = rig.context().await;
    context.tests = tools::TestsSeen::default();
    let (tests, _progress) = rig.bench.context_in(&context);
    let tests = ToolContext { tests: context.tests.clone(), ..tests };
    run(&tests, "run_tests", &json!({"path": "site", "command": "true"})).await;
    let result = run(&context, "github", &pull_request()).await;
    good(
        &result,
        &[
            "Pull request #1 opened: https://github.com/acme/site/pull/1",
            "into main of acme/site",
            "1 file +2 −0\nsrc.txt +2 −0",
            "Checks: 1 failed: test (1 of 3 failed); 1 running",
            "[1 changed files in /workspace/site are not committed",
        ],
    );
    let told = "Pull request #1 is open: https://github.com/acme/site/pull/1 · 1 file +2 −0 · checks: 1 failed: test (1 of 3 failed); 1 running";
    assert_eq!(result.told.as_deref(), Some(told));
    let [title, body, branch, base, _] = &rig.forge.api.pulls()[0];
    assert!(branch.starts_with("agent/fix-the-login-"), "{branch}");
    assert_eq!((title.as_str(), base.as_str()), ("Fix the login", "main"));
    for part in [
        "The cookie is set",
        "by `@ann:a.org`",
        "Tests: `[PASS] tests passed in /workspace/site`",
        "refused: `evil.example`",
    ] {
        assert!(body.contains(part), "{part}: {body}");
    }
    assert_eq!(rig.refs(), format!("refs/heads/{branch}\nrefs/heads/main\n"));
    let message = rig.forge.git(&["log", "-1", "--format=%B", branch]);
    assert!(message.contains("Co-authored-by: @ann:a.org <ann.a.org@chat.invalid>"), "{message}");

    rig.commit("more.txt", "three\n").await;
    let result = rig.github(pull_request()).await;
    good(&result, &["Pull request #1 was open and has the new commits", "3 files +4 −0"]);
    assert_eq!((rig.forge.api.pulls().len(), rig.refs().lines().count()), (1, 2));

    good(&rig.github(json!({"action": "comment", "number": 1, "body": "Mended.", "path": "site"})).await, &["#c1"]);
    good(&rig.github(json!({"action": "checks", "number": 1})).await, &["#1 is open", "1 of 3 failed"]);
    assert_eq!(rig.forge.api.comments().len(), 1);
    let found = rig
        .bench
        .sh(&format!("grep -rl {TOKEN} /workspace /home/agent /etc 2>/dev/null; env | grep {TOKEN}; true"))
        .await;
    assert_eq!(found.trim(), "(no output)", "the key is nowhere inside");
    rig.bench.close().await;
}

#[tokio::test]
async fn nothing_leaves_that_nobody_has_said_yes_to() {
    let rig = Rig::unasked().await;
    let pushed = rig.bench.sh("cd site && git push origin HEAD:refs/heads/agent/x 2>&1 || true").await;
    assert!(pushed.contains("nobody has allowed it"), "{pushed}");
    bad(&rig.github(pull_request()).await, &["acme/site"]);
    let comment = json!({"action": "comment", "number": 1, "body": "Mended.", "path": "site"});
    bad(&rig.github(comment).await, &["acme/site"]);
    assert_eq!(rig.refs(), "refs/heads/main\n");
    assert_eq!((rig.forge.api.pulls().len(), rig.forge.api.comments().len()), (0, 0));
    rig.bench.close().await;
}

#[tokio::test]
async fn a_server_that_dies_on_the_way_ends_it_once_when_it_comes_back() {
    let rig = Rig::new().await;
    let boot = rig.bench.boot_id().await;
    for (nth, held) in [
        "GET /repos/acme/site/git/ref/heads/agent/",
        "GET /repos/acme/site/compare/",
        "GET /repos/acme/site/pulls",
        "POST /repos/acme/site/pulls",
        "GET /repos/acme/site/commits/",
    ]
    .into_iter()
    .enumerate()
    {
        rig.bench.sh("cd site && git checkout -q main").await;
        rig.commit("src.txt", &format!("{held}\n")).await;
        let (context, _progress) = rig.context().await;
        rig.forge.api.fail(held, Fault::Held);
        let arguments = pull_request();
        tokio::select! {
            result = run(&context, "github", &arguments) => panic!("it is held at {held}: {}", result.text),
            held = timeout(LIMIT, rig.forge.api.is_held()) => held.unwrap(),
        }
        // What comes back has the same store and the same sandbox.
        let again = ToolContext { sandboxes: rig.bench.sandboxes.clone(), ..context };
        let result = timeout(LIMIT, tools::resume(&again, "github", &arguments.to_string(), &boot)).await.unwrap();
        good(&result, &[&format!("Pull request #{} opened", nth + 1)]);
        assert_eq!(rig.forge.api.pulls().len(), nth + 1, "at {held}");
        let branch = &rig.forge.api.pulls()[nth][2];
        let inside = rig.bench.sh("cd site && git rev-parse HEAD").await;
        assert_eq!(rig.forge.git(&["rev-parse", branch]).trim(), inside.trim(), "at {held}");
    }
    let (context, _progress) = rig.context().await;
    let arguments = json!({"action": "comment", "number": 1, "body": "Mended.", "path": "site"});
    rig.forge.api.fail("POST /repos/acme/site/issues/1/comments", Fault::Held);
    tokio::select! {
        result = run(&context, "github", &arguments) => panic!("it is held: {}", result.text),
        held = timeout(LIMIT, rig.forge.api.is_held()) => held.unwrap(),
    }
    let result = timeout(LIMIT, tools::resume(&context, "github", &arguments.to_string(), &boot)).await.unwrap();
    good(&result, &["#c1"]);
    assert_eq!(rig.forge.api.comments().len(), 1);
    rig.bench.close().await;
}

#[tokio::test]
async fn reviewers_are_read_as_one_batch_and_answered_once_each_after_one_push() {
    let rig = Rig::new().await;
    good(&rig.github(pull_request()).await, &["#1 opened"]);
    let api = &rig.forge.api;
    let (first, done) =
        (api.review_comment("rev", "src.txt", "Why two?"), api.review_comment("rev", "src.txt", "Old."));
    let second = api.review_comment("lee", "README.md", "A word more.");
    api.resolve(done);
    api.review("ann", "OWNER", "APPROVED", "");
    api.review("lee", "MEMBER", "APPROVED", "");
    api.review("rev", "MEMBER", "CHANGES_REQUESTED", "Nearly.");
    let state = "changes requested by rev; approved by lee; does not count the approval of ann (asked for it)";
    let read = rig.github(json!({"action": "reviews", "number": 1, "path": "site"})).await;
    let threads = [
        format!("thread {first} at src.txt:1\nrev: Why two?"),
        format!("thread {second} at README.md:1\nlee: A word more."),
    ];
    good(&read, &[state, "2 unresolved threads", &threads[0], &threads[1], "rev requests changes: Nearly."]);
    assert!(!read.text.contains("Old."), "{}", read.text);
    good(&rig.github(json!({"action": "checks", "number": 1, "path": "site"})).await, &["1 of 3 failed", state]);

    rig.commit("src.txt", "one\n").await;
    let body = format!("thread {first}: One is enough now.\nthread {second}: Added.");
    let arguments = json!({"action": "answer", "number": 1, "path": "site", "body": body});
    // An answer does not come, and the server dies after the first reply.
    api.fail(&format!("POST /repos/acme/site/pulls/1/comments/{first}/replies"), Fault::LostAfter);
    api.fail(&format!("POST /repos/acme/site/pulls/1/comments/{second}/replies"), Fault::Held);
    let (boot, (context, _progress)) = (rig.bench.boot_id().await, rig.context().await);
    tokio::select! {
        result = run(&context, "github", &arguments) => panic!("it is held: {}", result.text),
        held = timeout(LIMIT, api.is_held()) => held.unwrap(),
    }
    let result = timeout(LIMIT, tools::resume(&context, "github", &arguments.to_string(), &boot)).await.unwrap();
    good(&result, &["2 threads of #1 are answered"]);
    assert!(result.told.as_deref().unwrap().contains("acme/site/pull/1 is at "), "{:?}", result.told);
    for (thread, body) in [(first, "One is enough now."), (second, "Added.")] {
        let said = api.thread(thread);
        assert!(said.len() == 2 && said[1].starts_with(body), "{said:?}");
    }
    let inside = rig.bench.sh("cd site && git rev-parse HEAD").await;
    assert_eq!(rig.forge.git(&["rev-parse", &api.pulls()[0][2]]).trim(), inside.trim());

    let unknown = json!({"action": "answer", "number": 1, "path": "site", "body": "thread 7: x"});
    bad(&rig.github(unknown).await, &["0 of 1 threads are answered", "Thread 7 is not"]);
    bad(&rig.github(json!({"action": "answer", "number": 1})).await, &["needs number, and a body"]);
    rig.bench.sh("cd site && git switch -q main").await;
    bad(&rig.github(arguments.clone()).await, &["which is not checked out: `git switch agent/"]);
    api.close(1);
    bad(&rig.github(arguments).await, &["#1 is closed. Nothing was sent."]);
    rig.bench.close().await;
}

#[tokio::test]
async fn what_may_not_leave_or_cannot_is_told_and_nothing_is_opened() {
    let mut rig = Rig::new().await;
    let secret = format!("ghp_{}", ('a'..='z').chain('0'..='9').collect::<String>());
    let with_secret = json!({"action": "pull_request", "title": "x", "body": format!("key {secret}"), "path": "site"});
    bad(&rig.github(with_secret).await, &["The text holds what looks like a GitHub token"]);
    bad(&rig.github(json!({"action": "pull_request", "title": "x"})).await, &["needs title and body"]);
    bad(&rig.github(json!({"action": "merge"})).await, &["action `merge` is not known"]);
    bad(
        &rig.github(json!({"action": "checks", "number": 9, "path": "site"})).await,
        &["has no pull request or issue #9"],
    );
    let nowhere = json!({"action": "checks", "number": 1, "path": "nowhere"});
    bad(&rig.github(nowhere).await, &["nowhere: there is no such folder"]);
    rig.bench.sh("cd site && git remote set-url origin https://github.com/acme/other").await;
    bad(&rig.github(pull_request()).await, &["acme/other is not among the repositories"]);
    rig.bench.sh("cd site && git remote set-url origin https://github.com/acme/site").await;

    // Somebody else has the branch.
    good(&rig.github(pull_request()).await, &["#1 opened"]);
    let branch = rig.forge.api.pulls()[0][2].clone();
    let tree = rig.forge.git(&["rev-parse", "main^{tree}"]);
    let identity = ["-c", "user.name=b", "-c", "user.email=b@b"];
    let other = rig.forge.git(&[&identity[..], &["commit-tree", "-p", &branch, "-m", "theirs", tree.trim()]].concat());
    rig.forge.git(&["update-ref", &format!("refs/heads/{branch}"), other.trim()]);
    rig.commit("more.txt", "three\n").await;
    let result = rig.github(pull_request()).await;
    bad(&result, &[&format!("Somebody else has pushed to {branch} meanwhile: GitHub has {}", &other[..10])]);
    assert_eq!(rig.forge.git(&["rev-parse", &branch]), other);

    rig.bench.sh("cd site && git checkout -q -b leak main").await;
    rig.commit("settings", &secret).await;
    bad(
        &rig.github(pull_request()).await,
        &["The push to agent/", "a file or message in it holds what looks like a GitHub token"],
    );
    assert_eq!(rig.forge.api.pulls().len(), 1);
    rig.bench.github = GitHub::default();
    bad(&rig.github(pull_request()).await, &["The server has no key for GitHub"]);
    rig.bench.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gh_reads_what_is_open_to_the_room_and_nothing_else() {
    let rig = Rig::new().await;
    let seen = rig
        .bench
        .sh("gh api repos/acme/site --jq .default_branch; for asked in 'api repos/acme/other' 'pr list -R acme/site' \
             'api -X POST repos/acme/site/issues/1/comments -f body=x' 'api user' 'api repos/acme/site/../other'; do \
             echo; echo \"$asked\"; gh $asked 2>&1; done; cat $GH_CONFIG_DIR/*; env")
        .await;
    for (asked, told) in [
        ("main", ""),
        ("api repos/acme/other", "`!grant acme/other 2h`"),
        ("pr list -R acme/site", "The tool `github` opens pull requests"),
        ("api -X POST repos/acme/site/issues/1/comments -f body=x", "gh only reads here"),
        ("api user", "gh only reads here"),
        ("api repos/acme/site/../other", "gh only reads here"),
    ] {
        let (_, behind) = seen.split_once(&format!("{asked}\n")).unwrap_or_else(|| panic!("{asked}: {seen}"));
        assert!(behind.split("\n\n").next().unwrap().contains(told), "{asked}: {seen}");
    }
    assert!(!seen.contains(TOKEN), "the key stays outside: {seen}");
    let asked = rig.forge.api.requests();
    let read: Vec<_> = asked.iter().filter(|line| line.as_str() == "GET /repos/acme/site").collect();
    assert_eq!(read.len(), 1, "nothing but that was asked: {asked:?}");
    assert!(rig.forge.api.comments().is_empty());
}
