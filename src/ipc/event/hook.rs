//! Turns the payload of a coding agent's hook into the one line that a room may see: which agent, which tool, which
//! file. Pure. No field of a payload is required: what is missing or of another type is left out.

use serde_json::{Map, Value};

use super::{Event, Kind};
use crate::text;

/// The most characters of a part of a line: a path, a command, an error.
const PART: usize = 120;
/// The most tools of a batch that are named.
const BATCH: usize = 4;

/// The fields of a tool's input that best tell what it works on, in this order.
const TELLING: [&str; 10] =
    ["file_path", "absolute_path", "path", "dir_path", "command", "pattern", "query", "url", "description", "prompt"];

/// The directory in which an agent works, which is left out of paths.
const WORKSPACE: &str = "/workspace/";

/// Returns the event for the hook `name` of `agent`.
pub(super) fn event(agent: &str, name: &str, payload: &Map<String, Value>) -> Event {
    let said = |key: &str| said(payload.get(key));
    let (kind, line) = match name {
        "BeforeTool" | "PreToolUse" => (Kind::News, format!("{agent} ▸ {}", call(payload))),
        "AfterTool" | "PostToolUse" => match error(payload.get("tool_response")) {
            Some(error) => (Kind::News, format!("{agent} ✗ {}: {error}", call(payload))),
            None => (Kind::News, format!("{agent} ✓ {}", call(payload))),
        },
        "PostToolUseFailure" => {
            let why = said("error").map(|error| format!(": {error}")).unwrap_or_default();
            (Kind::News, format!("{agent} ✗ {}{why}", call(payload)))
        }
        "PostToolBatch" => (Kind::Detail, format!("{agent} ✓ {}", batch(payload))),
        "BeforeAgent" | "UserPromptSubmit" => {
            (Kind::Detail, format!("{agent} ▸ {}", said("prompt").unwrap_or_else(|| "begins".to_owned())))
        }
        "AfterAgent" | "Stop" | "StopFailure" => (Kind::News, finished(agent, name, payload)),
        "MessageDisplay" => {
            (Kind::News, said("displayed_text").map(|text| format!("{agent}: {text}")).unwrap_or_default())
        }
        "SubagentStart" => (Kind::News, format!("{agent} ▸ {}", subagent(payload))),
        "SubagentStop" => (Kind::News, format!("{agent} ✓ {}", subagent(payload))),
        "SessionStart" => {
            let model = said("model").map(|model| format!(" with {model}")).unwrap_or_default();
            (Kind::News, format!("{agent} started{model}"))
        }
        "SessionEnd" => (Kind::News, format!("{agent} ended")),
        "Notification" => {
            let typ = said("notification_type").map(|typ| format!(" [{typ}]")).unwrap_or_default();
            let message = said("message").unwrap_or_else(|| "needs attention".to_owned());
            // A successful login is not worth showing.
            let kind = if typ == " [auth_success]" { Kind::Detail } else { Kind::News };
            (kind, format!("⚠️ {agent}{typ}: {message}"))
        }
        other => (Kind::Detail, format!("{agent}: {other}")),
    };
    Event { kind, line }
}

/// Returns whether a hook says that a run has ended.
pub(super) fn is_end(name: &str) -> bool {
    matches!(name, "AfterAgent" | "Stop" | "StopFailure")
}

/// Returns a tool with what it works on.
fn call(payload: &Map<String, Value>) -> String {
    let tool = said(payload.get("tool_name")).unwrap_or_else(|| "a tool".to_owned());
    let input = payload.get("tool_input").and_then(Value::as_object);
    let what = input.and_then(|input| TELLING.iter().find_map(|key| said(input.get(*key))));
    what.map_or(tool.clone(), |what| format!("{tool} {}", what.strip_prefix(WORKSPACE).unwrap_or(&what)))
}

fn batch(payload: &Map<String, Value>) -> String {
    let calls = payload.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let named: Vec<_> = calls.iter().filter_map(|call| said(call.get("tool_name"))).take(BATCH).collect();
    if named.is_empty() { "its tools".to_owned() } else { named.join(", ") }
}

fn subagent(payload: &Map<String, Value>) -> String {
    said(payload.get("agent_type")).map_or_else(|| "a subagent".to_owned(), |typ| format!("subagent {typ}"))
}

/// Returns how a run ended as far as a hook knows; the exit code tells for sure.
fn finished(agent: &str, name: &str, payload: &Map<String, Value>) -> String {
    let exit = payload.get("exit_code").and_then(Value::as_i64);
    let mark = if name == "StopFailure" || exit.is_some_and(|exit| exit != 0) { '✗' } else { '✓' };
    let words = ["prompt_response", "last_assistant_message", "error"].iter().find_map(|key| said(payload.get(*key)));
    let exit = exit.map(|exit| format!(" (exit {exit})")).unwrap_or_default();
    format!("{agent} {mark} {}{exit}", words.unwrap_or_else(|| "finished".to_owned()))
}

/// Returns a tool's error, if its response contains one.
fn error(response: Option<&Value>) -> Option<String> {
    let error = response?.get("error")?;
    match error {
        Value::Null | Value::Bool(false) => None,
        error => Some(said(Some(error)).or_else(|| said(error.get("message"))).unwrap_or_else(|| "failed".to_owned())),
    }
}

/// Returns a value as text, if it is a string or a number.
fn said(value: Option<&Value>) -> Option<String> {
    let line = match value? {
        Value::String(text) => text::one_line(text, PART),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!line.is_empty()).then_some(line)
}
