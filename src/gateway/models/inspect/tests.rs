//! What passes, what does not, and why: bodies as the coding agents send them, each with one thing changed.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    names::{CHAT_WEB_TOOLS, GEMINI_WEB_TOOLS},
    *,
};

fn chat(change: impl FnOnce(&mut Value)) -> Result<Option<String>, Refusal> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hello https://a.org"}]});
    change(&mut body);
    read(Protocol::OpenAi, body.to_string().as_bytes(), false).map(|asked| asked.model)
}

fn gemini(change: impl FnOnce(&mut Value)) -> Result<Option<String>, Refusal> {
    let mut body = json!({"contents": [{"role": "user", "parts": [{"text": "hello https://a.org"}]}]});
    change(&mut body);
    read(Protocol::Gemini, body.to_string().as_bytes(), false).map(|asked| asked.model)
}

fn responses(change: impl FnOnce(&mut Value)) -> Result<Option<String>, Refusal> {
    let mut body = json!({"model": "m", "stream": true, "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "https://a.org"}]},
        {"type": "function_call", "name": "f", "arguments": "{\"url\":\"https://a.org\"}", "call_id": "1"},
        {"type": "function_call_output", "call_id": "1", "output": "https://a.org"},
        {"type": "reasoning", "summary": [], "encrypted_content": "x", "id": "r"},
    ], "tools": [{"type": "function", "name": "f", "parameters": {"default": "https://a.org"}},
        {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "g"}]}]});
    change(&mut body);
    read(Protocol::Responses, body.to_string().as_bytes(), false).map(|asked| asked.model)
}

#[test]
fn responses_pass_but_for_what_the_provider_fetches_runs_or_has_kept() {
    assert_eq!(responses(|_| {}), Ok(Some("m".into())));
    let tool = |tool: Value| responses(|body| body["tools"][0] = tool);
    assert_eq!(tool(json!({"type": "web_search"})), Err(Refusal::Web("web_search".into())));
    for kind in ["mcp", "file_search", "image_generation", "computer_use_preview"] {
        assert_eq!(tool(json!({"type": kind})), Err(Refusal::Tool(kind.into())));
    }
    let hidden = json!({"type": "namespace", "name": "n", "tools": [{"type": "mcp", "server_url": "https://a.org"}]});
    assert_eq!(tool(hidden), Err(Refusal::Tool("mcp".into())));
    assert!(tool(json!({"name": "f"})).is_err());
    let item = |item: Value| responses(|body| body["input"][0] = item);
    assert_eq!(item(json!({"type": "item_reference", "id": "x"})), Err(Refusal::Tool("item_reference".into())));
    for part in [
        json!({"type": "input_image", "image_url": "https://a.org/x.png"}),
        json!({"type": "input_file", "file_url": "https://a.org/x.pdf"}),
    ] {
        let asked = json!({"type": "message", "role": "user", "content": [part]});
        assert_eq!(item(asked), Err(Refusal::RemoteUrl));
        let told = json!({"type": "function_call_output", "call_id": "1", "output": [part]});
        assert_eq!(item(told), Err(Refusal::RemoteUrl));
    }
    let picture =
        json!({"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA"}]});
    assert_eq!(item(picture), Ok(Some("m".into())));
    for field in ["previous_response_id", "conversation", "prompt", "background", "service_tier"] {
        assert_eq!(responses(|body| body[field] = json!("x")), Err(Refusal::Field(field.into())));
    }
    assert!(responses(|body| drop(body["input"].take())).is_ok(), "nothing is an empty list");
}

fn messages(change: impl FnOnce(&mut Value)) -> Result<Option<String>, Refusal> {
    let mut body = json!({"model": "m", "max_tokens": 9, "system": [{"type": "text", "text": "https://a.org"}],
        "thinking": {"type": "adaptive"}, "context_management": {"edits": []}, "messages": [
        {"role": "user", "content": "https://a.org"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "https://a.org", "signature": "s"},
            {"type": "tool_use", "id": "1", "name": "f", "input": {"source": "https://a.org"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "https://a.org"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}]},
    ], "tools": [{"name": "f", "input_schema": {"default": "https://a.org"}}, {"type": "custom", "name": "g"},
        {"type": "bash_20250124", "name": "bash"}]});
    change(&mut body);
    read(Protocol::Messages, body.to_string().as_bytes(), false).map(|asked| asked.model)
}

#[test]
fn messages_pass_but_for_what_the_provider_fetches_or_runs() {
    assert_eq!(messages(|_| {}), Ok(Some("m".into())));
    let away = json!({"type": "image", "source": {"type": "url", "url": "https://a.org/x.png"}});
    assert_eq!(messages(|body| body["messages"][0]["content"] = json!([away])), Err(Refusal::RemoteUrl));
    let within = json!([{"type": "tool_result", "tool_use_id": "1", "content": [away]}]);
    assert_eq!(messages(|body| body["messages"][2]["content"] = within), Err(Refusal::RemoteUrl));
    let tool = |kind: &str| messages(|body| body["tools"][0] = json!({"type": kind, "name": "t"}));
    for web in ["web_search_20250305", "web_fetch_20250910", "code_execution_20250825"] {
        assert_eq!(tool(web), Err(Refusal::Web(web.into())));
    }
    assert_eq!(tool("mcp_toolset"), Err(Refusal::Tool("mcp_toolset".into())));
    for field in ["mcp_servers", "container", "service_tier"] {
        assert_eq!(messages(|body| body[field] = json!([])), Err(Refusal::Field(field.into())));
    }
}

fn with_part(part: &Value) -> Result<Option<String>, Refusal> {
    chat(|body| body["messages"][0]["content"] = json!([{"type": "text", "text": "https://a.org"}, part]))
}

#[test]
fn what_coding_agents_send_passes() {
    let qwen = chat(|body| {
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
        body["tools"] =
            json!([{"type": "function", "function": {"name": "f", "parameters": {"url": "https://a.org"}}}]);
        body["messages"] = json!([
            {"role": "system", "content": [{"type": "text", "text": "be", "cache_control": {"type": "ephemeral"}}]},
            {"role": "assistant", "content": null, "reasoning_content": "https://a.org",
             "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"u\":\"https://a.org\"}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "https://a.org"},
        ]);
    });
    assert_eq!(qwen, Ok(Some("m".into())));
    let picture = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}});
    assert_eq!(with_part(&picture), Ok(Some("m".into())));
    let cli = gemini(|body| {
        body["systemInstruction"] = json!({"parts": [{"text": "be"}]});
        body["tools"] = json!([{"functionDeclarations": [{"name": "googleSearch"}]}]);
        body["generationConfig"] = json!({"temperature": 0});
        body["contents"][0]["parts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"functionCall": {"name": "f", "args": {"fileData": 1}}}));
        body["contents"][0]["parts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"functionResponse": {"name": "f", "response": {"fileData": 1}}}));
        body["contents"][0]["parts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}));
    });
    assert_eq!(cli, Ok(None));
    let counted = gemini(|body| *body = json!({"generateContentRequest": {"model": "models/m", "contents": []}}));
    assert_eq!(counted, Ok(Some("m".into())));
}

#[test]
fn what_bounds_the_answer_is_read_and_the_rest_is_the_providers_to_judge() {
    let answer = |protocol, body: Value| read(protocol, body.to_string().as_bytes(), false).unwrap().answer;
    let chat = |body| answer(Protocol::OpenAi, body);
    assert_eq!(chat(json!({"model": "m", "max_tokens": 100})), Some(100));
    assert_eq!(chat(json!({"model": "m", "max_completion_tokens": 7, "n": 3, "max_tokens": null})), Some(21));
    assert_eq!(chat(json!({"model": "m", "max_tokens": u64::MAX, "n": 2})), Some(u64::MAX));
    for other in [json!(-1), json!(1.5), json!("many"), json!([1])] {
        assert_eq!(chat(json!({"model": "m", "max_tokens": other, "n": 2})), None);
    }
    assert_eq!(answer(Protocol::Responses, json!({"model": "m", "max_output_tokens": 8})), Some(8));
    assert_eq!(answer(Protocol::Messages, json!({"model": "m", "max_tokens": 9})), Some(9));
    let gemini = |body| answer(Protocol::Gemini, body);
    assert_eq!(gemini(json!({"generationConfig": {"maxOutputTokens": 5, "candidateCount": 2, "x": 1}})), Some(10));
    assert_eq!(gemini(json!({"generation_config": {"max_output_tokens": 5}})), Some(5));
    assert_eq!(gemini(json!({"generationConfig": null})), None);
}

#[test]
fn what_the_provider_would_do_by_itself_is_refused_unless_the_web_is_open() {
    let web = |name: &str| Err(Refusal::Web(name.to_owned()));
    for field in CHAT_WEB_FIELDS {
        assert_eq!(chat(|body| body[field] = json!(true)), web(field));
    }
    for tool in CHAT_WEB_TOOLS {
        assert_eq!(chat(|body| body["tools"] = json!([{"type": tool}])), web(tool));
    }
    for tool in GEMINI_WEB_TOOLS {
        assert_eq!(gemini(|body| body["tools"] = json!([{"functionDeclarations": []}, {tool: {}}])), web(tool));
    }
    let nested = json!({"generateContentRequest": {"contents": [], "tools": [{"googleSearch": {}}]}});
    assert_eq!(gemini(|body| *body = nested), web("googleSearch"));
    let open = json!({"contents": [], "tools": [{"googleSearch": {}}]}).to_string();
    assert_eq!(read(Protocol::Gemini, open.as_bytes(), true), Ok(Asked::default()));
}

#[test]
fn remote_addresses_are_refused_wherever_a_provider_would_fetch_them() {
    for part in [
        json!({"type": "image_url", "image_url": {"url": "https://a.org/x.png"}}),
        json!({"type": "image_url", "image_url": "HTTP://a.org"}),
        json!({"type": "image_url", "image_url": {"url": "  https:a.org"}}),
        json!({"type": "image_url", "image_url": {"url": "//a.org/x"}}),
        json!({"type": "video_url", "video_url": {"url": "oss://b/x"}}),
        json!({"type": "video", "video": ["data:x", "https://a.org/1.png"]}),
        json!({"type": "file", "file": {"file_url": "file:///etc/passwd"}}),
        json!({"type": "input_audio", "input_audio": {"text": "http://169.254.169.254/"}}),
    ] {
        assert_eq!(with_part(&part), Err(Refusal::RemoteUrl), "{part}");
    }
    assert_eq!(chat(|body| body["messages"][0]["images"] = json!(["https://a.org"])), Err(Refusal::RemoteUrl));
    for name in ["fileData", "file_data"] {
        let part = json!({name: {"fileUri": "https://a.org"}});
        let within = json!({"functionResponse": {"name": "f", "response": {}, "parts": [part]}});
        for part in [part, within] {
            assert_eq!(
                gemini(|body| body["contents"][0]["parts"].as_array_mut().unwrap().push(part.clone())),
                Err(Refusal::RemoteUrl)
            );
            assert_eq!(gemini(|body| body["systemInstruction"] = json!({"parts": [part]})), Err(Refusal::RemoteUrl));
        }
    }
}

#[test]
fn unknown_fields_and_tools_are_refused_and_named() {
    for field in ["models", "plugins", "fallbacks", "Model", "preset", "service_tier"] {
        assert_eq!(chat(|body| body[field] = json!([])), Err(Refusal::Field(field.into())));
    }
    for field in ["cachedContent", "Contents", "serviceTier"] {
        assert_eq!(gemini(|body| body[field] = json!("x")), Err(Refusal::Field(field.into())));
    }
    assert_eq!(chat(|body| body["tools"] = json!([{"type": "mcp"}])), Err(Refusal::Tool("mcp".into())));
    assert_eq!(gemini(|body| body["tools"] = json!([{"mcpServers": []}])), Err(Refusal::Tool("mcpServers".into())));
}

#[test]
fn what_two_readers_could_take_in_two_ways_is_malformed() {
    for (protocol, body) in [
        (Protocol::OpenAi, r#"{"model":"a","model":"b"}"#),
        (Protocol::OpenAi, r#"{"model":"a","mod\u0065l":"a"}"#),
        (Protocol::OpenAi, r#"{"tools":[],"tools":[]}"#),
        (Protocol::OpenAi, r#"{"tools":[{"type":"function","type":"function"}]}"#),
        (Protocol::OpenAi, r#"{"tools":[{"function":{}}]}"#),
        (Protocol::OpenAi, r#"{"tools":{"type":"mcp"}}"#),
        (Protocol::OpenAi, r#"{"model":1}"#),
        (Protocol::OpenAi, r#"{"messages":["x"]}"#),
        (Protocol::OpenAi, "{} {}"),
        (Protocol::OpenAi, "[]"),
        (Protocol::OpenAi, ""),
        (Protocol::Gemini, r#"{"tools":{"googleSearch":{}}}"#),
        (Protocol::Gemini, r#"{"toolConfig":{},"tool_config":{}}"#),
        (Protocol::Gemini, r#"{"model":"models/../x"}"#),
        (Protocol::Gemini, r#"{"model":"a","generateContentRequest":{"model":"b"}}"#),
    ] {
        let found = read(protocol, body.as_bytes(), true);
        assert!(matches!(found, Err(Refusal::Malformed(_))), "{body}: {found:?}");
    }
    let broken = b"{\"messages\":[{\"role\":\"\xff\",\"content\":\"x\"}]}";
    assert!(matches!(read(Protocol::OpenAi, broken, true), Err(Refusal::Malformed(_))), "no text");
    let deep = format!("{{\"contents\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(read(Protocol::Gemini, deep.as_bytes(), true), Err(Refusal::Malformed(_))));
}

proptest! {
    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(Protocol::OpenAi, &bytes, false);
        let _ = read(Protocol::Gemini, &bytes, false);
    }

    #[test]
    fn an_address_is_found_however_deep_it_stands(depth in 1..60_usize, list: bool) {
        let mut value = json!("https://a.org/x");
        for _ in 0..depth {
            value = if list { json!([value]) } else { json!({"x": value}) };
        }
        // A list of texts is text; anything else may be fetched.
        let part = json!({"type": "file", "file": value});
        prop_assert_eq!(with_part(&part), Err(Refusal::RemoteUrl));
    }
}
