//! The settings of what is at the network: the HTTP server, GitHub's webhook, and the server's own key for GitHub.

use std::{fs, io, net::SocketAddr};

use secrecy::{ExposeSecret, SecretString};

use crate::{
    clock::Clock,
    config::{self, Config, Wrong},
    github::{App, BadAppKey, BadRepository, GitHub, Key, Repositories},
    http::{HttpServer, Names},
    tasks::TaskRules,
};

/// Why the webhook has no secret though one was meant.
#[derive(Debug, thiserror::Error)]
pub(in crate::ops) enum WebhookMistake {
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    File(#[from] io::Error),
    /// It holds too little.
    #[error("the file holds fewer than 16 characters, so that the secret could be guessed")]
    Short,
}

/// Returns the webhook's secret, if there is to be a webhook.
pub(super) fn webhook_secret(config: &Config) -> Result<Option<SecretString>, WebhookMistake> {
    const SHORTEST: usize = 16;
    let Some(secret) = &config.tasks.secret else { return Ok(None) };
    if !secret.expose_secret().starts_with('/') {
        return Ok(Some(secret.clone()));
    }
    let text = SecretString::from(fs::read_to_string(secret.expose_secret())?);
    let text = text.expose_secret().trim();
    if text.len() < SHORTEST { Err(WebhookMistake::Short) } else { Ok(Some(SecretString::from(text))) }
}

/// Returns the rules by which issues become tasks, if there is a webhook. It fails only for settings that [`review`] has refused.
pub(in crate::ops) fn tasks(config: &Config) -> Result<Option<TaskRules>, WebhookMistake> {
    let config::Tasks { label, people, rounds, .. } = config.tasks.clone();
    Ok(webhook_secret(config)?.map(|secret| TaskRules { secret, label, people, rounds }))
}

/// Returns what is wrong with an address at which other machines reach the HTTP server.
pub(in crate::ops) fn heard_elsewhere(address: SocketAddr) -> Option<Wrong> {
    let what =
        format!("at {address} other machines reach HTTP in the clear, which everybody on the way can read and change");
    let mend = "Set HTTP_LISTEN to the port alone, and let a proxy with TLS on this machine pass requests on";
    (!address.ip().to_canonical().is_loopback()).then(|| Wrong::new(what, mend))
}

/// Returns the HTTP server, which listens from now on, if one is set up.
pub(in crate::ops) async fn http(config: &Config) -> anyhow::Result<Option<HttpServer>> {
    let Some(listen) = config.http.listen else { return Ok(None) };
    if let Some(Wrong { what, mend }) = heard_elsewhere(listen) {
        tracing::warn!(mend, "{what}");
    }
    Ok(Some(HttpServer::bind(listen, Names::parse(&config.http.names)?).await?))
}

/// Why there is no key for GitHub though one was meant.
#[derive(Debug, thiserror::Error)]
pub(in crate::ops) enum GitHubMistake {
    /// One of the App's two settings is missing.
    #[error("GITHUB_APP_ID and GITHUB_APP_KEY are set both or not at all")]
    Half,
    /// The key's file cannot be read.
    #[error("the file cannot be read: {0}")]
    File(#[from] io::Error),
    /// It holds no key.
    #[error(transparent)]
    Key(#[from] BadAppKey),
    /// The list of repositories.
    #[error(transparent)]
    Repositories(#[from] BadRepository),
}

/// Returns the key for GitHub, if one is set.
pub(super) fn github_key(config: &Config) -> Result<Option<Key>, GitHubMistake> {
    let config::GitHub { app, app_key, token, .. } = &config.github;
    match (app, app_key) {
        (Some(app), Some(file)) => Ok(Some(Key::App(App::new(app, &fs::read_to_string(file)?)?))),
        (None, None) => Ok(token.clone().map(Key::Token)),
        _ => Err(GitHubMistake::Half),
    }
}

/// Returns the server's way to GitHub. It fails only for settings that [`review`] has refused.
pub(in crate::ops) fn github(config: &Config, clock: Clock) -> Result<GitHub, GitHubMistake> {
    Ok(GitHub::new(github_key(config)?, Repositories::parse(&config.github.repositories)?, clock))
}
