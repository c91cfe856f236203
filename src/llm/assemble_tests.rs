//! Tests of how pieces of calls are joined; whole streams are in `tests/llm/providers.rs`.

use serde_json::{Value, json};

use super::{
    super::{
        calls::MAX_CALLS,
        message::{Chunk, Completion, Finish},
        providers::Echo,
        wire::StreamChunk,
    },
    Assembler, MAX_TEXT,
};

fn chunk(value: Value) -> StreamChunk {
    StreamChunk::from(value)
}

fn assemble(chunks: Vec<Value>) -> (Completion, Vec<Chunk>) {
    let mut shown = Vec::new();
    let mut answer = Assembler::new(Echo::Nothing);
    for value in chunks {
        answer.push(chunk(value), &mut |chunk| shown.push(chunk)).expect("no error in the stream");
    }
    (answer.finish(true, "m").expect("an answer"), shown)
}

/// Returns the calls as (name, arguments) from a list of call deltas, one chunk each.
fn calls(deltas: Vec<Value>) -> Vec<(String, String)> {
    let chunks = deltas.into_iter().map(|delta| json!({"choices": [{"delta": {"tool_calls": [delta]}}]})).collect();
    let (completion, _) = assemble(chunks);
    let ids: std::collections::HashSet<_> = completion.message.calls.iter().map(|call| call.id.clone()).collect();
    assert_eq!(ids.len(), completion.message.calls.len(), "ids are unique and there");
    completion.message.calls.into_iter().map(|call| (call.name, call.arguments)).collect()
}

fn two() -> Vec<(String, String)> {
    vec![("a".to_owned(), r#"{"x":1}"#.to_owned()), ("a".to_owned(), r#"{"x":2}"#.to_owned())]
}

#[test]
fn two_calls_of_one_tool_however_they_are_told_apart() {
    let full = |index: Option<u64>, id: &str, arguments: &str| json!({"index": index, "id": id, "function": {"name": "a", "arguments": arguments}});
    let piece = |index: Option<u64>, arguments: &str| json!({"index": index, "function": {"arguments": arguments}});
    let (one, other) = (r#"{"x":1}"#, r#"{"x":2}"#);
    // By index, as published, interleaved.
    assert_eq!(
        calls(vec![
            full(Some(0), "i", "{\"x\""),
            full(Some(1), "j", "{\"x\""),
            piece(Some(0), ":1}"),
            piece(Some(1), ":2}")
        ]),
        two()
    );
    // The same index for all, ids differ.
    assert_eq!(calls(vec![full(Some(0), "i", one), full(Some(0), "j", other)]), two());
    // The same index for all, no ids.
    assert_eq!(calls(vec![full(Some(0), "", one), full(Some(0), "", other)]), two());
    // No index; ids.
    assert_eq!(
        calls(vec![full(None, "i", "{\"x\""), piece(None, ":1}"), full(None, "j", "{\"x\""), piece(None, ":2}")]),
        two()
    );
    // Neither index nor id.
    assert_eq!(calls(vec![full(None, "", one), full(None, "", other)]), two());
    // The same id twice (the second gets its own).
    assert_eq!(calls(vec![full(Some(0), "i", one), full(Some(1), "i", other)]), two());
}

#[test]
fn one_call_however_its_pieces_are_labelled() {
    let one = vec![("run".to_owned(), r#"{"x":1}"#.to_owned())];
    let piece = |id: Value, name: Value, arguments: &str| json!({"index": 0, "id": id, "function": {"name": name, "arguments": arguments}});
    // Id and name in every piece.
    assert_eq!(calls(vec![piece(json!("i"), json!("run"), "{\"x\""), piece(json!("i"), json!("run"), ":1}")]), one);
    // Empty strings and nulls instead of absence.
    assert_eq!(
        calls(vec![
            piece(json!("i"), json!("run"), ""),
            piece(json!(""), json!(""), "{\"x\""),
            piece(json!(null), json!(null), ":1}")
        ]),
        one
    );
    // A new id with every piece, the name once.
    assert_eq!(calls(vec![piece(json!("i"), json!("run"), "{\"x\""), piece(json!("j"), json!(null), ":1}")]), one);
    // The name in pieces.
    assert_eq!(
        calls(vec![
            piece(json!("i"), json!("ru"), ""),
            piece(json!("i"), json!("n"), ""),
            piece(json!("i"), json!(""), "{\"x\":1}")
        ]),
        one
    );
    // Arguments as an object.
    assert_eq!(calls(vec![json!({"function": {"name": "run", "arguments": {"x": 1}}})]), one);
}

#[test]
fn of_two_ends_the_one_that_says_more_counts() {
    let end = |reason: &str| json!({"choices": [{"delta": {"content": "x"}, "finish_reason": reason}]});
    assert_eq!(assemble(vec![end("stop"), end("length")]).0.finish, Finish::Length);
    assert_eq!(assemble(vec![end("MAX_TOKENS"), end("stop")]).0.finish, Finish::Length);
    assert_eq!(assemble(vec![end("content_filter"), end("")]).0.finish, Finish::Filtered);
}

#[test]
fn too_many_calls_and_too_long_ones_are_cut_off() {
    let many = (0..=MAX_CALLS).map(|index| json!({"choices": [{"delta": {"tool_calls": [{"index": index, "function": {"name": "a", "arguments": "{}"}}]}}]}));
    let (completion, _) = assemble(many.collect());
    assert_eq!((completion.message.calls.len(), completion.finish), (MAX_CALLS, Finish::Length));

    let long = "x".repeat(100_000);
    let pieces = (0..12).map(|_| json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "a", "arguments": long}}]}}]}));
    let (completion, _) = assemble(pieces.collect());
    assert_eq!(completion.finish, Finish::Length);
    assert!(completion.message.calls[0].arguments.len() <= 1024 * 1024);
}

#[test]
fn a_megabyte_of_one_token_is_cut_off() {
    let text = "ä".repeat(500);
    let pieces = (0..1100).map(|_| json!({"choices": [{"delta": {"content": text}}]}));
    let (completion, shown) = assemble(pieces.collect());
    assert_eq!(completion.finish, Finish::Length);
    assert_eq!(completion.message.text.len(), MAX_TEXT);
    let shown: usize = shown.iter().map(|chunk| if let Chunk::Text(text) = chunk { text.len() } else { 0 }).sum();
    assert_eq!(shown, MAX_TEXT);
}

#[test]
fn garbage_of_any_shape_breaks_nothing() {
    use proptest::{prelude::*, test_runner::TestRunner};
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z{}\"<>/]{0,8}".prop_map(Value::from),
    ];
    let keys = "choices|delta|content|tool_calls|index|id|function|name|arguments|finish_reason|usage|reasoning_details|type|text";
    let tree = leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(keys, inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let chunks = prop::collection::vec(tree.prop_map(|inner| json!({"choices": [{"delta": inner}]})), 0..6);
    TestRunner::default()
        .run(&chunks, |chunks| {
            let mut answer = Assembler::new(Echo::Details);
            for value in chunks {
                let _ = answer.push(chunk(value), &mut |_| {});
            }
            let _ = answer.finish(true, "m");
            Ok(())
        })
        .expect("no panic");
}
