//! What becomes of whoever breaks the protocol, or is not who may speak it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use matrix_agent::sandbox::{Command, Exit, Link, LinkState, Lookup, SandboxError, User};
use sandboxd::{
    frame,
    protocol::{Event, Opening, ProxyKind, Range, Request, Run},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::room::{LIMIT, Room, command, is_gvisor, output, shell};

/// A link whose peer is this very process, and a connection to it.
async fn pretend(first: &[u8]) -> (tempfile::TempDir, Link, UnixStream) {
    let dir = tempfile::tempdir().unwrap();
    let (sender, _) = mpsc::channel(1);
    let link = Link::bind(dir.path(), sender, &CancellationToken::new()).unwrap();
    link.set_peer(Some(std::process::id()));
    let mut stream = UnixStream::connect(dir.path().join("sock")).await.unwrap();
    stream.write_all(first).await.unwrap();
    (dir, link, stream)
}

fn hello(min: u32, max: u32) -> Vec<u8> {
    let (build, boot_id) = ("b".into(), "boot".into());
    frame::encode(&Opening::Hello { protocol: Range { min, max }, build, boot_id, proof: None })
}

async fn fault(link: &Link) -> String {
    match link.connected(LIMIT).await {
        Err(SandboxError::Fault(why)) => why,
        other => panic!("{other:?}"),
    }
}

async fn hung_up(stream: &mut UnixStream) -> bool {
    // With bytes of ours unread it is a reset, else an end.
    timeout(LIMIT, stream.read(&mut [0; 64])).await.is_ok_and(|read| !matches!(read, Ok(1..)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_the_server_does_not_speak_is_refused_in_plain_words() {
    let (dir, link, mut stream) = pretend(&hello(90, 91)).await;
    let why = fault(&link).await;
    assert!(why.starts_with("the sandbox speaks protocol 90 to 91, this server 2 to 3: remove the sandbox"), "{why}");
    let mut answer = vec![0; 256];
    let length = timeout(LIMIT, stream.read(&mut answer)).await.unwrap().unwrap();
    let (answer, _) = frame::decode::<Request>(&answer[..length], frame::TO_SANDBOXD).unwrap().unwrap();
    assert_eq!(answer, Request::Refused { supported: Range { min: 2, max: 3 } });

    // A newer one that still speaks ours is welcome, and clears the fault.
    let mut stream = UnixStream::connect(dir.path().join("sock")).await.unwrap();
    stream.write_all(&hello(1, 91)).await.unwrap();
    let sandbox = timeout(LIMIT, async {
        loop {
            match link.current() {
                Some(sandbox) => break sandbox,
                None => tokio::task::yield_now().await,
            }
        }
    });
    assert_eq!(sandbox.await.unwrap().boot_id(), "boot");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_the_connection_and_nothing_else() {
    for first in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\xff\xff\xff\xff", b"\0\0\0\x02{}", b"\0\0\x10\x01"] {
        let (_dir, link, mut stream) = pretend(first).await;
        assert!(fault(&link).await.starts_with("the sandbox sent what sandboxd does not send"));
        assert!(hung_up(&mut stream).await);
    }
    // After the greeting too; whoever waits on the connection is told.
    for garbage in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x04oops"] {
        let (_dir, link, mut stream) = pretend(&hello(2, 2)).await;
        let sandbox = link.connected(LIMIT).await.unwrap();
        let process = sandbox.spawn(shell("true")).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        assert!(matches!(timeout(LIMIT, process.wait()).await.unwrap(), Err(SandboxError::Disconnected)));
        assert!(fault(&link).await.starts_with("the sandbox sent what sandboxd does not send"));
        assert!(matches!(sandbox.spawn(shell("true")).await, Err(SandboxError::Disconnected)));
    }
}

/// A connection waits until it is known who may connect; what it does then, at once, is not taken for what an earlier
/// peer did.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_that_waited_for_its_hearing_is_told() {
    for _ in 0..300 {
        let dir = tempfile::tempdir().unwrap();
        let link = Link::bind(dir.path(), mpsc::channel(1).0, &CancellationToken::new()).unwrap();
        let mut stream = UnixStream::connect(dir.path().join("sock")).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        tokio::task::yield_now().await;
        link.set_peer(Some(std::process::id()));
        assert!(fault(&link).await.starts_with("the sandbox sent what sandboxd does not send"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_asked_for_change_nothing() {
    let (dir, link, mut stream) = pretend(&hello(2, 2)).await;
    let sandbox = link.connected(LIMIT).await.unwrap();
    for event in [
        r#"{"unknown":{"id":"x","forgotten":true}}"#,
        r#"{"attached":{"id":"x","head":1,"omitted":2}}"#,
        r#"{"commands":{"running":[]}}"#,
        r#"{"pong":{"n":99}}"#,
        r#"{"failed":{"id":"x","why":"\u001b[31m"}}"#,
        r#"{"ended":{"id":"x","exit":{"code":0},"head":"","tail":"","omitted":18446744073709551615,"log":null,"leftovers":4294967295,"survivors":0,"streamed":true}}"#,
    ] {
        let event = [&(event.len() as u32).to_be_bytes()[..], event.as_bytes()].concat();
        stream.write_all(&event).await.unwrap();
    }
    let mut strange = UnixStream::connect(dir.path().join("sock")).await.unwrap();
    strange.write_all(&frame::encode(&Opening::Stream { nonce: "guessed".into() })).await.unwrap();
    assert!(hung_up(&mut strange).await);
    assert!(sandbox.is_connected() && link.current().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_that_is_not_confirmed_asks_for_the_container_s_end() {
    let (_dir, link, stream) = pretend(&hello(2, 2)).await;
    let sandbox = link.connected(LIMIT).await.unwrap();
    let mut states = link.watch();
    let asked = Instant::now();
    let end = async {
        let state = states.wait_for(|state| matches!(state, LinkState::MustEnd(_))).await.unwrap().clone();
        assert!(matches!(state, LinkState::MustEnd(why) if why.contains("did not end within a second")));
        assert!(asked.elapsed() < Duration::from_millis(1500), "{:?}", asked.elapsed());
        // As when the container ends.
        drop(stream);
    };
    let (killed, ()) = tokio::join!(sandbox.kill("deaf"), end);
    killed.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_container_s_first_process_may_connect() {
    let (mut room, sandbox) = Room::start().await;
    // Inside, any process can reach the socket: this one says what sandboxd would say.
    let greeting = hello(2, 2).iter().map(|byte| format!("\\x{byte:02x}")).collect::<Vec<_>>().concat();
    let perl = format!(
        r#"use Socket; $SIG{{PIPE}} = "IGNORE"; socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un("{}")) or die; syswrite S, "{greeting}";
        print sysread(S, $answer, 100) ? "answered" : "hung up""#,
        sandboxd::protocol::ROOM_DIR.to_owned() + "/sock",
    );
    for user in [User::Agent, User::Root] {
        assert_eq!(output(&sandbox, Command { user, ..command(&["perl", "-e", &perl]) }).await, "hung up");
    }
    let mut poser = UnixStream::connect(room.socket()).await.unwrap();
    let _ = poser.write_all(&hello(2, 2)).await;
    assert!(hung_up(&mut poser).await);
    assert_eq!(output(&sandbox, command(&["echo", "there"])).await, "there\n");

    if is_gvisor() {
        return; // it is not known by its pid there
    }
    // When nobody better comes, the poser is named.
    room.drop_link();
    let link = room.rebind();
    link.set_peer(Some(1));
    let mut poser = UnixStream::connect(room.socket()).await.unwrap();
    let _ = poser.write_all(&hello(2, 2)).await;
    assert!(hung_up(&mut poser).await);
    let error = link.connected(Duration::from_millis(50)).await.unwrap_err().to_string();
    assert!(error.contains("that is not its PID 1 connected and was turned away"), "{error}");
}

/// Where the kernel tells no pids of sandboxes, who shows the proof is sandboxd, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_proof_is_demanded_it_counts_and_not_the_pid() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, mut proxies) = mpsc::channel(1);
    let link = Link::bind(dir.path(), sender, &CancellationToken::new()).unwrap();
    link.demand("0a1b".to_owned());
    link.set_peer(Some(1));
    let open = async |opening: &[u8]| {
        let mut stream = UnixStream::connect(dir.path().join("sock")).await.unwrap();
        stream.write_all(opening).await.unwrap();
        stream
    };
    let hello = |proof: Option<&str>| {
        let (protocol, build, boot_id) = (Range { min: 2, max: 3 }, "b".into(), "boot".into());
        frame::encode(&Opening::Hello { protocol, build, boot_id, proof: proof.map(str::to_owned) })
    };
    let proxy =
        |proof: Option<&str>| frame::encode(&Opening::Proxy { kind: ProxyKind::Web, proof: proof.map(str::to_owned) });
    for proof in [None, Some(""), Some("0a1c"), Some("0a1b0")] {
        for opening in [hello(proof), proxy(proof)] {
            assert!(hung_up(&mut open(&opening).await).await, "{proof:?}");
        }
    }
    assert!(hung_up(&mut open(b"\0\0\0\x02{}").await).await, "and what is no opening");
    let error = link.connected(Duration::from_millis(50)).await.unwrap_err().to_string();
    assert!(error.contains("that is not its PID 1 connected and was turned away"), "{error}");
    assert!(proxies.try_recv().is_err());

    let _control = open(&hello(Some("0a1b"))).await;
    link.connected(LIMIT).await.unwrap();
    let _proxied = open(&proxy(Some("0a1b"))).await;
    timeout(LIMIT, proxies.recv()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_s_directory_must_be_there() {
    let (sender, _) = mpsc::channel(1);
    let missing = std::env::temp_dir().join("nothing/here");
    let error = Link::bind(&missing, sender, &CancellationToken::new()).err().unwrap().to_string();
    assert!(error.contains("check that STATE_DIR is writable"), "{error}");

    let dir = tempfile::tempdir().unwrap();
    let (sender, _) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let first = Link::bind(dir.path(), sender.clone(), &cancel).unwrap();
    std::mem::forget(first);
    // The socket that a killed server left is taken over.
    let socket = dir.path().join("sock");
    let _second = Link::bind(dir.path(), sender, &cancel).unwrap();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o666);
}

/// Whatever is asked of a sandboxd that says nothing more, as one in a frozen container does, ends at a limit of ours.
#[tokio::test(start_paused = true)]
async fn every_wait_for_a_silent_sandboxd_ends() {
    let (_dir, link, mut stream) = pretend(&hello(2, 2)).await;
    let sandbox = link.connected(LIMIT).await.unwrap();
    assert!(stream.read(&mut [0; 256]).await.unwrap() > 0, "the welcome");
    let timed_out = |what: &str, error: SandboxError| {
        assert!(matches!(error, SandboxError::TimedOut { .. } | SandboxError::NotEnded), "{what}: {error}");
    };
    timed_out("a list", sandbox.running().await.unwrap_err());
    timed_out("a ping", sandbox.ping().await.unwrap_err());
    timed_out("a look at a command", sandbox.lookup("a").await.err().unwrap());
    timed_out("the end of a command", sandbox.kill("a").await.unwrap_err());
    timed_out("reading a file", sandbox.read_file("/etc/hosts", 0, 10).await.unwrap_err());
    timed_out("writing a file", sandbox.write_file("w", "/tmp/x", "x".into()).await.unwrap_err());
    let limited = Command { timeout: Some(Duration::from_secs(5)), ..command(&["true"]) };
    timed_out("a command with a limit", sandbox.spawn(limited).await.unwrap().wait().await.unwrap_err());
    let limited = Command { timeout: Some(Duration::from_secs(5)), ..command(&["true"]) };
    assert_eq!(sandbox.spawn(limited).await.unwrap().next().await, None, "its output");
}

/// What an older sandboxd lacks is known before it is asked for; all else goes on with it.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_sandboxd_is_known_by_what_it_lacks() {
    let (_dir, link, mut stream) = pretend(&hello(1, 2)).await;
    let sandbox = link.connected(LIMIT).await.unwrap();
    assert_eq!(next::<Request>(&mut stream).await, Request::Welcome { protocol: 2 });
    assert!(!sandbox.spools());
    let spooled = Command { spooled: true, ..command(&["true"]) };
    let refused = [sandbox.spawn(spooled).await.err(), sandbox.write("a", "1", "x".into(), false).await.err()];
    for error in refused.map(Option::unwrap) {
        assert!(matches!(error, SandboxError::Older) && error.to_string().contains("older version of the server"));
    }
    let attached = tokio::spawn(async move { sandbox.attach("a", Some(7)).await });
    match next::<Request>(&mut stream).await {
        Request::Attach { id, from: None, .. } => assert_eq!(id, "a"),
        other => panic!("{other:?}"),
    }
    let answer = r#"{"attached":{"id":"a","head":1,"omitted":2}}"#;
    let frame = [&(answer.len() as u32).to_be_bytes()[..], answer.as_bytes()].concat();
    stream.write_all(&frame).await.unwrap();
    let (found, from_there) = timeout(LIMIT, attached).await.unwrap().unwrap().unwrap();
    assert!(matches!(found, Lookup::Running(_)) && !from_there, "its output comes from the beginning");
    let (_dir, link, _stream) = pretend(&hello(2, 3)).await;
    assert!(link.connected(LIMIT).await.unwrap().spools());
}

/// An older server asks for nothing that is new, and gets what it knows.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_server_is_served_as_it_was() {
    let (mut room, _) = Room::start().await;
    room.drop_link();
    let socket = UnixListener::bind(room.socket()).unwrap();
    fs::set_permissions(room.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let mut control = timeout(LIMIT, socket.accept()).await.unwrap().unwrap().0;
    assert!(matches!(next(&mut control).await, Opening::Hello { .. }));
    control.write_all(&frame::encode(&Request::Welcome { protocol: 2 })).await.unwrap();
    let run = Run {
        id: "asks".into(),
        argv: ["bash", "-c", "echo out; echo err >&2"].map(str::to_owned).into(),
        ..Run::default()
    };
    control.write_all(&frame::encode(&Request::Run(run))).await.unwrap();
    match next::<Event>(&mut control).await {
        Event::Ended(ended) => {
            assert_eq!((ended.id.as_str(), ended.exit, ended.spooled), ("asks", Exit::Code(0), None));
            assert_eq!(ended.head.0, b"out\nerr\n");
        }
        other => panic!("{other:?}"),
    }
}

/// Reads a frame.
async fn next<M: serde::de::DeserializeOwned>(stream: &mut UnixStream) -> M {
    timeout(LIMIT, async {
        let mut prefix = [0; frame::PREFIX];
        stream.read_exact(&mut prefix).await.unwrap();
        let mut body = vec![0; frame::body_length(prefix, frame::TO_SERVER).unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        frame::message(&body).unwrap()
    })
    .await
    .unwrap()
}
