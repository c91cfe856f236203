//! What a room's agents remember from one run to the next, as files in its workspace: `AGENTS.md` with what people want
//! kept in mind, and `status.md` with what was done, which the server writes, since who plans or reviews cannot.
//!
//! Qwen Code reads `AGENTS.md` by itself and Gemini CLI `GEMINI.md`; both follow `@` to other files. Where the workspace is a
//! repository of its own nothing is put into it. All is read and written inside the sandbox; nothing of it is believed.

use super::{ToolContext, error::ToolError};
use crate::{
    ids,
    sandbox::{Sandbox, SandboxError},
    text,
};

/// What `AGENTS.md` begins with.
pub(super) const AGENTS: &str = "\
# For all who work in this room

What is to be kept in mind here, a line each. What was done of late:

@status.md
";
/// What leads Gemini CLI there.
const GEMINI: &str = "@AGENTS.md\n";

const WORKSPACE: &str = "/workspace";
const STATUS: &str = "/workspace/status.md";
/// The most bytes that are kept of `status.md`: agents read it whole.
const KEPT: u64 = 8 * 1024;
/// The most bytes of one of its lines.
const LINE: usize = 300;

/// Makes the files that are not there. `false`: there is no place for them.
pub(super) async fn prepare(context: &ToolContext, sandbox: &Sandbox) -> Result<bool, ToolError> {
    let names = match context.unless_stopped(sandbox.list_directory(WORKSPACE)).await {
        Ok(Some(names)) => names,
        Err(ToolError::Stopped) => return Err(ToolError::Stopped),
        _ => return Ok(false),
    };
    let is_there = |name: &str| names.iter().any(|it| it == name);
    if is_there(".git") {
        return Ok(false);
    }
    for (name, content) in [("AGENTS.md", AGENTS), ("GEMINI.md", GEMINI), ("status.md", "")] {
        if !is_there(name) {
            write(context, sandbox, &format!("{WORKSPACE}/{name}"), content.to_owned()).await?;
        }
    }
    Ok(true)
}

/// Adds a line to `status.md`, and lets go of the oldest beyond what is kept.
pub(super) async fn add(context: &ToolContext, sandbox: &Sandbox, line: &str) -> Result<(), ToolError> {
    if !prepare(context, sandbox).await? {
        return Ok(());
    }
    let before = match context.unless_stopped(last(sandbox)).await {
        Err(ToolError::Stopped) => return Err(ToolError::Stopped),
        before => before.unwrap_or_default(),
    };
    let line = text::one_line(line, LINE);
    let time = context.sandboxes.clock().minute();
    write(context, sandbox, STATUS, format!("{before}[{time}] {line}\n")).await
}

/// Returns the last whole lines of `status.md`.
async fn last(sandbox: &Sandbox) -> Result<String, SandboxError> {
    let file = sandbox.read_file(STATUS, 0, KEPT).await?;
    if file.size <= KEPT {
        let whole = text::strip(&file.bytes);
        return Ok(if whole.is_empty() || whole.ends_with('\n') { whole } else { whole + "\n" });
    }
    let tail = text::strip(&sandbox.read_file(STATUS, file.size - KEPT, KEPT).await?.bytes);
    let begin = tail.find('\n').map_or(tail.len(), |at| at + 1);
    Ok(tail[begin..].to_owned())
}

/// A full disk or a name that the agents have spoilt costs the memory, and nothing else.
async fn write(context: &ToolContext, sandbox: &Sandbox, path: &str, content: String) -> Result<(), ToolError> {
    let id = format!("{}-memory-{}", context.call, ids::random(4));
    match context.unless_stopped(sandbox.write_file(&id, path, content.into())).await {
        Err(ToolError::Stopped) => Err(ToolError::Stopped),
        Err(error) => {
            tracing::debug!(room = %context.address, %error, path, "nothing is kept in mind");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

/// Returns what a room's agents keep in mind, as people read it: the two files' names and texts, bounded, those without
/// any left out.
pub(crate) async fn files(sandbox: &Sandbox) -> Vec<(&'static str, String)> {
    const SHOWN: u64 = 4 * 1024;
    let mut files = Vec::new();
    for name in ["AGENTS.md", "status.md"] {
        let path = format!("{WORKSPACE}/{name}");
        let text = if name == "status.md" {
            last(sandbox).await.unwrap_or_default()
        } else {
            sandbox.read_file(&path, 0, SHOWN).await.map(|file| text::strip(&file.bytes)).unwrap_or_default()
        };
        let text = text.trim().to_owned();
        if !text.is_empty() {
            files.push((name, text));
        }
    }
    files
}
