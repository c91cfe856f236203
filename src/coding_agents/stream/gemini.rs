//! The lines of `gemini -o stream-json`. What the agent says comes in pieces, and the result does not repeat it.
//!
//! Pure; called by the parent alone.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AgentEvent, SAID, Tokens, brief, piece_of, said, target, todo};

/// What has to be remembered between lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::coding_agents) struct Gemini {
    /// What the agent has said since it last used a tool.
    text: String,
    /// The error that it has told since it last said something or used a tool. One that its end follows is why it ended,
    /// although the CLI calls that a success: its detection of loops ends so.
    #[serde(default)]
    error: String,
}

impl Gemini {
    /// Reads one line.
    pub(super) fn event(&mut self, line: &Value, events: &mut Vec<AgentEvent>) {
        match line["type"].as_str() {
            Some("init") => {
                events.push(AgentEvent::Started { session: brief(&line["session_id"]), model: brief(&line["model"]) });
            }
            // The other side is what it was asked.
            Some("message") if line["role"] == "assistant" => {
                let piece = line["content"].as_str().unwrap_or_default();
                if line["delta"] != true {
                    self.text.clear();
                }
                self.error.clear();
                let room = SAID.saturating_sub(self.text.len());
                self.text.push_str(&piece[..piece.floor_char_boundary(room)]);
                events.push(AgentEvent::Said(piece_of(piece)));
            }
            Some("tool_use") => {
                self.text.clear();
                self.error.clear();
                let parameters = &line["parameters"];
                let (id, name) = (brief(&line["tool_id"]), brief(&line["tool_name"]));
                events.push(AgentEvent::ToolUsed { id, name, target: target(parameters) });
                events.extend(todo(parameters));
            }
            Some("tool_result") => {
                let ok = line["status"] == "success";
                events.push(AgentEvent::ToolEnded { id: brief(&line["tool_id"]), ok });
            }
            Some("error") => {
                self.error = brief(&line["message"]);
                events.extend((!self.error.is_empty()).then(|| AgentEvent::Noise(self.error.clone())));
            }
            Some("result") => events.push(self.result(line)),
            _ => {}
        }
    }

    fn result(&mut self, line: &Value) -> AgentEvent {
        let (text, error) = (std::mem::take(&mut self.text), std::mem::take(&mut self.error));
        let ok = line["status"] == "success" && error.is_empty();
        let summary = match line["error"]["message"].as_str().filter(|_| !ok) {
            Some(error) => said(error),
            None if !error.is_empty() => error,
            None => said(&text),
        };
        let stats = &line["stats"];
        let count = |name: &str| stats[name].as_u64();
        let tokens = count("input_tokens").zip(count("output_tokens"));
        // What the model thought is in the total alone.
        let tokens = tokens.map(|(input, output)| Tokens {
            input,
            output: count("total_tokens").map_or(output, |total| total.saturating_sub(input).max(output)),
        });
        AgentEvent::Ended { ok, summary, tokens }
    }
}
