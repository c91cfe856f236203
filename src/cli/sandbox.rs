//! `matrix-agent sandbox`: lists, inspects, uses and removes the rooms' sandboxes.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use anyhow::bail;
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use tokio::{signal, time};

use super::{Configuration, Outcome, host};
use crate::{
    ops::{Answer, Operator, Request},
    text,
};

/// How long it takes at most until somebody who has their answer is not served any more.
const MOMENT: Duration = Duration::from_millis(500);

/// List, look into, use or remove the rooms' sandboxes
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
    /// Prints JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Lists all sandboxes
    List,
    /// Runs a command in a room's sandbox, as its agent, with empty standard input; its output and its errors come together
    Exec {
        /// The room as `list` shows it, its sandbox's name, or the name of a terminal's room
        room: String,
        /// The command, after `--`
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// Shows what is observed of a room's sandbox
    Inspect {
        /// The room as `list` shows it, its sandbox's name, or the name of a terminal's room
        room: String,
    },
    /// Removes a room's sandbox and its files
    Rm {
        /// The room as `list` shows it, its sandbox's name, or the name of a terminal's room
        room: String,
    },
}

pub(super) async fn run(args: Args, configuration: &Configuration) -> anyhow::Result<Outcome> {
    let request = match args.verb {
        Verb::List => Request::Sandboxes,
        Verb::Exec { room, argv } => Request::Exec { room, argv },
        Verb::Inspect { room } => Request::Observe { room },
        Verb::Rm { room } => Request::Remove { room },
    };
    let (socket, house) = host::administer(configuration).await?;
    let outcome = tokio::select! {
        outcome = ask(&socket, &request, args.json) => outcome,
        // Whoever serves the socket sees that nobody asks any more, and ends the command.
        _ = signal::ctrl_c() => Ok(Outcome::Interrupted),
    };
    if let Some(house) = house {
        // The one whose answer has come may be served still, for a moment.
        let _ = time::timeout(MOMENT, house.unasked()).await;
        if house.is_asked() {
            let told = "Other commands in sandboxes are served by this one, which ends with them; Ctrl-C ends all.";
            let _ = writeln!(io::stderr(), "{told}");
        }
        tokio::select! {
            () = house.unasked() => {}
            _ = signal::ctrl_c() => {}
        }
        house.shutdown().await;
    }
    outcome
}

async fn ask(socket: &Path, request: &Request, json: bool) -> anyhow::Result<Outcome> {
    if matches!(request, Request::Exec { .. }) {
        return exec(socket, request).await;
    }
    let (value, text) = Operator::answer(socket, request).await?;
    let shown = if json { value.to_string() } else { text };
    writeln!(io::stdout().lock(), "{}", shown.trim_end())?;
    Ok(Outcome::Good)
}

/// Passes a command's output on, byte by byte, however long it runs.
async fn exec(socket: &Path, request: &Request) -> anyhow::Result<Outcome> {
    let mut operator = Operator::ask(socket, request).await?;
    let mut out = io::stdout().lock();
    while let Some(answer) = operator.next().await? {
        match answer {
            Answer::Value { .. } => {}
            Answer::Output { data } => out.write_all(&BASE64.decode(data)?)?,
            Answer::Exit { code } => return Ok(Outcome::Code(u8::try_from(code).unwrap_or(1))),
            Answer::Failed { text } => bail!(text::strip(text)),
        }
    }
    bail!(
        "The server has ended before this was done, so what became of it is not known. `matrix-agent sandbox list` shows what is there."
    )
}
