//! The lines of `qwen -o stream-json`, and of `claude`, from which it has them. Messages come whole, with what each has used.
//!
//! Pure; called by the parent alone.

use serde_json::Value;

use super::{AgentEvent, Tokens, brief, piece_of, said, target, todo};

/// Reads one line of Claude Code. What a message has used stands on each of its pieces, so that only the end's sum counts,
/// and what a cache has served or taken is not in its input.
pub(super) fn event_of_claude(line: &Value, events: &mut Vec<AgentEvent>) {
    if line["type"] == "system" && line["subtype"] == "api_retry" {
        let status = line["error_status"].as_u64().map(|status| format!("{status} ")).unwrap_or_default();
        return events.push(AgentEvent::Retry { reason: format!("{status}{}", brief(&line["error"])) });
    }
    let begun = events.len();
    event(line, events);
    let mut at = begun;
    while at < events.len() {
        if matches!(events[at], AgentEvent::Used(_)) {
            events.remove(at);
            continue;
        }
        if let AgentEvent::Ended { tokens: Some(tokens), .. } = &mut events[at] {
            let cached = |name: &str| line["usage"][name].as_u64().unwrap_or_default();
            tokens.input = tokens
                .input
                .saturating_add(cached("cache_read_input_tokens"))
                .saturating_add(cached("cache_creation_input_tokens"));
        }
        at += 1;
    }
}

/// Reads one line.
pub(super) fn event(line: &Value, events: &mut Vec<AgentEvent>) {
    let blocks = || line["message"]["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    match line["type"].as_str() {
        Some("system") => match line["subtype"].as_str() {
            Some("init") => {
                events.push(AgentEvent::Started { session: brief(&line["session_id"]), model: brief(&line["model"]) });
            }
            Some("retry") => events.push(AgentEvent::Retry { reason: brief(&line["data"]["reason"]) }),
            _ => {}
        },
        Some("assistant") => {
            for block in blocks() {
                match block["type"].as_str() {
                    Some("tool_use") => {
                        let (id, name) = (brief(&block["id"]), brief(&block["name"]));
                        events.push(AgentEvent::ToolUsed { id, name, target: target(&block["input"]) });
                        events.extend(todo(&block["input"]));
                    }
                    Some("text") => {
                        let text = block["text"].as_str().unwrap_or_default();
                        events.push(AgentEvent::Said(piece_of(text)));
                    }
                    Some("thinking") => events.push(AgentEvent::Said(String::new())),
                    _ => {}
                }
            }
            let used = tokens(&line["message"]["usage"]).filter(|used| used.total() > 0);
            events.extend(used.map(AgentEvent::Used));
        }
        Some("user") => {
            for block in blocks().iter().filter(|block| block["type"] == "tool_result") {
                let ok = block["is_error"] != true;
                events.push(AgentEvent::ToolEnded { id: brief(&block["tool_use_id"]), ok });
            }
        }
        Some("result") => {
            let ok = line["is_error"] == false && line["subtype"] == "success";
            let told = [&line["error"]["message"], &line["result"], &line["subtype"]];
            let from = if ok { &told[1..2] } else { &told[..] };
            let summary = from.iter().find_map(|told| told.as_str()).map(said).unwrap_or_default();
            events.push(AgentEvent::Ended { ok, summary, tokens: tokens(&line["usage"]) });
        }
        _ => {}
    }
}

fn tokens(usage: &Value) -> Option<Tokens> {
    Some(Tokens { input: usage["input_tokens"].as_u64()?, output: usage["output_tokens"].as_u64()? })
}
