//! From a label at GitHub to a pull request and its mended check: the server in a process of its own, signed events, a scripted API in
//! front of a real git server, a scripted model, a real sandbox.

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::hmac;
use matrix_agent::{
    clock::Clock,
    config::{Sources, load},
    llm::Model,
    ops::{House, Served, matrix_login, model_settings},
};
use matrix_sdk::ruma::OwnedRoomId;
use serde_json::{Value, json};
use support::{
    bot::Town,
    forge::{self, Forge},
    github::Fault,
    rig::{FULL, Rig, free_port, wait},
    scripted_llm::{Reply, ScriptedLlm},
    seen::Seal,
    synapse::{Limits, Synapse},
};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

const SECRET: &str = "the-secret-of-the-webhook";

#[test]
#[ignore = "started by the other tests as the process that they kill"]
fn serves() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).with_ansi(false).init();
    Runtime::new().unwrap().block_on(async {
        let mut terminate = signal(SignalKind::terminate()).unwrap();
        let none = Some(PathBuf::from("/dev/null"));
        let loaded = load(&Sources::of_process(none.clone(), none).unwrap());
        assert!(loaded.mistakes.is_empty(), "{}", loaded.mistakes);
        let config = &loaded.config;
        let mut house = House::open_in(config, Clock::default(), forge::network(), forge::way).await.unwrap();
        house.listen_http(config).await.unwrap();
        let coder = house.coder(config, Model::new(model_settings(config)).unwrap()).unwrap();
        let first =
            Served { name: "coder".into(), bots: vec![Arc::new(coder)], login: matrix_login(config), terminals: true };
        let server = house.serve(vec![first]).await.unwrap();
        sd_notify::notify(&[sd_notify::NotifyState::Ready]).unwrap();
        terminate.recv().await;
        server.shutdown().await;
    });
}

/// GitHub with `acme/site`, a model that works on it, and how the server is started.
struct World {
    forge: Forge,
    rig: Rig,
    llm: ScriptedLlm,
    port: u16,
    /// In which GitHub and the model live.
    _runtime: Runtime,
}

/// Lets a rig serve with the webhook and this GitHub; returns the webhook's port.
fn served(rig: &mut Rig, forge: &Forge) -> u16 {
    forge.known_to(rig);
    let port = free_port();
    for (key, value) in [
        ("SANDBOX_IMAGE", FULL),
        ("GITHUB_WEBHOOK_SECRET", SECRET),
        ("GITHUB_FIX_ROUNDS", "1"),
        ("HTTP_LISTEN", &port.to_string()),
        ("HTTP_NAMES", "agent.example.org/webhook"),
    ] {
        rig.set(key, value);
    }
    let this = std::env::current_exe().unwrap();
    rig.serve_with(this, &["--ignored", "--exact", "serves", "--nocapture"]);
    port
}

impl World {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let (forge, llm) = runtime.block_on(async { (Forge::with("a.txt", "a").await, ScriptedLlm::start().await) });
        llm.otherwise(model);
        let mut rig = Rig::new(FULL, llm.base_url());
        let port = served(&mut rig, &forge);
        Self { forge, rig, llm, port, _runtime: runtime }
    }

    /// Sends an event as GitHub does, and returns the status; 0 if no answer came.
    fn send(&self, kind: &str, delivery: &str, event: &Value) -> u16 {
        let body = event.to_string();
        let signature = signed(body.as_bytes());
        self.post("agent.example.org", kind, delivery, &signature, body.as_bytes())
    }

    fn post(&self, host: &str, kind: &str, delivery: &str, signature: &str, body: &[u8]) -> u16 {
        post(self.port, host, kind, delivery, signature, body)
    }

    /// The comments on an issue, without their marks.
    fn comments(&self, issue: u64) -> Vec<String> {
        let comments = self.forge.api.comments().into_iter().filter(|(number, _)| *number == issue);
        comments.map(|(_, text)| text.split("\n\n<!--").next().unwrap().to_owned()).collect()
    }

    fn branch(&self) -> String {
        self.forge.git(&["rev-parse", "agent/gh-12"]).trim().to_owned()
    }

    /// How often the rooms were told something with these words.
    fn told(&self, words: &str) -> u32 {
        let database = rusqlite::Connection::open(self.rig.database()).unwrap();
        let count = "SELECT count(*) FROM outbox WHERE instr(payload, ?1)";
        database.query_row(count, [words], |row| row.get(0)).unwrap()
    }

    /// How many issues were opened in a room.
    fn opened_in(&self, room: &str) -> u32 {
        let database = rusqlite::Connection::open(self.rig.database()).unwrap();
        let count = "SELECT count(*) FROM outbox WHERE room = ?1 AND instr(payload, 'made a task by')";
        database.query_row(count, [room], |row| row.get(0)).unwrap()
    }

    fn wait_for(&self, what: &str, server: &support::rig::Server, holds: impl Fn() -> bool) {
        let begun = std::time::Instant::now();
        wait(what, || {
            let in_time = begun.elapsed() + Duration::from_secs(2) < support::rig::LIMIT;
            assert!(in_time, "{what}: {:?}\n{}", self.forge.api.comments(), server.log());
            holds()
        });
    }
}

/// Sends an event to the server of a port; returns the status, or 0 if no answer came.
fn post(port: u16, host: &str, kind: &str, delivery: &str, signature: &str, body: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(support::rig::LIMIT)).unwrap();
    let head = format!(
        "POST /webhook/github HTTP/1.1\r\nHost: {host}\r\nX-GitHub-Event: {kind}\r\nX-GitHub-Delivery: {delivery}\r\n\
         X-Hub-Signature-256: {signature}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // The server may refuse before it has read all.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

fn signed(body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("sha256={}", matrix_agent::ids::hex(hmac::sign(&key, body).as_ref()))
}

/// Does what a task asks for, however often it is asked.
fn model(request: &Value) -> Reply {
    let last = request["messages"].as_array().unwrap().last().unwrap();
    let text = last["content"].as_str().unwrap_or_default();
    if last["role"] == "tool" {
        if text.contains("Pull request #1") {
            return Reply::text("It is done, @everybody.");
        }
        let pull = json!({"action": "pull_request", "title": "Fix the login", "body": "Closes #12", "path": "site"});
        return Reply::calls(&[("github", pull)]);
    }
    if text.contains("[GitHub reports: the check `test` of pull request #1") {
        return Reply::command("cd site && echo mended >> fix.txt && git commit -qam Mend");
    }
    if text.contains("[Task gh-12:") {
        return Reply::command(
            "[ -d site ] || git clone -q https://github.com/acme/site; cd site; git switch -qc agent/gh-12; \
             echo fixed > fix.txt; git add . && git commit -qm Fix; git status",
        );
    }
    Reply::text(&format!("Which page, please? {}", text.len()))
}

fn labeled(issue: u64, title: &str, by: &str, association: &str) -> Value {
    json!({
        "action": "labeled",
        "label": {"name": "agent-task"},
        "issue": {
            "number": issue, "title": title, "body": "It fails for everybody.", "state": "open",
            "user": {"login": "ann", "type": "User"}, "author_association": association,
        },
        "repository": {"full_name": "Acme/Site"},
        "sender": {"login": by, "type": "User"},
    })
}

fn commented(issue: u64, id: u64, by: &str, text: &str) -> Value {
    json!({
        "action": "created",
        "issue": {"number": issue},
        "comment": {"id": id, "body": text, "user": {"login": by, "type": "User"}, "author_association": "MEMBER"},
        "repository": {"full_name": "acme/site"},
    })
}

/// The same event in `acme/private`.
fn in_private(mut event: Value) -> Value {
    event["repository"]["full_name"] = "acme/private".into();
    event
}

fn reviewed(id: u64, by: &str) -> Value {
    json!({
        "action": "submitted",
        "review": {"id": id, "body": "Nearly.", "user": {"login": by, "type": "User"}, "author_association": "MEMBER"},
        "pull_request": {"number": 1},
        "repository": {"full_name": "acme/site"},
    })
}

fn failed(commit: &str, name: &str) -> Value {
    json!({
        "action": "completed",
        "check_run": {
            "name": name, "head_sha": commit, "conclusion": "failure", "check_suite": {"head_branch": "agent/gh-12"},
        },
        "repository": {"full_name": "acme/site"},
    })
}

const BEGUN: &str = "I am working on this.";
const DONE: &str = "Pull request: https://github.com/acme/site/pull/1\n\nIt is done, @\u{2060}everybody.";

#[test]
fn a_label_becomes_a_pull_request_and_a_failed_check_is_mended_once() {
    let world = World::new();
    let server = world.rig.serve();
    assert_eq!(world.send("issues", "1", &labeled(12, "Fix the login", "ben", "MEMBER")), 202);
    world.wait_for("the pull request", &server, || world.comments(12).len() == 2);
    let comments = world.comments(12);
    assert!(comments[0].starts_with(BEGUN) && comments[1] == DONE, "{comments:?}");
    let [title, body, branch, base, _] = &world.forge.api.pulls()[0];
    assert_eq!([title, branch, base].map(String::as_str), ["Fix the login", "agent/gh-12", "main"]);
    assert!(body.contains("Closes #12") && body.contains("`github:ann`"), "{body}");
    let first = world.branch();

    // Two checks of one commit begin one round, an older commit's none, and there is no second one.
    assert_eq!(world.send("check_run", "2", &failed(&first, "test")), 202);
    assert_eq!(world.send("check_run", "3", &failed(&first, "lint")), 202);
    world.wait_for("the mended branch", &server, || world.branch() != first);
    world.wait_for("the round's end", &server, || world.comments(12).len() == 3);
    let second = world.branch();
    assert_eq!(world.send("check_run", "4", &failed(&first, "late")), 202);
    assert_eq!(world.send("check_run", "5", &failed(&second, "test")), 202);
    // The same label once more, and somebody's question behind it, which shows that nothing else came of those before.
    assert_eq!(world.send("issues", "6", &labeled(12, "Fix the login now", "ben", "MEMBER")), 202);
    assert_eq!(world.send("issue_comment", "7", &commented(12, 1, "ben", "What about the logout?")), 202);
    world.wait_for("the answer", &server, || world.comments(12).len() == 4);
    assert!(world.comments(12)[3].contains("Which page, please?"), "{:?}", world.comments(12));
    assert_eq!((world.branch(), world.forge.api.pulls().len()), (second, 1));
    let asked = world.llm.requests().iter().map(Value::to_string).collect::<String>();
    assert!(asked.contains("This is round 1 of 1") && !asked.contains("This is round 2"), "there is no second round");
    let tried = "I have tried to mend its checks 1 times";
    world.wait_for("that it was tried", &server, || world.told(tried) == 1);
    assert!(asked.contains("[github:ben commented on issue #12:]") && !asked.contains("check `late`"), "{asked}");
}

#[test]
fn a_review_is_one_piece_of_work_and_of_what_was_closed_the_room_is_told() {
    let world = World::new();
    let server = world.rig.serve();
    assert_eq!(world.send("issues", "1", &labeled(12, "Fix the login", "ben", "MEMBER")), 202);
    world.wait_for("the pull request", &server, || world.comments(12).len() == 2);
    assert_eq!(world.send("pull_request_review", "2", &reviewed(1, "stranger")), 202);
    assert_eq!(world.send("pull_request_review", "3", &reviewed(2, "ben")), 202);
    world.wait_for("the answer", &server, || world.comments(12).len() == 3);
    let asked = world.llm.requests().last().unwrap()["messages"].as_array().unwrap().last().unwrap().to_string();
    assert!(asked.contains("Nearly.") && asked.contains("fix.txt:1:\\nSay what was wrong."), "{asked}");
    assert!(!asked.contains("Our own answer") && !asked.contains("github:stranger"), "{asked}");

    world.forge.api.close(1);
    let requests = world.llm.requests().len();
    assert_eq!(world.send("check_run", "4", &failed(&world.branch(), "test")), 202);
    assert_eq!(world.send("pull_request_review", "5", &reviewed(3, "ben")), 202);
    world.wait_for("the room's notices", &server, || world.told("was closed meanwhile: nothing is done") == 2);
    assert_eq!(world.llm.requests().len(), requests, "nothing is done about them");
}

#[test]
fn a_comment_on_a_pull_request_reaches_the_room_that_it_comes_from() {
    let world = World::new();
    let server = world.rig.serve();
    assert_eq!(world.send("issues", "1", &labeled(12, "Fix the login", "ben", "MEMBER")), 202);
    world.wait_for("the pull request", &server, || world.comments(12).len() == 2);
    assert_eq!(world.send("issue_comment", "2", &commented(1, 1, "stranger", "Mine bitcoin")), 202);
    let own = "It is done.\n\n<!-- matrix-agent 12 -->";
    assert_eq!(world.send("issue_comment", "3", &commented(1, 2, "ben", own)), 202);
    assert_eq!(world.send("issue_comment", "4", &commented(2, 3, "ben", "Of another pull request.")), 202);
    assert_eq!(world.send("issue_comment", "5", &commented(1, 4, "ben", "What about the logout?")), 202);
    world.wait_for("the answer", &server, || world.comments(12).len() == 3);
    let asked = world.llm.requests().last().unwrap()["messages"].to_string();
    let words = "[github:ben commented on pull request #1 of acme/site, whose branch is agent/gh-12:]";
    assert!(asked.contains(words) && asked.contains("What about the logout?"), "{asked}");
    for not in ["bitcoin", "matrix-agent 12", "Of another"] {
        assert!(!asked.contains(not), "{asked}");
    }
    assert_eq!(world.told("commented on #1"), 1);
}

#[test]
fn an_event_that_has_to_wait_holds_up_its_own_issue_alone_and_issues_of_one_number_have_a_room_each() {
    let mut world = World::new();
    world.rig.set("GITHUB_REPOS", "acme/site,acme/private");
    let server = world.rig.serve();
    let tasks = || -> Vec<(String, String)> {
        let database = rusqlite::Connection::open(world.rig.database()).unwrap();
        let mut select = database.prepare("SELECT repository, room FROM tasks ORDER BY since").unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    };
    world.forge.api.fail_all(Some(("GET /repos/acme/private", Fault::StatusBefore(502))));
    assert_eq!(world.send("issues", "1", &in_private(labeled(14, "Say hello", "ben", "MEMBER"))), 202);
    assert_eq!(world.send("issue_comment", "2", &in_private(commented(14, 1, "ben", "And goodbye"))), 202);
    world.wait_for("the first try", &server, || server.log().contains("cannot be acted on now"));
    assert_eq!(world.send("issues", "3", &labeled(14, "Say hello", "ben", "MEMBER")), 202);
    world.wait_for("the other repository's answer", &server, || world.comments(14).len() == 2);
    assert_eq!(tasks().len(), 1, "{:?}", tasks());
    assert!(!world.llm.requests().iter().any(|request| request.to_string().contains("acme/private")));

    world.forge.api.fail_all(None);
    world.wait_for("what had to wait", &server, || world.comments(14).len() >= 4);
    let has = |words: &str| world.llm.requests().iter().any(|request| request.to_string().contains(words));
    world.wait_for("the comment behind it", &server, || has("And goodbye"));
    let tasks = tasks();
    let names: Vec<_> = tasks.iter().map(|(repository, _)| repository.as_str()).collect();
    assert_eq!(names, ["acme/site", "acme/private"]);
    assert_ne!(tasks[0].1, tasks[1].1);
    for (_, room) in &tasks {
        assert!(world.opened_in(room) == 1, "{tasks:?}");
    }
}

#[test]
fn who_may_not_is_not_heard_and_nothing_forged_or_repeated_is_acted_on() {
    let world = World::new();
    let server = world.rig.serve();
    let event = labeled(12, "Fix the login", "ben", "MEMBER");
    let body = event.to_string();
    let forged = signed(b"something else");
    for (host, signature, body, status) in [
        ("agent.example.org", &*forged, body.as_bytes(), 401),
        ("agent.example.org", "", body.as_bytes(), 401),
        ("agent.example.org", &signed(&vec![b'x'; 30 << 20]), &vec![b'x'; 30 << 20], 413),
        ("evil.example.org", &signed(body.as_bytes()), body.as_bytes(), 421),
        ("agent.example.org", &signed(b"{}"), b"{}", 400),
        ("agent.example.org", &signed(b"no JSON"), b"no JSON", 400),
    ] {
        let got = world.post(host, "issues", "1", signature, body);
        // What is refused before it is read may break the connection before the answer is read.
        assert!(got == status || status == 413 && got == 0, "{status}: {got}");
    }
    let stranger = labeled(12, "Mine bitcoin", "stranger", "MEMBER");
    assert_eq!(world.send("issues", "2", &stranger), 202);
    assert_eq!(world.send("issues", "3", &labeled(13, "Mine bitcoin", "ben", "NONE")), 202);
    assert_eq!(world.send("issue_comment", "4", &commented(14, 1, "stranger", "!grant acme/site push room")), 202);
    // Taken once, whatever its delivery is called; and a delivery is one event.
    assert_eq!(world.send("issues", "5", &labeled(14, "Say hello", "ben", "OWNER")), 202);
    assert_eq!(world.send("issues", "6", &labeled(14, "Say hello", "ben", "OWNER")), 409);
    assert_eq!(world.send("issues", "5", &labeled(15, "Say hello", "ben", "OWNER")), 409);
    assert_eq!(world.send("issue_comment", "7", &commented(14, 2, "stranger", "Mine bitcoin")), 202);
    assert_eq!(world.send("issue_comment", "8", &commented(14, 3, "ben", "!grant acme/site push room")), 202);
    world.wait_for("the answers", &server, || world.comments(14).len() == 3);
    let comments = world.comments(14);
    assert!(
        comments[1].contains("Which page") && comments[2].contains("Which page"),
        "what ben says is no order: {comments:?}"
    );
    assert_eq!(world.forge.api.comments().len(), 3, "{:?}", world.forge.api.comments());
    let asked = world.llm.requests().iter().map(Value::to_string).collect::<String>();
    assert!(!asked.contains("bitcoin"));
    assert!(server.log().contains("somebody who may not"));
}

#[test]
fn one_of_each_wherever_it_is_killed() {
    for point in ["hook-stored", "task-made", "task-begun", "github-comment-sent", "github-pull-sent", "issue-told"] {
        let mut world = World::new();
        let crash = format!("{point}:{}", world.rig.path().display());
        world.rig.set("MATRIX_AGENT_CRASH_AT", &crash);
        let mut server = world.rig.serve();
        let event = labeled(12, "Fix the login", "ben", "MEMBER");
        let sent = world.send("issues", "1", &event);
        assert_eq!(server.died().signal(), Some(9), "at {point}");
        let server = world.rig.serve();
        if sent == 0 {
            assert_eq!(world.send("issues", "1", &event), 409, "its answer was lost, at {point}");
        }
        world.wait_for(point, &server, || world.comments(12).len() == 2);
        let comments = world.comments(12);
        assert!(comments[0].starts_with(BEGUN) && comments[1] == DONE, "at {point}: {comments:?}");
        assert_eq!(world.forge.api.pulls().len(), 1, "at {point}");
    }
}

#[test]
fn a_failed_check_is_mended_once_wherever_it_is_killed() {
    for point in ["round-counted", "round-begun"] {
        let mut world = World::new();
        let crash = format!("{point}:{}", world.rig.path().display());
        world.rig.set("MATRIX_AGENT_CRASH_AT", &crash);
        let mut server = world.rig.serve();
        assert_eq!(world.send("issues", "1", &labeled(12, "Fix the login", "ben", "MEMBER")), 202);
        world.wait_for("the pull request", &server, || world.comments(12).len() == 2);
        let first = world.branch();
        world.send("check_run", "2", &failed(&first, "test"));
        assert_eq!(server.died().signal(), Some(9), "at {point}");
        let server = world.rig.serve();
        world.wait_for("the round's end", &server, || world.comments(12).len() == 3);
        let commits = world.forge.git(&["log", "--format=%s", "main..agent/gh-12"]);
        assert_eq!(commits, "Mend\nFix\n", "at {point}");
        assert_eq!(world.forge.pushes(), 2, "at {point}");
        assert_eq!(world.told("The check `test` of #1 failed. I am looking into it."), 1, "at {point}");
        assert_eq!(world.forge.api.pulls().len(), 1, "at {point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_matrix_a_task_has_a_room_of_its_own_to_which_people_are_invited() {
    let (forge, synapse, llm) =
        tokio::join!(Forge::with("a.txt", "a"), Synapse::configured(Limits::Relaxed, ""), ScriptedLlm::start());
    llm.otherwise(model);
    let mut port = 0;
    let town = Town::on(synapse, llm, |rig| port = served(rig, &forge)).await;
    let event = labeled(12, "Fix the login", "ben", "MEMBER").to_string();
    let room = tokio::task::block_in_place(|| {
        let status = post(port, "agent.example.org", "issues", "1", &signed(event.as_bytes()), event.as_bytes());
        assert_eq!(status, 202);
        let mut room = None;
        wait("the task's room", || {
            let database = rusqlite::Connection::open(town.rig.database()).unwrap();
            room = database.query_row("SELECT room FROM tasks", [], |row| row.get::<_, String>(0)).ok();
            room.is_some()
        });
        room.unwrap()
    });
    let room = OwnedRoomId::try_from(room).unwrap();
    town.anna.accept(&room).await;
    let said = |what: &'static str| {
        let (room, bot) = (room.to_string(), town.bot.clone());
        town.anna.wait_for(what, move |seen| seen.room == room && seen.sender == bot && seen.body().contains(what))
    };
    let opened = said("gh-12: Fix the login").await;
    assert!(opened.body().contains("> It fails for everybody."), "{}", opened.body());
    let answer = said("It is done, @everybody.").await;
    assert!(answer.seal != Seal::Plain, "all of it is encrypted");
    assert_eq!(forge.api.pulls().len(), 1);
    // Who was invited may go on there.
    let asked = town.anna.say(&room, "And the logout?").await;
    let told = town.anna.answer_to(&asked).await;
    assert!(told.body().contains("Which page"), "{}", told.body());
}
