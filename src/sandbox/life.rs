//! How a room's container is started and greeted, or taken over from an earlier server; and how a sandbox is removed
//! with everything that it has.
//!
//! Called by [`Sandboxes`](super::Sandboxes) and the reconciler. `creation.rs` makes a container that does not exist;
//! the ways in which it ends are in `ending.rs`.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, timeout};
use tracing::Instrument;

use super::{
    Link, LinkState, Sandbox, SandboxError,
    creation::{create, mend, wanted},
    ending::{abandon, discard, discard_if_gone, end, note_if_ended, release},
    engine::{Condition, EngineError},
    events,
    fleet::Fleet,
    frozen::{held, is_marked, set_frozen},
    limit::admit,
    prepare::{prepare, remove_files},
    room::{Container, Room},
    runtime::Runtime,
    spec,
};

/// How long a started container's sandboxd has to greet: thirty starts at once on two slow processors need seconds.
const GREETING_LIMIT: Duration = Duration::from_secs(30);

/// How long the sandboxd of an adopted container has to connect again; it tries at least each second.
const REDIAL_LIMIT: Duration = Duration::from_secs(5);

/// How long Podman has to tell that a container has ended whose PID 1 is gone.
const ENDED_LIMIT: Duration = Duration::from_secs(1);

/// Starts the room's sandbox, or returns the one that another call has started meanwhile.
pub(super) async fn start(fleet: Arc<Fleet>, room: Arc<Room>) -> Result<Sandbox, SandboxError> {
    fleet.adoption().await?;
    let mut container = room.container.lock().await;
    if room.is_held()
        && let Some(held) = held(&fleet, &room).await
    {
        return Err(held);
    }
    if let Some(sandbox) = room.live() {
        return Ok(sandbox);
    }
    if room.is_running() {
        let error = match redial(&fleet, &room, &container).await {
            Ok(sandbox) => return Ok(sandbox),
            Err(held @ SandboxError::Paused { .. }) => return Err(held),
            Err(error) => error,
        };
        tracing::warn!(%error, "a running sandbox cannot be spoken with, so it is ended");
        end(&fleet, &room, &mut container).await?;
        if matches!(error, SandboxError::Fault(_)) {
            return Err(error); // returned once; the next call starts the container again
        }
    }
    admit(&fleet, &room).await?;
    let started = run(&fleet, &room, &mut container).await;
    if started.is_err() {
        abandon(&fleet, &room, &container).await;
    }
    started
}

/// Creates the container if need be, starts it and waits for the greeting.
async fn run(fleet: &Arc<Fleet>, room: &Arc<Room>, container: &mut Container) -> Result<Sandbox, SandboxError> {
    let image = fleet.image().await?;
    serves_runtime(fleet).await?;
    prepare(fleet, room, container).await?;
    bind(fleet, room, fleet.options.runtime)?; // first, because sandboxd connects as soon as it runs
    if container.name.is_some() && container.spec != wanted(fleet, room, container, &image) {
        tracing::info!("image or limits changed: the container is made anew, its files stay");
        discard(fleet, room, container).await?;
    }
    for _ in 0..3 {
        let name = match &container.name {
            Some(name) => {
                events::make(fleet, room, name).await?;
                name.clone()
            }
            None => create(fleet, room, container, &image).await?,
        };
        match fleet.engine.start_container(&name).await {
            // Somebody else removed it.
            Err(EngineError::NotFound(_)) => room.note_container(container, None),
            Err(error) => mend(fleet, room, container, error).await?,
            Ok(()) => {
                container.fresh = false;
                match greet(fleet, room, &name).await {
                    // It did not start: Podman believes that it ran already.
                    Err(SandboxError::Died { .. }) if discard_if_gone(fleet, room, container).await? => {}
                    greeted => return greeted,
                }
            }
        }
    }
    Err(EngineError::NotFound(room.address.to_string()).into())
}

/// Checks that the Podman which answers runs sandboxes as the operator has chosen: one at a socket of the operator's has a
/// runtime of its own.
async fn serves_runtime(fleet: &Fleet) -> Result<(), SandboxError> {
    let Some(wanted) = fleet.options.runtime else { return Ok(()) };
    let runtime = fleet.info().await?.runtime;
    if runtime == wanted.name() {
        return Ok(());
    }
    Err(SandboxError::OtherRuntime { runtime, wanted: wanted.name() })
}

/// Makes the room's socket, for a container that this runtime runs.
fn bind(fleet: &Arc<Fleet>, room: &Arc<Room>, runtime: Option<Runtime>) -> Result<(), SandboxError> {
    let directory = fleet.directory(room);
    // Open to all, since the container's root has an id unknown to the host; the directory above keeps all others
    // out.
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&directory);
    let opened = made.and_then(|()| fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)));
    opened.map_err(|source| SandboxError::Socket { path: directory.clone(), source })?;
    // The link and its connections know no room, so this span names it in their lines of the log. It is not the
    // turn's span, since the link outlives the turn.
    let link = room
        .address
        .span()
        .in_scope(|| Link::bind(&directory, fleet.proxies(&fleet.goes_out_as(&room.address)), &fleet.cancel))?;
    if !runtime.is_none_or(Runtime::shows_pids) {
        link.demand(fleet.proof(room)?);
    }
    let (weak, asked) = (Arc::downgrade(fleet), Arc::downgrade(room));
    link.ask_when_silent(Box::new(move || {
        let (fleet, room) = (weak.upgrade(), asked.upgrade());
        Box::pin(async move { held(&*fleet?, &*room?).await })
    }));
    room.set_link(link);
    Ok(())
}

/// Waits for the sandboxd of a container that runs already, which connects by itself.
async fn redial(fleet: &Arc<Fleet>, room: &Arc<Room>, container: &Container) -> Result<Sandbox, SandboxError> {
    let link = room.link().ok_or(SandboxError::Disconnected)?;
    if matches!(*link.watch().borrow(), LinkState::MustEnd(_)) {
        return Err(SandboxError::NotEnded);
    }
    let name = container.name.as_deref().ok_or(SandboxError::Disconnected)?;
    greeting(fleet, room, &link, name, REDIAL_LIMIT).await
}

/// Waits for the sandboxd of a container that was just started, and watches the connection from then on.
async fn greet(fleet: &Arc<Fleet>, room: &Arc<Room>, name: &str) -> Result<Sandbox, SandboxError> {
    let link = room.link().ok_or(SandboxError::ShuttingDown)?;
    let sandbox = greeting(fleet, room, &link, name, GREETING_LIMIT).await?;
    watch(fleet, room, &link);
    events::watch(fleet, room, name).await;
    room.touch();
    Ok(sandbox)
}

/// Accepts connections from the container's PID 1, and waits for its greeting or for the container's end.
async fn greeting(
    fleet: &Arc<Fleet>,
    room: &Arc<Room>,
    link: &Arc<Link>,
    name: &str,
    limit: Duration,
) -> Result<Sandbox, SandboxError> {
    let deadline = Instant::now() + limit;
    let mut gone = false;
    loop {
        let ended = room.ended.notified();
        let seen = tokio::select! {
            biased;
            // The PID 1 of a container that was taken over is known, so that the greeting can come before Podman's
            // answer.
            Ok(sandbox) = link.connected(limit) => return Ok(sandbox),
            seen = fleet.engine.inspect(name) => seen?,
        };
        match seen.condition {
            Condition::Running => {}
            // Podman tells within a moment that it has ended, if it ever does.
            Condition::Gone if gone => return Err(SandboxError::Died { exit_code: seen.exit_code }),
            Condition::Gone => {
                gone = true;
                let _ = timeout(ENDED_LIMIT, ended).await;
                continue;
            }
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
            // The event may be a late one of an earlier run, so Podman is asked again.
            () = ended => {}
        }
    }
}

/// Takes over a container that runs already, from an earlier server of this state directory.
pub(super) async fn adopt(fleet: &Arc<Fleet>, room: &Arc<Room>, name: &str) -> Result<(), SandboxError> {
    let seen = fleet.engine.inspect(name).await?;
    if matches!(seen.condition, Condition::Stopped | Condition::Gone) {
        return Ok(());
    }
    bind(fleet, room, spec::runtime(&seen.labels))?;
    room.set_running(true);
    room.memory_used.store(fleet.memory.expected(fleet.options.memory), Ordering::SeqCst);
    room.note_pid(seen.pid);
    let paused = seen.condition == Condition::Paused;
    room.set_paused(paused);
    set_frozen(fleet, room, paused && is_marked(fleet, room));
    room.touch();
    if let Some(link) = room.link() {
        link.set_peer(seen.pid);
        watch(fleet, room, &link);
    }
    events::watch(fleet, room, name).await;
    tracing::info!(container = name, "took over a running sandbox");
    Ok(())
}

/// Ends the container when the link demands it. The task ends with the link.
fn watch(fleet: &Arc<Fleet>, room: &Arc<Room>, link: &Arc<Link>) {
    let mut states = link.watch();
    let (whole, room, span) = (Arc::clone(fleet), Arc::clone(room), room.address.span());
    let watching = async move {
        // An error means that the link is gone.
        let Ok(state) =
            states.wait_for(|state| matches!(state, LinkState::MustEnd(_))).await.map(|state| state.clone())
        else {
            return;
        };
        let LinkState::MustEnd(why) = state else { return };
        tracing::warn!(%why, "the sandbox's container is killed");
        // The container is killed by name, without the lock: its holder may be waiting for just this end.
        let Some(name) = room.container_name() else { return };
        if let Err(error) = whole.engine.kill(&name).await {
            tracing::error!(%error, "the container cannot be killed");
        }
        let mut container = room.container.lock().await;
        note_if_ended(&whole, &room, &mut container).await;
    };
    fleet.supervise(watching.instrument(span));
}

/// Removes the container, whatever its state, and the room's files if `with_files`.
pub(super) async fn remove(fleet: &Fleet, room: &Room, with_files: bool) -> Result<(), SandboxError> {
    let mut container = room.container.lock().await;
    room.forget_link();
    let name = container.name.clone();
    discard(fleet, room, &mut container).await?;
    release(fleet, room);
    if let Some(name) = name {
        events::remove(fleet, room, &name).await?;
    }
    if with_files && container.has_files() {
        remove_files(fleet, room, &mut container).await?;
        if let Err(error) = room.remove_directory(&fleet.options.state_dir) {
            tracing::debug!(%error, "a removed room's directory stays");
        }
    }
    Ok(())
}
