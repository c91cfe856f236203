//! The lines of `opencode run --format json`: a tool's use comes once it has ended, and the end is a step that calls none.
//!
//! Pure; called by the parent alone.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AgentEvent, SAID, Tokens, brief, piece_of, said, target, todo};

/// What has to be remembered between lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::coding_agents) struct OpenCode {
    /// What the agent has said last.
    text: String,
    /// What all steps have used.
    used: Tokens,
    has_begun: bool,
}

impl OpenCode {
    /// Reads one line.
    pub(super) fn event(&mut self, line: &Value, events: &mut Vec<AgentEvent>) {
        let (part, session) = (&line["part"], brief(&line["sessionID"]));
        if !session.is_empty() && !std::mem::replace(&mut self.has_begun, true) {
            events.push(AgentEvent::Started { session, model: String::new() });
        }
        match line["type"].as_str() {
            Some("text") => {
                let text = part["text"].as_str().unwrap_or_default();
                text[..text.floor_char_boundary(SAID)].clone_into(&mut self.text);
                events.push(AgentEvent::Said(piece_of(text)));
            }
            Some("reasoning") => events.push(AgentEvent::Said(String::new())),
            Some("tool_use") => {
                let (state, id) = (&part["state"], brief(&part["callID"]));
                let (name, target) = (brief(&part["tool"]), target(&state["input"]));
                events.push(AgentEvent::ToolUsed { id: id.clone(), name, target });
                events.extend(todo(&state["input"]));
                let ok =
                    state["status"] == "completed" && state["metadata"]["exit"].as_i64().is_none_or(|exit| exit == 0);
                events.push(AgentEvent::ToolEnded { id, ok });
            }
            Some("step_finish") => self.step(part, events),
            Some("error") => {
                let error = &line["error"];
                let told = [&error["data"]["message"], &error["message"], &error["name"]];
                let summary = told.iter().find_map(|told| told.as_str()).map(said).unwrap_or_default();
                events.push(AgentEvent::Ended { ok: false, summary, tokens: Some(self.used) });
            }
            _ => {}
        }
    }

    fn step(&mut self, part: &Value, events: &mut Vec<AgentEvent>) {
        let tokens = &part["tokens"];
        let count = |value: &Value| value.as_u64().unwrap_or_default();
        // What a cache has served is not in its input.
        let cached = count(&tokens["cache"]["read"]).saturating_add(count(&tokens["cache"]["write"]));
        let used = Tokens {
            input: count(&tokens["input"]).saturating_add(cached),
            output: count(&tokens["output"]).saturating_add(count(&tokens["reasoning"])),
        };
        self.used.add(used);
        events.push(AgentEvent::Used(used));
        match part["reason"].as_str() {
            Some("tool-calls") | None => {}
            Some(reason) => {
                let ok = reason == "stop";
                let text = std::mem::take(&mut self.text);
                let summary =
                    if ok { said(&text) } else { format!("its model ended with `{}`", brief(&part["reason"])) };
                events.push(AgentEvent::Ended { ok, summary, tokens: Some(self.used) });
            }
        }
    }
}
