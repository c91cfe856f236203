//! What a task keeps in the sandbox between the calls of coding agents: its plan, and the agents' sessions.
//!
//! All of it comes out of the sandbox again and is believed as far as that: a plan is text, a session an id. Called by the
//! parent alone.

use super::super::{ToolContext, error::ToolError, files, survey};
use crate::{
    coding_agents::{Assigned, Role},
    ids,
    sandbox::Sandbox,
    text,
};

/// The most bytes that are kept of a plan, and read of a task's files.
const KEPT: usize = 64 * 1024;

/// The task's plan.
pub(super) const PLAN_FILE: &str = "plan.md";

/// The session of an agent in a role.
pub(super) fn session_file(role: Role, assigned: &Assigned) -> String {
    format!("{role}-{}.session", assigned.agent.program)
}

/// The process that an agent has left in a role. Another model of its is asked by another process.
pub(super) fn process_file(role: Role, assigned: &Assigned) -> String {
    let model = ids::digest(&["model", assigned.model.as_deref().unwrap_or_default()], 4);
    format!("{role}-{}-{model}.process", assigned.agent.program)
}

/// What is told of a run that has given way to another agent.
pub(super) fn given_way_file(run: &str) -> String {
    format!("{run}.given-way")
}

/// When an agent with its model has given way to another one the last time, in milliseconds since 1970.
pub(super) fn gave_way_file(assigned: &Assigned) -> String {
    let model = ids::digest(&["model", assigned.model.as_deref().unwrap_or_default()], 4);
    format!("{}-{model}.gave-way", assigned.agent.program)
}

fn path(context: &ToolContext, name: &str) -> String {
    format!("{}/.cache/matrix-agent/tasks/{}/{name}", files::HOME, survey::task(context))
}

/// How an agent that changes nothing is held to it.
pub(super) struct Held {
    /// A home of its own, so that it leaves nothing that others' shells and tools read.
    pub(super) environment: [(String, String); 2],
    /// Where alone it may write.
    pub(super) writable: Vec<String>,
}

/// Makes the home of a role, and says where an agent in it may write: there, to devices that keep nothing, and where its
/// hooks tell what it does.
pub(super) async fn held(context: &ToolContext, sandbox: &Sandbox, role: Role) -> Result<Held, ToolError> {
    let temporary = path(context, &format!("{role}/tmp"));
    keep(context, sandbox, &format!("{role}/tmp/.keep"), "").await?;
    let home = path(context, role.as_str());
    let writable = [home.as_str(), "/dev/null", "/dev/shm", "/dev/tty", "/workspace/.ipc"].map(str::to_owned).into();
    Ok(Held { environment: [("HOME".to_owned(), home), ("TMPDIR".to_owned(), temporary)], writable })
}

/// Returns what the task has kept under a name; `None` if that is nothing.
pub(super) async fn kept(context: &ToolContext, sandbox: &Sandbox, name: &str) -> Result<Option<String>, ToolError> {
    let path = path(context, name);
    match context.unless_stopped(sandbox.read_file(&path, 0, KEPT as u64)).await {
        Ok(file) => {
            let text = text::strip(&file.bytes);
            Ok((!text.trim().is_empty()).then_some(text))
        }
        Err(ToolError::Stopped) => Err(ToolError::Stopped),
        // The agents can remove or spoil it: then there is none.
        Err(_) => Ok(None),
    }
}

/// Keeps something for the task. A full disk or a folder that the agents have spoilt costs what was to be kept, and
/// nothing else.
pub(super) async fn keep(context: &ToolContext, sandbox: &Sandbox, name: &str, content: &str) -> Result<(), ToolError> {
    let id = format!("{}-{}", context.call, ids::random(4));
    let path = path(context, name);
    let content = text::cut_middle(content, KEPT);
    match context.unless_stopped(sandbox.write_file(&id, &path, content.into())).await {
        Err(ToolError::Stopped) => Err(ToolError::Stopped),
        Err(error) => {
            tracing::debug!(room = %context.address, %error, name, "nothing is kept for the task");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}
