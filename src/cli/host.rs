//! Finds the running server, or hosts one in this process.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::time;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Configuration;
use crate::{
    chat::terminal::{Unreached, connect},
    clock::Clock,
    llm::DemoModel,
    ops::{House, LockError, Purpose, Server, administration_socket, control_socket, only_chat_bots, with_demo_model},
};

/// How long a server that has taken the state directory may take until it can be talked to.
const START: Duration = Duration::from_mins(1);
/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(200);

/// A server to talk to.
pub(super) struct Host {
    pub(super) state_dir: PathBuf,
    /// `None` if another process serves.
    pub(super) server: Option<Server>,
    /// Ends the demo model with this process's server.
    _demo: Option<DropGuard>,
}

/// Joins the server that runs on this configuration's state directory, or starts one here.
pub(super) async fn join(configuration: &Configuration, demo_model: bool) -> anyhow::Result<Host> {
    let state_dir = configuration.state_dir()?;
    let sockets = [control_socket(&state_dir)];
    let hosted = find_or(&sockets, START, async || serve(configuration, Purpose::Chat, demo_model).await).await?;
    if matches!(hosted, Found::Served(_)) && demo_model {
        anyhow::bail!(
            "A server runs already, with its own model. Leave `--demo-model` away, stop the server, or give this one \
             another `STATE_DIR`."
        );
    }
    let (server, demo) = match hosted {
        Found::Served(_) => (None, None),
        Found::Opened((server, demo)) => (Some(server), demo),
    };
    Ok(Host { state_dir, server, _demo: demo })
}

/// What was looked for.
#[derive(Debug)]
enum Found<T> {
    /// Another process listens on this socket.
    Served(PathBuf),
    /// This process has opened it.
    Opened(T),
}

/// Finds whoever listens on one of the sockets, or opens what this process hosts. Of several processes that begin together one
/// takes the state directory, and the others wait for its socket, up to `limit`.
async fn find_or<T>(
    sockets: &[PathBuf],
    limit: Duration,
    open: impl AsyncFn() -> anyhow::Result<T>,
) -> anyhow::Result<Found<T>> {
    let since = Instant::now();
    loop {
        for socket in sockets {
            if is_served(socket).await? {
                return Ok(Found::Served(socket.clone()));
            }
        }
        match open().await {
            Err(error) if since.elapsed() < limit && is_held(&error) => time::sleep(LOOK).await,
            opened => return opened.map(Found::Opened),
        }
    }
}

fn is_held(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(LockError::Held { .. }))
}

/// Starts the server that other processes talk to. Whoever else has the state directory at this moment and is no server, as who
/// administers the sandboxes, may end first, up to [`START`].
pub(super) async fn start(
    configuration: &Configuration,
    demo_model: bool,
) -> anyhow::Result<(Server, Option<DropGuard>)> {
    let since = Instant::now();
    // The demo model needs no settings of another one. All mistakes are told at once.
    let needed = if demo_model { Purpose::Anything } else { Purpose::Run };
    let server = control_socket(&configuration.checked(needed)?.paths.state_dir);
    let mut told = false;
    loop {
        match serve(configuration, Purpose::Run, demo_model).await {
            Err(error) if since.elapsed() < START && is_held(&error) && !is_served(&server).await? => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!("waiting for another process that works with the state directory");
                }
                time::sleep(LOOK).await;
            }
            started => return started,
        }
    }
}

/// Starts a server here, with the configured model or the built-in one; the latter ends when the guard is dropped.
pub(super) async fn serve(
    configuration: &Configuration,
    purpose: Purpose,
    demo_model: bool,
) -> anyhow::Result<(Server, Option<DropGuard>)> {
    let rooms = purpose == Purpose::Run;
    if !demo_model {
        let config = configuration.checked(purpose)?;
        if rooms && only_chat_bots(config) {
            return Ok((Server::start_chat_bots(config, Clock::default()).await?, None));
        }
        return Ok((Server::start(config, rooms, Clock::default()).await?, None));
    }
    let config = configuration.checked(Purpose::Anything)?;
    let cancel = CancellationToken::new();
    let guard = cancel.clone().drop_guard();
    let demo = DemoModel::start(cancel).await?;
    let config = with_demo_model(config, &demo)?;
    let server = Server::start(&config, rooms, Clock::default()).await?;
    Ok((server, Some(guard)))
}

/// Finds the running server, or whoever administers its state, or opens it here for that. Returns the socket to ask.
pub(super) async fn administer(configuration: &Configuration) -> anyhow::Result<(PathBuf, Option<House>)> {
    let state_dir = configuration.state_dir()?;
    let own = administration_socket(&state_dir);
    let sockets = [control_socket(&state_dir), own.clone()];
    let found = find_or(&sockets, START, async || {
        let house = House::open(configuration.checked(Purpose::Anything)?, Clock::default()).await?;
        house.administer()?;
        Ok(house)
    });
    Ok(match found.await? {
        Found::Served(socket) => (socket, None),
        Found::Opened(house) => (own, Some(house)),
    })
}

/// Returns whether a server runs on this state directory.
pub(super) async fn serves(state_dir: &Path) -> anyhow::Result<bool> {
    is_served(&control_socket(state_dir)).await
}

/// Returns whether anybody listens on a socket, who need not answer.
async fn is_served(socket: &Path) -> anyhow::Result<bool> {
    match connect(socket).await {
        Ok(_) => Ok(true),
        Err(Unreached::NoServer(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::UnixListener, sync::Notify};

    use super::*;
    use crate::ops::Lock;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn who_comes_second_waits_for_the_server_that_is_starting() {
        let state = tempfile::tempdir().unwrap();
        let sockets = [control_socket(state.path())];
        let first = Lock::take(state.path()).unwrap();
        let refused = Notify::new();
        let second = find_or(&sockets, LIMIT, async || {
            refused.notify_one();
            Ok(Lock::take(state.path())?)
        });
        let listens = async {
            refused.notified().await;
            UnixListener::bind(control_socket(state.path())).unwrap()
        };
        let (found, _listener) = time::timeout(LIMIT, async { tokio::join!(second, listens) }).await.unwrap();
        assert!(matches!(found.unwrap(), Found::Served(_)), "the first one serves");
        drop(first);
    }

    #[tokio::test]
    async fn who_comes_second_takes_the_place_of_one_that_ends_and_waits_for_no_other_error() {
        let state = tempfile::tempdir().unwrap();
        let sockets = [control_socket(state.path())];
        let first = Lock::take(state.path()).unwrap();
        let held = find_or(&sockets, Duration::ZERO, async || Ok(Lock::take(state.path())?)).await.unwrap_err();
        assert!(held.to_string().contains("Stop it first"), "{held}");
        let other: anyhow::Result<Found<()>> = find_or(&sockets, LIMIT, async || anyhow::bail!("no key")).await;
        assert_eq!(other.unwrap_err().to_string(), "no key");
        let refused = Notify::new();
        let second = find_or(&sockets, LIMIT, async || {
            refused.notify_one();
            Ok(Lock::take(state.path())?)
        });
        let ends = async {
            refused.notified().await;
            drop(first);
        };
        let (taken, ()) = time::timeout(LIMIT, async { tokio::join!(second, ends) }).await.unwrap();
        assert!(matches!(taken.unwrap(), Found::Opened(_)));
    }
}
