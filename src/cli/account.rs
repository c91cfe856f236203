//! Makes the Matrix accounts of chat bots, and begins their sessions. No password and no token stands on a command line.

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use reqwest::Url;
use secrecy::SecretString;
use tokio::time;

use super::prompt;
use crate::{
    chat::matrix::{Administrator, Homeserver, Login},
    config::Config,
    ids,
};

/// How long putting a new device's keys in place may take.
const KEYS: Duration = Duration::from_mins(2);

/// An account that a bot is to have.
pub(super) struct Account<'a> {
    /// Its user id.
    pub(super) user: &'a str,
    /// What people see it called.
    pub(super) shown: &'a str,
    /// Its homeserver.
    pub(super) homeserver: &'a Url,
    /// The setting in which its password is given where nobody can be asked.
    pub(super) setting: &'a str,
}

impl Account<'_> {
    /// Makes the account where we may, and returns its password.
    pub(super) async fn password(
        &self,
        homeserver: &Homeserver,
        password: Option<SecretString>,
        config: &Config,
    ) -> anyhow::Result<SecretString> {
        let rules = &config.cloud_bots;
        let ours = rules.administrator.as_ref().filter(|(admin, _)| {
            let server = |user: &str| user.split_once(':').map(|(_, server)| server.to_owned());
            is_same(&rules.homeserver, self.homeserver) && server(admin) == server(self.user)
        });
        if let Some((user, admin_password)) = ours {
            match homeserver.administrator(user, admin_password).await {
                Ok(administrator) => {
                    let made = self.made(&administrator, password.clone()).await;
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
            None if prompt::is_person() => prompt::ask_hidden(&format!("The password of {}", self.user)).await,
            None => bail!("{} has to log in, and {} is not among the settings.", self.user, self.setting),
        }
    }

    /// Makes the account unless it is there, and frees it from the limits of rates. Returns its password; `None` if the
    /// account was there and its password must be asked for.
    async fn made(
        &self,
        administrator: &Administrator<'_>,
        password: Option<SecretString>,
    ) -> anyhow::Result<Option<SecretString>> {
        let fail = |fault| anyhow!("{fault}.");
        let there = administrator.has_account(self.user).await.map_err(fail)?;
        let password = if there {
            password
        } else {
            let password = password.unwrap_or_else(|| SecretString::from(ids::random(24)));
            administrator.make_account(self.user, &password, self.shown).await.map_err(fail)?;
            writeln!(io::stderr(), "The account {} is made.", self.user)?;
            Some(password)
        };
        administrator.lift_limits(self.user).await.map_err(fail)?;
        Ok(password)
    }
}

/// Begins the session of a token, while the password is known: with it the new device can always be signed. If that fails the
/// session is ended, so that nothing is left behind.
pub(super) async fn begin(
    homeserver: &Homeserver,
    token: &SecretString,
    password: SecretString,
    login: Login,
) -> anyhow::Result<()> {
    let login = Login { password: Some(password), ..login };
    let begun = time::timeout(KEYS, Box::pin(login.open())).await;
    if let Err(error) = begun.context("The homeserver takes too long.").and_then(|begun| Ok(begun.map(drop)?)) {
        let _ = homeserver.log_out(token).await;
        login.forget()?;
        return Err(error);
    }
    Ok(())
}

fn is_same(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}
