//! Ends a command with its whole process tree.

use std::time::Duration;

use sandboxd::protocol::{KillCause, Request};
use tokio::time::timeout;

use super::{
    connection::{Connection, Reply, Wants},
    error::SandboxError,
};

/// How long sandboxd has to confirm a kill; then the container is ended.
const KILL_LIMIT: Duration = Duration::from_secs(1);
/// How long ending the container may then take.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Returns when nothing of the command runs any more. If sandboxd does not confirm that within a second, the
/// container is ended. A container that somebody paused is not: nothing runs in it, and the kill happens when it is
/// unpaused.
pub(super) async fn end(connection: &Connection, id: &str, cause: KillCause) -> Result<(), SandboxError> {
    let reply = connection.wait_for(id, Wants::End)?;
    connection.send(&Request::Kill { id: id.to_owned(), cause }).await?;
    match timeout(KILL_LIMIT, reply).await {
        Ok(Ok(Reply::Ended(ended))) if ended.survivors > 0 => {}
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(_)) => return Err(SandboxError::Disconnected),
        Err(_) => match connection.held().await {
            Some(held) => return Err(held),
            None => connection.must_end("a command did not end within a second of being killed".into()),
        },
    }
    // The connection closes when the container has ended, and with it the command.
    timeout(END_LIMIT, connection.closed()).await.map_err(|_| SandboxError::NotEnded)
}
