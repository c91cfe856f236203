//! `matrix-agent check-ipc`: checks whether events from programs in sandboxes arrive.

use std::io::{self, Write};

use super::{Configuration, Outcome, host};
use crate::ops::{Operator, Request};

/// Look whether what is told in the sandboxes arrives, and say what to do if not
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The sandboxes, by container, room or a terminal's name; they are started if need be. None: all that run
    containers: Vec<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, configuration: &Configuration) -> anyhow::Result<Outcome> {
    let request = Request::CheckIpc { rooms: args.containers };
    let (socket, house) = host::administer(configuration).await?;
    let outcome = ask(&socket, &request, args.json).await;
    if let Some(house) = house {
        house.shutdown().await;
    }
    outcome
}

async fn ask(socket: &std::path::Path, request: &Request, json: bool) -> anyhow::Result<Outcome> {
    let (value, text) = Operator::answer(socket, request).await?;
    let shown = if json { format!("{value:#}") } else { text };
    writeln!(io::stdout().lock(), "{}", shown.trim_end())?;
    Ok(if value["status"] == "bad" { Outcome::Bad } else { Outcome::Good })
}
