//! A flood at the webhooks: forged, huge, slow and repeated requests, while people are answered and those who watch are told.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::hmac;
use matrix_agent::ids;
use serde_json::json;

use super::{
    get,
    support::{
        looker::Looker,
        rig::{LIMIT, answers, block_on, wait},
        scripted,
    },
    with_port,
};

const SECRET: &str = "the-secret-of-both-webhooks-0123456789abcdef";
/// The two webhooks, each with the most bytes that it takes.
const GITHUB: (&str, usize) = ("/webhook/github", 1 << 20);
const TALK: (&str, usize) = ("/webhook/nextcloud-talk", 2 << 20);
/// Threads that flood, and connections that each keeps open without a whole request.
const FLOODING: usize = 6;
const SLOW: usize = 40;
/// Connections that the server serves at once, each with a body in memory at the most.
const CONNECTIONS: usize = 128;
/// What the server may take besides.
const BESIDE: usize = 96 << 20;

#[test]
fn a_flood_of_the_webhooks_is_bounded_and_others_are_served() {
    let (llm, mut rig) = scripted();
    let address = with_port(&mut rig);
    let port = address.rsplit(':').next().unwrap().to_owned();
    for (key, value) in [
        ("GITHUB_TOKEN", "ghp_0123456789abcdefghijABCDEFGHIJ012345"),
        ("GITHUB_REPOS", "acme/site"),
        ("GITHUB_WEBHOOK_SECRET", SECRET),
        ("HTTP_NAMES", "agent.example.org/webhook"),
        ("RUST_LOG", "matrix_agent=info"),
    ] {
        rig.set(key, value);
    }
    let secrets = rig.path().join("s/secrets");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&secrets).unwrap();
    let file = fs::File::options().write(true).create_new(true).mode(0o600).open(secrets.join("nextcloud-talk.env"));
    let model = llm.base_url();
    let talk = format!(
        "NEXTCLOUD_URL=http://127.0.0.1:9\nMODEL_BASE_URL={model}\nMODEL_NAME=tiny\nBOT_PORT={port}\nBOT_SECRET={SECRET}\n"
    );
    file.unwrap().write_all(talk.as_bytes()).unwrap();
    llm.otherwise(|_| super::support::replies::Reply::text("I am here."));
    let server = rig.serve();
    let pid = server.pid();
    rig.ask("one", "Are you there?").finish();
    let before = resident(pid);

    let (over, port) = (Arc::new(AtomicBool::new(false)), port.parse::<u16>().unwrap());
    let flooding: Vec<_> = (0..FLOODING)
        .map(|number| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || flood(port, number, &over))
        })
        .collect();
    wait("the flood", || server.log().contains("not signed"));
    let looker = block_on(Looker::come_in(&rig, &address));
    let mut most = 0;
    for round in 0..5 {
        let (code, frames) = rig.ask("one", &format!("And now, for the {round}th time?")).finish();
        assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
        block_on(async {
            assert_eq!(get(&format!("{address}/readyz"), None).await.0, 200);
            assert!(looker.see("/dashboard").await.contains("terminal:one"));
        });
        most = most.max(resident(pid));
    }
    over.store(true, Ordering::Relaxed);
    let mut all = BTreeMap::<(&str, u16), usize>::new();
    for seen in flooding.into_iter().flat_map(|thread| thread.join().unwrap()) {
        *all.entry(seen.0).or_default() += seen.1;
    }
    // Nothing but what each of them deserves; 0 is a connection that gave way to another one.
    for (kind, status) in all.keys() {
        let deserved: &[u16] = match *kind {
            "forged" => &[0, 401],
            "huge" => &[0, 413],
            _ => &[0, 200, 202, 409],
        };
        assert!(deserved.contains(status), "{kind} {status}: {all:?}");
    }
    for (kind, status) in [("forged", 401), ("huge", 413), ("repeated", 409)] {
        assert!(all.contains_key(&(kind, status)), "no {kind} was answered with {status}: {all:?}");
    }
    let grown = most.saturating_sub(before);
    assert!(grown <= CONNECTIONS * TALK.1 + BESIDE, "{before} bytes of memory became {most}");
    assert!(server.log().len() < 1 << 20, "{} bytes of log", server.log().len());
    let database = rusqlite::Connection::open(rig.database()).unwrap();
    let stored = |what: &str| database.query_row(what, [], |row| row.get::<_, u32>(0)).unwrap();
    assert!(stored("SELECT count(*) FROM hooks") <= 1);
    assert_eq!(stored("SELECT count(*) FROM inbound WHERE room = 'talk:abc1'"), 1);
}

/// Sends one request after the other until it is over; returns how often each kind got which status.
fn flood(port: u16, number: usize, over: &AtomicBool) -> BTreeMap<(&'static str, u16), usize> {
    let mut seen = BTreeMap::new();
    let mut slow = Vec::new();
    let mut turn = number;
    while !over.load(Ordering::Relaxed) {
        turn += 1;
        let (path, largest) = if turn.is_multiple_of(2) { GITHUB } else { TALK };
        let (kind, status) = match turn % 8 {
            0 | 1 => ("forged", send(port, path, &"0".repeat(64), &vec![b'x'; largest / 2], None)),
            2 | 3 => ("huge", send(port, path, "", b"x", Some(30 << 20))),
            4 | 5 => ("repeated", repeated(port, path)),
            _ => {
                slow.truncate(SLOW - 1);
                slow.insert(0, half(port, path, largest));
                continue;
            }
        };
        *seen.entry((kind, status)).or_default() += 1;
    }
    seen
}

/// Sends the same good event as ever.
fn repeated(port: u16, path: &str) -> u16 {
    let body = if path == GITHUB.0 {
        json!({
            "action": "created", "issue": {"number": 12}, "repository": {"full_name": "acme/site"},
            "comment": {"id": 1, "body": "Hi", "user": {"login": "ann", "type": "User"}, "author_association": "MEMBER"},
        })
    } else {
        json!({
            "type": "Create", "actor": {"type": "Person", "id": "users/ada", "name": "Ada"},
            "object": {"type": "Note", "id": "7", "name": "message", "content": json!({"message": "@Halo hi", "parameters": []}).to_string()},
            "target": {"type": "Collection", "id": "abc1", "name": "world"},
        })
    };
    let body = body.to_string();
    let signed = if path == GITHUB.0 { body.clone() } else { format!("{}{body}", random()) };
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    send(port, path, &ids::hex(hmac::sign(&key, signed.as_bytes()).as_ref()), body.as_bytes(), None)
}

/// The random text of all signatures for Talk.
fn random() -> String {
    "r".repeat(64)
}

fn head(path: &str, signature: &str, length: usize) -> String {
    let random = random();
    format!(
        "POST {path} HTTP/1.1\r\nHost: agent.example.org\r\nX-GitHub-Event: issue_comment\r\nX-GitHub-Delivery: 1\r\n\
         X-Hub-Signature-256: sha256={signature}\r\nX-Nextcloud-Talk-Random: {random}\r\n\
         X-Nextcloud-Talk-Signature: {signature}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )
}

/// Sends a request, which may say that it is longer than it is; returns the status, or 0 if no answer came.
fn send(port: u16, path: &str, signature: &str, body: &[u8], length: Option<usize>) -> u16 {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return 0 };
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let head = head(path, signature, length.unwrap_or(body.len()));
    // The server may refuse before it has read all.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}

/// Begins a request that is as large as it may be, and never ends it.
fn half(port: u16, path: &str, largest: usize) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let _ = stream.write_all(head(path, &"0".repeat(64), largest).as_bytes());
    let _ = stream.write_all(&vec![b'x'; largest - 1]);
    Some(stream)
}

/// Bytes of a process's memory.
fn resident(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() << 10
}
