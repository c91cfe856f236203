//! A request at the door to models: what is let through leads to one of the open addresses, names the model that it is taken
//! for, and lets no provider reach into the web.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matrix_agent::gateway::{head, models::admits};
use serde_json::Value;

/// What would let a provider reach into the web or run code, in the names that providers have for it.
const WEB: [&str; 10] = [
    "codeExecution", "code_execution", "enable_search", "googleSearch", "google_search", "search_options",
    "search_parameters", "urlContext", "url_context", "web_search_options",
];

fuzz_target!(|bytes: &[u8]| {
    let Some(end) = head::end(bytes, 0) else { return };
    let Ok(head) = head::parse(&bytes[..end]) else { return };
    let body = &bytes[end..];
    let Ok((path, model)) = admits(&head, body, false) else { return };
    assert_eq!(admits(&head, body, true), Ok((path.clone(), model.clone())), "what is let through is let through");

    let rest = path.strip_prefix("/v1beta/models/");
    let plain = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:?=".contains(&byte));
    let open = ["/models", "/v1beta/models", "/chat/completions", "/responses", "/messages", "/messages/count_tokens"];
    let open = open.contains(&path.as_str());
    assert!(open || rest.is_some_and(|rest| plain(rest) && !rest.starts_with('.')), "{path}");
    let Some(model) = model else { return };
    // Whoever reads the body with another reader sees the same.
    let body = std::str::from_utf8(body).expect("what is let through is text");
    // Half of a surrogate pair is JSON, but no text of ours.
    let Ok(body) = serde_json::from_str::<Value>(body) else { return };
    match rest {
        Some(rest) => assert!(rest.starts_with(&format!("{model}:"))),
        None => assert_eq!(body["model"], model.as_str()),
    }
    let tools = body["tools"].as_array().into_iter().flatten();
    for part in tools.chain([&body]) {
        assert!(WEB.iter().all(|name| part.get(name).is_none()), "{part}");
    }
});
