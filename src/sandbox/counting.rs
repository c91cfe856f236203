//! What sandboxes take on the disk, for those who look on. The limits are kept by `disk.rs`, which counts files only when much was
//! written; here they are counted now and then while somebody looks, one sandbox after the other, so that looking costs little
//! however many look and however many sandboxes there are.

use std::{sync::Arc, time::Duration};

use tracing::Instrument;

use super::{disk, fleet::Fleet, room::Room};

/// How old a count may be before the files are counted anew.
const OLD: Duration = Duration::from_mins(5);

/// Has the sandboxes counted whose counts are old, unless that is under way. Returns at once.
pub(super) fn refresh(fleet: &Arc<Fleet>) {
    let Ok(counting) = Arc::clone(&fleet.counting).try_lock_owned() else { return };
    let due: Vec<_> = fleet.all().into_iter().filter(|room| is_due(room)).collect();
    if due.is_empty() {
        return;
    }
    let counted = Arc::clone(fleet);
    fleet.supervise(async move {
        let _counting = counting;
        let Ok(info) = counted.info().await else { return };
        for room in due {
            let span = room.address.span();
            if let Err(error) = disk::count(&counted, &info, &room).instrument(span.clone()).await {
                // It may have been removed meanwhile.
                span.in_scope(|| tracing::debug!(%error, "a sandbox's files cannot be counted for those who look on"));
                room.note_disk(None);
            }
        }
    });
}

/// Returns whether a room's count is old, and whether its files may have changed since.
fn is_due(room: &Room) -> bool {
    let old = |age: Duration| age >= OLD && (room.is_running() || room.idle() <= age);
    room.container_name().is_some() && room.disk_counted().is_none_or(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Address;

    #[tokio::test(start_paused = true)]
    async fn files_are_counted_again_only_after_a_while_and_if_they_may_have_changed() {
        let room = Room::new(Address::of_first("!a"));
        assert!(!is_due(&room), "it has no container");
        room.note_container(&mut *room.container.lock().await, Some(("name", None)));
        assert!(is_due(&room));
        room.note_disk(Some(1));
        let moment = Duration::from_secs(1);
        tokio::time::advance(OLD.saturating_sub(moment)).await;
        room.touch();
        assert!(!is_due(&room));
        tokio::time::advance(moment).await;
        assert!(is_due(&room), "it was used since");
        room.note_disk(None);
        assert_eq!(room.disk_used(), Some(1), "a count that fails does not make the last one forgotten");
        tokio::time::advance(2 * OLD).await;
        assert!(!is_due(&room), "it stands still");
        room.set_running(true);
        assert!(is_due(&room), "something may run in it");
    }
}
