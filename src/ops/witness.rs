//! Says once a day in a room how far the audit log has come, so that the homeserver and all who are there are its witness: whoever
//! writes the log anew on this machine cannot take that back.

use std::time::Duration;

use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{audit::Audit, clock::Clock, hub::AccountHub, ids, ids::RoomKey, store::StoreError, strings};

/// How often it is looked whether the day is another one.
const LOOK: Duration = Duration::from_mins(10);
/// How long the log may have until its first line is there, at a start.
const FIRST: Duration = Duration::from_secs(10);
/// The note that holds the day on which it was said last.
const SAID: &str = "audit said";

/// Says it in this room, by the first of the accounts that is there, until `cancel`.
pub(super) async fn run(
    audit: Audit,
    room: RoomKey,
    accounts: Vec<AccountHub>,
    clock: Clock,
    cancel: CancellationToken,
) {
    let mut pause = FIRST;
    while cancel.run_until_cancelled(time::sleep(pause)).await.is_some() {
        pause = LOOK;
        if let Err(error) = say(&audit, &room, &accounts, &clock).await {
            tracing::error!(%error, "how far the audit log has come cannot be said");
        }
    }
}

async fn say(audit: &Audit, room: &RoomKey, accounts: &[AccountHub], clock: &Clock) -> Result<(), StoreError> {
    let Some(head) = audit.head().filter(|head| head.number > 0) else { return Ok(()) };
    let day = clock.day();
    for hub in accounts {
        if !hub.rooms().await?.contains(room) {
            continue;
        }
        if hub.noted(SAID).await?.as_deref() != Some(&*day) {
            let txn = ids::digest(&["audit", room.as_str(), &day], 16);
            hub.tell(room, txn, strings::rooms::audit_head(&head.shown())).await?;
            hub.note(SAID, &day).await?;
        }
        return Ok(());
    }
    tracing::warn!(%room, "AUDIT_ROOM is no room of an account of this server, so the audit log has no witness");
    Ok(())
}
