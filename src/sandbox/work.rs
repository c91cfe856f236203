//! What runs in a sandbox, as its sandboxd says; and ending all of it for its disk use.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{KillCause, fleet::Fleet, room::Room};

/// How long a sandbox may take to say what runs in it, and to end that.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const END_LIMIT: Duration = Duration::from_secs(5);

/// Ends every command of a sandbox because of its disk use; returns whether there was any. A sandbox that does not
/// answer is killed.
pub(super) async fn end_all(fleet: &Fleet, room: &Room) -> bool {
    let Some(sandbox) = room.connection() else { return false };
    let end = async {
        let commands = sandbox.running().await.unwrap_or_default();
        let ends = commands.iter().map(|command| sandbox.end(&command.id, KillCause::DiskFull));
        join_all(ends).await.iter().any(Result::is_ok)
    };
    if let Ok(ended) = timeout(END_LIMIT, end).await {
        return ended;
    }
    let Some(name) = room.container_name() else { return false };
    tracing::warn!("a sandbox that takes too much of the disk does not answer, so it is killed");
    fleet.engine.kill(&name).await.is_ok()
}

/// Returns whether a command runs in a sandbox; `true` if it does not answer.
pub(super) async fn works(room: &Room) -> bool {
    let Some(sandbox) = room.connection() else { return false };
    let running = timeout(ANSWER_LIMIT, sandbox.running()).await;
    running.map_or(true, |running| running.is_ok_and(|commands| !commands.is_empty()))
}
