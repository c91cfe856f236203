//! The coding agent thinks with a model of the registry.

use serde_json::json;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{header_exists, method, path},
};

use super::{Lab, answer, nowhere};
use crate::support::rig::{BARE, Rig, answers};

/// A vLLM that answers a chat with this.
async fn vllm(says: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    answer(&server, "GET", "/v1/models", &json!({"data": [{"id": "Qwen/Qwen3-8B", "max_model_len": 40_960}]})).await;
    Mock::given(method("POST")).and(path("/v1/chat/completions")).respond_with(says).mount(&server).await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_answer_gives_way_to_the_next_endpoint_and_no_other_key_goes_there() {
    let chunk = |delta: &str, finish: &str| {
        format!(r#"data: {{"choices": [{{"index": 0, "delta": {delta}, "finish_reason": {finish}}}]}}"#)
    };
    let stream = [
        chunk(r#"{"role": "assistant", "content": "From the third."}"#, "null"),
        chunk("{}", r#""stop""#),
        "data: [DONE]".to_owned(),
    ];
    let stream = ResponseTemplate::new(200).set_body_raw(stream.join("\n\n") + "\n\n", "text/event-stream");
    let (broken, good) = (vllm(ResponseTemplate::new(500)).await, vllm(stream).await);
    Mock::given(header_exists("authorization"))
        .respond_with(ResponseTemplate::new(401))
        .with_priority(1)
        .mount(&good)
        .await;
    let mut lab = Lab::new(Rig::new(BARE, "http://127.0.0.1:9"));
    lab.rig.set("LLM_MODEL", "localbot/");
    lab.endpoints(&[
        json!({"id": "gone", "type": "llama-cpp", "url": nowhere().await, "priority": 1}),
        json!({"id": "broken", "type": "vllm", "url": broken.uri(), "priority": 2}),
        json!({"id": "good", "type": "vllm", "url": good.uri(), "priority": 3}),
    ]);
    let asked = |room: &str| tokio::task::block_in_place(|| lab.rig.ask(room, "hello").finish());
    let (code, seen) = asked("one");
    assert_eq!((code, &answers(&seen)[0]["text"]), (0, &"From the third.".into()), "{seen:#?}");
    lab.endpoints(&[json!({"id": "gone", "type": "llama-cpp", "url": nowhere().await})]);
    let (code, seen) = asked("two");
    let text = answers(&seen)[0]["text"].as_str().unwrap().to_owned();
    assert_eq!(code, 1);
    assert!(text.contains("gone cannot be reached (Connection refused)"), "{text}");
}
