//! `cloud-bot add`: from settings and a login to a bot's file.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use anyhow::{Context, anyhow, bail};
use secrecy::{ExposeSecret, SecretString};

use super::{ask, only, show};
use crate::{
    chat::matrix::Homeserver,
    cli::{
        Outcome,
        account::{self, Account},
        host, prompt,
    },
    config::{CloudBot, CloudBots, Config, LOCAL_MODEL},
    ops::{Request, cloud_login},
};

/// The most bytes of settings.
const LARGEST: u64 = 64 << 10;
/// How the bot's device is called in its account's list.
const DEVICE: &str = "matrix-agent (cloud bot)";
/// Stands for the token while the settings are checked before the login.
const NOT_YET: &str = "token-of-the-login";

type Settings = BTreeMap<String, String>;

pub(super) async fn run(name: &str, file: Option<&Path>, config: &Config) -> anyhow::Result<Outcome> {
    let path = CloudBot::path(config, name).map_err(|wrong| anyhow!("{}. {}.", wrong.what, wrong.mend))?;
    if path.exists() {
        bail!("{} exists already. Change it there, or remove the bot with `cloud-bot remove {name}`.", path.display());
    }
    let mut settings = match file {
        Some(file) => given(file)?,
        None if prompt::is_person() => Settings::new(),
        None => given(Path::new("-"))?,
    };
    if prompt::is_person() {
        ask_for_missing(&mut settings, name, config).await?;
    }
    let password = settings.remove(CloudBot::PASSWORD).map(SecretString::from);
    let has_token = settings.contains_key("BOT_TOKEN");
    settings.entry("BOT_TOKEN".to_owned()).or_insert_with(|| NOT_YET.to_owned());
    // Before anybody logs in, so that a mistake leaves nothing behind.
    let mut bot =
        CloudBots::check(config, name, &CloudBot::file_of(&settings)).map_err(|refused| anyhow!("{refused}"))?;
    let homeserver = Homeserver::at(&bot.homeserver).map_err(|fault| anyhow!("{fault}."))?;
    if !has_token {
        let shown = bot.called.as_deref().unwrap_or(&bot.name);
        let account = Account { user: &bot.user, shown, homeserver: &bot.homeserver, setting: CloudBot::PASSWORD };
        config.paths.make_state()?;
        let password = account.password(&homeserver, password, config).await?;
        bot.token = homeserver.log_in(&bot.user, &password, DEVICE).await.map_err(|fault| anyhow!("{fault}."))?;
        settings.insert("BOT_TOKEN".to_owned(), bot.token.expose_secret().to_owned());
        account::begin(&homeserver, &bot.token, password, cloud_login(config, &bot)).await?;
    }
    let path = CloudBot::write(config, name, &CloudBot::file_of(&settings))?;
    tell(name, &path, &bot, config).await
}

/// Says what was made, and what the server makes of it.
async fn tell(name: &str, path: &Path, bot: &CloudBot, config: &Config) -> anyhow::Result<Outcome> {
    let mut out = io::stdout();
    writeln!(out, "The bot `{name}` is {}; its settings are in {}.", bot.user, path.display())?;
    if bot.rooms.is_empty() {
        writeln!(out, "It works nowhere until ALLOWED_ROOMS there names its rooms. Then invite it.")?;
    } else {
        writeln!(out, "Invite it to a room of {}.", bot.rooms.join(", "))?;
    }
    if !config.cloud_bots.enabled {
        writeln!(out, "Set ENABLE_CLOUD_BOTS=true in `.env`, and start the server.")?;
        return Ok(Outcome::Good);
    }
    if !host::serves(&config.paths.state_dir).await? {
        writeln!(out, "Start the server: `matrix-agent run`.")?;
        return Ok(Outcome::Good);
    }
    show(&only(ask(&config.paths.state_dir, &Request::LookAtCloudBots).await?, name), false, true)
        .map(|_| Outcome::Good)
}

/// Reads settings that are given in a file, or on standard input.
fn given(file: &Path) -> anyhow::Result<Settings> {
    let mut text = String::new();
    let input: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).with_context(|| format!("{} cannot be read", file.display()))?)
    };
    input.take(LARGEST).read_to_string(&mut text).context("The settings cannot be read")?;
    CloudBot::given(&text).map_err(|wrong| anyhow!("The settings: {}. {}.", wrong.what, wrong.mend))
}

/// Asks a person for what a bot needs and was not given.
async fn ask_for_missing(settings: &mut Settings, name: &str, config: &Config) -> anyhow::Result<()> {
    let server = config.cloud_bots.administrator.as_ref().and_then(|(user, _)| user.split_once(':'));
    let user = server.map(|(_, server)| format!("@{name}:{server}"));
    for (key, question, usual) in [
        ("BOT_MXID", "The bot's Matrix account", user.as_deref()),
        ("LLM_MODEL", "The model's name (or localbot/ALIAS for one of your own servers)", None),
        ("LLM_BASE_URL", "The model's endpoint (https://api.groq.com/openai/v1)", None),
        ("LLM_API_KEY", "The endpoint's API key", None),
        ("ALLOWED_ROOMS", "Rooms in which it works (ids or aliases, parted by commas)", Some("none")),
    ] {
        // The registry has the address of its models, and the key.
        let local = settings.get("LLM_MODEL").is_some_and(|model| model.starts_with(LOCAL_MODEL));
        if settings.contains_key(key) || local && matches!(key, "LLM_BASE_URL" | "LLM_API_KEY") {
            continue;
        }
        let value = match key {
            "LLM_API_KEY" => prompt::ask_hidden(question).await?.expose_secret().to_owned(),
            _ => prompt::ask(question, usual).await?,
        };
        settings.insert(key.to_owned(), value);
    }
    settings.retain(|_, value| !value.is_empty());
    Ok(())
}
