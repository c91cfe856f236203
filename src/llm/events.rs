//! Parses a provider's response as events, whatever its content type: server-sent events with any line ends, with or
//! without blank lines between them; JSON on its own; or what a server says in plain text.
//!
//! Pure except for the stream that it reads. Used by `guard.rs`; the rules are beside the code, and each has its
//! input in `tests/llm/labels.rs`.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};

use super::{
    halves,
    watch::{Fault, Watch},
};
use crate::json::{self, Braces};

/// The longest event in bytes: a message with all its calls may come in one.
const MAX_EVENT: usize = 8 * 1024 * 1024;
/// The longest response in bytes: some hundred bytes of JSON around each token.
const MAX_BODY: usize = 128 * 1024 * 1024;
/// The mark of the end.
const DONE: &[u8] = b"[DONE]";
/// How long the end of the body may take after `[DONE]`.
const END_WITHIN: Duration = Duration::from_millis(100);
/// The most bytes of plain text that are kept.
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
    /// Bytes after the last complete line.
    buffer: BytesMut,
    /// How much of `buffer` was searched for a line end.
    searched: usize,
    /// Whether the last line ended with a carriage return, to which a following line feed belongs.
    after_return: bool,
    /// Whether the first line was read.
    begun: bool,
    /// What followed an event in the same line.
    rest: Bytes,
    /// Data of the current event, in one line.
    event: Vec<u8>,
    braces: Braces,
    /// Whether the current event has no `data:` field name.
    bare: bool,
    /// Whether the last event had none.
    was_bare: bool,
    /// Whether the current event is named `error`.
    is_error: bool,
    /// An event that ends in half a character, whose other half may be in the next event.
    held: Option<Vec<u8>>,
    /// What is yielded next.
    ready: VecDeque<std::io::Result<Bytes>>,
    total: usize,
    /// Whether the body was read to its end.
    drained: bool,
    /// Whether nothing more is read.
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
                    // A complete JSON body needs no mark of its end; one that is cut off does not parse.
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

    /// Ends the stream with a fault.
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

    /// Returns the next line without its end: LF, CR LF, or CR alone, which the standard allows too.
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

    /// Takes a line; returns the event's data if the line ends one.
    fn line(&mut self, whole: &Bytes) -> Result<Option<Vec<u8>>, Fault> {
        let mark: &[u8] = if self.begun { b"" } else { b"\xef\xbb\xbf" };
        let line = whole.strip_prefix(mark).unwrap_or(whole).trim_ascii();
        let first = !self.begun;
        self.begun |= !line.is_empty();
        if self.braces.is_in_string() && !line.starts_with(b"data:") {
            // A line break in a string that is not escaped, and the rest of that string.
            return Ok(self.data(whole, whole));
        }
        if self.bare {
            return Ok(self.data(whole, line));
        }
        if line.is_empty() {
            return Ok(self.close());
        }
        if let Some(mut data) = line.strip_prefix(b"data:") {
            // A proxy that wraps events may add a second `data:`.
            while let Some(inner) = data.trim_ascii_start().strip_prefix(b"data:") {
                data = inner;
            }
            if self.braces.is_in_string() {
                data = data.strip_prefix(b" ").unwrap_or(data);
            }
            if self.has_words() && is_begun(data) {
                // Plain text has no mark of its end.
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
            // JSON over several lines, of which only the first has `data:`.
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

    /// Keeps plain text that came instead of an event.
    fn stray(&self, words: &[u8]) {
        self.watch.stray(&String::from_utf8_lossy(&words[..words.len().min(MAX_WORDS)]));
    }

    /// Returns whether the current event is neither an object nor a list.
    fn has_words(&self) -> bool {
        !self.event.is_empty() && !is_begun(&self.event)
    }

    /// Adds to the current event. It ends where its JSON ends, since not every server sends a blank line.
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

    /// Ends the current event; returns its data, if it has any.
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
            // If the body is read to its end, the connection can be used for the next request.
            let rest = async { while let Some(Ok(_)) = self.body.next().await {} };
            let _ = tokio::time::timeout(END_WITHIN, rest).await;
            return;
        }
        if is_error && !is_sound(json::lossy(&event).as_bytes()) {
            // Plain text is for the person.
            let words = String::from_utf8_lossy(&event);
            return self.hand_on(json!({"error": {"message": words}}).to_string().as_bytes());
        }
        if !is_begun(&event) && !is_sound(&event) {
            // Text that is a sign of life or a piece of the answer is not kept, only text about an error.
            return if says_error(&event) { self.stray(&event) } else { self.watch.pass_over() };
        }
        self.hold(event);
    }

    /// Yields an event, or holds it back if the next one may have the rest of a character.
    fn hold(&mut self, mut event: Vec<u8>) {
        if let Some(mut held) = self.held.take() {
            halves::carry(&mut held, &mut event);
            self.mended(&held);
        }
        if is_sound(&event) {
            return self.hand_on(&event);
        }
        // Nothing needs to follow the last event.
        let ends = || serde_json::from_str(&json::lossy(&event)).is_ok_and(|event: Value| ends_answer(&event));
        if halves::ends_in_half(&event) && !ends() {
            self.held = Some(event);
        } else {
            self.mended(&event);
        }
    }

    /// Yields what was held back for another half that did not come.
    fn release(&mut self) {
        if let Some(held) = self.held.take() {
            self.mended(&held);
        }
    }

    /// Yields an event after repairs.
    fn mended(&mut self, event: &[u8]) {
        let mended = json::lossy(event);
        if is_sound(mended.as_bytes()) {
            return self.hand_on(mended.as_bytes());
        }
        let cut_off = matches!(mended.get(1..).unwrap_or_default().trim_start().chars().next(), None | Some('"'));
        if event.starts_with(b"{") && !cut_off && (self.was_bare || says_error(event)) {
            // Plain text in braces, and perhaps after them.
            self.stray(&[mended.as_bytes(), &self.rest].concat());
        }
        self.fail(Fault::Garbled);
    }

    /// Yields an event as async-openai parses it. It must parse, since async-openai logs what does not, which may be
    /// a person's text.
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

/// Returns whether a text begins like an object or a list of objects; `[2026-01-01 12:00] overloaded` does not.
fn is_begun(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    let then = text.get(1..).unwrap_or_default().trim_ascii_start().first();
    match text.first() {
        Some(b'{') => true,
        Some(b'[') => matches!(then, None | Some(b'{' | b'[' | b']')),
        _ => false,
    }
}

/// Returns whether a text is the mark of the end, in any case; `[done] loading` is not.
fn is_done(text: &[u8]) -> bool {
    let mark = text.trim_ascii_start().split_at_checked(DONE.len());
    mark.is_some_and(|(mark, behind)| {
        let behind = behind.trim_ascii_start();
        mark.eq_ignore_ascii_case(DONE) && (behind.is_empty() || behind.starts_with(b"data:"))
    })
}

/// Returns whether a text begins like an error message.
fn says_error(words: &[u8]) -> bool {
    let begin = String::from_utf8_lossy(&words[..words.len().min(MAX_WORDS)]).to_lowercase();
    let begin = begin.trim_start_matches(|c: char| !c.is_alphabetic());
    let marks =
        ["error", "exception", "traceback", "fatal", "internal server error", "service unavailable", "upstream "];
    marks.iter().any(|mark| begin.starts_with(mark))
}

/// Returns whether an event has a finish reason.
fn ends_answer(event: &Value) -> bool {
    let choices = event["choices"].as_array();
    choices.is_some_and(|choices| choices.iter().any(|choice| choice["finish_reason"].is_string()))
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
