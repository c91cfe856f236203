//! The door to the web: what passes, what does not, and what it costs to try.

use std::net::SocketAddr;

use matrix_agent::gateway::{GatewayLimits, ProxyKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    door::{Door, HELLO, ask, client_hello, connect, door_to_http, door_to_tls, rest, sni, soon, until},
    support::rig::free_port,
};

#[tokio::test]
async fn tls_passes_to_an_allowed_host_with_half_close_both_ways() {
    let (mut door, authority, _server) = door_to_tls(GatewayLimits::default()).await;
    let mut stream = door.open(ProxyKind::Web);
    connect(&mut stream, "PyPI.org.:443").await;
    let mut tls = soon(authority.connector(true).connect(sni("pypi.org"), stream)).await.unwrap();
    let much = vec![b'x'; 300_000];
    tls.write_all(&much).await.unwrap();
    tls.write_all(b"ab").await.unwrap();
    tls.shutdown().await.unwrap();
    let mut answer = Vec::new();
    soon(tls.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer.len(), 300_002);
    assert!(answer.starts_with(b"bax"));
}

#[tokio::test]
async fn another_server_name_or_none_is_closed_before_a_byte_goes_out() {
    let (mut door, authority, _server) = door_to_tls(GatewayLimits::default()).await;
    let (recorder, recorded) = door.recorder(b"").await;
    door.route("203.0.113.1:443", recorder.address);
    for (name, with_name) in [("other.org", true), ("evil.org", true), ("pypi.org", false)] {
        let mut stream = door.open(ProxyKind::Web);
        connect(&mut stream, "pypi.org:443").await;
        let failed = soon(authority.connector(with_name).connect(sni(name), stream)).await.unwrap_err();
        assert!(failed.to_string().contains("UnrecognisedName"), "{name}: {failed}");
    }
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9\r\n", &[0x80, 0x2e, 1, 3, 1]] {
        let mut stream = door.open(ProxyKind::Web);
        connect(&mut stream, "pypi.org:443").await;
        ask(&mut stream, nonsense).await;
    }
    assert_eq!(recorded.text(), "");
}

#[tokio::test]
async fn a_fragmented_hello_is_understood_and_goes_on_as_it_was() {
    let (mut door, authority, _server) = door_to_tls(GatewayLimits::default()).await;
    let (recorder, recorded) = door.recorder(b"").await;
    door.route("203.0.113.1:443", recorder.address);
    for (name, passes) in [("pypi.org", true), ("other.org", false)] {
        let hello = client_hello(&authority, name);
        let fragments: Vec<u8> = hello[5..]
            .chunks(7)
            .flat_map(|piece| [&[22, 3, 1, 0, piece.len() as u8][..], piece].concat())
            .chain(*b"\x17\x03\x03\x00\x01early")
            .collect();
        let mut stream = door.open(ProxyKind::Web);
        // Sent at once with the CONNECT, as some clients do.
        let whole = [&b"CONNECT pypi.org:443 HTTP/1.1\r\n\r\n"[..], &fragments].concat();
        stream.write_all(&whole).await.unwrap();
        stream.shutdown().await.unwrap();
        rest(&mut stream).await;
        let expected = if passes { fragments } else { Vec::new() };
        let got = std::mem::take(&mut *recorded.lock());
        assert_eq!(got, expected, "{name}");
    }
}

#[tokio::test]
async fn hosts_that_are_not_listed_are_refused_in_plain_words() {
    let (mut door, _, server) = door_to_tls(GatewayLimits::default()).await;
    door.name("evil.org", &["203.0.113.1"]);
    for (request, status, words) in [
        ("CONNECT evil.org:443", 403, "evil.org: it is not among the allowed hosts"),
        ("CONNECT 203.0.113.1:443", 403, "203.0.113.1: it is not among"),
        ("CONNECT [2606:4700::1]:443", 403, "[2606:4700::1]: it is not among"),
        ("GET http://evil.org/", 403, "SANDBOX_ALLOWED_HOSTS"),
        ("CONNECT github.com:443", 403, "git clone https://github.com/OWNER/REPO"),
        ("CONNECT api.github.com:443", 403, "the tool `github` opens pull requests"),
        ("CONNECT pypi.org:22", 403, "port 22 of pypi.org"),
        ("CONNECT evil.org:80", 403, "evil.org: it is not among the allowed hosts"),
        ("GET http://pypi.org:8080/", 403, "port 8080 of pypi.org"),
        ("GET http://pypi.org:443/", 403, "port 443 of pypi.org"),
        ("CONNECT 127.1:443", 400, "target is not understood"),
        ("CONNECT 2130706433:443", 400, "target is not understood"),
        ("GET /simple/", 400, "This is an HTTP proxy"),
        ("GET https://pypi.org/", 400, "target is not understood"),
    ] {
        let mut stream = door.open(ProxyKind::Web);
        let answer = ask(&mut stream, format!("{request} HTTP/1.1\r\nHost: pypi.org\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(answer.contains(words), "{request}: {answer}");
    }
    assert_eq!((server.accepted(), door.lookups()), (0, 0), "decided by name alone");
}

#[tokio::test]
async fn names_that_lead_inside_are_refused_whatever_the_list_says() {
    let (mut door, server, _) = door_to_http(HELLO, GatewayLimits::default()).await;
    for inside in [
        "127.0.0.1",
        "10.0.0.8",
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "203.0.113.66",
        "::1",
        "::",
        "fd00:ec2::254",
        "fe80::1",
        "::ffff:127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "ff02::1",
    ] {
        door.name("inside.org", &["203.0.113.2", inside]);
        for port in [80, 443] {
            let there = if inside.contains(':') { format!("[{inside}]:{port}") } else { format!("{inside}:{port}") };
            door.route(&there, server.address);
        }
        for request in ["GET http://inside.org/ HTTP/1.1\r\n\r\n", "CONNECT inside.org:443 HTTP/1.1\r\n\r\n"] {
            let mut stream = door.open(ProxyKind::Web);
            let answer = ask(&mut stream, request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{inside}: {answer}");
            assert!(answer.contains("inside.org") && !answer.contains(inside), "{answer}");
        }
    }
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn addresses_written_out_need_the_list_and_a_public_address() {
    let mut door = Door::new(&["203.0.113.2", "10.0.0.1", "*"], GatewayLimits::default());
    let (server, _) = door.recorder(HELLO).await;
    door.route("203.0.113.2:80", server.address);
    door.route("10.0.0.1:80", server.address);
    door.route("203.0.113.3:80", server.address);
    for (address, status) in [("203.0.113.2", "200"), ("10.0.0.1", "403"), ("203.0.113.3", "403")] {
        let mut stream = door.open(ProxyKind::Web);
        let answer =
            ask(&mut stream, format!("GET http://{address}/ HTTP/1.1\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{address}: {answer}");
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn rebinding_is_harmless() {
    let (mut door, server, _) = door_to_http(HELLO, GatewayLimits::default()).await;
    let mut stream = door.open(ProxyKind::Web);
    stream.write_all(b"GET http://deb.debian.org/ HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(until(&mut stream, "hello").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(door.lookups(), 1, "what was checked is what was dialled: nothing resolves twice");
    door.name("deb.debian.org", &["127.0.0.1"]);
    door.route("127.0.0.1:80", server.address);
    // The kept connection goes to the checked address still; a new one is checked anew.
    stream.write_all(b"GET http://deb.debian.org/ HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(until(&mut stream, "hello").await.starts_with("HTTP/1.1 200 "));
    let mut stream = door.open(ProxyKind::Web);
    assert!(ask(&mut stream, b"GET http://deb.debian.org/ HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 403 "));
    assert_eq!((server.accepted(), door.lookups()), (1, 2));
}

#[tokio::test]
async fn dead_addresses_are_gone_round_and_dead_hosts_said() {
    let (mut door, server, _) = door_to_http(HELLO, GatewayLimits::default()).await;
    let closed = SocketAddr::from(([127, 0, 0, 1], free_port()));
    door.name("deb.debian.org", &["2001:db8::9", "203.0.113.9", "203.0.113.2"]);
    door.route("[2001:db8::9]:80", closed);
    door.route("203.0.113.9:80", closed);
    let request = b"GET http://deb.debian.org/ HTTP/1.1\r\nConnection: close\r\n\r\n";
    assert!(ask(&mut door.open(ProxyKind::Web), request).await.ends_with("hello"));
    door.route("203.0.113.2:80", closed);
    let answer = ask(&mut door.open(ProxyKind::Web), request).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("deb.debian.org does not answer"), "{answer}");
    let answer = ask(&mut door.open(ProxyKind::Web), b"GET http://inside.org/ HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("inside.org could not be resolved"), "{answer}");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn plain_requests_are_written_anew() {
    let (mut door, _, recorded) = door_to_http(HELLO, GatewayLimits::default()).await;
    let mut stream = door.open(ProxyKind::Web);
    stream
        .write_all(
            b"GET http://deb.debian.org/debian/x?y=1 HTTP/1.1\r\nHost: 169.254.169.254\r\nUser-Agent: apt\r\n\
              Proxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\nConnection: X-Drop\r\nX-Drop: 1\r\n\
              TE: trailers\r\nUpgrade: h2c\r\nRange: bytes=5-\r\n\r\n",
        )
        .await
        .unwrap();
    let answer = until(&mut stream, "hello").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("x-up: 1"), "{answer}");
    let request = recorded.text().to_ascii_lowercase();
    assert!(request.starts_with("get /debian/x?y=1 http/1.1\r\n"), "{request}");
    let mut lines: Vec<_> = request.lines().skip(1).filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["host: deb.debian.org", "range: bytes=5-", "user-agent: apt"]);
}

#[tokio::test]
async fn a_tunnel_to_port_80_carries_plain_requests_to_its_host_alone() {
    let (mut door, server, recorded) = door_to_http(HELLO, GatewayLimits::default()).await;
    let mut stream = door.open(ProxyKind::Web);
    connect(&mut stream, "deb.debian.org:80").await;
    for _ in 0..2 {
        stream.write_all(b"GET /a HTTP/1.1\r\nHost: evil.org\r\nProxy-Connection: keep-alive\r\n\r\n").await.unwrap();
        assert!(until(&mut stream, "hello").await.starts_with("HTTP/1.1 200 "));
    }
    let request = recorded.text().to_ascii_lowercase();
    assert!(request.contains("host: deb.debian.org") && !request.contains("evil.org"), "{request}");
    for other in ["GET http://evil.org/", "CONNECT deb.debian.org:80", "CONNECT evil.org:443"] {
        let mut stream = door.open(ProxyKind::Web);
        connect(&mut stream, "deb.debian.org:80").await;
        let answer = ask(&mut stream, format!("{other} HTTP/1.1\r\nHost: evil.org\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{other}: {answer}");
    }
    // Nor does anything else pass.
    let mut stream = door.open(ProxyKind::Web);
    connect(&mut stream, "deb.debian.org:80").await;
    let answer = ask(&mut stream, b"SSH-2.0-OpenSSH_9.9\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    // A refusal is marked, so that it is not taken for a page.
    let answer = ask(&mut door.open(ProxyKind::Web), b"GET http://evil.org/ HTTP/1.1\r\n\r\n").await;
    assert!(answer.contains("\r\nMatrix-Agent-Refusal: 1\r\n"), "{answer}");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn an_answer_to_head_tells_the_length_and_has_no_body() {
    let (mut door, _, _) =
        door_to_http(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", GatewayLimits::default()).await;
    let two = b"HEAD http://deb.debian.org/a HTTP/1.1\r\n\r\nHEAD http://evil.org/b HTTP/1.1\r\n\r\n";
    let answer = ask(&mut door.open(ProxyKind::Web), two).await;
    let (first, second) = answer.split_once("\r\n\r\n").unwrap();
    assert!(first.starts_with("HTTP/1.1 200 ") && first.contains("content-length: 5"), "{answer}");
    assert!(second.starts_with("HTTP/1.1 403 ") && second.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn each_request_goes_to_its_own_host() {
    let (mut door, first, _) = door_to_http(HELLO, GatewayLimits::default()).await;
    let (second, recorded) = door.recorder(HELLO).await;
    door.name("inside.org", &["203.0.113.3"]);
    door.route("203.0.113.3:80", second.address);
    let mut stream = door.open(ProxyKind::Web);
    let both =
        b"GET http://deb.debian.org/1 HTTP/1.1\r\n\r\nGET http://inside.org/2 HTTP/1.1\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(&mut stream, both).await.matches("hello").count(), 2);
    assert!(
        recorded.text().starts_with("GET /2 ") && recorded.text().contains("host: inside.org"),
        "{}",
        recorded.text()
    );
    assert_eq!((first.accepted(), second.accepted()), (1, 1));
}

#[tokio::test]
async fn each_request_of_a_connection_is_checked() {
    let (mut door, server, recorded) = door_to_http(HELLO, GatewayLimits::default()).await;
    let mut stream = door.open(ProxyKind::Web);
    let pipelined = b"GET http://deb.debian.org/1 HTTP/1.1\r\n\r\nGET http://deb.debian.org/2 HTTP/1.1\r\n\r\n\
                      GET http://evil.org/3 HTTP/1.1\r\n\r\nGET http://deb.debian.org/4 HTTP/1.1\r\n\r\n";
    let answer = ask(&mut stream, pipelined).await;
    assert_eq!(answer.matches("hello").count(), 2, "{answer}");
    assert!(answer.contains("HTTP/1.1 403 ") && answer.contains("evil.org"), "{answer}");
    assert!(recorded.text().contains("/2") && !recorded.text().contains("/3") && !recorded.text().contains("/4"));
    assert_eq!(server.accepted(), 1, "one upstream for both");
}

#[tokio::test]
async fn smuggling_is_refused_before_anything_is_sent() {
    let (mut door, server, recorded) = door_to_http(HELLO, GatewayLimits::default()).await;
    let line = "POST http://deb.debian.org/ HTTP/1.1\r\n";
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "Content-Length: +5\r\n\r\nhello",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        "X: a\nTransfer-Encoding: chunked\r\n\r\n",
        "X: a\rTransfer-Encoding: chunked\r\n\r\n",
        "Host: a\r\nHost: b\r\n\r\n",
        "X\0: a\r\n\r\n",
    ] {
        let mut stream = door.open(ProxyKind::Web);
        let answer = ask(&mut stream, format!("{line}{lines}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{lines:?}: {answer}");
    }
    assert_eq!((server.accepted(), recorded.text()), (0, String::new()));
    // A body whose chunks are not sound breaks the request off; nothing after it is taken for a request.
    let mut stream = door.open(ProxyKind::Web);
    let bad = format!(
        "{line}Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX\r\n0\r\n\r\nGET http://deb.debian.org/s HTTP/1.1\r\n\r\n"
    );
    ask(&mut stream, bad.as_bytes()).await;
    assert!(!recorded.text().contains("GET"), "{}", recorded.text());
}

#[tokio::test]
async fn bodies_stream_up_with_their_framing() {
    let (mut door, _, recorded) = door_to_http(b"", GatewayLimits::default()).await;
    for (request, expected) in [
        ("Content-Length: 5\r\n\r\nhello", "content-length: 5\r\n\r\nhello"),
        (
            "Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nT: x\r\n\r\n",
            "\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        ),
        ("Content-Length: 0\r\n\r\n", "content-length: 0\r\n\r\n"),
    ] {
        recorded.lock().clear();
        let mut stream = door.open(ProxyKind::Web);
        stream.write_all(format!("POST http://deb.debian.org/up HTTP/1.1\r\n{request}").as_bytes()).await.unwrap();
        soon(async {
            while !recorded.text().to_ascii_lowercase().ends_with(expected) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    let mut stream = door.open(ProxyKind::Web);
    let expecting = b"POST http://deb.debian.org/up HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    stream.write_all(expecting).await.unwrap();
    assert_eq!(until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let mut door = Door::new(&["deb.debian.org"], GatewayLimits::default());
    let server = door
        .server(|mut stream| async move {
            let mut piece = [0; 1024];
            let _ = stream.read(&mut piece).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
        })
        .await;
    door.name("deb.debian.org", &["203.0.113.2"]);
    door.route("203.0.113.2:80", server.address);
    let answer = ask(&mut door.open(ProxyKind::Web), b"GET http://deb.debian.org/ HTTP/1.1\r\n\r\n").await;
    assert!(answer.ends_with("5\r\nhello\r\n"), "{answer}");
}
