//! `matrix-agent run`: the server.

use tokio::signal::unix::{SignalKind, signal};

use super::{Configuration, Outcome, host};
use crate::ops::Purpose;

/// Run the server
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(_args: Args, configuration: &Configuration) -> anyhow::Result<Outcome> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = host::serve(configuration, Purpose::Run).await?;
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    server.shutdown().await;
    Ok(Outcome::Good)
}
