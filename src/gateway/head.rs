//! Parses the head of an HTTP/1 request, strictly: what two parsers could read differently is refused.
//!
//! Pure: bytes from a hostile sandbox in, a typed head out. It must not know sockets or policy. Called by
//! `downstream` and by the fuzzer. Nothing is forwarded as it came: requests are written anew from the typed head.

use hyper::{
    HeaderMap, Method,
    header::{self, HeaderName, HeaderValue},
};

use super::hosts::Host;

/// The most bytes of a request's head.
pub const MAX_HEAD: usize = 32 * 1024;

/// The most header lines of a request.
const MAX_HEADERS: usize = 100;

/// One request's head.
#[derive(Clone, Debug)]
pub struct Head {
    /// The method; never TRACE.
    pub method: Method,
    /// The target of the request.
    pub target: Target,
    /// All headers as they came.
    pub headers: HeaderMap,
    /// Whether the client speaks HTTP/1.1, and so understands chunked bodies.
    pub http11: bool,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the client wants to keep the connection open.
    pub keep_alive: bool,
    /// Whether the client waits for "100 Continue" before it sends the body.
    pub expects_continue: bool,
}

/// The three forms of a request's target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `CONNECT host:port`.
    Connect {
        /// The host.
        host: Host,
        /// The port.
        port: u16,
    },
    /// `http://host:port/path?query`, as proxies receive it.
    Absolute {
        /// The host.
        host: Host,
        /// The port, 80 if none was written.
        port: u16,
        /// Path and query, beginning with a slash.
        path: String,
    },
    /// `/path?query`, as servers receive it.
    Origin {
        /// Path and query, beginning with a slash.
        path: String,
    },
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunked transfer encoding.
    Chunked,
}

/// Why a head is refused. Contains nothing of the head, which may carry secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    /// It is no HTTP/1 request, or a line is malformed.
    #[error("The request is not well-formed HTTP/1.")]
    Malformed,
    /// It is longer than [`MAX_HEAD`], or has too many lines.
    #[error("The request's head is too large: at most {MAX_HEAD} bytes and {MAX_HEADERS} lines are taken.")]
    TooLarge,
    /// The body's length is stated twice or in an unknown way, as request smuggling does.
    #[error("The request does not say clearly where its body ends.")]
    AmbiguousBody,
    /// The target has none of the three forms, or its host is invalid.
    #[error("The request's target is not understood: it takes `CONNECT host:443` or `http://host/path`.")]
    BadTarget,
    /// TRACE, which would echo headers.
    #[error("The method TRACE is not supported.")]
    Trace,
    /// An expectation other than `100-continue`.
    #[error("The request expects something other than `100-continue`.")]
    Expectation,
}

/// Returns the length of the first request's head in `buffer`, empty line included, if it is complete. `searched`
/// bytes were searched before.
pub fn end(buffer: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(3).min(buffer.len());
    buffer[from..].windows(4).position(|window| window == b"\r\n\r\n").map(|at| from + at + 4)
}

/// Parses one complete head, from the request line to the empty line.
pub fn parse(bytes: &[u8]) -> Result<Head, BadHead> {
    if bytes.len() > MAX_HEAD {
        return Err(BadHead::TooLarge);
    }
    if has_bare_line_end(bytes) || bytes.first().is_none_or(|first| !first.is_ascii_alphabetic()) {
        return Err(BadHead::Malformed);
    }
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut lines);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(BadHead::TooLarge),
        _ => return Err(BadHead::Malformed),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(BadHead::Malformed);
    };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| BadHead::Malformed)?;
    if method == Method::TRACE {
        return Err(BadHead::Trace);
    }
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for line in request.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| BadHead::Malformed)?;
        headers.append(name, HeaderValue::from_bytes(line.value).map_err(|_| BadHead::Malformed)?);
    }
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(BadHead::Malformed);
    }
    let http11 = minor == 1;
    let framing = framing(&headers, http11)?;
    let target = if method == Method::CONNECT { connect_target(target)? } else { other_target(target)? };
    if method == Method::CONNECT && !matches!(framing, Framing::None | Framing::Length(0)) {
        return Err(BadHead::AmbiguousBody);
    }
    let expects_continue = match headers.get(header::EXPECT) {
        None => false,
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => http11,
        Some(_) => return Err(BadHead::Expectation),
    };
    let keep_alive = http11 && !tokens(&headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("close"));
    Ok(Head { method, target, headers, http11, framing, keep_alive, expects_continue })
}

/// Returns the headers that are meant for the far end: without hop-by-hop headers (including those that `Connection`
/// names) and without those that the new message sets itself (`Host`, framing).
pub fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    const HOP: [HeaderName; 14] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::HOST,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("http2-settings"),
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-authentication-info"),
        HeaderName::from_static("proxy-connection"),
    ];
    let mut kept = headers.clone();
    for name in HOP {
        kept.remove(name);
    }
    for token in tokens(headers, &header::CONNECTION) {
        kept.remove(token);
    }
    kept
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Returns whether a line ends in anything but CR LF, which some parsers take for a line end and others do not.
fn has_bare_line_end(bytes: &[u8]) -> bool {
    let mut before = 0;
    bytes.iter().any(|byte| {
        let bare = (*byte == b'\n') != (before == b'\r');
        before = *byte;
        bare
    })
}

fn framing(headers: &HeaderMap, http11: bool) -> Result<Framing, BadHead> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Framing::None),
        (Some(coding), None)
            if http11 && codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked") =>
        {
            Ok(Framing::Chunked)
        }
        (None, Some(length)) if lengths.next().is_none() => decimal(length.as_bytes()).map(Framing::Length),
        _ => Err(BadHead::AmbiguousBody),
    }
}

/// Parses digits only: the standard parser would accept a sign.
fn decimal(digits: &[u8]) -> Result<u64, BadHead> {
    let text = std::str::from_utf8(digits).map_err(|_| BadHead::AmbiguousBody)?;
    if text.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BadHead::AmbiguousBody);
    }
    text.parse().map_err(|_| BadHead::AmbiguousBody)
}

fn connect_target(target: &str) -> Result<Target, BadHead> {
    let (host, port) = authority(target)?;
    Ok(Target::Connect { host, port: port.ok_or(BadHead::BadTarget)? })
}

fn other_target(target: &str) -> Result<Target, BadHead> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) || target.contains('#') {
        return Err(BadHead::BadTarget);
    }
    if target.starts_with('/') {
        return Ok(Target::Origin { path: target.to_owned() });
    }
    let (scheme, rest) = target.split_once("://").ok_or(BadHead::BadTarget)?;
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(BadHead::BadTarget);
    }
    let (authority_part, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (host, port) = authority(authority_part)?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(Target::Absolute { host, port: port.unwrap_or(80), path })
}

/// Splits `host[:port]`. User information is refused: its only use is to deceive.
fn authority(text: &str) -> Result<(Host, Option<u16>), BadHead> {
    let colon = text.rfind(':').filter(|colon| !text[*colon..].contains(']'));
    let (host, port) = match colon {
        Some(colon) => {
            let port = decimal(&text.as_bytes()[colon + 1..]).ok().and_then(|port| u16::try_from(port).ok());
            (&text[..colon], Some(port.ok_or(BadHead::BadTarget)?))
        }
        None => (text, None),
    };
    Ok((Host::parse(host).ok_or(BadHead::BadTarget)?, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(lines: &str) -> Result<Head, BadHead> {
        parse(format!("{}\r\n\r\n", lines.replace('\n', "\r\n")).as_bytes())
    }

    fn name(text: &str) -> Host {
        Host::Name(text.into())
    }

    #[test]
    fn the_three_targets() {
        let connect = head("CONNECT PyPI.org:443 HTTP/1.1\nHost: whatever").unwrap();
        assert_eq!(connect.target, Target::Connect { host: name("pypi.org"), port: 443 });
        let absolute = head("GET http://deb.debian.org/debian/dists?x=1 HTTP/1.1\nHost: deb.debian.org").unwrap();
        let path = "/debian/dists?x=1".to_owned();
        assert_eq!(absolute.target, Target::Absolute { host: name("deb.debian.org"), port: 80, path });
        assert!(absolute.keep_alive && absolute.http11);
        let bare = head("GET HTTP://a.org:8080?q HTTP/1.0").unwrap();
        assert_eq!(bare.target, Target::Absolute { host: name("a.org"), port: 8080, path: "/?q".into() });
        assert!(!bare.keep_alive);
        let origin = head("GET /github.com/a/b HTTP/1.1\nConnection: keep-alive, Close").unwrap();
        assert_eq!(origin.target, Target::Origin { path: "/github.com/a/b".into() });
        assert!(!origin.keep_alive);
        let v6 = head("CONNECT [2606:4700::1]:443 HTTP/1.1").unwrap();
        assert!(matches!(v6.target, Target::Connect { host: Host::Address(_), port: 443 }));
    }

    #[test]
    fn targets_that_deceive_are_refused() {
        for line in [
            "GET http://user@a.org/ HTTP/1.1",
            "GET http://a.org@b.org/ HTTP/1.1",
            "GET http://a.org:/ HTTP/1.1",
            "GET http://a.org:+80/ HTTP/1.1",
            "GET http://a.org:65616/ HTTP/1.1",
            "GET http:///path HTTP/1.1",
            "GET http://a.org\\b HTTP/1.1",
            "GET http://a.org/#x HTTP/1.1",
            "GET https://a.org/ HTTP/1.1",
            "GET ftp://a.org/ HTTP/1.1",
            "GET a.org HTTP/1.1",
            "GET * HTTP/1.1",
            "CONNECT a.org HTTP/1.1",
            "CONNECT http://a.org:443 HTTP/1.1",
            "CONNECT a.org:443:443 HTTP/1.1",
            "CONNECT ::1:443 HTTP/1.1",
            "CONNECT /x:443 HTTP/1.1",
        ] {
            assert_eq!(head(line).unwrap_err(), BadHead::BadTarget, "{line}");
        }
    }

    #[test]
    fn bodies_end_in_one_way_only() {
        let framing = |lines: &str| head(&format!("POST / HTTP/1.1\n{lines}")).map(|head| head.framing);
        assert_eq!(framing("Host: a"), Ok(Framing::None));
        assert_eq!(framing("Content-Length: 12"), Ok(Framing::Length(12)));
        assert_eq!(framing("Transfer-Encoding: Chunked"), Ok(Framing::Chunked));
        for lines in [
            "Content-Length: 1\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\nContent-Length: 1",
            "Content-Length: 1\nContent-Length: 1",
            "Content-Length: 1, 1",
            "Content-Length: +1",
            "Content-Length: -1",
            "Content-Length: 0x1",
            "Content-Length:",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: \u{b}chunked",
            "Transfer-Encoding: chunked\nTransfer-Encoding: identity",
        ] {
            assert!(framing(lines).is_err(), "{lines:?}");
        }
        assert_eq!(head("POST / HTTP/1.0\nTransfer-Encoding: chunked").unwrap_err(), BadHead::AmbiguousBody);
        assert_eq!(head("CONNECT a.org:443 HTTP/1.1\nContent-Length: 3").unwrap_err(), BadHead::AmbiguousBody);
    }

    #[test]
    fn odd_lines_are_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\nHost: a\n\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"GET / HTTP/1.1\r\nX: a\rb\r\n\r\n",
            b"\r\nGET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nX : a\r\n\r\n",
            b"GET / HTTP/1.1\r\n X: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: a\0\r\n\r\n",
            b"GET / HTTP/2.0\r\n\r\n",
            b"GET  / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\n",
            b"",
        ] {
            assert_eq!(parse(bytes).unwrap_err(), BadHead::Malformed, "{}", bytes.escape_ascii());
        }
        assert_eq!(head("TRACE / HTTP/1.1").unwrap_err(), BadHead::Trace);
        assert_eq!(head("POST / HTTP/1.1\nExpect: 200-ok").unwrap_err(), BadHead::Expectation);
        assert_eq!(head(&format!("GET / HTTP/1.1{}", "\nX: a".repeat(101))).unwrap_err(), BadHead::TooLarge);
        assert_eq!(head(&format!("GET / HTTP/1.1\nX: {}", "a".repeat(MAX_HEAD))).unwrap_err(), BadHead::TooLarge);
    }

    #[test]
    fn the_end_is_found_across_reads() {
        let bytes = b"GET / HTTP/1.1\r\n\r\nrest";
        for searched in 0..17 {
            assert_eq!(end(bytes, searched), Some(18), "{searched}");
        }
        assert_eq!(end(&bytes[..17], 0), None);
        assert_eq!(end(b"", 9), None);
    }

    #[test]
    fn hop_by_hop_lines_go_with_all_that_connection_names() {
        let head = head(
            "GET / HTTP/1.1\nHost: a\nConnection: X-Secret, keep-alive\nX-Secret: 1\nProxy-Authorization: Basic x\nTE: x\n\
             Proxy-Connection: close\nUpgrade: h2c\nHTTP2-Settings: x\nKeep-Alive: 1\nAccept: */*\nAuthorization: Bearer t",
        )
        .unwrap();
        let mut left: Vec<_> = end_to_end(&head.headers).keys().map(ToString::to_string).collect();
        left.sort();
        assert_eq!(left, ["accept", "authorization"]);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let _ = end(&bytes, 7);
        }

        #[test]
        fn never_panics_on_a_mutated_head(at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = b"POST http://a.org:80/x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n".to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(head) = parse(&bytes) {
                let _ = end_to_end(&head.headers);
            }
        }
    }
}
