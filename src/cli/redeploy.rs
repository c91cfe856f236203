//! `matrix-agent redeploy`: a newer version in place of the one that serves.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::time;

use super::{Configuration, Outcome};
use crate::{
    ids::Address,
    ops::{NO_REQUEST, Operator, Purpose, Redeploy, RedeployError, Request, Unanswered, control_socket},
    strings,
    updates::{self, Found, Record, Step, Tell, UpdateError, Updates, Wanted},
};

/// How often it is looked how far it has come.
const LOOK: Duration = Duration::from_millis(200);
/// How long whoever carries it out may take to clear up behind it, so that the next one is not refused.
const CLEARED: Duration = Duration::from_mins(1);

/// Put a newer version in the place of the one that serves; whatever fails, the one that serves goes on
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Takes this commit, tag or branch in place of the newest of the branch that the service follows
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
    /// Only says what it would bring, and whether it could be done
    #[arg(long)]
    check: bool,
    /// Puts the version that served before back
    #[arg(long, conflicts_with = "reference")]
    rollback: bool,
    /// Tells this room, as `admin rooms` lists it, what becomes of it; may be given again
    #[arg(long, value_name = "ROOM")]
    room: Vec<String>,
    /// Reads where updates come from in this file instead of `update.env` beside the settings
    #[arg(long, value_name = "FILE")]
    source: Option<PathBuf>,
    /// Does what was asked for; systemd starts this
    #[arg(long, hide = true, conflicts_with_all = ["reference", "check", "rollback"])]
    carry_out: bool,
}

impl Args {
    /// Returns whether this is the process that does what was asked for.
    pub(super) fn carries_out(&self) -> bool {
        self.carry_out
    }
}

pub(super) async fn run(args: Args, configuration: &Configuration) -> anyhow::Result<Outcome> {
    let config = configuration.checked(Purpose::Anything)?;
    let source = args.source.clone().or_else(|| configuration.beside("update.env"));
    let source =
        source.context("No folder of settings has an `update.env`. `scripts/install-service.sh` writes it.")?;
    let redeploy = Redeploy::new(config, &source, configuration.options())?;
    if args.carry_out {
        return Ok(match redeploy.carry_out().await? {
            Some(updates::Outcome::Stuck { why }) => bail!("Neither version serves: {why}"),
            Some(updates::Outcome::Kept { why } | updates::Outcome::Back { why }) => {
                tracing::warn!(%why, "the update was not done");
                Outcome::Good
            }
            _ => Outcome::Good,
        });
    }
    let mut out = io::stdout();
    let wanted = if args.rollback {
        if args.check {
            bail!(
                "`--rollback` cannot be looked at beforehand: it puts back what served before, once that works on a copy of the state."
            );
        }
        Wanted::Back
    } else {
        match redeploy.look(args.reference.as_deref()).await? {
            Found::Refused { why } => return Err(RedeployError::Refused(why).into()),
            Found::Newest { commit } => {
                writeln!(out, "{} serves already, and there is nothing newer.", short(&commit))?;
                return Ok(Outcome::Good);
            }
            Found::Newer(newer) => {
                let commits = strings::counted(newer.count as u64, "commit");
                writeln!(out, "{} {} ({commits})", short(&newer.commit), newer.subject)?;
                for commit in &newer.commits {
                    writeln!(out, "  {commit}")?;
                }
                Wanted::Commit { commit: newer.commit, named: args.reference.is_some() }
            }
        }
    };
    // A room that nobody could tell is refused before anything changes.
    let mut tell = Vec::new();
    for room in &args.room {
        tell.push(told_room(&config.paths.state_dir, room).await?);
    }
    if args.check {
        writeln!(out, "It can be done: `matrix-agent redeploy` does it.")?;
        return Ok(Outcome::Good);
    }
    let request = redeploy.ask(wanted, tell).await?;
    let mut carried = redeploy.carrying_out().await.spawn().context("systemctl cannot be started.")?;
    // It goes on when this one is interrupted.
    let mut shown = None;
    loop {
        let ended = tokio::select! {
            ended = carried.wait() => Some(ended?),
            () = time::sleep(LOOK) => None,
        };
        let record = mine(redeploy.updates(), &request.id)?;
        if let Some(record) = &record
            && shown != Some((record.step, record.begun))
        {
            shown = Some((record.step, record.begun));
            // Whoever reads this may have gone.
            let _ = writeln!(out, "{}", told(record));
        }
        if let Some(outcome) = record.and_then(|record| record.outcome) {
            let _ = time::timeout(CLEARED, carried.wait()).await;
            return Ok(if matches!(outcome, updates::Outcome::Done { .. }) { Outcome::Good } else { Outcome::Bad });
        }
        if let Some(status) = ended {
            bail!(
                "Nobody carries it out ({status}). `journalctl -u matrix-agent-redeploy` says why; systemd tries again, and \
                 `matrix-agent redeploy --check` tells when it has ended."
            );
        }
    }
}

/// Returns the record of a request, once there is one.
fn mine(updates: &Updates, id: &str) -> Result<Option<Record>, UpdateError> {
    Ok(updates.record()?.filter(|record| record.request.id == id))
}

/// Returns the room of the running server that is named. To go back must not need a server that answers, nor one that knows this
/// question: then what was typed is taken for the room's id.
async fn told_room(state: &Path, named: &str) -> anyhow::Result<Tell> {
    let request = Request::Room { room: named.to_owned() };
    let address = match Operator::answer(&control_socket(state), &request).await {
        Ok((value, _)) => serde_json::from_value(value)?,
        Err(Unanswered::Refused(why)) if !why.starts_with(NO_REQUEST) => bail!(why),
        Err(_) => match named.split_once('/') {
            Some((account, room)) => Address { account: account.to_owned(), room: room.into() },
            None => Address::of_first(named),
        },
    };
    Ok(Tell { account: address.account, room: address.room, thread: None })
}

fn short(commit: &str) -> &str {
    commit.get(..10).unwrap_or(commit)
}

fn told(record: &Record) -> String {
    match &record.outcome {
        None => {
            let again = if record.begun > 1 { ", again" } else { "" };
            let step = match record.step {
                Step::Build => "building",
                Step::Try => "trying it on a copy of the state",
                Step::Switch => "switching",
                Step::Await => "waiting until it is ready",
                Step::Back => "going back",
                Step::Ended => "ended",
            };
            format!("{step}{again} …")
        }
        Some(updates::Outcome::Done { note }) => {
            let note = note.as_ref().map(|note| format!(" {note}")).unwrap_or_default();
            format!("It serves.{note}")
        }
        Some(updates::Outcome::Kept { why }) => {
            format!("Not done, and nothing was changed: {}.", why.trim_end_matches('.'))
        }
        Some(updates::Outcome::Back { why }) => {
            format!("It has failed, and the version before serves again: {}.", why.trim_end_matches('.'))
        }
        Some(updates::Outcome::Stuck { why }) => format!("It has failed, and so has the way back: {why}"),
    }
}
