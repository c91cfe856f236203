//! `matrix-agent compact`: rewrites the database without its free pages.

use std::io::{self, Write};

use super::{Configuration, Outcome};
use crate::{
    ops::{Lock, Purpose},
    store::Size,
    text,
};

/// Make the database smaller, while no server runs
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(_: Args, configuration: &Configuration) -> anyhow::Result<Outcome> {
    let config = configuration.checked(Purpose::Anything)?;
    let path = config.paths.database();
    let _lock = Lock::take(&config.paths.state_dir)?;
    let file = path.clone();
    let (before, after) = tokio::task::spawn_blocking(move || Size::compact(&file)).await??;
    let (before, after) = (text::human_bytes(before.file), text::human_bytes(after.file));
    writeln!(io::stdout(), "{} has {after} now, and had {before}.", path.display())?;
    Ok(Outcome::Good)
}
