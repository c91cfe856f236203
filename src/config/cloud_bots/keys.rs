//! The table of a cloud bot's settings.

use std::{collections::BTreeMap, time::Duration};

use reqwest::Url;
use secrecy::SecretString;

use super::{
    super::{
        keys::{
            About, Key,
            Preset::{Follows, Text, Unset},
            Table, keys,
        },
        parse,
    },
    Thinking, values,
};
#[cfg(test)]
use crate::config::parse::Parsed;

keys! {
    "Matrix" {
        /// Access token of the bot's Matrix account, which is the bot's alone (no person's).
        (first secret) BOT_TOKEN: SecretString = Unset, values::credential;
        /// Matrix user ID of the account: `@name:server.example`.
        (first) BOT_MXID: String = Unset, parse::user;
        /// URL of its homeserver.
        () HS_URL: Url = Follows("MATRIX_HOMESERVER if that is set or follows from VPS_IP, else `http://127.0.0.1:8448`"), parse::url;
        /// The name by which people call it.
        () BOT_NAME: String = Follows("the part of BOT_MXID before the colon"), values::name;
        /// Rooms in which it works: room IDs or aliases, parted by commas, and in quotes if there is a `#`. Without one it works nowhere and declines every invite.
        (first) ALLOWED_ROOMS: Vec<String> = Text("none"), values::rooms;
        /// Matrix user IDs of other bots in its rooms, parted by commas, which it never answers.
        () KNOWN_BOT_MXIDS: Vec<String> = Text("none"), parse::users;
        /// Seconds after which the homeserver's stream is begun anew if nothing comes of it.
        () SYNC_WATCHDOG_S: Duration = Text("300"), values::watchdog;
    }
    "Model" {
        /// Base URL of an OpenAI-compatible endpoint, up to where `/chat/completions` follows: `https://api.groq.com/openai/v1`. Not for a model of the registry.
        (first) LLM_BASE_URL: Url = Unset, parse::url;
        /// The model's name as it is sent to the endpoint; or a model of the registry in LOCALBOT_DIR, which needs neither LLM_BASE_URL nor LLM_API_KEY: `localbot/ALIAS`, `localbot/ENDPOINT`, or `localbot/` for the first endpoint that is online.
        (first) LLM_MODEL: String = Unset, parse::model;
        /// The endpoint's API key; any word where the endpoint needs none, such as `none`.
        (first secret) LLM_API_KEY: SecretString = Unset, values::credential;
        /// Name of the provider as it is shown below answers.
        () LLM_PROVIDER: String = Follows("the host in LLM_BASE_URL"), values::name;
        /// What stands before every conversation. In double quotes `\n` begins a line.
        () LLM_SYSTEM_PROMPT: String = Unset, values::prompt;
        /// Tokens of an answer. A model that thinks needs more, such as 1500.
        () LLM_MAX_TOKENS: u32 = Text("600"), parse::count::<_, 1, 1_000_000>;
        /// Sampling temperature.
        () LLM_TEMPERATURE: f64 = Text("0.7"), values::temperature;
        /// Seconds that an answer may take.
        () LLM_TIMEOUT_S: Duration = Text("60"), values::timeout;
        /// Pairs of question and answer that are kept as context, in each room and thread.
        () HISTORY_TURNS: usize = Text("4"), parse::count::<_, 0, 100>;
        /// Whether the model is told not to think: `true` or `false`.
        () LLM_DISABLE_THINKING: bool = Text("false"), parse::flag;
        /// How its thoughts are shown: behind a `spoiler`, as `details` that a click opens, or `hidden`.
        () SHOW_THINKING: Thinking = Text("spoiler"), values::thinking;
        /// Further headers of requests, as a JSON object of texts: `{"HTTP-Referer": "https://example.org", "X-Title": "Our bot"}`.
        (secret) EXTRA_HEADERS_JSON: BTreeMap<String, SecretString> = Unset, values::headers;
    }
    "Limits" {
        /// Requests to the endpoint in a minute.
        () RATE_LIMIT_RPM: u32 = Text("10"), parse::count::<_, 1, 1_000_000>;
        /// Requests in a day.
        () RATE_LIMIT_RPD: u32 = Text("800"), parse::count::<_, 1, 100_000_000>;
        /// A word that all bots with the same key have here: they share these two limits.
        () RATE_LIMIT_GROUP: String = Unset, values::group;
        /// Requests that one person may cause in a minute, within RATE_LIMIT_RPM.
        () RATE_LIMIT_SENDER_RPM: u32 = Unset, parse::count::<_, 1, 1_000_000>;
        /// Requests that one person may cause in a day, within RATE_LIMIT_RPD.
        () RATE_LIMIT_SENDER_RPD: u32 = Unset, parse::count::<_, 1, 100_000_000>;
        /// Requests at the same time; others wait for their turn.
        () LLM_CONCURRENT_MAX: usize = Text("1"), parse::count::<_, 1, 100>;
    }
}

/// The settings of a cloud bot.
pub(super) const BOT: Table = Table { keys: ALL, listed_in: super::TEMPLATE };
