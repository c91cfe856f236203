//! Commands that run in the background of a room's sandbox: tells people about them, and ends them.

use std::time::Duration;

use futures_util::future;
use tokio::time::timeout;

use crate::{
    ids::Address,
    sandbox::{RunningCommand, Sandbox, SandboxError, Sandboxes},
    strings, text,
};

/// How long the answer to a stop waits for the list of what still runs.
const LOOK: Duration = Duration::from_secs(2);
/// The most characters of a command line, and the most jobs that are named.
const LINE: usize = 60;
const NAMED: usize = 8;

/// Returns a sentence about the jobs that still run in a room; `None` if none does.
pub(super) async fn left(sandboxes: &Sandboxes, address: &Address) -> Option<String> {
    let found = async { Ok::<_, SandboxError>(jobs(sandboxes, address).await?.map_or(vec![], |(_, jobs)| jobs)) };
    match timeout(LOOK, found).await {
        Ok(Ok(jobs)) if jobs.is_empty() => None,
        Ok(Ok(jobs)) => Some(strings::commands::jobs_left(&named(&jobs), jobs.len())),
        Ok(Err(error)) => {
            tracing::warn!(%error, "which background jobs are left is not known");
            None
        }
        Err(_) => {
            tracing::warn!("which background jobs are left is not known: the sandbox does not answer");
            None
        }
    }
}

/// Ends the jobs of a room, each with its whole process tree, and says which they were.
pub(super) async fn end(sandboxes: &Sandboxes, address: &Address) -> Result<String, SandboxError> {
    let Some((sandbox, jobs)) = jobs(sandboxes, address).await?.filter(|(_, jobs)| !jobs.is_empty()) else {
        return Ok(strings::commands::NO_JOBS.to_owned());
    };
    future::try_join_all(jobs.iter().map(|job| sandbox.kill(&job.id))).await?;
    Ok(strings::commands::jobs_ended(&named(&jobs)))
}

async fn jobs(
    sandboxes: &Sandboxes,
    address: &Address,
) -> Result<Option<(Sandbox, Vec<RunningCommand>)>, SandboxError> {
    let Some(sandbox) = sandboxes.running(address).await? else { return Ok(None) };
    let mut jobs = sandbox.running().await?;
    jobs.retain(|command| command.background);
    Ok(Some((sandbox, jobs)))
}

/// Returns the jobs as a part of a sentence.
fn named(jobs: &[RunningCommand]) -> String {
    let name = |job: &RunningCommand| {
        let (line, id) = (text::one_line(&job.line, LINE).replace('`', "'"), text::one_line(&job.id, LINE));
        if line.is_empty() { id } else { format!("`{line}` ({id})") }
    };
    let mut names: Vec<_> = jobs.iter().take(NAMED).map(name).collect();
    if jobs.len() > NAMED {
        names.push(format!("and {} more", jobs.len() - NAMED));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_named_by_their_line_and_their_id() {
        let job = |id: &str, line: &str| RunningCommand { id: id.into(), background: true, line: line.into() };
        let two = [job("job-1", "npm run dev\n`x`"), job("job-2", "")];
        assert_eq!(named(&two), "`npm run dev 'x'` (job-1), job-2");
        let many = vec![job("job-1", "a"); NAMED + 2];
        assert!(named(&many).ends_with("`a` (job-1), and 2 more"), "{}", named(&many));
    }
}
