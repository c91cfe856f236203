//! `run_tests`: lints (Python) and tests a project with its own command, as one command in the sandbox.
//!
//! `run_tests.sh` does the work there; this file reads its marks. They are the call's own, so that a project's output
//! cannot pass for them by accident.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Access, Tool, ToolContext, ToolLimits, ToolResult,
    error::ToolError,
    exec, files,
    output::{self, SHOWN},
};
use crate::{
    ids::digest,
    sandbox::{Captured, Ended, Exit, Sandbox},
    text,
};

const SCRIPT: &str = include_str!("run_tests.sh");
/// The exit codes of the script for what kept it from testing.
const NO_SUCH_PATH: i32 = 66;
const MANY_PROJECTS: i32 = 67;
const NO_COMMAND: i32 = 68;
/// What pytest and unittest exit with when they find no test.
const NO_TESTS: i32 = 5;

/// What helps where tests do not end in time.
const SLOW: &str =
    "If they need longer, raise timeout_seconds; one that watches or asks needs a command with a flag that ends it.";

pub(super) struct RunTests;

/// The arguments. What their comments say is what models read.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    /// Default /workspace.
    path: Option<String>,
    /// Default: its own.
    command: Option<String>,
    timeout_seconds: Option<u64>,
}

impl Tool for RunTests {
    const NAME: &'static str = "run_tests";
    const ACCESS: Access = Access::Exclusive;
    const EXAMPLE: &'static str = r#"{"path":"/workspace/site"}"#;
    type Arguments = Arguments;

    fn description(limits: &ToolLimits, _vision: bool) -> String {
        format!(
            "Test a project (Python: ruff first), after the last edit. Says [PASS] or [FAIL]. Limit {} s, or \
             timeout_seconds (at most {}).",
            default_limit(limits).as_secs(),
            limits.longest.as_secs()
        )
    }

    fn label(arguments: &Arguments) -> String {
        match (&arguments.command, &arguments.path) {
            (Some(command), _) => format!("test: {}", text::one_line(command, 70)),
            (None, Some(path)) => format!("test {}", files::shown(&files::absolute(path))),
            (None, None) => "test".to_owned(),
        }
    }

    async fn run(context: &ToolContext, arguments: Arguments) -> Result<ToolResult, ToolError> {
        let sandbox = context.sandbox().await?;
        let path = path_of(&arguments);
        let test = arguments.command.as_deref().unwrap_or_default();
        let wanted = arguments.timeout_seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let limit = wanted.unwrap_or_else(|| default_limit(&context.limits)).min(context.limits.longest);
        let command = context.command(&["sh", "-c", SCRIPT, "run_tests", &path, test, &mark_of(context)], limit);
        let ended = exec::run(context, &sandbox, command).await?;
        told(context, &sandbox, &path, &ended).await
    }

    async fn resume(context: &ToolContext, arguments: Arguments, boot_id: &str) -> Result<ToolResult, ToolError> {
        let (sandbox, ended) = exec::resume(context, context.call.as_str(), boot_id).await?;
        told(context, &sandbox, &path_of(&arguments), &ended).await
    }
}

/// Returns the result, with where the whole output is if it does not show all.
async fn told(context: &ToolContext, sandbox: &Sandbox, path: &str, ended: &Ended) -> Result<ToolResult, ToolError> {
    let (mut result, cut) = report(path, &mark_of(context), ended)?;
    context.tests.note(&result.text);
    if cut && let Some(log) = exec::whole(context, sandbox, context.call.as_str(), &ended.output).await {
        result.text.push_str(&exec::whole_is_in(&log));
    }
    Ok(result)
}

/// Tests take longer than other commands.
fn default_limit(limits: &ToolLimits) -> Duration {
    (limits.command * 5).min(limits.longest)
}

fn path_of(arguments: &Arguments) -> String {
    files::absolute(arguments.path.as_deref().unwrap_or("/workspace"))
}

fn mark_of(context: &ToolContext) -> String {
    format!("{}{}", output::MARK, digest(&["run_tests", context.call.as_str()], 6))
}

/// What the script said between its marks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    dir: String,
    /// The lint command, its exit code (or `missing`) and output.
    lint: Option<(String, String, String)>,
    /// The test command, and its exit code if it came to an end.
    test: Option<(String, Option<i32>)>,
    test_output: Captured,
    projects: String,
}

/// Reads the marks. The first ones stand in the head of the output; the tests' end is its very last line.
fn read(captured: &Captured, mark: &str) -> Said {
    let mut said = Said::default();
    let head = String::from_utf8_lossy(&captured.head);
    let mut lint_output = String::new();
    let mut at = 0;
    for line in head.split_inclusive('\n') {
        at += line.len();
        let Some(news) = line.strip_prefix(mark).map(str::trim) else {
            lint_output.push_str(line);
            continue;
        };
        let (what, rest) = news.split_once(' ').unwrap_or((news, ""));
        match what {
            "dir" => rest.clone_into(&mut said.dir),
            "lint" => {
                lint_output.clear();
                said.lint = Some((rest.to_owned(), String::new(), String::new()));
            }
            "lint-exit" => {
                if let Some((_, exit, output)) = &mut said.lint {
                    rest.clone_into(exit);
                    *output = std::mem::take(&mut lint_output);
                }
            }
            "many" => rest.clone_into(&mut said.projects),
            "test" => {
                said.test = Some((rest.to_owned(), None));
                break;
            }
            _ => {}
        }
    }
    if let Some((_, exit)) = &mut said.test {
        // The marks are ASCII: what was replaced by `from_utf8_lossy` before them cannot be told from its length.
        let start = find(&captured.head, format!("{mark} test ").as_bytes()).map_or(at, |found| {
            captured.head[found..]
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(captured.head.len(), |end| found + end + 1)
        });
        let mut output = Captured { head: captured.head.slice(start.min(captured.head.len())..), ..captured.clone() };
        let last = if output.tail.is_empty() { &mut output.head } else { &mut output.tail };
        if let Some(found) = rfind(last, format!("{mark} test-exit ").as_bytes()) {
            let code = String::from_utf8_lossy(&last[found..]);
            *exit = code.trim().rsplit(' ').next().and_then(|code| code.parse().ok());
            last.truncate(found);
        }
        said.test_output = output;
    }
    said
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

fn rfind(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).rposition(|window| window == needle)
}

/// Returns the result: `[PASS]` or `[FAIL]`, then a section each; and whether it does not show all that was written.
fn report(path: &str, mark: &str, ended: &Ended) -> Result<(ToolResult, bool), ToolError> {
    let said = read(&ended.output, mark);
    let refused = |why: String| Err(ToolError::Refused(why));
    match ended.exit {
        Exit::Code(NO_SUCH_PATH) if said.dir.is_empty() => {
            return refused(format!(
                "{path} is no folder that can be entered. Give the project's folder as path. Nothing was run."
            ));
        }
        Exit::Code(MANY_PROJECTS) if said.dir.is_empty() => {
            return refused(format!(
                "{path} is no project itself, and several are in it: {}. Give one as path. Nothing was run.",
                text::one_line(&said.projects, 500)
            ));
        }
        _ => {}
    }
    let mut sections = Vec::new();
    let mut verdicts = Vec::new();
    if let Some((command, exit, output)) = &said.lint {
        let verdict = match exit.as_str() {
            "0" => "passed",
            "missing" => "skipped: ruff is not installed",
            "" => "did not end",
            _ => "failed",
        };
        verdicts.push(format!("lint {verdict}"));
        let shown = text::strip(output);
        let shown = if shown.trim().is_empty() { "(no output)" } else { shown.trim() };
        sections.push(format!("== lint: {command} ==\n{shown}"));
    }
    let (ending, hint) = output::ending(&ended.exit);
    let hint = if ended.exit == Exit::TimedOut { Some(SLOW) } else { hint };
    let shown = output::show(&said.test_output, SHOWN - 2048);
    let none_found = |code: i32, command: &str| {
        let python = command.contains("pytest") || command.contains("unittest");
        python && (code == NO_TESTS || shown.text.contains("Ran 0 tests in"))
    };
    let tests = match &said.test {
        None if ended.exit == Exit::Code(NO_COMMAND) => {
            verdicts.push("no test command found".to_owned());
            sections.push(format!(
                "== tests ==\n{} has no test command that I know. Give command, or write tests first.",
                said.dir
            ));
            None
        }
        None => {
            verdicts.push(format!("tests did not begin ({ending})"));
            sections.push(format!("== tests ==\nThey did not begin: {ending}"));
            None
        }
        Some((command, Some(code))) if none_found(*code, command) => {
            verdicts.push("no tests found".to_owned());
            sections.push(format!("== tests: {command} ==\nIt found no tests.\n{}", shown.text));
            None
        }
        Some((command, Some(code))) => {
            verdicts.push(if *code == 0 {
                "tests passed".to_owned()
            } else {
                format!("tests failed (exit code {code})")
            });
            sections.push(format!("== tests: {command} ==\nexit code: {code}\n{}", shown.text));
            Some(*code == 0)
        }
        Some((command, None)) => {
            verdicts.push(format!("tests {ending}"));
            sections.push(format!("== tests: {command} ==\n{ending}\n{}", shown.text));
            // A stop says nothing about them; any other end is a failure.
            (ended.exit != Exit::Killed).then_some(false)
        }
    };
    sections.extend(hint.map(|hint| format!("[{hint}]")));
    let ok = tests == Some(true) && said.lint.as_ref().is_none_or(|(_, exit, _)| exit == "0" || exit == "missing");
    let verdict = verdicts.join(", ");
    let text = format!("[{}] {verdict} in {}\n{}", if ok { "PASS" } else { "FAIL" }, said.dir, sections.join("\n"));
    let mut result = if ok { ToolResult::good(verdict, text) } else { ToolResult::bad(verdict, text) };
    result.facts.tests = tests;
    Ok((result, shown.cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(exit: Exit, output: &str) -> Ended {
        Ended { exit, output: Captured { head: output.to_owned().into(), ..Captured::default() } }
    }

    fn told(exit: Exit, output: &str) -> ToolResult {
        report("/workspace", "@@m", &ended(exit, output)).expect("is no refusal").0
    }

    const LINTED: &str = "@@m dir /workspace/site\n@@m lint ruff check .\nAll checks passed!\n@@m lint-exit 0\n";

    #[test]
    fn a_passing_project_has_two_sections() {
        let result = told(Exit::Code(0), &format!("{LINTED}@@m test pytest -v\n2 passed\n@@m test-exit 0\n"));
        insta::assert_snapshot!(result.text, @r#"
        [PASS] lint passed, tests passed in /workspace/site
        == lint: ruff check . ==
        All checks passed!
        == tests: pytest -v ==
        exit code: 0
        2 passed
        "#);
        assert_eq!((result.ok, result.facts.tests), (true, Some(true)));
        assert_eq!(result.summary, "lint passed, tests passed");
    }

    #[test]
    fn a_failure_is_told_apart() {
        let lint = told(
            Exit::Code(1),
            "@@m dir /w\n@@m lint ruff check .\nF401 unused\n@@m lint-exit 1\n@@m test pytest\nok\n@@m test-exit 0\n",
        );
        assert!(lint.text.starts_with("[FAIL] lint failed, tests passed in /w\n"), "{}", lint.text);
        assert_eq!((lint.ok, lint.facts.tests), (false, Some(true)));
        let tests = told(Exit::Code(1), "@@m dir /w\n@@m test go test ./...\nboom\n@@m test-exit 2\n");
        insta::assert_snapshot!(tests.text, @r#"
        [FAIL] tests failed (exit code 2) in /w
        == tests: go test ./... ==
        exit code: 2
        boom
        "#);
        assert_eq!((tests.ok, tests.facts.tests), (false, Some(false)));
    }

    #[test]
    fn what_is_no_test_result_is_none() {
        let none = told(Exit::Code(NO_COMMAND), "@@m dir /w\n@@m none \n");
        assert!(none.text.starts_with("[FAIL] no test command found in /w"), "{}", none.text);
        assert_eq!(none.facts.tests, None);
        let empty = told(Exit::Code(5), "@@m dir /w\n@@m test python3 -m pytest -v\nno tests ran\n@@m test-exit 5\n");
        assert_eq!((empty.ok, empty.facts.tests), (false, None));
        let late = told(Exit::TimedOut, "@@m dir /w\n@@m test make test\nworking\n");
        assert!(late.text.contains("timed out") && late.text.contains("working"), "{}", late.text);
        assert!(late.text.contains("raise timeout_seconds") && !late.text.contains("background"), "{}", late.text);
        assert_eq!(late.facts.tests, Some(false));
        assert_eq!(told(Exit::Killed, "@@m dir /w\n@@m test make test\n").facts.tests, None);
        let many = report("/w", "@@m", &ended(Exit::Code(MANY_PROJECTS), "@@m many a b\n")).expect_err("is refused");
        assert!(many.to_string().contains("several are in it: a b"), "{many}");
    }

    #[test]
    fn only_the_last_mark_ends_the_tests() {
        let result = told(Exit::Code(1), "@@m dir /w\n@@m test make test\n@@m test-exit 0\nmore\n@@m test-exit 1\n");
        assert_eq!(result.facts.tests, Some(false));
        assert!(result.text.ends_with("@@m test-exit 0\nmore"), "{}", result.text);
    }

    #[test]
    fn marks_are_found_around_a_flood() {
        let head = format!("{LINTED}@@m test pytest\n{}", "\u{fffd}a\n".repeat(2000));
        let tail = format!("{}3 failed\n@@m test-exit 1\n", "b\n".repeat(6000));
        let output = Captured {
            head: head.into(),
            tail: tail.into(),
            omitted: 1_000_000,
            log: Some("/home/agent/x.log".into()),
            ended_leftovers: 0,
            spooled: None,
        };
        let (result, cut) = report("/w", "@@m", &Ended { exit: Exit::Code(1), output }).expect("is no refusal");
        assert!(result.text.contains("All checks passed!") && result.text.contains("3 failed"));
        assert!(cut && !result.text.contains("@@m"));
        assert!(result.text.len() < SHOWN + 1024);
    }
}
