//! `matrix-agent exobot`: logs exobot in, and says where its page is.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use secrecy::SecretString;
use tokio::time;

use super::{
    Configuration, Outcome,
    account::{self, Account},
    host, prompt,
};
use crate::{
    chat::matrix::Homeserver,
    config::{Config, Exobot, ExobotAccount, sentence},
    ops::{Operator, Purpose, Request, ShownExobot, control_socket, exobot_login},
};

/// The most bytes of a password on standard input.
const LARGEST: u64 = 4 << 10;
/// How long logging an earlier session out may take.
const LOG_OUT: Duration = Duration::from_secs(10);
/// How the bot's device is called in its account's list.
const DEVICE: &str = "matrix-agent (exobot)";
/// Stands for the token while all else is checked before the login.
const NOT_YET: &str = "token-of-the-login";

/// Log exobot in, the bot whose model runs on this machine; show what it does, and where its page is
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Logs in (on a homeserver of ours it makes the account) and writes the token to STATE_DIR/secrets/exobot.env. The
    /// password is asked for, or read from standard input
    Login {
        /// The account, if it does not follow from EXOBOT_LOCALPART
        #[arg(long, value_name = "@NAME:SERVER")]
        user: Option<String>,
    },
    /// Shows what its account and its model do, or why they do nothing
    Status {
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Says where the page to chat with its model is
    Ui {
        /// Prints a proxy's settings for its public name, and how to let only some people in
        #[arg(long)]
        print_proxy: bool,
    },
}

pub(super) async fn run(args: Args, configuration: &Configuration) -> anyhow::Result<Outcome> {
    match args.verb {
        Verb::Login { user } => login(configuration.checked(Purpose::Anything)?, user).await,
        Verb::Status { json } => status(&configuration.state_dir()?, json).await,
        Verb::Ui { print_proxy } => page(&configuration.checked(Purpose::Anything)?.exobot, print_proxy),
    }
}

async fn login(config: &Config, user: Option<String>) -> anyhow::Result<Outcome> {
    let Some(user) = user.or_else(|| ExobotAccount::usual_user(config)) else {
        bail!("Whose account it is does not follow from the settings. Say `--user @exobot:server.example`.");
    };
    // Before anybody logs in, so that a mistake leaves nothing behind.
    let text = format!("EXOBOT_TOKEN = {NOT_YET}\nEXOBOT_MXID = {user}\n");
    let mut exobot = ExobotAccount::parse(&text, config)?;
    let homeserver = Homeserver::at(&exobot.homeserver).map_err(|fault| anyhow!("{fault}."))?;
    let before = ExobotAccount::read(config).ok();
    if before.is_some() && host::serves(&config.paths.state_dir).await? {
        bail!("A server runs with exobot's present session. Stop it first, so that the session can be replaced.");
    }
    let given = if prompt::is_person() { None } else { password_given()? };
    let account = Account {
        user: &exobot.user,
        shown: &config.exobot.localpart,
        homeserver: &exobot.homeserver,
        setting: "its password on standard input",
    };
    config.paths.make_state()?;
    let password = account.password(&homeserver, given, config).await?;
    let token = homeserver.log_in(&exobot.user, &password, DEVICE).await.map_err(|fault| anyhow!("{fault}."))?;
    if let Some(before) = before {
        // Its files are of a session that is none any more.
        exobot_login(config, &before).forget()?;
        if let Ok(old) = Homeserver::at(&before.homeserver) {
            // One that cannot be ended does no harm but that it is listed.
            let _ = time::timeout(LOG_OUT, old.log_out(&before.token)).await;
        }
    }
    exobot.token = token;
    account::begin(&homeserver, &exobot.token, password, exobot_login(config, &exobot)).await?;
    let path = exobot.write(config)?;
    tell(config, &exobot, &path)
}

/// Shows how the server that runs says it stands.
async fn status(state_dir: &Path, json: bool) -> anyhow::Result<Outcome> {
    let (value, text) = Operator::answer(&control_socket(state_dir), &Request::Exobot).await?;
    let shown: ShownExobot = serde_json::from_value(value.clone())?;
    writeln!(io::stdout().lock(), "{}", if json { value.to_string() } else { text })?;
    Ok(if shown.served { Outcome::Good } else { Outcome::Bad })
}

/// Says where the page is, or what a proxy needs.
fn page(settings: &Exobot, print_proxy: bool) -> anyhow::Result<Outcome> {
    let mut out = io::stdout().lock();
    let address = settings.ui_listen;
    if print_proxy {
        let Some(name) = &settings.ui_public else {
            bail!("The page has no public name. Set EXOBOT_UI_HOST_PUBLIC, or DOMAIN for `ai.DOMAIN`.");
        };
        write!(out, "{}", proxy(name, address))?;
        return Ok(Outcome::Good);
    }
    let off = [(!settings.enabled).then_some("ENABLE_EXOBOT=true"), (!settings.ui).then_some("EXOBOT_UI=true")];
    let off: Vec<_> = off.into_iter().flatten().collect();
    if let Some(wrong) = settings.page_refused() {
        writeln!(out, "The page is not served: {} {}", sentence(&wrong.what), sentence(&wrong.mend))?;
        return Ok(Outcome::Bad);
    }
    if !off.is_empty() {
        writeln!(out, "The page is not served. Set {} in `.env`.", off.join(" and "))?;
        return Ok(Outcome::Bad);
    }
    writeln!(out, "The page is at http://{address} on this machine while the server runs.")?;
    Ok(Outcome::Good)
}

/// Returns Caddy's settings for the page under its public name, with what has to be done besides.
fn proxy(name: &str, address: SocketAddr) -> String {
    format!(
        "\
# Caddy: save this as /etc/caddy/apps/exobot-ui.caddy (or append it to the Caddyfile), and reload Caddy.
# The page has no login of its own: whoever reaches it may use the model. Before the name is public, do one of these:
#
#  - Cloudflare: Zero Trust > Access > Applications > Add > Self-hosted, domain {name}, with a policy that
#    allows only your people. Then Networks > Tunnels > your tunnel > Public hostname: {name},
#    service http://{address}. Caddy is not needed then.
#  - Caddy alone: make a password's hash with `caddy hash-password`, and put it below in place of HASH.
{name} {{
    basic_auth {{
        you HASH
    }}
    reverse_proxy {address}
}}
"
    )
}

/// Reads a password from standard input, if there is one.
fn password_given() -> anyhow::Result<Option<SecretString>> {
    let mut text = String::new();
    io::stdin().take(LARGEST).read_to_string(&mut text).context("The password cannot be read")?;
    let line = text.lines().next().unwrap_or_default();
    Ok((!line.is_empty()).then(|| SecretString::from(line)))
}

/// Says what was made, and what is still missing.
fn tell(config: &Config, exobot: &ExobotAccount, path: &Path) -> anyhow::Result<Outcome> {
    let mut out = io::stdout().lock();
    writeln!(out, "{} is logged in; its token is in {}.", exobot.user, path.display())?;
    let settings = &config.exobot;
    let own = settings.registry_model.is_none();
    let missing: Vec<_> = [
        (!settings.enabled).then_some("ENABLE_EXOBOT=true"),
        (own && settings.binary.is_none() && settings.image.is_none())
            .then_some("LLAMA_SERVER_BIN (or LLAMA_SERVER_IMAGE)"),
        (own && settings.model.is_none()).then_some("MODEL_PATH"),
        settings.rooms.is_empty().then_some("EXOBOT_ALLOWED_ROOMS"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !missing.is_empty() {
        writeln!(out, "Still to be set in `.env`: {}.", missing.join(", "))?;
    }
    writeln!(out, "Start the server anew, and invite {} to a room of EXOBOT_ALLOWED_ROOMS.", exobot.user)?;
    Ok(Outcome::Good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_without_a_hash_lets_nobody_in() {
        let text = proxy("ai.example.org", "127.0.0.1:8091".parse().unwrap());
        assert!(
            text.contains(
                "\nai.example.org {\n    basic_auth {\n        you HASH\n    }\n    reverse_proxy 127.0.0.1:8091\n}\n"
            ),
            "{text}"
        );
    }
}
