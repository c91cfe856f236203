//! Tells what has changed in the workspace since a call began, and since its task began, by `survey.sh` in the sandbox.
//!
//! A task is a turn; the state of its files at its beginning is kept in the sandbox, so that a restart of the server
//! forgets nothing. Nothing in the repositories that are worked on is touched. Called by the tools that let coding
//! agents work, and by `guides`, whose script runs the same way.

use std::time::Duration;

use bytes::BytesMut;

use super::{
    context::{Edit, ToolContext},
    error::ToolError,
    exec, files,
    output::MARK,
};
use crate::{
    ids::{digest, random},
    sandbox::{Command, Exit, Sandbox},
    text,
};

const SCRIPT: &str = include_str!("survey.sh");
/// How long one look may take.
const LIMIT: Duration = Duration::from_mins(1);
/// The most bytes that are read of what the script tells.
const MOST: usize = 512 * 1024;

/// Stores the state of the files before a call does its work.
pub(super) async fn begin(context: &ToolContext, sandbox: &Sandbox) -> Result<(), ToolError> {
    look(context, sandbox, "begin", "begin").await.map(drop)
}

/// Returns what the call has changed, with paths as people read them; `None` if that cannot be told.
pub(super) async fn changes(context: &ToolContext, sandbox: &Sandbox) -> Result<Option<Vec<Edit>>, ToolError> {
    Ok(look(context, sandbox, "changes", "changes").await?.map(|told| edits(&told, &mark(context))))
}

/// Returns what was changed since the task began or, if nothing was, the newest work in the repositories: what the
/// branch has beyond its upstream, or else its last commit. It is empty if there is nothing or it cannot be told. `nth`
/// is the place among the call's agents of the one that asks.
pub(super) async fn diff(context: &ToolContext, sandbox: &Sandbox, nth: usize) -> Result<String, ToolError> {
    shown(context, sandbox, "diff", nth).await
}

/// Returns what was changed since the call began; empty if there is nothing or it cannot be told. `nth` is the place
/// among the call's agents of the last one that worked.
pub(super) async fn so_far(context: &ToolContext, sandbox: &Sandbox, nth: usize) -> Result<String, ToolError> {
    shown(context, sandbox, "so-far", nth).await
}

async fn shown(context: &ToolContext, sandbox: &Sandbox, what: &str, nth: usize) -> Result<String, ToolError> {
    let told = look(context, sandbox, what, &format!("{what}-{nth}")).await?.unwrap_or_default();
    let mark = format!("{} root ", mark(context));
    // Paths in it begin at the folder that is named before them.
    Ok(told.replace(&mark, "In "))
}

/// Returns the name by which the sandbox knows the call's task.
pub(super) fn task(context: &ToolContext) -> String {
    digest(&["task", context.turn.as_str()], 8)
}

fn mark(context: &ToolContext) -> String {
    format!("{MARK}{}", digest(&["survey", context.call.as_str()], 6))
}

/// Runs the script, as the command of the call that `name` names. Returns `None` if it cannot tell.
async fn look(context: &ToolContext, sandbox: &Sandbox, what: &str, name: &str) -> Result<Option<String>, ToolError> {
    let (mark, task) = (mark(context), task(context));
    let mut command =
        context.command(&["sh", "-c", SCRIPT, "survey", &mark, &task, context.call.as_str(), what], LIMIT);
    // It may be looked at once more, by a server that takes the call up.
    command.id = format!("{}-{name}-{}", context.call, random(4));
    let (exit, told) = told(context, sandbox, command).await?;
    let blind = told.lines().any(|line| line.strip_prefix(&*mark).is_some_and(|word| word.starts_with(" no-git")));
    if blind || !super::output::succeeded(&exit) {
        tracing::debug!(room = %context.address, ?exit, blind, "the workspace could not be surveyed");
        return Ok(None);
    }
    Ok(Some(told))
}

/// Runs one of the server's scripts to its end and returns what it tells, clean and bounded.
pub(super) async fn told(
    context: &ToolContext,
    sandbox: &Sandbox,
    command: Command,
) -> Result<(Exit, String), ToolError> {
    let id = command.id.clone();
    let work = async {
        let mut process = sandbox.spawn(command).await?;
        let mut bytes = BytesMut::new();
        while let Some(piece) = process.next().await {
            bytes.extend_from_slice(&piece[..piece.len().min(MOST - bytes.len())]);
        }
        process.wait().await.map(|ended| (ended.exit, bytes))
    };
    let (exit, bytes) = match context.unless_stopped(work).await {
        Err(ToolError::Stopped) => {
            // What the call began must not run on behind the stop.
            exec::stop(context, sandbox, &id).await?;
            return Err(ToolError::Stopped);
        }
        ended => ended?,
    };
    Ok((exit, text::strip(&bytes)))
}

/// Reads what the script tells of changes: a line for each folder, then `added<TAB>removed<TAB>path`.
fn edits(told: &str, mark: &str) -> Vec<Edit> {
    let mut folder = String::new();
    let mut edits = Vec::new();
    for line in told.lines() {
        if let Some(word) = line.strip_prefix(mark) {
            if let Some(root) = word.strip_prefix(" root ") {
                root.clone_into(&mut folder);
            }
            continue;
        }
        let mut parts = line.splitn(3, '\t');
        let (Some(added), Some(removed), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        // A file that is no text has no lines.
        let count = |text: &str| text.parse().unwrap_or(0);
        edits.push(Edit {
            path: files::shown(&format!("{folder}/{path}")),
            added: count(added),
            removed: count(removed),
        });
    }
    edits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_folder_by_folder() {
        let told = "@@m root /workspace/site\n12\t3\tsrc/login.rs\n-\t-\tlogo.png\n@@m many /workspace\n@@m root /workspace\n1\t0\ta b.txt\nwarning: x\n";
        let shown: Vec<_> = edits(told, "@@m")
            .into_iter()
            .map(|edit| format!("{} +{} −{}", edit.path, edit.added, edit.removed))
            .collect();
        assert_eq!(shown, ["site/src/login.rs +12 −3", "site/logo.png +0 −0", "a b.txt +1 −0"]);
        assert!(edits("", "@@m").is_empty());
    }
}
