//! Reads what a provider sends as events, whatever its label says: server-sent events with any line ends, with or without
//! blank lines between them; JSON that stands alone; what a server says in plain words instead.
//!
//! Pure but for the stream that it reads. Called by `guard.rs`; the rules are beside the code, and each has its input in
//! `tests/llm/labels.rs`.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};

use super::guard::{Fault, Watch};
use crate::json::{self, Braces};

/// One event: a message with all its calls may come in a single one.
const MAX_EVENT: usize = 8 * 1024 * 1024;
/// A whole answer: some hundred bytes of JSON around each token.
const MAX_BODY: usize = 128 * 1024 * 1024;
/// How long the end of the body may follow the `[DONE]`.
const END_WITHIN: Duration = Duration::from_millis(100);
/// Of words that stand where events should be.
const MAX_WORDS: usize = 512;

/// Reads a body and yields each event's data as one `data:` line; comments and other fields are dropped.
pub(super) fn events<E>(
    body: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    watch: Arc<Watch>,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send
where
    E: Send + 'static,
{
    let reader = Reader {
        watch,
        buffer: BytesMut::new(),
        searched: 0,
        after_return: false,
        begun: false,
        rest: Bytes::new(),
        event: Vec::new(),
        braces: Braces::default(),
        bare: false,
        was_bare: false,
        is_error: false,
        total: 0,
        drained: false,
        ended: false,
        body: Box::pin(body),
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
    /// The last line ended with a carriage return: a line feed that follows belongs to it.
    after_return: bool,
    /// The first line was read.
    begun: bool,
    /// What followed an event in its own line.
    rest: Bytes,
    /// Data of the event that is being read, in one line.
    event: Vec<u8>,
    braces: Braces,
    /// The event stands alone, without `data:`.
    bare: bool,
    /// So did the one before.
    was_bare: bool,
    /// The event is named `error`.
    is_error: bool,
    total: usize,
    /// The body has come to its end.
    drained: bool,
    /// Nothing more is read.
    ended: bool,
    body: Pin<Box<S>>,
}

impl<E, S: Stream<Item = Result<Bytes, E>>> Reader<S> {
    async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        while !self.ended {
            let event = if let Some(line) = self.next_line() {
                match self.line(&line) {
                    Ok(event) => event,
                    Err(fault) => return Some(Err(self.watch.fail(fault))),
                }
            } else if self.drained {
                self.ended = true;
                if self.was_bare {
                    // Its own end is the mark of the end; one that is cut is no JSON.
                    self.watch.close();
                }
                // The last event may lack its blank line.
                self.close()
            } else {
                if let Err(fault) = self.read().await {
                    return Some(Err(self.watch.fail(fault)));
                }
                None
            };
            if let Some(event) = event
                && let Some(next) = self.check(event).await
            {
                return Some(next);
            }
        }
        None
    }

    async fn read(&mut self) -> Result<(), Fault> {
        match self.body.next().await {
            Some(Ok(piece)) => {
                self.watch.hear();
                self.total += piece.len();
                if self.total > MAX_BODY || self.buffer.len() + self.event.len() + piece.len() > MAX_EVENT {
                    return Err(Fault::TooMuch);
                }
                self.buffer.extend_from_slice(&piece);
                Ok(())
            }
            Some(Err(_)) => Err(Fault::Cut),
            None => {
                self.drained = true;
                Ok(())
            }
        }
    }

    /// Returns the next line without its end: LF, CR LF or, as the standard has it too, CR alone.
    fn next_line(&mut self) -> Option<Bytes> {
        if !self.rest.is_empty() {
            return Some(std::mem::take(&mut self.rest));
        }
        if self.after_return && !self.buffer.is_empty() {
            self.after_return = false;
            if self.buffer[0] == b'\n' {
                self.buffer.advance(1);
            }
        }
        let end = self.buffer[self.searched..].iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let Some(end) = end else {
            self.searched = self.buffer.len();
            let last = self.drained && !self.buffer.is_empty();
            return last.then(|| {
                self.searched = 0;
                std::mem::take(&mut self.buffer).freeze()
            });
        };
        let mut line = self.buffer.split_to(self.searched + end + 1);
        self.searched = 0;
        self.after_return = line.last() == Some(&b'\r');
        line.truncate(line.len() - 1);
        Some(line.freeze())
    }

    /// Takes a line; returns the event's data when the line closes one.
    fn line(&mut self, whole: &Bytes) -> Result<Option<Vec<u8>>, Fault> {
        let mark: &[u8] = if self.begun { b"" } else { b"\xef\xbb\xbf" };
        let line = whole.strip_prefix(mark).unwrap_or(whole).trim_ascii();
        let first = !self.begun;
        self.begun |= !line.is_empty();
        if self.bare {
            return Ok(self.data(whole, line));
        }
        if line.is_empty() {
            return Ok(self.close());
        }
        if let Some(mut data) = line.strip_prefix(b"data:") {
            // A proxy that wraps what is wrapped already.
            while let Some(inner) = data.trim_ascii_start().strip_prefix(b"data:") {
                data = inner;
            }
            return Ok(self.data(whole, data));
        }
        if let Some(name) = line.strip_prefix(b"event:") {
            self.is_error = name.trim_ascii() == b"error";
            return Ok(None);
        }
        if line.starts_with(b":") || line.starts_with(b"id:") || line.starts_with(b"retry:") {
            return Ok(None);
        }
        if self.braces.is_open() {
            // JSON in several lines of which only the first is marked.
            return Ok(self.data(whole, line));
        }
        if matches!(line[0], b'{' | b'[') {
            self.bare = true;
            return Ok(self.data(whole, line));
        }
        if first && line[0] == b'<' {
            return Err(Fault::WebPage);
        }
        self.watch.stray(&String::from_utf8_lossy(&line[..line.len().min(MAX_WORDS)]));
        Ok(None)
    }

    /// Adds to the event. It ends where its JSON does: not every server sends the blank line.
    fn data(&mut self, line: &Bytes, data: &[u8]) -> Option<Vec<u8>> {
        let data = data.trim_ascii();
        if !self.event.is_empty() && !data.is_empty() {
            self.event.push(b' ');
        }
        let end = self.braces.feed(data);
        self.event.extend_from_slice(&data[..end.unwrap_or(data.len())]);
        self.rest = line.slice_ref(&data[end?..]);
        self.close()
    }

    /// Ends the event that is being read; returns its data, if it has any.
    fn close(&mut self) -> Option<Vec<u8>> {
        self.braces = Braces::default();
        let bare = std::mem::take(&mut self.bare);
        if self.event.is_empty() {
            self.is_error = false;
            return None;
        }
        self.was_bare = bare;
        Some(std::mem::take(&mut self.event))
    }

    async fn check(&mut self, event: Vec<u8>) -> Option<std::io::Result<Bytes>> {
        let is_error = std::mem::take(&mut self.is_error);
        if event.trim_ascii() == b"[DONE]" {
            self.watch.close();
            self.ended = true;
            // A body read to its end leaves the connection to the next request.
            let rest = async { while let Some(Ok(_)) = self.body.next().await {} };
            let _ = tokio::time::timeout(END_WITHIN, rest).await;
            return None;
        }
        // Read as what async-openai will read it as: what fails there is logged there, and it is a person's text.
        let sound = |text: &[u8]| serde_json::from_slice::<Value>(text).is_ok();
        let event = if sound(&event) {
            event
        } else {
            let mended = json::lossy(&event);
            match sound(mended.as_bytes()) {
                true => mended.into_bytes(),
                // In plain words, which are for the person.
                false if is_error => json!({"error": {"message": mended}}).to_string().into_bytes(),
                false => return Some(Err(self.watch.fail(Fault::Garbled))),
            }
        };
        let mut line = Vec::with_capacity(event.len() + 8);
        line.extend_from_slice(b"data: ");
        line.extend_from_slice(&event);
        line.extend_from_slice(b"\n\n");
        Some(Ok(line.into()))
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
