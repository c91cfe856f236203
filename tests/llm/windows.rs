//! How much fits into a model's context: servers of each kind are asked, and nobody waits for them.

use std::time::Duration;

use matrix_agent::llm::{Model, ModelSettings, Window, WindowSource};
use serde_json::{Value, json};
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{body_json, method, path, query_param},
};

use crate::asked::complete;

const ANSWER: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

async fn server() -> MockServer {
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(200).set_body_raw(ANSWER, "text/event-stream");
    Mock::given(method("POST")).and(path("/v1/chat/completions")).respond_with(answer).mount(&server).await;
    server
}

async fn says(server: &MockServer, at: &str, body: Value) {
    Mock::given(path(at)).respond_with(ResponseTemplate::new(200).set_body_json(body)).mount(server).await;
}

fn model(server: &MockServer, name: &str) -> Model {
    let mut settings = ModelSettings::new(name, "sk-test-0123456789".to_owned().into());
    settings.base_url = Some(format!("{}/v1", server.uri()));
    Model::new(settings).expect("a model")
}

async fn asked(server: &MockServer, name: &str) -> Window {
    let model = model(server, name);
    model.ask_window().await;
    model.window()
}

fn told(tokens: u64) -> Window {
    Window { tokens, source: WindowSource::Server }
}

#[tokio::test]
async fn servers_of_each_kind_are_asked_for_the_window() {
    let llama = server().await;
    let props: Value = serde_json::from_str(include_str!("fixtures/llama-server-props.json")).expect("a fixture");
    let asked_for =
        Mock::given(path("/props")).and(query_param("model", "tiny-a")).and(query_param("autoload", "false"));
    asked_for.respond_with(ResponseTemplate::new(200).set_body_json(props)).mount(&llama).await;
    assert_eq!(asked(&llama, "llama-cpp/tiny-a").await, told(1024));

    let vllm = server().await;
    says(&vllm, "/v1/models", json!({"data": [{"id": "Qwen/Qwen3-8B", "max_model_len": 40_960}]})).await;
    assert_eq!(asked(&vllm, "hosted_vllm/Qwen/Qwen3-8B").await, told(40_960));
    assert_eq!(asked(&vllm, "openai/Qwen/Qwen3-8B").await, told(40_960));

    let ollama = server().await;
    let show = Mock::given(path("/api/show")).and(body_json(json!({"model": "qwen3:8b"})));
    let about = json!({"parameters": "num_ctx 16384", "model_info": {"qwen3.context_length": 40_960}});
    show.respond_with(ResponseTemplate::new(200).set_body_json(about)).mount(&ollama).await;
    assert_eq!(asked(&ollama, "ollama/qwen3:8b").await, told(16_384));
    says(&ollama, "/api/ps", json!({"models": [{"name": "qwen3:8b", "context_length": 4096}]})).await;
    assert_eq!(asked(&ollama, "ollama/qwen3:8b").await, told(4096));
    assert_eq!(asked(&ollama, "openai/qwen3:8b").await, told(4096), "however it is configured");

    let studio = server().await;
    let list =
        json!({"data": [{"id": "a", "state": "loaded", "max_context_length": 131_072, "loaded_context_length": 8192}]});
    says(&studio, "/api/v0/models", list).await;
    assert_eq!(asked(&studio, "openai/a").await, told(8192));
}

#[tokio::test]
async fn a_server_that_says_nothing_leaves_the_family_and_a_setting_asks_nobody() {
    let silent = server().await;
    assert_eq!(asked(&silent, "claude-sonnet-4").await, Window { tokens: 200_000, source: WindowSource::Name });
    assert_eq!(asked(&silent, "no-name").await, Window { tokens: 32_768, source: WindowSource::Guess });
    let before = silent.received_requests().await.expect("requests").len();
    let mut settings = ModelSettings::new("no-name", String::new().into());
    settings.base_url = Some(format!("{}/v1", silent.uri()));
    settings.context_window = Some(10_000);
    let model = Model::new(settings).expect("a model");
    model.ask_window().await;
    complete(&model).await.0.expect("an answer");
    assert_eq!(model.window(), Window { tokens: 10_000, source: WindowSource::Setting });
    assert_eq!(silent.received_requests().await.expect("requests").len(), before + 1, "the completion alone");
}

#[tokio::test]
async fn nobody_waits_for_a_server_that_is_slow_to_say() {
    let slow = server().await;
    let late = ResponseTemplate::new(200).set_delay(Duration::from_mins(5));
    Mock::given(method("GET")).respond_with(late).mount(&slow).await;
    let model = model(&slow, "no-name");
    let answered = tokio::time::timeout(Duration::from_secs(1), complete(&model)).await;
    assert!(answered.is_ok_and(|(answer, _)| answer.is_ok()), "the answer was there at once");
}

#[tokio::test]
async fn a_refusal_teaches_the_window() {
    let server = MockServer::start().await;
    let words = "prompt is too long: 210000 tokens > 100000 maximum";
    let refusal = ResponseTemplate::new(400).set_body_json(json!({"error": {"message": words}}));
    Mock::given(method("POST")).respond_with(refusal).mount(&server).await;
    let model = model(&server, "claude-sonnet-4");
    complete(&model).await.0.expect_err("a refusal");
    assert_eq!(model.window(), Window { tokens: 100_000, source: WindowSource::Refusal });
}
