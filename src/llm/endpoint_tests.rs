//! Model strings and addresses, good and bad.

use super::{
    super::providers::{CallIds, Echo, MaxTokens, PLAIN},
    *,
};

fn parse(model: &str, base: Option<&str>) -> Endpoint {
    parse_model(model, base).expect("a good model string")
}

#[test]
fn every_prefix_of_the_issue_has_an_address() {
    for (model, url, sent) in [
        ("openrouter/anthropic/claude-sonnet-4", "https://openrouter.ai/api/v1", "anthropic/claude-sonnet-4"),
        ("anthropic/claude-sonnet-4-5", "https://api.anthropic.com/v1", "claude-sonnet-4-5"),
        ("gemini/gemini-3-pro", "https://generativelanguage.googleapis.com/v1beta/openai", "gemini-3-pro"),
        ("openai/gpt-5", "https://api.openai.com/v1", "gpt-5"),
        ("dashscope/qwen3-max", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "qwen3-max"),
        ("ollama/qwen3:8b", "http://127.0.0.1:11434/v1", "qwen3:8b"),
        ("llama-cpp/any", "http://127.0.0.1:8080/v1", "any"),
        ("deepseek/deepseek-chat", "https://api.deepseek.com/v1", "deepseek-chat"),
        ("mistral/mistral-large-latest", "https://api.mistral.ai/v1", "mistral-large-latest"),
    ] {
        let endpoint = parse(model, None);
        assert_eq!((endpoint.base_url(), endpoint.model()), (url, sent), "{model}");
    }
}

#[test]
fn an_address_replaces_the_tables_and_lets_any_name_through() {
    assert_eq!(parse("qwen/qwen3-8b", Some("http://10.0.0.2:8000/v1/")).model(), "qwen/qwen3-8b");
    assert_eq!(
        parse("my-model", Some("http://10.0.0.2:8000/v1/chat/completions")).base_url(),
        "http://10.0.0.2:8000/v1"
    );
    assert_eq!(parse("ollama/qwen3", Some("http://10.0.0.2:11434")).base_url(), "http://10.0.0.2:11434/v1");
    let foreign = parse("openai/gpt-5", Some("http://proxy.example/v1"));
    assert_eq!((foreign.model(), foreign.quirks()), ("gpt-5", PLAIN));
    assert_eq!(parse("openai/gpt-5", Some("https://api.openai.com/v1")).quirks().max_tokens, MaxTokens::Completion);
}

#[test]
fn mistakes_name_the_key_and_the_mend() {
    for (model, base, key, says) in [
        ("", None, "LLM_MODEL", "no model is named"),
        ("openruter/x", None, "LLM_MODEL", "did you mean `openrouter/…`?"),
        ("gpt-5", None, "LLM_MODEL", "known provider"),
        ("gemini/", None, "LLM_MODEL", "needs a model's name"),
        ("hosted_vllm/x", None, "LLM_MODEL", "set LLM_BASE_URL"),
        ("open ai/x", None, "LLM_MODEL", "no spaces"),
        ("x", Some("localhost:8000"), "LLM_BASE_URL", "must begin with"),
        ("x", Some("nonsense"), "LLM_BASE_URL", "not a URL"),
        ("x", Some("https://user:pw@host/v1"), "LLM_BASE_URL", "no user or password"),
        ("x", Some("https://host/v1?key=1"), "LLM_BASE_URL", "without `?`"),
    ] {
        let error = parse_model(model, base).expect_err(model);
        assert_eq!(error.key, key, "{model}");
        assert!(error.problem.contains(says), "{model}: {error}");
    }
}

#[test]
fn routed_models_get_their_makers_quirks() {
    let claude = parse("openrouter/anthropic/claude-sonnet-4", None).quirks();
    assert!(claude.cache_marks && claude.echo == Echo::Details);
    assert!(!parse("openrouter/openai/gpt-5", None).quirks().cache_marks);
    assert_eq!(parse("openrouter/mistralai/devstral", None).quirks().call_ids, CallIds::Nine);
    assert!(parse("gemini/gemini-3-pro", None).quirks().placeholder_signature);
    assert!(!parse("gemini/gemini-2.5-pro", None).quirks().placeholder_signature);
}

#[test]
fn windows_and_eyes() {
    let claude = parse("openrouter/anthropic/claude-sonnet-4", None);
    assert_eq!((claude.window().tokens, claude.vision()), (200_000, true));
    let local = parse("ollama/qwen3:8b", None);
    assert_eq!((local.window().tokens, local.vision()), (LOCAL_WINDOW, false));
    assert!(parse("dashscope/qwen3-vl-plus", None).vision());
    assert!(parse("ollama/qwen2.5vl:7b", None).vision());
    assert!(parse("x", Some("http://[::1]:9/v1")).is_loopback());
}

#[test]
fn known_families_keep_their_window_wherever_they_are_served() {
    for (model, tokens) in [
        ("claude-sonnet-4-20250514", 200_000),
        ("openai/claude-sonnet-4", 200_000),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", 200_000),
        ("hosted_vllm/Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8", 262_144),
        ("openai/my-gpt-4o", 128_000),
        ("gpt-4", 8192),
        ("bartowski_Meta-Llama-3.1-8B-Instruct-GGUF", 131_072),
        ("accounts/fireworks/models/kimi-k2-instruct-0905", 262_144),
        ("deepseek/deepseek-chat", 128_000),
        ("microsoft/Phi-3-mini-4k-instruct", 4096),
        ("moonshot-v1-8k", 8192),
        ("moonshot-v1-auto", 131_072),
        ("glm-4-9b-chat-1m", 1_000_000),
        ("01-ai/Yi-34B-200K", 200_000),
        ("gpt-3.5-turbo-16k", 16_384),
        ("llama3", 8192),
        ("llama3.1:8b", 131_072),
        ("gemma:7b", 8192),
        ("unsloth/gemma-3-4b-it-Q4_K_M.gguf", 128_000),
        ("amazon.nova-pro-v1:0", 300_000),
        ("ibm-granite/granite-3.3-8b-instruct", 131_072),
    ] {
        let window = parse(model, Some("http://10.0.0.2:8000/v1")).window();
        assert_eq!(window, Window { tokens, source: WindowSource::Name }, "{model}");
    }
    for model in ["scripted", "foo3-large", "a-model", "smollm-135m", "supernova-lite"] {
        let window = parse(model, Some("http://10.0.0.2:8000/v1")).window();
        assert_eq!(window, Window { tokens: LOCAL_WINDOW, source: WindowSource::Guess }, "{model}");
    }
}

#[test]
fn who_is_asked_for_the_window() {
    for (model, base, asking) in [
        ("openrouter/x/y", None, Asking::OpenRouter),
        ("ollama/qwen3:8b", Some("http://10.0.0.2:11434"), Asking::Ollama),
        ("anthropic/claude-sonnet-4", None, Asking::Nobody),
        ("anthropic/claude-sonnet-4", Some("https://proxy.example/v1"), Asking::Anything),
        ("openai/x", Some("http://10.0.0.2:8000/v1"), Asking::Anything),
    ] {
        assert_eq!(parse(model, base).asking(), asking, "{model}");
    }
}

#[test]
fn a_name_that_an_endpoint_knows_is_sent_as_it_is() {
    for (name, base_url) in [
        ("openai/gpt-oss-120b", "https://api.groq.com/openai/v1"),
        ("meta-llama/llama-3.3-70b-instruct:free", "https://openrouter.ai/api/v1/"),
        ("gpt-5", "https://api.openai.com/v1"),
        ("qwen3", "http://127.0.0.1:8080/v1"),
    ] {
        let endpoint = parse_model(&model_string(name, base_url), Some(base_url)).unwrap();
        assert_eq!((endpoint.model(), endpoint.base_url()), (name, base_url.trim_end_matches('/')));
    }
    assert_eq!(model_string("a/b", "https://openrouter.ai/api/v1"), "openrouter/a/b");
}
