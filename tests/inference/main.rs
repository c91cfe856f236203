//! The `/lb` commands in a room: the real binary at a terminal, and inference servers that are scripted as they are
//! documented.

#[path = "../support/mod.rs"]
mod support;

mod own;
mod real;
mod told;

use std::fs;

use serde_json::{Value, json};
use support::rig::Rig;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{method, path},
};

/// A registry in a rig's folder.
struct Lab {
    rig: Rig,
}

impl Lab {
    /// Lets a rig's program use a registry.
    fn new(mut rig: Rig) -> Self {
        let folder = rig.path().join("lab");
        fs::create_dir(&folder).unwrap();
        rig.set("LOCALBOT_DIR", folder.to_str().unwrap());
        Self { rig }
    }

    fn write(&self, file: &str, content: &Value) {
        self.write_text(file, &content.to_string());
    }

    fn write_text(&self, file: &str, text: &str) {
        // As editors do it, so that no half a file is read.
        let (next, file) = (self.rig.path().join("lab/next"), self.rig.path().join("lab").join(file));
        fs::write(&next, text).unwrap();
        fs::rename(next, file).unwrap();
    }

    fn endpoints(&self, all: &[Value]) {
        self.write("inference-endpoints.json", &json!({ "endpoints": all }));
    }

    /// Says something and returns the one reply.
    fn told(&self, command: &str) -> String {
        let (code, seen) = tokio::task::block_in_place(|| self.rig.ask("here", command).finish());
        let told: Vec<_> = seen.iter().filter(|frame| frame["event"] == "reply").collect();
        assert_eq!((code, told.len()), (0, 1), "{command}: {seen:#?}");
        told[0]["text"].as_str().unwrap().to_owned()
    }
}

/// The models of the specification's examples, in the file's order.
const MODELS: &str = r#"{"models": {
    "llama-cpp/Nemotron-3-Nano-30B-A3B-IQ4_NL.gguf": {"alias": "nemo30b", "name": "Nemotron-3-Nano-30B IQ4_NL",
        "context": 131072, "vramFit": "full",
        "speeds": {"genFresh": 62, "genFilled": 58, "promptFresh": 393, "promptFilled": 360}},
    "llama-cpp/q.gguf": {"alias": "q3cn40b", "name": "Qwen3-Coder-Next REAP 40B", "context": 131072,
        "speeds": {"genFresh": 24, "genFilled": 12, "promptFresh": 60, "promptFilled": 20}},
    "llama-cpp/go.gguf": {"alias": "go20b", "name": "GPT-OSS 20B", "context": 131072,
        "speeds": {"genFresh": 60, "genFilled": 20, "promptFresh": 145, "promptFilled": 45}}
}}"#;

async fn answer(server: &MockServer, verb: &str, at: &str, body: &Value) {
    Mock::given(method(verb))
        .and(path(at))
        .respond_with(ResponseTemplate::new(200).set_body_json(body))
        .mount(server)
        .await;
}

/// A llama-server that serves the first of these models.
async fn llama() -> MockServer {
    let server = MockServer::start().await;
    answer(&server, "GET", "/health", &json!({"status": "ok"})).await;
    let mut props: Value = serde_json::from_str(include_str!("fixtures/single-props.json")).unwrap();
    props["model_path"] = "/models/Nemotron-3-Nano-30B-A3B-IQ4_NL.gguf".into();
    props["default_generation_settings"]["n_ctx"] = 131_072.into();
    answer(&server, "GET", "/props", &props).await;
    server
}

/// An Ollama that has three models and none of them loaded.
async fn ollama() -> MockServer {
    let server = MockServer::start().await;
    answer(&server, "GET", "/api/ps", &json!({"models": []})).await;
    let model = |name: &str| json!({"name": name, "model": name, "size": 3_338_801_804_u64, "digest": "a80c4f17acd5"});
    let models = [model("gemma3:latest"), model("llama3.2:3b"), model("qwen3:8b")];
    answer(&server, "GET", "/api/tags", &json!({ "models": models })).await;
    server
}

/// An address at which nothing listens.
async fn nowhere() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
