//! `matrix-agent audit`: proves that the audit log is as it was written.

use std::{
    fs::File,
    io::{self, BufReader, Write},
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
    // Before the log is read, which may grow meanwhile.
    let witness = witness(last)?;
    let sought: Vec<&Head> = witness.as_ref().ok().into_iter().chain(wanted).collect();
    let (mut head, mut first, mut gaps, mut holds) = (None::<Head>, None, 0, vec![false; sought.len()]);
    for file in files {
        let checked = audit::check(opened(file)?, &sought)
            .with_context(|| format!("{} is not as it was written", file.display()))?;
        if checked.head.number == 0 {
            // A server that begins a month's file may be interrupted before its first line.
            if file == last && files.len() > 1 {
                break;
            }
            bail!("{} is empty: it holds no line of an audit log.", file.display());
        }
        if let Some(head) = head.filter(|head| *head != checked.after) {
            bail!("{} does not follow the file before it, which ends with line {}.", file.display(), head.number);
        }
        for (holds, found) in holds.iter_mut().zip(checked.holds) {
            *holds |= found;
        }
        gaps += checked.gaps;
        first.get_or_insert(checked.after.number + 1);
        head = Some(checked.head);
    }
    let (head, first) = (head.unwrap_or_default(), first.unwrap_or_default());
    let mut missing = sought.iter().zip(holds).filter(|(_, holds)| !holds).map(|(sought, _)| sought.number);
    if let Some(number) = missing.next() {
        bail!("The log does not hold line {number} as it was written: it was cut, or written anew.");
    }
    let whole = format!("Lines {first} to {} are as they were written", head.number);
    if let Some(why) = witness.err().filter(|_| wanted.is_none()) {
        bail!(
            "{whole}, but whether lines were cut off behind them cannot be told: {why}. Name a line that the log must hold with `--head`, as a \
             room was told (AUDIT_ROOM), or as this command said earlier."
        );
    }
    let gaps = match gaps {
        0 => String::new(),
        count => format!(" {count} of them say that others are missing (`\"kind\":\"gap\"`)."),
    };
    Ok(format!("{whole}.{gaps} The last one is: {}", head.shown()))
}

/// Returns a line that a file must hold: the one that the next file follows, or how far the log has come. What says that may say nothing;
/// then it returns why.
fn witness(file: &Path) -> anyhow::Result<Result<Head, String>> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let all = audit::files(folder).with_context(|| format!("{} cannot be read.", folder.display()))?;
    let next = all.iter().find(|other| other.file_name() > file.file_name());
    if let Some(next) = next {
        let shown = next.display();
        return Ok(match audit::begins_after(opened(next)?) {
            Ok(Some(after)) => Ok(after),
            Ok(None) => Err(format!("the next file, {shown}, is empty")),
            Err(error) => Err(format!("the next file, {shown}, is no log: {error}")),
        });
    }
    Ok(match audit::witness(folder) {
        Ok(Some(head)) => Ok(head),
        Ok(None) => Err(format!("the file `head` in {} does not say how far the log has come", folder.display())),
        Err(error) => Err(format!("the file `head` in {} cannot be read ({error})", folder.display())),
    })
}

/// Opens a file of a log.
fn opened(file: &Path) -> anyhow::Result<BufReader<File>> {
    let opened =
        audit::open_regular(file).with_context(|| format!("{} cannot be read as an audit log", file.display()))?;
    Ok(BufReader::new(opened))
}
