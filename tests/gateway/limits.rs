//! What the door costs at most, and what it leaves in the log.

use std::{sync::Arc, time::Duration};

use matrix_agent::gateway::{GatewayLimits, ProxyKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::door::{HELLO, ask, client_hello, connect, door_to_http, door_to_tls, rest, sni, soon};

#[tokio::test]
async fn heads_are_bounded_in_size_and_time() {
    let limits = GatewayLimits { head: Duration::from_millis(300), ..GatewayLimits::default() };
    let (mut door, server, _) = door_to_http(HELLO, limits).await;
    let huge = format!("GET http://deb.debian.org/ HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(64 * 1024));
    let answer = ask(&mut door.open(ProxyKind::Web), huge.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many = format!("GET http://deb.debian.org/ HTTP/1.1\r\n{}\r\n", "X: a\r\n".repeat(200));
    assert!(ask(&mut door.open(ProxyKind::Web), many.as_bytes()).await.starts_with("HTTP/1.1 431 "));

    // A slow loris sends a byte now and then, and never an end.
    let mut loris = door.open(ProxyKind::Web);
    let (mut read, mut write) = loris.split();
    let dripping = async {
        for byte in b"GET http://deb.debian.org/ HTTP/1.1\r\nX: ".iter().chain([b'a'; 10_000].iter()) {
            if write.write_all(&[*byte]).await.is_err() {
                return std::future::pending().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        _ = soon(read.read_to_end(&mut answer)) => {}
        () = dripping => panic!("it went on for ever"),
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    // One that says nothing at all is closed without a word.
    assert_eq!(rest(&mut door.open(ProxyKind::Web)).await, "");
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_refusal_is_heard_by_who_is_still_sending() {
    let (mut door, _, _) = door_to_http(HELLO, GatewayLimits::default()).await;
    let address = door.listen(ProxyKind::Web).await;
    let mut program = tokio::net::TcpStream::connect(address).await.unwrap();
    let length = 500_000;
    let head = format!("POST http://evil.org/ HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
    soon(program.write_all(head.as_bytes())).await.unwrap();
    soon(program.write_all(&vec![b'x'; length])).await.unwrap();
    let mut answer = String::new();
    soon(program.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("evil.org"), "{answer}");
}

#[tokio::test]
async fn tunnels_are_bounded_in_time() {
    let limits =
        GatewayLimits { head: Duration::from_secs(2), idle: Duration::from_secs(2), ..GatewayLimits::default() };
    let (mut door, authority, _server) = door_to_tls(limits).await;
    let mut silent = door.open(ProxyKind::Web);
    connect(&mut silent, "pypi.org:443").await;
    silent.write_all(&client_hello(&authority, "pypi.org")[..40]).await.unwrap();
    assert_eq!(rest(&mut silent).await, "", "half a ClientHello and then nothing");
    let mut idle = door.open(ProxyKind::Web);
    connect(&mut idle, "pypi.org:443").await;
    let mut tls = soon(authority.connector(true).connect(sni("pypi.org"), idle)).await.unwrap();
    assert!(soon(tls.read_u8()).await.is_err(), "nothing moved, so it was ended");
}

#[tokio::test]
async fn a_room_has_so_many_connections_and_no_more() {
    let limits = GatewayLimits { per_room: 3, overall: 4, ..GatewayLimits::default() };
    let (mut door, _, _) = door_to_tls(limits).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = door.open(ProxyKind::Web);
        connect(&mut stream, "pypi.org:443").await;
        open.push(stream);
    }
    let refused = rest(&mut door.open(ProxyKind::Web)).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("Too many connections"), "{refused}");
    let mut other = door.open_in("!other", ProxyKind::Web);
    connect(&mut other, "pypi.org:443").await;
    assert!(rest(&mut door.open_in("!third", ProxyKind::Web)).await.starts_with("HTTP/1.1 503 "), "the house is full");
    drop(open.pop());
    soon(async {
        loop {
            let mut stream = door.open(ProxyKind::Web);
            if ask(&mut stream, b"GET / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 400 ") {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn cancelling_ends_every_connection() {
    let (mut door, authority, _server) = door_to_tls(GatewayLimits::default()).await;
    let mut waiting = door.open(ProxyKind::Web);
    let mut stream = door.open(ProxyKind::Web);
    connect(&mut stream, "pypi.org:443").await;
    let mut tls = soon(authority.connector(true).connect(sni("pypi.org"), stream)).await.unwrap();
    door.cancel.cancel();
    assert!(soon(tls.read_u8()).await.is_err());
    assert_eq!(rest(&mut waiting).await, "");
}

/// Collects what is logged in this thread.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl Log {
    /// Collects until the guard is dropped.
    pub(crate) fn collect() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn decisions_are_logged_without_secrets() {
    let (log, guard) = Log::collect();
    let (mut door, _, _) = door_to_http(HELLO, GatewayLimits::default()).await;
    door.name("inside.org", &["10.0.0.8"]);
    let secret = "Authorization: Bearer SECRET1\r\nConnection: close\r\n\r\n";
    for target in [
        "GET http://deb.debian.org/SECRET2?q=SECRET3",
        "GET http://evil.org/SECRET2",
        "GET http://inside.org/SECRET2",
        "CONNECT accounts.google.com:443",
        "SECRET2 / SECRET3",
    ] {
        ask(&mut door.open(ProxyKind::Web), format!("{target} HTTP/1.1\r\n{secret}").as_bytes()).await;
    }
    drop(door);
    drop(guard);
    let log = log.text();
    assert!(!log.contains("SECRET"), "{log}");
    assert!(!log.contains("accounts.google.com"), "{log}");
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 4, "{log}");
    for part in
        ["room=!room", "host=deb.debian.org", "port=80", "address=203.0.113.2", "verdict=\"allowed\"", "received=5"]
    {
        assert!(lines[0].contains(part), "{part} in {log}");
    }
    assert!(lines[1].contains("host=evil.org") && lines[1].contains("verdict=\"denied\""), "{log}");
    assert!(lines[2].contains("address=10.0.0.8") && lines[2].contains("a private address"), "{log}");
}
