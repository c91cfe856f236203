//! Moves what older servers kept in Podman's own volumes to where no `prune` reaches it. The copy only counts once it is
//! whole and on the disk, and the volume goes after that: whatever interrupts a move, the next one begins anew or ends
//! what is left of it.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use tokio::time::sleep;
use tracing::Instrument;

use super::{
    SandboxError, creation, disk,
    files::{Kind, Record, RoomFiles},
    fleet::Shared,
    image, life,
    program::Program,
    room::{Container, Room},
    usage::{self, Places},
};
use crate::crash;

/// How long a workspace may take to be counted, and to be copied.
const LIMIT: Duration = Duration::from_hours(2);

/// Between two looks for rooms that still have such a volume.
const PAUSE: Duration = Duration::from_mins(1);

/// What an image needs above what is copied into it: an eighth and this much.
const SPARE: u64 = 64 << 20;

/// Moves the rooms that do not run, one by one, until none is left.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let mut left = false;
        for room in shared.all() {
            left |= look(&shared, &room).instrument(room.address.span()).await;
        }
        if !left {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Moves a room's files if it does not run; returns whether there was anything to be moved.
async fn look(shared: &Arc<Shared>, room: &Arc<Room>) -> bool {
    let Ok(mut container) = room.container.try_lock() else { return false };
    if !container.is_to_be_moved() {
        return false;
    }
    if !room.is_running()
        && let Err(error) = creation::prepare(shared, room, &mut container).await
    {
        tracing::warn!(%error, "a room's files cannot be prepared");
    }
    true
}

/// Copies the room's volume and removes it. Where that fails, the room goes on with the volume.
pub(super) async fn take_over(shared: &Shared, room: &Room, container: &mut Container) -> Result<(), SandboxError> {
    let files = shared.files.of(&room.address);
    match copy(shared, &files, container).await {
        Ok(kind) => {
            crash::point("copied");
            creation::keep(&files, kind, &Record::new(&room.address, container.ids())).await?;
            crash::point("moved");
            finish(shared, room, container).await
        }
        Err(error) => {
            tracing::warn!(%error, "a room's files stay in Podman's volume until the next start");
            container.unmoved = true;
            Ok(())
        }
    }
}

/// Removes the volume of a room whose files were moved, and the container that was made for it.
pub(super) async fn finish(shared: &Shared, room: &Room, container: &mut Container) -> Result<(), SandboxError> {
    let Some(volume) = container.volume.clone() else { return Ok(()) };
    let files = shared.files.of(&room.address);
    let record = Record::new(&room.address, volume.ids);
    files.note(&record).map_err(|source| SandboxError::Files { path: files.directory.clone(), source })?;
    container.record = Some(record);
    life::discard(shared, room, container).await?;
    shared.engine.remove_volume(&volume.name).await?;
    container.volume = None;
    tracing::info!(volume = volume.name, "a room's files were moved out of Podman's volume");
    Ok(())
}

async fn copy(shared: &Shared, files: &RoomFiles, container: &Container) -> Result<Kind, SandboxError> {
    let failed = |source| SandboxError::Files { path: files.part.clone(), source };
    let Some(volume) = &container.volume else { return Ok(Kind::Directory) };
    let rootless = shared.rootless().await;
    let places =
        Places { directories: vec![volume.mountpoint.clone()], rootless: rootless.clone(), ..Places::default() };
    let taken = usage::measure(&places, LIMIT).await.map_err(failed)?;
    disk::room_for(shared, taken.bytes).map_err(failed)?;
    creation::remove_directory(shared, &files.part).await.map_err(failed)?;
    if shared.images.load(Ordering::SeqCst) {
        let size = shared.options.disk.max(taken.bytes + taken.bytes / 8 + SPARE);
        image::make(&files.part, size, &volume.mountpoint, taken.inodes).await.map_err(failed)?;
        return Ok(Kind::Image);
    }
    let inside = |name| Program::inside(rootless.as_deref(), name);
    let mut copy = inside("cp");
    copy.args(["--archive", "--no-target-directory", "--"]).arg(&volume.mountpoint).arg(&files.part);
    copy.run(LIMIT).await.map_err(failed)?;
    inside("sync").args(["--file-system", "--"]).arg(&files.part).run(LIMIT).await.map_err(failed)?;
    Ok(Kind::Directory)
}
