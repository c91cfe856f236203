//! A streamed chunk as it is received. Every field may be missing, null or of another type than the published API
//! says: what cannot be parsed counts as missing, and no chunk that is JSON fails to decode. (async-openai logs the
//! text of a chunk that does, which is a person's.)

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use super::{
    body::{folded, says_nothing},
    message::Usage,
};

/// An event of the stream.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Value")]
pub(super) struct StreamChunk {
    /// Alternatives; only one is ever asked for.
    pub choices: Vec<Choice>,
    /// The usage so far; usually only in the last chunk.
    pub usage: Option<WireUsage>,
    /// The whole chunk, if it is an error.
    pub error: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    #[serde(deserialize_with = "each")]
    choices: Vec<Choice>,
    #[serde(deserialize_with = "lenient")]
    usage: Option<WireUsage>,
}

impl From<Value> for StreamChunk {
    fn from(value: Value) -> Self {
        // Google's errors come in a list.
        let value = match value {
            Value::Array(mut list) if list.len() == 1 => list.swap_remove(0),
            other => other,
        };
        let says = |key: &str| value.get(key).is_some_and(|field| !says_nothing(field));
        // `{"error": …}` nearly everywhere; DashScope and vLLM have `code` and `message` at the top, FastAPI a
        // `detail`, MiniMax a `base_resp` with a status other than 0.
        let chunk = value.get("choices").is_some_and(|choices| !choices.is_null());
        let status = value.pointer("/base_resp/status_code").is_some_and(|code| *code != 0);
        if says("error") || status || !chunk && has_error_words(&value) {
            return Self { error: Some(value), ..Self::default() };
        }
        let fields: Fields = serde_json::from_value(value).unwrap_or_default();
        // OpenRouter has errors inside the choice.
        let error = fields.choices.iter().find_map(|choice| choice.error.clone());
        let error = error.map(|error| serde_json::json!({ "error": error }));
        Self { choices: fields.choices, usage: fields.usage, error }
    }
}

/// Returns whether an object that is no chunk has the fields of an error at its top.
fn has_error_words(value: &Value) -> bool {
    let names = ["message", "detail", "msg", "errors", "errormsg", "errormessage", "errordescription", "reason"];
    value
        .as_object()
        .is_some_and(|fields| fields.iter().any(|(key, field)| names.contains(&&*folded(key)) && !says_nothing(field)))
}

/// A piece of one alternative.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Choice {
    /// The number of the alternative.
    #[serde(deserialize_with = "number")]
    pub index: Option<u64>,
    /// What is new.
    #[serde(deserialize_with = "lenient")]
    pub delta: Delta,
    /// A whole message: from servers that do not stream although asked to, and from some that do, at the end.
    #[serde(deserialize_with = "lenient")]
    pub message: Option<Delta>,
    /// Why the answer ended.
    #[serde(deserialize_with = "lenient")]
    pub finish_reason: Option<String>,
    /// Where Moonshot has the usage.
    #[serde(deserialize_with = "lenient")]
    pub usage: Option<WireUsage>,
    #[serde(deserialize_with = "lenient")]
    error: Option<Value>,
}

/// The new part of a message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Delta {
    /// Text, a piece of it, or Mistral's list of pieces.
    #[serde(deserialize_with = "lenient")]
    pub content: Value,
    /// A refusal in words, which counts as an answer.
    #[serde(deserialize_with = "lenient")]
    pub refusal: Option<String>,
    /// Reasoning of DeepSeek, DashScope, llama.cpp, vLLM.
    #[serde(deserialize_with = "lenient")]
    pub reasoning_content: Option<String>,
    /// Reasoning of OpenRouter, Ollama, newer vLLM.
    #[serde(deserialize_with = "lenient")]
    pub reasoning: Option<String>,
    /// Reasoning of Ollama's own interface, and of proxies before it.
    #[serde(deserialize_with = "lenient")]
    pub thinking: Option<String>,
    /// OpenRouter's structured reasoning.
    #[serde(deserialize_with = "each")]
    pub reasoning_details: Vec<Value>,
    /// Pieces of calls.
    #[serde(deserialize_with = "each")]
    pub tool_calls: Vec<CallDelta>,
    /// The one call of servers that have the interface from before `tool_calls`.
    #[serde(deserialize_with = "lenient")]
    pub function_call: Option<FunctionDelta>,
}

impl Delta {
    /// Removes and returns all pieces of calls.
    pub(super) fn take_calls(&mut self) -> Vec<CallDelta> {
        let mut calls = std::mem::take(&mut self.tool_calls);
        if let Some(function) = self.function_call.take().filter(|function| calls.is_empty() && !function.is_empty()) {
            calls.push(CallDelta { index: Some(0), function, ..CallDelta::default() });
        }
        calls
    }
}

/// A piece of a call.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Value")]
pub(super) struct CallDelta {
    /// The number of the call in the message.
    pub index: Option<u64>,
    /// Its id, usually in the first piece only.
    pub id: String,
    /// Name and arguments.
    pub function: FunctionDelta,
    /// Gemini's thought signature.
    pub extra_content: Option<Value>,
}

impl From<Value> for CallDelta {
    fn from(mut value: Value) -> Self {
        // Some servers leave out the `function` around name and arguments, or put only the name there.
        let inner = value.get_mut("function").map(Value::take).unwrap_or_default();
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self {
            index: value.get("index").and_then(read_number),
            id: text("id"),
            extra_content: value.get("extra_content").filter(|extra| !extra.is_null()).cloned(),
            function: match inner {
                Value::Object(_) => FunctionDelta::from(inner),
                Value::String(name) => FunctionDelta { name, ..FunctionDelta::from(value) },
                _ => FunctionDelta::from(value),
            },
        }
    }
}

/// Name and arguments of a call, in pieces.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Value")]
pub(super) struct FunctionDelta {
    /// The tool's name.
    pub name: String,
    /// A piece of JSON text; some servers send the object itself.
    pub arguments: Value,
}

impl From<Value> for FunctionDelta {
    fn from(mut value: Value) -> Self {
        let given = ["arguments", "parameters", "input"].into_iter().find(|key| value.get(*key).is_some());
        Self {
            name: value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
            arguments: given.map(|key| value[key].take()).unwrap_or_default(),
        }
    }
}

impl FunctionDelta {
    /// Returns whether it has neither name nor arguments.
    pub(super) fn is_empty(&self) -> bool {
        self.name.is_empty() && matches!(&self.arguments, Value::Null)
    }
}

/// The usage, in all the places where providers have it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireUsage {
    #[serde(deserialize_with = "lenient")]
    prompt_tokens: f64,
    #[serde(deserialize_with = "lenient")]
    completion_tokens: f64,
    #[serde(deserialize_with = "lenient")]
    prompt_tokens_details: PromptDetails,
    /// DeepSeek.
    #[serde(deserialize_with = "lenient")]
    prompt_cache_hit_tokens: f64,
    /// Moonshot.
    #[serde(deserialize_with = "lenient")]
    cached_tokens: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PromptDetails {
    #[serde(deserialize_with = "lenient")]
    cached_tokens: f64,
}

impl WireUsage {
    /// Returns the usage in our terms; `None` if nothing was counted.
    pub(super) fn usage(&self) -> Option<Usage> {
        let cached = self.prompt_tokens_details.cached_tokens.max(self.prompt_cache_hit_tokens).max(self.cached_tokens);
        let usage = Usage {
            input: self.prompt_tokens as u64,
            cached: (cached as u64).min(self.prompt_tokens as u64),
            output: self.completion_tokens as u64,
        };
        (usage != Usage::default()).then_some(usage)
    }
}

/// Returns the approximate number of bytes in a value.
pub(super) fn weight(value: &Value) -> usize {
    /// What a value without a length, and each item's frame, counts for.
    const EACH: usize = 8;
    EACH + match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(weight).sum(),
        Value::Object(fields) => fields.iter().map(|(key, value)| key.len() + weight(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Parses a list of objects and skips other items; a lone object counts as a list of one.
fn each<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let list = match Value::deserialize(deserializer)? {
        Value::Array(list) => list,
        one @ Value::Object(_) => vec![one],
        _ => Vec::new(),
    };
    let objects = list.into_iter().filter(Value::is_object);
    Ok(objects.filter_map(|element| serde_json::from_value(element).ok()).collect())
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(read_number(&Value::deserialize(deserializer)?))
}

/// Parses a number, also in quotes.
fn read_number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// Parses a field; uses its default if it has another type.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> StreamChunk {
        serde_json::from_str(text).expect("any JSON is a chunk")
    }

    #[test]
    fn any_json_decodes() {
        for text in [
            "null",
            "1",
            "\"x\"",
            "[]",
            "{}",
            r#"{"choices":null,"usage":[]}"#,
            r#"{"choices":[{"delta":null,"finish_reason":5,"index":"0"}]}"#,
            r#"{"choices":[{"delta":{"content":7,"tool_calls":{},"reasoning":[]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":-1,"id":9,"function":"x"}]}}]}"#,
        ] {
            assert!(read(text).error.is_none(), "{text}");
        }
    }

    #[test]
    fn errors_are_found_wherever_they_are() {
        for text in [
            r#"{"error":"x"}"#,
            r#"{"error":{"message":"x"},"choices":[]}"#,
            r#"{"code":"Throttling","message":"x","request_id":"1"}"#,
            r#"{"object":"error","message":"x","code":400}"#,
            r#"{"choices":[{"error":{"code":502,"message":"x"},"delta":{},"finish_reason":"error"}]}"#,
            r#"[{"error":{"code":400,"message":"x","status":"INVALID_ARGUMENT"}}]"#,
            r#"{"detail":[{"msg":"x"}]}"#,
            r#"{"success":false,"errors":[{"message":"x"}]}"#,
            r#"{"code":"x","msg":"x"}"#,
        ] {
            assert!(read(text).error.is_some(), "{text}");
        }
    }

    #[test]
    fn an_error_that_says_nothing_beside_an_answer_is_none() {
        for nothing in ["null", "false", "\"\"", "{}", "[]", r#"{"code":null,"message":""}"#] {
            let text = format!(r#"{{"error":{nothing},"message":"","choices":[{{"delta":{{"content":"x"}}}}]}}"#);
            assert!(read(&text).error.is_none() && read(&text).choices.len() == 1, "{text}");
        }
    }

    #[test]
    fn usage_is_read_from_all_dialects() {
        for (text, cached) in [
            (r#"{"usage":{"prompt_tokens":10,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":8}}}"#, 8),
            (r#"{"usage":{"prompt_tokens":10.0,"completion_tokens":2,"prompt_cache_hit_tokens":7}}"#, 7),
            (
                r#"{"usage":{"prompt_tokens":10,"completion_tokens":2,"cached_tokens":6,"prompt_tokens_details":null}}"#,
                6,
            ),
            (r#"{"usage":{"prompt_tokens":10,"completion_tokens":2,"cached_tokens":99}}"#, 10),
        ] {
            let usage = read(text).usage.and_then(|usage| usage.usage());
            assert_eq!(usage, Some(Usage { input: 10, cached, output: 2 }), "{text}");
        }
        assert_eq!(read(r#"{"usage":{}}"#).usage.and_then(|usage| usage.usage()), None);
    }
}
