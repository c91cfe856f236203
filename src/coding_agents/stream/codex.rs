//! The lines of `codex exec --json`: items that begin and end, and a turn that does.
//!
//! Pure; called by the parent alone.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AgentEvent, SAID, STEPS, Step, StepState, Tokens, brief, piece_of, said, target};

/// What has to be remembered between lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::coding_agents) struct Codex {
    /// What the agent has said last.
    text: String,
}

impl Codex {
    /// Reads one line.
    pub(super) fn event(&mut self, line: &Value, events: &mut Vec<AgentEvent>) {
        match line["type"].as_str() {
            Some("thread.started") => {
                events.push(AgentEvent::Started { session: brief(&line["thread_id"]), model: String::new() });
            }
            Some(stage @ ("item.started" | "item.updated" | "item.completed")) => {
                self.item(&line["item"], stage == "item.completed", events);
            }
            // It tells of a lost request what it tells of its end: the turn's own word follows.
            Some("error") => events.push(AgentEvent::Retry { reason: brief(&line["message"]) }),
            Some("turn.completed") => {
                let count = |name: &str| line["usage"][name].as_u64();
                let tokens = count("input_tokens").zip(count("output_tokens"));
                let tokens = tokens.map(|(input, output)| Tokens { input, output });
                let summary = said(&std::mem::take(&mut self.text));
                events.push(AgentEvent::Ended { ok: true, summary, tokens });
            }
            Some("turn.failed") => {
                let summary = said(line["error"]["message"].as_str().unwrap_or_default());
                events.push(AgentEvent::Ended { ok: false, summary, tokens: None });
            }
            _ => {}
        }
    }

    fn item(&mut self, item: &Value, is_over: bool, events: &mut Vec<AgentEvent>) {
        let id = brief(&item["id"]);
        let (name, target) = match item["type"].as_str() {
            Some("agent_message") if is_over => {
                let text = item["text"].as_str().unwrap_or_default();
                text[..text.floor_char_boundary(SAID)].clone_into(&mut self.text);
                return events.push(AgentEvent::Said(piece_of(text)));
            }
            Some("reasoning") if is_over => return events.push(AgentEvent::Said(String::new())),
            Some("todo_list") => return events.extend(todo(item)),
            Some("error") => {
                let told = brief(&item["message"]);
                return events.extend((!told.is_empty()).then_some(AgentEvent::Noise(told)));
            }
            Some(name @ ("command_execution" | "web_search")) => (name, target(item)),
            Some(name @ "file_change") => (name, brief(&item["changes"][0]["path"])),
            Some("mcp_tool_call") => ("tool call", brief(&item["tool"])),
            _ => return,
        };
        if is_over {
            let ok = item["status"] != "failed" && item["exit_code"].as_i64().is_none_or(|code| code == 0);
            // A change of files comes as one line.
            if name == "file_change" {
                events.push(AgentEvent::ToolUsed { id: id.clone(), name: name.to_owned(), target });
            }
            events.push(AgentEvent::ToolEnded { id, ok });
        } else if name != "file_change" {
            events.push(AgentEvent::ToolUsed { id, name: name.to_owned(), target });
        }
    }
}

fn todo(item: &Value) -> Option<AgentEvent> {
    let step = |step: &Value| {
        let text = Some(brief(&step["text"])).filter(|text| !text.is_empty())?;
        Some(Step { text, state: if step["completed"] == true { StepState::Closed } else { StepState::Open } })
    };
    Some(AgentEvent::Todo(item["items"].as_array()?.iter().take(STEPS).filter_map(step).collect()))
}
