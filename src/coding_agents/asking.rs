//! What a CLI whose process stays is asked, as lines on its standard input: Claude Code's `stream-json`, which Qwen Code speaks
//! too.
//!
//! A question that comes while it works on another waits for the answer to that. So what is to reach it in the middle cuts that
//! short: it ends with a result of its own, which says that it was cancelled, and the next question follows in the same
//! conversation. Pure; called by `tools` and by the profile of a CLI.

use serde_json::json;

/// How long a CLI waits for leave to use a tool, in milliseconds: nobody gives one here, so that it is refused at once.
const LEAVE: u32 = 1;

/// Returns the first lines: they say that more than questions will come, and ask the first one.
pub(super) fn first(prompt: &str) -> String {
    [control(&json!({ "subtype": "initialize", "timeout": { "canUseTool": LEAVE } })), next(prompt)].concat()
}

/// Returns the line of another question, for one that has answered all before.
pub(crate) fn next(prompt: &str) -> String {
    let message = json!({ "role": "user", "content": prompt });
    format!("{}\n", json!({ "type": "user", "session_id": "", "parent_tool_use_id": null, "message": message }))
}

/// Returns the lines of a question that cuts short what it works on.
pub(crate) fn instead(prompt: &str) -> String {
    [control(&json!({ "subtype": "interrupt" })), next(prompt)].concat()
}

fn control(request: &serde_json::Value) -> String {
    // Its answer is not waited for, so that its id tells nobody anything.
    format!("{}\n", json!({ "type": "control_request", "request_id": request["subtype"], "request": request }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_one_message() {
        let prompt = "Say \"hello\".\nThen end.";
        let lines = [first(prompt), instead(prompt)].concat();
        let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kinds: Vec<_> = lines.iter().map(|line| (&line["type"], &line["request"]["subtype"])).collect();
        let user = (&json!("user"), &json!(null));
        let control = json!("control_request");
        let [initialize, interrupt] = [json!("initialize"), json!("interrupt")];
        assert_eq!(kinds, [(&control, &initialize), user, (&control, &interrupt), user]);
        assert_eq!(lines[3]["message"], json!({"role": "user", "content": prompt}));
    }
}
