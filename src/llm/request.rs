//! Builds the body of a chat-completions request from a conversation. It borrows as much as possible, so that the
//! texts are written once; it sends only standard fields and those that the provider wants back.
//!
//! It also repairs what would make a strict provider refuse every later request of a room: a call without a result, a
//! result without a call, a user message between results, arguments that are no JSON, a tool's name with odd
//! characters.

pub(super) mod fields;

use std::{borrow::Cow, sync::LazyLock};

use serde::{Serialize, de::IgnoredAny};
use serde_json::Value;

use super::{
    endpoint::Endpoint,
    message::{AssistantMessage, Message, Part, ToolCall, ToolSpec},
    providers::{CallIds, Echo, MaxTokens, Quirks},
};
use crate::ids::digest;

/// The body of a request.
#[derive(Serialize)]
pub(super) struct Request<'a> {
    model: &'a str,
    messages: Vec<WireMessage<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<WireTool<'a>>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) temperature: Option<f64>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_details: Option<&'a Value>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Null,
    Text(Cow<'a, str>),
    Parts(Vec<WirePart<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WirePart<'a> {
    Text {
        text: Cow<'a, str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    ImageUrl {
        image_url: ImageUrl,
    },
}

#[derive(Serialize)]
struct CacheControl {
    r#type: &'static str,
}

#[derive(Serialize)]
struct ImageUrl {
    url: String,
}

#[derive(Serialize)]
struct WireCall<'a> {
    id: Cow<'a, str>,
    r#type: &'static str,
    function: WireFunction<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra_content: Option<Cow<'a, Value>>,
}

#[derive(Serialize)]
struct WireFunction<'a> {
    name: Cow<'a, str>,
    arguments: &'a str,
}

#[derive(Serialize)]
struct WireTool<'a> {
    r#type: &'static str,
    function: WireSpec<'a>,
}

#[derive(Serialize)]
struct WireSpec<'a> {
    name: &'a str,
    description: &'a str,
    parameters: &'a Value,
}

/// Replaces a picture whose file is gone.
const PICTURE_LOST: &str = "[a picture, which is no longer kept; look at the file again if it matters]";

/// The tool that does nothing, for providers that refuse a request without tools.
static NO_TOOL: LazyLock<ToolSpec> = LazyLock::new(|| ToolSpec {
    name: "no_tool",
    description: "No tool can be called now; this one does nothing.".to_owned(),
    parameters: serde_json::json!({"type": "object", "properties": {"unused": {"type": "string"}}}),
});

/// Returns the body that asks `endpoint` to continue `messages`. A note replaces each picture if the model sees none.
pub(super) fn build<'a>(
    endpoint: &'a Endpoint,
    vision: bool,
    messages: &'a [Message],
    tools: &'a [ToolSpec],
    max_output: Option<u64>,
) -> Request<'a> {
    let quirks = endpoint.quirks();
    let mut history = History { quirks, vision, name: endpoint.name(), out: Vec::with_capacity(messages.len() + 1) };
    history.read(messages);
    if quirks.cache_marks {
        mark_prefixes(&mut history.out);
    }
    let classic = quirks.max_tokens == MaxTokens::Classic;
    let mut tools: Vec<_> = tools.iter().map(WireTool::from).collect();
    let asked = !tools.is_empty();
    if !asked && quirks.tools_beside_calls && history.out.iter().any(|message| !message.tool_calls.is_empty()) {
        tools.push(WireTool::from(&*NO_TOOL));
    }
    Request {
        model: endpoint.model(),
        messages: history.out,
        tools,
        stream: true,
        stream_options: quirks.stream_usage.then_some(StreamOptions { include_usage: true }),
        parallel_tool_calls: (quirks.ask_parallel && asked).then_some(true),
        max_tokens: max_output.filter(|_| classic),
        max_completion_tokens: max_output.filter(|_| !classic),
        temperature: None,
    }
}

impl<'a> From<&'a ToolSpec> for WireTool<'a> {
    fn from(spec: &'a ToolSpec) -> Self {
        let function = WireSpec { name: spec.name, description: &spec.description, parameters: &spec.parameters };
        Self { r#type: "function", function }
    }
}

impl<'a> WireMessage<'a> {
    fn new(role: &'static str, content: Content<'a>) -> Self {
        Self {
            role,
            content,
            tool_calls: Vec::new(),
            tool_call_id: None,
            reasoning_content: None,
            reasoning_details: None,
        }
    }
}

struct History<'a> {
    quirks: Quirks,
    vision: bool,
    /// The model that is asked; only its own messages get their reasoning back.
    name: &'a str,
    out: Vec<WireMessage<'a>>,
}

impl<'a> History<'a> {
    fn read(&mut self, messages: &'a [Message]) {
        self.system(messages);
        let mut rest = messages;
        while let Some((message, after)) = rest.split_first() {
            rest = after;
            match message {
                // System messages were sent first; a result here has no call.
                Message::System { .. } | Message::Tool { .. } => {}
                Message::User { parts } => self.user(parts),
                Message::Assistant(message) => {
                    let turn = after.iter().take_while(|next| !matches!(next, Message::Assistant(_))).count();
                    let (answers, later) = after.split_at(turn);
                    if self.assistant(message) {
                        self.results(message, answers);
                    }
                    for answer in answers {
                        if let Message::User { parts } = answer {
                            self.user(parts);
                        }
                    }
                    rest = later;
                }
            }
        }
    }

    /// Joins the system messages into one at the beginning, since llama.cpp's templates refuse any other.
    fn system(&mut self, messages: &'a [Message]) {
        let mut texts = messages.iter().filter_map(|message| match message {
            Message::System { text } => Some(text.as_str()),
            _ => None,
        });
        let Some(first) = texts.next() else { return };
        let text = texts.fold(Cow::Borrowed(first), |all, text| Cow::Owned(format!("{all}\n\n{text}")));
        self.out.push(WireMessage::new("system", Content::Text(text)));
    }

    fn user(&mut self, parts: &'a [Part]) {
        let mut wire: Vec<WirePart<'a>> = parts
            .iter()
            .filter_map(|part| match part {
                Part::Text { text } if text.trim().is_empty() => None,
                Part::Text { text } => Some(text_part(text.into())),
                Part::Picture { data: None, .. } => Some(text_part(PICTURE_LOST.into())),
                Part::Image { .. } | Part::Picture { .. } if !self.vision => {
                    Some(text_part("[a picture, which this model cannot see]".into()))
                }
                Part::Image { mime, data } => Some(picture(mime, data)),
                Part::Picture { mime, data: Some(data), .. } => Some(picture(mime, data)),
            })
            .collect();
        if wire.is_empty() {
            return;
        }
        match self.out.last_mut() {
            // Templates that require alternating roles refuse two user messages in a row.
            Some(last) if last.role == "user" => {
                let mut all = match std::mem::replace(&mut last.content, Content::Null) {
                    Content::Parts(parts) => parts,
                    Content::Text(text) => vec![text_part(text)],
                    Content::Null => Vec::new(),
                };
                all.append(&mut wire);
                last.content = Content::Parts(all);
                return;
            }
            Some(last) if last.role == "tool" && self.quirks.bridge_user_after_tool => {
                self.out.push(WireMessage::new("assistant", Content::Text("I have the results.".into())));
            }
            _ => {}
        }
        let content = match (wire.pop(), wire.is_empty()) {
            (Some(WirePart::Text { text, .. }), true) => Content::Text(text),
            (Some(last), _) => {
                wire.push(last);
                Content::Parts(wire)
            }
            (None, _) => return,
        };
        self.out.push(WireMessage::new("user", content));
    }

    /// Adds a message of the model; returns `false` if it has neither text nor calls, which every provider refuses.
    fn assistant(&mut self, message: &'a AssistantMessage) -> bool {
        let silent = message.text.trim().is_empty();
        if silent && message.calls.is_empty() {
            return false;
        }
        let content = match silent {
            false => Content::Text(message.text.as_str().into()),
            true if self.quirks.empty_content => Content::Text("".into()),
            true => Content::Null,
        };
        let own = message.model == self.name;
        let mut wire = WireMessage::new("assistant", content);
        wire.tool_calls = message.calls.iter().map(|call| self.call(call, own)).collect();
        if let Some(first) = wire.tool_calls.first_mut()
            && self.quirks.placeholder_signature
            && first.extra_content.is_none()
        {
            let stand_in = serde_json::json!({"google": {"thought_signature": "skip_thought_signature_validator"}});
            first.extra_content = Some(Cow::Owned(stand_in));
        }
        let echo = |field: &str| message.echo.get(field).filter(|_| own);
        match self.quirks.echo {
            Echo::Content => {
                wire.reasoning_content = Some(echo("reasoning_content").and_then(Value::as_str).unwrap_or_default());
            }
            Echo::Details => wire.reasoning_details = echo("reasoning_details"),
            Echo::Nothing | Echo::CallExtra => {}
        }
        self.out.push(wire);
        true
    }

    fn call(&self, call: &'a ToolCall, own: bool) -> WireCall<'a> {
        let extra = call.extra.as_ref().filter(|_| own && self.quirks.echo == Echo::CallExtra);
        WireCall {
            id: call_id(self.quirks.call_ids, &call.id),
            r#type: "function",
            function: WireFunction { name: tool_name(&call.name), arguments: arguments(&call.arguments) },
            extra_content: extra.map(Cow::Borrowed),
        }
    }

    /// Adds the result of each call in the order of the calls, and a sentence for a missing one.
    fn results(&mut self, message: &'a AssistantMessage, answers: &'a [Message]) {
        let mut taken = vec![false; answers.len()];
        for call in &message.calls {
            let found = answers.iter().enumerate().find_map(|(at, answer)| match answer {
                Message::Tool { call_id, text } if *call_id == call.id && !taken[at] => Some((at, text.as_str())),
                _ => None,
            });
            let text = found.map_or("No result was recorded for this call.", |(at, text)| {
                taken[at] = true;
                text
            });
            let mut wire = WireMessage::new("tool", Content::Text(text.into()));
            wire.tool_call_id = Some(call_id(self.quirks.call_ids, &call.id));
            self.out.push(wire);
        }
    }
}

fn picture<'a>(mime: &str, data: &str) -> WirePart<'a> {
    WirePart::ImageUrl { image_url: ImageUrl { url: format!("data:{mime};base64,{data}") } }
}

fn text_part(text: Cow<'_, str>) -> WirePart<'_> {
    WirePart::Text { text, cache_control: None }
}

/// Returns `id` if the provider takes it, else a short one that depends only on `id`, so that a call and its result
/// are paired in every request.
fn call_id(rule: CallIds, id: &str) -> Cow<'_, str> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let fits = match rule {
        CallIds::Short => (1..=40).contains(&id.len()),
        CallIds::Word => (1..=64).contains(&id.len()) && id.chars().all(word),
        CallIds::Nine => id.len() == 9 && id.chars().all(|c| c.is_ascii_alphanumeric()),
    };
    match rule {
        _ if fits => Cow::Borrowed(id),
        CallIds::Nine => Cow::Owned(digest(&[id], 5)[..9].to_owned()),
        CallIds::Short | CallIds::Word => Cow::Owned(format!("call_{}", digest(&[id], 16))),
    }
}

/// Replaces characters in a tool's name that a model has invented, which its own provider could refuse.
fn tool_name(name: &str) -> Cow<'_, str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if (1..=64).contains(&name.len()) && name.chars().all(fits) {
        return Cow::Borrowed(name);
    }
    let clean: String = name.chars().take(64).map(|c| if fits(c) { c } else { '_' }).collect();
    Cow::Owned(if clean.is_empty() { "unnamed".to_owned() } else { clean })
}

/// Replaces arguments that are no object: many servers parse those of old calls again.
fn arguments(text: &str) -> &str {
    let object = text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok();
    if object { text } else { "{}" }
}

/// Marks three prefixes for the provider's cache (four are allowed): the system prompt, the end of the last request
/// (which is cached), and the end of this one (which will be).
fn mark_prefixes(messages: &mut [WireMessage<'_>]) {
    let readable = |message: &WireMessage<'_>| matches!(message.role, "user" | "tool");
    let last = messages.iter().rposition(readable);
    let before = messages.iter().rposition(|message| message.role == "assistant");
    let previous = before.and_then(|end| messages[..end].iter().rposition(readable));
    let system = messages.iter().position(|message| message.role == "system");
    for at in [system, previous, last].into_iter().flatten() {
        mark(&mut messages[at].content);
    }
}

fn mark(content: &mut Content<'_>) {
    let mut parts = match std::mem::replace(content, Content::Null) {
        Content::Parts(parts) => parts,
        Content::Text(text) if !text.is_empty() => vec![text_part(text)],
        other => {
            *content = other;
            return;
        }
    };
    let texts = parts.iter_mut().rev().find_map(|part| match part {
        WirePart::Text { cache_control, .. } => Some(cache_control),
        WirePart::ImageUrl { .. } => None,
    });
    if let Some(cache_control) = texts {
        *cache_control = Some(CacheControl { r#type: "ephemeral" });
    }
    *content = Content::Parts(parts);
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
