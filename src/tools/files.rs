//! Files of the sandbox as tools name and read them. The host opens none of them itself.

use bytes::{Bytes, BytesMut};

use super::{context::ToolContext, error::ToolError};
use crate::{
    sandbox::{FileProblem, FileSlice, Sandbox, SandboxError},
    text,
};

/// Where the work is; relative paths begin there.
const WORKSPACE: &str = "/workspace";
/// The most bytes of a path that the kernel takes.
const LONGEST: usize = 4095;
/// The sandbox user's home.
pub(super) const HOME: &str = "/home/agent";

/// Returns the path that a model means, from the root.
pub(super) fn absolute(path: &str) -> String {
    let path = path.trim();
    if path == "~" {
        HOME.to_owned()
    } else if let Some(rest) = path.strip_prefix("~/") {
        format!("{HOME}/{rest}")
    } else if path.starts_with('/') {
        path.to_owned()
    } else {
        let path = path.strip_prefix("./").unwrap_or(path);
        format!("{WORKSPACE}/{path}")
    }
}

/// Returns the path that a model means, if it can be one.
pub(super) fn named(path: &str) -> Result<String, ToolError> {
    let why = if path.trim().is_empty() {
        "path is empty"
    } else if path.contains('\0') {
        "path contains a NUL byte"
    } else if path.len() > LONGEST {
        "path is too long"
    } else {
        return Ok(absolute(path));
    };
    Err(ToolError::Refused(format!("{why}. Give the path of a file, e.g. src/main.py.")))
}

/// Returns a path as people read it: relative to the workspace if it is in it.
pub(super) fn shown(path: &str) -> String {
    let path = path.strip_prefix(WORKSPACE).and_then(|rest| rest.strip_prefix('/')).unwrap_or(path);
    text::one_line(path, 120)
}

/// Returns a file's last name, fit for a room.
pub(super) fn name_of(path: &str) -> String {
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = text::one_line(name, 100);
    if name.is_empty() { "file".to_owned() } else { name }
}

/// Reads a piece of a file.
pub(super) async fn read_piece(
    context: &ToolContext,
    sandbox: &Sandbox,
    path: &str,
    offset: u64,
    limit: u64,
) -> Result<FileSlice, ToolError> {
    explained(path, context.unless_stopped(sandbox.read_file(path, offset, limit)).await)
}

/// What a whole file was found to be.
pub(super) enum Whole {
    /// Its content.
    Content(Bytes),
    /// Not read: so many bytes are more than was allowed.
    TooLarge(u64),
    /// There is none.
    Missing,
}

/// Reads a whole file of at most `limit` bytes.
pub(super) async fn read_whole(
    context: &ToolContext,
    sandbox: &Sandbox,
    path: &str,
    limit: u64,
) -> Result<Whole, ToolError> {
    let mut content = BytesMut::new();
    loop {
        let read =
            context.unless_stopped(sandbox.read_file(path, content.len() as u64, limit + 1 - content.len() as u64));
        let slice = match read.await {
            Err(ToolError::Sandbox(SandboxError::File { problem: FileProblem::NotFound, .. })) => {
                return Ok(Whole::Missing);
            }
            slice => explained(path, slice)?,
        };
        content.extend_from_slice(&slice.bytes);
        let size = slice.size.max(content.len() as u64);
        if size > limit {
            return Ok(Whole::TooLarge(size));
        }
        // A file that shrank or lies about its size (`/proc`) ends where nothing more comes.
        if slice.bytes.is_empty() || content.len() as u64 >= slice.size {
            return Ok(Whole::Content(content.freeze()));
        }
    }
}

/// Adds the next call to what went wrong with a file.
pub(super) fn explained<T>(path: &str, result: Result<T, ToolError>) -> Result<T, ToolError> {
    result.map_err(|error| match error {
        ToolError::Sandbox(SandboxError::File { problem, .. }) => ToolError::Refused(explain(path, &problem)),
        error => error,
    })
}

fn explain(path: &str, problem: &FileProblem) -> String {
    let hint = match problem {
        FileProblem::NotFound => "See what is there with run_command, e.g. `ls -la` or `rg --files`.",
        FileProblem::IsDirectory => "List it with run_command, e.g. `ls -la`.",
        FileProblem::NotRegular => "Only regular files can be read or written.",
        FileProblem::Denied => "Use run_command with as_root=true if it has to be.",
        FileProblem::NoSpace => "Delete what is not needed, then try again.",
        FileProblem::TooLarge(_) => "Work on a part of it with run_command.",
        FileProblem::Other(_) => "Check the path with run_command.",
    };
    format!("{path}: {problem}. {hint}")
}

/// The refusal of a file that does not exist.
pub(super) fn missing(path: &str) -> ToolError {
    ToolError::Refused(explain(path, &FileProblem::NotFound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_as_they_are_meant() {
        for (given, meant) in [
            ("src/a.rs", "/workspace/src/a.rs"),
            ("./a", "/workspace/a"),
            ("/etc/hosts", "/etc/hosts"),
            ("~/x", "/home/agent/x"),
            ("~", "/home/agent"),
            (" a b ", "/workspace/a b"),
        ] {
            assert_eq!(absolute(given), meant);
        }
    }

    #[test]
    fn rooms_see_short_clean_names() {
        assert_eq!(shown("/workspace/src/a.rs"), "src/a.rs");
        assert_eq!(shown("/workspaces/a"), "/workspaces/a");
        assert_eq!(shown("/workspace"), "/workspace");
        assert_eq!(name_of("/workspace/a\u{1b}[31mb.png"), "ab.png");
        assert_eq!(name_of("///"), "file");
    }
}
