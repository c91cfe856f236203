//! Codex, Claude Code and opencode, as npm has them, by the profiles that ship. Nobody runs these but who wants to: the CLIs take a
//! gigabyte, in an image of their own.
//!
//! ```text
//! podman build --tag matrix-agent-sandbox:agents docs/agents
//! cargo nextest run --test other_agents --run-ignored all
//! ```

mod support;

use serde_json::{Value, json};
use support::{
    rig::{Rig, answers, block_on},
    scripted_llm::{Reply, ScriptedLlm, results, user_texts},
};

const IMAGE: &str = "localhost/matrix-agent-sandbox:agents";

fn is_orchestrator(request: &Value) -> bool {
    request["tools"].to_string().contains("\"take_screenshot\"")
}

/// How many results of tools a request of a CLI brings.
fn answered(request: &Value) -> usize {
    let each = |name: &str| request[name].as_array().into_iter().flatten();
    let blocks = each("messages").flat_map(|message| message["content"].as_array().into_iter().flatten());
    each("input").filter(|item| item["type"] == "function_call_output").count()
        + each("messages").filter(|message| message["role"] == "tool").count()
        + blocks.filter(|block| block["type"] == "tool_result").count()
}

/// An agent writes a file when it implements, and tries to when it plans.
fn works(
    agent: &'static str,
    writes: (&'static str, Value),
    says: impl Fn(&str, &[(&str, Value)]) -> Reply + Send + Sync + 'static,
) {
    let llm = block_on(ScriptedLlm::start());
    llm.otherwise(move |request| {
        if is_orchestrator(request) {
            let calls = [("implement", json!({"task": "Write hello.txt."})), ("plan", json!({"task": "Write more."}))];
            return match calls.get(results(request).len()) {
                Some(call) => Reply::calls(std::slice::from_ref(call)),
                None => Reply::text("Done."),
            };
        }
        match answered(request) {
            0 if !request["tools"].as_array().is_none_or(Vec::is_empty) => says("", std::slice::from_ref(&writes)),
            _ => says("That is all.", &[]),
        }
    });
    let mut rig = Rig::new(IMAGE, llm.base_url());
    for role in ["PLAN_AGENT", "IMPLEMENT_AGENT"] {
        rig.set(role, agent);
    }
    let _server = rig.serve();
    let (code, frames) = rig.ask("one", "Write hello.txt, please.").finish();
    assert_eq!((code, answers(&frames).len()), (0, 1), "{frames:#?}");
    let requests = llm.requests();
    let told = results(requests.iter().rfind(|request| is_orchestrator(request)).unwrap());
    for part in ["done: ", "That is all.", "1 file +1 −0 changed:\nhello.txt +1 −0"] {
        assert!(told[0].contains(part), "{part:?} is not in {}", told[0]);
    }
    assert!(told[1].contains("That is all.") && !told[1].contains("changed"), "{}", told[1]);
    assert!(told[1].starts_with("done: "), "{}", told[1]);
    let asked = requests
        .iter()
        .filter(|request| !is_orchestrator(request))
        .any(|request| request.to_string().contains("# Task") || user_texts(request).concat().contains("# Task"));
    assert!(asked, "the prompt arrives");
    let ran = rig.run(&["sandbox", "exec", "one", "--", "cat", "hello.txt"]);
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "hello\n");
    let real = "grep -rl -e scripted-secret /home /workspace /tmp /proc/*/environ 2>/dev/null | head";
    let ran = rig.run(&["sandbox", "exec", "one", "--", "sh", "-c", real]);
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "", "no real key was inside");
}

#[test]
#[ignore = "needs an image with the CLI: docs/agents"]
fn codex_works_by_its_profile() {
    let writes = ("exec_command", json!({"cmd": "echo hello > /workspace/hello.txt"}));
    works("codex", writes, Reply::response);
}

#[test]
#[ignore = "needs an image with the CLI: docs/agents"]
fn claude_code_works_by_its_profile() {
    let writes = ("Write", json!({"file_path": "/workspace/hello.txt", "content": "hello\n"}));
    works("claude", writes, Reply::message);
}

#[test]
#[ignore = "needs an image with the CLI: docs/agents"]
fn opencode_works_by_its_profile() {
    let writes = ("write", json!({"filePath": "/workspace/hello.txt", "content": "hello\n"}));
    works("opencode", writes, |text, calls| if calls.is_empty() { Reply::text(text) } else { Reply::calls(calls) });
}
