//! The demo job: a small program with a bug and failing tests; coding agents plan and make the fix, the tests pass,
//! an agent reviews it, a web page shows the result, and a screenshot shows the page. Each step is decided from the
//! actual results of the steps before it; an unexpected result is reported and ends the job.

use serde_json::{Value, json};

use super::{
    moves::{Move, first_line},
    orders::Seen,
};

pub(super) const PRICES: &str = include_str!("job/prices.py");
const TESTS: &str = include_str!("job/test_prices.py");
const PAGE: &str = include_str!("job/page.py");

pub(super) const FOLDER: &str = "/workspace/demo";
pub(super) const BUG: &str = "sum(prices) - discount_percent / 100";
pub(super) const MENDED: &str = "sum(prices) * (1 - discount_percent / 100)";
/// The title of the page if its tests pass; the screenshot's result contains it.
const TITLE: &str = "The shop's tests pass";
/// The task of the coding agents.
const TASK: &str = "The tests in /workspace/demo fail: mend the discount in prices.py.";
/// How often the server's output is read in search of its address.
const LOOKS: usize = 5;

/// Returns the next step after the results `seen`.
pub(super) fn next(seen: &[Seen]) -> Move {
    let files = [("prices.py", PRICES), ("test_prices.py", TESTS), ("page.py", PAGE)];
    let write = |(name, content)| ("write_file", json!({"path": format!("{FOLDER}/{name}"), "content": content}));
    match seen {
        [] | [_] | [_, _] => Move::call(
            "I write a small program with a bug in it, its tests, and a page to show them.",
            files[seen.len()..].iter().copied().map(write).collect(),
        ),
        [_, _, _] => Move::call("I run its tests: one should fail.", vec![tests()]),
        [_, _, _, red] => {
            if !(red.result.contains("[FAIL]") && red.result.contains("test_discount")) {
                return unexpected("one test should have failed", red);
            }
            Move::call("`test_discount` fails. A coding agent plans the mend.", vec![("plan", json!({"task": TASK}))])
        }
        [_, _, _, _, plan] => {
            if !plan.result.starts_with("done") {
                return unexpected("there should be a plan", plan);
            }
            Move::call("Another carries it out.", vec![("implement", json!({"task": TASK}))])
        }
        [_, _, _, _, _, mend] => {
            if !mend.result.contains("demo/prices.py +1 −1") {
                return unexpected("one line should have been changed", mend);
            }
            Move::call("I run the tests again.", vec![tests()])
        }
        [_, _, _, _, _, _, green] => {
            if !green.result.contains("[PASS]") {
                return unexpected("all tests should have passed", green);
            }
            Move::call("All pass. A third agent reviews the change.", vec![("review", json!({}))])
        }
        [_, _, _, _, _, _, _, review] => {
            if !review.result.contains("Verdict: ready") {
                return unexpected("the review should have found nothing", review);
            }
            let server = json!({"command": format!("cd {FOLDER} && exec python3 -u page.py"), "background": true});
            Move::call("It is ready. I start a server with a page that shows it.", vec![("run_command", server)])
        }
        [_, _, _, _, _, _, _, _, server @ ..] => show(server),
    }
}

fn tests() -> (&'static str, Value) {
    ("run_tests", json!({"path": FOLDER}))
}

/// Returns the next step once the page's server was started.
fn show(seen: &[Seen]) -> Move {
    let job = seen.iter().find_map(|seen| word(&seen.result, "job-", |c| c.is_ascii_alphanumeric()));
    let Some(url) = seen.iter().find_map(|seen| word(&seen.result, "http://127.0.0.1:", |c| c.is_ascii_digit())) else {
        return match (job, seen) {
            (Some(job), [.., last]) if seen.len() <= LOOKS && !last.result.contains("has ended") => {
                Move::call("I look whether it has begun.", vec![("run_command", json!({"job": job}))])
            }
            (_, [.., last]) => unexpected("the server should have told its address", last),
            (_, []) => Move::say("The demo job lost its place; say `demo` to begin anew."),
        };
    };
    let Some(shot) = seen.iter().position(|seen| seen.name == "take_screenshot") else {
        return Move::call("It serves. I take a picture of the page.", vec![("take_screenshot", json!({"url": url}))]);
    };
    if let Some(job) = job.filter(|_| shot + 1 == seen.len()) {
        return Move::call("I end the server.", vec![("run_command", json!({"job": job, "stop": true}))]);
    }
    if !seen[shot].result.contains(TITLE) {
        return unexpected("the picture should have shown the page", &seen[shot]);
    }
    Move::say(format!(
        "Demo finished: wrote a small program with a bug ({FOLDER}/prices.py) and its tests, saw one of three fail, had \
         coding agents plan and mend it, saw all three pass, had the change reviewed, and took a picture of the page that it serves.\n\n(I am the built-in \
         demo model, a script. For a real one set LLM_MODEL and LLM_API_KEY in `.env`.)"
    ))
}

fn unexpected(wanted: &str, got: &Seen) -> Move {
    Move::say(format!(
        "The demo stops here: {wanted}, but `{}` said: {}\n\nI am a script and cannot find out why; `matrix-agent doctor` \
         may.",
        got.name,
        first_line(&got.result)
    ))
}

/// Returns the first part of `text` that begins with `start` and continues with characters accepted by `more`.
fn word(text: &str, start: &str, more: fn(char) -> bool) -> Option<String> {
    let rest = &text[text.find(start)? + start.len()..];
    Some(start.chars().chain(rest.chars().take_while(|c| more(*c))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str, result: &str) -> Seen {
        Seen { name: name.to_owned(), result: result.to_owned() }
    }

    fn good() -> Vec<Seen> {
        vec![
            seen("write_file", "Created"),
            seen("write_file", "Created"),
            seen("write_file", "Created"),
            seen("run_tests", "[FAIL] tests failed (exit code 1)\nFAILED test_prices.py::test_discount"),
            seen("plan", "done: Qwen Code"),
            seen("implement", "done: Qwen Code\n1 file +1 −1 changed:\ndemo/prices.py +1 −1"),
            seen("run_tests", "[PASS] lint passed, tests passed"),
            seen("review", "done: Qwen Code\nVerdict: ready"),
            seen("run_command", "Running in the background as job-12ab34cd. Its output so far:\n(no output)"),
            seen("run_command", "job-12ab34cd is running. Its output so far:\nServing http://127.0.0.1:40123/\n"),
            seen("take_screenshot", "http://127.0.0.1:40123/ “The shop's tests pass”, 1280×800 pixels"),
            seen("run_command", "job-12ab34cd has ended."),
        ]
    }

    #[test]
    fn the_whole_job() {
        let all = good();
        let steps: Vec<_> = (0..=all.len())
            .map(|done| {
                let Move { text, calls } = next(&all[..done]);
                let told = |arguments: &Value| {
                    let fields = ["path", "old_text", "new_text", "command", "background", "job", "stop", "url"];
                    let told = fields.into_iter().filter(|field| !arguments[*field].is_null());
                    told.map(|field| format!("{field}={}", arguments[field])).collect::<Vec<_>>().join(" ")
                };
                let calls: Vec<_> =
                    calls.iter().map(|(name, arguments)| format!("{name} {}", told(arguments))).collect();
                format!("{done}: {text}\n   {}", calls.join("\n   "))
            })
            .collect();
        insta::assert_snapshot!(steps.join("\n"));
    }

    #[test]
    fn the_bug_is_there_once_and_the_page_is_called_what_it_is_looked_for() {
        assert_eq!((PRICES.matches(BUG).count(), PAGE.matches(TITLE).count()), (1, 1));
    }

    #[test]
    fn whatever_goes_otherwise_is_said_and_ends_the_job() {
        for (at, result) in [
            (3, "[PASS] tests passed"),
            (3, "The sandbox failed: it is gone."),
            (3, "[FAIL] no test command found"),
            (4, "not started: there is no program `qwen`"),
            (5, "done: Qwen Code\nNo file was changed."),
            (6, "[FAIL] tests failed"),
            (7, "done: Qwen Code\nVerdict: not ready"),
            (8, "The sandbox failed: it is gone."),
            (9, "job-12ab34cd has ended.\nexit code: 1\nOSError"),
        ] {
            let mut job = good();
            job.truncate(at + 1);
            job[at].result = result.to_owned();
            let Move { text, calls } = next(&job);
            assert!(calls.is_empty() && text.contains(first_line(result).as_str()), "{at}: {text}");
        }
        // Without a screenshot the server is ended all the same.
        let mut job = good();
        job[10].result = "No picture: it did not load.".to_owned();
        assert_eq!(next(&job[..11]).calls.len(), 1);
        assert!(next(&job).text.contains("No picture"));
        // The output of a server that never prints its address is read a few times.
        let mut job = good();
        job.truncate(9);
        job.extend(std::iter::repeat_n(
            seen("run_command", "job-12ab34cd is running. Its output so far:\n(no output)"),
            LOOKS - 1,
        ));
        assert_eq!(next(&job).calls.len(), 1);
        job.push(seen("run_command", "job-12ab34cd is running."));
        assert!(next(&job).calls.is_empty());
    }
}
