//! Reads the server name from a TLS ClientHello.
//!
//! Pure and total: bytes from a hostile sandbox in, a verdict out. It must not know sockets, hosts or policy, and
//! understands no more of TLS than it needs for the one name. Called by `tunnel` and by the fuzzer.

/// The longest ClientHello in bytes, record framing included. Browsers with post-quantum keys send 2 KiB.
pub const MAX_HELLO: usize = 16 * 1024;

const RECORD_HEADER: usize = 5;
const MAX_FRAGMENT: usize = 16 * 1024;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;

/// The result of parsing the bytes so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// An incomplete ClientHello. It can be parsed again once there are `needed` bytes.
    Partial {
        /// The total number of bytes needed, more than there were.
        needed: usize,
    },
    /// A complete ClientHello, with nothing after it in its records.
    Whole {
        /// The server name in lower case, if the client sent one.
        server_name: Option<String>,
    },
}

/// Why the bytes are not an acceptable ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHello {
    /// They are no TLS handshake.
    #[error("no TLS handshake")]
    NotTls,
    /// It is longer than [`MAX_HELLO`].
    #[error("a ClientHello of more than {MAX_HELLO} bytes")]
    TooLong,
    /// Its lengths contradict each other, or the like.
    #[error("a malformed ClientHello")]
    Malformed,
}

/// Parses the start of a TLS stream.
pub fn parse(bytes: &[u8]) -> Result<Hello, BadHello> {
    let bytes = &bytes[..bytes.len().min(MAX_HELLO)];
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        let consumed = bytes.len() - rest.len();
        if rest.first().is_some_and(|kind| *kind != HANDSHAKE) || rest.get(1).is_some_and(|major| *major != 3) {
            return Err(BadHello::NotTls);
        }
        let Some((header, tail)) = rest.split_at_checked(RECORD_HEADER) else {
            return partial(consumed + RECORD_HEADER);
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > MAX_FRAGMENT {
            return Err(BadHello::Malformed);
        }
        let Some((fragment, tail)) = tail.split_at_checked(length) else {
            return partial(consumed + RECORD_HEADER + length);
        };
        message.extend_from_slice(fragment);
        rest = tail;
        if message[0] != CLIENT_HELLO {
            return Err(BadHello::NotTls);
        }
        if let [_, high, middle, low, body @ ..] = message.as_slice() {
            let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
            if length > MAX_HELLO {
                return Err(BadHello::TooLong);
            }
            // A record may hold nothing after the hello: a client must send nothing else before the server answers.
            match body.len().cmp(&length) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => {
                    return whole(&mut Cursor(body)).ok_or(BadHello::Malformed);
                }
                std::cmp::Ordering::Greater => return Err(BadHello::Malformed),
            }
        }
    }
}

fn partial(needed: usize) -> Result<Hello, BadHello> {
    if needed > MAX_HELLO { Err(BadHello::TooLong) } else { Ok(Hello::Partial { needed }) }
}

/// Parses a ClientHello's body to its end; `None` if it is malformed.
fn whole(hello: &mut Cursor<'_>) -> Option<Hello> {
    hello.take(2 + 32)?; // version and random
    let session = hello.vector_u8()?;
    let suites = hello.vector_u16()?;
    let compressions = hello.vector_u8()?;
    if session.0.len() > 32 || suites.0.is_empty() || suites.0.len() % 2 != 0 || compressions.0.is_empty() {
        return None;
    }
    if hello.0.is_empty() {
        return Some(Hello::Whole { server_name: None });
    }
    let mut extensions = hello.vector_u16()?;
    if !hello.0.is_empty() {
        return None;
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let mut data = extensions.vector_u16()?;
        if kind == SERVER_NAME {
            let mut names = data.vector_u16()?;
            if found.is_some() || !data.0.is_empty() || names.take(1)? != [0] {
                return None;
            }
            let name = names.vector_u16()?;
            // There must be exactly one name: of two, nobody knows which one the server takes.
            if !names.0.is_empty() || name.0.is_empty() || !name.0.iter().all(u8::is_ascii_graphic) {
                return None;
            }
            found = Some(String::from_utf8_lossy(name.0).to_ascii_lowercase());
        }
    }
    Some(Hello::Whole { server_name: found })
}

/// The bytes that are not parsed yet.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector_u8(&mut self) -> Option<Cursor<'a>> {
        let length = self.take(1)?[0];
        self.take(usize::from(length)).map(Cursor)
    }

    fn vector_u16(&mut self) -> Option<Cursor<'a>> {
        let length = self.u16()?;
        self.take(usize::from(length)).map(Cursor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
    }

    fn names(names: &[&str]) -> Vec<u8> {
        let list: Vec<u8> = names
            .iter()
            .flat_map(|name| [&[0][..], &(name.len() as u16).to_be_bytes(), name.as_bytes()].concat())
            .collect();
        extension(SERVER_NAME, &[&(list.len() as u16).to_be_bytes()[..], &list].concat())
    }

    fn message(extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        [&[CLIENT_HELLO][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat()
    }

    /// Cuts `message` into records of the given lengths; the last record takes the rest.
    fn records(message: &[u8], cuts: &[usize]) -> Vec<u8> {
        let (mut out, mut rest) = (Vec::new(), message);
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            if !head.is_empty() {
                out.extend([HANDSHAKE, 3, 1]);
                out.extend((head.len() as u16).to_be_bytes());
                out.extend(head);
            }
            rest = tail;
        }
        out
    }

    fn names_server(name: &str) -> Hello {
        Hello::Whole { server_name: Some(name.into()) }
    }

    #[test]
    fn finds_the_name_and_ignores_what_follows() {
        let mut bytes = records(&message(&[extension(43, &[2, 3, 4]), names(&["PyPI.org"])].concat()), &[]);
        assert_eq!(parse(&bytes), Ok(names_server("pypi.org")));
        bytes.extend([23, 3, 3, 0, 1, 9]);
        assert_eq!(parse(&bytes), Ok(names_server("pypi.org")));
    }

    #[test]
    fn a_hello_without_a_name_is_whole() {
        assert_eq!(parse(&records(&message(&[]), &[])), Ok(Hello::Whole { server_name: None }));
    }

    #[test]
    fn ambiguous_names_are_malformed() {
        for extensions in [
            names(&["a.org", "b.org"]),
            [names(&["a.org"]), names(&["b.org"])].concat(),
            names(&[]),
            names(&[""]),
            names(&["a.org\0"]),
            extension(SERVER_NAME, &[0, 4, 1, 0, 1, b'a']),
            extension(SERVER_NAME, &[0, 4, 0, 0, 1, b'a', 0]),
            vec![0, 0, 0, 9, 1],
        ] {
            assert_eq!(parse(&records(&message(&extensions), &[])), Err(BadHello::Malformed), "{extensions:?}");
        }
    }

    #[test]
    fn what_is_no_hello_is_refused_at_once() {
        assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Err(BadHello::NotTls));
        assert_eq!(parse(b"SSH-2.0-x"), Err(BadHello::NotTls));
        assert_eq!(parse(&[22, 2]), Err(BadHello::NotTls));
        assert_eq!(parse(&[22, 3, 1, 0, 0]), Err(BadHello::Malformed));
        assert_eq!(parse(&[22, 3, 1, 0x41, 0]), Err(BadHello::Malformed));
        assert_eq!(parse(&[22, 3, 1, 0, 1, 2]), Err(BadHello::NotTls), "a ServerHello");
        assert_eq!(parse(&[22, 3, 1, 0, 4, 1, 0xff, 0, 0]), Err(BadHello::TooLong));
        assert_eq!(parse(&[]), Ok(Hello::Partial { needed: 5 }));
        let trailing = [message(&[]), vec![0]].concat();
        assert_eq!(parse(&records(&trailing, &[])), Err(BadHello::Malformed));
    }

    #[test]
    fn endless_fragments_end() {
        let long = message(&extension(21, &vec![0; MAX_HELLO - 100]));
        assert_eq!(parse(&records(&long, &vec![1; MAX_HELLO])), Err(BadHello::TooLong));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn never_panics_on_a_mutated_hello(at in any::<prop::sample::Index>(), byte: u8, cuts in vec(1..40_usize, 0..5)) {
            let mut bytes = records(&message(&[names(&["a.org"]), extension(16, b"\0\x03\x02h2")].concat()), &cuts);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = parse(&bytes);
        }

        #[test]
        fn fragments_and_other_extensions_change_nothing(
            name in "[a-z]{1,9}(\\.[a-z]{1,9}){0,3}",
            before in vec((1..u16::MAX, vec(any::<u8>(), 0..50)), 0..4),
            after in vec((1..u16::MAX, vec(any::<u8>(), 0..50)), 0..4),
            cuts in vec(1..60_usize, 0..12),
        ) {
            let all = |list: &[(u16, Vec<u8>)]| -> Vec<u8> {
                list.iter().flat_map(|(kind, data)| extension(*kind, data)).collect()
            };
            let bytes = records(&message(&[all(&before), names(&[&name]), all(&after)].concat()), &cuts);
            prop_assert_eq!(parse(&bytes), Ok(names_server(&name)));
            for end in 0..bytes.len() {
                match parse(&bytes[..end]) {
                    Ok(Hello::Partial { needed }) => prop_assert!(needed > end && needed <= bytes.len()),
                    other => prop_assert!(false, "{:?} after {} bytes", other, end),
                }
            }
        }
    }
}
