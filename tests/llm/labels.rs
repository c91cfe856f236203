//! Labels that lie, and bytes that strict readers refuse: what came is told by its first bytes.

use matrix_agent::llm::LlmError;
use serde_json::json;

use crate::{
    asked::{complete, model},
    support::scripted_llm::{Reply, ScriptedLlm},
};

const LABELS: [&str; 6] = [
    "text/event-stream",
    "application/json",
    "text/plain",
    "application/octet-stream",
    "text/html; charset=utf-8",
    "x",
];

fn stream(pieces: &[&str], blank: &str) -> String {
    let delta =
        |piece: &&str| format!("data: {}{blank}", json!({"choices": [{"index": 0, "delta": {"content": piece}}]}));
    pieces.iter().map(delta).collect::<String>() + "data: [DONE]" + blank
}

async fn text(label: &'static str, body: impl Into<Vec<u8>>) -> Result<String, LlmError> {
    let llm = ScriptedLlm::start().await;
    let reply = Reply::labelled(label, body);
    llm.otherwise(move |_| reply.clone());
    complete(&model(&llm, "x")).await.0.map(|completion| completion.message.text)
}

#[tokio::test]
async fn a_label_changes_nothing() {
    let whole = json!({"object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi there."}, "finish_reason": "stop"}]});
    for label in LABELS {
        for body in [
            stream(&["Hi ", "there."], "\n\n"),
            stream(&["Hi ", "there."], "\r\n\r\n"),
            stream(&["Hi ", "there."], "\r\r"),
            stream(&["Hi ", "there."], "\n"),
            stream(&["Hi ", "there."], "\r"),
            format!("\u{feff}{}", stream(&["Hi ", "there."], "\n\n")),
            format!(": welcome\n\n{}", stream(&["Hi ", "there."], "\n\n")),
            whole.to_string(),
            format!("{whole:#}"),
            format!("\u{feff}{whole}"),
            format!("\r\n\r\n  {whole:#}\r\n"),
        ] {
            assert_eq!(text(label, body.clone()).await, Ok("Hi there.".to_owned()), "{label}: {body}");
        }
    }
}

#[tokio::test]
async fn an_errors_words_reach_the_person_whatever_it_is_labelled() {
    for label in LABELS {
        for body in [
            r#"{"error":{"message":"the model is being loaded","type":"server_error"}}"#,
            "{\n  \"error\": {\n    \"message\": \"the model is being loaded\"\n  }\n}\n",
            r#"{"error":"the model is being loaded"}"#,
            r#"[{"error":{"code":503,"message":"the model is being loaded"}}]"#,
            r#"{"object":"error","message":"the model is being loaded","code":50000}"#,
            r#"{"detail":"the model is being loaded"}"#,
            "\u{feff}{\"error\":{\"message\":\"the model is being loaded\"}}",
            "data: {\"error\":{\"message\":\"the model is being loaded\"}}\n",
            "event: error\r\ndata: {\"error\":{\"message\":\"the model is being loaded\"}}\r\n\r\n",
            "event: error\ndata: the model is being loaded\n\n",
            "error: the model is being loaded",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"I\"}}]}\n\n{\"error\":{\"message\":\"the model is being loaded\"}}",
        ] {
            let error = text(label, body).await.expect_err(body);
            assert!(error.user_text().contains("the model is being loaded"), "{label}: {body}: {error}");
        }
    }
}

#[tokio::test]
async fn the_words_of_a_refusal_are_read_from_events_too() {
    for body in ["data: {\"error\":{\"message\":\"no such thing\"}}\n\n", "\u{feff}{\"detail\":\"no such thing\"}"] {
        let llm = ScriptedLlm::start().await;
        llm.status(422, &[("content-type", "text/event-stream")], body);
        let error = complete(&model(&llm, "x")).await.0.expect_err("a refusal");
        assert!(error.user_text().ends_with("It said: “no such thing”"), "{error}");
    }
}

#[tokio::test]
async fn a_web_page_is_none_whatever_it_is_labelled() {
    for label in LABELS {
        for page in ["<html>login</html>", "\n<!DOCTYPE html><title>Log in</title>"] {
            assert_eq!(text(label, page).await, Err(LlmError::Garbled("a web page")), "{label}");
        }
    }
}

#[tokio::test]
async fn half_an_emoji_and_a_broken_byte_are_a_mark_in_the_text() {
    let event = |content: &[u8]| {
        [br#"data: {"choices":[{"index":0,"delta":{"content":""#, content, br#""}}]}"#, &b"\n\n"[..]].concat()
    };
    for (content, read) in [
        (&br"a\ud83d"[..], "a\u{fffd}"),
        (br"\ude00b", "\u{fffd}b"),
        (br"\ud83d\ude00", "\u{1f600}"),
        (br"\ud83dx\ud83d\ude00", "\u{fffd}x\u{1f600}"),
        (b"a\xffb", "a\u{fffd}b"),
        (b"\xf0\x9f\x98", "\u{fffd}"),
        (b"a\tb\x01c", "a\tb\u{1}c"),
    ] {
        let body = [event(content), b"data: [DONE]\n\n".to_vec()].concat();
        assert_eq!(text("text/event-stream", body).await.as_deref(), Ok(read), "{}", String::from_utf8_lossy(content));
        let whole = [br#"{"choices":[{"message":{"content":""#, content, br#""},"finish_reason":"stop"}]}"#].concat();
        assert_eq!(text("application/json", whole).await.as_deref(), Ok(read), "{}", String::from_utf8_lossy(content));
    }
}

/// Servers that stream by UTF-16 units or by bytes cut every other emoji.
#[tokio::test]
async fn a_character_that_is_cut_in_two_is_whole_again() {
    let event = |fields: &[u8]| [br#"data: {"choices":[{"index":0,"delta":{"#, fields, &b"}}]}\n\n"[..]].concat();
    let content = |text: &[u8]| event(&[br#""content":""#, text, b"\""].concat());
    let end = b"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n".to_vec();
    for (pieces, read) in [
        (vec![content(br"a \ud83d"), content(br"\ude00 b")], "a \u{1f600} b"),
        (vec![content(br"\ud83d"), content(br"\ude00\ud83d"), content(br"\ude01")], "\u{1f600}\u{1f601}"),
        (vec![content(b"x \xf0\x9f"), content(b"\x98\x80.")], "x \u{1f600}."),
        (vec![content(b"\xe2"), content(b"\x82"), content(b"\xac")], "\u{20ac}"),
        (
            vec![
                event(br#""content":"\ud83d","reasoning":"\ud83d""#),
                event(br#""content":"\ude00","reasoning":"\ude00""#),
            ],
            "\u{1f600}",
        ),
        (vec![content(br"a\ud83d"), content(b"b")], "a\u{fffd}b"),
        (vec![content(br"a\ud83d")], "a\u{fffd}"),
    ] {
        let body = [pieces.concat(), end.clone()].concat();
        assert_eq!(
            text("text/event-stream", body.clone()).await.as_deref(),
            Ok(read),
            "{}",
            String::from_utf8_lossy(&body)
        );
    }
    let call = |arguments: &[u8]| {
        event(&[br#""tool_calls":[{"index":0,"function":{"name":"a","arguments":""#, arguments, br#""}}]"#].concat())
    };
    let llm = ScriptedLlm::start().await;
    llm.reply(Reply::labelled("text/event-stream", [call(br#"{\"x\":\"\ud83d"#), call(br#"\ude00\"}"#), end].concat()));
    let (completion, _) = complete(&model(&llm, "x")).await;
    assert_eq!(crate::asked::calls(&completion.expect("an answer")), [("a", "{\"x\":\"\u{1f600}\"}")]);
}

#[tokio::test]
async fn words_reach_the_person_also_where_they_begin_like_json() {
    for body in [
        "[ERROR] the model is gone",
        "[2026-01-01 12:00:00] the model is gone",
        "{oops} the model is gone",
        "{'error': 'the model is gone'}",
        "data: Error: the model is gone\n\n",
        "data: [ERROR] the model is gone\n\n",
        "data: {'error': 'the model is gone'}\n\n",
        r#"{"choices":null,"base_resp":{"status_code":2062,"status_msg":"the model is gone"}}"#,
        r#"{"errorMessage":"the model is gone"}"#,
    ] {
        let error = text("text/event-stream", body).await.expect_err(body);
        assert!(error.user_text().contains("the model is gone"), "{body}: {error}");
    }
}

#[tokio::test]
async fn words_beside_an_answer_change_nothing_and_the_mark_of_the_end_is_read_as_it_is_written() {
    let hi = |end: &str| {
        format!(
            "data: ping\n\n{}data: [loading]\n\n{end}\n\n",
            "data: {\"logprobs\":NaN,\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\n"
        )
    };
    for end in ["data: [DONE]", "data: [done]", "[DONE]", "data:[Done]"] {
        assert_eq!(text("text/event-stream", hi(end)).await.as_deref(), Ok("Hi"), "{end}");
    }
}
