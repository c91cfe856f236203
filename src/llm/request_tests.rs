//! What each provider is sent, as snapshots of whole bodies.

use serde_json::{Value, json};

use super::{
    super::{
        endpoint::parse_model,
        message::{AssistantMessage, Message, Part, ToolCall, ToolSpec},
    },
    build,
};

fn user(text: &str) -> Message {
    Message::User { parts: vec![Part::Text { text: text.to_owned() }] }
}

fn result(call_id: &str, text: &str) -> Message {
    Message::Tool { call_id: call_id.to_owned(), text: text.to_owned() }
}

fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
    ToolCall { id: id.to_owned(), name: name.to_owned(), arguments: arguments.to_owned(), extra: None }
}

fn tool() -> ToolSpec {
    ToolSpec {
        name: "run_command",
        description: "Runs a command.".to_owned(),
        parameters: json!({"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}),
    }
}

/// Returns a conversation with something for every quirk, written by the model that is asked.
fn conversation(model: &str) -> Vec<Message> {
    let echo = json!({
        "reasoning_content": "thinking",
        "reasoning_details": [{"type": "reasoning.text", "text": "thinking", "signature": "sig"}],
    });
    let mut first = call("functions.run_command:0", "run_command", r#"{"command":"ls"}"#);
    first.extra = Some(json!({"google": {"thought_signature": "real"}}));
    vec![
        Message::System { text: "Be brief.".to_owned() },
        user("list"),
        Message::Assistant(AssistantMessage {
            text: String::new(),
            calls: vec![first, call("b", "odd name!", "{broken")],
            echo: echo.as_object().cloned().unwrap_or_default(),
            model: model.to_owned(),
        }),
        result("functions.run_command:0", "a.txt"),
        Message::User {
            parts: vec![
                Part::Text { text: "the screenshot".to_owned() },
                Part::Image { mime: "image/png".to_owned(), data: "AAAA".to_owned() },
            ],
        },
        result("b", "no such tool"),
    ]
}

fn body(model: &str, base: Option<&str>, messages: &[Message], tools: &[ToolSpec]) -> Value {
    let endpoint = parse_model(model, base).expect("a good model string");
    let request = build(&endpoint, endpoint.vision(), messages, tools, Some(1000));
    serde_json::to_value(&request).expect("a body")
}

#[test]
fn each_provider_gets_its_dialect() {
    let mut settings = insta::Settings::clone_current();
    settings.set_sort_maps(true);
    let _sorted = settings.bind_to_scope();
    for (name, model) in [
        ("openai", "openai/gpt-5"),
        ("anthropic", "anthropic/claude-sonnet-4-5"),
        ("openrouter_claude", "openrouter/anthropic/claude-sonnet-4"),
        ("gemini", "gemini/gemini-3-pro"),
        ("dashscope", "dashscope/qwen3-coder-plus"),
        ("deepseek", "deepseek/deepseek-chat"),
        ("mistral", "mistral/mistral-large-latest"),
        ("ollama", "ollama/qwen3:8b"),
        ("llama_cpp", "llama-cpp/any"),
    ] {
        insta::assert_json_snapshot!(name, body(model, None, &conversation(model), &[tool()]));
    }
    let plain = body("whatever", Some("http://127.0.0.1:1/v1"), &conversation("whatever"), &[tool()]);
    insta::assert_json_snapshot!("unknown_server", plain);
}

#[test]
fn another_models_reasoning_is_not_sent() {
    for model in ["openrouter/anthropic/claude-sonnet-4", "deepseek/deepseek-chat", "gemini/gemini-3-pro"] {
        let text = body(model, None, &conversation("another/model"), &[]).to_string();
        assert!(!text.contains("thinking") && !text.contains("real"), "{model}: {text}");
    }
    // A required field is there even so.
    let deepseek = body("deepseek/deepseek-chat", None, &conversation("another/model"), &[]);
    assert_eq!(deepseek["messages"][2]["reasoning_content"], "");
    let gemini = body("gemini/gemini-3-pro", None, &conversation("another/model"), &[]);
    let signature = "/messages/2/tool_calls/0/extra_content/google/thought_signature";
    assert_eq!(gemini.pointer(signature), Some(&json!("skip_thought_signature_validator")));
}

#[test]
fn no_tools_no_field() {
    assert_eq!(body("dashscope/qwen3-max", None, &[user("x")], &[]).get("tools"), None);
    assert_eq!(body("dashscope/qwen3-max", None, &[user("x")], &[]).get("parallel_tool_calls"), None);
}

#[test]
fn calls_without_tools_get_one_that_stands_for_none_where_that_is_demanded() {
    for (model, wanted) in [("anthropic/x", true), ("openrouter/anthropic/x", true), ("openai/gpt-5", false)] {
        let with_calls = body(model, None, &conversation(model), &[]);
        assert_eq!(
            with_calls.pointer("/tools/0/function/name").is_some_and(|name| name == "no_tool"),
            wanted,
            "{model}"
        );
        assert_eq!(body(model, None, &[user("x")], &[]).get("tools"), None, "{model}");
    }
}

#[test]
fn every_call_is_answered_once_and_nothing_else_is() {
    let assistant = |calls| Message::Assistant(AssistantMessage { calls, ..AssistantMessage::default() });
    let messages = [
        result("stray", "nobody asked"),
        user("a"),
        assistant(vec![call("1", "t", "{}"), call("2", "t", "{}"), call("2", "t", "{}")]),
        result("2", "two"),
        result("2", "two again"),
        result("2", "two once more"),
        result("9", "stray"),
        assistant(vec![]),
        user("b"),
        user("c"),
    ];
    let body = body("openai/gpt-5", None, &messages, &[]);
    let said: Vec<_> =
        body["messages"].as_array().into_iter().flatten().map(|m| (m["role"].clone(), m["content"].clone())).collect();
    assert_eq!(
        said,
        [
            (json!("user"), json!("a")),
            (json!("assistant"), json!(null)),
            (json!("tool"), json!("No result was recorded for this call.")),
            (json!("tool"), json!("two")),
            (json!("tool"), json!("two again")),
            (json!("user"), json!([{"type": "text", "text": "b"}, {"type": "text", "text": "c"}])),
        ]
    );
}

#[test]
fn ids_pair_after_they_were_made_anew() {
    for model in ["mistral/x", "anthropic/x", "openai/x"] {
        let long = "x:".repeat(50);
        let messages = [
            Message::Assistant(AssistantMessage { calls: vec![call(&long, "t", "{}")], ..AssistantMessage::default() }),
            result(&long, "r"),
        ];
        let body = body(model, None, &messages, &[]);
        let id = body["messages"][0]["tool_calls"][0]["id"].as_str().expect("an id");
        assert_eq!(body["messages"][1]["tool_call_id"], id);
        let wanted = if model.starts_with("mistral") { 9..=9 } else { 10..=40 };
        assert!(
            wanted.contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
            "{model}: {id}"
        );
    }
}

#[test]
fn cache_marks_stand_where_the_last_request_ended_and_never_on_more_than_four() {
    let model = "dashscope/qwen3-max";
    let mut messages = vec![Message::System { text: "s".to_owned() }, user("1")];
    let marks = |messages: &[Message]| -> Vec<usize> {
        let body = body(model, None, messages, &[]);
        let list = body["messages"].as_array().cloned().unwrap_or_default();
        (0..list.len()).filter(|at| list[*at].to_string().contains("cache_control")).collect()
    };
    assert_eq!(marks(&messages), [0, 1]);
    for turn in 0..20 {
        let last = marks(&messages).pop().expect("a mark");
        let id = format!("call{turn}");
        messages.push(Message::Assistant(AssistantMessage {
            calls: vec![call(&id, "t", "{}")],
            ..AssistantMessage::default()
        }));
        messages.push(result(&id, "r"));
        let now = marks(&messages);
        assert!(now.contains(&last) && now.len() <= 4, "{now:?}");
    }
}

#[test]
fn a_model_without_eyes_is_told_of_the_picture() {
    let picture = Message::User { parts: vec![Part::Image { mime: "image/png".to_owned(), data: "AAAA".to_owned() }] };
    let body = body("deepseek/deepseek-chat", None, &[picture], &[]);
    assert_eq!(body["messages"][0]["content"], "[a picture, which this model cannot see]");
}
