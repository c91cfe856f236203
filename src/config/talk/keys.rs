//! The table of the Nextcloud Talk bot's settings.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use reqwest::Url;
use secrecy::SecretString;

use super::{
    super::{
        cloud_bots::values as bots,
        keys::{
            About, Key,
            Preset::{Follows, Text, Unset},
            Table, keys,
        },
        parse,
    },
    values,
};
#[cfg(test)]
use crate::config::parse::Parsed;

keys! {
    "Nextcloud" {
        /// Base URL of the Nextcloud server: `https://cloud.example.com`.
        () NEXTCLOUD_URL: Url = Unset, parse::url;
        /// Address at which Nextcloud's webhook is taken.
        () BOT_HOST: IpAddr = Text("127.0.0.1"), values::host;
        /// Port at which it is taken.
        () BOT_PORT: u16 = Text("8086"), parse::count::<_, 1, 65_535>;
        /// File that holds the secret which bot and Nextcloud share, 40 to 128 characters.
        () BOT_SECRET_FILE: PathBuf = Follows("`bot-secret` among the service's credentials (`LoadCredential=` of systemd)"), parse::path;
        /// The secret itself, where no file holds it.
        (secret) BOT_SECRET: SecretString = Unset, parse::token;
        /// Name of the bot, as it was installed; people call it with `@` before it.
        () BOT_NAME: String = Text("Halo"), values::called;
        /// Names of the Nextcloud users whom it answers, parted by commas. Nobody named: everybody in its conversations.
        () ALLOWED_USERS: Vec<String> = Text("none"), values::users;
        /// Tokens of conversations in which all that is said is meant for the bot, such as those for two, parted by commas. Elsewhere it answers when it is called.
        () DIRECT_CONVERSATIONS: Vec<String> = Text("none"), values::tokens;
    }
    "Model" {
        /// Base URL of an OpenAI-compatible endpoint, up to where `/chat/completions` follows: `http://halo.example:8000/v1`.
        () MODEL_BASE_URL: Url = Unset, parse::url;
        /// The model's name as it is sent to the endpoint.
        () MODEL_NAME: String = Text("halo-8000"), parse::model;
        /// The endpoint's API key, where it needs one.
        (secret) MODEL_API_KEY: SecretString = Unset, bots::credential;
        /// Pairs of question and answer that are kept as context, in each conversation.
        () CONTEXT_MESSAGES: usize = Text("6"), parse::count::<_, 0, 100>;
        /// Seconds that an answer may take.
        () TIMEOUT: Duration = Text("120"), bots::timeout;
        /// What the model is told besides the built-in prompt. In double quotes `\n` begins a line.
        () SYSTEM_PROMPT: String = Unset, bots::prompt;
    }
    "Coding agent" {
        /// Tokens of conversations in which the coding agent works, parted by commas.
        () CODER_CONVERSATIONS: Vec<String> = Text("none"), values::tokens;
        /// Names of the Nextcloud users who may command it there, parted by commas.
        () CODER_USERS: Vec<String> = Text("none"), values::users;
    }
}

/// The settings of the Nextcloud Talk bot.
pub(super) const TALK: Table = Table { keys: ALL, listed_in: "docs/nextcloud-talk.md" };
