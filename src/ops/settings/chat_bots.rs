//! The settings of the bots that only chat: cloud bots, exobot and the one of Nextcloud Talk.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::{
    bots::{People, Places, Policy, chat, exobot},
    chat::matrix::{Begun, Login},
    config::{self, CloudBot, Config, ExobotAccount, TALK_ACCOUNTS, Talk, TalkCoder},
    ids::digest,
    inference::Inference,
    llm::{self, LlmError, Model, ModelSettings, model_string},
    store::Ceilings,
    strings,
};

/// Returns how a cloud bot's account logs in.
pub(crate) fn cloud_login(config: &Config, bot: &CloudBot) -> Login {
    let file = bot.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Login {
        name: bot.account(),
        homeserver: bot.homeserver.to_string(),
        user: bot.user.clone(),
        password: None,
        begun: Some(Begun { token: bot.token.clone(), file }),
        refused: None,
        state_dir: config.paths.state_dir.clone(),
        unsigned_devices: config.cloud_bots.unsigned_devices,
        watchdog: Some(bot.watchdog),
    }
}

/// Returns a cloud bot's settings, and its model.
pub(in crate::ops) fn cloud_bot(
    config: &Config,
    bot: &CloudBot,
    inference: &Inference,
) -> Result<(chat::Settings, chat::Fixed), LlmError> {
    let name = bot.user.trim_start_matches('@').split(':').next().unwrap_or_default();
    let called = bot.called.clone().unwrap_or_else(|| name.to_owned());
    let policy = Policy {
        ignored: bot.known_bots.clone(),
        leaves: true,
        ..Policy::new(People::Everybody, Places::Listed(bot.rooms.clone()))
    };
    let settings = chat::Settings {
        system_prompt: bot.system_prompt.clone().unwrap_or_default(),
        history_turns: bot.history_turns,
        max_tokens: Some(bot.max_tokens.into()),
        at_once: bot.at_once,
        no_thinking: bot.disable_thinking,
        thinking: match bot.thinking {
            config::Thinking::Spoiler => chat::Thinking::Spoiler,
            config::Thinking::Details => chat::Thinking::Folded,
            config::Thinking::Hidden => chat::Thinking::Hidden,
        },
        // Neither is a name that a key could be read from.
        quota: match (&bot.group, &bot.base_url) {
            (Some(group), _) => format!("group:{group}"),
            (None, Some(url)) => format!("key:{}", digest(&[url.as_str(), bot.api_key.expose_secret()], 16)),
            (None, None) => format!("bot:{}", bot.account()),
        },
        ceilings: Ceilings { minute: Some(bot.per_minute), day: Some(bot.per_day) },
        ceilings_of_person: Ceilings { minute: bot.per_minute_of_sender, day: bot.per_day_of_sender },
        listed: People::Listed(config.people.allowed.clone()),
        ..chat::Settings::new(bot.account().as_str(), policy, called)
    };
    let host = || bot.base_url.as_ref().and_then(|url| url.host_str()).map(str::to_owned);
    // A model of the registry names its provider itself.
    let label = match bot.provider.clone().or_else(host) {
        Some(provider) => format!("{provider}/{}", bot.model),
        None => bot.model.clone(),
    };
    Ok((settings, chat::Fixed::new(cloud_model(bot, inference)?, label)))
}

/// Returns a cloud bot's model: at its address, or of the registry.
pub(in crate::ops) fn cloud_model(bot: &CloudBot, inference: &Inference) -> Result<Model, LlmError> {
    let settings = |model: String| ModelSettings {
        base_url: bot.base_url.as_ref().map(ToString::to_string),
        temperature: Some(bot.temperature),
        headers: bot.headers.clone(),
        limits: limits_of_chat(bot.timeout),
        ..ModelSettings::new(model, bot.api_key.clone())
    };
    match &bot.base_url {
        Some(url) => Model::new(settings(model_string(&bot.model, url.as_str()))),
        None => Ok(inference.model(settings(bot.model.clone()))),
    }
}

/// Returns how exobot's account logs in.
pub(crate) fn exobot_login(config: &Config, account: &ExobotAccount) -> Login {
    let file = ExobotAccount::path(config).file_name().unwrap_or_default().to_string_lossy().into_owned();
    Login {
        name: ExobotAccount::NAME.to_owned(),
        homeserver: account.homeserver.to_string(),
        user: account.user.clone(),
        password: None,
        begun: Some(Begun { token: account.token.clone(), file }),
        refused: None,
        state_dir: config.paths.state_dir.clone(),
        unsigned_devices: config.cloud_bots.unsigned_devices,
        watchdog: None,
    }
}

/// Returns exobot's settings.
pub(in crate::ops) fn exobot(config: &Config, account: &ExobotAccount) -> chat::Settings {
    let config::Exobot { rooms, known_bots, cross, .. } = config.exobot.clone();
    // Bots are never answered; to talk with them it has to know what they say.
    let overheard = if cross { known_bots.clone() } else { vec![] };
    let here = Policy::new(People::Everybody, Places::Listed(rooms));
    let policy = Policy { ignored: known_bots, overheard, leaves: true, ..here };
    let called = account.user.trim_start_matches('@').split(':').next().unwrap_or_default();
    chat::Settings {
        system_prompt: exobot::SYSTEM_PROMPT.to_owned(),
        modes: exobot::modes(),
        // It has one conversation at a time, and a second would wait at its server, where its time would pass.
        at_once: 1,
        listed: People::Listed(config.people.allowed.clone()),
        ..chat::Settings::new(ExobotAccount::NAME, policy, called)
    }
}

/// Returns the model of the registry that exobot asks in place of one of its own.
pub(in crate::ops) fn exobot_model(name: &str, inference: &Inference) -> Model {
    // Each mode has a time of its own, the longest of which is this.
    let limits = limits_of_chat(Duration::from_mins(3));
    inference.model(ModelSettings { limits, ..ModelSettings::new(name.to_owned(), SecretString::from("")) })
}

/// Returns the limits of a model of a bot that only chats, whose answer may take so long.
fn limits_of_chat(timeout: Duration) -> llm::ModelLimits {
    let usual = llm::ModelLimits::default();
    llm::ModelLimits {
        first_token: usual.first_token.min(timeout),
        idle: usual.idle.min(timeout),
        whole: timeout,
        // Each attempt would count at the provider, and a person would rather be told.
        attempts: 1,
        ..usual
    }
}

/// Returns the settings of the Nextcloud Talk bot, and its model.
pub(in crate::ops) fn talk(talk: &Talk) -> Result<(chat::Settings, chat::Fixed), LlmError> {
    let people = if talk.users.is_empty() { People::Everybody } else { People::Listed(at_nextcloud(&talk.users)) };
    let policy = Policy::new(people, Places::Anywhere);
    let settings = chat::Settings {
        system_prompt: strings::talk::prompt(&talk.called, talk.system_prompt.as_deref()),
        history_turns: talk.history_turns,
        max_tokens: None,
        at_once: 4,
        // Talk has nothing to fold thoughts away.
        thinking: chat::Thinking::Hidden,
        listed: People::Listed(at_nextcloud(&talk.users)),
        // The name alone may be a word of what people say, such as a greeting.
        ..chat::Settings::new(TALK_ACCOUNTS[0], policy, format!("@{}", talk.called))
    };
    Ok((settings, chat::Fixed::new(Model::new(talk_model(talk))?, talk.model.clone())))
}

/// Returns the settings of the Nextcloud Talk bot's model.
pub(in crate::ops) fn talk_model(talk: &Talk) -> ModelSettings {
    let url = talk.base_url.as_str();
    let key = talk.api_key.clone().unwrap_or_else(|| SecretString::from(""));
    ModelSettings {
        base_url: Some(url.to_owned()),
        limits: limits_of_chat(talk.timeout),
        ..ModelSettings::new(model_string(&talk.model, url), key)
    }
}

/// Returns whom the coding agent hears in Nextcloud Talk.
pub(in crate::ops) fn talk_coder(coder: &TalkCoder) -> Policy {
    Policy::new(People::Listed(at_nextcloud(&coder.users)), Places::Anywhere)
}

/// Returns the ids of users of Nextcloud, as Talk tells who says something.
pub(super) fn at_nextcloud(users: &[String]) -> Vec<String> {
    users.iter().map(|user| format!("users/{user}")).collect()
}

/// Returns the coding agent's settings in Nextcloud Talk, if it is to work there.
pub(super) fn coder_in_talk(config: &Config) -> Option<TalkCoder> {
    // A file that cannot be used is told where the bot would be served.
    Talk::read(config).ok().flatten()?.coder
}
