//! Reads what a provider says when it refuses, whatever shape it has, and makes an [`LlmError`] of it. Called for
//! bodies of non-2xx answers and for errors inside a stream of status 200.
//!
//! A provider's words may hold the key (whole or in part) and quote the prompt: both are taken out here, before anything
//! can log or show them.

use std::time::Duration;

use serde_json::Value;

use super::{
    error::{LlmError, Said},
    message::{Message, Part},
};

/// A non-2xx answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// What `Retry-After` said.
    pub wait: Option<Duration>,
    /// The beginning of the body.
    pub body: Vec<u8>,
}

/// What must not come out again, and whom the refusal concerns.
pub(super) struct Asked<'a> {
    /// The key that was sent.
    pub key: &'a str,
    /// The model's name that was sent.
    pub model: &'a str,
    /// The conversation that was sent.
    pub messages: &'a [Message],
}

/// How long a quotation may be.
const QUOTED: usize = 300;
/// A run of this many characters of the prompt is the prompt.
const PROMPT_RUN: usize = 24;

/// What servers say when the conversation is too long. All lower case.
const OVERFLOW: &[&str] = &[
    "prompt is too long",
    "maximum context length",
    "exceeds the context window",
    "available context size",
    "exceed_context_size",
    "input token count",
    "context_length_exceeded",
    "context length exceeded",
    "range of input length",
    "reduce the length of the messages",
];

/// What servers say when waiting will not help.
const NO_CREDIT: &[&str] =
    &["insufficient_quota", "insufficient balance", "insufficient credits", "arrearage", "billing_hard_limit"];

/// The words of a refusal, found in whatever JSON it came.
#[derive(Default)]
struct Words {
    message: String,
    /// Type and code, joined, in lower case.
    kind: String,
    /// A status inside the body.
    status: Option<u16>,
    wait: Option<Duration>,
}

/// Returns the error for a non-2xx answer.
pub(super) fn from_http(refusal: &Refusal, asked: &Asked<'_>) -> LlmError {
    let mut words = match serde_json::from_slice::<Value>(&refusal.body) {
        Ok(value) => read(&value),
        Err(_) => Words { message: plain(&refusal.body), ..Words::default() },
    };
    words.wait = refusal.wait.or(words.wait);
    judge(Some(refusal.status), &words, asked)
}

/// Returns the error for an error object inside a stream.
pub(super) fn from_stream(value: &Value, asked: &Asked<'_>) -> LlmError {
    let words = read(value);
    let status = words.status.or_else(|| {
        let kind = words.kind.as_str();
        let has = |needle: &str| kind.contains(needle);
        match () {
            () if has("rate_limit") || has("throttl") || has("too_many") => Some(429),
            () if has("overloaded") => Some(529),
            () if has("authentication") || has("invalid_api_key") => Some(401),
            () if has("permission") => Some(403),
            () if has("invalid") || has("bad_request") || has("badrequest") => Some(400),
            () => None,
        }
    });
    judge(status, &words, asked)
}

fn judge(status: Option<u16>, words: &Words, asked: &Asked<'_>) -> LlmError {
    let lower = format!("{} {}", words.kind, words.message.to_lowercase());
    let any = |needles: &[&str]| needles.iter().any(|needle| lower.contains(needle));
    let said = Said(clean(&words.message, asked));
    let wait = words.wait;
    match status {
        Some(401) => LlmError::KeyRefused(said),
        Some(402) => LlmError::NoCredit(said),
        // Before all else: a limit per minute may well speak of "input token count".
        Some(429) if any(NO_CREDIT) => LlmError::NoCredit(said),
        Some(429) => LlmError::RateLimited { wait, said },
        Some(413) => LlmError::Overflow(said),
        _ if any(OVERFLOW) => LlmError::Overflow(said),
        _ if any(NO_CREDIT) => LlmError::NoCredit(said),
        // Google answers a wrong key with 400.
        Some(400) if lower.contains("api key not valid") || lower.contains("api_key_invalid") => {
            LlmError::KeyRefused(said)
        }
        Some(403) => LlmError::Forbidden(said),
        Some(404) => LlmError::UnknownModel { model: asked.model.to_owned(), said },
        Some(status @ (400..=407 | 409..=499)) => LlmError::Refused { status, said },
        Some(status @ 300..=399) => {
            LlmError::Refused { status, said: Said("a redirect, which is not followed".to_owned()) }
        }
        _ => LlmError::Unavailable { status, wait, said },
    }
}

/// Finds the words: `{"error": {…}}`, `{"error": "…"}`, `[{"error": …}]` (Google), `{"message", "code"}` (DashScope, vLLM),
/// `{"detail": …}` (FastAPI), and OpenRouter's upstream error in `metadata.raw`.
fn read(value: &Value) -> Words {
    let value = value.get(0).unwrap_or(value);
    let error = value.get("error").filter(|error| !error.is_null()).unwrap_or(value);
    if let Some(text) = error.as_str() {
        return Words { message: text.to_owned(), ..Words::default() };
    }
    let text = |key: &str| error.get(key).or_else(|| value.get(key)).and_then(Value::as_str).unwrap_or_default();
    let mut message = text("message").to_owned();
    if message.is_empty() {
        message = match value.get("detail") {
            Some(Value::String(detail)) => detail.clone(),
            Some(Value::Array(list)) => {
                list.iter().filter_map(|item| item.get("msg")?.as_str()).collect::<Vec<_>>().join("; ")
            }
            _ => String::new(),
        };
    }
    if let Some(raw) = error.pointer("/metadata/raw").and_then(Value::as_str) {
        let inner = serde_json::from_str::<Value>(raw).map_or_else(|_| raw.to_owned(), |raw| read(&raw).message);
        if !inner.is_empty() && inner != message {
            message = format!("{message}: {inner}");
        }
    }
    let code = error.get("code").or_else(|| value.get("code"));
    let number = code.and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
    let details = error.get("details").and_then(Value::as_array);
    let delay = details.and_then(|list| list.iter().find_map(|item| item.get("retryDelay")?.as_str()));
    Words {
        message,
        kind: format!("{} {} {}", text("type"), text("code"), text("status")).to_lowercase(),
        status: number.and_then(|number| u16::try_from(number).ok()).filter(|status| (400..600).contains(status)),
        wait: delay
            .and_then(|delay| delay.strip_suffix('s')?.parse().ok())
            .and_then(|s| Duration::try_from_secs_f64(s).ok()),
    }
}

/// Plain text as it is; of a web page only its title, which is what a proxy's error page has to say.
fn plain(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    if !text.trim_start().starts_with('<') {
        return text.into_owned();
    }
    let title = text.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
    title.map(|(title, _)| title.to_owned()).unwrap_or_default()
}

/// Makes a provider's words fit to be shown: one line, bounded, no key, no prompt.
fn clean(message: &str, asked: &Asked<'_>) -> String {
    let bounded: String = message.chars().take(4 * QUOTED).collect();
    let without_key = if asked.key.len() >= 4 { bounded.replace(asked.key, "[key]") } else { bounded };
    let mut out = String::new();
    for word in without_key.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(if looks_like_key(word, asked) { "[key]" } else { word });
    }
    let mut out = without_prompt(&out, asked.messages);
    if out.chars().count() > QUOTED {
        out = out.chars().take(QUOTED).chain(['…']).collect();
    }
    out
}

/// A masked key (`sk-ab***xyz`) gives away its ends, so the marks of a key are enough; the model's own name is long and
/// full of digits too, and is just what one wants to read.
fn looks_like_key(word: &str, asked: &Asked<'_>) -> bool {
    let bare = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '*');
    if bare.is_empty() || asked.model.contains(bare) {
        return false;
    }
    let marked = ["sk-", "AIza", "gsk_", "pk-", "xai-"].iter().any(|mark| bare.contains(mark));
    let head: String = asked.key.chars().take(6).collect();
    let shares_head = head.chars().count() == 6 && bare.contains(&head);
    let long = bare.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_')).any(|run| {
        run.len() >= 24 && run.bytes().any(|b| b.is_ascii_digit()) && run.bytes().any(|b| b.is_ascii_alphabetic())
    });
    marked || shares_head || long || bare.contains("***")
}

/// Takes out what stands in the conversation too, in runs of whole words.
fn without_prompt(text: &str, messages: &[Message]) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let mut quoted = vec![false; words.len()];
    for start in 0..words.len() {
        // The shortest run from here that is long enough to mean something.
        let run = (start + 1..=words.len())
            .map(|end| (end, words[start..end].join(" ")))
            .find(|(_, run)| bare(run).len() >= PROMPT_RUN);
        if let Some((end, run)) = run
            && in_conversation(bare(&run), messages)
        {
            quoted[start..end].fill(true);
        }
    }
    let mut out: Vec<&str> = Vec::new();
    for (word, quoted) in words.into_iter().zip(quoted) {
        if !quoted {
            out.push(word);
        } else if out.last() != Some(&"[…]") {
            out.push("[…]");
        }
    }
    out.join(" ")
}

fn bare(run: &str) -> &str {
    run.trim_matches(|c: char| !c.is_alphanumeric())
}

fn in_conversation(run: &str, messages: &[Message]) -> bool {
    messages.iter().any(|message| match message {
        Message::System { text } | Message::Tool { text, .. } => text.contains(run),
        Message::User { parts } => parts.iter().any(|part| matches!(part, Part::Text { text } if text.contains(run))),
        Message::Assistant(message) => {
            message.text.contains(run) || message.calls.iter().any(|call| call.arguments.contains(run))
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEY: &str = "sk-or-v1-0123456789abcdef";

    fn asked(messages: &[Message]) -> Asked<'_> {
        Asked { key: KEY, model: "claude-3-5-sonnet-20241022", messages }
    }

    fn http(status: u16, body: &str) -> LlmError {
        from_http(&Refusal { status, wait: None, body: body.as_bytes().to_vec() }, &asked(&[]))
    }

    #[test]
    fn bodies_of_all_shapes_are_read() {
        for (body, says) in [
            (r#"{"error":{"message":"bad thing","type":"x"}}"#, "bad thing"),
            (r#"{"error":"bad thing"}"#, "bad thing"),
            (r#"[{"error":{"code":400,"message":"bad thing","status":"INVALID_ARGUMENT"}}]"#, "bad thing"),
            (r#"{"object":"error","message":"bad thing","code":400}"#, "bad thing"),
            (r#"{"detail":"bad thing"}"#, "bad thing"),
            (r#"{"detail":[{"loc":["body"],"msg":"bad"},{"msg":"thing"}]}"#, "bad; thing"),
            ("bad thing", "bad thing"),
            ("<html><head><title>bad thing</title></head></html>", "bad thing"),
            (
                r#"{"error":{"message":"Provider returned error","metadata":{"raw":"{\"error\":{\"message\":\"bad thing\"}}"}}}"#,
                "Provider returned error: bad thing",
            ),
        ] {
            assert_eq!(http(400, body), LlmError::Refused { status: 400, said: Said(says.to_owned()) }, "{body}");
        }
    }

    #[test]
    fn overflow_is_known_by_its_phrases_and_a_rate_limit_never_is_one() {
        for phrase in [
            "prompt is too long: 210000 tokens > 200000 maximum",
            "This model's maximum context length is 8192 tokens",
            "Your input exceeds the context window of this model",
            "the request exceeds the available context size. try increasing the context size",
            "The input token count (1200000) exceeds the maximum number of tokens allowed",
            "Range of input length should be [1, 129024]",
        ] {
            let body = json!({"error": {"message": phrase}}).to_string();
            assert!(http(400, &body).is_overflow(), "{phrase}");
            assert!(http(500, &body).is_overflow(), "{phrase}");
            assert!(!http(429, &body).is_overflow(), "{phrase}");
        }
        assert!(http(400, r#"{"error":{"message":"x","code":"context_length_exceeded"}}"#).is_overflow());
        assert!(http(413, "").is_overflow());
    }

    #[test]
    fn statuses_have_their_kind() {
        assert!(matches!(http(401, ""), LlmError::KeyRefused(_)));
        assert!(matches!(
            http(400, r#"{"error":{"message":"API key not valid. Please pass a valid API key."}}"#),
            LlmError::KeyRefused(_)
        ));
        assert!(matches!(http(402, ""), LlmError::NoCredit(_)));
        assert!(matches!(
            http(429, r#"{"error":{"type":"insufficient_quota","message":"You exceeded"}}"#),
            LlmError::NoCredit(_)
        ));
        assert!(matches!(http(403, ""), LlmError::Forbidden(_)));
        assert!(matches!(http(404, ""), LlmError::UnknownModel { .. }));
        assert!(matches!(http(408, ""), LlmError::Unavailable { status: Some(408), .. }));
        assert!(matches!(http(529, ""), LlmError::Unavailable { status: Some(529), .. }));
        let google = r#"{"error":{"code":429,"message":"quota","details":[{"@type":"x"},{"retryDelay":"34.5s"}]}}"#;
        assert_eq!(http(429, google).told_wait(), Some(Duration::from_millis(34_500)));
    }

    #[test]
    fn errors_inside_a_stream_have_a_kind_too() {
        let kind = |value: Value| from_stream(&value, &asked(&[]));
        assert!(matches!(kind(json!({"error": {"code": 429, "message": "slow down"}})), LlmError::RateLimited { .. }));
        assert!(matches!(
            kind(json!({"error": {"code": "502", "message": "x"}})),
            LlmError::Unavailable { status: Some(502), .. }
        ));
        assert!(matches!(
            kind(json!({"type": "error", "error": {"type": "overloaded_error", "message": "x"}})),
            LlmError::Unavailable { status: Some(529), .. }
        ));
        assert!(matches!(
            kind(json!({"code": "InvalidParameter", "message": "x"})),
            LlmError::Refused { status: 400, .. }
        ));
        assert!(matches!(kind(json!({"error": "boom"})), LlmError::Unavailable { status: None, .. }));
    }

    #[test]
    fn neither_key_nor_prompt_come_out() {
        let secret = "my grandmother's recipe for the blue cake is hidden";
        let messages = [Message::User { parts: vec![Part::Text { text: secret.to_owned() }] }];
        for words in [
            format!("Incorrect API key provided: {KEY}."),
            "Incorrect API key provided: sk-or-v1****cdef.".to_owned(),
            "bearer abcdefghijklmnop0123456789".to_owned(),
            format!("invalid content: '{secret}' is not allowed"),
        ] {
            let body = json!({"error": {"message": words}}).to_string();
            let text =
                from_http(&Refusal { status: 400, wait: None, body: body.into() }, &asked(&messages)).to_string();
            for leak in ["sk-or", "0123456789", "cdef", "grandmother", "hidden"] {
                assert!(!text.contains(leak), "{leak} in {text}");
            }
        }
        let long = clean(&"a b\u{1b}[31m\n".repeat(1000), &asked(&[]));
        assert!(long.chars().count() <= QUOTED + 1 && !long.contains('\u{1b}') && !long.contains('\n'));
        assert_eq!(
            clean("model: claude-3-5-sonnet-20241022 gone", &asked(&[])),
            "model: claude-3-5-sonnet-20241022 gone"
        );
    }
}
