//! What a task keeps in the sandbox between the calls of coding agents: its plan, and the agents' sessions.
//!
//! All of it comes out of the sandbox again and is believed as far as that: a plan is text, a session an id. Called by the
//! parent alone.

use super::super::{ToolContext, error::ToolError, files, survey};
use crate::{
    coding_agents::{Assigned, Role},
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

fn path(context: &ToolContext, name: &str) -> String {
    format!("{}/.cache/matrix-agent/tasks/{}/{name}", files::HOME, survey::task(context))
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
    let id = format!("{}-{}", context.call, name.split('.').next().unwrap_or_default());
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
