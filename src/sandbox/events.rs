//! The directory in which a sandbox drops its events: mounted at `/workspace/.ipc`, found on the host at
//! `IPC_BASE_DIR/<container>`, and with a bound of its own, since it is not among the room's files.
//!
//! Where Podman can mount, it is a tmpfs volume with fixed numbers of bytes and inodes, which the kernel enforces and
//! which is empty after each stop. Elsewhere (rootless) it is a directory that is emptied when it is above its bound.
//! `ipc` alone reads it.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use nix::unistd::{SysconfVar, sysconf};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tracing::Instrument;

use super::{
    SandboxError,
    engine::EngineError,
    event_mount::Source,
    files,
    fleet::Fleet,
    options::SandboxOptions,
    program::{Program, remove_directory},
    room::Room,
    runtime,
    space::Usage,
    usage::{self, Places},
};
use crate::ids::digest;

/// The bound.
const BOUND: Usage = Usage { bytes: 8 << 20, inodes: 4096 };

/// The label that names the server of such a volume. Different from the label of rooms' volumes, for which older
/// servers would take it otherwise.
pub(super) const INSTANCE: &str = "matrix-agent.ipc";

/// How often directories are checked that nothing else bounds.
const PERIOD: Duration = Duration::from_secs(5);

/// How long counting, and emptying, a directory may take.
const LIMIT: Duration = Duration::from_mins(1);

/// Makes the directory above all rooms' directories. Nobody else on the host may enter it, since those in it are open
/// to all.
pub(super) fn open(base: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(base)?;
    fs::set_permissions(base, fs::Permissions::from_mode(0o700))
}

/// Returns what is mounted for events into the room's container of this name.
pub(super) fn source(fleet: &Fleet, room: &Room, container: &str) -> Source {
    if fleet.event_volumes.load(Ordering::SeqCst) {
        Source::Volume(volume_name(fleet, room))
    } else {
        Source::Directory(place(&fleet.options, container))
    }
}

/// Returns whether Podman refused a start because of the events volume; if so, no such volumes are used any more.
pub(super) fn give_up_volumes(fleet: &Fleet, room: &Room, why: &str) -> bool {
    let is_ours = why.contains(&volume_name(fleet, room)) && fleet.event_volumes.swap(false, Ordering::SeqCst);
    if is_ours {
        tracing::warn!(%why, "Podman cannot mount volumes for events here: they are directories, which are only watched");
    }
    is_ours
}

/// Returns the room's events directory if it is a plain directory, which only the watch bounds.
pub(super) fn directory(fleet: &Fleet, room: &Room, container: &str) -> Option<PathBuf> {
    match source(fleet, room, container) {
        Source::Directory(directory) if directory.exists() => Some(directory),
        Source::Directory(_) | Source::Volume(_) => None,
    }
}

/// Makes what is to be mounted unless it exists. Called before each start, since `IPC_BASE_DIR` may be cleared by a
/// reboot.
pub(super) async fn make(fleet: &Fleet, room: &Room, container: &str) -> Result<(), SandboxError> {
    let place = place(&fleet.options, container);
    let failed = |source| SandboxError::Events { path: place.clone(), source };
    match source(fleet, room, container) {
        Source::Volume(name) => {
            let mountpoint = volume(fleet, &name).await?;
            let (link, to, runtime) = (place.clone(), mountpoint, fleet.options.runtime);
            let opened = move || runtime::let_pass_to_volume(runtime, &to).and_then(|()| lead(&link, &to));
            let linked = spawn_blocking(opened).await;
            linked.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed)
        }
        Source::Directory(directory) => {
            let runtime = fleet.options.runtime;
            let made = spawn_blocking(move || {
                let above = directory.parent().map(Path::to_owned);
                runtime::let_pass(runtime, above.as_slice())?;
                if fs::symlink_metadata(&directory).is_ok_and(|there| there.is_symlink()) {
                    fs::remove_file(&directory)?; // a link from when Podman could mount
                }
                files::make_directory(&directory)?;
                // The container's ids are unknown on the host, so everybody may write; the directory above keeps all
                // others out.
                fs::set_permissions(&directory, fs::Permissions::from_mode(0o777))
            });
            made.await.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed)
        }
    }
}

/// Starts watching a running container's events.
pub(super) async fn watch(fleet: &Fleet, room: &Room, container: &str) {
    let Some(ipc) = &fleet.ipc else { return };
    let directory = match source(fleet, room, container) {
        Source::Directory(directory) => directory,
        Source::Volume(name) => match fleet.info().await {
            Ok(info) => info.volume_path.join(name).join("_data"),
            Err(error) => {
                tracing::warn!(%error, "a sandbox's events are not shown");
                return;
            }
        },
    };
    room.set_events(ipc.watch(&room.address, directory));
}

/// Removes the volume or directory once the container is gone.
pub(super) async fn remove(fleet: &Fleet, room: &Room, container: &str) -> Result<(), SandboxError> {
    let place = place(&fleet.options, container);
    let failed = |source| SandboxError::Events { path: place.clone(), source };
    if let Source::Volume(name) = source(fleet, room, container) {
        fleet.engine.remove_volume(&name).await?;
    }
    if fs::symlink_metadata(&place).is_ok_and(|there| there.is_symlink()) {
        return files::remove_file(&place).map_err(failed);
    }
    remove_directory(fleet.rootless().await.as_deref(), &place).await.map_err(failed)
}

/// Empties directories that are above the bound, until the fleet ends. The kernel bounds volumes.
pub(super) async fn hold(fleet: Arc<Fleet>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for room in fleet.all() {
            let Some(container) = room.container_name().filter(|_| room.is_running()) else { continue };
            if let Source::Directory(directory) = source(&fleet, &room, &container) {
                look(&fleet, directory).instrument(room.address.span()).await;
            }
        }
    }
}

async fn look(fleet: &Fleet, directory: PathBuf) {
    if let Err(error) = empty_if_full(fleet, directory).await {
        tracing::warn!(%error, "a sandbox's events cannot be kept within their bound");
    }
}

async fn empty_if_full(fleet: &Fleet, directory: PathBuf) -> io::Result<()> {
    // The directory is mostly empty, since events are taken at once.
    let is_empty = fs::read_dir(&directory).is_ok_and(|mut entries| entries.next().is_none());
    if is_empty || !directory.exists() {
        return Ok(());
    }
    let rootless = fleet.rootless().await;
    let directories = vec![directory.clone()];
    let taken = usage::measure(&Places { directories, rootless: rootless.clone(), ..Places::default() }, LIMIT).await?;
    if taken.bytes <= BOUND.bytes && taken.inodes <= BOUND.inodes {
        return Ok(());
    }
    tracing::warn!(?taken, "a sandbox's events are above their bound, so all are deleted");
    let mut find = Program::inside(rootless.as_deref(), "find");
    find.arg(directory).args(["-xdev", "-mindepth", "1", "-delete"]).run(LIMIT).await
}

fn volume_name(fleet: &Fleet, room: &Room) -> String {
    let owner = [fleet.options.instance.as_str(), &room.address.account, room.address.room.as_str()];
    format!("ipc-{}", digest(&owner, 8))
}

/// Returns where the events of a container are found on the host.
fn place(options: &SandboxOptions, container: &str) -> PathBuf {
    options.ipc_dir.join(container)
}

/// Creates or finds the volume; returns its mount point.
async fn volume(fleet: &Fleet, name: &str) -> Result<PathBuf, EngineError> {
    let labels = HashMap::from([(INSTANCE.to_owned(), fleet.options.instance.clone())]);
    Ok(fleet.engine.create_volume(name, labels, volume_options()).await?.mountpoint)
}

/// Returns the volume options for such a tmpfs. The size is given as `nr_blocks`, in pages: Podman takes the word
/// `size` for a quota, which few file systems have.
fn volume_options() -> HashMap<String, String> {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|page| u64::try_from(page).ok()).unwrap_or(4096);
    let o = format!("nr_blocks={},nr_inodes={},mode=1777,nodev,nosuid", BOUND.bytes / page, BOUND.inodes);
    [("type", "tmpfs"), ("device", "tmpfs"), ("o", &o)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Makes `link` a link to `to`, replacing what is there.
fn lead(link: &Path, to: &Path) -> io::Result<()> {
    if fs::read_link(link).is_ok_and(|there| there == to) {
        return Ok(());
    }
    if fs::symlink_metadata(link).is_ok_and(|there| there.is_dir()) {
        fs::remove_dir(link)?; // from when Podman could not mount; fails if events are left in it
    }
    let fresh = link.with_extension(format!("{}.tmp", crate::ids::random(4)));
    symlink(to, &fresh)?;
    fs::rename(fresh, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_leads_to_where_it_is_mounted_now() {
        let base = tempfile::tempdir().unwrap();
        let link = base.path().join("sandbox-room-example.com");
        for to in ["/a", "/b", "/b"] {
            lead(&link, Path::new(to)).unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), Path::new(to));
        }
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
        fs::remove_file(&link).unwrap();
        fs::create_dir(&link).unwrap();
        lead(&link, Path::new("/c")).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/c"));
    }
}
