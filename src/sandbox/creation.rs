//! Creates a room's volume and its container, each under the first free name. `prepare.rs` has made the files before.
//! Called under the room's lock.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use tokio::task::spawn_blocking;

use super::{
    SandboxError,
    ending::discard,
    engine::{self, EngineError, Image},
    events,
    files::{self, Kind},
    fleet::Fleet,
    id_range::{self, IdRange},
    image, mounts, name, prepare,
    room::{Container, Room, RoomVolume},
    runtime,
    spec::{self, ContainerPlan},
};

/// The words in Podman's error for a container whose volume it cannot mount.
const NOT_MOUNTED: &str = "mounting volume";

/// Returns the spec label that the container would get if it were made now; `None` if the room has no files.
pub(super) fn wanted(fleet: &Fleet, room: &Room, container: &Container, image: &Image) -> Option<String> {
    let directory = fleet.directory(room);
    let (volume, files) = roots(fleet, room, container)?;
    let name = container.name.as_deref()?;
    let proof = proof(fleet, room).ok()?;
    let place = place(fleet, room, container, name, (volume, &files), &directory, image);
    spec::container(&fleet.options, &ContainerPlan { proof: proof.as_deref(), ..place }).labels?.remove(spec::SPEC)
}

/// Returns the name of the volume, if there is one, and the directory of the files.
fn roots<'a>(fleet: &Fleet, room: &Room, container: &'a Container) -> Option<(Option<&'a str>, PathBuf)> {
    let files = fleet.files.of(&room.address);
    if files.kind() == Some(Kind::Directory) {
        return Some((None, files.directory));
    }
    container.volume.as_ref().map(|volume| (Some(volume.name.as_str()), volume.mountpoint.clone()))
}

/// Returns by what the room's sandboxd will be known, if not by its pid.
fn proof(fleet: &Fleet, room: &Room) -> Result<Option<String>, SandboxError> {
    match fleet.options.runtime {
        Some(runtime) if !runtime.shows_pids() => fleet.proof(room).map(Some),
        _ => Ok(None),
    }
}

fn place<'a>(
    fleet: &'a Fleet,
    room: &'a Room,
    container: &Container,
    name: &str,
    (volume_name, files): (Option<&'a str>, &'a Path),
    directory: &'a Path,
    image: &'a Image,
) -> ContainerPlan<'a> {
    ContainerPlan {
        volume_name,
        address: &room.address,
        directory,
        files,
        events: events::source(fleet, room, name),
        ids: container.ids(),
        quota: fleet.quota.load(Ordering::SeqCst),
        proof: None,
        sandboxd: &fleet.sandboxd,
        seccomp: &fleet.seccomp,
        fixed: &fleet.fixed,
        image: &image.id,
        image_digest: &image.digest,
    }
}

/// Creates the container under the first free name.
pub(super) async fn create(
    fleet: &Fleet,
    room: &Room,
    container: &mut Container,
    image: &Image,
) -> Result<String, SandboxError> {
    if fleet.files.of(&room.address).kind() != Some(Kind::Directory) {
        volume(fleet, room, container).await?;
    }
    let directory = fleet.directory(room);
    let proof = proof(fleet, room)?;
    let mut image = image.clone();
    let mut names: Vec<_> = container.volume.iter().map(|volume| volume.name.clone()).collect();
    names.extend(name::candidates(&fleet.options.instance, &room.address));
    names.dedup();
    let mut names = names.into_iter();
    let mut name = names.next().unwrap_or_default();
    loop {
        let missing = || SandboxError::from(EngineError::NotFound(name.clone()));
        let (volume, files) = roots(fleet, room, container).ok_or_else(missing)?;
        if volume.is_none() {
            runtime::let_pass(fleet.options.runtime, std::slice::from_ref(&files))
                .map_err(|source| SandboxError::Files { path: files.clone(), source })?;
        }
        events::make(fleet, room, &name).await?;
        let place = place(fleet, room, container, &name, (volume, &files), &directory, &image);
        let place = ContainerPlan { proof: proof.as_deref(), ..place };
        let body = spec::container(&fleet.options, &place);
        let label = body.labels.as_ref().and_then(|labels| labels.get(spec::SPEC)).cloned();
        match fleet.engine.create(&name, &fleet.options.image, body).await {
            Ok(()) => {
                room.note_container(container, Some((&name, label.as_deref())));
                return Ok(name);
            }
            Err(EngineError::ImageMissing(missing)) => {
                // The image may have been rebuilt since it was looked up.
                let fresh = fleet.look_up_image().await?;
                if fresh == image {
                    return Err(EngineError::ImageMissing(missing).into());
                }
                image = fresh;
            }
            Err(EngineError::Taken(taken)) => {
                let labels = fleet.engine.inspect(&taken).await.map(|seen| seen.labels).unwrap_or_default();
                if spec::is_of(&labels, &fleet.options, &room.address) {
                    // An earlier creation was not waited for; its container may be made of something else, so it is
                    // made anew.
                    fleet.engine.remove(&taken).await?;
                } else {
                    name = names.next().ok_or(EngineError::Taken(taken))?;
                }
            }
            // The mount options promised quotas, yet Podman cannot set them; from now on `disk.rs` watches instead.
            Err(EngineError::Refused { why, .. }) if fleet.quota.swap(false, Ordering::SeqCst) => {
                tracing::warn!(%why, "no container with a disk quota can be made; the disk is watched instead");
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Creates or finds the room's volume. The two directories of an image appear once it is mounted, but Podman looks
/// for them before that, so empty ones are made at the mount point.
async fn volume(fleet: &Fleet, room: &Room, container: &mut Container) -> Result<(), SandboxError> {
    let files = fleet.files.of(&room.address);
    let known = container.volume.take();
    if let Some(volume) = known.as_ref().filter(|volume| volume.image.is_none()) {
        // The files are in a volume of an older server and could not be moved.
        files.furnish(volume.mountpoint.clone(), volume.ids).await?;
        container.volume = known;
        return Ok(());
    }
    let ids = container.ids();
    let label = ids.map(IdRange::label);
    let more: Vec<_> = label.iter().map(|label| (id_range::LABEL, label.as_str())).collect();
    let labels = spec::labels(&fleet.options, &room.address, &more);
    let names = known
        .map_or_else(|| name::candidates(&fleet.options.instance, &room.address).to_vec(), |volume| vec![volume.name]);
    for name in &names {
        let mut made = make_volume(fleet, name, &labels, &files.image).await?;
        if !spec::is_of(&made.labels, &fleet.options, &room.address) {
            continue; // another room's, or another server's
        }
        if image::device(&made.options).as_ref() != Some(&files.image) {
            // The volume is ours but for something else than the image, so it is replaced.
            fleet.engine.remove_volume(name).await?;
            made = make_volume(fleet, name, &labels, &files.image).await?;
        }
        let places = made.mountpoint.parent().into_iter().chain([&*made.mountpoint]).map(Path::to_owned);
        let places: Vec<_> = places.chain(spec::part_directories(&made.mountpoint)).collect();
        let bound = spawn_blocking(move || places.iter().try_for_each(|place| files::make_directory(place))).await;
        let bound = bound.unwrap_or_else(|error| Err(io::Error::other(error)));
        let passed = bound.and_then(|()| runtime::let_pass_to_volume(fleet.options.runtime, &made.mountpoint));
        passed.map_err(|source| SandboxError::Volume { path: made.mountpoint.clone(), source })?;
        let image = Some(files.image.clone());
        container.volume = Some(RoomVolume { name: made.name, mountpoint: made.mountpoint, ids, image });
        return Ok(());
    }
    Err(EngineError::Taken(names.last().cloned().unwrap_or_default()).into())
}

async fn make_volume(
    fleet: &Fleet,
    name: &str,
    labels: &HashMap<String, String>,
    image: &Path,
) -> Result<engine::Volume, EngineError> {
    fleet.engine.create_volume(name, labels.clone(), image::volume_options(image)).await
}

/// Repairs what kept a container from starting, if that was its volume; the caller tries the start again.
pub(super) async fn mend(
    fleet: &Fleet,
    room: &Room,
    container: &mut Container,
    error: EngineError,
) -> Result<(), SandboxError> {
    let why = match &error {
        EngineError::Refused { why, .. } if why.contains(NOT_MOUNTED) => why,
        _ => return Err(error.into()),
    };
    if events::give_up_volumes(fleet, room, why) {
        return discard(fleet, room, container).await;
    }
    let Some(volume) = container.volume.clone() else { return Err(error.into()) };
    // A Podman that was killed during its cleanup leaves the volume mounted.
    if mounts::unmount(&volume.mountpoint).unwrap_or_default() {
        return Ok(());
    }
    let files = fleet.files.of(&room.address);
    if !container.fresh {
        return Err(SandboxError::NotMounted { image: files.image, why: why.clone() });
    }
    // The image is new and empty, so a directory takes its place.
    tracing::warn!(%why, "Podman cannot mount images here: rooms' files are directories, whose size is only watched");
    fleet.images.store(false, Ordering::SeqCst);
    discard(fleet, room, container).await?;
    fleet.engine.remove_volume(&volume.name).await?;
    container.volume = None;
    let failed = |source| SandboxError::Files { path: files.image.clone(), source };
    files::remove_file(&files.image).map_err(failed)?;
    prepare::make(fleet, room, container).await
}
