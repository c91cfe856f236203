//! What runs in a sandbox, as its sandboxd tells, and the end of all of it for what it takes of the disk.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{KillCause, fleet::Fleet, room::Room};

/// How long a sandbox may take to say what runs in it, and to end that.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const END_LIMIT: Duration = Duration::from_secs(5);

/// Ends every command of a sandbox for what it takes of the disk; `false`: there was none. One that does not answer is
/// killed with all that is in it.
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

/// Tells whether a command runs in a sandbox. One that does not answer may well be at work.
pub(super) async fn works(room: &Room) -> bool {
    let Some(sandbox) = room.connection() else { return false };
    let running = timeout(ANSWER_LIMIT, sandbox.running()).await;
    running.map_or(true, |running| running.is_ok_and(|commands| !commands.is_empty()))
}
