//! Each provider's stream as recorded.

use matrix_agent::llm::{Chunk, Finish, LlmError, Message, Meter, Usage};
use serde_json::{Value, json};

use crate::{
    asked::{ask, calls, complete, model, stream},
    support::scripted_llm::ScriptedLlm,
};

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
    model.complete(&messages, &[], None, &Meter::new(0), &mut |_| {}).await.expect("an answer");
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
    model.complete(&messages, &[], None, &Meter::new(0), &mut |_| {}).await.expect("an answer");
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
