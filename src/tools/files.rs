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
/// The most folders of a path in which a name is looked for.
const DEEPEST: usize = 32;
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

/// A file that was found, perhaps under a name that only looks like the one that was given.
pub(super) struct Named {
    /// Its path as it is.
    pub(super) path: String,
    /// A note for the model about a name that differs; empty if none does.
    pub(super) note: String,
    /// Whether it may be a new file in a folder whose name only looks like the given one.
    is_new: bool,
}

impl Named {
    /// Takes a path as it was given.
    pub(super) fn as_given(path: String) -> Self {
        Self { path, note: String::new(), is_new: false }
    }

    /// Takes a path as it was given, of a file that need not be there yet.
    pub(super) fn for_writing(path: String) -> Self {
        Self { is_new: true, ..Self::as_given(path) }
    }

    /// Returns what keeps the file from being read, if anything does. Where there is no file of this name, takes the
    /// only one whose name looks the same.
    pub(super) async fn check_readable(
        &mut self,
        context: &ToolContext,
        sandbox: &Sandbox,
    ) -> Result<Option<FileProblem>, ToolError> {
        loop {
            match context.unless_stopped(sandbox.read_file(&self.path, 0, 0)).await {
                Ok(_) => return Ok(None),
                Err(error)
                    if is_missing(&error) && self.note.is_empty() && self.look_closer(context, sandbox).await => {}
                Err(ToolError::Sandbox(SandboxError::File { problem, .. })) => return Ok(Some(problem)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads a piece of the file or, where there is none, of the only one whose name looks the same.
    pub(super) async fn read_piece(
        &mut self,
        context: &ToolContext,
        sandbox: &Sandbox,
        offset: u64,
        limit: u64,
    ) -> Result<FileSlice, ToolError> {
        match context.unless_stopped(sandbox.read_file(&self.path, offset, limit)).await {
            Err(error) if is_missing(&error) && self.look_closer(context, sandbox).await => {}
            piece => return explained(&self.path, piece),
        }
        read_piece(context, sandbox, &self.path, offset, limit).await
    }

    /// Reads the whole file or, where there is none, the only one whose name looks the same.
    pub(super) async fn read_whole(
        &mut self,
        context: &ToolContext,
        sandbox: &Sandbox,
        limit: u64,
    ) -> Result<Whole, ToolError> {
        match read_whole(context, sandbox, &self.path, limit).await? {
            Whole::Missing if self.look_closer(context, sandbox).await => {
                read_whole(context, sandbox, &self.path, limit).await
            }
            whole => Ok(whole),
        }
    }

    /// Looks for the only file whose name looks like the given one; people's files are named with spaces and accents that
    /// nobody can type. Without one, nothing changes.
    async fn look_closer(&mut self, context: &ToolContext, sandbox: &Sandbox) -> bool {
        let mut found = String::new();
        let mut differs = false;
        let names: Vec<_> = self.path.split('/').filter(|name| !name.is_empty()).take(DEEPEST).collect();
        let mut names = names.into_iter().peekable();
        while let Some(name) = names.next() {
            let folder = if found.is_empty() { "/" } else { &found };
            let Ok(Some(there)) = context.unless_stopped(sandbox.list_directory(folder)).await else { return false };
            let new = (self.is_new && names.peek().is_none()).then_some(name);
            let Some(same) = same_look(&there, name).or(new) else { return false };
            differs |= same != name;
            found.extend(["/", same]);
        }
        if differs {
            self.note = format!(
                "[there is no {}: taken was {}, whose name looks the same; its spaces or accents are other characters]\n",
                self.path,
                text::strip(&found)
            );
            self.path = found;
        }
        differs
    }
}

/// Returns the name among `names` that is `name`, or else the only one that looks like it.
fn same_look<'a>(names: &'a [String], name: &str) -> Option<&'a str> {
    if let Some(same) = names.iter().find(|known| *known == name) {
        return Some(same);
    }
    let look = text::look_of(name);
    let mut alike = names.iter().filter(|known| text::look_of(known) == look);
    alike.next().filter(|_| alike.next().is_none()).map(String::as_str)
}

fn is_missing(error: &ToolError) -> bool {
    matches!(error, ToolError::Sandbox(SandboxError::File { problem: FileProblem::NotFound, .. }))
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

/// What reading a whole file gives.
pub(super) enum Whole {
    /// Its content.
    Content(Bytes),
    /// It was not read: it has so many bytes, which is more than was allowed.
    TooLarge(u64),
    /// There is no such file.
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
            Err(error) if is_missing(&error) => return Ok(Whole::Missing),
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

/// Turns a problem with a file into a refusal that tells the model what to do next.
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

/// Says that a write went through a link.
pub(super) fn through_link(path: &str, there: &str) -> String {
    format!(" {path} is a link, and what was written is in {}.", text::one_line(there, LONGEST))
}

/// Returns the refusal of a file with a problem.
pub(super) fn refused(path: &str, problem: &FileProblem) -> ToolError {
    ToolError::Refused(explain(path, problem))
}

/// Returns the refusal of a file that does not exist.
pub(super) fn missing(path: &str) -> ToolError {
    refused(path, &FileProblem::NotFound)
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
    fn a_name_is_found_by_its_look_if_only_one_looks_so() {
        let names: Vec<String> =
            ["Photo 3\u{202f}PM.png", "cafe\u{301}.txt", "a\u{a0}b", "a\u{2009}b", "a.txt"].map(str::to_owned).to_vec();
        for (given, found) in [
            ("Photo 3 PM.png", Some("Photo 3\u{202f}PM.png")),
            ("café.txt", Some("cafe\u{301}.txt")),
            ("a b", None),
            ("a\u{a0}b", Some("a\u{a0}b")),
            ("A.txt", None),
        ] {
            assert_eq!(same_look(&names, given), found, "{given}");
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
