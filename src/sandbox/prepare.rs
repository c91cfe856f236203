//! Makes sure that a room has usable files before its container is made or started: makes the first ones, moves those
//! of older servers, and replaces lost ones; and removes them with the room.

use std::{
    fs,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::sleep;
use tracing::Instrument;

use super::{
    SandboxError,
    ending::discard,
    files::{Kind, Record, RoomFiles},
    fleet::Fleet,
    image, moving,
    program::remove_directory,
    room::{Container, Room},
};
use crate::strings::sandboxes as words;

/// The pause between two searches for rooms whose files are still in a volume of Podman's.
const PAUSE: Duration = Duration::from_mins(1);

/// Makes sure that the room has usable files. Lost ones are replaced by new ones: the room is told, and the record
/// keeps the fact until the model is told.
pub(super) async fn prepare(fleet: &Fleet, room: &Room, container: &mut Container) -> Result<(), SandboxError> {
    let files = fleet.files.of(&room.address);
    let podmans = container.volume.as_ref().filter(|volume| volume.image.is_none()).map(|volume| &volume.mountpoint);
    match (files.kind(), podmans) {
        (None, Some(from)) if from.exists() => {
            if container.is_to_be_moved() {
                moving::take_over(fleet, room, container).await?;
            }
            return Ok(());
        }
        (Some(_), Some(_)) => moving::finish(fleet, room, container).await?,
        _ => {}
    }
    match files.kind() {
        Some(Kind::Image) => usable(fleet, &files).await,
        Some(Kind::Directory) => files.furnish(files.directory.clone(), container.ids()).await,
        // If an unfinished part exists, making the files was interrupted before anything was in them.
        None if !container.has_files() || files.part.exists() => make(fleet, room, container).await,
        None => {
            discard(fleet, room, container).await?;
            if let Some(volume) = container.volume.take() {
                fleet.engine.remove_volume(&volume.name).await?;
                container.record.get_or_insert_with(|| Record::new(&room.address, volume.ids));
            }
            if let Some(record) = &mut container.record {
                record.lost = true;
            }
            make(fleet, room, container).await?;
            room.set_lost(true);
            fleet.notify_room(&room.address, words::FILES_LOST.to_owned());
            Ok(())
        }
    }
}

/// Makes the room's first files.
pub(super) async fn make(fleet: &Fleet, room: &Room, container: &mut Container) -> Result<(), SandboxError> {
    let files = fleet.files.of(&room.address);
    let (ids, chosen) = match &container.record {
        Some(record) => (record.ids(), None),
        None if fleet.info().await?.rootless => (None, None),
        None => {
            let seed = fleet.id_seed();
            let chosen = fleet.ids().choose(seed).ok_or(SandboxError::NoIds)?;
            (Some(chosen), Some(chosen))
        }
    };
    let kind = if fleet.images.load(Ordering::SeqCst) { Kind::Image } else { Kind::Directory };
    let record = container.record.clone().unwrap_or_else(|| Record::new(&room.address, ids));
    if let Err(error) = make_files(fleet, &files, kind, &record).await {
        if let Some(chosen) = chosen {
            fleet.ids().free(chosen);
        }
        return Err(error);
    }
    container.record = Some(record);
    container.fresh = true;
    Ok(())
}

async fn make_files(fleet: &Fleet, files: &RoomFiles, kind: Kind, record: &Record) -> Result<(), SandboxError> {
    let failed = |source| SandboxError::Files { path: files.part.clone(), source };
    remove_directory(fleet.rootless().await.as_deref(), &files.part).await.map_err(failed)?;
    match kind {
        Kind::Directory => files.furnish(files.part.clone(), record.ids()).await?,
        Kind::Image => {
            let pattern = files.part.with_extension("new");
            files.furnish(pattern.clone(), record.ids()).await?;
            let made = image::make(&files.part, fleet.options.disk, &pattern, 0).await;
            fs::remove_dir_all(&pattern).and(made).map_err(failed)?;
        }
    }
    files.keep(kind, record).await
}

/// Checks that the room's image can be mounted, and enlarges it if the setting was raised since it was made.
async fn usable(fleet: &Fleet, files: &RoomFiles) -> Result<(), SandboxError> {
    let broken = |why: String| SandboxError::NotMounted { image: files.image.clone(), why };
    let found = image::check(&files.image).map_err(|error| broken(error.to_string()))?;
    if let Some(why) = fleet.unmountable() {
        return Err(broken(why));
    }
    if !found.sound {
        match image::mend(&files.image).await {
            Ok(()) => tracing::info!(image = %files.image.display(), "a room's image was checked after a fault"),
            Err(error) => tracing::warn!(image = %files.image.display(), %error, "a room's image cannot be checked"),
        }
    }
    let wanted = fleet.options.disk / image::BLOCK * image::BLOCK;
    if found.size < wanted {
        match image::grow(&files.image, &files.part, wanted).await {
            Ok(()) => tracing::info!(image = %files.image.display(), "a room's image was enlarged to SANDBOX_DISK"),
            Err(error) => tracing::warn!(image = %files.image.display(), %error, "a room's image cannot be enlarged"),
        }
    }
    Ok(())
}

/// Moves the files of rooms that do not run, one room after another, until none is left to move.
pub(super) async fn move_all(fleet: Arc<Fleet>) {
    loop {
        let mut left = false;
        for room in fleet.all() {
            left |= move_if_idle(&fleet, &room).instrument(room.address.span()).await;
        }
        if !left {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Moves a room's files if it does not run; returns whether there was something to move.
async fn move_if_idle(fleet: &Fleet, room: &Room) -> bool {
    let Ok(mut container) = room.container.try_lock() else { return false };
    if !container.is_to_be_moved() {
        return false;
    }
    if !room.is_running()
        && let Err(error) = prepare(fleet, room, &mut container).await
    {
        tracing::warn!(%error, "a room's files cannot be prepared");
    }
    true
}

/// Removes the room's files, image or directory, and its volume.
pub(super) async fn remove_files(fleet: &Fleet, room: &Room, container: &mut Container) -> Result<(), SandboxError> {
    let ids = container.ids();
    if let Some(volume) = &container.volume {
        fleet.engine.remove_volume(&volume.name).await?;
        container.volume = None;
    }
    let files = fleet.files.of(&room.address);
    let failed = |source| SandboxError::Files { path: files.directory.clone(), source };
    let rootless = fleet.rootless().await;
    for directory in [&files.part, &files.directory] {
        remove_directory(rootless.as_deref(), directory).await.map_err(failed)?;
    }
    files.forget().map_err(failed)?;
    container.record = None;
    if let Some(ids) = ids {
        fleet.ids().free(ids);
    }
    Ok(())
}
