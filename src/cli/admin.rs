//! `matrix-agent admin`: looks after the whole server that runs here, as `!admin` does in a room.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use tokio::time;

use super::{Configuration, Outcome};
use crate::{
    bots::{AdminOrder, Place},
    ops::{Answer, Operator, Request, Unanswered, control_socket},
    strings::admin::{NO_AMOUNT, draining},
    text,
};

/// How often `drain --wait` looks whether anything runs.
const LOOK: Duration = Duration::from_secs(1);

/// Look after the running server: its rooms, what runs, budgets, grants and log
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
    /// Shows how the server stands
    Status,
    /// Lists the rooms, those first in which something runs
    Rooms,
    /// Ends what runs in a room, as `!stop` does there
    Stop {
        /// The room as `rooms` lists it, or a part of that which no other has
        room: String,
    },
    /// Lets nothing new begin, as before a restart: what people write waits, and what runs goes on
    Drain {
        /// Lets it begin again
        #[arg(long, conflicts_with = "wait")]
        off: bool,
        /// Waits until nothing runs, up to so many seconds
        #[arg(long, value_name = "SECONDS")]
        wait: Option<u64>,
    },
    /// Shows what the rooms have used of today's tokens, or lets a room have so many
    #[command(override_usage = "matrix-agent admin budget [ROOM TOKENS] [OPTIONS]")]
    Budget {
        /// The room
        #[arg(requires = "tokens")]
        room: Option<String>,
        /// Its tokens for today, as `500k` or `1.5M`
        #[arg(value_parser = tokens)]
        tokens: Option<u64>,
    },
    /// Lists what is granted to rooms
    Grants,
    /// Shows the newest lines of the server's log
    Logs {
        /// Goes on with what comes
        #[arg(short, long)]
        follow: bool,
    },
}

fn tokens(text: &str) -> Result<u64, String> {
    text::amount(text).ok_or_else(|| NO_AMOUNT.to_owned())
}

pub(super) async fn run(args: Args, configuration: &Configuration) -> anyhow::Result<Outcome> {
    let socket = control_socket(&configuration.state_dir()?);
    let (order, wait) = match args.verb {
        Verb::Logs { follow } => return logs(&socket, &Request::Log { follow }, follow).await,
        Verb::Status => (AdminOrder::Status, None),
        Verb::Rooms => (AdminOrder::Rooms, None),
        Verb::Stop { room } => (AdminOrder::Stop { room }, None),
        Verb::Drain { off, wait } => (AdminOrder::Drain { off }, wait.map(Duration::from_secs)),
        Verb::Budget { room, tokens } => (AdminOrder::Budget { allow: room.zip(tokens) }, None),
        Verb::Grants => (AdminOrder::Grants, None),
    };
    let (mut value, mut text) = ask(&socket, order).await?;
    if let Some(limit) = wait {
        let idle = async {
            while value["running"] != 0 {
                time::sleep(LOOK).await;
                // To look is no order.
                value["running"] = ask(&socket, AdminOrder::Status).await?.0["running"].take();
            }
            anyhow::Ok(())
        };
        if let Ok(ended) = time::timeout(limit, idle).await {
            ended?;
        }
        text = draining(value["running"].as_u64().unwrap_or_default(), Place::CommandLine.drain_off());
    }
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{value:#}")?;
    } else {
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(if wait.is_some() && value["running"] != 0 { Outcome::Bad } else { Outcome::Good })
}

/// Asks the running server, and returns its answer for programs and for people.
async fn ask(socket: &Path, order: AdminOrder) -> Result<(serde_json::Value, String), Unanswered> {
    Operator::answer(socket, &Request::Admin { order }).await
}

/// Prints lines of the running server's log, until there are no more or the person interrupts it. One that follows is not done when the
/// server ends.
pub(super) async fn logs(socket: &Path, request: &Request, follow: bool) -> anyhow::Result<Outcome> {
    let mut operator =
        Operator::ask(socket, request).await.context("Lines of earlier servers are in their log, not here")?;
    let reading = async {
        while let Some(answer) = operator.next().await? {
            match answer {
                Answer::Output { data } => {
                    let mut out = io::stdout().lock();
                    out.write_all(&BASE64.decode(data)?)?;
                    out.flush()?;
                }
                Answer::Failed { text } => bail!(text::strip(text)),
                _ => {}
            }
        }
        anyhow::ensure!(!follow, "The server has ended, and its log with it. Follow the next one's once it runs.");
        Ok(Outcome::Good)
    };
    tokio::select! {
        read = reading => read,
        _ = tokio::signal::ctrl_c() => Ok(Outcome::Interrupted),
    }
}
