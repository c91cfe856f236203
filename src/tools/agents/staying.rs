//! Agents' processes that stay when they have answered, to be told words in the middle, and, of those that may change files, to be
//! asked again: the next call of the same task is spared the start of the program, and the reading of its session. Of the
//! others none is left: it would take memory for little.
//!
//! Such a process is asked by one call at a time. Its key is the same for all of them, and opens the door to models only
//! while a call runs. Between calls it is left alone: it ends when the turn does ([`end_all`]), when nobody has asked it
//! anything for ten minutes (sandboxd sees to that, whether or not a server is there), or when its time is up. Which one an
//! agent has left is kept with its task in the sandbox, and believed as far as what comes out of a sandbox may be: it names a
//! command of that sandbox. Called by the parent, and by whoever ends a turn.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    super::{ToolContext, error::ToolError, files::HOME},
    follower::{First, Follower},
    task::{keep, kept, process_file},
};
use crate::{
    coding_agents::{Assigned, Role},
    ids::Address,
    sandbox::{LOG_DIR, Lookup, Process, Sandbox, SandboxError, Sandboxes, WRITE_LIMIT},
};

/// How the ids of their processes begin: no other command's does.
const PREFIX: &str = "agent-";
/// How long nobody may ask one anything, and hear nothing of it, before it ends.
pub(super) const IDLE: Duration = Duration::from_mins(10);
/// How long ending them may hold up the end of a turn.
const END_LIMIT: Duration = Duration::from_secs(3);

/// A process that an earlier call has left.
pub(super) struct Left {
    /// What is known of it.
    pub(super) first: First,
    /// The process; it has written nothing since it answered.
    pub(super) process: Process,
}

/// Returns what a run begins with that finds no process: one that stays where the agent and the sandbox can do that.
pub(super) fn first(context: &ToolContext, sandbox: &Sandbox, role: Role, assigned: &Assigned, run: &str) -> First {
    if !assigned.agent.can_stay() || !sandbox.spools() {
        return First::ends(run);
    }
    // Each call gets its whole time, also the last one that finds it.
    let lives = 2 * context.limits.coding;
    let until = context.store.clock().millis().saturating_add(i64::try_from(lives.as_millis()).unwrap_or(i64::MAX));
    First { process: format!("{PREFIX}{run}"), key: run.to_owned(), until: Some(until), is_left: is_left(role) }
}

/// Tells whether an agent's process is left in a role.
fn is_left(role: Role) -> bool {
    role.may_write()
}

/// Returns what a run may have begun with of which that is not known.
pub(super) fn possible(assigned: &Assigned, run: &str) -> Vec<First> {
    let stays = First { process: format!("{PREFIX}{run}"), key: run.to_owned(), until: Some(0), is_left: false };
    assigned.agent.can_stay().then_some(stays).into_iter().chain([First::ends(run)]).collect()
}

/// Returns how long it is until a time in milliseconds since 1970.
pub(super) fn time_until(context: &ToolContext, until: i64) -> Duration {
    Duration::from_millis(until.saturating_sub(context.store.clock().millis()).max(0).unsigned_abs())
}

/// Returns a command as one that the kernel ends before others where the sandbox's memory is used up: what is only left for a
/// later call must not cost another command its memory.
pub(super) fn first_to_go(argv: Vec<String>) -> Vec<String> {
    const SCRIPT: &str = "echo 1000 > /proc/self/oom_score_adj; exec \"$@\"";
    ["sh", "-c", SCRIPT, "sh"].map(str::to_owned).into_iter().chain(argv).collect()
}

/// Finds the process that an agent has left in a role, if it can be asked `question`, and still has the time for a whole call.
/// One that has done anything by itself since is ended.
pub(super) async fn find(
    context: &ToolContext,
    sandbox: &Sandbox,
    role: Role,
    assigned: &Assigned,
    question: &str,
) -> Result<Option<Left>, ToolError> {
    if !is_left(role) || !assigned.agent.can_stay() || !sandbox.spools() {
        return Ok(None);
    }
    let Some(told) = kept(context, sandbox, &process_file(role, assigned)).await? else { return Ok(None) };
    let mut words = told.split_whitespace();
    let (Some(process), Some(key), Some(place), Some(until)) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Ok(None);
    };
    let (Ok(place), Ok(until)) = (place.parse::<u64>(), until.parse::<i64>()) else { return Ok(None) };
    if !process.starts_with(PREFIX) {
        return Ok(None);
    }
    let found = context.unless_stopped(sandbox.attach(process, Some(u64::MAX))).await;
    let Ok((Lookup::Running(running), true)) = found else { return Ok(None) };
    let fits = question.len() <= WRITE_LIMIT;
    if fits && running.written() == place && time_until(context, until) >= context.limits.coding {
        let first = First { process: process.to_owned(), key: key.to_owned(), until: Some(until), is_left: true };
        return Ok(Some(Left { first, process: running }));
    }
    drop(running);
    context.unless_stopped(sandbox.kill(process)).await?;
    Ok(None)
}

/// Keeps that a run has left its process, for the next call to find.
pub(super) async fn leave(
    context: &ToolContext,
    sandbox: &Sandbox,
    role: Role,
    assigned: &Assigned,
    follower: &Follower,
) -> Result<(), ToolError> {
    let First { key, until, .. } = &follower.first;
    let told = format!("{} {key} {} {}", follower.process, follower.upto(), until.unwrap_or_default());
    keep(context, sandbox, &process_file(role, assigned), &told).await
}

/// Returns where in the sandbox the newest of a running process's output is.
pub(super) fn log(process: &str) -> String {
    format!("{HOME}/{LOG_DIR}/{process}.log")
}

/// Ends what agents have left in a room's sandbox: its turn is over.
pub(in crate::tools) async fn end_all(sandboxes: &Sandboxes, address: &Address) {
    let Some(sandbox) = sandboxes.connected(address) else { return };
    let ended = timeout(END_LIMIT, async {
        for command in sandbox.running().await?.iter().filter(|command| command.id.starts_with(PREFIX)) {
            sandbox.kill(&command.id).await?;
        }
        Ok::<_, SandboxError>(())
    });
    match ended.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(room = %address, %error, "what coding agents have left is not ended yet"),
        Err(_) => tracing::warn!(room = %address, "what coding agents have left is not ended yet"),
    }
}
