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

#[tokio::test]
async fn arguments_that_come_whole_with_each_piece_or_after_the_pieces_are_taken_once() {
    let delta = |call: Value| json!({"index": 0, "delta": {"tool_calls": call}});
    let piece =
        |arguments: &str| delta(json!([{"index": 0, "function": {"name": "run_command", "arguments": arguments}}]));
    let ls = r#"{"command":"ls"}"#;
    for pieces in [vec![&ls[..5], &ls[..12], ls], vec![&ls[..9], ls], vec!["", &ls[..1], ls]] {
        let pieces: Vec<_> = pieces.into_iter().map(piece).collect();
        assert_eq!(calls(&read(&pieces).await.0), [("run_command", ls)], "{pieces:?}");
    }
    // What only looks like it is left as it came.
    for odd in [vec![r#"{"a":"#, r#"{"b":1}"#], vec![r#"{"a":1"#, r#"{"a":2}"#, "x"]] {
        let whole = odd.concat();
        let pieces: Vec<_> = odd.into_iter().map(piece).collect();
        assert_eq!(calls(&read(&pieces).await.0), [("run_command", whole.as_str())]);
    }
    // The same calls again as it ends, under another id.
    let again = json!({"index": 0, "delta": {"content": "I look.", "tool_calls": [{"id": "z", "function": {"name": "run_command", "arguments": ls}}]}, "finish_reason": "tool_calls"});
    let first = delta(json!([{"index": 0, "id": "c", "function": {"name": "run_command", "arguments": ls}}]));
    let (completion, shown) = read(&[say("I "), say("look."), first, again]).await;
    assert_eq!((calls(&completion), shown.as_str()), (vec![("run_command", ls)], "I look."));
    let whole = "The answer to your question is that all is well.";
    let end = json!({"index": 0, "delta": {}, "finish_reason": "stop"});
    assert_eq!(read(&[say(&whole[..20]), say(&whole[20..]), say(whole), end]).await.1, whole, "again before the end");
}

#[tokio::test]
async fn calls_are_found_wherever_servers_put_them() {
    let ls = r#"{"command":"ls"}"#;
    let function = json!({"name": "run_command", "arguments": ls});
    for delta in [
        json!({"function_call": function}),
        json!({"tool_calls": {"index": 0, "id": "c", "function": function}}),
        json!({"tool_calls": [null, {"index": 0, "id": "c", "function": function}]}),
        json!({"tool_calls": [{"index": 0, "id": "c", "name": "run_command", "arguments": ls}]}),
        json!({"tool_calls": [{"index": 0, "id": "c", "function": "run_command", "arguments": ls}]}),
        json!({"tool_calls": [{"index": 0, "function": {"name": "run_command", "parameters": {"command": "ls"}}}]}),
        json!({"tool_calls": [{"index": "0", "id": 7, "function": function}, {}]}),
        json!({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "multi_tool_use.parallel", "arguments":
            json!({"tool_uses": [{"recipient_name": "functions.run_command", "parameters": {"command": "ls"}}]}).to_string()}}]}),
    ] {
        for index in [0, 1] {
            let choice = json!({"index": index, "delta": delta, "finish_reason": "tool_calls"});
            let (completion, _) = read(&[choice]).await;
            let found = calls(&completion);
            let named: Vec<_> = found.iter().map(|(name, _)| matrix_agent::tools::read_call(name, "{}").tool).collect();
            assert_eq!((named, found[0].1), (vec![Some("run_command")], ls), "{delta}");
        }
    }
    let text = json!({"index": 0, "delta": {"content": {"type": "text", "text": "Hi"}}});
    assert_eq!(read(&[text]).await.1, "Hi");
    let thought = json!({"index": 0, "delta": {"thinking": "It is 42."}});
    assert_eq!(read(&[thought]).await.0.reasoning, "It is 42.");
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
