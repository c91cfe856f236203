//! Reads the tokens out of an answer while it passes, without holding a byte of it back.
//!
//! Pure but for [`Tap`], which hands the bytes on. It must not know whose the tokens are. Called by `serve`.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use serde::Deserialize;
use tokio::time::Instant;

use super::Protocol;
use crate::ledger::{BYTES_PER_TOKEN, Tokens};

/// The longest event that is looked into, and the longest answer in one piece: beyond it an answer passes uncounted, and
/// its tokens are estimated.
const MAX_LINE: usize = 1024 * 1024;
const MAX_WHOLE: usize = 8 * 1024 * 1024;

/// Between two signs that an answer is being said.
const SIGNS: Duration = Duration::from_secs(1);

/// The tokens as they stand in an answer of any protocol.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    usage: Option<Usage>,
    /// Where an event of OpenAI's responses has them.
    response: Option<Within>,
    /// Where the first event of Anthropic's messages has them.
    message: Option<Within>,
    #[serde(rename = "usageMetadata")]
    usage_metadata: Option<Gemini>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Within {
    usage: Option<Usage>,
}

/// The names of chat completions, of responses, and of messages, whose input is without what a cache has served or taken.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    prompt_tokens_details: Option<Details>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<Details>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Gemini {
    #[serde(rename = "promptTokenCount")]
    prompt: u64,
    #[serde(rename = "toolUsePromptTokenCount")]
    tool_use: u64,
    #[serde(rename = "cachedContentTokenCount")]
    cached: u64,
    #[serde(rename = "candidatesTokenCount")]
    candidates: u64,
    #[serde(rename = "thoughtsTokenCount")]
    thoughts: u64,
}

/// What an answer has told so far.
#[derive(Debug)]
pub(super) struct Scan {
    protocol: Protocol,
    /// Server-sent events; else one piece of JSON.
    events: bool,
    /// The line so far, or the whole so far.
    held: Vec<u8>,
    /// The line, or the whole, is too long to be looked into.
    passed_over: bool,
    told: Option<Tokens>,
    /// Events that had data.
    count: u64,
    /// The upstream broke off.
    pub(super) broken: bool,
}

impl Scan {
    pub(super) fn new(protocol: Protocol, events: bool) -> Self {
        Self { protocol, events, held: Vec::new(), passed_over: false, told: None, count: 0, broken: false }
    }

    /// Takes the next bytes.
    fn feed(&mut self, mut bytes: &[u8]) {
        if !self.events {
            return self.hold(bytes, MAX_WHOLE);
        }
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.hold(&bytes[..end], MAX_LINE);
            self.line();
            bytes = &bytes[end + 1..];
        }
        self.hold(bytes, MAX_LINE);
    }

    fn hold(&mut self, bytes: &[u8], limit: usize) {
        self.passed_over |= self.held.len() + bytes.len() > limit;
        if self.passed_over {
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(bytes);
        }
    }

    fn line(&mut self) {
        let mut line = std::mem::take(&mut self.held);
        if let Some(data) = line.strip_prefix(b"data:") {
            self.count += 1;
            self.read_tokens(data);
        }
        self.count += u64::from(std::mem::take(&mut self.passed_over));
        line.clear();
        self.held = line;
    }

    /// Returns how far the answer has come. It grows by what a model says, and not by what keeps a connection alive.
    fn said(&self) -> u64 {
        if self.events { self.count } else { self.held.len() as u64 }
    }

    /// Gemini tells them with each piece, each time for all so far.
    fn read_tokens(&mut self, json: &[u8]) {
        if !json.windows(6).any(|six| six == b"\"usage") {
            return;
        }
        let Ok(answer) = serde_json::from_slice::<Answer>(json) else { return };
        let tokens = match self.protocol {
            Protocol::OpenAi => answer.usage.map(|usage| Tokens {
                input: usage.prompt_tokens,
                cached: usage.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or_default(),
                output: usage.completion_tokens,
            }),
            Protocol::Responses => answer.usage.or(answer.response.and_then(|it| it.usage)).map(|usage| Tokens {
                input: usage.input_tokens.unwrap_or_default(),
                cached: usage.input_tokens_details.and_then(|details| details.cached_tokens).unwrap_or_default(),
                output: usage.output_tokens.unwrap_or_default(),
            }),
            // The first event has the prompt's, the last the answer's.
            Protocol::Messages => answer.usage.or(answer.message.and_then(|it| it.usage)).map(|usage| {
                let told = self.told.unwrap_or_default();
                let cached = usage.cache_read_input_tokens.unwrap_or_default();
                let taken = usage.cache_creation_input_tokens.unwrap_or_default();
                let input = usage.input_tokens.unwrap_or_default().saturating_add(cached).saturating_add(taken);
                Tokens {
                    input: input.max(told.input),
                    cached: cached.max(told.cached),
                    output: usage.output_tokens.unwrap_or_default().max(told.output),
                }
            }),
            Protocol::Gemini => answer.usage_metadata.map(|usage| Tokens {
                input: usage.prompt.saturating_add(usage.tool_use),
                cached: usage.cached,
                output: usage.candidates.saturating_add(usage.thoughts),
            }),
        };
        self.told = tokens.or(self.told);
    }

    /// Returns the tokens of an answer to `asked` bytes. Where the upstream has not told them, because it never does or
    /// because the answer was cut, they are estimated: an event is a token at least.
    pub(super) fn tokens(mut self, asked: usize) -> Tokens {
        let held = std::mem::take(&mut self.held);
        if self.events {
            if let Some(data) = held.strip_prefix(b"data:") {
                self.read_tokens(data);
            }
        } else {
            self.read_tokens(&held);
        }
        let output = if self.events { self.count } else { held.len() as u64 / BYTES_PER_TOKEN };
        self.told.unwrap_or(Tokens { input: asked as u64 / BYTES_PER_TOKEN, cached: 0, output })
    }
}

/// An answer's body that is looked at as it passes. `sign` is called while it is being said, each second at most.
pub(super) struct Tap<'s, F> {
    body: reqwest::Body,
    scan: &'s mut Scan,
    sign: F,
    next: Instant,
}

impl<'s, F: FnMut() + Unpin> Tap<'s, F> {
    pub(super) fn new(body: reqwest::Body, scan: &'s mut Scan, sign: F) -> Self {
        Self { body, scan, sign, next: Instant::now() }
    }

    fn look(&mut self, data: &[u8]) {
        let before = self.scan.said();
        self.scan.feed(data);
        if self.scan.said() > before && self.next <= Instant::now() {
            self.next = Instant::now() + SIGNS;
            (self.sign)();
        }
    }
}

impl<F: FnMut() + Unpin> Body for Tap<'_, F> {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.look(data);
                }
            }
            Some(Err(_)) => self.scan.broken = true,
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(protocol: Protocol, events: bool, bytes: &[u8], step: usize) -> Tokens {
        let mut scan = Scan::new(protocol, events);
        bytes.chunks(step.max(1)).for_each(|piece| scan.feed(piece));
        scan.tokens(400)
    }

    const CHAT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\r\n\r\n: alive\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":7,\"prompt_tokens_details\":{\"cached_tokens\":80}}}\n\n\
        data: [DONE]\n\n";
    const GEMINI: &str = "data: {\"candidates\":[],\"usageMetadata\":{\"promptTokenCount\":50}}\n\n\
        data: {\"usageMetadata\":{\"promptTokenCount\":50,\"candidatesTokenCount\":4,\"thoughtsTokenCount\":6,\"cachedContentTokenCount\":20}}\n\n";

    #[test]
    fn both_protocols_are_read_in_pieces_and_whole() {
        for step in [1, 7, 4096] {
            let tokens = Tokens { input: 100, cached: 80, output: 7 };
            assert_eq!(scan(Protocol::OpenAi, true, CHAT.as_bytes(), step), tokens);
            let tokens = Tokens { input: 50, cached: 20, output: 10 };
            assert_eq!(scan(Protocol::Gemini, true, GEMINI.as_bytes(), step), tokens);
            let whole = "{\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}";
            let tokens = Tokens { input: 3, cached: 0, output: 2 };
            assert_eq!(scan(Protocol::OpenAi, false, whole.as_bytes(), step), tokens);
        }
    }

    #[test]
    fn responses_and_messages_tell_theirs_elsewhere() {
        let responses = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":\
            {\"input_tokens\":90,\"input_tokens_details\":{\"cached_tokens\":40},\"output_tokens\":8}}}\n\n";
        let messages = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":10,\
            \"cache_read_input_tokens\":60,\"cache_creation_input_tokens\":5,\"output_tokens\":1}}}\n\n\
            data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":9}}\n\n";
        for step in [1, 4096] {
            let tokens = Tokens { input: 90, cached: 40, output: 8 };
            assert_eq!(scan(Protocol::Responses, true, responses.as_bytes(), step), tokens);
            let tokens = Tokens { input: 75, cached: 60, output: 9 };
            assert_eq!(scan(Protocol::Messages, true, messages.as_bytes(), step), tokens);
        }
        let whole = "{\"usage\":{\"input_tokens\":3,\"output_tokens\":2}}";
        for protocol in [Protocol::Responses, Protocol::Messages] {
            assert_eq!(scan(protocol, false, whole.as_bytes(), 4), Tokens { input: 3, cached: 0, output: 2 });
        }
    }

    #[test]
    fn what_is_not_told_is_estimated() {
        let cut = "data: {\"choices\":[]}\n\ndata: {\"choices\":[]}\n\ndata: {\"cho";
        assert_eq!(scan(Protocol::OpenAi, true, cut.as_bytes(), 5), Tokens { input: 100, cached: 0, output: 2 });
        assert_eq!(scan(Protocol::Gemini, false, &[b'x'; 40], 40), Tokens { input: 100, cached: 0, output: 10 });
        // A line too long to be looked into is one event.
        let long = [b"data: ".as_slice(), &vec![b'x'; MAX_LINE + 1], b"\n\n"].concat();
        assert_eq!(scan(Protocol::OpenAi, true, &long, 4096).output, 1);
    }

    #[test]
    fn what_keeps_a_connection_alive_is_nothing_said() {
        let mut scan = Scan::new(Protocol::OpenAi, true);
        scan.feed(b": alive\n\n: alive\n\nevent: ping\n\n");
        assert_eq!(scan.said(), 0);
        scan.feed(b"data: {\"choices\":[]}\n\n");
        assert_eq!(scan.said(), 1);
        let mut whole = Scan::new(Protocol::Gemini, false);
        whole.feed(b"{\"a\"");
        assert_eq!(whole.said(), 4);
    }

    proptest! {
        #[test]
        fn nothing_that_an_upstream_says_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), step in 1..50_usize) {
            scan(Protocol::OpenAi, true, &bytes, step);
            scan(Protocol::Gemini, false, &bytes, step);
        }

        #[test]
        fn the_pieces_in_which_it_comes_change_nothing(step in 1..200_usize) {
            prop_assert_eq!(scan(Protocol::Gemini, true, GEMINI.as_bytes(), step), scan(Protocol::Gemini, true, GEMINI.as_bytes(), 1));
        }
    }
}
