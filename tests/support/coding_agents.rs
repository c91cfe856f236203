//! Which part of the program, and which coding CLI, asks the scripted model, and how far it has come.

use std::collections::HashSet;

use serde_json::Value;

use super::{replies::Reply, scripted_llm::results};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Orchestrator,
    Gemini,
    Qwen,
    /// A request of a CLI beside its work, without tools.
    Aside,
}

pub fn who(request: &Value) -> Who {
    let gemini = request.get("contents").is_some();
    let tools = request["tools"].to_string();
    match tools.as_str() {
        "null" | "[]" => Who::Aside,
        tools if tools.contains("\"run_command\"") => Who::Orchestrator,
        _ if gemini => Who::Gemini,
        _ => Who::Qwen,
    }
}

/// How many calls of a CLI have been answered.
pub fn answered(request: &Value) -> usize {
    let each = |name: &str| request[name].as_array().into_iter().flatten();
    let parts = each("contents").flat_map(|content| content["parts"].as_array().into_iter().flatten());
    // Gemini CLI tells an answer twice in a session that it goes on with.
    let ids: HashSet<_> = parts.filter_map(|part| part["functionResponse"]["id"].as_str()).collect();
    ids.len() + each("messages").filter(|message| message["role"] == "tool").count()
}

pub fn aside(request: &Value) -> Reply {
    if request.get("contents").is_some() { Reply::gemini_text("{}") } else { Reply::text("{}") }
}

/// The orchestrator makes these calls one after the other, then says "Done."
pub fn steps(request: &Value, steps: &[(&'static str, Value)]) -> Reply {
    match steps.get(results(request).len()) {
        Some((name, arguments)) => Reply::calls(&[(name, arguments.clone())]),
        None => Reply::text("Done."),
    }
}
