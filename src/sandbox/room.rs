//! One room's container: how it is created, started, greeted, stopped and removed.
//!
//! Everything that changes a container happens under its room's lock, so two calls for one room share one start, while
//! different rooms go in parallel. Called by the fleet, the limiter and the reconciler.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex as Lock, Notify},
    task::spawn_blocking,
    time::Instant,
};

use super::{
    Link, LinkState, Sandbox, SandboxError,
    engine::{Condition, EngineError, Image},
    fleet::{SandboxState, SandboxSummary, Shared},
    id_range::{self, IdRange},
    limit, name,
    spec::{self, Place},
};
use crate::ids::RoomKey;

/// How long a started container has for sandboxd's greeting: thirty at once on two slow processors need seconds.
const GREETING_LIMIT: Duration = Duration::from_secs(30);

/// How long the sandboxd of an adopted container has to dial again: it tries at least each second.
const REDIAL_LIMIT: Duration = Duration::from_secs(5);

/// How long a stop waits until it kills. sandboxd needs a second at most.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// A room, whether or not it has a container.
pub(super) struct Room {
    pub(super) key: RoomKey,
    /// The name of its directory under `rooms/`.
    pub(super) directory: String,
    /// What is known of its container and volume. The lock is held while they change.
    pub(super) container: Lock<Container>,
    /// The container's name, for those who must not wait for the lock.
    name: Mutex<Option<String>>,
    /// The host's end of the connection, while the container runs.
    link: Mutex<Option<Arc<Link>>>,
    /// It counts among the running ones.
    running: AtomicBool,
    /// It is about to be stopped: whoever wants it waits for the lock.
    stopping: AtomicBool,
    /// It is frozen for want of disk.
    frozen: AtomicBool,
    last_used: Mutex<Instant>,
    /// Rung when Podman tells of the end of its PID 1.
    pub(super) ended: Notify,
}

/// What is known of a room's container and volume.
#[derive(Default)]
pub(super) struct Container {
    /// Its name; `None`: there is no container.
    pub(super) name: Option<String>,
    /// The label that tells what it was made of.
    pub(super) spec: Option<String>,
    pub(super) volume: Option<RoomVolume>,
}

/// A room's volume.
#[derive(Clone)]
pub(super) struct RoomVolume {
    pub(super) name: String,
    pub(super) mountpoint: PathBuf,
    /// The room's ids on the host; `None`: made by rootless Podman.
    pub(super) ids: Option<IdRange>,
}

impl Room {
    pub(super) fn new(key: RoomKey) -> Self {
        Self {
            directory: name::directory(&key),
            key,
            container: Lock::default(),
            name: Mutex::default(),
            link: Mutex::default(),
            running: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            last_used: Mutex::new(Instant::now()),
            ended: Notify::new(),
        }
    }

    /// Returns the live connection, for use: whoever stops idle ones sees it. `None`: the lock has to be waited for.
    pub(super) fn live(&self) -> Option<Sandbox> {
        self.touch(); // before the look at `stopping`: whoever stops it looks the other way round
        if self.stopping.load(Ordering::SeqCst) || self.is_frozen() {
            return None;
        }
        self.connection()
    }

    /// Returns the live connection without using it.
    pub(super) fn connection(&self) -> Option<Sandbox> {
        self.link().and_then(|link| link.current()).filter(Sandbox::is_connected)
    }

    /// Notes that it is used now.
    pub(super) fn touch(&self) {
        *locked(&self.last_used) = Instant::now();
    }

    /// Returns the time since it was used last.
    pub(super) fn idle(&self) -> Duration {
        locked(&self.last_used).elapsed()
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }

    pub(super) fn set_running(&self, running: bool) {
        self.running.store(running, Ordering::SeqCst);
    }

    pub(super) fn set_stopping(&self, stopping: bool) {
        self.stopping.store(stopping, Ordering::SeqCst);
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst)
    }

    pub(super) fn set_frozen(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
    }

    /// Returns the container's name, if there is one.
    pub(super) fn container_name(&self) -> Option<String> {
        locked(&self.name).clone()
    }

    /// Returns its line in the list; `None`: it has no container.
    pub(super) fn summary(&self) -> Option<SandboxSummary> {
        let state = if !self.is_running() {
            SandboxState::Stopped
        } else if self.is_frozen() {
            SandboxState::Paused
        } else if self.connection().is_some() {
            SandboxState::Running
        } else {
            SandboxState::Starting
        };
        let name = self.container_name()?;
        Some(SandboxSummary { room: self.key.clone(), name, state, idle_seconds: self.idle().as_secs() })
    }

    /// Notes which container there is, and what it was made of.
    pub(super) fn note_container(&self, container: &mut Container, found: Option<(&str, Option<&str>)>) {
        container.name = found.map(|(name, _)| name.to_owned());
        container.spec = found.and_then(|(_, spec)| spec).map(str::to_owned);
        locked(&self.name).clone_from(&container.name);
    }

    pub(super) fn link(&self) -> Option<Arc<Link>> {
        locked(&self.link).clone()
    }

    /// Drops the host's end of the connection; what runs inside is not touched.
    pub(super) fn forget_link(&self) {
        if let Some(link) = locked(&self.link).take() {
            link.set_peer(None); // others may hold it a little longer
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Brings the room's sandbox to life, or returns the one that somebody else brought to life meanwhile.
pub(super) async fn start(shared: Arc<Shared>, room: Arc<Room>) -> Result<Sandbox, SandboxError> {
    shared.adoption().await?;
    let mut container = room.container.lock().await;
    if room.is_frozen() {
        return Err(SandboxError::HostDiskLow);
    }
    if let Some(sandbox) = room.live() {
        return Ok(sandbox);
    }
    if room.is_running() {
        let error = match room.link() {
            Some(link) => match link.connected(REDIAL_LIMIT).await {
                Ok(sandbox) => return Ok(sandbox),
                Err(error) => error,
            },
            None => SandboxError::Disconnected,
        };
        tracing::warn!(room = %room.key, %error, "a running sandbox cannot be spoken with, so it is ended");
        end(&shared, &room, &mut container).await?;
        if matches!(error, SandboxError::Fault(_)) {
            return Err(error); // said once; the next try finds a fresh one
        }
    }
    limit::admit(&shared, &room).await?;
    let started = run(&shared, &room, &mut container).await;
    if started.is_err() {
        abandon(&shared, &room, &container).await;
    }
    started
}

/// Creates the container if need be, starts it and waits for the greeting.
async fn run(shared: &Arc<Shared>, room: &Arc<Room>, container: &mut Container) -> Result<Sandbox, SandboxError> {
    let image = shared.image().await?;
    bind(shared, room)?; // before anything that takes time: sandboxd dials as soon as it runs
    if container.name.is_some() && container.spec != wanted(shared, room, container, &image) {
        tracing::info!(room = %room.key, "image or limits changed: the container is made anew, its files stay");
        discard(shared, room, container).await?;
    }
    for _ in 0..2 {
        let name = match &container.name {
            Some(name) => name.clone(),
            None => create(shared, room, container, &image).await?,
        };
        match shared.engine.start_container(&name).await {
            // Somebody removed it behind our back.
            Err(EngineError::NotFound(_)) => room.note_container(container, None),
            started => {
                started?;
                return greet(shared, room, &name).await;
            }
        }
    }
    Err(EngineError::NotFound(room.key.to_string()).into())
}

/// Makes the room's socket.
fn bind(shared: &Arc<Shared>, room: &Arc<Room>) -> Result<(), SandboxError> {
    let collides = |other: &Arc<Room>| other.directory == room.directory && other.key != room.key;
    if let Some(other) = shared.all().iter().find(|other| collides(other) && other.link().is_some()) {
        return Err(SandboxError::RoomsCollide(other.key.clone()));
    }
    let directory = shared.directory(room);
    // Open to all: the container's root is a stranger on the host. Its parent is closed to all.
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&directory);
    let opened = made.and_then(|()| fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)));
    opened.map_err(|source| SandboxError::Socket { path: directory.clone(), source })?;
    let link = Link::bind(&directory, shared.proxies(&room.key), &shared.cancel)?;
    *locked(&room.link) = Some(Arc::new(link));
    Ok(())
}

/// Lets the started container's PID 1 connect, and waits for it.
async fn greet(shared: &Arc<Shared>, room: &Arc<Room>, name: &str) -> Result<Sandbox, SandboxError> {
    let deadline = Instant::now() + GREETING_LIMIT;
    let link = room.link().ok_or(SandboxError::ShuttingDown)?;
    loop {
        let ended = room.ended.notified();
        let seen = shared.engine.inspect(name).await?;
        if seen.condition == Condition::Stopped {
            return Err(SandboxError::Died { exit_code: seen.exit_code });
        }
        link.set_peer(seen.pid);
        tokio::select! {
            sandbox = link.connected(deadline.saturating_duration_since(Instant::now())) => {
                let sandbox = sandbox?;
                watch(shared, room, &link);
                room.touch();
                return Ok(sandbox);
            }
            // It may be a late word of an earlier run's end: looked at again.
            () = ended => {}
        }
    }
}

/// Takes a container that runs already: one of an earlier server of this state directory.
pub(super) async fn adopt(shared: &Arc<Shared>, room: &Arc<Room>, name: &str) -> Result<(), SandboxError> {
    let seen = shared.engine.inspect(name).await?;
    if seen.condition == Condition::Stopped {
        return Ok(());
    }
    bind(shared, room)?;
    room.set_running(true);
    room.set_frozen(seen.condition == Condition::Paused);
    room.touch();
    if let Some(link) = room.link() {
        link.set_peer(seen.pid);
        watch(shared, room, &link);
    }
    tracing::info!(room = %room.key, container = name, "took over a running sandbox");
    Ok(())
}

/// Ends the container when its link says so. Ends itself with the link.
fn watch(shared: &Arc<Shared>, room: &Arc<Room>, link: &Arc<Link>) {
    let mut states = link.watch();
    let (fleet, room) = (Arc::clone(shared), Arc::clone(room));
    fleet.clone().supervise(async move {
        let shared = fleet;
        // An error: the link is gone, and nothing is left to watch.
        let Ok(state) =
            states.wait_for(|state| matches!(state, LinkState::MustEnd(_))).await.map(|state| state.clone())
        else {
            return;
        };
        let LinkState::MustEnd(why) = state else { return };
        tracing::warn!(room = %room.key, %why, "the sandbox's container is killed");
        // By its name, without the lock: whoever holds the lock may be waiting for just this.
        let Some(name) = room.container_name() else { return };
        if let Err(error) = shared.engine.kill(&name).await {
            tracing::error!(room = %room.key, %error, "the container cannot be killed");
        }
        let mut container = room.container.lock().await;
        note_if_ended(&shared, &room, &mut container).await;
    });
}

/// Looks whether a container that counts as running has ended, and notes it.
pub(super) async fn note_if_ended(shared: &Shared, room: &Room, container: &mut Container) {
    let Some(name) = container.name.clone().filter(|_| room.is_running()) else { return };
    match shared.engine.inspect(&name).await {
        Ok(seen) if seen.condition == Condition::Stopped => {
            tracing::warn!(room = %room.key, container = name, exit_code = seen.exit_code, "a sandbox ended by itself");
        }
        Err(EngineError::NotFound(_)) => {
            tracing::warn!(room = %room.key, container = name, "a sandbox was removed by somebody else");
            room.note_container(container, None);
        }
        Ok(_) | Err(_) => return,
    }
    room.forget_link();
    limit::release(shared, room);
}

/// Stops the container; it can be started again. The caller has seen to it that nobody uses it.
pub(super) async fn stop(shared: &Shared, room: &Room, container: &Container) -> Result<(), SandboxError> {
    if let Some(name) = &container.name {
        shared.engine.stop(name, STOP_GRACE).await?;
    }
    room.forget_link();
    limit::release(shared, room);
    Ok(())
}

/// Ends the container at once.
async fn end(shared: &Shared, room: &Room, container: &mut Container) -> Result<(), SandboxError> {
    room.forget_link();
    if let Some(name) = container.name.clone() {
        match shared.engine.kill(&name).await {
            Err(EngineError::NotFound(_)) => room.note_container(container, None),
            killed => killed?,
        }
    }
    limit::release(shared, room);
    Ok(())
}

/// Leaves nothing half started behind after a failed start.
async fn abandon(shared: &Shared, room: &Room, container: &Container) {
    room.forget_link();
    if let Some(name) = &container.name
        && let Err(error) = shared.engine.kill(name).await
    {
        tracing::warn!(room = %room.key, %error, "a sandbox that failed to start cannot be killed");
    }
    limit::release(shared, room);
}

/// Removes the container, whatever it does, and with it the volume if `with_volume`.
pub(super) async fn remove(shared: &Shared, room: &Room, with_volume: bool) -> Result<(), SandboxError> {
    let mut container = room.container.lock().await;
    room.forget_link();
    discard(shared, room, &mut container).await?;
    limit::release(shared, room);
    if with_volume && let Some(volume) = container.volume.take() {
        if let Err(error) = shared.engine.remove_volume(&volume.name).await {
            container.volume = Some(volume);
            return Err(error.into());
        }
        if let Some(ids) = volume.ids {
            shared.ids().free(ids);
        }
        let directory = shared.directory(room);
        if let Err(error) = fs::remove_dir_all(&directory) {
            tracing::debug!(directory = %directory.display(), %error, "a removed room's directory stays");
        }
    }
    Ok(())
}

async fn discard(shared: &Shared, room: &Room, container: &mut Container) -> Result<(), SandboxError> {
    if let Some(name) = container.name.clone() {
        shared.engine.remove(&name).await?;
        room.note_container(container, None);
    }
    Ok(())
}

/// Returns the label that a container of today would carry; `None` where there is no volume for one.
fn wanted(shared: &Shared, room: &Room, container: &Container, image: &Image) -> Option<String> {
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
        sandboxd: &shared.sandboxd,
        image: &image.id,
        image_digest: &image.digest,
    }
}

/// Creates the container under the first name that is free.
async fn create(
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
        let made = shared.engine.create_volume(name, labels.clone()).await?;
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

/// Makes the volume's two directories and gives them to the agent. No container sees the directory above them, so
/// nothing in it can have been put there by a sandbox.
fn fill(volume: &RoomVolume) -> io::Result<()> {
    for directory in spec::volume_directories(&volume.mountpoint) {
        match fs::DirBuilder::new().mode(0o755).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
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
