//! A streamed chunk as it comes over the wire. Every field may be missing, null or of another type than the published
//! API says: what cannot be read counts as absent, and no chunk that is JSON fails to decode. (async-openai logs the
//! text of a chunk that does, and that text is a person's.)

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use super::message::Usage;

/// One event of the stream.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Value")]
pub(super) struct StreamChunk {
    /// Alternatives; only the first is ever asked for.
    pub choices: Vec<Choice>,
    /// Tokens so far; usually only in the last chunk.
    pub usage: Option<WireUsage>,
    /// The whole chunk, when it is an error.
    pub error: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    #[serde(deserialize_with = "lenient")]
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
        let says = |key: &str| value.get(key).is_some_and(|field| !is_empty(field));
        // `{"error": …}` nearly everywhere; DashScope and vLLM put `code` and `message` at the top, FastAPI a `detail`.
        let chunk = value.get("choices").is_some_and(|choices| !choices.is_null());
        if says("error") || (!chunk && ERROR_WORDS.iter().any(|key| says(key))) {
            return Self { error: Some(value), ..Self::default() };
        }
        let fields: Fields = serde_json::from_value(value).unwrap_or_default();
        // OpenRouter has errors inside the choice.
        let error = fields.choices.iter().find_map(|choice| choice.error.clone());
        let error = error.map(|error| serde_json::json!({ "error": error }));
        Self { choices: fields.choices, usage: fields.usage, error }
    }
}

/// Where words of an error stand at the top of an object that is no chunk.
const ERROR_WORDS: [&str; 5] = ["message", "detail", "msg", "errors", "error_msg"];

/// Returns whether a field says nothing, whatever its type is.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.iter().all(is_empty),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// A piece of one alternative.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Choice {
    /// Which alternative.
    #[serde(deserialize_with = "lenient")]
    pub index: u64,
    /// What is new.
    #[serde(deserialize_with = "lenient")]
    pub delta: Delta,
    /// The whole message at once: from servers that do not stream although asked to, and from some that do, at the end.
    #[serde(deserialize_with = "lenient")]
    pub message: Option<Delta>,
    /// Why it ended.
    #[serde(deserialize_with = "lenient")]
    pub finish_reason: Option<String>,
    /// Moonshot's place for the tokens.
    #[serde(deserialize_with = "lenient")]
    pub usage: Option<WireUsage>,
    #[serde(deserialize_with = "lenient")]
    error: Option<Value>,
}

/// What is new.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Delta {
    /// Text, or Mistral's list of pieces.
    #[serde(deserialize_with = "lenient")]
    pub content: Value,
    /// A refusal in words, which is an answer too.
    #[serde(deserialize_with = "lenient")]
    pub refusal: Option<String>,
    /// DeepSeek, DashScope, llama.cpp, vLLM.
    #[serde(deserialize_with = "lenient")]
    pub reasoning_content: Option<String>,
    /// OpenRouter, Ollama, newer vLLM.
    #[serde(deserialize_with = "lenient")]
    pub reasoning: Option<String>,
    /// OpenRouter's structured reasoning.
    #[serde(deserialize_with = "lenient")]
    pub reasoning_details: Vec<Value>,
    /// Pieces of calls.
    #[serde(deserialize_with = "lenient")]
    pub tool_calls: Vec<CallDelta>,
}

/// A piece of a call.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CallDelta {
    /// Which call of the message.
    #[serde(deserialize_with = "lenient")]
    pub index: Option<u64>,
    /// Its id, usually in the first piece only.
    #[serde(deserialize_with = "lenient")]
    pub id: Option<String>,
    /// Name and arguments.
    #[serde(deserialize_with = "lenient")]
    pub function: FunctionDelta,
    /// Gemini's thought signature.
    #[serde(deserialize_with = "lenient")]
    pub extra_content: Option<Value>,
}

/// Name and arguments of a call, in pieces.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct FunctionDelta {
    /// The tool's name.
    #[serde(deserialize_with = "lenient")]
    pub name: Option<String>,
    /// A piece of JSON text; some servers send the object itself.
    #[serde(deserialize_with = "lenient")]
    pub arguments: Value,
}

/// Tokens, in all the places where they are told.
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
    /// Returns the tokens in our words; `None` when nothing was counted.
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

/// Returns about how many bytes a value holds, whatever is in it.
pub(super) fn weight(value: &Value) -> usize {
    /// Of what has no length, and of what stands around it.
    const EACH: usize = 8;
    EACH + match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(weight).sum(),
        Value::Object(fields) => fields.iter().map(|(key, value)| key.len() + weight(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Reads a field, or takes its default where it has another type.
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
