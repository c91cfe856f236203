//! The tower service under async-openai: sends the request and hands only a clean event stream up.
//!
//! async-openai loses the status of a refusal whose body is not OpenAI's, logs what it cannot decode (a person's text),
//! reads a line of any length, queues events without a bound, and drops the connection at `[DONE]` before its end was
//! read, so that the next request must connect anew. All that is mended here; the reasons for a broken stream travel
//! beside it, in [`Watch`], because async-openai turns them into text.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_openai::{error::OpenAIError, middleware::HttpRequestFactory};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use hyper::http;
use reqwest::{Body, Response, header};
use serde_json::Value;

use super::{refusal::Refusal, retry::retry_after};
use crate::clock::Clock;

/// One event: a message with all its calls may come in a single one.
const MAX_EVENT: usize = 8 * 1024 * 1024;
/// A whole answer: some hundred bytes of JSON around each token.
const MAX_BODY: usize = 128 * 1024 * 1024;
/// Of a refusal's body.
const MAX_REFUSAL: usize = 64 * 1024;
const REFUSAL_WITHIN: Duration = Duration::from_secs(10);
/// How long the end of the body may follow the `[DONE]`.
const END_WITHIN: Duration = Duration::from_millis(100);

/// Why there is no stream. Travels through async-openai as a boxed error.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoStream {
    /// The request did not reach the provider, or no answer came back.
    #[error("no connection")]
    Transport(#[source] reqwest::Error),
    /// It answered with something else than 2xx.
    #[error("refused")]
    Refused(Refusal),
    /// It answered 2xx with something else than a stream or a completion.
    #[error("{0}")]
    NotAStream(&'static str),
}

/// Why a stream broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection was lost.
    Cut,
    /// An event was no JSON.
    Garbled,
    /// More came than any answer holds.
    TooMuch,
}

/// What the service saw of one stream.
#[derive(Debug, Default)]
pub(super) struct Watch {
    fault: OnceLock<Fault>,
    done: AtomicBool,
}

impl Watch {
    /// Returns why the stream broke, if it did.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.get().copied()
    }

    /// Returns whether the stream was closed with `[DONE]`.
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    fn fail(&self, fault: Fault) -> std::io::Error {
        // The first reason is the cause of all later ones.
        let _ = self.fault.set(fault);
        std::io::Error::other("broken stream")
    }
}

/// Sends the request and returns a response whose body is a clean event stream.
pub(super) async fn send(
    request: HttpRequestFactory,
    http: reqwest::Client,
    clock: Clock,
    watch: Arc<Watch>,
) -> Result<Response, OpenAIError> {
    let request = request.build().await?;
    let response = http.execute(request).await.map_err(|error| no_stream(NoStream::Transport(error)))?;
    if !response.status().is_success() {
        let status = response.status().as_u16();
        let wait = retry_after(response.headers(), clock.millis());
        return Err(no_stream(NoStream::Refused(Refusal { status, wait, body: beginning(response).await })));
    }
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let body = response.bytes_stream();
    let body = match kind.as_str() {
        "text/html" => return Err(no_stream(NoStream::NotAStream("a web page"))),
        // A whole completion, or an error under status 200: one event.
        "application/json" => {
            // Its own end is the mark of the end; one that is cut is no JSON.
            watch.done.store(true, Ordering::Release);
            let start = stream::once(async { Ok(Bytes::from_static(b"data:")) });
            Body::wrap_stream(events(start.chain(body.map(|piece| piece.map(one_line))), watch))
        }
        _ => Body::wrap_stream(events(body, watch)),
    };
    Ok(Response::from(http::Response::new(body)))
}

fn no_stream(why: NoStream) -> OpenAIError {
    OpenAIError::Boxed(Box::new(why))
}

async fn beginning(response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let mut pieces = response.bytes_stream();
    let read = async {
        while let Some(Ok(piece)) = pieces.next().await {
            body.extend_from_slice(&piece[..piece.len().min(MAX_REFUSAL - body.len())]);
            if body.len() == MAX_REFUSAL {
                break;
            }
        }
    };
    // Whatever came until then is enough to quote.
    let _ = tokio::time::timeout(REFUSAL_WITHIN, read).await;
    body
}

/// A line break in JSON is only ever white space.
fn one_line(piece: Bytes) -> Bytes {
    if piece.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        piece.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
    } else {
        piece
    }
}

/// Reads an event stream and yields each event's data as one `data:` line; comments and other fields are dropped.
fn events(
    body: impl Stream<Item = reqwest::Result<Bytes>> + Send + 'static,
    watch: Arc<Watch>,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    let reader = Reader {
        body: Box::pin(body),
        watch,
        buffer: BytesMut::new(),
        searched: 0,
        event: Vec::new(),
        total: 0,
        ended: false,
    };
    stream::unfold(reader, |mut reader| async move {
        let next = reader.next().await?;
        reader.ended |= next.is_err();
        Some((next, reader))
    })
}

struct Reader<S: ?Sized> {
    watch: Arc<Watch>,
    /// Bytes without a line end yet.
    buffer: BytesMut,
    /// How much of `buffer` was searched for one.
    searched: usize,
    /// Data of the event that is being read.
    event: Vec<u8>,
    total: usize,
    ended: bool,
    body: std::pin::Pin<Box<S>>,
}

impl<S: Stream<Item = reqwest::Result<Bytes>>> Reader<S> {
    async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        loop {
            if self.ended {
                return None;
            }
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + end + 1);
                self.searched = 0;
                if let Some(event) = self.line(&line) {
                    return self.check(event).await;
                }
                continue;
            }
            self.searched = self.buffer.len();
            match self.body.next().await {
                Some(Ok(piece)) => {
                    self.total += piece.len();
                    if self.total > MAX_BODY || self.buffer.len() + self.event.len() + piece.len() > MAX_EVENT {
                        return Some(Err(self.watch.fail(Fault::TooMuch)));
                    }
                    self.buffer.extend_from_slice(&piece);
                }
                Some(Err(_)) => return Some(Err(self.watch.fail(Fault::Cut))),
                None => {
                    self.ended = true;
                    // The last event may lack its blank line.
                    let line = std::mem::take(&mut self.buffer);
                    let event = self.line(&line).or_else(|| self.line(b""));
                    return match event {
                        Some(event) => self.check(event).await,
                        None => None,
                    };
                }
            }
        }
    }

    /// Takes a line; returns the event's data when the line closes one.
    fn line(&mut self, line: &[u8]) -> Option<Vec<u8>> {
        let line = line.trim_ascii_end();
        if line.is_empty() {
            return (!self.event.is_empty()).then(|| std::mem::take(&mut self.event));
        }
        if let Some(data) = line.strip_prefix(b"data:") {
            if !self.event.is_empty() {
                self.event.push(b' ');
            }
            self.event.extend_from_slice(data.trim_ascii());
        }
        None
    }

    async fn check(&mut self, event: Vec<u8>) -> Option<std::io::Result<Bytes>> {
        if event == b"[DONE]" {
            self.watch.done.store(true, Ordering::Release);
            self.ended = true;
            // A body read to its end leaves the connection to the next request.
            let rest = async { while let Some(Ok(_)) = self.body.next().await {} };
            let _ = tokio::time::timeout(END_WITHIN, rest).await;
            return None;
        }
        // Read as what async-openai will read it as: what fails there is logged there, and it is a person's text.
        if serde_json::from_slice::<Value>(&event).is_err() {
            return Some(Err(self.watch.fail(Fault::Garbled)));
        }
        let mut line = Vec::with_capacity(event.len() + 8);
        line.extend_from_slice(b"data: ");
        line.extend_from_slice(&event);
        line.extend_from_slice(b"\n\n");
        Some(Ok(line.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(pieces: Vec<&'static [u8]>) -> (Vec<String>, Watch) {
        let watch = Arc::new(Watch::default());
        let body = stream::iter(pieces).map(|piece| Ok(Bytes::from_static(piece)));
        let events: Vec<_> = events(body, watch.clone())
            .map(|event| {
                event.map_or_else(|_| "broken".to_owned(), |event| String::from_utf8_lossy(&event).into_owned())
            })
            .collect()
            .await;
        (events, Arc::try_unwrap(watch).expect("the stream is gone"))
    }

    #[tokio::test]
    async fn events_come_whole_wherever_they_are_cut() {
        let text: &[u8] = b": hello\n\nevent: x\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\nid: 3\ndata:{\"b\":2}\n\ndata: [DONE]\n\ndata: late";
        for cut in 0..text.len() {
            let (events, watch) = read(vec![&text[..cut], &text[cut..]]).await;
            assert_eq!(events, ["data: {\"a\": 1}\n\n", "data: {\"b\":2}\n\n"], "cut at {cut}");
            assert!(watch.is_done());
        }
    }

    #[tokio::test]
    async fn the_body_is_read_to_its_end_so_that_the_connection_can_be_used_again() {
        let (watch, end) = (Arc::new(Watch::default()), Arc::new(AtomicBool::new(false)));
        let reached = end.clone();
        let late = stream::once(async move {
            tokio::task::yield_now().await;
            reached.store(true, Ordering::Release);
            Ok(Bytes::new())
        });
        let body = stream::once(async { Ok(Bytes::from_static(b"data: {}\n\ndata: [DONE]\n\n")) }).chain(late);
        assert_eq!(events(body, watch).count().await, 1);
        assert!(end.load(Ordering::Acquire));
    }

    #[tokio::test]
    async fn the_last_event_needs_no_blank_line() {
        let (events, watch) = read(vec![b"data: {}\n\ndata: 1"]).await;
        assert_eq!(events, ["data: {}\n\n", "data: 1\n\n"]);
        assert!(!watch.is_done());
    }

    #[tokio::test]
    async fn garbage_and_endless_lines_break_the_stream() {
        let (events, watch) = read(vec![b"data: {}\n\ndata: {oops\n\ndata: {}\n\n"]).await;
        assert_eq!((events.len(), watch.fault()), (2, Some(Fault::Garbled)));
        let piece: &'static [u8] = &[b'x'; 16 * 1024];
        let (events, watch) = read(vec![piece; MAX_EVENT / piece.len() + 1]).await;
        assert_eq!((events, watch.fault()), (vec!["broken".to_owned()], Some(Fault::TooMuch)));
    }
}
