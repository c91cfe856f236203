//! The demo model as the model of a coding agent: it plans, implements and reviews the one fix of the demo job.
//!
//! The sections of the prompt tell which of the three is asked. The tools are those of Qwen Code.

use serde_json::{Value, json};

use super::{
    job,
    moves::{Move, first_line},
    orders::Seen,
};

/// The name of a tool that coding agents have and the orchestrator does not.
const MARK: &str = "grep_search";

/// Returns whether a request comes from a coding agent.
pub(super) fn asks(request: &Value) -> bool {
    let tools = request["tools"].as_array().into_iter().flatten();
    tools.filter_map(|tool| tool["function"]["name"].as_str()).any(|name| name == MARK)
}

/// Returns the agent's next step for `prompt`, after the results `seen`.
pub(super) fn answer(prompt: &str, seen: &[Seen]) -> Move {
    let path = format!("{}/prices.py", job::FOLDER);
    let read = || Move::call("I read it.", vec![("read_file", json!({"file_path": path}))]);
    let has = |heading: &str| prompt.lines().any(|line| line == heading);
    let is_mended = || prompt.lines().any(|line| line.starts_with('+') && line.contains(job::MENDED));
    match (has("# Change"), has("# Plan"), seen) {
        (true, ..) if is_mended() => {
            Move::say("The discount is a share of the sum now. Nothing is wrong.\n\nVerdict: ready")
        }
        (true, ..) => Move::say("The change does not mend the discount.\n\nVerdict: not ready"),
        (_, _, []) => read(),
        (_, false, _) => Move::say(format!(
            "1. In {path} the discount is taken off as money: make `{}` of it, `{}`.\n2. Run the tests: all three pass.",
            job::BUG,
            job::MENDED
        )),
        (_, true, [_]) => {
            let edit = json!({"file_path": path, "old_string": job::BUG, "new_string": job::MENDED});
            Move::call("I mend it.", vec![("edit", edit)])
        }
        (_, true, [.., last]) => {
            Move::say(format!("I changed one line of {path}. The tool said: {}", first_line(&last.result)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(count: usize) -> Vec<Seen> {
        vec![Seen { name: "x".to_owned(), result: "did it".to_owned() }; count]
    }

    #[test]
    fn an_agent_is_known_by_its_tools() {
        let with = |name: &str| json!({"tools": [{"type": "function", "function": {"name": name}}]});
        assert!(asks(&with(MARK)) && !asks(&with("run_command")) && !asks(&json!({})));
    }

    #[test]
    fn it_plans_mends_and_reviews() {
        let plan = "# Task\nMend it.";
        assert_eq!(answer(plan, &seen(0)).calls[0].0, "read_file");
        assert!(answer(plan, &seen(1)).text.contains(job::MENDED));
        let implement = "# Task\nMend it.\n\n# Plan\n1. Do it.";
        let calls: Vec<_> = (0..3).map(|step| answer(implement, &seen(step)).calls).collect();
        assert_eq!((calls[0][0].0, calls[1][0].0, calls[2].len()), ("read_file", "edit", 0));
        assert_eq!(calls[1][0].1["old_string"], job::BUG);
        let review = |diff: &str| answer(&format!("# Plan\n1. Do it.\n\n# Change\n{diff}"), &[]).text;
        // The diff as git shows it.
        let mended = job::PRICES.replace(job::BUG, job::MENDED).replace("    return", "+    return");
        assert!(review(&mended).ends_with("Verdict: ready"));
        assert!(review(job::PRICES).ends_with("not ready"));
    }
}
