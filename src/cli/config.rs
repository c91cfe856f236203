//! `matrix-agent config`: the effective settings, and where they come from.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::json;

use super::{Configuration, Outcome};
use crate::{
    config::{Setting, ShownAccount, Source, keys},
    ops::Purpose,
};

/// Show the effective settings, secrets masked, or every mistake in them
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Demands what this subcommand needs besides
    #[arg(long = "for", value_enum, value_name = "SUBCOMMAND")]
    purpose: Option<For>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    /// Prints `.env.example` instead: all settings with their defaults and what they are for
    #[arg(long, conflicts_with_all = ["purpose", "json"])]
    example: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum For {
    /// The server, in rooms: a model, an account that hears somebody, and its password or a stored session
    Run,
    /// The agent in the terminal
    Chat,
    /// The demonstration, which needs nothing
    Demo,
}

pub(super) fn run(args: &Args, configuration: &Configuration) -> anyhow::Result<Outcome> {
    let mut out = io::stdout().lock();
    if args.example {
        out.write_all(keys::example().as_bytes())?;
        return Ok(Outcome::Good);
    }
    let checked = match args.purpose {
        Some(For::Run) => configuration.check_rooms(),
        Some(For::Chat) => configuration.check(Purpose::Chat),
        Some(For::Demo) | None => configuration.check(Purpose::Anything),
    };
    if let Err(mistakes) = checked {
        if args.json {
            writeln!(out, "{:#}", json!({ "mistakes": mistakes }))?;
        }
        return Err(mistakes.into());
    }
    let (settings, accounts) = (configuration.settings(), configuration.accounts());
    if args.purpose == Some(For::Run) && settings.iter().any(|setting| setting.key == "GEMINI_API_KEY" && !setting.set)
    {
        let told = "warning: GEMINI_API_KEY is not set: Qwen Code plans and reviews in place of Gemini CLI.";
        writeln!(io::stderr(), "{told}")?;
    }
    if args.json {
        let shown = json!({ "settings": settings, "accounts": accounts, "unread": configuration.unread() });
        writeln!(out, "{shown:#}")?;
    } else {
        out.write_all(table(settings).as_bytes())?;
        out.write_all(list(&accounts).as_bytes())?;
        for (at, file) in configuration.unread().iter().enumerate() {
            writeln!(out, "{}# {file}; {}.", if at == 0 { "\n" } else { "" }, file.mend())?;
        }
    }
    Ok(Outcome::Good)
}

/// Replaces the value of a secret; the same for all, so that not even the length shows.
const MASK: &str = "********";

/// Formats the settings as lines that `.env` would accept.
fn table(settings: &[Setting]) -> String {
    let shown = |setting: &Setting| match &setting.value {
        Some(value) => value.clone(),
        None if setting.set => MASK.to_owned(),
        None => String::new(),
    };
    let names = settings.iter().map(|setting| setting.key.len()).max().unwrap_or(0);
    // One long list of hosts should not push every remark off the screen.
    let values = settings.iter().map(|setting| shown(setting).len()).filter(|width| *width <= 44).max().unwrap_or(0);
    let mut lines = Vec::new();
    let mut group = "";
    for setting in settings {
        if setting.group != group {
            lines.push(format!("{}# --- {} ---\n", if group.is_empty() { "" } else { "\n" }, setting.group));
            group = setting.group;
        }
        let remark = match &setting.source {
            Source::Default if !setting.set => "not set".to_owned(),
            source => source.to_string(),
        };
        lines.push(format!("{:names$} = {:values$} # {remark}\n", setting.key, shown(setting)));
    }
    lines.concat()
}

/// Formats the accounts as comments, so that `.env` would accept these lines, too.
fn list(accounts: &[ShownAccount]) -> String {
    let line = |account: &ShownAccount| {
        let ShownAccount { name, user, homeserver, password, hears, rooms, mend } = account;
        let password = match password {
            Some(source) => format!("with the password of {source}"),
            None => "without a password".to_owned(),
        };
        let hears = match mend {
            Some(mend) => format!("hears nobody: {mend}"),
            None if rooms.is_empty() => format!("hears {}", hears.join(", ")),
            None => format!("hears {} in {}", hears.join(", "), rooms.join(", ")),
        };
        format!("# {name}: {user} at {homeserver} {password}, {hears}\n")
    };
    let lines: String = accounts.iter().map(line).collect();
    if lines.is_empty() { lines } else { format!("\n# --- Accounts ---\n{lines}") }
}
