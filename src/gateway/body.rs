//! Request bodies: decoded as a sandbox sends them, and passed on as a stream that cannot end early unnoticed.
//!
//! It must not know policy. `downstream` decodes with it; `exchange` hands the [`Upload`] to an HTTP client.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::head::Framing;

/// The most bytes of a chunk's size line, and of all trailers together.
const MAX_LINE: usize = 256;
const MAX_TRAILERS: usize = 4096;

/// Pieces of a body that may be queued for the upstream.
const PIECES: usize = 4;

/// The body violates its own framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The request's body is not well-formed.")]
pub struct BadBody;

/// The result of [`Decoder::decode`].
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A piece of the body, never empty.
    Data(Bytes),
    /// More bytes are needed.
    More,
    /// The body has ended; what is left in the buffer belongs to the next request.
    End,
}

/// Decodes one body.
#[derive(Debug)]
pub struct Decoder(State);

#[derive(Debug)]
enum State {
    /// So many bytes are still to come.
    Length(u64),
    /// A chunk's size line comes next.
    Size,
    /// So many bytes of a chunk are still to come, at least one.
    Chunk(u64),
    /// The line end after a chunk comes next.
    ChunkEnd,
    /// Trailers come next; so many bytes of them were dropped.
    Trailers(usize),
    Over,
}

impl Decoder {
    /// Returns a decoder for a body with this framing.
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::None | Framing::Length(0) => State::Over,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
        })
    }

    /// Takes the next piece of the body out of `buffer`.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, BadBody> {
        loop {
            match self.0 {
                State::Over => return Ok(Decoded::End),
                State::Length(left) => {
                    let Some(data) = piece(buffer, left) else { return Ok(Decoded::More) };
                    let left = left - data.len() as u64;
                    self.0 = if left == 0 { State::Over } else { State::Length(left) };
                    return Ok(Decoded::Data(data));
                }
                State::Chunk(left) => {
                    let Some(data) = piece(buffer, left) else { return Ok(Decoded::More) };
                    let left = left - data.len() as u64;
                    self.0 = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    return Ok(Decoded::Data(data));
                }
                State::ChunkEnd => {
                    if !b"\r\n".starts_with(&buffer[..buffer.len().min(2)]) {
                        return Err(BadBody);
                    }
                    if buffer.len() < 2 {
                        return Ok(Decoded::More);
                    }
                    buffer.advance(2);
                    self.0 = State::Size;
                }
                State::Size => {
                    let Some(line) = line(buffer, MAX_LINE)? else { return Ok(Decoded::More) };
                    self.0 = match chunk_size(&line)? {
                        0 => State::Trailers(0),
                        size => State::Chunk(size),
                    };
                }
                State::Trailers(seen) => {
                    let Some(line) = line(buffer, MAX_TRAILERS - seen)? else { return Ok(Decoded::More) };
                    self.0 = if line.is_empty() { State::Over } else { State::Trailers(seen + line.len() + 2) };
                    if matches!(self.0, State::Trailers(seen) if seen > MAX_TRAILERS) {
                        return Err(BadBody);
                    }
                }
            }
        }
    }
}

fn piece(buffer: &mut BytesMut, left: u64) -> Option<Bytes> {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
    (length > 0).then(|| buffer.split_to(length).freeze())
}

/// Takes a line out of the buffer, without its CR LF; a lone LF or CR is an error.
fn line(buffer: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, BadBody> {
    let Some(at) = buffer.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if buffer.len() > limit { Err(BadBody) } else { Ok(None) };
    };
    match (buffer[at], buffer.get(at + 1)) {
        _ if at > limit => Err(BadBody),
        (b'\r', Some(b'\n')) => {
            let line = buffer.split_to(at);
            buffer.advance(2);
            Ok(Some(line))
        }
        (b'\r', None) => Ok(None),
        _ => Err(BadBody),
    }
}

/// Parses a chunk's size: hexadecimal digits and perhaps an extension, which is ignored.
fn chunk_size(line: &[u8]) -> Result<u64, BadBody> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(BadBody);
    }
    std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or(BadBody)
}

/// What is sent through the channel to an [`Upload`].
pub(super) enum Part {
    Data(Bytes),
    /// The body is complete. If the channel closes without this, the upload fails, so that a sandbox that disconnects
    /// in mid-body is never taken for one that has sent everything.
    End,
}

/// A request's body as a stream for HTTP clients.
pub(super) struct Upload {
    parts: Option<mpsc::Receiver<Part>>,
    length: Option<u64>,
}

/// The sandbox disconnected before its body was complete.
#[derive(Debug, thiserror::Error)]
#[error("the request's body was cut off")]
pub(super) struct CutOff;

impl Upload {
    /// Returns a body with this framing, and the sender for its parts.
    pub(super) fn new(framing: Framing) -> (mpsc::Sender<Part>, Self) {
        let (sender, parts) = mpsc::channel(PIECES);
        let (parts, length) = match framing {
            Framing::None | Framing::Length(0) => (None, Some(0)),
            Framing::Length(length) => (Some(parts), Some(length)),
            Framing::Chunked => (Some(parts), None),
        };
        (sender, Self { parts, length })
    }

    /// Returns an empty body.
    pub(super) fn empty() -> Self {
        Self { parts: None, length: Some(0) }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let Some(parts) = &mut self.parts else { return Poll::Ready(None) };
        match ready!(parts.poll_recv(context)) {
            Some(Part::Data(data)) => {
                self.length = self.length.map(|left| left.saturating_sub(data.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Part::End) => {
                self.parts = None;
                Poll::Ready(None)
            }
            None => {
                self.parts = None;
                Poll::Ready(Some(Err(CutOff)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;

    /// Decodes `bytes` that arrive in pieces of `step`; returns the body and what is left over.
    fn decode(framing: Framing, bytes: &[u8], step: usize) -> Result<(Vec<u8>, Option<Vec<u8>>), BadBody> {
        let (mut decoder, mut buffer, mut body) = (Decoder::new(framing), BytesMut::new(), Vec::new());
        let mut arriving = bytes.chunks(step.max(1));
        loop {
            match decoder.decode(&mut buffer)? {
                Decoded::Data(data) => body.extend(data),
                Decoded::End => {
                    buffer.extend(arriving.flatten());
                    return Ok((body, Some(buffer.to_vec())));
                }
                Decoded::More => match arriving.next() {
                    Some(piece) => buffer.extend_from_slice(piece),
                    None => return Ok((body, None)),
                },
            }
        }
    }

    #[test]
    fn bodies_end_where_they_should() {
        for step in 1..40 {
            let rest = Some(b"GET".to_vec());
            assert_eq!(decode(Framing::None, b"GET", step), Ok((vec![], rest.clone())));
            assert_eq!(decode(Framing::Length(5), b"helloGET", step), Ok((b"hello".to_vec(), rest.clone())));
            let chunked = b"3;ext=\"a\"\r\nhel\r\n02\r\nlo\r\n0\r\nTrailer: x\r\n\r\nGET";
            assert_eq!(decode(Framing::Chunked, chunked, step), Ok((b"hello".to_vec(), rest)));
        }
        assert_eq!(decode(Framing::Length(5), b"hel", 1), Ok((b"hel".to_vec(), None)));
        assert_eq!(decode(Framing::Chunked, b"3\r\nhel\r\n", 1), Ok((b"hel".to_vec(), None)));
    }

    #[test]
    fn chunks_that_two_parsers_would_read_in_two_ways_are_refused() {
        for bytes in [
            &b"\r\n"[..],
            b"+1\r\na\r\n",
            b"-1\r\n",
            b"0x1\r\na\r\n",
            b" 1\r\na\r\n",
            b"1 \r\na\r\n",
            b"g\r\n",
            b"1\na\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n",
            b"1\ra\r\n",
            b"1;a\nb\r\na\r\n",
            b"fffffffffffffffff\r\n",
            b"0\r\nX: y\n\r\n",
        ] {
            assert_eq!(decode(Framing::Chunked, bytes, 1), Err(BadBody), "{}", bytes.escape_ascii());
        }
        assert_eq!(decode(Framing::Chunked, &[b'0'; 400], 400), Err(BadBody));
        assert_eq!(
            decode(Framing::Chunked, &[b"0\r\n", b"X: yyyyyyy\r\n".repeat(500).as_slice()].concat(), 64),
            Err(BadBody)
        );
    }

    #[tokio::test]
    async fn an_upload_without_its_end_fails() {
        let (sender, upload) = Upload::new(Framing::Chunked);
        sender.send(Part::Data("a".into())).await.unwrap();
        drop(sender);
        assert!(upload.collect().await.is_err());
        let (sender, upload) = Upload::new(Framing::Length(1));
        assert_eq!(upload.size_hint().exact(), Some(1));
        sender.send(Part::Data("a".into())).await.unwrap();
        sender.send(Part::End).await.unwrap();
        assert_eq!(upload.collect().await.unwrap().to_bytes(), "a");
        assert!(Upload::empty().is_end_stream());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), step in 1..9_usize) {
            let _ = decode(Framing::Chunked, &bytes, step);
        }

        #[test]
        fn chunks_come_back(chunks in prop::collection::vec("[a-z]{1,40}", 0..6), step in 1..50_usize) {
            let mut bytes: Vec<u8> = chunks.iter().flat_map(|c| format!("{:x}\r\n{c}\r\n", c.len()).into_bytes()).collect();
            bytes.extend(b"0\r\n\r\nrest");
            prop_assert_eq!(decode(Framing::Chunked, &bytes, step), Ok((chunks.concat().into_bytes(), Some(b"rest".to_vec()))));
        }
    }
}
