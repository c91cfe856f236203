//! What the model is shown: the system message, then the room's lines, append-only between compactions.
//!
//! The messages live in one shared vector that requests borrow without a copy. Building it from stored lines mends what
//! a crash or an older version left: every call gets exactly one answer, right after its message, in the calls' order.
//! Knows the stored lines, nothing of how they are stored. Called by the machine.

use std::sync::Arc;

use crate::{
    ids::CallId,
    llm::{AssistantMessage, Message, Part, Usage},
};

use super::{
    line::{Line, Origin},
    words,
};

/// The tokens of a picture of the usual size, about.
const PICTURE_TOKENS: u64 = 1500;
/// The most pictures that a request shows, and their most bytes in base64. Providers refuse requests of more than 20 to
/// 32 MB, and more than 20 pictures of this size.
const PICTURES: usize = 20;
const PICTURE_BYTES: usize = 16 << 20;
/// The tokens of a message besides its text, about.
const MESSAGE_TOKENS: u64 = 4;

/// The messages of one room, as the next request shows them.
#[derive(Clone, Debug)]
pub(super) struct Context {
    messages: Arc<Vec<Message>>,
    origins: Vec<Origin>,
    /// Estimated tokens of all messages and of the tools' descriptions.
    estimate: u64,
    /// The tokens that the provider counted for the last request and its answer; `None` before the first answer and
    /// after a compaction.
    measured: Option<u64>,
    /// Estimated tokens of what came after that count.
    since: u64,
}

impl Context {
    /// Starts with the system message; `overhead` is what the tools' descriptions cost in tokens.
    pub(super) fn new(system: String, overhead: u64) -> Self {
        let mut context =
            Self { messages: Arc::default(), origins: vec![], estimate: overhead, measured: None, since: 0 };
        context.push(Message::System { text: system }, Origin::System);
        context
    }

    /// Appends a message.
    pub(super) fn push(&mut self, message: Message, origin: Origin) {
        let tokens = tokens(&message);
        self.estimate += tokens;
        self.since += tokens;
        // No request is under way when something is appended, so nothing is copied here.
        Arc::make_mut(&mut self.messages).push(message);
        self.origins.push(origin);
    }

    /// Appends stored lines, mended.
    pub(super) fn extend(&mut self, lines: Vec<Line>) {
        let mut open: Option<Open> = None;
        for line in lines {
            match line.mended() {
                Line { message: Message::Tool { call_id, text }, origin } => {
                    // A result that answers nothing is dropped: providers reject it.
                    if let Some(open) = &mut open {
                        open.answer(&call_id, text, origin);
                    }
                }
                Line { message: Message::Assistant(message), origin } => {
                    self.close(open.take());
                    if message.text.is_empty() && message.calls.is_empty() {
                        continue;
                    }
                    if !message.calls.is_empty() {
                        open = Some(Open::new(&message, &origin));
                    }
                    self.push(Message::Assistant(message), origin);
                }
                // A stored system message is dropped: the first message is made anew for each turn.
                Line { message: Message::System { .. }, .. } => {}
                Line { message, origin } => {
                    self.close(open.take());
                    self.push(message, origin);
                }
            }
        }
        self.close(open);
    }

    fn close(&mut self, open: Option<Open>) {
        let Some(open) = open else { return };
        self.answer(open.calls.into_iter().map(|(call_id, answer)| {
            let (text, origin) =
                answer.unwrap_or_else(|| (words::CALL_LOST.to_owned(), not_run(call_id.as_str().into())));
            (call_id, text, origin)
        }));
    }

    /// Appends the results of one message's calls, in their order, then their pictures.
    pub(super) fn answer(&mut self, results: impl Iterator<Item = (String, String, Origin)>) {
        let mut shown = vec![];
        for (call_id, text, mut origin) in results {
            if let Origin::Result { pictures, .. } = &mut origin {
                shown.append(pictures);
            }
            self.push(Message::Tool { call_id, text }, origin);
        }
        if !shown.is_empty() {
            shown.insert(0, Part::Text { text: words::PICTURES.to_owned() });
            self.push(Message::User { parts: shown }, Origin::Pictures);
        }
    }

    /// Takes in what the provider counted for the request and the answer that was appended last.
    pub(super) fn measure(&mut self, usage: Usage) {
        if usage.input > 0 {
            self.measured = Some(usage.input + usage.output);
            self.since = 0;
        }
    }

    /// Returns the tokens of the next request: the last count plus an estimate of what came after.
    pub(super) fn tokens(&self) -> u64 {
        self.measured.map_or(self.estimate, |measured| measured + self.since)
    }

    /// Takes in that a request was too long: a count that lies below the estimate is not believed any more.
    pub(super) fn too_long(&mut self) {
        if self.estimate > self.tokens() {
            self.measured = None;
        }
    }

    /// Returns the tokens of the next request, or the estimate where that is more.
    pub(super) fn at_most(&self) -> u64 {
        self.tokens().max(self.estimate)
    }

    /// Returns the messages that a request carries. Cheap.
    pub(super) fn messages(&self) -> Arc<Vec<Message>> {
        Arc::clone(&self.messages)
    }

    /// Returns the messages with their origins.
    pub(super) fn lines(&self) -> impl DoubleEndedIterator<Item = (&Message, &Origin)> + ExactSizeIterator {
        self.messages.iter().zip(&self.origins)
    }

    /// Returns whether the next request shows pictures.
    pub(super) fn has_pictures(&self) -> bool {
        self.pictures().next().is_some()
    }

    /// Returns how many bytes each picture of the next request has, in base64, the newest first.
    fn pictures(&self) -> impl Iterator<Item = usize> {
        let parts = self.messages.iter().rev().filter_map(|message| match message {
            Message::User { parts } => Some(parts.iter().rev()),
            _ => None,
        });
        parts.flatten().filter_map(|part| match part {
            Part::Image { data, .. } => Some(data.len()),
            Part::Picture { data, .. } => data.as_ref().map(|data| data.len()),
            Part::Text { .. } => None,
        })
    }

    /// Returns the lines with a note in place of older pictures, if the next request would show too many.
    pub(super) fn with_fewer_pictures(&self) -> Option<Vec<Line>> {
        let fitting = |most: usize, most_bytes: usize| {
            let mut bytes = 0;
            let fits = |size: &usize| {
                bytes += size;
                bytes <= most_bytes
            };
            self.pictures().take(most).take_while(fits).count()
        };
        let all = self.pictures().count();
        if fitting(PICTURES, PICTURE_BYTES) == all {
            return None;
        }
        // More pictures are removed than necessary, since each change costs the provider's cache.
        let mut gone = all - fitting(PICTURES / 2, PICTURE_BYTES / 2).max(1);
        Some(self.noted(|| {
            let note = (gone > 0).then_some(words::PICTURE_GONE);
            gone = gone.saturating_sub(1);
            note
        }))
    }

    /// Returns the lines with a note in place of each picture.
    pub(super) fn without_pictures(&self) -> Vec<Line> {
        self.noted(|| Some(words::PICTURE_REFUSED))
    }

    /// Returns the lines with what `note` says in place of pictures; it is asked for each, the oldest first.
    fn noted(&self, mut note: impl FnMut() -> Option<&'static str>) -> Vec<Line> {
        let mut noted = |part: &Part| match part.is_picture().then(&mut note).flatten() {
            Some(note) => Part::Text { text: note.to_owned() },
            None => part.clone(),
        };
        let lines = self.lines().skip(1).map(|(message, origin)| {
            let message = match message {
                Message::User { parts } => Message::User { parts: parts.iter().map(&mut noted).collect() },
                other => other.clone(),
            };
            Line { message, origin: origin.clone() }
        });
        lines.collect()
    }

    /// Replaces everything after the system message. What the provider counted no longer holds.
    pub(super) fn rebase(&mut self, lines: Vec<Line>) {
        let system = tokens(&self.messages[0]);
        let overhead = self.estimate - self.messages.iter().map(tokens).sum::<u64>();
        Arc::make_mut(&mut self.messages).truncate(1);
        self.origins.truncate(1);
        self.estimate = overhead + system;
        self.measured = None;
        self.since = 0;
        self.extend(lines);
    }
}

fn not_run(call: CallId) -> Origin {
    Origin::Result { call, ran: false, ok: false, facts: super::line::CallFacts::default(), pictures: vec![] }
}

/// A message whose calls are being answered.
struct Open {
    calls: Vec<(String, Option<(String, Origin)>)>,
}

impl Open {
    fn new(message: &AssistantMessage, origin: &Origin) -> Self {
        let (ids, refused) = match origin {
            Origin::Model { calls, refused, .. } => (&calls[..], &refused[..]),
            _ => Default::default(),
        };
        let calls = message.calls.iter().enumerate().map(|(index, call)| {
            // A refusal has no line of its own: it stands with the message.
            let why = refused.get(index).cloned().flatten();
            let id = ids.get(index).cloned().unwrap_or_else(|| call.id.clone().into());
            (call.id.clone(), why.map(|why| (why, not_run(id))))
        });
        Self { calls: calls.collect() }
    }

    fn answer(&mut self, call_id: &str, text: String, origin: Origin) {
        if let Some((_, answer)) = self.calls.iter_mut().find(|(id, answer)| id == call_id && answer.is_none()) {
            *answer = Some((text, origin));
        }
    }
}

/// Returns the estimated tokens of a message.
pub(super) fn tokens(message: &Message) -> u64 {
    MESSAGE_TOKENS
        + match message {
            Message::System { text } | Message::Tool { text, .. } => text_tokens(text),
            Message::User { parts } => parts
                .iter()
                .map(|part| match part {
                    Part::Text { text } => text_tokens(text),
                    Part::Image { .. } | Part::Picture { .. } => PICTURE_TOKENS,
                })
                .sum(),
            Message::Assistant(message) => {
                let calls = message.calls.iter().map(|call| {
                    let extra = call.extra.as_ref().map_or(0, json_tokens);
                    MESSAGE_TOKENS + text_tokens(&call.name) + text_tokens(&call.arguments) + extra
                });
                text_tokens(&message.text) + calls.sum::<u64>() + message.echo.values().map(json_tokens).sum::<u64>()
            }
        }
}

/// Returns the estimated tokens of a text: a quarter for each ASCII character, one and a half for any other.
pub(super) fn text_tokens(text: &str) -> u64 {
    let (mut ascii, mut other) = (0_u64, 0_u64);
    for byte in text.bytes() {
        if byte.is_ascii() {
            ascii += 1;
        } else if byte & 0xC0 != 0x80 {
            // Not a continuation byte: one more character.
            other += 1;
        }
    }
    ascii / 4 + other * 3 / 2
}

fn json_tokens(value: &serde_json::Value) -> u64 {
    text_tokens(&value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        llm::ToolCall,
        orchestrator::line::{CallFacts, Note},
    };

    fn said(text: &str) -> Line {
        Line {
            message: Message::User { parts: vec![Part::Text { text: text.into() }] },
            origin: Origin::Person { event: "e".into(), taken_by: None },
        }
    }

    fn calls(ids: &[&str]) -> Line {
        let calls =
            ids.iter().map(|id| ToolCall { id: (*id).into(), name: "t".into(), arguments: "{}".into(), extra: None });
        let message = AssistantMessage { calls: calls.collect(), ..AssistantMessage::default() };
        Line { message: Message::Assistant(message), origin: model() }
    }

    fn model() -> Origin {
        Origin::Model { calls: vec![], refused: vec![], usage: Usage::default() }
    }

    fn result(id: &str, pictures: usize) -> Line {
        let pictures = vec![Part::Image { mime: "image/png".into(), data: "aaaa".into() }; pictures];
        Line {
            message: Message::Tool { call_id: id.into(), text: format!("result {id}") },
            origin: Origin::Result { call: id.into(), ran: true, ok: true, facts: CallFacts::default(), pictures },
        }
    }

    fn built(lines: Vec<Line>) -> Vec<String> {
        let mut context = Context::new("s".into(), 0);
        context.extend(lines);
        let shown = context.messages.iter().skip(1).map(|message| match message {
            Message::System { .. } => "system".to_owned(),
            Message::User { parts } if parts.len() > 1 => format!("{} pictures", parts.len() - 1),
            Message::User { .. } => "user".to_owned(),
            Message::Assistant(message) => format!("assistant {}", message.calls.len()),
            Message::Tool { call_id, text } if text == words::CALL_LOST => format!("{call_id} lost"),
            Message::Tool { call_id, .. } => call_id.clone(),
        });
        shown.collect()
    }

    #[test]
    fn loading_gives_every_call_one_answer_in_order() {
        let lines = vec![
            result("orphan", 0),
            said("hi"),
            calls(&["a", "b", "c"]),
            result("c", 1),
            result("a", 1),
            result("a", 0),
            result("stranger", 0),
            said("go on"),
            result("b", 0),
            calls(&["d"]),
        ];
        let expected = ["user", "assistant 3", "a", "b lost", "c", "2 pictures", "user", "assistant 1", "d lost"];
        assert_eq!(built(lines), expected);
    }

    #[test]
    fn loading_drops_empty_messages_and_foreign_system_messages() {
        let lines = vec![
            Line { message: Message::System { text: "old".into() }, origin: Origin::System },
            said("hi"),
            calls(&[]),
            Line::program(Note::Empty, "again".into()),
        ];
        assert_eq!(built(lines), ["user", "user"]);
    }

    #[test]
    fn tokens_are_the_last_count_plus_an_estimate_of_the_rest() {
        let mut context = Context::new("s".repeat(400), 1000);
        assert_eq!(context.tokens(), 1104);
        context.extend(vec![said("hi"), calls(&["a"])]);
        context.measure(Usage { input: 5000, cached: 0, output: 70 });
        assert_eq!(context.tokens(), 5070);
        context.extend(vec![said(&"x".repeat(4000))]);
        assert_eq!(context.tokens(), 5070 + 1004);
        context.measure(Usage::default());
        assert_eq!(context.tokens(), 5070 + 1004, "a provider that does not count changes nothing");
        context.rebase(vec![said("hi")]);
        assert_eq!(context.tokens(), 1104 + 4, "after a compaction only the estimate is left");
    }

    #[test]
    fn other_scripts_cost_more_than_ascii() {
        assert_eq!(text_tokens("abcdefgh"), 2);
        assert_eq!(text_tokens("日本語"), 4);
    }
}
