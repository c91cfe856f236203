//! The model client against a real HTTP server that plays providers: their streams as recorded, their refusals, their
//! silences.

mod support;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use matrix_agent::llm::{
    Chunk, Completion, Finish, LlmError, Message, Model, ModelSettings, Part, Stage, ToolSpec, Usage,
};
use serde_json::{Value, json};
use support::scripted_llm::{Reply, ScriptedLlm};

const KEY: &str = "sk-test-0123456789";

fn settings(llm: &ScriptedLlm, model: &str) -> ModelSettings {
    let mut settings = ModelSettings::new(model, KEY.to_owned().into());
    settings.base_url = Some(llm.base_url().to_owned());
    settings.limits.backoff = Duration::from_millis(5);
    settings
}

fn model(llm: &ScriptedLlm, name: &str) -> Model {
    Model::new(settings(llm, name)).expect("a model")
}

fn ask(text: &str) -> Vec<Message> {
    vec![Message::User { parts: vec![Part::Text { text: text.to_owned() }] }]
}

async fn complete(model: &Model) -> (Result<Completion, LlmError>, Vec<Chunk>) {
    let mut shown = Vec::new();
    let completion = model.complete(&ask("hello"), &[], None, &mut |chunk| shown.push(chunk)).await;
    (completion, shown)
}

/// What `name` makes of a raw stream.
async fn stream(name: &str, sse: &str) -> (Completion, Vec<Chunk>) {
    let llm = ScriptedLlm::start().await;
    llm.raw_sse(sse);
    let (completion, shown) = complete(&model(&llm, name)).await;
    (completion.expect("an answer"), shown)
}

/// A stream that ends in an error, each time it is asked.
async fn failing(name: &str, sse: &str) -> LlmError {
    let llm = ScriptedLlm::start().await;
    let sse = sse.to_owned();
    llm.otherwise(move |_| Reply::raw(&sse));
    complete(&model(&llm, name)).await.0.expect_err("an error")
}

fn calls(completion: &Completion) -> Vec<(&str, &str)> {
    completion.message.calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect()
}

#[tokio::test]
async fn openai_text_and_parallel_calls() {
    let (completion, shown) = stream(
        "openai/gpt-5",
        r#"data: {"id":"c1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":"I "},"finish_reason":null}],"usage":null}

data: {"choices":[{"index":0,"delta":{"content":"look."},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_A","type":"function","function":{"name":"read_file","arguments":""}}]}}]}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"path\":"}}]}}]}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_B","type":"function","function":{"name":"run_command","arguments":"{}"}}]}}]}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"a\"}"}}]}}]}

data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}

data: {"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":16}}}

data: [DONE]

"#,
    )
    .await;
    assert_eq!(completion.message.text, "I look.");
    assert_eq!(calls(&completion), [("read_file", r#"{"path":"a"}"#), ("run_command", "{}")]);
    assert_eq!(completion.message.calls[0].id, "call_A");
    assert_eq!(
        (completion.finish, completion.usage),
        (Finish::ToolCalls, Some(Usage { input: 20, cached: 16, output: 9 }))
    );
    assert_eq!(
        shown,
        [
            Chunk::Text("I ".to_owned()),
            Chunk::Text("look.".to_owned()),
            Chunk::CallStarted("read_file".to_owned()),
            Chunk::CallStarted("run_command".to_owned()),
        ]
    );
}

#[tokio::test]
async fn openrouter_comments_two_finishes_and_reasoning_details() {
    let (completion, shown) = stream(
        "openrouter/anthropic/claude-sonnet-4",
        r#": OPENROUTER PROCESSING

: OPENROUTER PROCESSING

data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning":"Let me","reasoning_details":[{"type":"reasoning.text","text":"Let me","format":"anthropic-claude-v1","index":0}]},"finish_reason":null}]}

data: {"choices":[{"index":0,"delta":{"content":"","reasoning":" see","reasoning_details":[{"type":"reasoning.text","text":" see","format":"anthropic-claude-v1","index":0}]}}]}

data: {"choices":[{"index":0,"delta":{"content":"","reasoning_details":[{"type":"reasoning.text","signature":"SIG","format":"anthropic-claude-v1","index":0}]}}]}

data: {"choices":[{"index":0,"delta":{"reasoning_details":[{"type":"reasoning.encrypted","data":"XYZ","index":1}]}}]}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"toolu_1","function":{"name":"run_command","arguments":"{\"command\":\"ls\"}"}}]}}]}

data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop","native_finish_reason":"x"}]}

data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"tool_calls","native_finish_reason":"tool_use"}],"usage":{"prompt_tokens":5,"completion_tokens":6}}

data: [DONE]

"#,
    )
    .await;
    assert_eq!((completion.message.text.as_str(), completion.finish), ("", Finish::ToolCalls));
    assert_eq!(
        Value::from(completion.message.echo.clone()),
        json!({"reasoning_details": [
            {"type": "reasoning.text", "text": "Let me see", "format": "anthropic-claude-v1", "index": 0, "signature": "SIG"},
            {"type": "reasoning.encrypted", "data": "XYZ", "index": 1},
        ]})
    );
    assert!(shown.iter().all(|chunk| !matches!(chunk, Chunk::Text(_))), "{shown:?}");
    assert!(shown.contains(&Chunk::Reasoning));
}

#[tokio::test]
async fn deepseek_reasoning_goes_back_and_not_out() {
    let llm = ScriptedLlm::start().await;
    llm.raw_sse(concat!(
        r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null,"reasoning_content":"secret "}}]}"#, "\n\n",
        r#"data: {"choices":[{"index":0,"delta":{"content":null,"reasoning_content":"thought"}}]}"#, "\n\n",
        r#"data: {"choices":[{"index":0,"delta":{"content":"Yes.","reasoning_content":null}}]}"#, "\n\n",
        r#"data: {"choices":[{"index":0,"delta":{"content":"","reasoning_content":null},"finish_reason":"stop"}],"usage":{"prompt_tokens":8,"completion_tokens":4,"prompt_cache_hit_tokens":3}}"#, "\n\n",
        "data: [DONE]\n\n",
    ))
    .reply_text("ok");
    let model = model(&llm, "deepseek/deepseek-chat");
    let (completion, shown) = complete(&model).await;
    let completion = completion.expect("an answer");
    assert_eq!((completion.message.text.as_str(), completion.usage.map(|usage| usage.cached)), ("Yes.", Some(3)));
    assert_eq!(shown, [Chunk::Reasoning, Chunk::Reasoning, Chunk::Text("Yes.".to_owned())]);

    let mut messages = ask("hello");
    messages.push(Message::Assistant(completion.message));
    messages.extend(ask("and?"));
    model.complete(&messages, &[], None, &mut |_| {}).await.expect("an answer");
    assert_eq!(
        llm.requests()[1]["messages"][1],
        json!({"role": "assistant", "content": "Yes.", "reasoning_content": "secret thought"})
    );
}

#[tokio::test]
async fn gemini_whole_calls_with_signatures() {
    let llm = ScriptedLlm::start().await;
    llm.raw_sse(concat!(
        r#"data: {"choices":[{"delta":{"role":"assistant","tool_calls":[{"extra_content":{"google":{"thought_signature":"SIG"}},"function":{"arguments":"{\"path\":\"a\"}","name":"read_file"},"id":"","index":0,"type":"function"}]},"index":0}],"usage":{"prompt_tokens":7,"completion_tokens":1,"total_tokens":20}}"#, "\n\n",
        r#"data: {"choices":[{"delta":{"role":"assistant","tool_calls":[{"function":{"arguments":"{\"path\":\"b\"}","name":"read_file"},"id":"","index":0,"type":"function"}]},"finish_reason":"stop","index":0}],"usage":{"prompt_tokens":7,"completion_tokens":2}}"#, "\n\n",
        "data: [DONE]\n\n",
    ))
    .reply_text("ok");
    let model = model(&llm, "gemini/gemini-3-pro");
    let completion = complete(&model).await.0.expect("an answer");
    assert_eq!(calls(&completion), [("read_file", r#"{"path":"a"}"#), ("read_file", r#"{"path":"b"}"#)]);
    assert_eq!(
        (completion.finish, completion.usage),
        (Finish::ToolCalls, Some(Usage { input: 7, cached: 0, output: 2 }))
    );

    let mut messages = ask("hello");
    let ids: Vec<_> = completion.message.calls.iter().map(|call| call.id.clone()).collect();
    messages.push(Message::Assistant(completion.message));
    messages.extend(ids.into_iter().map(|call_id| Message::Tool { call_id, text: "x".to_owned() }));
    model.complete(&messages, &[], None, &mut |_| {}).await.expect("an answer");
    let sent = &llm.requests()[1]["messages"][1]["tool_calls"];
    assert_eq!(sent[0]["extra_content"], json!({"google": {"thought_signature": "SIG"}}));
    assert_eq!(sent[1].get("extra_content"), None);
}

#[tokio::test]
async fn moonshot_counts_in_the_choice() {
    let sse = concat!(
        r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"}}]}"#,
        "\n\n",
        r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop","usage":{"prompt_tokens":11,"completion_tokens":2,"cached_tokens":4}}]}"#,
        "\n\n",
        "data: [DONE]\n\n",
    );
    assert_eq!(stream("kimi-k2", sse).await.0.usage, Some(Usage { input: 11, cached: 4, output: 2 }));
}

#[tokio::test]
async fn ollama_ends_with_end_or_stop_beside_calls_and_thinks_in_tags() {
    let sse = concat!(
        r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"<thi"}}]}"#,
        "\n\n",
        r#"data: {"choices":[{"index":0,"delta":{"content":"nk>hm</think>\n\n"}}]}"#,
        "\n\n",
        r#"data: {"choices":[{"index":0,"delta":{"content":"Done."}}]}"#,
        "\n\n",
        r#"data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"end"}]}"#,
        "\n\n",
        "data: [DONE]\n\n",
    );
    let (completion, shown) = stream("ollama/qwen3:8b", sse).await;
    assert_eq!((completion.message.text.as_str(), completion.finish), ("Done.", Finish::Stop));
    assert!(!format!("{shown:?}").contains("hm"), "{shown:?}");

    let sse = concat!(
        r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"","tool_calls":[{"id":"call_x","index":0,"type":"function","function":{"name":"a","arguments":"{}"}}]}}]}"#,
        "\n\n",
        r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"stop"}]}"#,
        "\n\n",
        "data: [DONE]\n\n",
    );
    assert_eq!(stream("ollama/qwen3:8b", sse).await.0.finish, Finish::ToolCalls);
}

#[tokio::test]
async fn mistral_lists_its_content() {
    let sse = concat!(
        r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]}]}}]}"#,
        "\n\n",
        r#"data: {"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"Yes"}]}}]}"#,
        "\n\n",
        r#"data: {"choices":[{"index":0,"delta":{"content":"."},"finish_reason":"model_length"}]}"#,
        "\n\n",
        "data: [DONE]\n\n",
    );
    let (completion, shown) = stream("mistral/magistral-medium", sse).await;
    assert_eq!((completion.message.text.as_str(), completion.finish), ("Yes.", Finish::Length));
    assert_eq!(shown[0], Chunk::Reasoning);
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_understood() {
    let llm = ScriptedLlm::start().await;
    let body = json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi", "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "a", "arguments": "{}"}}]}, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1}});
    llm.status(200, &[("content-type", "application/json; charset=utf-8")], &format!("{body:#}"));
    let completion = complete(&model(&llm, "x")).await.0.expect("an answer");
    assert_eq!((completion.message.text.as_str(), calls(&completion)), ("Hi", vec![("a", "{}")]));
    llm.status(200, &[("content-type", "text/html")], "<html>login</html>");
    assert_eq!(complete(&model(&llm, "x")).await.0, Err(LlmError::Garbled("a web page")));
}

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
async fn nothing_is_asked_again_once_a_word_was_shown() {
    let llm = ScriptedLlm::start().await;
    llm.cut_after(1, Reply::text("Half an answer")).reply_text("never asked");
    let (completion, shown) = complete(&model(&llm, "x")).await;
    assert_eq!((completion, shown.len(), llm.requests().len()), (Err(LlmError::Cut), 1, 1));
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
            "The model's provider rejected the request (422). Another model may take it: see LLM_MODEL. It said: “extra fields”",
        ),
        (
            307,
            String::new(),
            "The model's provider rejected the request (307). Another model may take it: see LLM_MODEL. It said: “a redirect, which is not followed”",
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
    llm.hang().hang_after(1, Reply::text("Half an answer"));
    let mut settings = settings(&llm, "x");
    settings.limits.first_token = Duration::from_millis(100);
    settings.limits.idle = Duration::from_millis(100);
    let model = Model::new(settings).expect("a model");
    let slow = |stage| Err(LlmError::Slow { stage, limit: Duration::from_millis(100) });
    assert_eq!(complete(&model).await.0, slow(Stage::Begin));
    assert_eq!(complete(&model).await.0, slow(Stage::GoOn));
    llm.cancelled(2).await;
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
    settings.limits = matrix_agent::llm::Limits { idle: Duration::from_millis(100), ..Default::default() };
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
        assert_eq!(failing("x", sse).await, LlmError::Garbled("an event that is no JSON"));
    }
    failing("x", "data: {\"error\":{\"message\":\"you said: tell me hello and a secret in many words\"}}\n\n").await;
    drop(guard);
    let log = String::from_utf8_lossy(&log.0.lock().expect("a log")).into_owned();
    assert!(log.contains("asking the model again") && !log.contains("my secret") && !log.contains(KEY), "{log}");
    assert_eq!(failing("x", "data: [DONE]\n\n").await, LlmError::Garbled("an empty stream"));
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
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
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
        model.complete(&messages, std::slice::from_ref(&spec), None, &mut |_| {}).await.expect("an answer");
        best = best.min(started.elapsed());
    }
    assert!(best < Duration::from_millis(100), "{best:?}");
}
