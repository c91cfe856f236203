//! What a clone in the sandbox is: where it comes from, and what would leave.
//!
//! All of it is the sandbox's word. It is believed as far as that: what is pushed the gateway looks through, and what a branch
//! holds GitHub is asked. Called by the parent alone.

use std::{mem, time::Duration};

use super::super::{ToolContext, error::ToolError, files, output::MARK, survey};
use crate::{
    github::{Change, Diff},
    ids::{digest, random},
    rights::Repository,
    sandbox::Sandbox,
    text,
};

const SCRIPT: &str = include_str!("look.sh");
/// How long a look may take.
const LIMIT: Duration = Duration::from_mins(1);

/// A clone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Worktree {
    /// Its folder.
    pub(super) root: String,
    /// Where it comes from.
    remote: String,
    /// The branch that is checked out; empty if none is.
    pub(super) branch: String,
    /// Files that are changed and not committed.
    pub(super) dirty: usize,
    /// The last commit; empty if there is none.
    pub(super) head: String,
    /// What a push would change; `None` if it was not asked.
    diff: Option<Diff>,
}

impl Worktree {
    /// Returns what a push would change, by the sandbox's own count.
    pub(super) fn diff(&self) -> Result<&Diff, ToolError> {
        self.diff.as_ref().ok_or_else(|| {
            ToolError::Refused(format!(
                "What a push from {} would change could not be counted with git and awk. Nothing was sent.",
                files::shown(&self.root)
            ))
        })
    }

    /// Returns where it comes from, if that is a repository at GitHub.
    pub(super) fn repository(&self) -> Result<Repository, ToolError> {
        Repository::of_remote(&self.remote).ok_or_else(|| {
            let remote = text::one_line(&self.remote, 100);
            ToolError::Refused(format!(
                "The clone in {} comes from `{remote}`, which is no repository at GitHub. Set it with `git remote set-url \
                 origin https://github.com/OWNER/REPO`. Nothing was sent.",
                files::shown(&self.root)
            ))
        })
    }
}

/// Looks at a clone. With a trailer, its last commit gets that first, and it is counted what a push would change.
pub(super) async fn look(
    context: &ToolContext,
    sandbox: &Sandbox,
    path: Option<&str>,
    trailer: &str,
) -> Result<Worktree, ToolError> {
    let path = files::named(path.unwrap_or("/workspace"))?;
    let mark = format!("{MARK}{}", digest(&["github", context.call.as_str()], 6));
    let mut command = context.command(&["sh", "-c", SCRIPT, "github", &mark, &path, trailer], LIMIT);
    // Looked once more after a crash: nothing has left before that.
    command.id = format!("{}-look-{}", context.call, random(4));
    let (_, told) = survey::told(context, sandbox, command).await?;
    read(&told, &mark).map_err(|why| {
        ToolError::Refused(format!(
            "{}: {why}. Give the clone's folder as path. Nothing was sent.",
            files::shown(&path)
        ))
    })
}

/// Reads what the script says.
fn read(told: &str, mark: &str) -> Result<Worktree, &'static str> {
    let mut clone = Worktree::default();
    let mut diff = Diff::default();
    for line in told.lines() {
        let Some(said) = line.strip_prefix(mark).map(str::trim) else { continue };
        let (what, rest) = said.split_once(' ').unwrap_or((said, ""));
        match what {
            "no-folder" => return Err("there is no such folder"),
            "no-repository" => return Err("there is no git repository"),
            "many" => return Err("there are several git repositories"),
            "no-commit" => return Err("there is no commit yet"),
            "root" => rest.clone_into(&mut clone.root),
            "remote" => rest.clone_into(&mut clone.remote),
            "branch" => rest.clone_into(&mut clone.branch),
            "dirty" => clone.dirty = rest.parse().unwrap_or_default(),
            "head" => rest.clone_into(&mut clone.head),
            "commits" => diff.commits = rest.parse().unwrap_or_default(),
            "change" => {
                let (added, rest) = number(rest);
                let (removed, path) = number(rest);
                diff.show(Change::new(path, added, removed));
            }
            "changed" => {
                let (files, rest) = number(rest);
                let (added, rest) = number(rest);
                clone.diff = Some(Diff { files, added, removed: number(rest).0, ..mem::take(&mut diff) });
            }
            _ => {}
        }
    }
    let is_id = matches!(clone.head.len(), 40 | 64) && clone.head.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id && !clone.root.is_empty() { Ok(clone) } else { Err("git does not say what is there") }
}

/// Splits a number off.
fn number(text: &str) -> (u64, &str) {
    let (number, rest) = text.split_once(' ').unwrap_or((text, ""));
    (number.parse().unwrap_or_default(), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_script_says_is_read_and_nothing_else() {
        let head = "1".repeat(40);
        let told = format!(
            "@@m root /workspace/site\n@@x root /evil\n@@m remote https://github.com/Acme/site.git\n@@m dirty 2\n@@m commits 2\n@@m change 3 1 a b\u{1b}[0m.rs\n@@m changed 41 30 10\n@@m branch main\n@@m head {head}\n"
        );
        let clone = read(&told, "@@m").unwrap();
        assert_eq!((clone.root.as_str(), clone.dirty, clone.branch.as_str()), ("/workspace/site", 2, "main"));
        assert_eq!(clone.repository().unwrap().as_str(), "acme/site");
        assert_eq!(clone.diff().unwrap().commits, 2);
        assert_eq!(clone.diff().unwrap().lines(), "41 files +30 −10\na b.rs +3 −1\n… and 40 more");
        assert!(Worktree::default().diff().is_err(), "what was not counted is not shown as nothing");
        assert_eq!(read("@@m root /w\n@@m no-commit\n", "@@m"), Err("there is no commit yet"));
        assert_eq!(read(&told.replace(&head, "; rm -rf /"), "@@m"), Err("git does not say what is there"));
        let elsewhere = Worktree { remote: "https://gitlab.com/a/b".into(), ..clone };
        assert!(elsewhere.repository().unwrap_err().to_string().contains("no repository at GitHub"));
    }
}
