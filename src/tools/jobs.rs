//! Background commands: how one begins, how it stands, what it wrote.
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
    sandbox::{Captured, Command, Ended, Exit, Lookup, Process, Sandbox},
    text,
};

/// How long a background command is watched, so that one that fails at once says so at once.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// What a running job has written comes at once; after so long a silence it was all.
const QUIET: Duration = Duration::from_millis(200);
/// A job that writes without a pause is read so far: more than is ever kept.
const LOOK_BYTES: usize = 256 * 1024;

/// Returns the id of the job that a call starts: short enough for a model to copy.
pub(super) fn id_of(call: &CallId) -> String {
    format!("job-{}", digest(&[call.as_str()], 4))
}

/// Returns the id that a model means.
pub(super) fn id_given(given: &str) -> String {
    let given = given.trim();
    if given.starts_with("job-") { given.to_owned() } else { format!("job-{given}") }
}

/// Starts `command`, the line `line`, as a job.
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
        let _ = exec::stop(sandbox, &id).await;
    }
    result
}

/// Takes up the job that a call started, if it did, before the server crashed: under `boot_id`.
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
    match first_look(context, process, FIRST_LOOK, FIRST_LOOK).await? {
        Look::Ended(ended) => {
            let mut result = report(context, sandbox, id, &ended).await;
            result.summary = label;
            Ok(result)
        }
        Look::Running(output) => Ok(ToolResult::good(
            label,
            format!(
                "Running in the background as {id}. Its output so far:\n{}\n[read on with job=\"{id}\", end it with job \
                 and stop=true; it ends with the sandbox]",
                output::show(&output, SHOWN).text
            ),
        )),
    }
}

/// Returns how a job stands.
pub(super) async fn look(context: &ToolContext, sandbox: &Sandbox, job: &str) -> Result<ToolResult, ToolError> {
    match context.unless_stopped(sandbox.lookup(job)).await? {
        Lookup::Forgotten => Err(ToolError::Refused(format!("{job} has ended; its output is no longer kept."))),
        Lookup::Unknown => Err(ToolError::Refused(format!(
            "There is no job {job}: it was never started, or the sandbox was restarted since. Start the command again if \
             it is still needed."
        ))),
        Lookup::Ended(ended) => Ok(report(context, sandbox, job, &ended).await),
        Lookup::Running(process) => match first_look(context, process, QUIET, FIRST_LOOK).await? {
            Look::Ended(ended) => Ok(report(context, sandbox, job, &ended).await),
            Look::Running(output) => Ok(ToolResult::good(
                format!("{job} runs"),
                format!("{job} is running. Its output so far:\n{}", output::show(&output, SHOWN).text),
            )),
        },
    }
}

async fn report(context: &ToolContext, sandbox: &Sandbox, job: &str, ended: &Ended) -> ToolResult {
    let (ending, hint) = output::ending(&ended.exit);
    let output = exec::written(context, sandbox, &format!("{}-{job}", context.call), &ended.output).await;
    let hint = hint.map(|hint| format!("\n[{hint}]")).unwrap_or_default();
    let text = format!("{job} has ended.\n{ending}\n{output}{hint}");
    // Having been ended is what was asked of it.
    let ok = matches!(ended.exit, Exit::Code(0) | Exit::Killed);
    ToolResult { ok, ..ToolResult::good(format!("{job} ended"), text) }
}

/// What a glance at a process finds.
enum Look {
    Ended(Ended),
    Running(Captured),
}

/// Reads what a process writes until it is `quiet` for so long, `limit` is over, or it ends.
async fn first_look(
    context: &ToolContext,
    mut process: Process,
    quiet: Duration,
    limit: Duration,
) -> Result<Look, ToolError> {
    let end = Instant::now() + limit;
    let mut written = Vec::new();
    loop {
        let next = timeout_at(end.min(Instant::now() + quiet), process.next());
        let piece = tokio::select! {
            biased;
            () = context.cancel.cancelled() => return Err(ToolError::Stopped),
            piece = next => piece,
        };
        match piece {
            Ok(Some(piece)) => {
                let room = LOOK_BYTES - written.len();
                written.extend_from_slice(&piece[..piece.len().min(room)]);
                if written.len() < LOOK_BYTES && Instant::now() < end {
                    continue;
                }
            }
            Ok(None) => return Ok(Look::Ended(context.unless_stopped(process.wait()).await?)),
            Err(_) => {}
        }
        return Ok(Look::Running(Captured { head: written.into(), ..Captured::default() }));
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
