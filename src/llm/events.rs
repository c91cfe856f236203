//! Reads what a provider sends as events, whatever its label says: server-sent events with any line ends, with or without
//! blank lines between them; JSON that stands alone; what a server says in plain words instead.
//!
//! Pure but for the stream that it reads. Called by `guard.rs`; the rules are beside the code, and each has its input in
//! `tests/llm/labels.rs`.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};

use super::{
    halves,
    watch::{Fault, Watch},
};
use crate::json::{self, Braces};

/// One event: a message with all its calls may come in a single one.
const MAX_EVENT: usize = 8 * 1024 * 1024;
/// A whole answer: some hundred bytes of JSON around each token.
const MAX_BODY: usize = 128 * 1024 * 1024;
/// The mark of the end.
const DONE: &[u8] = b"[DONE]";
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
        held: None,
        ready: VecDeque::new(),
        total: 0,
        drained: false,
        ended: false,
        body: Box::pin(body),
    };
    stream::unfold(reader, |mut reader| async move {
        let next = reader.next().await?;
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
    /// An event that ends in half a character: the other half may be in the next one.
    held: Option<Vec<u8>>,
    /// What is handed on next.
    ready: VecDeque<std::io::Result<Bytes>>,
    total: usize,
    /// The body has come to its end.
    drained: bool,
    /// Nothing more is read.
    ended: bool,
    body: Pin<Box<S>>,
}

impl<E, S: Stream<Item = Result<Bytes, E>>> Reader<S> {
    async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            if self.ended {
                return None;
            }
            let over = self.drained && self.rest.is_empty() && self.buffer.is_empty();
            let event = if let Some(line) = self.next_line() {
                match self.line(&line) {
                    Ok(event) => event,
                    Err(fault) => {
                        self.fail(fault);
                        continue;
                    }
                }
            } else if over {
                if self.was_bare {
                    // Its own end is the mark of the end; one that is cut is no JSON.
                    self.watch.close();
                }
                // The last event may lack its blank line.
                self.close()
            } else {
                if let Err(fault) = self.read().await {
                    self.fail(fault);
                }
                None
            };
            if let Some(event) = event {
                self.check(event).await;
            }
            if over || self.ended {
                self.release();
                self.ended = true;
            }
        }
    }

    /// Ends the stream.
    fn fail(&mut self, fault: Fault) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.release();
        let error = self.watch.fail(fault);
        self.ready.push_back(Err(error));
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
        if self.braces.is_in_string() && !line.starts_with(b"data:") {
            // A line break that somebody has not escaped, and what stands behind it.
            return Ok(self.data(whole, whole));
        }
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
            if self.braces.is_in_string() {
                data = data.strip_prefix(b" ").unwrap_or(data);
            }
            if self.has_words() && is_begun(data) {
                // Words have no mark of their end.
                self.rest = whole.clone();
                return Ok(self.close());
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
        if is_begun(line) || is_done(line) {
            self.bare = true;
            return Ok(self.data(whole, line));
        }
        if first && line[0] == b'<' {
            return Err(Fault::WebPage);
        }
        self.stray(line);
        Ok(None)
    }

    /// Keeps words that stand where an event should.
    fn stray(&self, words: &[u8]) {
        self.watch.stray(&String::from_utf8_lossy(&words[..words.len().min(MAX_WORDS)]));
    }

    /// Returns whether what was read of the event is no object and no list.
    fn has_words(&self) -> bool {
        !self.event.is_empty() && !is_begun(&self.event)
    }

    /// Adds to the event. It ends where its JSON does: not every server sends the blank line.
    fn data(&mut self, line: &Bytes, data: &[u8]) -> Option<Vec<u8>> {
        let in_string = self.braces.is_in_string();
        let data = if in_string { data } else { data.trim_ascii() };
        if in_string {
            self.event.push(b'\n');
        } else if !self.event.is_empty() && !data.is_empty() {
            self.event.push(b' ');
        }
        let is_done = self.event.is_empty() && is_done(data);
        if self.has_words() || self.event.is_empty() && !is_begun(data) && !is_done {
            self.event.extend_from_slice(data);
            return None;
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

    async fn check(&mut self, event: Vec<u8>) {
        let is_error = std::mem::take(&mut self.is_error);
        if is_done(&event) {
            self.watch.close();
            self.ended = true;
            // A body read to its end leaves the connection to the next request.
            let rest = async { while let Some(Ok(_)) = self.body.next().await {} };
            let _ = tokio::time::timeout(END_WITHIN, rest).await;
            return;
        }
        if is_error && !is_sound(json::lossy(&event).as_bytes()) {
            // In plain words, which are for the person.
            let words = String::from_utf8_lossy(&event);
            return self.hand_on(json!({"error": {"message": words}}).to_string().as_bytes());
        }
        if !is_begun(&event) && !is_sound(&event) {
            // A sign of life in words, or a piece of the answer: nobody else's business, unless it says what is wrong.
            return if says_error(&event) { self.stray(&event) } else { self.watch.pass_over() };
        }
        self.hold(event);
    }

    /// Hands an event on, or holds it back where the next may have the rest of a character.
    fn hold(&mut self, mut event: Vec<u8>) {
        if let Some(mut held) = self.held.take() {
            halves::carry(&mut held, &mut event);
            self.mended(&held);
        }
        if is_sound(&event) {
            return self.hand_on(&event);
        }
        // Nothing has to follow the last one.
        let ends = || serde_json::from_str(&json::lossy(&event)).is_ok_and(|event: Value| ends_answer(&event));
        if halves::ends_in_half(&event) && !ends() {
            self.held = Some(event);
        } else {
            self.mended(&event);
        }
    }

    /// Hands on what was held back for a half that did not come.
    fn release(&mut self) {
        if let Some(held) = self.held.take() {
            self.mended(&held);
        }
    }

    /// Hands on what of an event can be mended.
    fn mended(&mut self, event: &[u8]) {
        let mended = json::lossy(event);
        if is_sound(mended.as_bytes()) {
            return self.hand_on(mended.as_bytes());
        }
        let cut_off = matches!(mended.get(1..).unwrap_or_default().trim_start().chars().next(), None | Some('"'));
        if event.starts_with(b"{") && !cut_off && (self.was_bare || says_error(event)) {
            // Words between braces, and perhaps behind them.
            self.stray(&[mended.as_bytes(), &self.rest].concat());
        }
        self.fail(Fault::Garbled);
    }

    /// Hands an event on as async-openai will read it: what fails there is logged there, and it is a person's text.
    fn hand_on(&mut self, event: &[u8]) {
        let mut line = Vec::with_capacity(event.len() + 8);
        line.extend_from_slice(b"data: ");
        line.extend_from_slice(event);
        line.extend_from_slice(b"\n\n");
        self.ready.push_back(Ok(line.into()));
    }
}

fn is_sound(text: &[u8]) -> bool {
    serde_json::from_slice::<Value>(text).is_ok()
}

/// Returns whether a text begins like an object or a list of such; `[2026-01-01 12:00] overloaded` are words.
fn is_begun(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    let then = text.get(1..).unwrap_or_default().trim_ascii_start().first();
    match text.first() {
        Some(b'{') => true,
        Some(b'[') => matches!(then, None | Some(b'{' | b'[' | b']')),
        _ => false,
    }
}

/// Returns whether a text is the mark of the end, however it is capitalised; `[done] loading` are words.
fn is_done(text: &[u8]) -> bool {
    let mark = text.trim_ascii_start().split_at_checked(DONE.len());
    mark.is_some_and(|(mark, behind)| {
        let behind = behind.trim_ascii_start();
        mark.eq_ignore_ascii_case(DONE) && (behind.is_empty() || behind.starts_with(b"data:"))
    })
}

/// Returns whether words begin by saying that something is wrong.
fn says_error(words: &[u8]) -> bool {
    let begin = String::from_utf8_lossy(&words[..words.len().min(MAX_WORDS)]).to_lowercase();
    let begin = begin.trim_start_matches(|c: char| !c.is_alphabetic());
    let marks =
        ["error", "exception", "traceback", "fatal", "internal server error", "service unavailable", "upstream "];
    marks.iter().any(|mark| begin.starts_with(mark))
}

/// Returns whether an event says why the answer ends.
fn ends_answer(event: &Value) -> bool {
    let choices = event["choices"].as_array();
    choices.is_some_and(|choices| choices.iter().any(|choice| choice["finish_reason"].is_string()))
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
