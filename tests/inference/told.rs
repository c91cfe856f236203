//! What the commands reply, word for word as the specification has it.

use std::{
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::net::TcpListener;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{header, method, path},
};

use super::{Lab, MODELS, answer, llama, nowhere, ollama};
use crate::support::{
    rig::{BARE, Rig},
    scripted_llm::ScriptedLlm,
    wire::Wire,
};

fn lab() -> Lab {
    Lab::new(Rig::new(BARE, "http://127.0.0.1:9"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replies_are_those_of_the_specification() {
    let (lab, llama, ollama, dead) = (lab(), llama().await, ollama().await, nowhere().await);
    let (llama_url, ollama_url) = (llama.uri(), ollama.uri());
    lab.endpoints(&[
        json!({"id": "ollama-quick", "type": "ollama", "url": ollama_url, "priority": 3}),
        json!({"id": "vllm-gpu", "type": "vllm", "url": dead, "priority": 2}),
        json!({"id": "llama-cpp-local", "type": "llama-cpp", "url": llama_url, "priority": 1}),
    ]);
    lab.write_text("localbot-models.json", MODELS);
    let timings = json!({"choices": [], "timings": {"prompt_per_second": 392.4, "predicted_per_second": 61.7}});
    answer(&llama, "POST", "/v1/chat/completions", &timings).await;
    let server = tokio::task::block_in_place(|| lab.rig.serve());
    assert_eq!(
        lab.told("/lbe"),
        format!(
            "🔌 Inference Endpoints\n\n✅ llama-cpp-local (llama-cpp)\n   {llama_url}\n   📦 Nemotron-3-Nano-30B-A3B\n   \
             ⚡ gen 62→58 | pp 393→360 tok/s\n\n❌ vllm-gpu (vllm)\n   {dead}\n   ❌ Connection refused\n\n\
             ✅ ollama-quick (ollama)\n   {ollama_url}\n   📦 3 available (none loaded)\n\n2/3 endpoints online"
        )
    );
    assert_eq!(
        lab.told("!lbs"),
        "🤖 LocalBot Status\n\n✅ Active: llama-cpp-local\n📦 Model: Nemotron-3-Nano-30B-A3B (nemo30b)\n\
         📐 Context: 131k | full VRAM\n⚡ Speed: gen 62→58 | pp 393→360 tok/s\n\n📊 Sessions: 0 | 0 tokens"
    );
    assert_eq!(
        lab.told("/lbm"),
        "📦 LocalBot Models\n\n▸ nemo30b — Nemotron-3-Nano-30B IQ4_NL ⬅ active\n  131k ctx | gen 62→58 | pp 393→360\n\n\
         ▸ q3cn40b — Qwen3-Coder-Next REAP 40B\n  131k ctx | gen 24→12 | pp 60→20\n\n\
         ▸ go20b — GPT-OSS 20B\n  131k ctx | gen 60→20 | pp 145→45"
    );
    let measured = lab.told("/lbp");
    let (start, millis) = measured.rsplit_once("Roundtrip: ").unwrap();
    assert_eq!(
        start,
        "⚡ Benchmark: llama-cpp-local\n\n📦 Model: Nemotron-3-Nano-30B-A3B\n📝 Generation: 61.7 tok/s\n\
         📥 Prompt: 392.4 tok/s\n⏱️ "
    );
    assert!(millis.strip_suffix("ms").is_some_and(|millis| millis.parse::<u64>().is_ok()), "{measured}");
    for command in ["/lbs", "/lbm", "/lbn", "/lbe", "/lbp", "/lbh"] {
        assert!(lab.told("/lbh").contains(&format!("`{command}")), "{command}");
    }

    lab.endpoints(&[json!({"id": "ollama-quick", "type": "ollama", "url": ollama.uri()})]);
    assert!(lab.told("/lbs").contains("✅ Active: ollama-quick\n📦 3 available (none loaded)\n"), "it is read again");
    assert_eq!(lab.told("/lbp"), "❌ ollama-quick has no model loaded. Load one with /lbm <alias>.");
    tokio::task::block_in_place(|| server.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn three_dead_endpoints_are_told_within_the_limit_of_a_probe() {
    let lab = lab();
    // One accepts and is silent, one sends without an end, and one is not there.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endless = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (silent_at, endless_at) = (silent.local_addr().unwrap(), endless.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = endless.accept().await {
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                // An answer that comes before its question is none.
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{").await;
                let piece = vec![b' '; 65_536];
                while stream.write_all(&piece).await.is_ok() {}
            });
        }
    });
    lab.endpoints(&[
        json!({"id": "silent", "type": "llama-cpp", "url": format!("http://{silent_at}")}),
        json!({"id": "endless", "type": "vllm", "url": format!("http://{endless_at}")}),
        json!({"id": "gone", "type": "ollama", "url": nowhere().await}),
    ]);
    let server = tokio::task::block_in_place(|| lab.rig.serve());
    let started = Instant::now();
    let told = lab.told("/lbe");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "less than two probes one after the other: {took:?}");
    // On a slow machine it has not come so far in the time.
    let endless =
        told.contains("❌ The answer is larger than 4 MiB") || told.matches("No answer within 5 s").count() == 2;
    assert!(endless, "{told}");
    for line in ["❌ No answer within 5 s", "❌ Connection refused", "0/3 endpoints online"] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert_eq!(lab.told("/lbp"), "❌ None of 3 endpoints is online. Use /lbe to see why.");
    tokio::task::block_in_place(|| server.stop());
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_answers_are_one_plain_line_and_a_key_is_sent_and_never_told() {
    let lab = lab();
    let key = lab.rig.path().join("key");
    std::fs::write(&key, "sk-local-secret\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (page, wrong, locked) = (MockServer::start().await, MockServer::start().await, MockServer::start().await);
    Mock::given(method("GET"))
        .respond_with(ResponseTemplate::new(200).set_body_string("<!DOCTYPE html><title>router</title>"))
        .mount(&page)
        .await;
    answer(&wrong, "GET", "/v1/models", &json!({"data": {"id": 7}})).await;
    let list = json!({"object": "list", "data": [{"id": "Qwen/Qwen3-8B", "max_model_len": 40_960}]});
    Mock::given(path("/v1/models"))
        .and(header("authorization", "Bearer sk-local-secret"))
        .respond_with(ResponseTemplate::new(200).set_body_json(list))
        .mount(&locked)
        .await;
    let refusal = json!({"error": {"message": "no such key: sk-local-secret"}});
    let usage = json!({"usage": {"prompt_tokens": 30, "completion_tokens": 30}});
    Mock::given(path("/v1/chat/completions"))
        .and(header("authorization", "Bearer sk-local-secret"))
        .respond_with(ResponseTemplate::new(200).set_body_json(usage))
        .up_to_n_times(2)
        .mount(&locked)
        .await;
    Mock::given(path("/v1/chat/completions"))
        .respond_with(ResponseTemplate::new(401).set_body_json(refusal))
        .mount(&locked)
        .await;
    lab.endpoints(&[
        json!({"id": "page", "type": "ollama", "url": page.uri(), "priority": 1}),
        json!({"id": "locked", "type": "vllm", "url": locked.uri(), "priority": 2, "apiKeyFile": key}),
        json!({"id": "wrong", "type": "vllm", "url": wrong.uri(), "priority": 3}),
        json!({"id": "keyless", "type": "vllm", "url": locked.uri(), "priority": 4, "apiKeyEnv": "NO_SUCH_KEY"}),
    ]);
    let server = tokio::task::block_in_place(|| lab.rig.serve());
    let told = lab.told("/lbe");
    for line in [
        "❌ A web page came instead of JSON",
        "   📦 Qwen3-8B\n",
        "   📦 0 available (none loaded)",
        "❌ its API key's variable NO_SUCH_KEY is not set",
        "2/4 endpoints online",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    let measured = lab.told("/lbp");
    assert!(measured.contains("📝 Generation: ") && measured.contains("📥 Prompt: "), "{measured}");
    let refused = lab.told("/lbp");
    assert!(
        refused.starts_with("❌ locked did not answer the test question: The API key is refused (401)"),
        "{refused}"
    );
    assert!(
        !format!("{told}{measured}{refused}{}", tokio::task::block_in_place(|| server.stop())).contains("sk-local")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_reset_with_its_tokens_told_unless_its_bot_is_at_work() {
    let llm = ScriptedLlm::start().await;
    let gate = std::sync::Arc::new(tokio::sync::Notify::new());
    llm.when("remember the lighthouse").reply_text("I will.");
    llm.when("take your time").after(&gate).reply_text("Done.");
    llm.when("what do you remember").reply_text("Nothing.");
    let lab = Lab::new(Rig::new(BARE, llm.base_url()));
    let room =
        |agent: &str, name: &str, public: bool| json!({"agentId": agent, "roomName": name, "publicReset": public});
    lab.write(
        "localbot-rooms.json",
        &json!({"rooms": {
            "terminal:lab": room("coder/coder", "llmlab", false),
            "terminal:other": room("coder/nobody", "planning", true),
        }}),
    );
    let server = tokio::task::block_in_place(|| lab.rig.serve());
    let ask = |text: &str| tokio::task::block_in_place(|| lab.rig.ask("lab", text).finish());
    ask("remember the lighthouse");
    let status = lab.told("/lbs");
    assert!(status.contains("📊 Sessions: 1 | ") && !status.contains("| 0 tokens"), "{status}");
    let usage = "Usage: /lbn <room>\n\nRooms: `llmlab`, `planning`";
    assert_eq!((lab.told("/lbn"), lab.told("/lbn nowhere")), (usage.to_owned(), usage.to_owned()));
    let told = lab.told("/lbn planning");
    assert_eq!(
        told,
        "❌ localbot-rooms.json names `coder/nobody` for planning, and there is no such bot here. The bots here: `coder/coder`, `coder/lbn`"
    );

    let mut wire = tokio::task::block_in_place(|| {
        let mut wire = Wire::join(&lab.rig, "lab");
        wire.say("1", "take your time");
        wire
    });
    llm.arrived(2).await;
    assert!(lab.told("/lbn llmlab").starts_with("❌ The bot is answering in llmlab."));
    gate.notify_one();
    tokio::task::block_in_place(|| wire.until("the answer", |frame| frame["event"] == "answer"));
    drop(wire);

    let told = lab.told("/lbn LLMlab.");
    let tokens =
        told.strip_prefix("✅ LocalBot session reset (llmlab)\n   Cleared ").unwrap_or_else(|| panic!("{told}"));
    assert!(tokens.ends_with(" tokens") && !tokens.starts_with("0 "), "{told}");
    ask("what do you remember");
    let last = llm.requests().pop().unwrap().to_string();
    assert!(last.contains("what do you remember") && !last.contains("lighthouse"), "{last}");
    tokio::task::block_in_place(|| server.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_is_told_by_its_field_and_what_it_said_before_holds() {
    let (lab, llama) = (lab(), llama().await);
    let server = tokio::task::block_in_place(|| lab.rig.serve());
    let told = lab.told("/lbe");
    assert!(
        told.starts_with("❌ No endpoints are set up. Write them into `")
            && told.contains("lab/inference-endpoints.json"),
        "{told}"
    );
    lab.endpoints(&[json!({"id": "one", "type": "llama-cpp", "url": llama.uri()})]);
    assert!(lab.told("/lbe").ends_with("1/1 endpoints online"));
    lab.write_text("inference-endpoints.json", r#"{"endpoints": [{"id": "one", "type": "llama", "url": "x"}]}"#);
    let told = lab.told("/lbe");
    assert!(
        told.contains("1/1 endpoints online\n\n⚠️ inference-endpoints.json: endpoints[0].type: write `llama-cpp`"),
        "{told}"
    );
    assert!(told.contains("endpoints[0].url: it is no URL") && told.contains("what it said before holds"), "{told}");
    tokio::task::block_in_place(|| server.stop());
}
