//! `matrix-agent audit`: proves that the audit log is as it was written.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Subcommand;

use super::{Configuration, Outcome};
use crate::audit::{self, Head};

/// Prove that the log of who had what done is as it was written
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Audit,
}

#[derive(Debug, Subcommand)]
enum Audit {
    /// Find lines that were changed, cut, put in or moved
    Verify {
        /// A file of the log; without one, all files of this server's
        file: Option<PathBuf>,
        /// A line that the log must hold, as `number sum`: what a room or this command said earlier
        #[arg(long, value_name = "NUMBER SUM", value_parser = head)]
        head: Option<Head>,
    },
}

pub(super) async fn run(args: Args, configuration: &Configuration) -> anyhow::Result<Outcome> {
    let Audit::Verify { file, head } = args.command;
    let files = match &file {
        Some(file) => vec![file.clone()],
        None => audit::all(&configuration.audit()?)?,
    };
    let proven = tokio::task::spawn_blocking(move || audit::verify(&files, head.as_ref())).await??;
    let gaps = match proven.gaps {
        0 => String::new(),
        count => format!(" {count} of them say that others are missing (`\"kind\":\"gap\"`)."),
    };
    let (first, head) = (proven.first, proven.head);
    writeln!(
        io::stdout(),
        "Lines {first} to {} are as they were written.{gaps} The last one is: {}",
        head.number,
        head.shown()
    )?;
    Ok(Outcome::Good)
}

fn head(text: &str) -> Result<Head, String> {
    Head::parse(text).ok_or_else(|| "write the line's number and its sum: \"17 ab12…\"".to_owned())
}
