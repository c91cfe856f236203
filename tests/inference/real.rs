//! A real llama-server, Debian's, in a container with two tiny models of random numbers (`scripts/llama-image.sh`). Where the
//! image could not be built these tests say so and look at nothing.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use matrix_agent::{
    inference::Inference,
    llm::{Message, Meter, Model, ModelSettings, Part},
};
use serde_json::json;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Lab;
use crate::support::{
    bot::Town,
    rig::{BARE, LIMIT, Rig, free_port},
    seen::Shown,
    synapse::Limits,
};

const IMAGE: &str = "localhost/matrix-agent-llama:latest";
/// What the random models are called.
const MODELS: &str = r#"{"models": {
    "llama-cpp/tiny-a.gguf": {"alias": "a", "name": "Tiny A"}, "llama-cpp/tiny-b.gguf": {"alias": "b", "name": "Tiny B"}
}}"#;

/// A running llama-server; dropped, it is gone.
struct Llama {
    container: String,
    url: String,
}

impl Llama {
    /// Starts one, unless there is no image of it.
    fn start(arguments: &[&str]) -> Option<Self> {
        let is_there = Command::new("podman").args(["image", "exists", IMAGE]).status().unwrap().success();
        if !is_there {
            assert!(std::env::var_os("LLAMA_REQUIRED").is_none(), "there is no {IMAGE}");
            #[expect(clippy::print_stderr, reason = "whoever runs the tests should know")]
            {
                eprintln!("LEFT OUT: there is no {IMAGE}; scripts/llama-image.sh builds it");
            }
            return None;
        }
        let port = free_port().to_string();
        // One thread: several would wait for each other on a machine whose processors are busy.
        let usual = ["--host", "127.0.0.1", "--port", &port, "--threads", "1", "--parallel", "4", "--no-webui"];
        let run = Command::new("podman")
            .args(["run", "--detach", "--rm", "--network=host", "--pull=never", IMAGE])
            .args(usual)
            .args(arguments)
            .output()
            .unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let container = String::from_utf8(run.stdout).unwrap().trim().to_owned();
        Some(Self { container, url: format!("http://127.0.0.1:{port}") })
    }

    fn log(&self) -> String {
        let logs = Command::new("podman").args(["logs", &self.container]).output().unwrap();
        String::from_utf8_lossy(&logs.stderr).into_owned()
    }
}

impl Drop for Llama {
    fn drop(&mut self) {
        let _ = Command::new("podman").args(["rm", "--force", "--time", "0", &self.container]).output();
    }
}

/// Waits until the server tells of itself.
fn online(lab: &Lab) {
    let end = Instant::now() + LIMIT;
    while !lab.told("/lbe").contains("1/1 endpoints online") {
        assert!(Instant::now() < end, "{}", lab.told("/lbe"));
    }
}

fn lab(llama: &Llama) -> Lab {
    let lab = Lab::new(Rig::new(BARE, "http://127.0.0.1:9"));
    lab.endpoints(&[json!({"id": "real", "type": "llama-cpp", "url": llama.url})]);
    lab.write_text("localbot-models.json", MODELS);
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_one_model_is_told_and_measured() {
    let Some(llama) = Llama::start(&["--model", "/models/tiny-a.gguf", "--ctx-size", "2048"]) else { return };
    let lab = lab(&llama);
    let server = tokio::task::block_in_place(|| lab.rig.serve());
    online(&lab);
    assert!(lab.told("/lbe").contains("   📦 tiny-a\n"), "{}", lab.told("/lbe"));
    assert!(lab.told("/lbs").contains("📦 Model: tiny-a (a)\n📐 Context: "), "{}", lab.told("/lbs"));
    let measured = lab.told("/lbp");
    for line in ["⚡ Benchmark: real", "📦 Model: tiny-a", "📝 Generation: ", "📥 Prompt: ", "⏱️ Roundtrip: "]
    {
        assert!(measured.contains(line), "{line}: {measured}");
    }
    let other = lab.told("/lbm b");
    assert!(other.starts_with("❌ Model failed to load: real does not have it"), "{other}");
    assert!(lab.told("/lbq").contains("real\n   0 of 4 slots busy"), "{}", lab.told("/lbq"));
    assert!(lab.told("/lbl").starts_with("❌ The log of real cannot be read: it has no `ssh`"), "{}", lab.told("/lbl"));
    tokio::task::block_in_place(|| server.stop());
}

const ROUTER: [&str; 6] = ["--models-dir", "/models", "--models-max", "1", "--ctx-size", "1024"];

#[tokio::test(flavor = "multi_thread")]
async fn a_router_is_switched_from_the_chat() {
    let Some(llama) = Llama::start(&ROUTER) else { return };
    let lab = lab(&llama);
    let server = tokio::task::block_in_place(|| lab.rig.serve());
    online(&lab);
    assert!(lab.told("/lbe").contains("   📦 2 available (none loaded)"), "{}", lab.told("/lbe"));
    for (alias, file) in [("a", "tiny-a"), ("b", "tiny-b"), ("b", "tiny-b")] {
        let told = lab.told(&format!("/lbm {alias}"));
        let start = format!("🔄 Switching to {alias}...\n✅ Model loaded: {file}\n📐 Context: ");
        assert!(told.starts_with(&start) && told.ends_with(" tokens"), "{told}\n{}", llama.log());
        let listed = lab.told("/lbm");
        assert_eq!(listed.matches("⬅ active").count(), 1, "{listed}");
        assert!(listed.contains(&format!("Tiny {} ⬅ active", alias.to_uppercase())), "{listed}");
    }
    assert_eq!(lab.told("/lbm xyz"), "❌ Unknown model: xyz. Use /lbm to list.");
    tokio::task::block_in_place(|| server.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_is_switched_from_a_room_of_a_homeserver() {
    let Some(llama) = Llama::start(&ROUTER) else { return };
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let town = Town::prepared(Limits::Relaxed, |rig| {
        let folder = rig.path().join("lab");
        std::fs::create_dir(&folder).unwrap();
        let endpoints = json!({"endpoints": [{"id": "real", "type": "llama-cpp", "url": llama.url}]});
        std::fs::write(folder.join("inference-endpoints.json"), endpoints.to_string()).unwrap();
        std::fs::write(folder.join("localbot-models.json"), MODELS).unwrap();
        rig.set("LOCALBOT_DIR", folder.to_str().unwrap());
    });
    let town = town.await;
    let inference = Inference::new(town.rig.path().join("lab"), tasks, cancel.clone()).unwrap();
    let endpoint = &inference.registry().read().endpoints[0];
    let end = Instant::now() + LIMIT;
    while inference.look(endpoint).await.is_err() {
        assert!(Instant::now() < end, "{}", llama.log());
    }
    let room = town.room(true).await;
    for alias in ["a", "b"] {
        town.anna.say(&room, &format!("!lbm {alias}")).await;
        let start = format!("🔄 Switching to {alias}...\n✅ Model loaded: tiny-{alias}\n");
        let switched = |it: &Shown| it.sender == town.bot && it.body.starts_with(&start);
        town.anna.shows(&room, "that it is loaded", |shown| shown.iter().any(switched)).await;
        let online = inference.look(endpoint).await.unwrap();
        let loaded: Vec<_> = online.loaded().map(|served| &*served.id).collect();
        assert!(loaded.len() == 1 && loaded[0].contains(&format!("tiny-{alias}")), "{loaded:?} {}", llama.log());
    }
    cancel.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_requests_for_two_models_with_room_for_one_are_all_answered() {
    let Some(llama) = Llama::start(&ROUTER) else { return };
    let folder = tempfile::tempdir().unwrap();
    let endpoints = json!({"endpoints": [{"id": "real", "type": "llama-cpp", "url": llama.url}]});
    std::fs::write(folder.path().join("inference-endpoints.json"), endpoints.to_string()).unwrap();
    std::fs::write(folder.path().join("localbot-models.json"), MODELS).unwrap();
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let inference = Inference::new(folder.path().to_owned(), tasks, cancel.clone()).unwrap();
    let read = inference.registry().read();
    let end = Instant::now() + LIMIT;
    while inference.look(&read.endpoints[0]).await.is_err() {
        assert!(Instant::now() < end, "{}", llama.log());
    }
    let models = ["a", "b"].map(|alias| {
        let mut settings = ModelSettings::new(format!("localbot/{alias}"), String::new().into());
        // Four are answered at a time and all others wait at the server.
        settings.limits.first_token = Duration::from_mins(2);
        inference.model(settings)
    });
    let asked = (0..200).map(|number| {
        let model: &Model = &models[number % 2];
        async move {
            let messages = [Message::User { parts: vec![Part::Text { text: format!("question {number}") }] }];
            model.complete(&messages, &[], Some(2), &Meter::new(0), &mut |_| {}).await
        }
    });
    let answers = futures_util::future::join_all(asked).await;
    let failed: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of 200: {}\n{}", failed.len(), failed[0], llama.log());
    assert!(inference.standing(&read.endpoints[0]).iter().all(|it| it.answering == 0 && it.waiting.is_none()));
    cancel.cancel();
}
