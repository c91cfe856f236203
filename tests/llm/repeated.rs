//! Streams that say things twice: the whole message at the end, arguments that begin with `{}`, the same piece again.

use matrix_agent::llm::{Chunk, Completion};
use serde_json::{Value, json};

use crate::asked::{calls, stream};

fn events(choices: &[Value]) -> String {
    let event = |choice: &Value| format!("data: {}\n\n", json!({"choices": [choice]}));
    choices.iter().map(event).collect::<String>() + "data: [DONE]\n\n"
}

async fn read(choices: &[Value]) -> (Completion, String) {
    let (completion, shown) = stream("x", &events(choices)).await;
    let text = shown.iter().filter_map(|chunk| if let Chunk::Text(text) = chunk { Some(text.as_str()) } else { None });
    let text = text.collect();
    (completion, text)
}

fn say(text: &str) -> Value {
    json!({"index": 0, "delta": {"content": text}})
}

#[tokio::test]
async fn a_whole_message_after_its_pieces_says_nothing_twice() {
    let whole = json!({"role": "assistant", "content": "I look into it."});
    for last in [
        json!({"index": 0, "message": whole, "finish_reason": "stop"}),
        json!({"index": 0, "delta": {}, "message": whole, "finish_reason": "stop"}),
        json!({"index": 0, "delta": {"content": ""}, "message": whole, "finish_reason": "stop"}),
        json!({"index": 0, "delta": {"content": null}, "message": {"content": "<think>hm</think>\nI look into it."}, "finish_reason": "stop"}),
        json!({"index": 0, "delta": whole, "finish_reason": "stop"}),
        json!({"index": 0, "delta": {}, "message": {"content": "Something else."}, "finish_reason": "stop"}),
    ] {
        let (completion, shown) = read(&[say("I look "), say("into "), say("it."), last.clone()]).await;
        assert_eq!(
            (completion.message.text.as_str(), shown.as_str()),
            ("I look into it.", "I look into it."),
            "{last}"
        );
    }
    // What the pieces lacked is taken, from a last message or from one that grows.
    let grows = |text: &str| json!({"index": 0, "message": {"content": text}});
    let (completion, shown) = read(&[say("I look "), grows("I look into it.")]).await;
    assert_eq!((completion.message.text.as_str(), shown.as_str()), ("I look into it.", "I look into it."));
    let (completion, _) = read(&[grows("I "), grows("I look "), grows("I look into it.")]).await;
    assert_eq!(completion.message.text, "I look into it.");
    // A word may well come twice.
    assert_eq!(read(&[say("ha "), say("ha "), say("ha ")]).await.0.message.text, "ha ha ha ");
}

#[tokio::test]
async fn whole_calls_after_their_pieces_are_the_same_calls() {
    let piece = |arguments: &str| json!({"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]}});
    let begin = json!({"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "run_command", "arguments": ""}}]}});
    let ls = r#"{"command":"ls"}"#;
    let whole = |id: &str| json!({"content": null, "tool_calls": [{"id": id, "type": "function", "function": {"name": "run_command", "arguments": ls}}]});
    for last in [
        json!({"index": 0, "message": whole("c"), "finish_reason": "tool_calls"}),
        json!({"index": 0, "message": whole(""), "finish_reason": "tool_calls"}),
        json!({"index": 0, "message": whole("other"), "delta": {}, "finish_reason": "tool_calls"}),
    ] {
        for pieces in [vec![piece(r#"{"command""#), piece(r#":"ls"}"#)], vec![piece("{}")], vec![]] {
            let all = [vec![begin.clone()], pieces.clone(), vec![last.clone()]].concat();
            assert_eq!(calls(&read(&all).await.0), [("run_command", ls)], "{pieces:?} {last}");
        }
    }
    // Calls that came in the whole message alone.
    let last = json!({"index": 0, "message": whole("c"), "finish_reason": "tool_calls"});
    let (completion, shown) = read(&[say("I look "), say("into it."), last]).await;
    assert_eq!((completion.message.text.as_str(), shown.as_str()), ("I look into it.", "I look into it."));
    assert_eq!(calls(&completion), [("run_command", ls)]);
}

#[tokio::test]
async fn a_call_that_is_announced_or_repeated_is_one_call() {
    let delta = |id: &str, name: Value, arguments: &str| json!({"index": 0, "delta": {"tool_calls": [{"index": 0, "id": id, "function": {"name": name, "arguments": arguments}}]}});
    let (run, none) = (json!("run_command"), Value::Null);
    let ls = r#"{"command":"ls"}"#;
    for pieces in [
        vec![delta("c", run.clone(), "{}"), delta("c", none.clone(), ls)],
        vec![
            delta("c", run.clone(), "{}"),
            delta("", run.clone(), r#"{"comm"#),
            delta("", run.clone(), r#"and":"ls"}"#),
        ],
        vec![delta("c", run.clone(), ls), delta("c", none.clone(), ls)],
        vec![delta("c", run.clone(), ls), delta("c", run.clone(), ls)],
        vec![delta("c", run.clone(), ls), delta("", run.clone(), ls)],
        vec![delta("", run.clone(), ls), delta("", run.clone(), ls)],
        vec![delta("c", json!("run_"), ""), delta("c", json!("run_command"), ls)],
    ] {
        let (completion, _) = read(&pieces).await;
        let found = calls(&completion);
        assert_eq!((found.len(), found[0].0), (1, "run_command"), "{pieces:?}: {found:?}");
        let call = matrix_agent::tools::read_call(found[0].0, found[0].1);
        assert_eq!((call.arguments.as_deref(), call.refusal), (Some(ls), None), "{pieces:?}");
    }
}

/// What is wrapped around reasoning counts like the reasoning: nobody may fill the memory with keys that we do not know.
#[tokio::test]
async fn unknown_keys_of_reasoning_count_against_its_bounds() {
    let blob = "x".repeat(100_000);
    for detail in [
        json!({"type": "reasoning.text", "text": "", "blob": blob}),
        json!({"type": "reasoning.x", "deep": [{"er": {"blob": [blob]}}]}),
        json!({"type": "reasoning.encrypted", blob.as_str(): 1}),
    ] {
        let choice = json!({"index": 0, "delta": {"reasoning_details": [detail]}});
        let (completion, _) = stream("openrouter/x/y", &events(&vec![choice; 60])).await;
        assert_eq!(completion.finish, matrix_agent::llm::Finish::Length);
        let kept = serde_json::to_string(&completion.message.echo).expect("JSON").len();
        assert!(kept < 1_200_000, "{kept} bytes are kept");
    }
    let extra = json!({"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "a", "arguments": "{}"}, "extra_content": {"x": "x".repeat(1 << 20)}}]}});
    let (completion, _) = stream("gemini/gemini-3-pro", &events(&vec![extra; 20])).await;
    assert_eq!(completion.finish, matrix_agent::llm::Finish::Length);
}
