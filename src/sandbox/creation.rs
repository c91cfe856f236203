//! Making what does not exist: a room's files with their two directories, its volume, and its container, each under the
//! first name that is free. Called by `life.rs` under the room's lock.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use tokio::task::spawn_blocking;

use super::{
    SandboxError,
    engine::{self, EngineError, Image},
    events,
    files::{self, Kind, Record, RoomFiles},
    fleet::Shared,
    id_range::{self, IdRange},
    image, life, mounts, moving, name,
    program::Program,
    room::{Container, Room, RoomVolume},
    spec::{self, Place},
};
use crate::strings::sandboxes as words;

/// How long a room's files may take to be removed.
const REMOVE_LIMIT: Duration = Duration::from_mins(10);

/// What Podman says of a container whose volume it cannot mount.
const NOT_MOUNTED: &str = "mounting volume";

/// Returns the label that a container of today would carry; `None` where there are no files for one.
pub(super) fn wanted(shared: &Shared, room: &Room, container: &Container, image: &Image) -> Option<String> {
    let directory = shared.directory(room);
    let (volume, files) = roots(shared, room, container)?;
    let name = container.name.as_deref()?;
    let body =
        spec::container(&shared.options, &place(shared, room, container, name, (volume, &files), &directory, image));
    body.labels?.remove(spec::SPEC)
}

/// Returns the volume, if there is one, and where the files lie.
fn roots<'a>(shared: &Shared, room: &Room, container: &'a Container) -> Option<(Option<&'a str>, PathBuf)> {
    let files = shared.files.of(&room.address);
    if files.kind() == Some(Kind::Directory) {
        return Some((None, files.directory));
    }
    container.volume.as_ref().map(|volume| (Some(volume.name.as_str()), volume.mountpoint.clone()))
}

fn place<'a>(
    shared: &'a Shared,
    room: &'a Room,
    container: &Container,
    name: &str,
    (volume_name, files): (Option<&'a str>, &'a Path),
    directory: &'a Path,
    image: &'a Image,
) -> Place<'a> {
    Place {
        volume_name,
        address: &room.address,
        directory,
        files,
        events: events::source(shared, room, name),
        ids: container.ids(),
        quota: shared.quota.load(Ordering::SeqCst),
        sandboxd: &shared.sandboxd,
        seccomp: &shared.seccomp,
        fixed: &shared.fixed,
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
    if shared.files.of(&room.address).kind() != Some(Kind::Directory) {
        volume(shared, room, container).await?;
    }
    let directory = shared.directory(room);
    let mut image = image.clone();
    let mut names: Vec<_> = container.volume.iter().map(|volume| volume.name.clone()).collect();
    names.extend(name::candidates(&shared.options.instance, &room.address));
    names.dedup();
    let mut names = names.into_iter();
    let mut name = names.next().unwrap_or_default();
    loop {
        let missing = || SandboxError::from(EngineError::NotFound(name.clone()));
        let (volume, files) = roots(shared, room, container).ok_or_else(missing)?;
        events::make(shared, room, &name).await?;
        let place = place(shared, room, container, &name, (volume, &files), &directory, &image);
        let body = spec::container(&shared.options, &place);
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
                if spec::is_of(&labels, &shared.options, &room.address) {
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

/// Sees to it that the room has files that can be used. If they are gone, the room is told, new ones are made, and the
/// record keeps it for the model.
pub(super) async fn prepare(shared: &Shared, room: &Room, container: &mut Container) -> Result<(), SandboxError> {
    let files = shared.files.of(&room.address);
    let podmans = container.volume.as_ref().filter(|volume| volume.image.is_none()).map(|volume| &volume.mountpoint);
    match (files.kind(), podmans) {
        (None, Some(from)) if from.exists() => {
            if container.is_to_be_moved() {
                moving::take_over(shared, room, container).await?;
            }
            return Ok(());
        }
        (Some(_), Some(_)) => moving::finish(shared, room, container).await?,
        _ => {}
    }
    match files.kind() {
        Some(Kind::Image) => usable(shared, &files).await,
        Some(Kind::Directory) => blocking(&files, files.directory.clone(), container.ids()).await,
        // Where a part is left, the making of what is missing was interrupted: nothing was in it.
        None if !container.has_files() || files.part.exists() => make(shared, room, container).await,
        None => {
            life::discard(shared, room, container).await?;
            if let Some(volume) = container.volume.take() {
                shared.engine.remove_volume(&volume.name).await?;
                container.record.get_or_insert_with(|| Record::new(&room.address, volume.ids));
            }
            if let Some(record) = &mut container.record {
                record.lost = true;
            }
            make(shared, room, container).await?;
            room.set_lost(true);
            shared.tell(&room.address, words::FILES_LOST.to_owned());
            Ok(())
        }
    }
}

/// Makes the room's first files.
async fn make(shared: &Shared, room: &Room, container: &mut Container) -> Result<(), SandboxError> {
    let files = shared.files.of(&room.address);
    let (ids, chosen) = match &container.record {
        Some(record) => (record.ids(), None),
        None if shared.info().await?.rootless => (None, None),
        None => {
            let seed = shared.id_seed();
            let chosen = shared.ids().choose(seed).ok_or(SandboxError::NoIds)?;
            (Some(chosen), Some(chosen))
        }
    };
    let kind = if shared.images.load(Ordering::SeqCst) { Kind::Image } else { Kind::Directory };
    let record = container.record.clone().unwrap_or_else(|| Record::new(&room.address, ids));
    if let Err(error) = make_files(shared, &files, kind, &record).await {
        if let Some(chosen) = chosen {
            shared.ids().free(chosen);
        }
        return Err(error);
    }
    container.record = Some(record);
    container.fresh = true;
    Ok(())
}

async fn make_files(shared: &Shared, files: &RoomFiles, kind: Kind, record: &Record) -> Result<(), SandboxError> {
    let failed = |source| SandboxError::Files { path: files.part.clone(), source };
    remove_directory(shared, &files.part).await.map_err(failed)?;
    match kind {
        Kind::Directory => blocking(files, files.part.clone(), record.ids()).await?,
        Kind::Image => {
            let pattern = files.part.with_extension("new");
            blocking(files, pattern.clone(), record.ids()).await?;
            let made = image::make(&files.part, shared.options.disk, &pattern, 0).await;
            fs::remove_dir_all(&pattern).and(made).map_err(failed)?;
        }
    }
    keep(files, kind, record).await
}

/// Writes the record, and lets the part that was made count.
pub(super) async fn keep(files: &RoomFiles, kind: Kind, record: &Record) -> Result<(), SandboxError> {
    let (places, record) = (files.clone(), record.clone());
    let work = move || {
        files::sync(&places.part)?;
        places.note(&record)?;
        places.finish(kind)
    };
    let kept = spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    kept.map_err(|source| SandboxError::Files { path: files.part.clone(), source })
}

async fn blocking(files: &RoomFiles, root: PathBuf, ids: Option<IdRange>) -> Result<(), SandboxError> {
    let furnished = spawn_blocking(move || files::furnish(&root, ids)).await;
    let furnished = furnished.unwrap_or_else(|error| Err(io::Error::other(error)));
    furnished.map_err(|source| SandboxError::Files { path: files.directory.clone(), source })
}

/// Looks whether an image can be mounted, and enlarges it if the share was raised since it was made.
async fn usable(shared: &Shared, files: &RoomFiles) -> Result<(), SandboxError> {
    let broken = |why: String| SandboxError::NotMounted { image: files.image.clone(), why };
    let found = image::check(&files.image).map_err(|error| broken(error.to_string()))?;
    if let Some(why) = shared.unmountable() {
        return Err(broken(why));
    }
    if !found.sound {
        match image::mend(&files.image).await {
            Ok(()) => tracing::info!(image = %files.image.display(), "a room's image was checked after a fault"),
            Err(error) => tracing::warn!(image = %files.image.display(), %error, "a room's image cannot be checked"),
        }
    }
    let wanted = shared.options.disk / image::BLOCK * image::BLOCK;
    if found.size < wanted {
        match image::grow(&files.image, &files.part, wanted).await {
            Ok(()) => tracing::info!(image = %files.image.display(), "a room's image was enlarged to SANDBOX_DISK"),
            Err(error) => tracing::warn!(image = %files.image.display(), %error, "a room's image cannot be enlarged"),
        }
    }
    Ok(())
}

/// Makes the room's volume, or finds it. Of an image, the two directories that are bound lie in it and appear when it
/// is mounted; Podman looks for them before, so empty ones are there too.
async fn volume(shared: &Shared, room: &Room, container: &mut Container) -> Result<(), SandboxError> {
    let files = shared.files.of(&room.address);
    let known = container.volume.take();
    if let Some(volume) = known.as_ref().filter(|volume| volume.image.is_none()) {
        // One of an older server that could not be moved.
        blocking(&files, volume.mountpoint.clone(), volume.ids).await?;
        container.volume = known;
        return Ok(());
    }
    let ids = container.ids();
    let label = ids.map(IdRange::label);
    let more: Vec<_> = label.iter().map(|label| (id_range::LABEL, label.as_str())).collect();
    let labels = spec::labels(&shared.options, &room.address, &more);
    let names = known
        .map_or_else(|| name::candidates(&shared.options.instance, &room.address).to_vec(), |volume| vec![volume.name]);
    for name in &names {
        let mut made = make_volume(shared, name, &labels, &files.image).await?;
        if !spec::is_of(&made.labels, &shared.options, &room.address) {
            continue; // another room's, or another server's
        }
        if image::device(&made.options).as_ref() != Some(&files.image) {
            // One of ours that is something else: the image is what counts.
            shared.engine.remove_volume(name).await?;
            made = make_volume(shared, name, &labels, &files.image).await?;
        }
        let places = made.mountpoint.parent().into_iter().chain([&*made.mountpoint]).map(Path::to_owned);
        let places: Vec<_> = places.chain(spec::part_directories(&made.mountpoint)).collect();
        let bound = spawn_blocking(move || places.iter().try_for_each(|place| files::make_directory(place))).await;
        let bound = bound.unwrap_or_else(|error| Err(io::Error::other(error)));
        bound.map_err(|source| SandboxError::Volume { path: made.mountpoint.clone(), source })?;
        let image = Some(files.image.clone());
        container.volume = Some(RoomVolume { name: made.name, mountpoint: made.mountpoint, ids, image });
        return Ok(());
    }
    Err(EngineError::Taken(names.last().cloned().unwrap_or_default()).into())
}

async fn make_volume(
    shared: &Shared,
    name: &str,
    labels: &HashMap<String, String>,
    image: &Path,
) -> Result<engine::Volume, EngineError> {
    shared.engine.create_volume(name, labels.clone(), image::volume_options(image)).await
}

/// Mends what kept a container from its start, if it was its volume and that can be mended; whoever called tries again.
pub(super) async fn mend(
    shared: &Shared,
    room: &Room,
    container: &mut Container,
    error: EngineError,
) -> Result<(), SandboxError> {
    let why = match &error {
        EngineError::Refused { why, .. } if why.contains(NOT_MOUNTED) => why,
        _ => return Err(error.into()),
    };
    if events::give_up_volumes(shared, room, why) {
        return life::discard(shared, room, container).await;
    }
    let Some(volume) = container.volume.clone() else { return Err(error.into()) };
    // Left by a Podman that was killed while it cleaned up.
    if mounts::unmount(&volume.mountpoint).unwrap_or_default() {
        return Ok(());
    }
    let files = shared.files.of(&room.address);
    if !container.fresh {
        return Err(SandboxError::NotMounted { image: files.image, why: why.clone() });
    }
    // Nothing is in it yet, so directories do as well from the first.
    tracing::warn!(%why, "Podman cannot mount images here: rooms' files are directories, whose size is only watched");
    shared.images.store(false, Ordering::SeqCst);
    life::discard(shared, room, container).await?;
    shared.engine.remove_volume(&volume.name).await?;
    container.volume = None;
    let failed = |source| SandboxError::Files { path: files.image.clone(), source };
    files::remove_file(&files.image).map_err(failed)?;
    make(shared, room, container).await
}

/// Removes the room's files, whichever it has, and its volume.
pub(super) async fn remove_files(shared: &Shared, room: &Room, container: &mut Container) -> Result<(), SandboxError> {
    let ids = container.ids();
    if let Some(volume) = &container.volume {
        shared.engine.remove_volume(&volume.name).await?;
        container.volume = None;
    }
    let files = shared.files.of(&room.address);
    let failed = |source| SandboxError::Files { path: files.directory.clone(), source };
    for directory in [&files.part, &files.directory] {
        remove_directory(shared, directory).await.map_err(failed)?;
    }
    files.forget().map_err(failed)?;
    container.record = None;
    if let Some(ids) = ids {
        shared.ids().free(ids);
    }
    Ok(())
}

/// Removes a directory, or a file, that a sandbox may have written to.
pub(super) async fn remove_directory(shared: &Shared, path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let rootless = shared.rootless().await;
    Program::inside(rootless.as_deref(), "rm")
        .args(["--recursive", "--force", "--one-file-system", "--"])
        .arg(path)
        .run(REMOVE_LIMIT)
        .await
}
