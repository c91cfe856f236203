//! The push of a pull request's branch: in the sandbox by git, once, and compared with what GitHub has afterwards.
//!
//! A push that is made again sets the same branch to the same commit, which changes nothing. Called by the parent alone.

use std::time::Duration;

use super::{
    super::{ToolContext, error::ToolError, exec, output},
    Intent, asked,
};
use crate::{crash, github::GitHubError, ids::random, rights::Repository, sandbox::Ended};

const SCRIPT: &str = include_str!("push.sh");
/// How long a push may take.
const LIMIT: Duration = Duration::from_mins(5);
/// The most bytes of git's words that are passed on.
const WORDS: usize = 2000;

/// Brings the intent's commit into its branch at GitHub, or says why it is not there. `boot_id`: the sandbox under which a push may
/// have begun before a crash.
pub(super) async fn push(
    context: &ToolContext,
    repository: &Repository,
    intent: &Intent,
    boot_id: Option<&str>,
) -> Result<(), ToolError> {
    let id = format!("{}-push", context.call);
    let mut name = id.clone();
    if let Some(boot_id) = boot_id {
        // Whatever has become of it, GitHub knows: it is only waited for here.
        if let Err(ToolError::Stopped) = exec::resume(context, &id, boot_id).await {
            return Err(ToolError::Stopped);
        }
        if there(context, repository, intent).await?.as_deref() == Some(&intent.head) {
            return Ok(());
        }
        name = format!("{id}-{}", random(4));
    }
    let sandbox = context.sandbox().await?;
    let mut command = context.command(
        &["sh", "-c", SCRIPT, "github", &intent.root, &intent.head, &intent.branch],
        LIMIT.min(context.limits.longest),
    );
    command.id = name;
    let ended = exec::run(context, &sandbox, command).await?;
    crash::point("github-pushed");
    match there(context, repository, intent).await? {
        Some(there) if there == intent.head => Ok(()),
        found => Err(failed(&ended, intent, found)),
    }
}

async fn there(context: &ToolContext, repository: &Repository, intent: &Intent) -> Result<Option<String>, ToolError> {
    asked(context, context.github.head(repository, &intent.branch)).await
}

/// Returns why the branch is not what it should be, by what git has said and by what GitHub has in its place.
fn failed(ended: &Ended, intent: &Intent, there: Option<String>) -> ToolError {
    let said = output::show(&ended.output, WORDS).text;
    let branch = &intent.branch;
    let protected = ["GH006", "GH013", "protected branch", "rule violations"].iter().any(|word| said.contains(word));
    if protected {
        return ToolError::Refused(format!(
            "GitHub protects {branch}, so that the push was refused. Whoever administers the repository has to leave branches \
             `agent/…` open, or push from a branch of another name.\n{said}"
        ));
    }
    let differs = ["fetch first", "non-fast-forward", "stale info"].iter().any(|word| said.contains(word));
    match there {
        Some(there) if differs || output::succeeded(&ended.exit) => {
            let short = |id: &str| id.chars().take(10).collect::<String>();
            let (branch, there, here) = (branch.clone(), short(&there), short(&intent.head));
            GitHubError::BranchDiffers { branch, there, here }.into()
        }
        None if output::succeeded(&ended.exit) => GitHubError::NoBranch(branch.clone()).into(),
        _ => ToolError::Refused(format!("The push to {branch} failed, so no pull request was opened.\n{said}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{Captured, Exit};

    fn told(code: i32, said: &'static str, there: Option<&str>) -> String {
        let intent = Intent {
            github: "acme/site".into(),
            branch: "agent/x".into(),
            head: "1".repeat(40),
            base: "main".into(),
            root: "/workspace/site".into(),
            dirty: 0,
            diff: String::new(),
        };
        let ended = Ended { exit: Exit::Code(code), output: Captured { head: said.into(), ..Captured::default() } };
        failed(&ended, &intent, there.map(str::to_owned)).to_string()
    }

    #[test]
    fn a_push_that_failed_is_told_with_the_mend() {
        let other = "2".repeat(40);
        for (code, said, there, says) in [
            (1, "remote: error: GH006: Protected branch update failed", None, "GitHub protects agent/x"),
            (
                1,
                "! [rejected] (fetch first)",
                Some(&*other),
                "Somebody else has pushed to agent/x meanwhile: GitHub has 2222222222 ",
            ),
            (0, "Everything up-to-date", Some(&*other), "Somebody else has pushed to agent/x"),
            (0, "", None, "GitHub has no branch agent/x"),
            (128, "remote: The push was refused, and nothing was sent: a file", None, "The push to agent/x failed"),
        ] {
            let told = told(code, said, there);
            assert!(told.contains(says), "{said}: {told}");
        }
    }
}
