//! `matrix-agent run`: the server.

use std::{
    convert::Infallible,
    future::pending,
    path::{Path, PathBuf},
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{self, MissedTickBehavior},
};

use super::{Configuration, Outcome, host};
use crate::ops::Pulse;

/// Run the server
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Uses the built-in demo model, which understands a few plain orders
    #[arg(long)]
    demo_model: bool,
    /// Logs to this file instead of standard error, and puts it aside when it has 16 MiB
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
}

impl Args {
    /// Returns the file to log to; `None` for standard error.
    pub(super) fn log_file(&self) -> Option<&Path> {
        self.log_file.as_deref()
    }
}

pub(super) async fn run(args: Args, configuration: &Configuration) -> anyhow::Result<Outcome> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (server, _demo) = host::start(configuration, args.demo_model).await?;
    let pulse = server.pulse();
    // The quickstart waits for this line, since without systemd nobody is told otherwise.
    tracing::info!("the server is ready");
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let ended = tokio::select! {
        _ = terminate.recv() => Ok(Outcome::Good),
        _ = interrupt.recv() => Ok(Outcome::Good),
        error = server.failed() => Err(error),
        never = watched(pulse, sd_notify::watchdog_enabled()) => match never {},
    };
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    server.shutdown().await;
    ended
}

/// Tells systemd's watchdog that the server works, twice in each `limit`.
async fn watched(pulse: Pulse, limit: Option<Duration>) -> Infallible {
    let Some(limit) = limit else { return pending().await };
    let mut turn = time::interval(limit / 2);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        // A beat that never comes is what the watchdog is for: it is not notified then and ends the process.
        match pulse.beat().await {
            Ok(()) => drop(sd_notify::notify(&[NotifyState::Watchdog])),
            Err(error) => tracing::error!(%error, "the server does not work"),
        }
    }
}
