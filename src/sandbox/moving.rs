//! Moves files that older servers kept in Podman's own volumes to where no `prune` reaches them. The copy counts once
//! it is whole and on the disk, and the volume is removed after that. If a move is interrupted, the next one starts
//! again or removes what is left.

use std::{sync::atomic::Ordering, time::Duration};

use super::{
    SandboxError,
    ending::discard,
    files::{Kind, Record, RoomFiles},
    fleet::Fleet,
    image,
    program::{Program, remove_directory},
    room::{Container, Room},
    space,
    usage::{self, Places},
};
use crate::crash;

/// How long counting, and copying, a workspace may take.
const LIMIT: Duration = Duration::from_hours(2);

/// What an image needs beyond the size of what is copied: an eighth of that and this many bytes.
const SPARE: u64 = 64 << 20;

/// Copies the room's volume and removes it. If that fails, the room keeps using the volume.
pub(super) async fn take_over(fleet: &Fleet, room: &Room, container: &mut Container) -> Result<(), SandboxError> {
    let files = fleet.files.of(&room.address);
    match copy(fleet, &files, container).await {
        Ok(kind) => {
            crash::point("copied");
            files.keep(kind, &Record::new(&room.address, container.ids())).await?;
            crash::point("moved");
            finish(fleet, room, container).await
        }
        Err(error) => {
            tracing::warn!(%error, "a room's files stay in Podman's volume until the next start");
            container.unmoved = true;
            Ok(())
        }
    }
}

/// Removes the volume of a room whose files were moved, and the container that used it.
pub(super) async fn finish(fleet: &Fleet, room: &Room, container: &mut Container) -> Result<(), SandboxError> {
    let Some(volume) = container.volume.clone() else { return Ok(()) };
    let files = fleet.files.of(&room.address);
    let record = Record::new(&room.address, volume.ids);
    files.note(&record).map_err(|source| SandboxError::Files { path: files.directory.clone(), source })?;
    container.record = Some(record);
    discard(fleet, room, container).await?;
    fleet.engine.remove_volume(&volume.name).await?;
    container.volume = None;
    tracing::info!(volume = volume.name, "a room's files were moved out of Podman's volume");
    Ok(())
}

async fn copy(fleet: &Fleet, files: &RoomFiles, container: &Container) -> Result<Kind, SandboxError> {
    let failed = |source| SandboxError::Files { path: files.part.clone(), source };
    let Some(volume) = &container.volume else { return Ok(Kind::Directory) };
    let rootless = fleet.rootless().await;
    let places =
        Places { directories: vec![volume.mountpoint.clone()], rootless: rootless.clone(), ..Places::default() };
    let taken = usage::measure(&places, LIMIT).await.map_err(failed)?;
    let options = &fleet.options;
    space::room_for(taken.bytes, &options.state_dir, options.host_disk_reserve).map_err(failed)?;
    remove_directory(rootless.as_deref(), &files.part).await.map_err(failed)?;
    if fleet.images.load(Ordering::SeqCst) {
        let size = options.disk.max(taken.bytes + taken.bytes / 8 + SPARE);
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
