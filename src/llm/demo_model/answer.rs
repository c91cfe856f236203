//! The demo model's next step: one call for an order, then a sentence about its result. The demo job has more steps,
//! which are in `job.rs`.

use serde_json::{Value, json};

use super::{
    job,
    moves::{Move, first_line},
    orders::{Order, Seen, Situation},
};

const ABOUT: &str = "I am the built-in demo model: a script, no real model. I understand:\n\
    - `demo`: a small job from a bug to a green test and a screenshot\n\
    - `run: COMMAND`\n\
    - `write FILE: CONTENT`\n\
    - `read FILE`\n\
    - `test`, `test PATH` or `test: COMMAND`\n\
    - `screenshot URL`\n\n\
    For a real model set LLM_MODEL and LLM_API_KEY in `.env`.";

/// The most lines of a result that are quoted.
const QUOTED_LINES: usize = 12;

/// Returns the answer to a conversation.
pub(super) fn answer(situation: &Situation) -> Move {
    let Some(order) = &situation.order else { return Move::say(ABOUT) };
    let next = next(order, &situation.seen);
    if situation.must_end && !next.calls.is_empty() {
        return Move::say(format!(
            "I stop here, as I was told; {} calls were made and the rest is open.",
            situation.seen.len()
        ));
    }
    next
}

fn next(order: &Order, seen: &[Seen]) -> Move {
    let came = seen.last().map(|last| last.result.as_str());
    match (order, came) {
        (Order::Demo, _) => job::next(seen),
        (Order::Run(command), None) => Move::call("I run it.", vec![("run_command", json!({"command": command}))]),
        (Order::Run(command), Some(came)) => Move::say(format!("`{}` gave:\n{}", first_line(command), quoted(came))),
        (Order::Write { path, content }, None) => {
            Move::call("I write it.", vec![("write_file", json!({"path": path, "content": content}))])
        }
        (Order::Write { path, .. }, Some(came)) => Move::say(format!("{path}: {}", first_line(came))),
        (Order::Read(path), None) => Move::call("I read it.", vec![("read_file", json!({"path": path}))]),
        (Order::Read(path), Some(came)) => Move::say(format!("{path} reads:\n{}", quoted(came))),
        (Order::Test { path, command }, None) => {
            let given = [("path", path), ("command", command)];
            let arguments = given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value.as_ref()?))));
            Move::call("I run the tests.", vec![("run_tests", Value::Object(arguments.collect()))])
        }
        (Order::Test { .. }, Some(came)) => Move::say(format!("The tests say: {}", first_line(came))),
        (Order::Screenshot(url), None) => {
            Move::call("I take the picture.", vec![("take_screenshot", json!({"url": url}))])
        }
        (Order::Screenshot(url), Some(came)) => Move::say(format!("{url}: {}", first_line(came))),
    }
}

/// Returns the first lines of a result as a code block; a fence in them must not end it.
fn quoted(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let mut shown: Vec<String> =
        lines.iter().take(QUOTED_LINES).map(|line| first_line(&line.replace("```", "'''"))).collect();
    if lines.len() > QUOTED_LINES {
        shown.push(format!("… ({} more lines)", lines.len() - QUOTED_LINES));
    }
    format!("```\n{}\n```", shown.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn situation(order: Order, results: &[&str]) -> Situation {
        let seen = results.iter().map(|result| Seen { name: "x".to_owned(), result: (*result).to_owned() }).collect();
        Situation { order: Some(order), seen, must_end: false }
    }

    #[test]
    fn each_order_makes_one_call_and_tells_what_came_of_it() {
        let test = Order::Test { path: None, command: Some("make test".into()) };
        let write = Order::Write { path: "a".into(), content: "b\n".into() };
        for (order, name, arguments, says) in [
            (Order::Run("ls".into()), "run_command", json!({"command": "ls"}), "`ls` gave:\n```\nfirst\nsecond\n```"),
            (write, "write_file", json!({"path": "a", "content": "b\n"}), "a: first"),
            (Order::Read("a".into()), "read_file", json!({"path": "a"}), "a reads:\n```\nfirst\nsecond\n```"),
            (test, "run_tests", json!({"command": "make test"}), "The tests say: first"),
            (Order::Screenshot("u".into()), "take_screenshot", json!({"url": "u"}), "u: first"),
        ] {
            assert_eq!(answer(&situation(order.clone(), &[])).calls, [(name, arguments)]);
            assert_eq!(answer(&situation(order, &["first\nsecond"])), Move::say(says));
        }
        assert_eq!(answer(&Situation::default()), Move::say(ABOUT));
    }

    #[test]
    fn at_a_limit_it_makes_no_call() {
        let mut at_limit = situation(Order::Demo, &["a", "b", "c"]);
        at_limit.must_end = true;
        assert_eq!(answer(&at_limit), Move::say("I stop here, as I was told; 3 calls were made and the rest is open."));
    }

    #[test]
    fn a_long_result_is_quoted_in_part() {
        let long = "```\n".repeat(100);
        let Move { text, .. } = answer(&situation(Order::Run("x".into()), &[&long]));
        assert_eq!((text.matches("```").count(), text.lines().count()), (2, QUOTED_LINES + 4));
    }
}
