//! `matrix-agent doctor`: checks everything that the service needs.

use std::io::{self, Write};

use serde_json::json;

use super::{Configuration, Outcome};
use crate::{
    config::sentence,
    ops::doctor::{Check, Status, examine},
};

/// Look at all that is needed here, and say what to do about what is missing
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, configuration: Configuration) -> anyhow::Result<Outcome> {
    let checks = examine(configuration.into_loaded()).await;
    let worst = checks.iter().map(|check| check.status).max().unwrap_or(Status::Good);
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", json!({ "status": worst, "checks": checks }))?;
    } else {
        out.write_all(lines(&checks).as_bytes())?;
    }
    Ok(if worst == Status::Bad { Outcome::Bad } else { Outcome::Good })
}

fn lines(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for check in checks {
        // Terminals draw the warning sign, which is two characters, one column narrower than the other signs.
        let gap = if check.status == Status::Warning { "  " } else { " " };
        lines.push(format!("{}{gap}{:width$}  {}", check.status, check.name, sentence(&check.what)));
        lines.extend(check.mend.iter().map(|mend| format!("   {:width$}  → {}", "", sentence(mend))));
    }
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    lines.push(match (count(Status::Bad), count(Status::Warning)) {
        (0, 0) => "All is well.".to_owned(),
        (0, warnings) => format!("It will work; {warnings} to look at (⚠️)."),
        (bad, _) => format!("Something will not work; {bad} to mend (❌)."),
    });
    lines.join("\n") + "\n"
}
