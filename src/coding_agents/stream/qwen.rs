//! The lines of `qwen -o stream-json`. Messages come whole, with what each has used.
//!
//! Pure; called by the parent alone.

use serde_json::Value;

use super::{AgentEvent, Tokens, brief, piece_of, said, target, todo};

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
