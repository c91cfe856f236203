//! `matrix-agent audit`: proves that the audit log is as it was written.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
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
        None => audit::files(&configuration.audit()?)
            .context("The audit log cannot be read. Nothing was noted yet, or this user may not read it.")?,
    };
    let told = tokio::task::spawn_blocking(move || verify(&files, head.as_ref())).await??;
    writeln!(io::stdout(), "{told}")?;
    Ok(Outcome::Good)
}

fn head(text: &str) -> Result<Head, String> {
    Head::parse(text).ok_or_else(|| "write the line's number and its sum: \"17 ab12…\"".to_owned())
}

/// Checks the files, each of which goes on from the one before it.
fn verify(files: &[PathBuf], wanted: Option<&Head>) -> anyhow::Result<String> {
    let Some(last) = files.last() else { bail!("There is no audit log yet.") };
    let witness = witness(last)?;
    let (mut head, mut first, mut holds_wanted, mut holds_witness) = (None::<Head>, None, false, false);
    for file in files {
        let text = fs::read(file).with_context(|| format!("{} cannot be read.", file.display()))?;
        let checked =
            audit::check(&text, wanted).with_context(|| format!("{} is not as it was written", file.display()))?;
        if let Some(head) = head.filter(|head| *head != checked.after) {
            bail!("{} does not follow the file before it, which ends with line {}.", file.display(), head.number);
        }
        holds_wanted |= checked.holds;
        holds_witness |= audit::check(&text, witness.as_ref()).is_ok_and(|checked| checked.holds);
        first.get_or_insert(checked.after.number + 1);
        head = Some(checked.head);
    }
    let (head, first) = (head.unwrap_or_default(), first.unwrap_or_default());
    if let Some(witness) = witness.filter(|_| !holds_witness) {
        bail!("The log does not hold line {} as it was written: it was cut, or written anew.", witness.number);
    }
    if let Some(wanted) = wanted.filter(|_| !holds_wanted) {
        bail!("The log does not hold line {} with this sum.", wanted.number);
    }
    Ok(format!("Lines {first} to {} are as they were written. The last one is: {}", head.number, head.shown()))
}

/// Returns a line that a file must hold: the one that the next file follows, or how far the log has come.
fn witness(file: &Path) -> anyhow::Result<Option<Head>> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let all = audit::files(folder).with_context(|| format!("{} cannot be read.", folder.display()))?;
    let next = all.iter().find(|other| other.file_name() > file.file_name());
    let Some(next) = next else { return Ok(audit::witness(folder)) };
    let text = fs::read(next).with_context(|| format!("{} cannot be read.", next.display()))?;
    Ok(audit::check(&text, None).ok().map(|checked| checked.after).filter(|after| after.number > 0))
}
