//! Jobs: commands that run in the background. Starts one, and tells how one stands and what it wrote.
//!
//! Called by `run_command`, which decides what a call wants.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{
    context::{ToolContext, ToolResult},
    error::ToolError,
    exec,
    output::{self, SHOWN},
};
use crate::{
    ids::{CallId, digest},
    sandbox::{Captured, Command, Ended, Exit, Lookup, Process, Sandbox, SandboxError},
    text,
};

/// How long a background command is watched, so that one that fails at once says so at once.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// How a job's id begins.
const PREFIX: &str = "job-";
/// How often a job is looked at anew when the connection breaks.
const LOOKS: u32 = 4;
/// A wait in which a job has written something ends with the next silence of this length.
const PAUSE: Duration = Duration::from_millis(500);
/// Without such a silence the wait ends after this time: a build that writes all the time is worth a longer look.
const LONGEST_BURST: Duration = Duration::from_secs(10);
/// What a running job has written already comes at once: after a silence of this length all of it was read.
const QUIET: Duration = Duration::from_millis(200);
/// The most bytes that are read of a job that writes without a pause: more than sandboxd keeps in memory.
const LOOK_BYTES: usize = 256 * 1024;

/// Returns the id of the job that a call starts: short enough for a model to copy.
pub(super) fn id_of(call: &CallId) -> String {
    format!("{PREFIX}{}", digest(&[call.as_str()], 4))
}

/// Returns the id that a model means, which may leave out its beginning.
pub(super) fn id_given(given: &str) -> String {
    let given = given.trim();
    if given.starts_with(PREFIX) { given.to_owned() } else { format!("{PREFIX}{given}") }
}

/// Starts `command`, which runs the command line `line`, as a job.
pub(super) async fn start(
    context: &ToolContext,
    sandbox: &Sandbox,
    line: &str,
    mut command: Command,
) -> Result<ToolResult, ToolError> {
    let id = id_of(&context.call);
    command.id.clone_from(&id);
    command.background = true;
    let work = async {
        let process = context.unless_stopped(sandbox.spawn(command)).await?;
        started(context, sandbox, &id, line, process).await
    };
    let result = work.await;
    if matches!(result, Err(ToolError::Stopped)) {
        // What a stopped call started must not stay; the outcome of ending it changes nothing for the model.
        let _ = exec::stop(context, sandbox, &id).await;
    }
    result
}

/// Returns the result of a call that started a job, if it did, before the server crashed, under `boot_id`.
pub(super) async fn resume(context: &ToolContext, line: &str, boot_id: &str) -> Result<ToolResult, ToolError> {
    let sandbox = context.sandbox().await?;
    if sandbox.boot_id() != boot_id {
        return Err(ToolError::Unknown);
    }
    let id = id_of(&context.call);
    match context.unless_stopped(sandbox.lookup(&id)).await? {
        Lookup::Running(process) => started(context, &sandbox, &id, line, process).await,
        Lookup::Ended(ended) => Ok(report(context, &sandbox, &id, &ended).await),
        Lookup::Forgotten => Err(ToolError::Forgotten),
        Lookup::Unknown => Err(ToolError::NotRun),
    }
}

/// Returns the result of a background command: what it has done in its first moments.
async fn started(
    context: &ToolContext,
    sandbox: &Sandbox,
    id: &str,
    line: &str,
    process: Process,
) -> Result<ToolResult, ToolError> {
    let label = format!("{} (in the background)", text::one_line(line, 70));
    match follow(context, process, Patience::pause(FIRST_LOOK, FIRST_LOOK)).await? {
        Look::Ended(ended) => {
            let mut result = report(context, sandbox, id, &ended).await;
            result.summary = label;
            Ok(result)
        }
        Look::Running { output, .. } => Ok(ToolResult::good(
            label,
            format!(
                "Running in the background as {id}. Its output so far:\n{}\n[read on with job=\"{id}\", wait for more with \
                 job and timeout_seconds, end it with job and stop=true; it ends with the sandbox]",
                output::show(&output, SHOWN).text
            ),
        )),
    }
}

/// Returns how a job stands. With a `wait` it first waits at most so long for something that the model has not seen, or
/// for the job's end; a message in the room ends the wait.
pub(super) async fn status(context: &ToolContext, job: &str, wait: Option<Duration>) -> Result<ToolResult, ToolError> {
    let until = wait.map(|wait| Instant::now() + wait);
    let mut tries = 1;
    loop {
        let sandbox = context.sandbox().await?;
        match status_once(context, &sandbox, job, until).await {
            // The job went on meanwhile: it is looked at again.
            Err(ToolError::Sandbox(SandboxError::Disconnected)) if tries < LOOKS => tries += 1,
            result => return result,
        }
    }
}

async fn status_once(
    context: &ToolContext,
    sandbox: &Sandbox,
    job: &str,
    until: Option<Instant>,
) -> Result<ToolResult, ToolError> {
    let process = match context.unless_stopped(sandbox.lookup(job)).await? {
        Lookup::Forgotten => {
            return Err(ToolError::Refused(format!("{job} has ended; its output is no longer kept.")));
        }
        Lookup::Unknown => {
            return Err(ToolError::Refused(format!(
                "There is no job {job}: it was never started, or the sandbox was restarted since. Start the command again \
                 if it is still needed."
            )));
        }
        Lookup::Ended(ended) => return Ok(report(context, sandbox, job, &ended).await),
        Lookup::Running(process) => process,
    };
    let patience = until.map_or_else(Patience::glance, |until| Patience::News { until });
    match follow(context, process, patience).await? {
        Look::Ended(ended) => Ok(report(context, sandbox, job, &ended).await),
        Look::Running { output, found } => {
            let state = match found {
                Found::Output => "is running",
                Found::Nothing => "is still running and has written nothing new",
                Found::Word => "is running; somebody has written in the room, so it was not waited for any longer",
            };
            let output = output::show(&output, SHOWN).text;
            let text = format!("{job} {state}. Its output so far:\n{output}");
            let mut result = ToolResult::good(format!("{job} runs"), text);
            result.facts.waits = true;
            Ok(result)
        }
    }
}

/// Returns whether any job of the room runs.
pub(super) async fn any_runs(context: &ToolContext, sandbox: &Sandbox) -> bool {
    let running = context.unless_stopped(sandbox.running()).await;
    running.is_ok_and(|running| running.iter().any(|command| command.id.starts_with(PREFIX)))
}

async fn report(context: &ToolContext, sandbox: &Sandbox, job: &str, ended: &Ended) -> ToolResult {
    let (ending, hint) = output::ending(&ended.exit);
    let output = exec::written(context, sandbox, &format!("{}-{job}", context.call), &ended.output).await;
    let hint = hint.map(|hint| format!("\n[{hint}]")).unwrap_or_default();
    let text = format!("{job} has ended.\n{ending}\n{output}{hint}");
    // A job that was ended did what was asked of it.
    let ok = matches!(ended.exit, Exit::Code(0) | Exit::Killed);
    ToolResult { ok, ..ToolResult::good(format!("{job} ended"), text) }
}

/// What a look at a process finds.
enum Look {
    Ended(Ended),
    Running { output: Captured, found: Found },
}

/// What ended a look at a process that runs on.
#[derive(Clone, Copy)]
enum Found {
    /// It has written, or was only glanced at.
    Output,
    /// The wait was over, and it had written nothing.
    Nothing,
    /// Somebody spoke in the room.
    Word,
}

/// How long a look goes on.
#[derive(Clone, Copy)]
enum Patience {
    /// Until something comes that the model has not seen.
    News { until: Instant },
    /// Until nothing comes for a while: what is written together is shown together.
    Pause { quiet: Duration, end: Instant },
}

impl Patience {
    fn pause(quiet: Duration, longest: Duration) -> Self {
        Self::Pause { quiet, end: Instant::now() + longest }
    }

    /// Reads what is there.
    fn glance() -> Self {
        Self::pause(QUIET, FIRST_LOOK)
    }

    fn deadline(self) -> Instant {
        match self {
            Self::News { until } => until,
            Self::Pause { quiet, end } => end.min(Instant::now() + quiet),
        }
    }
}

/// Reads what a process writes for as long as `patience` says, or until it ends.
async fn follow(context: &ToolContext, mut process: Process, mut patience: Patience) -> Result<Look, ToolError> {
    let job = process.id().to_owned();
    let seen = context.jobs.of(&job);
    let mut written = Vec::new();
    let mut found = Found::Output;
    loop {
        let waits = matches!(patience, Patience::News { .. });
        let piece = tokio::select! {
            biased;
            () = context.cancel.cancelled() => return Err(ToolError::Stopped),
            () = context.heard.cancelled(), if waits => {
                found = Found::Word;
                patience = Patience::glance();
                continue;
            }
            piece = timeout_at(patience.deadline(), process.next()) => piece,
        };
        match piece {
            Ok(Some(piece)) => {
                let room = LOOK_BYTES - written.len();
                written.extend_from_slice(&piece[..piece.len().min(room)]);
                if waits && process.written() > seen {
                    patience = Patience::pause(PAUSE, LONGEST_BURST);
                }
                let over = matches!(patience, Patience::Pause { end, .. } if Instant::now() >= end);
                if written.len() < LOOK_BYTES && !over {
                    continue;
                }
            }
            Ok(None) => return Ok(Look::Ended(context.unless_stopped(process.wait()).await?)),
            Err(_) if waits => found = Found::Nothing,
            Err(_) => {}
        }
        context.jobs.note(&job, process.written());
        return Ok(Look::Running { output: Captured { head: written.into(), ..Captured::default() }, found });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_found_by_what_models_write() {
        assert_eq!(id_given(" job-1a2b3c4d "), "job-1a2b3c4d");
        assert_eq!(id_given("1a2b3c4d"), "job-1a2b3c4d");
        assert_eq!(id_of(&"x".into()).len(), 12);
    }
}
