//! `matrix-agent dashboard`: prints a link by which an operator comes into the dashboard.

use std::io::{self, Write};

use super::{Configuration, Outcome};
use crate::ops::{Operator, Request, control_socket};

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
    let socket = control_socket(&configuration.state_dir()?);
    let (value, text) = Operator::answer(&socket, &Request::Dashboard { sign_out: args.sign_out }).await?;
    let shown = if args.json { format!("{value:#}") } else { text };
    writeln!(io::stdout().lock(), "{shown}")?;
    Ok(Outcome::Good)
}
