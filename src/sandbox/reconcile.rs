//! Compares what is known with what Podman has: takes over running sandboxes at the start, notices those that have
//! ended or were removed, and removes those whose room is gone. Runs each minute, and for one container at once when
//! Podman reports its end. Touches only what carries this server's label.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, stream};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::Instrument;

use super::{
    SandboxError,
    ending::{discard_if_gone, note_if_ended, release},
    engine::{Change, Condition, Happened, Listed},
    files::Record,
    fleet::{Adoption, Fleet},
    frozen::set_frozen,
    id_range::{self, IdRange, IdRanges},
    image, life, mounts, prepare,
    room::{Room, RoomVolume},
    spec,
};
use crate::ids::Address;

/// The pause between two comparisons.
const PERIOD: Duration = Duration::from_mins(1);

/// The pause after a comparison that failed.
const RETRY: Duration = Duration::from_secs(2);

/// Containers that are inspected at the same time.
const PARALLEL: usize = 8;

/// Runs until the fleet ends.
pub(super) async fn run(fleet: Arc<Fleet>) {
    while fleet.engine.up().await {
        if let Err(error) = watch(&fleet).await {
            fleet.adoption.send_if_modified(|adoption| {
                let pending = !matches!(adoption, Adoption::Done);
                if pending {
                    *adoption = Adoption::Failed(error.to_string());
                }
                pending
            });
            tracing::warn!(%error, "cannot compare the sandboxes with Podman's; trying again");
            sleep(RETRY).await;
        }
    }
}

/// Runs until Podman goes away.
async fn watch(fleet: &Arc<Fleet>) -> Result<(), SandboxError> {
    let news = fleet.engine.watch(&spec::owned_by(&fleet.options.instance)).await?;
    tokio::pin!(news);
    let mut ticks = interval(PERIOD); // the first tick comes at once and takes over what runs
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            happened = news.next() => if let Some(happened) = happened { note(fleet, &happened) } else {
                fleet.engine.suspect(); // Podman has probably gone away
                sleep(RETRY).await;
                return Ok(());
            },
            _ = ticks.tick() => reconcile(fleet).await?,
        }
    }
}

/// Notes what happened to a container, and checks one whose end was reported.
fn note(fleet: &Arc<Fleet>, happened: &Happened) {
    let named = |room: &Arc<Room>| room.container_name().as_ref() == Some(&happened.name);
    let Some(room) = fleet.all().into_iter().find(named) else { return };
    let span = room.address.span();
    let _room = span.clone().entered();
    let exit_code = match happened.what {
        Change::Died(exit_code) => exit_code,
        Change::Paused => return room.set_paused(true),
        Change::Unpaused => {
            room.set_paused(false);
            return set_frozen(fleet, &room, false); // whoever unfroze it: if the disk is still low, it is frozen again
        }
    };
    tracing::debug!(exit_code, "a sandbox's PID 1 ended");
    room.ended.notify_waiters();
    let whole = Arc::clone(fleet);
    let noting = async move {
        let mut container = room.container.lock().await; // waits until a running start or stop has ended
        note_if_ended(&whole, &room, &mut container).await;
    };
    fleet.supervise(noting.instrument(span));
}

/// Compares once.
pub(super) async fn reconcile(fleet: &Arc<Fleet>) -> Result<(), SandboxError> {
    let ours = spec::owned_by(&fleet.options.instance);
    let first = !matches!(*fleet.adoption.borrow(), Adoption::Done);
    if first {
        take_id_ranges(fleet).await?;
        take_records(fleet).await?;
        look_at_mounts(fleet).await?;
        look_for_counts(fleet).await?;
    }
    let (volumes, containers) = tokio::join!(fleet.engine.volumes(&ours), fleet.engine.list(&ours));
    for volume in volumes? {
        let Some(owner) = spec::owner(&volume.labels) else { continue };
        let room = fleet.room(&owner);
        if let Ok(mut container) = room.container.try_lock() {
            let ids = volume.labels.get(id_range::LABEL).and_then(|label| IdRange::from_label(label));
            let image = image::device(&volume.options);
            container.volume = Some(RoomVolume { name: volume.name, mountpoint: volume.mountpoint, ids, image });
        }
    }
    let containers = containers?;
    let listed: HashMap<String, &Listed> = containers.iter().map(|found| (found.name.clone(), found)).collect();
    stream::iter(&containers)
        .for_each_concurrent(PARALLEL, |found| async move {
            let Some(owner) = spec::owner(&found.labels) else { return };
            compare(fleet, fleet.room(&owner), found).instrument(owner.span()).await;
        })
        .await;
    for room in fleet.all() {
        let Ok(mut container) = room.container.try_lock() else { continue };
        match &container.name {
            Some(name) if !listed.contains_key(name) => {
                // The container may have been made after the list, so only an inspect proves that it is gone.
                let span = room.address.span();
                note_if_ended(fleet, &room, &mut container).instrument(span).await;
            }
            _ => {}
        }
    }
    if let Err(error) = fleet.look_up_image().await {
        tracing::debug!(%error, "no image");
    }
    fleet.adoption.send_replace(Adoption::Done);
    if first {
        fleet.supervise(prepare::move_all(Arc::clone(fleet)));
    }
    remove_gone(fleet).await;
    Ok(())
}

/// Compares what is known of a room with a container that Podman listed for it.
async fn compare(fleet: &Arc<Fleet>, room: Arc<Room>, found: &Listed) {
    let Ok(mut container) = room.container.try_lock() else { return }; // the lock's holder is changing the container
    match container.name.clone() {
        None => {
            let label = found.labels.get(spec::SPEC).map(String::as_str);
            room.note_container(&mut container, Some((&found.name, label)));
        }
        Some(known) if known != found.name => {
            // A room has one container; this one is left from a creation under another name.
            if let Err(error) = fleet.engine.remove(&found.name).await {
                tracing::warn!(container = found.name, %error, "a second container stays");
            }
            return;
        }
        Some(_) => {}
    }
    match (found.condition, room.is_running()) {
        (Condition::Running | Condition::Paused, false) => {
            if let Err(error) = life::adopt(fleet, &room, &found.name).await {
                tracing::warn!(%error, "a running sandbox cannot be taken over");
                room.forget_link();
                release(fleet, &room);
            }
            if !room.is_running()
                && let Err(error) = discard_if_gone(fleet, &room, &mut container).await
            {
                tracing::warn!(%error, "a sandbox whose processes are gone cannot be removed");
            }
        }
        (Condition::Stopped, true) => note_if_ended(fleet, &room, &mut container).await,
        // The event of a pause may have been missed.
        (Condition::Running | Condition::Paused, true) => {
            room.set_paused(found.condition == Condition::Paused);
            if room.connection().is_none() {
                // Its processes may be gone without Podman's knowledge.
                note_if_ended(fleet, &room, &mut container).await;
            }
        }
        (Condition::Stopped | Condition::Gone, _) => {}
    }
}

/// Reads which id ranges the host has, and which of them volumes have, including those of other servers.
async fn take_id_ranges(fleet: &Arc<Fleet>) -> Result<(), SandboxError> {
    if fleet.info().await?.rootless {
        return Ok(());
    }
    let mut ranges = IdRanges::of_host().unwrap_or_else(|error| {
        tracing::warn!(%error, "/etc/subuid and /etc/subgid cannot be read: no new sandbox gets ids");
        IdRanges::default()
    });
    for volume in fleet.engine.volumes(id_range::LABEL).await? {
        if let Some(range) = volume.labels.get(id_range::LABEL).and_then(|label| IdRange::from_label(label)) {
            ranges.reserve(range);
        }
    }
    // Podman may have lost the volumes while the files are still there.
    for range in read_records(fleet)?.iter().filter_map(Record::ids) {
        ranges.reserve(range);
    }
    *fleet.ids() = ranges;
    Ok(())
}

/// Reads which rooms have files, whether or not Podman knows them.
async fn take_records(fleet: &Arc<Fleet>) -> Result<(), SandboxError> {
    for record in read_records(fleet)? {
        let room = fleet.room(&record.address);
        room.set_lost(record.lost);
        room.container.lock().await.record = Some(record);
    }
    Ok(())
}

fn read_records(fleet: &Fleet) -> Result<Vec<Record>, SandboxError> {
    fleet.files.records().map_err(|source| SandboxError::Files { path: fleet.options.state_dir.clone(), source })
}

/// Checks whether the file system can enforce the disk limit, and whether rooms' files can be images.
async fn look_at_mounts(fleet: &Arc<Fleet>) -> Result<(), SandboxError> {
    let info = fleet.info().await?;
    if info.rootless {
        return Ok(()); // rootless Podman can neither set quotas nor mount
    }
    fleet.quota.store(mounts::quota(&info.graph_root).unwrap_or_default(), Ordering::SeqCst);
    let shares = mounts::share(&info.volume_path);
    if let Err(error) = &shares {
        tracing::warn!(path = %info.volume_path.display(), %error, "the mount cannot be shared, so no image is mounted");
    }
    fleet.mountable.store(shares.is_ok(), Ordering::SeqCst);
    fleet.event_volumes.store(shares.is_ok(), Ordering::SeqCst);
    fleet.images.store(shares.is_ok() && image::can_be_made(), Ordering::SeqCst);
    Ok(())
}

/// Checks whether the kernel counts each container's memory.
async fn look_for_counts(fleet: &Arc<Fleet>) -> Result<(), SandboxError> {
    let counted = fleet.info().await?.counts_memory();
    if !counted {
        tracing::warn!(
            "the memory of sandboxes cannot be counted here: each one that runs is taken for SANDBOX_MEMORY"
        );
    }
    fleet.memory.set_counted(counted);
    Ok(())
}

/// Removes the containers of rooms that are gone, and their files after the grace period.
pub(super) async fn remove_gone(fleet: &Arc<Fleet>) {
    let Some(existing) = existing(fleet) else { return };
    for room in fleet.all() {
        remove_if_gone(fleet, &room, &existing).instrument(room.address.span()).await;
    }
}

async fn remove_if_gone(fleet: &Fleet, room: &Room, existing: &HashSet<Address>) {
    let mark = mark(fleet, room);
    if existing.contains(&room.address) || fleet.workshops().contains_key(&room.address) {
        let _ = fs::remove_file(&mark); // the file need not exist
        return;
    }
    let since = fs::metadata(&mark).and_then(|mark| mark.modified());
    let (has_container, has_files) = match room.container.try_lock() {
        Ok(container) => (container.name.is_some(), container.has_files()),
        Err(_) => return,
    };
    if !has_container && !has_files {
        let _ = fs::remove_file(&mark);
        return;
    }
    let (now, is_believed) = (fleet.options.clock.file_date(), fleet.options.clock.is_believed());
    // A mark of a time that is still to come was made while the clock was wrong.
    let since = since
        .and_then(|since| if since > now && is_believed { Err(io::ErrorKind::NotFound.into()) } else { Ok(since) });
    let gone_for = since.as_ref().ok().and_then(|since| now.duration_since(*since).ok());
    let overdue = is_believed && gone_for.is_some_and(|time| time > fleet.options.grace);
    if !has_container && !overdue && since.is_ok() {
        return;
    }
    match life::remove(fleet, room, overdue).await {
        Ok(()) => tracing::info!(files = overdue, "removed the sandbox of a room that is gone"),
        Err(error) => tracing::warn!(%error, "the sandbox of a room that is gone stays"),
    }
    if since.is_err()
        && let Err(error) = begin(&mark, now)
    {
        tracing::warn!(%error, "cannot note since when a room is gone");
    }
}

fn existing(fleet: &Fleet) -> Option<HashSet<Address>> {
    fleet.existing.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Returns the path of the file whose date is when the room was found gone.
fn mark(fleet: &Fleet, room: &Room) -> PathBuf {
    fleet.directory(room).with_extension("gone")
}

fn begin(mark: &Path, now: SystemTime) -> io::Result<()> {
    fs::write(mark, b"")?;
    fs::File::options().write(true).open(mark)?.set_modified(now)
}
