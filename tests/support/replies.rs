//! What a scripted model answers: streams as providers send them, other statuses, silence.

use std::time::Duration;

use serde_json::{Value, json};

/// What the server answers.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A stream of these events (each with its blank line), and how it ends.
    Stream(Vec<String>, End),
    /// Another status, with headers and a body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// Status 200 with this content type and these bytes, each piece after a pause.
    Bytes(&'static str, Vec<Vec<u8>>, Duration),
    /// Nothing, for ever.
    Hang,
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The body ends in good order.
    Closed,
    /// The connection breaks off.
    Cut,
    /// Nothing more comes, for ever.
    Open,
}

impl Reply {
    /// A text in three pieces, then the tokens.
    pub fn text(text: &str) -> Self {
        let third = text.floor_char_boundary(text.len() / 3);
        let pieces = [&text[..third], &text[third..]];
        let mut events: Vec<_> = pieces.map(|piece| delta(&json!({"content": piece}))).into();
        events.extend(tail("stop"));
        Self::Stream(events, End::Closed)
    }

    /// A call that runs a command.
    pub fn command(command: &str) -> Self {
        Self::calls(&[("run_command", json!({"command": command}))])
    }

    /// Calls with their arguments, in two pieces each, then the tokens.
    pub fn calls(calls: &[(&str, Value)]) -> Self {
        let mut events = vec![delta(&json!({"role": "assistant", "content": null}))];
        for (index, (name, arguments)) in calls.iter().enumerate() {
            let text = arguments.as_str().map_or_else(|| arguments.to_string(), str::to_owned);
            let (head, rest) = text.split_at(text.floor_char_boundary(text.len() / 2));
            let id = format!("call_{}_{index}", matrix_agent::ids::random(4));
            let begin =
                json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": head}});
            events.push(delta(&json!({"tool_calls": [begin]})));
            events.push(delta(&json!({"tool_calls": [{"index": index, "function": {"arguments": rest}}]})));
        }
        events.extend(tail("tool_calls"));
        Self::Stream(events, End::Closed)
    }

    /// A text in two pieces, then the tokens, as Gemini says it.
    pub fn gemini_text(text: &str) -> Self {
        let (head, rest) = text.split_at(text.floor_char_boundary(text.len() / 2));
        Self::gemini(&[json!({"text": head}), json!({"text": rest})])
    }

    /// Calls with their arguments, as Gemini makes them.
    pub fn gemini_calls(calls: &[(&str, Value)]) -> Self {
        let parts: Vec<_> =
            calls.iter().map(|(name, args)| json!({"functionCall": {"name": name, "args": args}})).collect();
        Self::gemini(&parts)
    }

    /// A text or calls, as OpenAI's responses tell them.
    pub fn response(text: &str, calls: &[(&str, Value)]) -> Self {
        let calls = calls.iter().enumerate().map(|(at, (name, arguments))| {
            let id = matrix_agent::ids::random(4);
            json!({"type": "function_call", "id": format!("fc_{id}_{at}"), "call_id": format!("call_{id}_{at}"),
                "name": name, "arguments": arguments.to_string(), "status": "completed"})
        });
        let message = json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}]});
        let items: Vec<Value> = if calls.len() > 0 { calls.collect() } else { vec![message] };
        let mut events =
            vec![json!({"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}})];
        for (at, item) in items.iter().enumerate() {
            for what in ["added", "done"] {
                let name = format!("response.output_item.{what}");
                events.push(json!({"type": name, "output_index": at, "item": item}));
            }
        }
        let usage = json!({"input_tokens": 100, "output_tokens": 10, "total_tokens": 110});
        let whole = json!({"id": "resp_1", "status": "completed", "output": items, "usage": usage});
        events.push(json!({"type": "response.completed", "response": whole}));
        Self::Stream(events.iter().map(named).collect(), End::Closed)
    }

    /// A text or calls, as Anthropic's messages tell them.
    pub fn message(text: &str, calls: &[(&str, Value)]) -> Self {
        let usage = json!({"input_tokens": 100, "output_tokens": 1});
        let head = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": usage});
        let mut events = vec![json!({"type": "message_start", "message": head})];
        let calls = calls.iter().map(|(name, input)| {
            let id = format!("toolu_{}", matrix_agent::ids::random(4));
            let delta = json!({"type": "input_json_delta", "partial_json": input.to_string()});
            (json!({"type": "tool_use", "id": id, "name": name, "input": {}}), delta)
        });
        let said = (json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": text}));
        let (blocks, reason): (Vec<_>, _) =
            if calls.len() > 0 { (calls.collect(), "tool_use") } else { (vec![said], "end_turn") };
        for (at, (block, delta)) in blocks.iter().enumerate() {
            events.push(json!({"type": "content_block_start", "index": at, "content_block": block}));
            events.push(json!({"type": "content_block_delta", "index": at, "delta": delta}));
            events.push(json!({"type": "content_block_stop", "index": at}));
        }
        let delta = json!({"stop_reason": reason, "stop_sequence": null});
        events.push(json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 10}}));
        events.push(json!({"type": "message_stop"}));
        Self::Stream(events.iter().map(named).collect(), End::Closed)
    }

    /// An event for each part, the last with the tokens.
    fn gemini(parts: &[Value]) -> Self {
        let event_of = |(index, part): (usize, &Value)| {
            let mut content = json!({"candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}}]});
            if index + 1 == parts.len() {
                content["candidates"][0]["finishReason"] = json!("STOP");
                content["usageMetadata"] =
                    json!({"promptTokenCount": 100, "candidatesTokenCount": 10, "totalTokenCount": 110});
            }
            event(&content)
        };
        Self::Stream(parts.iter().enumerate().map(event_of).collect(), End::Closed)
    }

    /// The same after these words of the model.
    pub fn saying(self, text: &str) -> Self {
        match self {
            Self::Stream(mut events, end) => {
                events.insert(0, delta(&json!({"content": text})));
                Self::Stream(events, end)
            }
            other => other,
        }
    }

    /// Only the first `n` events of a stream, with another end.
    pub fn first(self, n: usize, end: End) -> Self {
        match self {
            Self::Stream(events, _) => Self::Stream(events.into_iter().take(n).collect(), end),
            other => other,
        }
    }

    /// Status 200 with this content type and this body.
    pub fn labelled(label: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self::Bytes(label, vec![body.into()], Duration::ZERO)
    }

    /// Server-sent events as they are; each ends with a blank line.
    pub fn raw(sse: &str) -> Self {
        Self::Stream(sse.split_inclusive("\n\n").map(str::to_owned).collect(), End::Closed)
    }
}

/// The events of one of Gemini's streams as its answer in one piece.
pub(super) fn gemini_whole(events: &[String]) -> String {
    let mut events = events.iter().filter_map(|event| {
        let event: Value = serde_json::from_str(event.strip_prefix("data: ")?).ok()?;
        Some(event)
    });
    let mut whole = events.next().unwrap_or_default();
    for event in events {
        let part = event["candidates"][0]["content"]["parts"][0].clone();
        if let Some(parts) = whole["candidates"][0]["content"]["parts"].as_array_mut() {
            parts.push(part);
        }
        whole["candidates"][0]["finishReason"] = event["candidates"][0]["finishReason"].clone();
        whole["usageMetadata"] = event["usageMetadata"].clone();
    }
    whole.to_string()
}

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// An event that has a name, which is its type.
fn named(value: &Value) -> String {
    format!("event: {}\n{}", value["type"].as_str().unwrap_or_default(), event(value))
}

fn delta(delta: &Value) -> String {
    event(&json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]}))
}

fn tail(reason: &str) -> [String; 3] {
    [
        event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})),
        event(&json!({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 10}})),
        "data: [DONE]\n\n".to_owned(),
    ]
}
