//! The server killed with `kill -9` at every boundary of a push, a pull request, a comment and the answers to reviewers, while it
//! does them for somebody in a chat: there is one of each after it.
//!
//! `ROUNDS=25` makes 300 and more kills of the one for each boundary.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{runtime::Handle, task::block_in_place, time::timeout};

use crate::{
    asked::{code, is_card, rig, told},
    support::{
        forge::{Forge, Push},
        rig::{LIMIT, Rig, answers},
        scripted_llm::{Reply, results},
    },
};

/// Commits something new, in the branch of the pull request or in a new one.
const COMMIT: &str = "[ -d site ] || git clone -q https://github.com/acme/site; cd site && date +%s%N > work.txt && git add . && \
     git commit -q -m work && git rev-parse HEAD";

/// What is done, and where the server is killed while it is done.
const BOUNDARIES: [(Work, Kill); 13] = [
    (Work::Pull, Kill::At("github-intended")),
    (Work::Pull, Kill::At("card_asked")),
    (Work::Pull, Kill::At("card_ended")),
    (Work::Pull, Kill::Push(Push::Arrived)),
    (Work::Pull, Kill::Push(Push::Done)),
    (Work::Pull, Kill::At("github-pushed")),
    (Work::Pull, Kill::At("github-pull-looked")),
    (Work::Pull, Kill::At("github-pull-sent")),
    (Work::Pull, Kill::At("github-opened")),
    (Work::Comment, Kill::At("github-comment-looked")),
    (Work::Comment, Kill::At("github-comment-sent")),
    (Work::Answer, Kill::At("github-comment-sent")),
    (Work::Answer, Kill::At("github-replied")),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Pull,
    Comment,
    Answer,
}

#[derive(Clone, Copy, Debug)]
enum Kill {
    At(&'static str),
    Push(Push),
}

/// A model that does one work and tells what came of it.
fn works(request: &Value, thread: u64) -> Reply {
    let messages = request["messages"].as_array().unwrap();
    let asked = messages.iter().rposition(|message| message["role"] == "user").unwrap();
    let work = messages[asked]["content"].to_string();
    let turn = json!({"messages": messages[asked..]});
    match results(&turn)[..] {
        [] if work.contains("Pull") => {
            Reply::command(&format!("[ ! -d site ] || git -C site switch -q main; {COMMIT}"))
        }
        [] => Reply::command(COMMIT),
        [_] => {
            let (number, path) = (1, "site");
            Reply::calls(&[(
                "github",
                if work.contains("Pull") {
                    json!({"action": "pull_request", "title": "Work", "body": "It works.", "path": path})
                } else if work.contains("Comment") {
                    json!({"action": "comment", "number": number, "body": "Done.", "path": path})
                } else {
                    let body = format!("thread {thread}: So be it.\nthread {}: That too.", thread + 100);
                    json!({"action": "answer", "number": number, "body": body, "path": path})
                },
            )])
        }
        [.., last] => Reply::text(&format!("It came to this: {last}")),
    }
}

/// Keeps a server up until it is done, and returns how often it died.
fn keep(rig: &Rig, forge: &Forge, kill: Kill, runtime: &Handle, is_up: &AtomicBool, done: &AtomicBool) -> usize {
    let serve = || {
        let server = rig.serve();
        is_up.store(true, Ordering::SeqCst);
        server
    };
    let (mut server, mut deaths) = (serve(), 0);
    if let Kill::Push(_) = kill {
        runtime.block_on(async { timeout(LIMIT, forge.is_held()).await }).expect("a push arrives");
        server.kill();
        (server, deaths) = (serve(), 1);
    }
    while !done.load(Ordering::SeqCst) {
        if server.is_dead() {
            (server, deaths) = (serve(), deaths + 1);
        }
        thread::park_timeout(Duration::from_millis(5));
    }
    server.kill();
    deaths
}

/// Has a work done, with a kill in the midst of it; returns the answer.
fn round(rig: &Rig, forge: &Forge, work: Work, kill: Kill) -> String {
    let (is_up, done, runtime) = (AtomicBool::new(false), AtomicBool::new(false), Handle::current());
    if let Kill::Push(push) = kill {
        forge.hold(push);
    }
    let (answer, deaths) = thread::scope(|scope| {
        let keeper = scope.spawn(|| keep(rig, forge, kill, &runtime, &is_up, &done));
        while !is_up.load(Ordering::SeqCst) {
            thread::park_timeout(Duration::from_millis(5));
        }
        let mut chat = rig.ask("one", &format!("{work:?}"));
        let mut said = Vec::new();
        let answer = loop {
            let frame = chat.until("a card or the end", |frame| is_card(frame) || frame["event"] == "answer");
            if frame["event"] == "answer" {
                break frame["text"].as_str().unwrap().to_owned();
            }
            let code = code(&frame);
            if !said.contains(&code) {
                let _ = told(rig, &format!("!yes {code}"));
                said.push(code);
            }
        };
        let (_, frames) = chat.finish();
        done.store(true, Ordering::SeqCst);
        assert_eq!(
            (answers(&frames).len(), said.len()),
            (1, 1),
            "{work:?}, {kill:?}: one answer, one card: {frames:#?}"
        );
        (answer, keeper.join().unwrap())
    });
    assert_eq!(deaths, 1, "{work:?}, {kill:?}: {answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_of_each_wherever_the_server_is_killed() {
    let forge = Forge::with("README.md", "A site.\n").await;
    let (llm, mut rig) = rig(&forge).await;
    let thread = Arc::new(AtomicU64::new(0));
    let now = thread.clone();
    llm.otherwise(move |request| works(request, now.load(Ordering::SeqCst)));
    let rounds = std::env::var("ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    let (mut pulls, mut comments) = (0, 0);
    for (work, kill) in (0..rounds).flat_map(|_| BOUNDARIES) {
        let folder = tempfile::tempdir().unwrap();
        let point = if let Kill::At(point) = kill { point } else { "none" };
        rig.set("MATRIX_AGENT_CRASH_AT", &format!("{point}:{}", folder.path().display()));
        let threads = [1, 2].map(|_| forge.api.review_comment("rev", "work.txt", "Why?"));
        thread.store(threads[0], Ordering::SeqCst);
        if work != Work::Pull {
            // What is pushed belongs to the first pull request.
            let first = forge.api.pulls()[0][2].clone();
            block_in_place(|| rig.inside(&format!("cd /workspace/site && git switch -q {first}")));
        }
        let answer = block_in_place(|| round(&rig, &forge, work, kill));
        pulls += usize::from(work == Work::Pull);
        comments += usize::from(work == Work::Comment);
        let there = (forge.branches().len(), forge.api.pulls().len(), forge.api.comments().len());
        assert_eq!(there, (pulls, pulls, comments), "{work:?}, {kill:?}: {answer}");
        let answered = threads.map(|thread| forge.api.thread(thread).len() - 1);
        assert_eq!(answered, if work == Work::Answer { [1, 1] } else { [0, 0] }, "{work:?}, {kill:?}: {answer}");
        let says = match work {
            Work::Pull => format!("Pull request #{pulls} opened"),
            Work::Comment => "The comment is at ".to_owned(),
            Work::Answer => "2 threads of #1 are answered".to_owned(),
        };
        assert!(answer.contains(&says), "{work:?}, {kill:?}: {answer}");
    }
}
