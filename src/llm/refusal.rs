//! Reads what a provider says when it refuses, whatever shape it has, and makes an [`LlmError`] of it. Called for
//! bodies of non-2xx answers and for errors inside a stream of status 200.
//!
//! A provider's words may hold the key (whole or in part) and quote the prompt: both are taken out here, before anything
//! can log or show them.

use std::time::Duration;

use serde_json::Value;

use super::{
    body::{self, Words},
    causes::{self, Excess},
    clean::{Asked, clean},
    error::{LlmError, ProviderWords, ToldTokens},
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

/// Returns the error for a non-2xx answer.
pub(super) fn from_http(refusal: &Refusal, asked: &Asked<'_>) -> LlmError {
    let mut words = body::read(&refusal.body);
    words.wait = refusal.wait.or(words.wait);
    judge(Some(refusal.status), &words, asked)
}

/// Returns the error for an error object inside a stream.
pub(super) fn from_stream(value: &Value, asked: &Asked<'_>) -> LlmError {
    let words = body::words(value);
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
    let lower = format!("{} {}", words.message.to_lowercase(), words.kind);
    let said = ProviderWords(clean(&words.message, asked));
    let wait = words.wait;
    let told = if words.told == ToldTokens::default() { causes::told(&lower) } else { words.told };
    match status {
        Some(401) => return LlmError::KeyRefused(said),
        Some(402) => return LlmError::NoCredit(said),
        // A limit per minute may well speak of "input token count".
        Some(429) => {
            return match () {
                () if causes::one_request_too_large(&lower) => LlmError::Overflow { said, told },
                () if causes::no_credit(&lower, wait.is_some()) => LlmError::NoCredit(said),
                () => LlmError::RateLimited { wait, said },
            };
        }
        // A body that is too large: pictures are most of one.
        Some(413) if asked.shows_pictures() => return LlmError::Pictures { said, blind: false },
        Some(413) => return LlmError::Overflow { said, told },
        _ if causes::bad_call(&lower) => return LlmError::BadCall(said),
        _ => {}
    }
    match causes::excess(&lower) {
        Some(Excess::Conversation) => return LlmError::Overflow { said, told },
        Some(Excess::Answer) => {
            return LlmError::AnswerTooLong { longest: causes::longest_answer(&lower), said };
        }
        None => {}
    }
    if asked.shows_pictures()
        && let Some(blind) = causes::pictures(&lower)
    {
        return LlmError::Pictures { said, blind };
    }
    match status {
        None | Some(400..=499) if causes::no_credit(&lower, false) => LlmError::NoCredit(said),
        // Google answers a wrong key with 400.
        Some(400) if lower.contains("api key not valid") || lower.contains("api_key_invalid") => {
            LlmError::KeyRefused(said)
        }
        Some(400..=499) if causes::rate(&lower) => LlmError::RateLimited { wait, said },
        Some(status @ 400..=499) if causes::busy(&lower) => LlmError::Unavailable { status: Some(status), wait, said },
        Some(403) => LlmError::Forbidden(said),
        Some(404) => LlmError::UnknownModel { model: asked.model.to_owned(), said },
        // Of the others, 408, 409, 425 and those of no standard speak of the moment and not of the request.
        Some(status @ (400..=407 | 410..=424 | 426..=451)) => LlmError::Refused { status, said },
        Some(300..=399) => LlmError::Redirected,
        _ => LlmError::Unavailable { status, wait, said },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::llm::{AssistantMessage, Message, Part, clean::QUOTED};

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
            (r#"{"success":false,"errors":[{"code":7,"message":"bad thing"}]}"#, "bad thing"),
            (r#"{"code":"1211","msg":"bad thing"}"#, "bad thing"),
            ("\u{feff}{\"error\":{\"message\":\"bad\nthing\"}}", "bad thing"),
            ("event: error\ndata: {\"error\":{\"message\":\"bad thing\"}}\n\n", "bad thing"),
            (r#"{"error":{"message":"bad \ud83d thing"}}"#, "bad \u{fffd} thing"),
            (r#"{"detail":[{"loc":["body"],"msg":"bad"},{"msg":"thing"}]}"#, "bad; thing"),
            (r#"{"detail":{"error":{"message":"bad thing"}}}"#, "bad thing"),
            (r#"{"error":{"message":{"message":"bad thing"}}}"#, "bad thing"),
            (r#"{"error":{"error":{"message":"bad thing"}}}"#, "bad thing"),
            (r#"{"error":["bad","thing"]}"#, "bad; thing"),
            (r#"{"Message":"bad thing"}"#, "bad thing"),
            (r#"{"errorMessage":"bad thing","errorType":"x"}"#, "bad thing"),
            (r#"{"error":"invalid_request","error_description":"bad thing"}"#, "invalid_request: bad thing"),
            (r#"{"statusCode":400,"message":"bad thing","error":"Bad Request"}"#, "Bad Request: bad thing"),
            (r#"{"base_resp":{"status_code":2013,"status_msg":"bad thing"}}"#, "bad thing"),
            (r#"{"fault":{"faultstring":"bad thing"}}"#, "bad thing"),
            (r#"{"errors":{"prompt":["bad thing"]}}"#, "bad thing"),
            (r#"{"oops":7}"#, r#"{"oops":7}"#),
            ("event: error\rdata: {\"error\":{\"message\":\"bad thing\"}}\r\r", "bad thing"),
            ("{\"error\":{\"message\":\"bad thing\"}}\n{\"done\":true}\n", "bad thing"),
            ("bad thing", "bad thing"),
            ("<html><head><title>bad thing</title></head></html>", "bad thing"),
            (
                r#"{"error":{"message":"Provider returned error","metadata":{"raw":"{\"error\":{\"message\":\"bad thing\"}}"}}}"#,
                "Provider returned error: bad thing",
            ),
        ] {
            assert_eq!(
                http(400, body),
                LlmError::Refused { status: 400, said: ProviderWords(says.to_owned()) },
                "{body}"
            );
        }
    }

    #[test]
    fn overflow_is_known_whatever_the_status_and_a_rate_limit_never_is_one() {
        for phrase in [
            "prompt is too long: 210000 tokens > 200000 maximum",
            "The input token count (1200000) exceeds the maximum number of tokens allowed",
            "Range of input length should be [1, 129024]",
        ] {
            let body = json!({"error": {"message": phrase}}).to_string();
            assert!(http(400, &body).is_overflow(), "{phrase}");
            assert!(http(422, &body).is_overflow(), "{phrase}");
            assert!(http(500, &body).is_overflow(), "{phrase}");
            assert!(!http(429, &body).is_overflow(), "{phrase}");
        }
        assert!(http(400, r#"{"error":{"message":"x","code":"context_length_exceeded"}}"#).is_overflow());
        assert!(http(413, "").is_overflow());
        let groq = "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 7200";
        for status in [413, 429] {
            let error = http(status, &json!({"error": {"message": groq}}).to_string());
            let LlmError::Overflow { told, .. } = error else { panic!("{error}") };
            assert_eq!(told, ToldTokens { limit: Some(6000), asked: Some(7200) });
        }
    }

    #[test]
    fn llama_cpp_tells_its_figures_in_fields() {
        let body = r#"{"error":{"code":400,"message":"the request exceeds the available context size. try increasing the context size or enable context shift","type":"exceed_context_size_error","n_prompt_tokens":5000,"n_ctx":4096}}"#;
        let LlmError::Overflow { told, .. } = http(400, body) else { panic!("no overflow") };
        assert_eq!(told, ToldTokens { limit: Some(4096), asked: Some(5000) });
    }

    #[test]
    fn pictures_are_to_blame_only_where_some_were_sent() {
        let body = r#"{"error":{"message":"No endpoints found that support image input","code":404}}"#;
        assert!(matches!(http(404, body), LlmError::UnknownModel { .. }));
        let picture = Part::Image { mime: "image/png".to_owned(), data: "aaaa".to_owned() };
        let messages = [Message::User { parts: vec![picture] }];
        let shown = |status: u16, body: &str| {
            from_http(&Refusal { status, wait: None, body: body.as_bytes().to_vec() }, &asked(&messages))
        };
        assert!(matches!(shown(404, body), LlmError::Pictures { blind: true, .. }));
        let broken = r#"{"error":{"message":"Could not process image"}}"#;
        assert!(matches!(shown(400, broken), LlmError::Pictures { blind: false, .. }));
        assert!(matches!(shown(413, ""), LlmError::Pictures { blind: false, .. }));
        assert!(
            shown(400, r#"{"error":{"message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#).is_overflow()
        );
        assert!(matches!(shown(400, "no"), LlmError::Refused { .. }));
    }

    #[test]
    fn an_empty_account_is_told_as_such_whatever_the_status() {
        let anthropic = r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."}}"#;
        for status in [400, 403] {
            assert!(matches!(http(status, anthropic), LlmError::NoCredit(_)), "{status}");
        }
        let google = r#"{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details.","status":"RESOURCE_EXHAUSTED","details":[{"retryDelay":"34s"}]}}"#;
        assert!(matches!(http(429, google), LlmError::RateLimited { .. }), "it only wants to be waited for");
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
        for (status, body) in [
            (409, ""),
            (425, ""),
            (498, r#"{"error":{"message":"Flex tier capacity exceeded"}}"#),
            (400, r#"{"error":{"message":"The engine is currently overloaded, please try again later"}}"#),
            (403, r#"{"error":{"message":"We are at capacity"}}"#),
        ] {
            assert!(matches!(http(status, body), LlmError::Unavailable { .. }), "{status} {body}");
        }
        let rate = r#"{"error":{"code":"rate_limit_exceeded","message":"slow down"}}"#;
        assert!(matches!(http(403, rate), LlmError::RateLimited { .. }));
        assert!(matches!(http(422, ""), LlmError::Refused { status: 422, .. }));
        let google = r#"{"error":{"code":429,"message":"quota","details":[{"@type":"x"},{"retryDelay":"34.5s"}]}}"#;
        assert_eq!(http(429, google).told_wait(), Some(Duration::from_millis(34_500)));
    }

    #[test]
    fn a_call_that_the_provider_could_not_read_is_the_models_slip() {
        for (status, body) in [
            (
                400,
                r#"{"error":{"message":"Failed to call a function. Please adjust your prompt. See 'failed_generation' for more details.","type":"invalid_request_error","code":"tool_use_failed","failed_generation":"<function=run_command{}"}}"#,
            ),
            (
                400,
                r#"{"error":{"message":"tool call validation failed: parameters for tool run_command did not match schema","code":"x"}}"#,
            ),
            (500, r#"{"error":{"message":"error parsing tool call: raw='{\"a' err=unexpected end of JSON input"}}"#),
        ] {
            assert!(matches!(http(status, body), LlmError::BadCall(_)), "{body}");
        }
        assert!(matches!(
            http(429, r#"{"error":{"message":"tool call validation failed"}}"#),
            LlmError::RateLimited { .. }
        ));
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
        assert!(matches!(
            kind(json!({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}})),
            LlmError::NoCredit(_)
        ));
        assert!(matches!(kind(json!({"status": 429, "detail": "slow down"})), LlmError::RateLimited { .. }));
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
        // Its own words and ours are no prompt: a cause stays readable though the model has repeated it.
        let cause = "Incorrect API key was provided, see the docs";
        let own = AssistantMessage { text: cause.to_owned(), ..AssistantMessage::default() };
        let messages = [Message::System { text: cause.to_owned() }, Message::Assistant(own)];
        assert_eq!(clean(cause, &asked(&messages)), cause);
        let long = clean(&"a b\u{1b}[31m\n".repeat(1000), &asked(&[]));
        assert!(long.chars().count() <= QUOTED + 1 && !long.contains('\u{1b}') && !long.contains('\n'));
        assert_eq!(
            clean("model: claude-3-5-sonnet-20241022 gone", &asked(&[])),
            "model: claude-3-5-sonnet-20241022 gone"
        );
    }
}
