//! `matrix-agent doctor`: checks everything that the service needs.

use std::{
    io::{self, Write},
    time::Instant,
};

use serde_json::{Value, json};
use tokio::signal::{
    ctrl_c,
    unix::{SignalKind, signal},
};

use super::{Configuration, Outcome};
use crate::{
    config::sentence,
    ops::{
        Purpose, canary,
        doctor::{Check, Fix, Status, examine},
    },
    text,
};

/// Look at all that is needed here, and say what to do about what is missing
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Prints JSON
    #[arg(long)]
    json: bool,
    /// Mends what can be mended without harm, such as secrets that other users can read, and looks again
    #[arg(long)]
    fix: bool,
    /// Has this program do one small job on a copy of the database, with its own sandbox and the demo model; nothing live changes
    #[arg(long, conflicts_with_all = ["json", "fix"])]
    canary: bool,
}

pub(super) async fn run(args: Args, configuration: Configuration) -> anyhow::Result<Outcome> {
    if args.canary {
        return fly(&configuration).await;
    }
    let loaded = configuration.into_loaded();
    let mut checks = examine(loaded.clone()).await;
    let mended = if args.fix { mend(&checks) } else { Vec::new() };
    if !mended.is_empty() {
        checks = examine(loaded).await;
    }
    let worst = checks.iter().map(|check| check.status).max().unwrap_or(Status::Good);
    let mut out = io::stdout().lock();
    if args.json {
        let checks: Vec<_> = checks.iter().map(shown).collect();
        writeln!(out, "{:#}", json!({ "status": worst, "checks": checks, "mended": mended }))?;
    } else {
        for line in &mended {
            writeln!(out, "🔧 {}", sentence(line))?;
        }
        out.write_all(lines(&checks).as_bytes())?;
    }
    Ok(if worst == Status::Bad { Outcome::Bad } else { Outcome::Good })
}

/// Mends what can be mended without harm, and returns what was done, or why it could not be.
fn mend(checks: &[Check]) -> Vec<String> {
    let fixes = checks.iter().filter_map(|check| check.fix.as_ref());
    fixes.flat_map(Fix::carry_out).collect()
}

/// Returns a check for programs, which know it by its `id`.
fn shown(check: &Check) -> Value {
    let mut shown = json!(check);
    (shown["id"], shown["fixable"]) = (check.id().into(), check.fix.is_some().into());
    shown
}

async fn fly(configuration: &Configuration) -> anyhow::Result<Outcome> {
    // What the server would be started with has to suffice for it; without a model the demo model is one.
    let needed = if configuration.has_model() { Purpose::Run } else { Purpose::Anything };
    let config = configuration.checked(needed)?;
    let (mut out, began) = (io::stdout(), Instant::now());
    // Whoever reads this may have gone; the job is done all the same.
    let mut terminate = signal(SignalKind::terminate())?;
    // What it has made is removed then, too.
    let ended = async {
        tokio::select! {
            _ = ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    };
    canary::fly(config, ended, |stage, took| drop(writeln!(out, "{stage:<8} {:>7.2} s", took.as_secs_f64()))).await?;
    writeln!(out, "The canary lives: {}.", text::human_duration(began.elapsed()))?;
    Ok(Outcome::Good)
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
    if checks.iter().any(|check| check.fix.is_some()) {
        let names: Vec<_> = checks.iter().filter(|check| check.fix.is_some()).map(|check| check.name).collect();
        lines.push(format!("`matrix-agent doctor --fix` mends this: {}.", names.join(", ")));
    }
    lines.join("\n") + "\n"
}
