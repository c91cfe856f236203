//! `cloud-bot add`: from settings and a login to a bot's file.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tokio::time;

use super::{ask, only, show};
use crate::{
    chat::matrix::{Administrator, Homeserver, Login},
    cli::{Outcome, host, prompt},
    config::{CloudBot, CloudBots, Config},
    ids,
    ops::{Request, cloud_login},
};

/// The most bytes of settings.
const LARGEST: u64 = 64 << 10;
/// How long putting the new device's keys in place may take.
const KEYS: Duration = Duration::from_mins(2);
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
        let password = account(&homeserver, &bot, password, config).await?;
        let token = homeserver.log_in(&bot.user, &password, DEVICE).await.map_err(|fault| anyhow!("{fault}."))?;
        settings.insert("BOT_TOKEN".to_owned(), token.expose_secret().to_owned());
        bot.token = token;
        // Here, while the password is known: with it the device can always be signed.
        let login = Login { password: Some(password), ..cloud_login(config, &bot) };
        let begun = time::timeout(KEYS, Box::pin(login.open())).await;
        if let Err(error) = begun.context("The homeserver takes too long.").and_then(|begun| Ok(begun.map(drop)?)) {
            let _ = homeserver.log_out(&bot.token).await;
            login.forget()?;
            return Err(error);
        }
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
    if !host::serves(&config.paths.state_dir).await {
        writeln!(out, "Start the server: `matrix-agent run`.")?;
        return Ok(Outcome::Good);
    }
    show(&only(ask(config, &Request::LookAtCloudBots).await?, name), false, true).map(|_| Outcome::Good)
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
        ("LLM_BASE_URL", "The model's endpoint (https://api.groq.com/openai/v1)", None),
        ("LLM_MODEL", "The model's name", None),
        ("ALLOWED_ROOMS", "Rooms in which it works (ids or aliases, parted by commas)", Some("none")),
    ] {
        if !settings.contains_key(key) {
            settings.insert(key.to_owned(), prompt::ask(question, usual).await?);
        }
    }
    if !settings.contains_key("LLM_API_KEY") {
        let key = prompt::ask_hidden("The endpoint's API key").await?;
        settings.insert("LLM_API_KEY".to_owned(), key.expose_secret().to_owned());
    }
    settings.retain(|_, value| !value.is_empty());
    Ok(())
}

/// Makes the account where we may, and returns its password.
async fn account(
    homeserver: &Homeserver,
    bot: &CloudBot,
    password: Option<SecretString>,
    config: &Config,
) -> anyhow::Result<SecretString> {
    let rules = &config.cloud_bots;
    let ours = rules.administrator.as_ref().filter(|(admin, _)| {
        let server = |user: &str| user.split_once(':').map(|(_, server)| server.to_owned());
        is_same(&rules.homeserver, &bot.homeserver) && server(admin) == server(&bot.user)
    });
    if let Some((user, admin_password)) = ours {
        match homeserver.administrator(user, admin_password).await {
            Ok(administrator) => {
                let made = made(&administrator, bot, password.clone()).await;
                administrator.end().await;
                if let Some(password) = made? {
                    return Ok(password);
                }
            }
            Err(fault) => {
                writeln!(io::stderr(), "No account can be made by {user}: {fault}.")?;
            }
        }
    }
    match password {
        Some(password) => Ok(password),
        None if prompt::is_person() => prompt::ask_hidden(&format!("The password of {}", bot.user)).await,
        None => bail!("{} has to log in, and {} is not among the settings.", bot.user, CloudBot::PASSWORD),
    }
}

/// Makes the account unless it is there, and frees it from the limits of rates. Returns its password; `None` if the account
/// was there and its password must be asked for.
async fn made(
    administrator: &Administrator<'_>,
    bot: &CloudBot,
    password: Option<SecretString>,
) -> anyhow::Result<Option<SecretString>> {
    let fail = |fault| anyhow!("{fault}.");
    let there = administrator.has_account(&bot.user).await.map_err(fail)?;
    let password = if there {
        password
    } else {
        let password = password.unwrap_or_else(|| SecretString::from(ids::random(24)));
        administrator
            .make_account(&bot.user, &password, bot.called.as_deref().unwrap_or(&bot.name))
            .await
            .map_err(fail)?;
        writeln!(io::stderr(), "The account {} is made.", bot.user)?;
        Some(password)
    };
    administrator.lift_limits(&bot.user).await.map_err(fail)?;
    Ok(password)
}

fn is_same(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}
