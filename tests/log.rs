//! The server's log: each line that concerns an account or a room says which, and each line of a turn says which turn.

mod support;

use std::{collections::BTreeSet, fs, process::Command};

use matrix_agent::ids::Address;
use serde_json::{Value, json};
use support::{
    rig::{BARE, Rig, answers, block_on, wait},
    scripted_llm::{Reply, ScriptedLlm},
};
use wiremock::{Mock, MockServer, ResponseTemplate, matchers::path};

/// Somebody other than sandboxd at the room's socket, and a host that is not allowed at the gateway.
const MISCHIEF: &str = "perl -MSocket -e 'socket(my $s, PF_UNIX, SOCK_STREAM, 0); \
                        connect($s, sockaddr_un(\"/run/matrix-agent/sock\")); read($s, my $b, 1)'; \
                        exec 3<>/dev/tcp/127.0.0.1/3128; \
                        printf 'GET http://evil.org/ HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3";
/// The modules whose work is always some room's while no server starts or ends.
const OF_ROOMS: [&str; 8] = ["bots", "chat", "gateway", "hub", "llm", "orchestrator", "sandbox", "tools"];

/// A line of the log: the spans that it stands in, the module that wrote it, and what it says.
#[derive(Debug)]
struct Line<'a> {
    spans: &'a str,
    module: &'a str,
    says: &'a str,
}

impl<'a> Line<'a> {
    /// Reads a line of this program's own.
    fn read(line: &'a str) -> Option<Self> {
        let at = line.find(" matrix_agent::")? + 1;
        let (target, says) = line[at..].split_once(": ")?;
        let module = target.split("::").nth(1)?;
        Some(Self { spans: &line[..at], module, says })
    }
}

#[test]
fn each_line_of_a_rooms_work_names_the_room_and_of_a_turns_the_turn() {
    let llm = block_on(ScriptedLlm::start());
    let mut rig = Rig::new(BARE, llm.base_url());
    llm.when("mischief")
        .reply(Reply::Status(500, vec![("retry-after-ms", "1".into())], String::new()))
        .reply(Reply::command(MISCHIEF))
        .reply_text("Done.");
    llm.when("again").reply(Reply::command("true")).reply_text("Done again.");
    llm.when("in vain").reply(Reply::Status(401, vec![], String::new()));

    let server = rig.serve();
    let start = server.log().len();
    let (code, frames) = rig.ask("one", "mischief").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    end_container(&rig);
    wait("the end to be noticed", || server.log().contains("a sandbox ended by itself"));
    let first = server.log()[start..].to_owned();
    drop(server);

    rig.set("SANDBOX_MEMORY", "300m");
    let server = rig.serve();
    let start = server.log().len();
    let (code, frames) = rig.ask("one", "again").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let (code, frames) = rig.ask("two", "in vain").finish();
    assert_eq!((code, answers(&frames).len()), (1, 1), "{frames:#?}");
    // A file where the room's folder of pictures should be: the order cannot remove it.
    let pictures = rig.path().join("s/pictures");
    fs::create_dir_all(&pictures).unwrap();
    fs::write(pictures.join(Address::of_first("terminal:two").digest(16)), "").unwrap();
    assert_eq!(rig.ask("two", "!new").finish().0, 0);
    let log = first + &server.log()[start..];

    let lines: Vec<_> = log.lines().filter_map(Line::read).filter(|line| OF_ROOMS.contains(&line.module)).collect();
    let nameless: Vec<_> = lines.iter().filter(|line| !line.spans.contains(" room{room=terminal:")).collect();
    assert!(nameless.is_empty(), "lines that name no room: {nameless:#?}");
    let of_turns = |line: &&Line| matches!(line.module, "llm" | "orchestrator" | "tools");
    let outside: Vec<_> = lines.iter().filter(of_turns).filter(|line| !line.spans.contains("}:turn{turn=")).collect();
    assert!(outside.is_empty(), "lines that name no turn: {outside:#?}");

    // What stands behind each of these is another way by which work gets from where it is asked for to where it is done.
    for (says, room, of) in [
        ("asking the model again", "one", "turn{turn="),
        ("the turn is answered", "one", "turn{turn="),
        ("image or limits changed", "one", "turn{turn="),
        ("the model failed", "two", "turn{turn="),
        ("the room's pictures could not be removed", "two", "order{event="),
        ("sandboxd connected", "one", ""),
        ("not its PID 1 connected and was turned away", "one", ""),
        ("host=evil.org", "one", ""),
        ("a sandbox ended by itself", "one", ""),
    ] {
        let line = lines.iter().find(|line| line.says.contains(says)).unwrap_or_else(|| panic!("no {says:?} in {log}"));
        let inner = format!("room{{room=terminal:{room}}}:{of}");
        assert!(line.spans.contains(&inner), "{line:?} does not stand in {inner}");
        assert_eq!(line.spans.matches("room{").count(), 1, "the room is named once: {line:?}");
    }
    let turns: BTreeSet<_> =
        lines.iter().filter_map(|line| line.spans.split_once("turn{")).map(|turn| turn.1).collect();
    assert_eq!(turns.len(), 3, "each turn has its own name: {turns:?}");
}

/// Stands in the model's key, in what people say, in a tool's call and its result, and in the answer.
const CANARY: &str = "canary";

#[test]
fn in_both_forms_the_log_of_a_real_turn_holds_neither_a_secret_nor_what_was_said() {
    let llm = block_on(ScriptedLlm::start());
    let mut rig = Rig::new(BARE, llm.base_url());
    rig.set("LLM_API_KEY", &format!("sk-{CANARY}-key"));
    llm.otherwise(|request| {
        let last = request["messages"].as_array().unwrap().last().unwrap();
        match last["role"].as_str() {
            Some("tool") => Reply::text(&format!("The {CANARY} sings.")),
            _ => Reply::command(&format!("echo {CANARY} >&2; echo {CANARY} > file; cat file; cat no-{CANARY}")),
        }
    });
    for format in ["json", "pretty"] {
        rig.set("LOG_FORMAT", format);
        // A provider may quote what it refuses.
        let question = format!("in vain, {CANARY}, whatever the provider says of it");
        let quoted = json!({ "error": { "message": format!("I cannot answer “{question}” with such a key") } });
        llm.when("in vain").reply(Reply::Status(401, vec![], quoted.to_string()));
        let server = rig.serve();
        let start = server.log().len();
        let (code, frames) = rig.ask("one", &format!("Where is the {CANARY} in {format}?")).finish();
        assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
        assert_eq!(rig.ask("two", &question).finish().0, 1);
        assert!(serde_json::to_string(&frames).unwrap().contains(CANARY), "it was said: {frames:#?}");
        let log = server.stop()[start..].to_owned();
        assert!(!log.contains(CANARY), "{log}");
        let of_turn = |line: &str| line.contains("the turn is answered");
        assert_eq!(log.lines().filter(|line| of_turn(line)).count(), 2, "{log}");
        if format == "json" {
            for line in log.lines() {
                let read: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                assert!(read["timestamp"].is_string() && read["level"].is_string(), "{line}");
                assert!(read["fields"]["message"].is_string() && read["target"].is_string(), "{line}");
                let of =
                    |field: &str| read["spans"].as_array().into_iter().flatten().find_map(|span| span[field].as_str());
                let module = read["target"].as_str().unwrap_or_default().split("::").nth(1).unwrap_or_default();
                let in_turn = matches!(module, "llm" | "orchestrator" | "tools");
                assert!(!in_turn || of("turn").is_some(), "{line}");
                assert!(!in_turn || of("room").is_some_and(|room| room.starts_with("terminal:")), "{line}");
            }
        }
    }
}

/// A homeserver that knows logins by password and answers each so.
async fn homeserver(status: u16, errcode: &str) -> MockServer {
    let server = MockServer::start().await;
    let versions = ResponseTemplate::new(200).set_body_json(json!({ "versions": ["v1.11"] }));
    Mock::given(path("/_matrix/client/versions")).respond_with(versions).mount(&server).await;
    let answer = ResponseTemplate::new(status).set_body_json(json!({ "errcode": errcode, "error": "not now" }));
    Mock::given(path("/_matrix/client/v3/login")).respond_with(answer).mount(&server).await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_of_an_accounts_work_names_the_account() {
    let llm = ScriptedLlm::start().await;
    let (away, refuses) = (homeserver(500, "M_UNKNOWN").await, homeserver(403, "M_FORBIDDEN").await);
    let mut rig = Rig::new(BARE, llm.base_url());
    for (key, value) in [("MATRIX_HOMESERVER", &*away.uri()), ("MATRIX_USER", "@a:b.org"), ("MATRIX_PASSWORD", "x")] {
        rig.set(key, value);
    }
    rig.configure(&format!(
        "[accounts.two]\nuser = \"@two:b.org\"\nhomeserver = \"{}\"\npassword = \"y\"\n",
        refuses.uri()
    ));
    let log = tokio::task::block_in_place(|| rig.serve().stop());
    let lines: Vec<_> = log.lines().filter_map(Line::read).filter(|line| line.module == "chat").collect();
    let nameless: Vec<_> = lines.iter().filter(|line| !line.spans.contains(" account{account=")).collect();
    assert!(nameless.is_empty(), "lines that name no account: {nameless:#?}");
    for (account, says) in [
        ("coder", "there is no session yet"),
        ("coder", "the account `coder` hears nobody"),
        ("two", "the account cannot be served"),
        ("two", "the account `two` hears nobody"),
    ] {
        let span = format!(" account{{account={account}}}: matrix_agent::");
        assert!(log.lines().any(|line| line.contains(&span) && line.contains(says)), "{account}: {says}: {log}");
    }
}

/// Ends the room's container as an operator might.
fn end_container(rig: &Rig) {
    let listed = rig.run(&["sandbox", "list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let name = listed[0]["name"].as_str().unwrap_or_else(|| panic!("{}", json!(listed)));
    assert!(Command::new("podman").args(["kill", name]).output().unwrap().status.success());
}
