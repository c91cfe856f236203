//! Refusals, silences, garbage, and what an answer may cost.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use matrix_agent::llm::{Chunk, Finish, LlmError, Meter, Model, ModelSettings, Stage, ToolSpec};
use serde_json::json;

use crate::{
    asked::{KEY, ask, complete, failing, model, settings, stream},
    support::{
        rig::free_port,
        scripted_llm::{End, Reply, ScriptedLlm},
    },
};

#[tokio::test]
async fn errors_inside_a_stream_are_errors() {
    let text = r#"data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}"#;
    let mid = format!(
        "{text}\n\n{}\n\n",
        r#"data: {"error":{"code":502,"message":"upstream died"},"choices":[{"delta":{},"finish_reason":"error"}]}"#
    );
    let error = failing("openrouter/x/y", &mid).await;
    assert!(matches!(error, LlmError::Unavailable { status: Some(502), .. }), "{error}");
    assert!(error.user_text().contains("upstream died"));
    // Anthropic's event, DashScope's end, an overflow told late.
    let error = failing("anthropic/x", "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n").await;
    assert!(matches!(error, LlmError::Unavailable { .. }), "{error}");
    let error =
        failing("dashscope/qwen", "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"error_finish\"}]}\n\n").await;
    assert!(matches!(error, LlmError::Unavailable { .. }), "{error}");
    let error =
        failing("x", "data: {\"error\":{\"message\":\"the request exceeds the available context size\"}}\n\n").await;
    assert!(error.is_overflow(), "{error}");
}

#[tokio::test]
async fn a_failure_that_passes_is_asked_again() {
    let llm = ScriptedLlm::start().await;
    llm.status(503, &[], "<html><title>Bad Gateway</title>")
        .status(429, &[("retry-after", "0")], "slow down")
        .cut_after(0, Reply::text("x"))
        .reply_text("Here I am.");
    let (completion, shown) = complete(&model(&llm, "x")).await;
    assert_eq!(completion.expect("an answer").message.text, "Here I am.");
    assert_eq!(llm.requests().len(), 4);
    assert!(shown.iter().all(|chunk| matches!(chunk, Chunk::Text(text) if "Here I am.".contains(text.as_str()))));
}

#[tokio::test]
async fn a_long_wait_is_told_at_once() {
    let llm = ScriptedLlm::start().await;
    llm.status(429, &[("retry-after", "3600")], r#"{"error":{"message":"Daily limit"}}"#).reply_text("never asked");
    let started = Instant::now();
    let error = complete(&model(&llm, "x")).await.0.expect_err("an error");
    assert_eq!(
        error.user_text(),
        "The model's provider takes no more requests just now; it asks to wait 60 minutes. It said: “Daily limit”"
    );
    assert!(started.elapsed() < Duration::from_secs(5) && llm.requests().len() == 1);
}

#[tokio::test]
async fn refusals_are_told_once_with_their_mend_and_without_the_key() {
    for (status, body, says) in [
        (
            401,
            format!(r#"{{"error":{{"message":"Incorrect API key provided: {KEY}"}}}}"#),
            "The model's provider refused the key. Check LLM_API_KEY. It said: “Incorrect API key provided: [key]”",
        ),
        (
            404,
            r#"{"error":{"message":"no model"}}"#.to_owned(),
            "The model's provider does not know `x`, or the address is wrong. Check LLM_MODEL and LLM_BASE_URL. It said: “no model”",
        ),
        (
            422,
            r#"{"detail":[{"msg":"extra fields"}]}"#.to_owned(),
            "The model's provider rejected the request (422). If it does so again, start a new conversation with `!new`, or set another model with LLM_MODEL. It said: “extra fields”",
        ),
        (
            307,
            String::new(),
            "The model's provider answered with a redirect, which is not followed. Check LLM_BASE_URL.",
        ),
        (
            400,
            r#"{"error":{"message":"This model's maximum context length is 8192 tokens."}}"#.to_owned(),
            "The conversation has grown too long for the model. Start a new one with !new. It said: “This model's maximum context length is 8192 tokens.”",
        ),
    ] {
        let llm = ScriptedLlm::start().await;
        llm.status(status, &[("location", "http://127.0.0.1:1/")], &body);
        let error = complete(&model(&llm, "x")).await.0.expect_err("an error");
        assert_eq!(error.user_text(), says);
        assert_eq!(llm.requests().len(), 1);
        assert_eq!(llm.headers(1)["authorization"], format!("Bearer {KEY}"));
    }
}

#[tokio::test]
async fn every_silence_has_a_limit() {
    let llm = ScriptedLlm::start().await;
    llm.hang().hang_after(1, Reply::text("Half an answer")).reply_text("All of it.");
    let mut settings = settings(&llm, "x");
    let limit = Duration::from_millis(100);
    settings.limits.idle = limit;
    let model = Model::new(settings.clone()).expect("a model");
    settings.limits.first_token = limit;
    let slow = |stage| Err(LlmError::Slow { stage, limit });
    assert_eq!(complete(&Model::new(settings).expect("a model")).await.0, slow(Stage::Begin));
    // One that has begun and falls silent is a connection that was lost.
    assert_eq!(complete(&model).await.0.map(|completion| completion.message.text), Ok("All of it.".to_owned()));
    llm.cancelled(2).await;
    llm.otherwise(|_| Reply::text("Half an answer").first(1, End::Open));
    assert_eq!(complete(&model).await.0, slow(Stage::GoOn));
    llm.cancelled(7).await;
}

#[tokio::test]
async fn a_stream_that_never_ends_is_ended() {
    // Events without content for ever: the limit for the whole.
    let llm = ScriptedLlm::start().await;
    let endless = "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning\":\"\"}}]}\n\n".repeat(20_000);
    llm.hang_after(20_000, Reply::raw(&endless));
    let mut settings = settings(&llm, "x");
    settings.limits.whole = Duration::from_millis(200);
    let model = Model::new(settings.clone()).expect("a model");
    assert_eq!(complete(&model).await.0, Err(LlmError::Slow { stage: Stage::End, limit: Duration::from_millis(200) }));

    // One that ended but is not closed: done after a moment.
    let llm = ScriptedLlm::start().await;
    llm.hang_after(3, Reply::text("All said."));
    settings.base_url = Some(llm.base_url().to_owned());
    settings.limits = matrix_agent::llm::ModelLimits { idle: Duration::from_millis(100), ..Default::default() };
    let model = Model::new(settings).expect("a model");
    assert_eq!(complete(&model).await.0.expect("an answer").message.text, "All said.");

    // Endless reasoning and endless text: cut off, and the provider is told to stop.
    for field in ["reasoning_content", "content"] {
        let llm = ScriptedLlm::start().await;
        let event = format!("data: {}\n\n", json!({"choices": [{"index": 0, "delta": {field: "x".repeat(10_000)}}]}));
        llm.hang_after(300, Reply::raw(&event.repeat(300)));
        let completion = complete(&self::model(&llm, "deepseek/x")).await.0.expect("an answer");
        assert_eq!(completion.finish, Finish::Length);
        assert!(completion.message.text.len() <= 256 * 1024);
        llm.cancelled(1).await;
    }
}

/// What was logged while it lived, on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("a log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn garbage_is_an_error_and_reaches_neither_room_nor_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let guard = tracing::subscriber::set_default(subscriber.finish());
    let deep = format!("data: {}\"my secret\"{}\n\n", "[".repeat(500), "]".repeat(500));
    for sse in ["data: {\"choices\":[{\"delta\":{\"content\":\"my secret\n\n", "data: my secret\n\n", &deep] {
        assert_eq!(failing("x", sse).await, LlmError::Broken("an event that is no JSON"));
    }
    failing("x", "data: {\"error\":{\"message\":\"you said: tell me hello and a secret in many words\"}}\n\n").await;
    drop(guard);
    let log = String::from_utf8_lossy(&log.0.lock().expect("a log")).into_owned();
    assert!(log.contains("asking the model again") && !log.contains("my secret") && !log.contains(KEY), "{log}");
    assert_eq!(failing("x", "data: [DONE]\n\n").await, LlmError::Broken("an empty stream"));
    assert_eq!(failing("x", "").await, LlmError::Cut);
    // An empty answer is an answer: whoever asked decides what to make of it.
    let (completion, _) = stream(
        "x",
        "data: {\"choices\":[{\"delta\":{\"content\":\"\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
    )
    .await;
    assert_eq!((completion.message.text.as_str(), completion.finish), ("", Finish::Stop));
}

#[tokio::test]
async fn fifty_parallel_calls_come_through() {
    let llm = ScriptedLlm::start().await;
    let many: Vec<_> = (0..50).map(|n| ("run_command", json!({"command": format!("echo {n}")}))).collect();
    llm.reply_calls(&many);
    let completion = complete(&model(&llm, "x")).await.0.expect("an answer");
    assert_eq!((completion.message.calls.len(), completion.finish), (50, Finish::ToolCalls));
}

#[tokio::test]
async fn dropping_the_question_drops_the_connection() {
    let llm = ScriptedLlm::start().await;
    llm.hang().hang_after(1, Reply::text("Half an answer"));
    let model = model(&llm, "x");
    for n in 1..=2 {
        let asked = tokio::spawn({
            let model = model.clone();
            async move { complete(&model).await }
        });
        llm.arrived(n).await;
        asked.abort();
        llm.cancelled(n).await;
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let llm = ScriptedLlm::start().await;
    llm.otherwise(|_| Reply::text("ok"));
    let model = model(&llm, "x");
    for _ in 0..5 {
        complete(&model).await.0.expect("an answer");
    }
    assert_eq!(llm.connections(), 1);
}

#[tokio::test]
async fn an_absent_provider_is_told_with_its_address() {
    let address = format!("127.0.0.1:{}", free_port());
    let mut settings = ModelSettings::new("x", String::new().into());
    settings.base_url = Some(format!("http://{address}/v1"));
    settings.limits.backoff = Duration::from_millis(1);
    let error = complete(&Model::new(settings).expect("a model")).await.0.expect_err("an error");
    let text = error.user_text();
    assert!(text.starts_with(&format!("The model's provider at {address} cannot be reached (")), "{text}");
    assert!(text.contains("refused") && text.ends_with("Check the network and LLM_BASE_URL."), "{text}");
}

#[tokio::test]
async fn the_probe_asks_for_one_token_once() {
    let llm = ScriptedLlm::start().await;
    llm.reply_text("p").status(503, &[], "down").status(
        400,
        &[],
        "Could not finish the message because max_tokens or model output limit was reached.",
    );
    let model = model(&llm, "x");
    model.probe().await.expect("a token");
    assert_eq!(llm.requests()[0]["max_tokens"], 1);
    assert!(matches!(model.probe().await, Err(LlmError::Unavailable { .. })));
    model.probe().await.expect("good enough");
    assert_eq!(llm.requests().len(), 3);
}

#[test]
fn a_key_that_is_none_is_told() {
    let error = Model::new(ModelSettings::new("openai/gpt-5", "abc\ndef".to_owned().into())).expect_err("an error");
    assert_eq!(
        error.user_text(),
        "The model is not set up: LLM_API_KEY: holds characters that no key has; copy it again."
    );
}

/// Not a benchmark, a guard against quadratic writing: 200 KB of context and 40 KB of arguments in one delta.
#[tokio::test]
async fn a_long_conversation_is_written_fast() {
    let llm = ScriptedLlm::start().await;
    llm.otherwise(|_| Reply::text("ok"));
    let model = model(&llm, "openrouter/anthropic/claude-sonnet-4");
    let messages: Vec<_> = (0..100).flat_map(|_| ask(&"0123456789".repeat(200))).collect();
    let spec = ToolSpec { name: "t", description: String::new(), parameters: json!({"type": "object"}) };
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let started = Instant::now();
        model
            .complete(&messages, std::slice::from_ref(&spec), None, &Meter::new(0), &mut |_| {})
            .await
            .expect("an answer");
        best = best.min(started.elapsed());
    }
    assert!(best < Duration::from_millis(100), "{best:?}");
}

#[tokio::test]
async fn a_field_that_is_refused_by_its_name_is_left_out_from_then_on() {
    let llm = ScriptedLlm::start().await;
    let refuses = |said: &str| json!({"error": {"message": said}}).to_string();
    llm.status(400, &[], &refuses("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."))
        .status(422, &[], &refuses("stream_options: Extra inputs are not permitted"))
        .reply_text("Here I am.")
        .reply_text("And again.")
        .status(400, &[], &refuses("stream_options: Extra inputs are not permitted"))
        .reply_text("Never asked for.");
    let model = model(&llm, "hosted_vllm/x");
    let answer = async || {
        let tools: &[ToolSpec] = &[];
        model.complete(&ask("hello"), tools, Some(100), &Meter::new(1), &mut |_| {}).await
    };
    assert_eq!(answer().await.expect("an answer").message.text, "Here I am.");
    assert_eq!(answer().await.expect("an answer").message.text, "And again.");
    let limits = |request: &serde_json::Value| {
        ["max_tokens", "max_completion_tokens", "stream_options"].map(|field| request.get(field).is_some())
    };
    let sent: Vec<_> = llm.requests().iter().map(limits).collect();
    assert_eq!(
        sent,
        [[true, false, true], [false, true, true], [false, true, false], [false, true, false]],
        "each is asked about once"
    );
    let error = answer().await.expect_err("a refusal of what was not sent");
    assert!(matches!(error, LlmError::Refused { status: 400, .. }), "{error}");
    assert_eq!(llm.requests().len(), 5);
}
