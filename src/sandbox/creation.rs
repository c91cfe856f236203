//! Making what does not exist: a room's volume with its two directories, and its container, each under the first name
//! that is free. Called by `life.rs` under the room's lock.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, lchown},
    path::Path,
    sync::atomic::Ordering,
};

use tokio::task::spawn_blocking;

use super::{
    SandboxError,
    engine::{self, EngineError, Image},
    fleet::Shared,
    id_range::{self, IdRange},
    name,
    room::{Container, Room, RoomVolume},
    spec::{self, Place},
};

/// Returns the label that a container of today would carry; `None` where there is no volume for one.
pub(super) fn wanted(shared: &Shared, room: &Room, container: &Container, image: &Image) -> Option<String> {
    let volume = container.volume.as_ref()?;
    let directory = shared.directory(room);
    let body = spec::container(&shared.options, &place(shared, room, volume, &directory, image));
    body.labels?.remove(spec::SPEC)
}

fn place<'a>(
    shared: &'a Shared,
    room: &'a Room,
    volume: &'a RoomVolume,
    directory: &'a Path,
    image: &'a Image,
) -> Place<'a> {
    Place {
        volume_name: &volume.name,
        room: &room.key,
        directory,
        volume: &volume.mountpoint,
        ids: volume.ids,
        quota: shared.quota.load(Ordering::SeqCst),
        sandboxd: &shared.sandboxd,
        seccomp: &shared.seccomp,
        image: &image.id,
        image_digest: &image.digest,
    }
}

/// Creates the container under the first name that is free.
pub(super) async fn create(
    shared: &Shared,
    room: &Room,
    container: &mut Container,
    image: &Image,
) -> Result<String, SandboxError> {
    let volume = volume(shared, room, container).await?;
    let directory = shared.directory(room);
    let mut image = image.clone();
    let mut names = vec![volume.name.clone()];
    names.extend(name::candidates(&shared.options.instance, &room.key));
    names.dedup();
    let mut names = names.into_iter();
    let mut name = names.next().unwrap_or_default();
    loop {
        let body = spec::container(&shared.options, &place(shared, room, &volume, &directory, &image));
        let label = body.labels.as_ref().and_then(|labels| labels.get(spec::SPEC)).cloned();
        match shared.engine.create(&name, &shared.options.image, body).await {
            Ok(()) => {
                room.note_container(container, Some((&name, label.as_deref())));
                return Ok(name);
            }
            Err(EngineError::ImageMissing(missing)) => {
                // Built anew since it was looked up?
                let fresh = shared.look_up_image().await?;
                if fresh == image {
                    return Err(EngineError::ImageMissing(missing).into());
                }
                image = fresh;
            }
            Err(EngineError::Taken(taken)) => {
                let labels = shared.engine.inspect(&taken).await.map(|seen| seen.labels).unwrap_or_default();
                if spec::is_of(&labels, &shared.options, &room.key) {
                    // A creation that nobody waited for to the end: of whatever it was made, made anew.
                    shared.engine.remove(&taken).await?;
                } else {
                    name = names.next().ok_or(EngineError::Taken(taken))?;
                }
            }
            // The mount promised quotas, Podman cannot set them: the watch has to do.
            Err(EngineError::Refused { why, .. }) if shared.quota.swap(false, Ordering::SeqCst) => {
                tracing::warn!(%why, "no container with a disk quota can be made; the disk is watched instead");
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes the room's volume, or finds it, with the two directories in it.
async fn volume(shared: &Shared, room: &Room, container: &mut Container) -> Result<RoomVolume, SandboxError> {
    let rootless = shared.info().await?.rootless;
    let known = container.volume.take();
    let ids = match &known {
        Some(volume) => volume.ids,
        None if rootless => None,
        None => {
            let seed = shared.id_seed();
            Some(shared.ids().choose(seed).ok_or(SandboxError::NoIds)?)
        }
    };
    let label = ids.map(IdRange::label);
    let more: Vec<_> = label.iter().map(|label| (id_range::LABEL, label.as_str())).collect();
    let labels = spec::labels(&shared.options, &room.key, &more);
    let names = known
        .map_or_else(|| name::candidates(&shared.options.instance, &room.key).to_vec(), |volume| vec![volume.name]);
    for name in &names {
        let made = make_volume(shared, name, &labels).await?;
        if !spec::is_of(&made.labels, &shared.options, &room.key) {
            continue; // another room's, or another server's
        }
        let found = made.labels.get(id_range::LABEL).and_then(|label| IdRange::from_label(label));
        if let Some(chosen) = ids.filter(|_| found != ids) {
            shared.ids().free(chosen); // the volume was there, with a range of its own
        }
        let volume = RoomVolume { name: made.name, mountpoint: made.mountpoint, ids: found };
        let owned = volume.clone();
        let filled = spawn_blocking(move || fill(&owned)).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        filled.map_err(|source| SandboxError::Volume { path: volume.mountpoint.clone(), source })?;
        container.volume = Some(volume.clone());
        return Ok(volume);
    }
    if let Some(chosen) = ids {
        shared.ids().free(chosen);
    }
    Err(EngineError::Taken(names.last().cloned().unwrap_or_default()).into())
}

async fn make_volume(
    shared: &Shared,
    name: &str,
    labels: &HashMap<String, String>,
) -> Result<engine::Volume, EngineError> {
    loop {
        let limit = spec::volume_options(&shared.options, shared.quota.load(Ordering::SeqCst));
        match shared.engine.create_volume(name, labels.clone(), limit).await {
            Err(EngineError::Refused { why, .. }) if shared.quota.swap(false, Ordering::SeqCst) => {
                tracing::warn!(%why, "no volume with a disk quota can be made; the disk is watched instead");
            }
            made => return made,
        }
    }
}

/// Makes the volume's two directories and gives them to the agent. No container sees the directory above them, so
/// nothing in it can have been put there by a sandbox.
fn fill(volume: &RoomVolume) -> io::Result<()> {
    // Podman may know a volume whose directory is gone: somebody deleted it, or the volume of the same name that another
    // server was just removing. Its files are lost either way; the room need not be. No more than the volume's own two
    // levels: where even their parent is missing, this is not the machine that the volume is on.
    for directory in volume.mountpoint.parent().into_iter().chain([&*volume.mountpoint]) {
        make_directory(directory)?;
    }
    for directory in spec::volume_directories(&volume.mountpoint) {
        make_directory(&directory)?;
        // Rootless, only the container's root can give them away: sandboxd does.
        if let Some(ids) = volume.ids
            && fs::symlink_metadata(&directory)?.uid() == 0
        {
            let agent = ids.on_host(spec::AGENT);
            lchown(&directory, Some(agent), Some(agent))?;
        }
    }
    Ok(())
}

/// Makes a directory, unless it is there.
fn make_directory(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
