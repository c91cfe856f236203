//! What the clone and its remote say, and whether that allows an update. Everything is done as the clone's owner.

use std::{path::Path, time::Duration};

use tokio::process::Command;

use super::{
    run,
    source::{Source, is_name},
};
use crate::updates::{Found, Newer};

/// The time of what only looks at files, and of what asks the remote.
const QUICK: Duration = Duration::from_mins(1);
const REMOTE: Duration = Duration::from_mins(2);
/// Commits that are told.
const TOLD: usize = 20;
/// The subdirectory of the clone in which everything is built; git does not see it.
const PLACE: &str = "target/redeploy";

/// What is known of the clone, by which [`judge`] decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Facts {
    branch: String,
    /// Files that are changed in the clone and not committed.
    dirty: Vec<String>,
    /// The commit that serves, and the one to which an update would go.
    from: String,
    to: String,
    /// Whether the one is an ancestor of the other.
    forward: bool,
    /// Whether the clone's own branch is.
    clone_forward: bool,
    /// Whether an operator has named the commit.
    named: bool,
}

/// Returns the names in what `git status --porcelain` says: each after up to two letters, of which a blank one may be missing.
fn changed(status: &str) -> Vec<String> {
    let name = |line: &str| line.trim_start().split_once(' ').map_or(line, |(_, name)| name).trim_start().to_owned();
    status.lines().map(name).collect()
}

/// Returns why an update must not be done, in sentences; `None` if it may.
fn judge(facts: &Facts) -> Option<String> {
    let branch = &facts.branch;
    if let Some(first) = facts.dirty.first() {
        let more = facts.dirty.len() - 1;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return Some(format!(
            "The clone is dirty: {first}{more} is changed and not committed. Commit it or take it back, then try again."
        ));
    }
    if facts.named || facts.from == facts.to {
        return None;
    }
    if !facts.clone_forward {
        return Some(format!(
            "The clone's branch {branch} has diverged from its remote: it has commits that are not there. Push or drop \
             them, then try again."
        ));
    }
    if !facts.forward {
        return Some(format!(
            "What the remote has as {branch} does not come after what runs: its history was rewritten. If that is \
             meant, name the commit: `matrix-agent redeploy --ref {branch}`."
        ));
    }
    None
}

/// The clone.
pub(super) struct Git<'a> {
    source: &'a Source,
}

impl<'a> Git<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self { source }
    }

    fn command(&self, arguments: &[&str]) -> Result<Command, String> {
        self.command_in(&self.source.clone, arguments)
    }

    fn command_in(&self, folder: &Path, arguments: &[&str]) -> Result<Command, String> {
        let clone = &self.source.clone;
        let mut command = run::as_owner_of(clone, "git")
            .map_err(|error| format!("The clone {} cannot be entered: {error}.", clone.display()))?;
        command.current_dir(folder).args(arguments);
        // Nobody is there who could answer.
        command.env("GIT_TERMINAL_PROMPT", "0");
        Ok(command)
    }

    async fn say(&self, arguments: &[&str]) -> Result<String, String> {
        Ok(run::output(self.command(arguments)?, QUICK).await?.trim().to_owned())
    }

    async fn is_ancestor(&self, of: &str, what: &str) -> bool {
        self.say(&["merge-base", "--is-ancestor", of, what]).await.is_ok()
    }

    /// Asks the remote, and returns what an update would bring: to the newest commit of the branch, or to `named`.
    /// `installed` is the commit that serves, where it is known; else it is the clone's.
    ///
    /// # Errors
    ///
    /// Why it cannot be done, in sentences; nothing has changed then.
    pub(super) async fn look(&self, installed: Option<&str>, named: Option<&str>) -> Result<Found, String> {
        let branch = &self.source.branch;
        let head = self.say(&["rev-parse", "--verify", &format!("refs/heads/{branch}^{{commit}}")]).await;
        let head = head.map_err(|why| format!("The clone has no branch {branch}: {why}."))?;
        let remote = self.say(&["config", &format!("branch.{branch}.remote")]).await;
        let remote = remote.ok().filter(|name| is_name(name)).unwrap_or_else(|| "origin".to_owned());
        let tracked = format!("refs/remotes/{remote}/{branch}");
        let specification = format!("+refs/heads/{branch}:{tracked}");
        let mut fetch = vec!["fetch", "--quiet", &remote, &specification];
        let all = format!("+refs/heads/*:refs/remotes/{remote}/*");
        if named.is_some() {
            fetch.extend(["--tags", &all]);
        }
        let mut fetch = self.command(&fetch)?;
        // A clone may have an ssh of its own, with a key for this remote.
        if self.say(&["config", "core.sshCommand"]).await.is_err() {
            fetch.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=20");
        }
        run::output(fetch, REMOTE).await.map_err(|why| unreached(&remote, &why))?;
        let to = match named {
            None => self.say(&["rev-parse", "--verify", &tracked]).await?,
            Some(name) if is_name(name) => self.named(&remote, name).await?,
            Some(name) => return Err(format!("`{}` is no name of a commit.", crate::text::one_line(name, 60))),
        };
        let from = installed.unwrap_or(&head).to_owned();
        let dirty = self.say(&["status", "--porcelain", "--untracked-files=no"]).await?;
        let facts = Facts {
            branch: branch.clone(),
            dirty: changed(&dirty),
            forward: self.is_ancestor(&from, &to).await,
            clone_forward: self.is_ancestor(&head, &to).await,
            named: named.is_some(),
            from: from.clone(),
            to: to.clone(),
        };
        if let Some(why) = judge(&facts) {
            return Err(why);
        }
        if from == to {
            return Ok(Found::Newest { commit: to });
        }
        let subject = self.say(&["show", "--no-patch", "--format=%s", &to]).await?;
        let range = format!("{from}..{to}");
        let count = self.say(&["rev-list", "--count", &range]).await.ok().and_then(|count| count.parse().ok());
        let most = format!("--max-count={TOLD}");
        let commits = self.say(&["log", &most, "--no-decorate", "--format=%h %s", &range]).await.unwrap_or_default();
        let commits = commits.lines().map(|line| crate::text::one_line(line, 120)).collect();
        let subject = crate::text::one_line(&subject, 120);
        Ok(Found::Newer(Newer { commit: to, subject, commits, count: count.unwrap_or(0), from }))
    }

    /// Returns the commit that a name means: of the remote's branches first.
    async fn named(&self, remote: &str, name: &str) -> Result<String, String> {
        for name in [format!("refs/remotes/{remote}/{name}"), name.to_owned()] {
            if let Ok(commit) = self.say(&["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")]).await {
                return Ok(commit);
            }
        }
        Err(format!("{remote} has no commit `{name}`."))
    }

    /// Checks exactly this commit out, in a worktree of its own, and returns its directory, beside which it is built.
    pub(super) async fn check_out(&self, commit: &str) -> Result<std::path::PathBuf, String> {
        let tree = self.source.clone.join(PLACE).join("tree");
        let shown = tree.to_string_lossy().into_owned();
        // What an earlier one has left, whole or not.
        let _ = self.say(&["worktree", "remove", "--force", &shown]).await;
        let mut remove = run::as_owner_of(&self.source.clone, "rm").map_err(|error| error.to_string())?;
        remove.args(["-rf", "--", &shown]);
        run::output(remove, QUICK).await?;
        self.say(&["worktree", "prune"]).await?;
        self.say(&["worktree", "add", "--quiet", "--detach", &shown, commit]).await?;
        let there = run::output(self.command_in(&tree, &["rev-parse", "HEAD"])?, QUICK).await?;
        if there.trim() != commit {
            return Err(format!("the worktree is at {} and not at the commit that was confirmed", there.trim()));
        }
        Ok(tree)
    }

    /// Removes the worktree, and brings the clone's branch to this commit if that is checked out and only goes forward.
    pub(super) async fn settle(&self, commit: Option<&str>) {
        let tree = self.source.clone.join(PLACE).join("tree");
        let _ = self.say(&["worktree", "remove", "--force", &tree.to_string_lossy()]).await;
        let Some(commit) = commit else { return };
        let on = self.say(&["symbolic-ref", "--quiet", "--short", "HEAD"]).await;
        if on.is_ok_and(|branch| branch == self.source.branch)
            && let Err(why) = self.say(&["merge", "--quiet", "--ff-only", commit]).await
        {
            tracing::warn!(%why, "the clone does not follow");
        }
    }
}

/// Returns why the remote could not be asked: whether it is away, or refuses the key.
fn unreached(remote: &str, why: &str) -> String {
    let refused = ["ermission denied", "uthentication failed", "could not read Username", "publickey", "403"];
    if refused.iter().any(|sign| why.contains(sign)) {
        return format!(
            "{remote} refuses the clone's key ({why}). See that `git fetch` works there for the clone's owner, without \
             a question, then try again."
        );
    }
    format!("{remote} cannot be asked ({why}). See that `git fetch` works in the clone, then try again.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            branch: "main".into(),
            from: "a".into(),
            to: "b".into(),
            forward: true,
            clone_forward: true,
            ..Facts::default()
        }
    }

    #[test]
    fn only_what_goes_forward_is_allowed_unless_somebody_names_it() {
        assert_eq!(judge(&facts()), None);
        // The first line's blank is cut off.
        assert_eq!(
            changed("M README.md\n M ARCHITECTURE.md\nMM a b\nD  Makefile\nR  x -> y"),
            ["README.md", "ARCHITECTURE.md", "a b", "Makefile", "x -> y"]
        );
        let dirty = Facts { dirty: vec!["src/a.rs".into(), "b".into()], named: true, ..facts() };
        assert!(judge(&dirty).unwrap().contains("src/a.rs and 1 more is changed"));
        let diverged = Facts { clone_forward: false, ..facts() };
        assert!(judge(&diverged).unwrap().contains("diverged"));
        let rewritten = Facts { forward: false, ..facts() };
        assert!(judge(&rewritten).unwrap().contains("rewritten"));
        for named in [diverged, rewritten] {
            assert_eq!(judge(&Facts { named: true, ..named }), None);
        }
    }

    #[test]
    fn a_key_that_is_refused_is_told_from_a_remote_that_is_away() {
        assert!(unreached("origin", "fatal: git@x: Permission denied (publickey)").contains("refuses the clone's key"));
        assert!(unreached("origin", "fatal: Could not resolve host: x").contains("cannot be asked"));
    }
}
