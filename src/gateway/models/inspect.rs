//! What a request's body asks for: its model, tools that the provider would run, addresses that it would fetch from.
//!
//! Pure: JSON of a hostile sandbox in, a verdict out. It reads the body once and keeps nothing of it but the model's
//! name. What is not known is refused rather than passed on: one provider or another searches the web for a field, or
//! asks another model than the one that was named. The body itself goes on as it came, so what two readers could take in two ways
//! (a field twice, a known name in another spelling) is refused too. Called by `serve`.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{Protocol, refusal::Refusal, route::is_model};

/// Top-level fields of a chat completion that are passed on; `model`, `messages`, `tools` and what bounds
/// the answer are looked into.
const CHAT_FIELDS: [&str; 34] = [
    "audio",
    "cache_control",
    "chat_template_kwargs",
    "enable_thinking",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "metadata",
    "min_p",
    "modalities",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "reasoning",
    "reasoning_effort",
    "repetition_penalty",
    "response_format",
    "safety_identifier",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "thinking",
    "thinking_budget",
    "tool_choice",
    "top_k",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
];

/// Top-level fields by which one provider or another searches the web.
const CHAT_WEB_FIELDS: [&str; 4] = ["enable_search", "search_options", "search_parameters", "web_search_options"];

/// Tools that the provider runs, which reach into the web.
const CHAT_WEB_TOOLS: [&str; 3] = ["web_search", "web_search_preview", "code_interpreter"];

/// Top-level fields of OpenAI's responses that are passed on. What the provider has kept of others is not to be named.
const RESPONSE_FIELDS: [&str; 17] = [
    "client_metadata",
    "include",
    "instructions",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "top_p",
    "truncation",
    "user",
];

/// What a response's input is made of.
const RESPONSE_ITEMS: [&str; 9] = [
    "custom_tool_call",
    "custom_tool_call_output",
    "function_call",
    "function_call_output",
    "local_shell_call",
    "local_shell_call_output",
    "message",
    "reasoning",
    "web_search_call",
];

/// Top-level fields of Anthropic's messages that are passed on.
const MESSAGES_FIELDS: [&str; 11] = [
    "cache_control",
    "context_management",
    "metadata",
    "output_config",
    "stop_sequences",
    "stream",
    "temperature",
    "thinking",
    "tool_choice",
    "top_k",
    "top_p",
];

/// Anthropic's own tools, by how their names begin: those that whoever asks runs, and those that the provider runs, which
/// reach into the web.
const MESSAGES_TOOLS: [&str; 4] = ["bash_", "computer_", "memory_", "text_editor_"];
const MESSAGES_WEB_TOOLS: [&str; 3] = ["code_execution_", "web_fetch_", "web_search_"];

/// Top-level fields of a call of Gemini's that are passed on, in the two spellings that it takes.
const GEMINI_FIELDS: [&str; 5] = ["labels", "safetySettings", "safety_settings", "toolConfig", "tool_config"];

/// Tools of Gemini's that run at the provider and reach into the web, or run code there.
const GEMINI_WEB_TOOLS: [&str; 8] = [
    "codeExecution",
    "code_execution",
    "googleSearch",
    "googleSearchRetrieval",
    "google_search",
    "google_search_retrieval",
    "urlContext",
    "url_context",
];

/// Schemes of addresses from which a provider could fetch.
const SCHEMES: [&str; 7] = ["http", "https", "ftp", "file", "gs", "s3", "oss"];

/// What a body asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// The model that it names, if it does: Gemini's stands in the path.
    pub(super) model: Option<String>,
    /// Tokens of the answers, if they are bounded.
    pub(super) answer: Option<u64>,
}

/// Reads a body.
pub(super) fn read(protocol: Protocol, body: &[u8], web: bool) -> Result<Asked, Refusal> {
    let mut found = Found::default();
    let mut json = serde_json::Deserializer::from_slice(body);
    let whole = Whole { protocol, found: &mut found };
    let ended = whole.deserialize(&mut json).and_then(|()| json.end());
    // A verdict ends the reading, so it comes before what the reader says of that.
    if let Some(refusal) = found.refusal {
        return Err(refusal);
    }
    ended.map_err(|error| Refusal::Malformed(place(&error)))?;
    match found.web {
        Some(refusal) if !web => Err(refusal),
        _ => {
            let answers = found.answers.unwrap_or(1).max(1);
            Ok(Asked { model: found.model, answer: found.longest.map(|longest| longest.saturating_mul(answers)) })
        }
    }
}

/// Says where JSON is wrong, without quoting it.
fn place(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

/// What came out so far.
#[derive(Default)]
struct Found {
    model: Option<String>,
    /// Tokens that one answer may have, and how many answers are asked for.
    longest: Option<u64>,
    answers: Option<u64>,
    /// Refused whatever the operator has set.
    refusal: Option<Refusal>,
    /// Refused unless the web is open.
    web: Option<Refusal>,
}

impl Found {
    fn refuse<E: serde::de::Error>(&mut self, refusal: Refusal) -> E {
        self.refusal = Some(refusal);
        E::custom("refused")
    }

    fn name<E: serde::de::Error>(&mut self, model: String) -> Result<(), E> {
        match &self.model {
            Some(before) if *before != model => Err(E::custom("two models")),
            _ => {
                self.model = Some(model);
                Ok(())
            }
        }
    }
}

/// A number, if it is one: what else stands there is the provider's to judge.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Whole(u64),
    Other(IgnoredAny),
}

impl Default for Number {
    fn default() -> Self {
        Self::Other(IgnoredAny)
    }
}

impl Number {
    fn whole(self) -> Option<u64> {
        match self {
            Self::Whole(number) => Some(number),
            Self::Other(IgnoredAny) => None,
        }
    }
}

/// What bounds the answers of Gemini's models.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Generation {
    #[serde(rename = "maxOutputTokens", alias = "max_output_tokens")]
    longest: Number,
    #[serde(rename = "candidateCount", alias = "candidate_count")]
    answers: Number,
}

/// The body of a request.
struct Whole<'f> {
    protocol: Protocol,
    found: &'f mut Found,
}

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let found = self.found;
        let mut seen: Vec<String> = Vec::new();
        while let Some(Text(key)) = map.next_key::<Text<'_>>()? {
            // The two spellings of Gemini's are one field.
            let plain = key.replace('_', "").to_ascii_lowercase();
            if seen.contains(&plain) {
                return Err(A::Error::custom("a field twice"));
            }
            match (self.protocol, &*key) {
                (Protocol::OpenAi | Protocol::Responses | Protocol::Messages, "model") => {
                    found.name::<A::Error>(map.next_value()?)?;
                }
                (Protocol::OpenAi, "messages") => map.next_value_seed(Each(Piece::Message, &mut *found))?,
                (Protocol::OpenAi, "tools") => map.next_value_seed(Each(Piece::ChatTool, &mut *found))?,
                (Protocol::OpenAi, "max_tokens" | "max_completion_tokens")
                | (Protocol::Responses, "max_output_tokens")
                | (Protocol::Messages, "max_tokens") => {
                    found.longest = found.longest.max(map.next_value::<Number>()?.whole());
                }
                (Protocol::OpenAi, "n") => found.answers = map.next_value::<Number>()?.whole(),
                (Protocol::OpenAi, key) if CHAT_FIELDS.contains(&key) => drop(map.next_value::<IgnoredAny>()?),
                (Protocol::OpenAi, key) if CHAT_WEB_FIELDS.contains(&key) => {
                    found.web = Some(Refusal::Web(key.to_owned()));
                    map.next_value::<IgnoredAny>()?;
                }
                (Protocol::Responses, "input") => map.next_value_seed(Each(Piece::ResponseItem, &mut *found))?,
                (Protocol::Responses, "tools") => map.next_value_seed(Each(Piece::ResponseTool, &mut *found))?,
                (Protocol::Responses, key) if RESPONSE_FIELDS.contains(&key) => drop(map.next_value::<IgnoredAny>()?),
                (Protocol::Messages, "messages" | "system") => {
                    map.next_value_seed(Any(Place::Messages, &mut *found))?;
                }
                (Protocol::Messages, "tools") => map.next_value_seed(Each(Piece::MessagesTool, &mut *found))?,
                (Protocol::Messages, key) if MESSAGES_FIELDS.contains(&key) => drop(map.next_value::<IgnoredAny>()?),
                (Protocol::Gemini, "model") => {
                    let model: String = map.next_value()?;
                    let model = model.strip_prefix("models/").unwrap_or(&model);
                    if !is_model(model) {
                        return Err(A::Error::custom("a model's name"));
                    }
                    found.name::<A::Error>(model.to_owned())?;
                }
                (Protocol::Gemini, "contents" | "systemInstruction" | "system_instruction") => {
                    map.next_value_seed(Any(Place::Gemini, &mut *found))?;
                }
                (Protocol::Gemini, "tools") => map.next_value_seed(Each(Piece::GeminiTool, &mut *found))?,
                // What is counted may stand in it whole.
                (Protocol::Gemini, "generateContentRequest" | "generate_content_request") => {
                    map.next_value_seed(Whole { protocol: self.protocol, found: &mut *found })?;
                }
                (Protocol::Gemini, "generationConfig" | "generation_config") => {
                    let Generation { longest, answers } = map.next_value::<Option<Generation>>()?.unwrap_or_default();
                    (found.longest, found.answers) = (longest.whole(), answers.whole());
                }
                (Protocol::Gemini, key) if GEMINI_FIELDS.contains(&key) => drop(map.next_value::<IgnoredAny>()?),
                (_, key) => return Err(found.refuse(Refusal::Field(key.to_owned()))),
            }
            seen.push(plain);
        }
        Ok(())
    }
}

/// What the elements of a list are.
#[derive(Clone, Copy)]
enum Piece {
    /// A message of a chat.
    Message,
    /// A tool of a chat.
    ChatTool,
    /// A part of a response's input.
    ResponseItem,
    /// A tool of a response.
    ResponseTool,
    /// A tool of Anthropic's messages, which need not have a type.
    MessagesTool,
    /// An object of Gemini's whose fields are tools.
    GeminiTool,
}

/// What may become of an object of some type.
enum Kind {
    /// It is passed on.
    Open,
    /// It is if the web is open.
    Web,
    /// It is not.
    Closed,
}

impl Piece {
    /// Judges the type of an object.
    fn judge(self, kind: &str) -> Kind {
        let begins = |names: &[&str]| names.iter().any(|name| kind.starts_with(name));
        let (open, web) = match self {
            Self::ChatTool => (kind == "function", CHAT_WEB_TOOLS.contains(&kind)),
            Self::ResponseTool => (matches!(kind, "function" | "custom" | "namespace"), CHAT_WEB_TOOLS.contains(&kind)),
            Self::ResponseItem => (RESPONSE_ITEMS.contains(&kind), false),
            Self::MessagesTool => (kind == "custom" || begins(&MESSAGES_TOOLS), begins(&MESSAGES_WEB_TOOLS)),
            Self::Message | Self::GeminiTool => (true, false),
        };
        match (open, web) {
            (true, _) => Kind::Open,
            (false, true) => Kind::Web,
            (false, false) => Kind::Closed,
        }
    }
}

/// A list of one kind of objects; `null` is an empty one.
struct Each<'f>(Piece, &'f mut Found);

impl<'de> DeserializeSeed<'de> for Each<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Each<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(One(self.0, &mut *self.1))?.is_some() {}
        Ok(())
    }
}

/// One of them.
struct One<'f>(Piece, &'f mut Found);

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(piece, found) = self;
        let mut typed = false;
        while let Some(Text(key)) = map.next_key::<Text<'_>>()? {
            match (piece, &*key) {
                (Piece::ChatTool | Piece::ResponseTool | Piece::MessagesTool | Piece::ResponseItem, "type") => {
                    let kind: String = map.next_value()?;
                    if std::mem::replace(&mut typed, true) {
                        return Err(A::Error::custom("a field twice"));
                    }
                    match piece.judge(&kind) {
                        Kind::Open => {}
                        Kind::Web => found.web = Some(Refusal::Web(kind)),
                        Kind::Closed => return Err(found.refuse(Refusal::Tool(kind))),
                    }
                }
                // Of a group of tools each is one.
                (Piece::ResponseTool, "tools") => map.next_value_seed(Each(piece, &mut *found))?,
                // Text, and what the model said, thought or called: nothing is fetched for it. Nor for what a function is.
                (
                    Piece::Message,
                    "role" | "name" | "tool_call_id" | "tool_calls" | "function_call" | "reasoning"
                    | "reasoning_content" | "reasoning_details" | "refusal",
                )
                | (
                    Piece::ResponseItem,
                    "role" | "id" | "call_id" | "name" | "namespace" | "status" | "arguments" | "input" | "action"
                    | "encrypted_content" | "summary" | "phase",
                )
                | (Piece::ChatTool | Piece::ResponseTool | Piece::MessagesTool, _)
                | (Piece::GeminiTool, "functionDeclarations" | "function_declarations") => {
                    map.next_value::<IgnoredAny>()?;
                }
                (Piece::Message, "content") | (Piece::ResponseItem, "content" | "output") => {
                    map.next_value_seed(Any(Place::Content, &mut *found))?;
                }
                (Piece::Message | Piece::ResponseItem, _) => {
                    map.next_value_seed(Any(Place::Chat, &mut *found))?;
                }
                (Piece::GeminiTool, key) => {
                    if !GEMINI_WEB_TOOLS.contains(&key) {
                        return Err(found.refuse(Refusal::Tool(key.to_owned())));
                    }
                    found.web = Some(Refusal::Web(key.to_owned()));
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if matches!(piece, Piece::ChatTool | Piece::ResponseTool) && !typed {
            return Err(A::Error::custom("a tool without a type"));
        }
        Ok(())
    }
}

/// Where a value stands, and so what counts as an address in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A chat message's content: itself text, or parts of which some are.
    Content,
    /// Deeper in a chat message: any text may be an address.
    Chat,
    /// Anywhere in Anthropic's messages: only a source has an address.
    Messages,
    /// Anywhere in Gemini's contents: only files have addresses.
    Gemini,
}

/// Any value; looks for addresses in it.
struct Any<'f>(Place, &'f mut Found);

impl<'de> DeserializeSeed<'de> for Any<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if self.0 == Place::Chat && is_remote(text) {
            self.1.web = Some(Refusal::RemoteUrl);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Any(self.0, &mut *self.1))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(place, found) = self;
        while let Some(Text(key)) = map.next_key::<Text<'_>>()? {
            let inside = match (place, &*key) {
                // A part's text is text. Deeper, the same name could be anything.
                (Place::Content, "text") => Place::Content,
                (Place::Content | Place::Chat, _) | (Place::Messages, "source") => Place::Chat,
                (Place::Gemini, "fileData" | "file_data") => {
                    found.web = Some(Refusal::RemoteUrl);
                    Place::Gemini
                }
                // What was called and what it gave are a program's own values.
                (Place::Gemini, "args" | "response" | "text" | "data") | (Place::Messages, "input" | "signature") => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                (Place::Messages, _) => Place::Messages,
                (Place::Gemini, _) => Place::Gemini,
            };
            map.next_value_seed(Any(inside, &mut *found))?;
        }
        Ok(())
    }
}

/// Tells whether a provider that is given this for a picture or a file would fetch it from somewhere.
fn is_remote(text: &str) -> bool {
    let start = text.trim_start();
    let scheme = start.split_once(':').map(|(scheme, _)| scheme);
    let known = scheme.is_some_and(|scheme| SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)));
    let near = start.len().min(64);
    known || start.starts_with("//") || start.as_bytes()[..near].windows(3).any(|three| three == b"://")
}

/// A field's name, which is copied only where it holds escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Name).map(Text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn chat(change: impl FnOnce(&mut Value)) -> Result<Option<String>, Refusal> {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hello https://a.org"}]});
        change(&mut body);
        read(Protocol::OpenAi, body.to_string().as_bytes(), false).map(|asked| asked.model)
    }

    fn gemini(change: impl FnOnce(&mut Value)) -> Result<Option<String>, Refusal> {
        let mut body = json!({"contents": [{"role": "user", "parts": [{"text": "hello https://a.org"}]}]});
        change(&mut body);
        read(Protocol::Gemini, body.to_string().as_bytes(), false).map(|asked| asked.model)
    }

    fn responses(change: impl FnOnce(&mut Value)) -> Result<Option<String>, Refusal> {
        let mut body = json!({"model": "m", "stream": true, "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "https://a.org"}]},
            {"type": "function_call", "name": "f", "arguments": "{\"url\":\"https://a.org\"}", "call_id": "1"},
            {"type": "function_call_output", "call_id": "1", "output": "https://a.org"},
            {"type": "reasoning", "summary": [], "encrypted_content": "x", "id": "r"},
        ], "tools": [{"type": "function", "name": "f", "parameters": {"default": "https://a.org"}},
            {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "g"}]}]});
        change(&mut body);
        read(Protocol::Responses, body.to_string().as_bytes(), false).map(|asked| asked.model)
    }

    #[test]
    fn responses_pass_but_for_what_the_provider_fetches_runs_or_has_kept() {
        assert_eq!(responses(|_| {}), Ok(Some("m".into())));
        let tool = |tool: Value| responses(|body| body["tools"][0] = tool);
        assert_eq!(tool(json!({"type": "web_search"})), Err(Refusal::Web("web_search".into())));
        for kind in ["mcp", "file_search", "image_generation", "computer_use_preview"] {
            assert_eq!(tool(json!({"type": kind})), Err(Refusal::Tool(kind.into())));
        }
        let hidden =
            json!({"type": "namespace", "name": "n", "tools": [{"type": "mcp", "server_url": "https://a.org"}]});
        assert_eq!(tool(hidden), Err(Refusal::Tool("mcp".into())));
        assert!(tool(json!({"name": "f"})).is_err());
        let item = |item: Value| responses(|body| body["input"][0] = item);
        assert_eq!(item(json!({"type": "item_reference", "id": "x"})), Err(Refusal::Tool("item_reference".into())));
        for part in [
            json!({"type": "input_image", "image_url": "https://a.org/x.png"}),
            json!({"type": "input_file", "file_url": "https://a.org/x.pdf"}),
        ] {
            let asked = json!({"type": "message", "role": "user", "content": [part]});
            assert_eq!(item(asked), Err(Refusal::RemoteUrl));
            let told = json!({"type": "function_call_output", "call_id": "1", "output": [part]});
            assert_eq!(item(told), Err(Refusal::RemoteUrl));
        }
        let picture =
            json!({"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA"}]});
        assert_eq!(item(picture), Ok(Some("m".into())));
        for field in ["previous_response_id", "conversation", "prompt", "background", "service_tier"] {
            assert_eq!(responses(|body| body[field] = json!("x")), Err(Refusal::Field(field.into())));
        }
        assert!(responses(|body| drop(body["input"].take())).is_ok(), "nothing is an empty list");
    }

    fn messages(change: impl FnOnce(&mut Value)) -> Result<Option<String>, Refusal> {
        let mut body = json!({"model": "m", "max_tokens": 9, "system": [{"type": "text", "text": "https://a.org"}],
            "thinking": {"type": "adaptive"}, "context_management": {"edits": []}, "messages": [
            {"role": "user", "content": "https://a.org"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "https://a.org", "signature": "s"},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"source": "https://a.org"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "https://a.org"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}]},
        ], "tools": [{"name": "f", "input_schema": {"default": "https://a.org"}}, {"type": "custom", "name": "g"},
            {"type": "bash_20250124", "name": "bash"}]});
        change(&mut body);
        read(Protocol::Messages, body.to_string().as_bytes(), false).map(|asked| asked.model)
    }

    #[test]
    fn messages_pass_but_for_what_the_provider_fetches_or_runs() {
        assert_eq!(messages(|_| {}), Ok(Some("m".into())));
        let away = json!({"type": "image", "source": {"type": "url", "url": "https://a.org/x.png"}});
        assert_eq!(messages(|body| body["messages"][0]["content"] = json!([away])), Err(Refusal::RemoteUrl));
        let within = json!([{"type": "tool_result", "tool_use_id": "1", "content": [away]}]);
        assert_eq!(messages(|body| body["messages"][2]["content"] = within), Err(Refusal::RemoteUrl));
        let tool = |kind: &str| messages(|body| body["tools"][0] = json!({"type": kind, "name": "t"}));
        for web in ["web_search_20250305", "web_fetch_20250910", "code_execution_20250825"] {
            assert_eq!(tool(web), Err(Refusal::Web(web.into())));
        }
        assert_eq!(tool("mcp_toolset"), Err(Refusal::Tool("mcp_toolset".into())));
        for field in ["mcp_servers", "container", "service_tier"] {
            assert_eq!(messages(|body| body[field] = json!([])), Err(Refusal::Field(field.into())));
        }
    }

    fn with_part(part: &Value) -> Result<Option<String>, Refusal> {
        chat(|body| body["messages"][0]["content"] = json!([{"type": "text", "text": "https://a.org"}, part]))
    }

    #[test]
    fn what_coding_agents_send_passes() {
        let qwen = chat(|body| {
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true});
            body["tools"] =
                json!([{"type": "function", "function": {"name": "f", "parameters": {"url": "https://a.org"}}}]);
            body["messages"] = json!([
                {"role": "system", "content": [{"type": "text", "text": "be", "cache_control": {"type": "ephemeral"}}]},
                {"role": "assistant", "content": null, "reasoning_content": "https://a.org",
                 "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"u\":\"https://a.org\"}"}}]},
                {"role": "tool", "tool_call_id": "1", "content": "https://a.org"},
            ]);
        });
        assert_eq!(qwen, Ok(Some("m".into())));
        let picture = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}});
        assert_eq!(with_part(&picture), Ok(Some("m".into())));
        let cli = gemini(|body| {
            body["systemInstruction"] = json!({"parts": [{"text": "be"}]});
            body["tools"] = json!([{"functionDeclarations": [{"name": "googleSearch"}]}]);
            body["generationConfig"] = json!({"temperature": 0});
            body["contents"][0]["parts"]
                .as_array_mut()
                .unwrap()
                .push(json!({"functionCall": {"name": "f", "args": {"fileData": 1}}}));
            body["contents"][0]["parts"]
                .as_array_mut()
                .unwrap()
                .push(json!({"functionResponse": {"name": "f", "response": {"fileData": 1}}}));
            body["contents"][0]["parts"]
                .as_array_mut()
                .unwrap()
                .push(json!({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}));
        });
        assert_eq!(cli, Ok(None));
        let counted = gemini(|body| *body = json!({"generateContentRequest": {"model": "models/m", "contents": []}}));
        assert_eq!(counted, Ok(Some("m".into())));
    }

    #[test]
    fn what_bounds_the_answer_is_read_and_the_rest_is_the_providers_to_judge() {
        let answer = |protocol, body: Value| read(protocol, body.to_string().as_bytes(), false).unwrap().answer;
        let chat = |body| answer(Protocol::OpenAi, body);
        assert_eq!(chat(json!({"model": "m", "max_tokens": 100})), Some(100));
        assert_eq!(chat(json!({"model": "m", "max_completion_tokens": 7, "n": 3, "max_tokens": null})), Some(21));
        assert_eq!(chat(json!({"model": "m", "max_tokens": u64::MAX, "n": 2})), Some(u64::MAX));
        for other in [json!(-1), json!(1.5), json!("many"), json!([1])] {
            assert_eq!(chat(json!({"model": "m", "max_tokens": other, "n": 2})), None);
        }
        assert_eq!(answer(Protocol::Responses, json!({"model": "m", "max_output_tokens": 8})), Some(8));
        assert_eq!(answer(Protocol::Messages, json!({"model": "m", "max_tokens": 9})), Some(9));
        let gemini = |body| answer(Protocol::Gemini, body);
        assert_eq!(gemini(json!({"generationConfig": {"maxOutputTokens": 5, "candidateCount": 2, "x": 1}})), Some(10));
        assert_eq!(gemini(json!({"generation_config": {"max_output_tokens": 5}})), Some(5));
        assert_eq!(gemini(json!({"generationConfig": null})), None);
    }

    #[test]
    fn what_the_provider_would_do_by_itself_is_refused_unless_the_web_is_open() {
        let web = |name: &str| Err(Refusal::Web(name.to_owned()));
        for field in CHAT_WEB_FIELDS {
            assert_eq!(chat(|body| body[field] = json!(true)), web(field));
        }
        for tool in CHAT_WEB_TOOLS {
            assert_eq!(chat(|body| body["tools"] = json!([{"type": tool}])), web(tool));
        }
        for tool in GEMINI_WEB_TOOLS {
            assert_eq!(gemini(|body| body["tools"] = json!([{"functionDeclarations": []}, {tool: {}}])), web(tool));
        }
        let nested = json!({"generateContentRequest": {"contents": [], "tools": [{"googleSearch": {}}]}});
        assert_eq!(gemini(|body| *body = nested), web("googleSearch"));
        let open = json!({"contents": [], "tools": [{"googleSearch": {}}]}).to_string();
        assert_eq!(read(Protocol::Gemini, open.as_bytes(), true), Ok(Asked::default()));
    }

    #[test]
    fn remote_addresses_are_refused_wherever_a_provider_would_fetch_them() {
        for part in [
            json!({"type": "image_url", "image_url": {"url": "https://a.org/x.png"}}),
            json!({"type": "image_url", "image_url": "HTTP://a.org"}),
            json!({"type": "image_url", "image_url": {"url": "  https:a.org"}}),
            json!({"type": "image_url", "image_url": {"url": "//a.org/x"}}),
            json!({"type": "video_url", "video_url": {"url": "oss://b/x"}}),
            json!({"type": "video", "video": ["data:x", "https://a.org/1.png"]}),
            json!({"type": "file", "file": {"file_url": "file:///etc/passwd"}}),
            json!({"type": "input_audio", "input_audio": {"text": "http://169.254.169.254/"}}),
        ] {
            assert_eq!(with_part(&part), Err(Refusal::RemoteUrl), "{part}");
        }
        assert_eq!(chat(|body| body["messages"][0]["images"] = json!(["https://a.org"])), Err(Refusal::RemoteUrl));
        for name in ["fileData", "file_data"] {
            let part = json!({name: {"fileUri": "https://a.org"}});
            let within = json!({"functionResponse": {"name": "f", "response": {}, "parts": [part]}});
            for part in [part, within] {
                assert_eq!(
                    gemini(|body| body["contents"][0]["parts"].as_array_mut().unwrap().push(part.clone())),
                    Err(Refusal::RemoteUrl)
                );
                assert_eq!(
                    gemini(|body| body["systemInstruction"] = json!({"parts": [part]})),
                    Err(Refusal::RemoteUrl)
                );
            }
        }
    }

    #[test]
    fn unknown_fields_and_tools_are_refused_and_named() {
        for field in ["models", "plugins", "fallbacks", "Model", "preset", "service_tier"] {
            assert_eq!(chat(|body| body[field] = json!([])), Err(Refusal::Field(field.into())));
        }
        for field in ["cachedContent", "Contents", "serviceTier"] {
            assert_eq!(gemini(|body| body[field] = json!("x")), Err(Refusal::Field(field.into())));
        }
        assert_eq!(chat(|body| body["tools"] = json!([{"type": "mcp"}])), Err(Refusal::Tool("mcp".into())));
        assert_eq!(gemini(|body| body["tools"] = json!([{"mcpServers": []}])), Err(Refusal::Tool("mcpServers".into())));
    }

    #[test]
    fn what_two_readers_could_take_in_two_ways_is_malformed() {
        for (protocol, body) in [
            (Protocol::OpenAi, r#"{"model":"a","model":"b"}"#),
            (Protocol::OpenAi, r#"{"model":"a","mod\u0065l":"a"}"#),
            (Protocol::OpenAi, r#"{"tools":[],"tools":[]}"#),
            (Protocol::OpenAi, r#"{"tools":[{"type":"function","type":"function"}]}"#),
            (Protocol::OpenAi, r#"{"tools":[{"function":{}}]}"#),
            (Protocol::OpenAi, r#"{"tools":{"type":"mcp"}}"#),
            (Protocol::OpenAi, r#"{"model":1}"#),
            (Protocol::OpenAi, r#"{"messages":["x"]}"#),
            (Protocol::OpenAi, "{} {}"),
            (Protocol::OpenAi, "[]"),
            (Protocol::OpenAi, ""),
            (Protocol::Gemini, r#"{"tools":{"googleSearch":{}}}"#),
            (Protocol::Gemini, r#"{"toolConfig":{},"tool_config":{}}"#),
            (Protocol::Gemini, r#"{"model":"models/../x"}"#),
            (Protocol::Gemini, r#"{"model":"a","generateContentRequest":{"model":"b"}}"#),
        ] {
            let found = read(protocol, body.as_bytes(), true);
            assert!(matches!(found, Err(Refusal::Malformed(_))), "{body}: {found:?}");
        }
        let deep = format!("{{\"contents\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(read(Protocol::Gemini, deep.as_bytes(), true), Err(Refusal::Malformed(_))));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(Protocol::OpenAi, &bytes, false);
            let _ = read(Protocol::Gemini, &bytes, false);
        }

        #[test]
        fn an_address_is_found_however_deep_it_stands(depth in 1..60_usize, list: bool) {
            let mut value = json!("https://a.org/x");
            for _ in 0..depth {
                value = if list { json!([value]) } else { json!({"x": value}) };
            }
            // A list of texts is text; anything else may be fetched.
            let part = json!({"type": "file", "file": value});
            prop_assert_eq!(with_part(&part), Err(Refusal::RemoteUrl));
        }
    }
}
