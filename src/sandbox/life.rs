//! How a room's container comes to life and ends: started, greeted, taken over, stopped, killed, removed.
//!
//! Called under the room's lock by the fleet, the limiter and the reconciler. Making a container that does not exist is
//! `creation.rs`.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, timeout};
use tracing::Instrument;

use super::{
    Link, LinkState, Sandbox, SandboxError,
    creation::{self, create, wanted},
    engine::{Condition, EngineError},
    events,
    fleet::Shared,
    limit,
    room::{Container, Room},
};
use crate::strings::sandboxes as words;

/// How long a started container has for sandboxd's greeting: thirty at once on two slow processors need seconds.
const GREETING_LIMIT: Duration = Duration::from_secs(30);

/// How long the sandboxd of an adopted container has to dial again: it tries at least each second.
const REDIAL_LIMIT: Duration = Duration::from_secs(5);

/// How long Podman may take to say whether a container is paused, for somebody who waits for an answer of its sandboxd:
/// less than they wait for that.
const LOOK_LIMIT: Duration = Duration::from_secs(4);

/// How long a stop waits until it kills. sandboxd needs a second at most.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// Brings the room's sandbox to life, or returns the one that somebody else brought to life meanwhile.
pub(super) async fn start(shared: Arc<Shared>, room: Arc<Room>) -> Result<Sandbox, SandboxError> {
    shared.adoption().await?;
    let mut container = room.container.lock().await;
    if room.is_held()
        && let Some(held) = held(&shared, &room).await
    {
        return Err(held);
    }
    if let Some(sandbox) = room.live() {
        return Ok(sandbox);
    }
    if room.is_running() {
        let error = match redial(&shared, &room, &container).await {
            Ok(sandbox) => return Ok(sandbox),
            Err(held @ SandboxError::Paused { .. }) => return Err(held),
            Err(error) => error,
        };
        tracing::warn!(%error, "a running sandbox cannot be spoken with, so it is ended");
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
    creation::prepare(shared, room, container).await?;
    bind(shared, room)?; // before anything that takes time: sandboxd dials as soon as it runs
    if container.name.is_some() && container.spec != wanted(shared, room, container, &image) {
        tracing::info!("image or limits changed: the container is made anew, its files stay");
        discard(shared, room, container).await?;
    }
    for _ in 0..3 {
        let name = match &container.name {
            Some(name) => {
                events::make(shared, room, name).await?;
                name.clone()
            }
            None => create(shared, room, container, &image).await?,
        };
        match shared.engine.start_container(&name).await {
            // Somebody removed it behind our back.
            Err(EngineError::NotFound(_)) => room.note_container(container, None),
            Err(error) => creation::mend(shared, room, container, error).await?,
            Ok(()) => {
                container.fresh = false;
                return greet(shared, room, &name).await;
            }
        }
    }
    Err(EngineError::NotFound(room.address.to_string()).into())
}

/// Makes the room's socket.
fn bind(shared: &Arc<Shared>, room: &Arc<Room>) -> Result<(), SandboxError> {
    let directory = shared.directory(room);
    // Open to all: the container's root is a stranger on the host. Its parent is closed to all.
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&directory);
    let opened = made.and_then(|()| fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)));
    opened.map_err(|source| SandboxError::Socket { path: directory.clone(), source })?;
    // The link and its connections know no room; their lines of the log name it by this. The turn for which the sandbox
    // starts may end long before them.
    let link =
        room.address.span().in_scope(|| Link::bind(&directory, shared.proxies(&room.address), &shared.cancel))?;
    let (fleet, asked) = (Arc::downgrade(shared), Arc::downgrade(room));
    link.ask_when_silent(Box::new(move || {
        let (fleet, room) = (fleet.upgrade(), asked.upgrade());
        Box::pin(async move { held(&*fleet?, &*room?).await })
    }));
    room.set_link(link);
    Ok(())
}

/// Waits for the sandboxd of a container that counts as running: it dials by itself.
async fn redial(shared: &Arc<Shared>, room: &Arc<Room>, container: &Container) -> Result<Sandbox, SandboxError> {
    let link = room.link().ok_or(SandboxError::Disconnected)?;
    if matches!(*link.watch().borrow(), LinkState::MustEnd(_)) {
        return Err(SandboxError::NotEnded);
    }
    let name = container.name.as_deref().ok_or(SandboxError::Disconnected)?;
    greeting(shared, room, &link, name, REDIAL_LIMIT).await
}

/// Waits for a freshly started container's sandboxd, and watches the connection from then on.
async fn greet(shared: &Arc<Shared>, room: &Arc<Room>, name: &str) -> Result<Sandbox, SandboxError> {
    let link = room.link().ok_or(SandboxError::ShuttingDown)?;
    let sandbox = greeting(shared, room, &link, name, GREETING_LIMIT).await?;
    watch(shared, room, &link);
    events::watch(shared, room, name).await;
    room.touch();
    Ok(sandbox)
}

/// Lets the container's PID 1 connect and waits for its greeting, or for the container's end.
async fn greeting(
    shared: &Arc<Shared>,
    room: &Arc<Room>,
    link: &Arc<Link>,
    name: &str,
    limit: Duration,
) -> Result<Sandbox, SandboxError> {
    let deadline = Instant::now() + limit;
    loop {
        let ended = room.ended.notified();
        let seen = tokio::select! {
            biased;
            // A container that was taken over: its PID 1 is known, and Podman, which may be slow, need not be waited for.
            Ok(sandbox) = link.connected(limit) => return Ok(sandbox),
            seen = shared.engine.inspect(name) => seen?,
        };
        match seen.condition {
            Condition::Running => {}
            Condition::Paused => {
                room.set_paused(true);
                return Err(SandboxError::Paused { container: name.to_owned() });
            }
            Condition::Stopped => return Err(SandboxError::Died { exit_code: seen.exit_code }),
        }
        link.set_peer(seen.pid);
        room.note_pid(seen.pid);
        tokio::select! {
            sandbox = link.connected(deadline.saturating_duration_since(Instant::now())) => return sandbox,
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
    room.memory_used.store(shared.memory.expected(shared.options.memory), Ordering::SeqCst);
    room.note_pid(seen.pid);
    let paused = seen.condition == Condition::Paused;
    room.set_paused(paused);
    set_frozen(shared, room, paused && frozen_mark(shared, room).exists());
    room.touch();
    if let Some(link) = room.link() {
        link.set_peer(seen.pid);
        watch(shared, room, &link);
    }
    events::watch(shared, room, name).await;
    tracing::info!(container = name, "took over a running sandbox");
    Ok(())
}

/// Looks whether the room's container is frozen, by us or by somebody else, and says so then.
pub(super) async fn held(shared: &Shared, room: &Room) -> Option<SandboxError> {
    if room.is_frozen() {
        return Some(SandboxError::HostDiskLow);
    }
    let container = room.container_name()?;
    // Podman away, or slow: what it said last holds.
    if let Ok(Ok(seen)) = timeout(LOOK_LIMIT, shared.engine.inspect(&container)).await {
        room.set_paused(seen.condition == Condition::Paused);
    }
    room.is_held().then_some(SandboxError::Paused { container })
}

/// Notes that we froze the room's container, or that it is not frozen by us: also for the next server, which must leave
/// alone what somebody else paused.
pub(super) fn set_frozen(shared: &Shared, room: &Room, frozen: bool) {
    let mark = frozen_mark(shared, room);
    let noted = if frozen { fs::write(&mark, b"") } else { fs::remove_file(&mark) };
    if let Err(error) = noted
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "cannot note whether a sandbox is frozen");
    }
    room.set_frozen(frozen);
}

/// A file that tells that we froze the room's container.
fn frozen_mark(shared: &Shared, room: &Room) -> PathBuf {
    shared.directory(room).with_extension("frozen")
}

/// Ends the container when its link says so. Ends itself with the link.
fn watch(shared: &Arc<Shared>, room: &Arc<Room>, link: &Arc<Link>) {
    let mut states = link.watch();
    let (shared, room, span) = (Arc::clone(shared), Arc::clone(room), room.address.span());
    let fleet = Arc::clone(&shared);
    let watching = async move {
        // An error: the link is gone, and nothing is left to watch.
        let Ok(state) =
            states.wait_for(|state| matches!(state, LinkState::MustEnd(_))).await.map(|state| state.clone())
        else {
            return;
        };
        let LinkState::MustEnd(why) = state else { return };
        tracing::warn!(%why, "the sandbox's container is killed");
        // By its name, without the lock: whoever holds the lock may be waiting for just this.
        let Some(name) = room.container_name() else { return };
        if let Err(error) = shared.engine.kill(&name).await {
            tracing::error!(%error, "the container cannot be killed");
        }
        let mut container = room.container.lock().await;
        note_if_ended(&shared, &room, &mut container).await;
    };
    fleet.supervise(watching.instrument(span));
}

/// Looks whether a container that counts as running has ended, and notes it.
pub(super) async fn note_if_ended(shared: &Shared, room: &Room, container: &mut Container) {
    let Some(name) = container.name.clone().filter(|_| room.is_running()) else { return };
    match shared.engine.inspect(&name).await {
        Ok(seen) if seen.condition == Condition::Stopped => {
            tracing::warn!(container = name, exit_code = seen.exit_code, "a sandbox ended by itself");
        }
        Err(EngineError::NotFound(_)) => {
            tracing::warn!(container = name, "a sandbox was removed by somebody else");
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

/// Stops a sandbox whose image the host's disk has failed, and says so: its next start has the image checked.
pub(super) async fn close(shared: Arc<Shared>, room: Arc<Room>) {
    let Ok(container) = room.container.try_lock() else { return }; // it is stopped or started already
    match stop(&shared, &room, &container).await {
        Ok(()) => shared.tell(&room.address, words::DISK_FAILED.to_owned()),
        Err(error) => tracing::warn!(%error, "a sandbox whose disk has failed cannot be stopped"),
    }
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
        tracing::warn!(%error, "a sandbox that failed to start cannot be killed");
    }
    limit::release(shared, room);
}

/// Removes the container, whatever it does, and with it the room's files if `with_files`.
pub(super) async fn remove(shared: &Shared, room: &Room, with_files: bool) -> Result<(), SandboxError> {
    let mut container = room.container.lock().await;
    room.forget_link();
    let name = container.name.clone();
    discard(shared, room, &mut container).await?;
    limit::release(shared, room);
    if let Some(name) = name {
        events::remove(shared, room, &name).await?;
    }
    if with_files && container.has_files() {
        creation::remove_files(shared, room, &mut container).await?;
        if let Err(error) = room.remove_directory(&shared.options.state_dir) {
            tracing::debug!(%error, "a removed room's directory stays");
        }
    }
    Ok(())
}

/// Removes the container; its files stay.
pub(super) async fn discard(shared: &Shared, room: &Room, container: &mut Container) -> Result<(), SandboxError> {
    if let Some(name) = container.name.clone() {
        shared.engine.remove(&name).await?;
        room.note_container(container, None);
    }
    Ok(())
}
