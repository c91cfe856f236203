//! `run_command`: a command line in the sandbox, to its end or in the background; later also a background job's output
//! and its end.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use super::{Access, Tool, ToolContext, ToolLimits, ToolResult, error::ToolError, exec, files, jobs, output};
use crate::{
    sandbox::{Command, Ended, Exit, Sandbox, User},
    text,
};

/// A command that takes so long beside a background job waits for it, as `tail -f` and `wait` do.
const A_WHILE: Duration = Duration::from_secs(2);

pub(super) struct RunCommand;

/// The arguments. What their comments say is what models read.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    command: Option<String>,
    /// Default /workspace.
    #[serde(alias = "cwd")]
    workdir: Option<String>,
    /// With job: wait so long for news.
    timeout_seconds: Option<u64>,
    /// Runs on; returns a job id.
    #[serde(default)]
    background: bool,
    /// To install Debian packages.
    #[serde(default)]
    as_root: bool,
    /// Instead of command: read this job's output.
    job: Option<String>,
    /// End the job.
    #[serde(default)]
    stop: bool,
}

impl Tool for RunCommand {
    const NAME: &'static str = "run_command";
    const ACCESS: Access = Access::Exclusive;
    const EXAMPLE: &'static str = r#"{"command":"ls -la"}"#;
    type Arguments = Arguments;

    fn description(limits: &ToolLimits, _vision: bool) -> String {
        format!(
            "Run a bash command. Returns exit code and output; the whole of a long one is in a file that it names. No \
             terminal, no input. Limit {} s, or timeout_seconds (at most {}). What it leaves running is ended: start \
             servers with background=true.",
            limits.command.as_secs(),
            limits.longest.as_secs(),
        )
    }

    fn label(arguments: &Arguments) -> String {
        match (&arguments.command, &arguments.job) {
            (Some(command), _) => text::one_line(command, 80),
            (None, Some(job)) if arguments.stop => format!("end {}", text::one_line(&jobs::id_given(job), 20)),
            (None, Some(job)) => format!("output of {}", text::one_line(&jobs::id_given(job), 20)),
            (None, None) => Self::NAME.to_owned(),
        }
    }

    async fn run(context: &ToolContext, arguments: Arguments) -> Result<ToolResult, ToolError> {
        match Wanted::of(&arguments)? {
            Wanted::Job(job) => job_of(context, &arguments, &job).await,
            Wanted::Command(line) if arguments.background => {
                let sandbox = context.sandbox().await?;
                let mut command = command(context, line, &arguments);
                command.timeout = arguments.timeout_seconds.filter(|it| *it > 0).map(Duration::from_secs);
                jobs::start(context, &sandbox, line, command).await
            }
            Wanted::Command(line) => {
                let sandbox = context.sandbox().await?;
                let begun = Instant::now();
                let ended = exec::run(context, &sandbox, command(context, line, &arguments)).await?;
                let mut result = report(context, &sandbox, line, &arguments, &ended).await;
                let waits = naps(line) || begun.elapsed() >= A_WHILE;
                result.facts.waits = waits && jobs::any_runs(context, &sandbox).await;
                Ok(result)
            }
        }
    }

    async fn resume(context: &ToolContext, arguments: Arguments, boot_id: &str) -> Result<ToolResult, ToolError> {
        match Wanted::of(&arguments)? {
            // To look again changes nothing, and neither does ending what has ended.
            Wanted::Job(job) => job_of(context, &arguments, &job).await,
            Wanted::Command(line) if arguments.background => jobs::resume(context, line, boot_id).await,
            Wanted::Command(line) => {
                let (sandbox, ended) = exec::resume(context, context.call.as_str(), boot_id).await?;
                let mut result = report(context, &sandbox, line, &arguments, &ended).await;
                result.facts.waits = naps(line) && jobs::any_runs(context, &sandbox).await;
                Ok(result)
            }
        }
    }
}

/// Which of its two uses a call makes.
enum Wanted<'a> {
    Command(&'a str),
    Job(String),
}

impl<'a> Wanted<'a> {
    fn of(arguments: &'a Arguments) -> Result<Self, ToolError> {
        let refused = |why: &str| Err(ToolError::Refused(why.to_owned()));
        match (&arguments.command, &arguments.job) {
            (Some(_), Some(_)) => refused("Give either command or job, not both. Nothing was run."),
            (None, None) => refused(
                "Nothing to run: give a command, e.g. {\"command\":\"ls -la\"}, or the job whose output to read.",
            ),
            (Some(_), None) if arguments.stop => {
                refused("stop belongs to job, e.g. {\"job\":\"job-1a2b3c4d\",\"stop\":true}. Nothing was run.")
            }
            (Some(command), None) if command.contains('\0') => {
                refused("The command contains a NUL byte, which no program can be given. Nothing was run.")
            }
            (Some(command), None) => Ok(Self::Command(command)),
            (None, Some(job)) => Ok(Self::Job(jobs::id_given(job))),
        }
    }
}

/// Looks at a job, after a wait or after having ended it.
async fn job_of(context: &ToolContext, arguments: &Arguments, job: &str) -> Result<ToolResult, ToolError> {
    if arguments.stop {
        let sandbox = context.sandbox().await?;
        context.unless_stopped(sandbox.kill(job)).await?;
        return jobs::status(context, job, None).await;
    }
    let wait = arguments.timeout_seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    jobs::status(context, job, wait.map(|wait| wait.min(context.limits.longest))).await
}

fn command(context: &ToolContext, line: &str, arguments: &Arguments) -> Command {
    let wanted = arguments.timeout_seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let limit = wanted.unwrap_or(context.limits.command).min(context.limits.longest);
    let mut command = context.command(&["bash", "-c", line], limit);
    command.cwd = arguments.workdir.as_deref().map(files::absolute).unwrap_or_default();
    if arguments.as_root {
        command.user = User::Root;
        command.env.push(("DEBIAN_FRONTEND".into(), "noninteractive".into()));
    }
    command
}

/// Returns the result of a command that ran to its end.
async fn report(
    context: &ToolContext,
    sandbox: &Sandbox,
    line: &str,
    arguments: &Arguments,
    ended: &Ended,
) -> ToolResult {
    let stopped = context.cancel.is_cancelled() && ended.exit == Exit::Killed;
    let (ending, hint) = if stopped {
        ("stopped by the person: it and everything it had started were ended".to_owned(), None)
    } else {
        output::ending(&ended.exit)
    };
    let output = exec::written(context, sandbox, context.call.as_str(), &ended.output).await;
    let mut notes: Vec<String> =
        hint.into_iter().chain(hint_for(line, arguments, &output)).map(str::to_owned).collect();
    let leftovers = ended.output.ended_leftovers;
    if leftovers > 0 && ended.exit == Exit::Code(0) {
        notes.push(format!(
            "{leftovers} process(es) that it left running were ended; use background=true for what shall stay"
        ));
    }
    let longest = context.limits.longest.as_secs();
    if arguments.timeout_seconds.is_some_and(|seconds| seconds > longest) {
        notes.push(format!("timeout_seconds is {longest} at most; that was used"));
    }
    let notes = notes.iter().fold(String::new(), |notes, note| notes + "\n[" + note.as_str() + "]");
    let text = format!("{ending}\n{output}{notes}");
    let label = text::one_line(line, 80);
    let mut result = if output::succeeded(&ended.exit) {
        ToolResult::good(label, text)
    } else {
        let ending = ending.split(':').next().filter(|_| !matches!(ended.exit, Exit::Code(_))).unwrap_or(&ending);
        ToolResult::bad(format!("{label} ({ending})"), text)
    };
    result.facts.tests = test_outcome(line, &ended.exit);
    result
}

/// Returns a hint for a command that failed because it had no root rights.
fn hint_for(line: &str, arguments: &Arguments, output: &str) -> Option<&'static str> {
    let no_root = !arguments.as_root
        && (line.contains("sudo ") && output.contains("sudo: ")
            || output.contains("are you root?")
            || output.contains("requires superuser privilege"));
    no_root.then_some("there is no sudo here: give as_root=true to install Debian packages")
}

/// Returns whether a command sleeps before it looks at something.
fn naps(line: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').any(|word| word == "sleep")
}

/// Returns the outcome of a command that plainly is a test run. One behind a pipe or followed by something else does
/// not tell: its exit code is not the tests'.
fn test_outcome(line: &str, exit: &Exit) -> Option<bool> {
    const RUNNERS: &[&str] = &[
        "pytest",
        "cargo test",
        "cargo nextest",
        "go test",
        "npm test",
        "npm run test",
        "pnpm test",
        "yarn test",
        "bun test",
        "make test",
        "just test",
        "unittest",
        "jest",
        "vitest",
        "tox",
        "nox",
        "ctest",
        "mvn test",
        "gradlew test",
        "deno test",
    ];
    let words = |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    let last = line.rsplit("&&").next().unwrap_or(line).trim();
    if last.trim_end_matches("2>&1").contains(['|', ';', '\n', '&', '#']) {
        return None;
    }
    let given = words(last);
    let is_run = RUNNERS.iter().any(|runner| {
        let runner = words(runner);
        given.windows(runner.len()).any(|window| {
            window.iter().zip(&runner).all(|(word, wanted)| word == wanted || word.ends_with(&format!("/{wanted}")))
        })
    });
    let only_asks =
        given.iter().any(|word| ["--version", "--help", "--collect-only", "install", "add"].contains(&word.as_str()));
    match exit {
        Exit::Code(code) if is_run && !only_asks => Some(*code == 0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_sleeps_waits() {
        for line in ["sleep 5; cat log", "until [ -e x ]; do sleep 1;done", "/bin/sleep 3 && ls"] {
            assert!(naps(line), "{line}");
        }
        for line in ["cat sleep_log", "ls", "./no-sleep", "time.sleeper"] {
            assert!(!naps(line), "{line}");
        }
    }

    #[test]
    fn a_plain_test_run_tells_its_outcome() {
        let outcome = |line: &str| test_outcome(line, &Exit::Code(1));
        for run in [
            "cargo test",
            "cd x && pytest -q",
            "python3 -m pytest 2>&1",
            ".venv/bin/pytest",
            "CI=1 npm run test -- --watch=false",
        ] {
            assert_eq!(outcome(run), Some(false), "{run}");
        }
        for other in [
            "pytest | tail",
            "pytest; true",
            "pytest || true",
            "pip install pytest",
            "cat pytest.ini",
            "pytest --version",
            "npm run test && echo ok",
            "cargo test &",
            "echo test",
            "ls # pytest",
        ] {
            assert_eq!(outcome(other), None, "{other}");
        }
        assert_eq!(test_outcome("go test ./...", &Exit::Code(0)), Some(true));
        assert_eq!(test_outcome("go test ./...", &Exit::TimedOut), None);
    }
}
