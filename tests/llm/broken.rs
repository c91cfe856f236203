//! Answers that break off: asked for again with backoff, also after words, for nothing was done on them yet.

use std::time::{Duration, Instant};

use matrix_agent::llm::{Chunk, Finish, LlmError, Model};
use serde_json::json;

use crate::{
    asked::{complete, model, settings},
    support::scripted_llm::{End, Reply, ScriptedLlm},
};

fn words(text: &str) -> String {
    format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {"content": text}}]}))
}

/// What is shown at the end, if void text is taken back.
fn stands(shown: &[Chunk]) -> String {
    let from = shown.iter().rposition(|chunk| *chunk == Chunk::Restart).map_or(0, |at| at + 1);
    shown[from..]
        .iter()
        .filter_map(|chunk| if let Chunk::Text(text) = chunk { Some(text.as_str()) } else { None })
        .collect()
}

#[tokio::test]
async fn an_answer_that_breaks_is_asked_for_again_also_after_words() {
    let error = |error| Reply::raw(&format!("{}data: {error}\n\n", words("Half of")));
    for broken in [
        Reply::text("Half of an answer").first(1, End::Cut),
        Reply::text("Half of an answer").first(2, End::Closed),
        Reply::calls(&[("run_command", json!({"command": "touch x"}))]).saying("I try").first(3, End::Cut),
        error(json!({"error": {"type": "overloaded_error", "message": "Overloaded"}})),
        error(json!({"error": {"message": "Overloaded"}})),
        error(json!({"error": {"code": 502, "message": "upstream died"}, "choices": []})),
        error(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]})),
        error(json!({"choices": [{"index": 0, "delta": {}, "error": {"message": "x", "code": 503}}]})),
        Reply::raw(&format!("{}data: {{oops\n\n", words("Half of"))),
        Reply::raw(&format!("{}event: error\ndata: overloaded, try later\n\n", words("Half of"))),
        Reply::raw(&format!("{}upstream connect error\n\n", words("Half of"))),
        Reply::raw("data: [DONE]\n\n"),
        Reply::raw("data: {\"choices\":[]}\n\ndata: [DONE]\n\n"),
        Reply::raw(
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":0}}\n\ndata: [DONE]\n\n",
        ),
        Reply::raw("data: {\"choices\":null}\n\n"),
        Reply::raw(": keepalive\n\n"),
        Reply::raw(""),
        Reply::labelled("application/json", ""),
        Reply::labelled("application/json", "{}"),
        Reply::labelled("application/json", r#"{"choices":[]}"#),
        Reply::labelled("application/json", r#"{"choices":[{"message":{"content":"Half of"#),
        Reply::labelled("text/plain", "Internal Server Error"),
        Reply::Status(529, vec![], "overloaded".to_owned()),
        Reply::Status(409, vec![], "locked".to_owned()),
        Reply::Status(400, vec![], json!({"error": {"message": "The engine is currently overloaded"}}).to_string()),
        Reply::Status(403, vec![], json!({"error": {"code": "rate_limit_exceeded", "message": "x"}}).to_string()),
        error(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "network_error"}]})),
        error(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "timeout"}]})),
    ] {
        let llm = ScriptedLlm::start().await;
        llm.reply(broken.clone()).reply(broken.clone()).reply_text("Here I am.");
        let (completion, shown) = complete(&model(&llm, "x")).await;
        let message = completion.unwrap_or_else(|error| panic!("{broken:?}: {error}")).message;
        assert_eq!((message.text.as_str(), message.calls.len()), ("Here I am.", 0), "{broken:?}");
        assert_eq!(stands(&shown), "Here I am.", "{broken:?}: {shown:?}");
        assert_eq!(llm.requests().len(), 3, "{broken:?}");
    }
}

#[tokio::test]
async fn one_that_breaks_for_ever_is_told_after_five_tries() {
    let llm = ScriptedLlm::start().await;
    llm.otherwise(|_| Reply::text("Half an answer").first(1, End::Cut));
    let (completion, _) = complete(&model(&llm, "x")).await;
    assert_eq!((completion, llm.requests().len()), (Err(LlmError::Cut), 5));
}

#[tokio::test]
async fn a_refusal_after_words_is_no_break() {
    let llm = ScriptedLlm::start().await;
    llm.raw_sse(&format!("{}data: {}\n\n", words("Well"), json!({"error": {"code": 401, "message": "expired"}})));
    let (completion, _) = complete(&model(&llm, "x")).await;
    assert!(matches!(completion, Err(LlmError::KeyRefused(_))), "{completion:?}");
    assert_eq!(llm.requests().len(), 1);
}

/// Told to wait for nothing, a client that obeys asks five times in an instant.
#[tokio::test]
async fn a_wait_that_is_told_too_short_is_our_own() {
    for header in [
        ("retry-after", "0"),
        ("retry-after", "0.001"),
        ("retry-after-ms", "1"),
        ("retry-after", "Wed, 21 Oct 2009 07:28:00 GMT"),
    ] {
        let llm = ScriptedLlm::start().await;
        llm.status(429, &[header], "slow down").status(503, &[header], "slow down").reply_text("Here I am.");
        let mut settings = settings(&llm, "x");
        settings.limits.backoff = Duration::from_millis(50);
        let started = Instant::now();
        complete(&Model::new(settings).expect("a model")).await.0.expect("an answer");
        assert!(started.elapsed() >= Duration::from_millis(150), "{header:?}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn whatever_keeps_a_stream_alive_is_life() {
    let delta = |delta| format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": delta}]}));
    for sign in [
        ": keepalive\n\n".to_owned(),
        ":\n".to_owned(),
        "\n".to_owned(),
        "event: ping\ndata: {\"type\": \"ping\"}\n\n".to_owned(),
        delta(json!({})),
        delta(json!({"content": ""})),
        delta(json!({"reasoning_content": "hm"})),
        "data: {\"choices\":[]}\n\n".to_owned(),
    ] {
        let llm = ScriptedLlm::start().await;
        let mut pieces = vec![words("I ").into_bytes()];
        pieces.extend(vec![sign.clone().into_bytes(); 15]);
        pieces.push(format!("{}data: [DONE]\n\n", words("think.")).into_bytes());
        llm.reply(Reply::Bytes("text/event-stream", pieces, Duration::from_millis(100)));
        let mut settings = settings(&llm, "x");
        settings.limits.idle = Duration::from_secs(1);
        let (completion, _) = complete(&Model::new(settings).expect("a model")).await;
        assert_eq!(completion.map(|completion| completion.message.text), Ok("I think.".to_owned()), "{sign:?}");
    }
}

#[tokio::test]
async fn keepalives_for_ever_end_at_the_limit_of_the_whole() {
    let llm = ScriptedLlm::start().await;
    llm.otherwise(|_| {
        Reply::Bytes("text/event-stream", vec![b": keepalive\n\n".to_vec(); 1000], Duration::from_millis(20))
    });
    let mut settings = settings(&llm, "x");
    settings.limits.idle = Duration::from_secs(1);
    settings.limits.whole = Duration::from_millis(1500);
    let error = complete(&Model::new(settings).expect("a model")).await.0.expect_err("no end");
    assert!(error.user_text().starts_with("The model did not end its answer within"), "{error}");
    assert_eq!(llm.requests().len(), 1);
}

#[tokio::test]
async fn a_call_that_the_provider_could_not_read_is_the_models_slip() {
    let body = json!({"error": {
        "message": "Failed to call a function. Please adjust your prompt. See 'failed_generation' for more details.",
        "type": "invalid_request_error", "code": "tool_use_failed", "failed_generation": "<function=run_command{\"command\"}",
    }});
    let told = |reason: &str| {
        format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))
    };
    for reply in [
        Reply::Status(400, vec![], body.to_string()),
        Reply::raw(&format!("{}data: {body}\n\n", words("I"))),
        Reply::raw(&told("MALFORMED_FUNCTION_CALL")),
        Reply::Status(
            500,
            vec![],
            json!({"error": {"message": "Failed to parse input at pos 0: <tool_call>"}}).to_string(),
        ),
        Reply::Status(
            400,
            vec![],
            json!({"error": {"code": "output_parse_failed", "message": "Parsing failed."}}).to_string(),
        ),
    ] {
        let llm = ScriptedLlm::start().await;
        llm.reply(reply.clone());
        let completion = complete(&model(&llm, "x")).await.0.expect("a completion");
        assert_eq!((completion.finish, completion.message.calls.len()), (Finish::BadCall, 0), "{reply:?}");
        assert!(!completion.message.text.is_empty() && completion.message.text != "I", "{completion:?}");
        assert_eq!(llm.requests().len(), 1);
    }
}

#[tokio::test]
async fn an_answer_that_ended_for_want_of_room_is_a_conversation_that_is_too_long() {
    for reason in ["model_context_window_exceeded", "context_length_exceeded"] {
        let llm = ScriptedLlm::start().await;
        let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]});
        llm.reply(Reply::raw(&format!("{}data: {end}\n\n", words("I"))));
        let error = complete(&model(&llm, "x")).await.0.expect_err("no room");
        assert!(error.is_overflow(), "{reason}: {error}");
    }
}
