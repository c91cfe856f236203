//! Finds the running server, or hosts one in this process.

use std::path::PathBuf;

use secrecy::SecretString;
use tokio::net::UnixStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Configuration;
use crate::{
    clock::Clock,
    config::ModelFacts,
    llm::{DemoModel, Model},
    ops::{House, Purpose, Server, control_socket, model_settings},
};

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
    if serves(&state_dir).await {
        if demo_model {
            anyhow::bail!(
                "A server runs already, with its own model. Leave `--demo-model` away, stop the server, or give this one \
                 another `STATE_DIR`."
            );
        }
        return Ok(Host { state_dir, server: None, _demo: None });
    }
    let (server, demo) = serve(configuration, Purpose::Chat, demo_model).await?;
    Ok(Host { state_dir, server: Some(server), _demo: demo })
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
    let demo = DemoModel::start(cancel.clone()).await?;
    // Coding agents use the demo model too.
    let mut config = config.clone();
    config.llm.model = format!("openai/{}", DemoModel::MODEL);
    config.llm.api_key = Some(SecretString::from("demo"));
    config.llm.base_url = Some(demo.base_url().parse()?);
    config.llm.facts = ModelFacts::default();
    (config.gemini.api_key, config.qwen.api_key) = (None, None);
    let server = Server::start(&config, Model::new(model_settings(&config))?, rooms, Clock::default()).await?;
    Ok((server, Some(cancel.drop_guard())))
}

/// Finds the running server, or opens its state here only to administer it.
pub(super) async fn administer(configuration: &Configuration) -> anyhow::Result<(PathBuf, Option<House>)> {
    let config = configuration.checked(Purpose::Anything)?;
    let state_dir = config.paths.state_dir.clone();
    if serves(&state_dir).await {
        return Ok((state_dir, None));
    }
    let house = House::open(config, Clock::default()).await?;
    house.administer()?;
    Ok((state_dir, Some(house)))
}

/// Returns whether a server runs on this state directory.
pub(super) async fn serves(state_dir: &std::path::Path) -> bool {
    UnixStream::connect(control_socket(state_dir)).await.is_ok()
}
