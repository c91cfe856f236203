//! `matrix-agent dashboard`: prints a link by which an operator comes into the dashboard.

use std::io::{self, Write};

use anyhow::{Context, bail};

use super::{Configuration, Outcome};
use crate::ops::{Answer, Operator, Purpose, Request, control_socket};

/// Print a link to the dashboard of the running server, which is good for ten minutes
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Prints JSON
    #[arg(long)]
    json: bool,
    /// Signs out whoever is in, and makes all links worthless that were given before, those of `!link` too
    #[arg(long)]
    sign_out: bool,
}

pub(super) async fn run(args: Args, configuration: &Configuration) -> anyhow::Result<Outcome> {
    let config = configuration.checked(Purpose::Anything)?;
    let mut operator =
        Operator::ask(&control_socket(&config.paths.state_dir), &Request::Dashboard { sign_out: args.sign_out })
            .await
            .context("No server runs that could be asked. Start it with `matrix-agent run`.")?;
    match operator.next().await? {
        Some(Answer::Value { value, text }) => {
            let shown = if args.json { format!("{value:#}") } else { text };
            writeln!(io::stdout().lock(), "{shown}")?;
            Ok(Outcome::Good)
        }
        Some(Answer::Failed { text }) => bail!(text),
        _ => bail!("The server gave no answer."),
    }
}
