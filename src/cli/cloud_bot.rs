//! `matrix-agent cloud-bot`: makes, lists, watches and removes cloud bots, one by one, while the others run on.

mod add;

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::bail;

use super::{Configuration, Outcome, admin::logs as logs_of, host, prompt};
use crate::{
    chat::matrix::{Homeserver, forget_session},
    config::{CloudBot, CloudBots, Config, account_of_bot},
    ops::{Operator, Purpose, Request, Shown, cloud_login, control_socket, shown, shown_refused},
};

/// Make, list, watch and remove cloud bots: bots that answer when they are mentioned
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
    /// Makes a bot: asks for its settings, logs in (on a homeserver of ours it makes the account), and writes its file
    Add {
        /// The bot's name: small letters, digits, `-` and `_`
        name: String,
        /// Reads the settings from this file, `-` for standard input, instead of asking: lines as in
        /// cloud-bot-example.env.template, with `BOT_PASSWORD` in place of BOT_TOKEN
        #[arg(long, value_name = "FILE")]
        settings: Option<std::path::PathBuf>,
    },
    /// Lists all bots with their accounts and models
    List,
    /// Shows what each bot does, or why it does nothing
    Status,
    /// Shows the newest lines of the server's log about a bot
    Logs {
        /// The bot's name
        name: String,
        /// Goes on with what comes
        #[arg(short, long)]
        follow: bool,
    },
    /// Begins a bot anew, from its file
    Restart {
        /// The bot's name
        name: String,
    },
    /// Logs a bot out, forgets its session, and puts its file aside
    Remove {
        /// The bot's name
        name: String,
        /// Does not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(super) async fn run(args: Args, configuration: &Configuration) -> anyhow::Result<Outcome> {
    let config = || configuration.checked(Purpose::Anything);
    match args.verb {
        Verb::Add { name, settings } => add::run(&name, settings.as_deref(), config()?).await,
        Verb::List => show(&all(config()?).await?, args.json, false),
        Verb::Status => show(&all(config()?).await?, args.json, true),
        Verb::Logs { name, follow } => logs(config()?, name, follow).await,
        Verb::Restart { name } => {
            let bots = ask(&configuration.state_dir()?, &Request::RestartCloudBot { name: name.clone() }).await?;
            show(&only(bots, &name), args.json, true)
        }
        Verb::Remove { name, yes } => remove(config()?, &name, yes).await,
    }
}

/// Returns all bots: as the server knows them, or from their files if none runs.
async fn all(config: &Config) -> anyhow::Result<Vec<Shown>> {
    if host::serves(&config.paths.state_dir).await? && config.cloud_bots.enabled {
        return ask(&config.paths.state_dir, &Request::CloudBots).await;
    }
    let CloudBots { bots, refused } = CloudBots::read(config);
    Ok(bots.iter().map(shown).chain(refused.iter().map(shown_refused)).collect())
}

/// Asks the running server about the bots.
async fn ask(state_dir: &Path, request: &Request) -> anyhow::Result<Vec<Shown>> {
    let (value, _) = Operator::answer(&control_socket(state_dir), request).await?;
    Ok(serde_json::from_value(value)?)
}

fn only(bots: Vec<Shown>, name: &str) -> Vec<Shown> {
    bots.into_iter().filter(|bot| bot.name == name).collect()
}

fn show(bots: &[Shown], json: bool, states: bool) -> anyhow::Result<Outcome> {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::json!(bots))?;
        return Ok(Outcome::Good);
    }
    if bots.is_empty() {
        writeln!(out, "There is no cloud bot. `matrix-agent cloud-bot add NAME` makes one.")?;
    }
    let wide = bots.iter().map(|bot| bot.name.len()).max().unwrap_or_default();
    for bot in bots {
        let what = match (&bot.user, &bot.model) {
            (Some(user), Some(model)) => format!("{user}, {model}, in {} rooms at most", bot.allowed),
            _ => bot.state.clone(),
        };
        let state = if states && bot.user.is_some() { format!(": {}", bot.state) } else { String::new() };
        writeln!(out, "{:wide$}  {what}{state}", bot.name)?;
    }
    let bad = states && bots.iter().any(|bot| !bot.served);
    Ok(if bad { Outcome::Bad } else { Outcome::Good })
}

async fn logs(config: &Config, name: String, follow: bool) -> anyhow::Result<Outcome> {
    let path = CloudBot::path(config, &name).map_err(|wrong| anyhow::anyhow!("{}. {}.", wrong.what, wrong.mend))?;
    if !path.exists() {
        bail!("There is no cloud bot `{name}`: {} does not exist.", path.display());
    }
    logs_of(&control_socket(&config.paths.state_dir), &Request::CloudBotLog { name, follow }, follow).await
}

async fn remove(config: &Config, name: &str, yes: bool) -> anyhow::Result<Outcome> {
    let path = CloudBot::path(config, name).map_err(|wrong| anyhow::anyhow!("{}. {}.", wrong.what, wrong.mend))?;
    if !path.exists() {
        bail!("There is no cloud bot `{name}`: {} does not exist.", path.display());
    }
    if !yes {
        if !prompt::is_person() {
            bail!("Nobody can be asked here. Say `--yes` to remove the bot `{name}`.");
        }
        let question = format!("Remove the bot `{name}`, log it out and forget its session? (yes/no)");
        if !matches!(prompt::ask(&question, None).await?.as_str(), "yes" | "y") {
            bail!("Nothing was done.");
        }
    }
    // Read before it is moved; a file with mistakes has nothing to log out by.
    let bot = CloudBots::read(config).bots.into_iter().find(|bot| bot.name == name);
    let aside = CloudBot::put_aside(config, name)?.unwrap_or(path);
    // The server, if one runs, ends the bot before its session does.
    if host::serves(&config.paths.state_dir).await? {
        ask(&config.paths.state_dir, &Request::LookAtCloudBots).await?;
    }
    let mut out = io::stdout().lock();
    if let Some(bot) = bot {
        let logged_out = match Homeserver::at(&bot.homeserver) {
            Ok(homeserver) => homeserver.log_out(&bot.token).await,
            Err(fault) => Err(fault),
        };
        match logged_out {
            Ok(()) => writeln!(out, "{} is logged out.", bot.user)?,
            Err(fault) => writeln!(out, "{} could not be logged out: {fault}.", bot.user)?,
        }
        cloud_login(config, &bot).forget()?;
    } else {
        forget_session(&config.paths.state_dir, &account_of_bot(name))?;
        let mend = "log it out with another client of its account";
        writeln!(out, "Its file has mistakes, so that it could not be logged out at its homeserver: {mend}.")?;
    }
    writeln!(out, "The bot `{name}` is removed; its settings are in {}.", aside.display())?;
    Ok(Outcome::Good)
}
