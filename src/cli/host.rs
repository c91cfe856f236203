//! Finds the running server, or hosts one in this process.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use secrecy::SecretString;
use tokio::{net::UnixStream, time};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Configuration;
use crate::{
    clock::Clock,
    config::ModelFacts,
    llm::{DemoModel, Model},
    ops::{House, LockError, Purpose, Server, control_socket, model_settings},
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
    let config = configuration.checked(Purpose::Anything)?;
    let state_dir = config.paths.state_dir.clone();
    let hosted = find_or(&state_dir, START, async || serve(configuration, Purpose::Chat, demo_model).await).await?;
    if hosted.is_none() && demo_model {
        anyhow::bail!(
            "A server runs already, with its own model. Leave `--demo-model` away, stop the server, or give this one \
             another `STATE_DIR`."
        );
    }
    let (server, demo) = hosted.unzip();
    Ok(Host { state_dir, server, _demo: demo.flatten() })
}

/// Opens what this process hosts, unless a server runs; then returns `None`. Of several processes that begin together
/// one takes the state directory, and the others wait for its socket, up to `limit`.
async fn find_or<T>(
    state_dir: &Path,
    limit: Duration,
    open: impl AsyncFn() -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    let since = Instant::now();
    loop {
        if serves(state_dir).await {
            return Ok(None);
        }
        match open().await {
            Err(error) if since.elapsed() < limit && matches!(error.downcast_ref(), Some(LockError::Held { .. })) => {
                time::sleep(LOOK).await;
            }
            opened => return opened.map(Some),
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
        return Ok((Server::start(config, Model::new(model_settings(config))?, rooms, Clock::default()).await?, None));
    }
    let config = configuration.checked(Purpose::Anything)?;
    let cancel = CancellationToken::new();
    let guard = cancel.clone().drop_guard();
    let demo = DemoModel::start(cancel).await?;
    // Coding agents use the demo model too.
    let mut config = config.clone();
    config.llm.model = format!("openai/{}", DemoModel::MODEL);
    config.llm.api_key = Some(SecretString::from("demo"));
    config.llm.base_url = Some(demo.base_url().parse()?);
    config.llm.facts = ModelFacts::default();
    (config.gemini.api_key, config.qwen.api_key) = (None, None);
    let server = Server::start(&config, Model::new(model_settings(&config))?, rooms, Clock::default()).await?;
    Ok((server, Some(guard)))
}

/// Finds the running server, or opens its state here only to administer it.
pub(super) async fn administer(configuration: &Configuration) -> anyhow::Result<(PathBuf, Option<House>)> {
    let config = configuration.checked(Purpose::Anything)?;
    let state_dir = config.paths.state_dir.clone();
    let house = find_or(&state_dir, START, async || {
        let house = House::open(config, Clock::default()).await?;
        house.administer()?;
        Ok(house)
    })
    .await?;
    Ok((state_dir, house))
}

/// Returns whether a server runs on this state directory.
pub(super) async fn serves(state_dir: &Path) -> bool {
    UnixStream::connect(control_socket(state_dir)).await.is_ok()
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
        let first = Lock::take(state.path()).unwrap();
        let refused = Notify::new();
        let second = find_or(state.path(), LIMIT, async || {
            refused.notify_one();
            Ok(Lock::take(state.path())?)
        });
        let listens = async {
            refused.notified().await;
            UnixListener::bind(control_socket(state.path())).unwrap()
        };
        let (found, _listener) = time::timeout(LIMIT, async { tokio::join!(second, listens) }).await.unwrap();
        assert!(found.unwrap().is_none(), "the first one serves");
        drop(first);
    }

    #[tokio::test]
    async fn who_comes_second_takes_the_place_of_one_that_ends_and_waits_for_no_other_error() {
        let state = tempfile::tempdir().unwrap();
        let first = Lock::take(state.path()).unwrap();
        let held = find_or(state.path(), Duration::ZERO, async || Ok(Lock::take(state.path())?)).await.unwrap_err();
        assert!(held.to_string().contains("Stop it first"), "{held}");
        let other: anyhow::Result<Option<()>> = find_or(state.path(), LIMIT, async || anyhow::bail!("no key")).await;
        assert_eq!(other.unwrap_err().to_string(), "no key");
        let refused = Notify::new();
        let second = find_or(state.path(), LIMIT, async || {
            refused.notify_one();
            Ok(Lock::take(state.path())?)
        });
        let ends = async {
            refused.notified().await;
            drop(first);
        };
        let (taken, ()) = time::timeout(LIMIT, async { tokio::join!(second, ends) }).await.unwrap();
        assert!(taken.unwrap().is_some());
    }
}
