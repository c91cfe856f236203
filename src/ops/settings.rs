//! What the settings mean to the layers that `config` must not know: does the model exist, are the patterns of hosts
//! valid, is everything set that a subcommand needs?
//!
//! Called by `cli` for every subcommand, and by `doctor`.

use std::{collections::BTreeSet, fs, io, net::SocketAddr, num::NonZeroU64, path::PathBuf, sync::Arc, time::Duration};

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    bots::{Allowance, People, Places, Policy, chat, exobot},
    chat::{
        matrix::{Begun, Fault, Login, has_session},
        terminal,
    },
    clock::Clock,
    coding_agents::{CodingAgent, CodingAgents, Profiles, Roster},
    config::{
        self, CloudBot, Config, ExobotAccount, JournalSync, Loaded, Matrix, Mistakes, ModelFacts, PlanApproval,
        Provider, SandboxRuntime, TALK_ACCOUNTS, Talk, TalkCoder, Wrong,
    },
    environments::{self, BadSecrets, EnvironmentOptions, Environments},
    gateway::{
        AllowedHosts, BadPattern, GatewayLimits, GatewayPolicy,
        models::{BadUpstream, Chosen, ModelDoor, Protocol, Upstream},
    },
    github::{App, BadAppKey, BadRepository, GitHub, Key, Repositories},
    http::{HttpServer, Names},
    ids::{FIRST_ACCOUNT, digest},
    inference::{self, Inference},
    ledger::{DayLimits, Ledger, Prices, Rules},
    llm::{self, DemoModel, Endpoint, LlmError, Model, ModelSettings, SettingError, model_string, parse_model},
    ops::local_models::LocalModel,
    orchestrator,
    rights::{Answerer, Listed, Roles},
    sandbox::{Runtime, SandboxOptions, Sandboxes, memory},
    store::{Ceilings, Durability, Store},
    strings,
    tasks::TaskRules,
    tools::ToolLimits,
};

/// What the settings are needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// For what needs only valid values: `config`, the demo, administration.
    Anything,
    /// For a chat in the terminal with the configured model.
    Chat,
    /// For the server.
    Run,
}

/// Returns all mistakes in the settings for `purpose`.
pub(crate) fn review(loaded: &Loaded, purpose: Purpose) -> Mistakes {
    let mut mistakes = loaded.mistakes.clone();
    let config = &loaded.config;
    let mut add = |key: &str, wrong| {
        if !mistakes.has(key) {
            mistakes.add(key, loaded.source(key), wrong);
        }
    };
    match endpoint(config) {
        // The coding agent is not served then, so it needs no model.
        Ok(_) if purpose == Purpose::Run && only_chat_bots(config) => {}
        // The registry may change at any time, and tells its mistakes by itself.
        _ if is_local(config) => {}
        Ok(endpoint) if purpose != Purpose::Anything && !has_key(config, &endpoint) => {
            let mend = "Write the key into `.env`, or choose a model of your own with LLM_MODEL (`ollama/…`, \
                        `llama-cpp/…`) or LLM_BASE_URL";
            let unread = loaded.unread.iter().map(|file| format!("{file}; {}", file.mend()));
            let mend = std::iter::once(mend.to_owned()).chain(unread).collect::<Vec<_>>().join(". ");
            add("LLM_API_KEY", Wrong::new(format!("it is not set, and `{}` needs a key", config.llm.model), mend));
        }
        Ok(_) => {}
        Err(error) => add(error.key, Wrong::new(error.problem, "")),
    }
    for (protocol, provider, [key, address, models]) in [
        (Protocol::Gemini, &config.gemini, ["GEMINI_API_KEY", "GEMINI_BASE_URL", "GEMINI_MODELS"]),
        (Protocol::OpenAi, &config.qwen, ["DASHSCOPE_API_KEY", "QWEN_BASE_URL", "QWEN_MODELS"]),
    ] {
        if let Err(error) = upstream(protocol, provider) {
            let name = match error {
                BadUpstream::Key => key,
                BadUpstream::Address => address,
                BadUpstream::Model => models,
            };
            add(name, Wrong::new(error.to_string(), ""));
        }
    }
    for profile in &config.profiles {
        if let Err(error) = Profiles::check(&profile.entries) {
            let key = format!("agents.{}", profile.name);
            mistakes.add(&key, Some(profile.source.clone()), Wrong::new(error.to_string(), ""));
        }
    }
    let mut add = |key: &str, wrong| {
        if !mistakes.has(key) {
            mistakes.add(key, loaded.source(key), wrong);
        }
    };
    for (role, agent, fallback) in [
        (&config.agents.plan, "PLAN_AGENT", "PLAN_FALLBACK"),
        (&config.agents.implement, "IMPLEMENT_AGENT", "IMPLEMENT_FALLBACK"),
        (&config.agents.review, "REVIEW_AGENT", "REVIEW_FALLBACK"),
    ] {
        let profiles = profiles(config);
        for (choice, key) in role.all().zip([agent].into_iter().chain(std::iter::repeat(fallback))) {
            if profiles.of(&choice.agent).is_none() {
                let known = profiles.names().join("`, `");
                add(
                    key,
                    Wrong::new(
                        format!("there is no coding agent `{}`", choice.agent),
                        format!("Write one of `{known}`"),
                    ),
                );
            }
        }
    }
    if let Err(error) = AllowedHosts::parse(&config.sandbox.allowed_hosts) {
        add("SANDBOX_ALLOWED_HOSTS", Wrong::new(error.to_string(), ""));
    }
    if let Some(file) = &config.sandbox.setup_secrets {
        match environments::find(file) {
            // Others than the server's user cannot look for it, and need not.
            Err(BadSecrets::Unreadable(_)) if purpose == Purpose::Anything => {}
            Ok(()) => {}
            Err(error) => add("SETUP_SECRETS", Wrong::new(format!("{}: {error}", file.display()), error.mend())),
        }
    }
    let github = &config.github;
    match github_key(config) {
        // Others than the server's user cannot read the file, and need not.
        Err(GitHubMistake::File(_)) if purpose == Purpose::Anything => {}
        Ok(_) => {}
        Err(GitHubMistake::Half) if github.app.is_none() => {
            add("GITHUB_APP_ID", Wrong::new("it is not set, and GITHUB_APP_KEY is", "Set both or neither"));
        }
        Err(GitHubMistake::Half) => {
            add("GITHUB_APP_KEY", Wrong::new("it is not set, and GITHUB_APP_ID is", "Set both or neither"));
        }
        Err(error) => add("GITHUB_APP_KEY", Wrong::new(error.to_string(), "Download a new one in the App's settings")),
    }
    if let Err(error) = Repositories::parse(&github.repositories) {
        add("GITHUB_REPOS", Wrong::new(error.to_string(), ""));
    }
    if let Err(error) = Names::parse(&config.http.names) {
        add("HTTP_NAMES", Wrong::new(error.to_string(), ""));
    }
    // Where others are served, they start, and the log tells.
    if purpose == Purpose::Run
        && only_talk(config)
        && let Err(refused) = Talk::read(config)
    {
        for mistake in refused.mistakes.iter() {
            let wrong = Wrong::new(mistake.what.clone(), mistake.mend.clone());
            mistakes.add(&mistake.key, mistake.source.clone(), wrong);
        }
    }
    let mut add = |key: &str, wrong| {
        if !mistakes.has(key) {
            mistakes.add(key, loaded.source(key), wrong);
        }
    };
    if config.http.listen.is_none() && !config.http.names.is_empty() {
        let what = "it is not set, and HTTP_NAMES is, so that nobody could ask by these names";
        add("HTTP_LISTEN", Wrong::new(what, "Write a port, such as `8090`, or remove HTTP_NAMES"));
    }
    if config.tasks.secret.is_some() {
        match webhook_secret(config) {
            Err(WebhookMistake::File(_)) if purpose == Purpose::Anything => {}
            Ok(_) => {}
            Err(error) => {
                add("GITHUB_WEBHOOK_SECRET", Wrong::new(error.to_string(), "Write it anew there and at GitHub"));
            }
        }
        if config.http.listen.is_none() {
            let what = "it is not set, and GITHUB_WEBHOOK_SECRET is, so that no event would come";
            let mend = "Write a port, such as `8090`, and let a proxy pass `/webhook/github` on to it";
            add("HTTP_LISTEN", Wrong::new(what, mend));
        }
        if matches!(github_key(config), Ok(None)) {
            let what = "it is not set, and GITHUB_WEBHOOK_SECRET is: nobody could tell who may write to a repository";
            add("GITHUB_APP_ID", Wrong::new(what, "Set it with GITHUB_APP_KEY, or set GITHUB_TOKEN"));
        }
    }
    mistakes
}

/// Why the webhook has no secret though one was meant.
#[derive(Debug, thiserror::Error)]
pub(super) enum WebhookMistake {
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    File(#[from] io::Error),
    /// It holds too little.
    #[error("the file holds fewer than 16 characters, so that the secret could be guessed")]
    Short,
}

/// Returns the webhook's secret, if there is to be a webhook.
fn webhook_secret(config: &Config) -> Result<Option<SecretString>, WebhookMistake> {
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
pub(super) fn tasks(config: &Config) -> Result<Option<TaskRules>, WebhookMistake> {
    let config::Tasks { label, people, rounds, .. } = config.tasks.clone();
    Ok(webhook_secret(config)?.map(|secret| TaskRules { secret, label, people, rounds }))
}

/// Returns what is wrong with an address at which other machines reach the HTTP server.
pub(super) fn heard_elsewhere(address: SocketAddr) -> Option<Wrong> {
    let what =
        format!("at {address} other machines reach HTTP in the clear, which everybody on the way can read and change");
    let mend = "Set HTTP_LISTEN to the port alone, and let a proxy with TLS on this machine pass requests on";
    (!address.ip().to_canonical().is_loopback()).then(|| Wrong::new(what, mend))
}

/// Returns the HTTP server, which listens from now on, if one is set up.
pub(super) async fn http(config: &Config) -> anyhow::Result<Option<HttpServer>> {
    let Some(listen) = config.http.listen else { return Ok(None) };
    if let Some(Wrong { what, mend }) = heard_elsewhere(listen) {
        tracing::warn!(mend, "{what}");
    }
    Ok(Some(HttpServer::bind(listen, Names::parse(&config.http.names)?).await?))
}

/// Why there is no key for GitHub though one was meant.
#[derive(Debug, thiserror::Error)]
pub(super) enum GitHubMistake {
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
fn github_key(config: &Config) -> Result<Option<Key>, GitHubMistake> {
    let config::GitHub { app, app_key, token, .. } = &config.github;
    match (app, app_key) {
        (Some(app), Some(file)) => Ok(Some(Key::App(App::new(app, &fs::read_to_string(file)?)?))),
        (None, None) => Ok(token.clone().map(Key::Token)),
        _ => Err(GitHubMistake::Half),
    }
}

/// Returns the server's way to GitHub. It fails only for settings that [`review`] has refused.
pub(super) fn github(config: &Config, clock: Clock) -> Result<GitHub, GitHubMistake> {
    Ok(GitHub::new(github_key(config)?, Repositories::parse(&config.github.repositories)?, clock))
}

/// Returns whether the orchestrator's model is one of the registry of inference servers.
pub(crate) fn is_local(config: &Config) -> bool {
    is_of_registry(&config.llm.model)
}

/// Returns the orchestrator's model: at its address, or of the registry.
pub(crate) fn model(config: &Config, inference: &Inference) -> Result<Model, LlmError> {
    let settings = model_settings(config);
    if is_local(config) { Ok(inference.model(settings)) } else { Model::new(settings) }
}

/// Returns whether a model can be asked: a key is set, or none is needed.
pub(crate) fn has_model(config: &Config) -> bool {
    if is_local(config) {
        return true;
    }
    endpoint(config).is_ok_and(|endpoint| has_key(config, &endpoint))
}

fn endpoint(config: &Config) -> Result<Endpoint, SettingError> {
    parse_model(&config.llm.model, config.llm.base_url.as_ref().map(Url::as_str))
}

/// Returns whether the endpoint has a key or may need none. If an operator's own server needs one after all, its
/// answer says so.
fn has_key(config: &Config, endpoint: &Endpoint) -> bool {
    config.llm.api_key.is_some() || config.llm.base_url.is_some() || endpoint.key_variable().is_none()
}

/// Returns the login of the account of `MATRIX_USER`, if that is set.
pub fn matrix_login(config: &Config) -> Option<Login> {
    config.matrix.as_ref().map(|matrix| login(config, FIRST_ACCOUNT, matrix))
}

/// Returns an account's login.
pub(super) fn login(config: &Config, name: &str, matrix: &Matrix) -> Login {
    Login {
        name: name.to_owned(),
        homeserver: matrix.homeserver.to_string(),
        user: matrix.user.clone(),
        password: matrix.password.clone(),
        refused: matrix.password_refused(name).map(|wrong| Fault::new(wrong.what, wrong.mend)),
        state_dir: config.paths.state_dir.clone(),
        unsigned_devices: matrix.unsigned_devices,
        begun: None,
        watchdog: None,
    }
}

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
pub(super) fn cloud_bot(
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
pub(super) fn exobot(config: &Config, account: &ExobotAccount) -> chat::Settings {
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
pub(super) fn exobot_model(name: &str, inference: &Inference) -> Model {
    // Each mode has a time of its own, the longest of which is this.
    let limits = limits_of_chat(Duration::from_mins(3));
    inference.model(ModelSettings { limits, ..ModelSettings::new(name.to_owned(), SecretString::from("")) })
}

/// Returns a cloud bot's model: at its address, or of the registry.
pub(super) fn cloud_model(bot: &CloudBot, inference: &Inference) -> Result<Model, LlmError> {
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
pub(super) fn talk(talk: &Talk) -> Result<(chat::Settings, chat::Fixed), LlmError> {
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
pub(super) fn talk_model(talk: &Talk) -> ModelSettings {
    let url = talk.base_url.as_str();
    let key = talk.api_key.clone().unwrap_or_else(|| SecretString::from(""));
    ModelSettings {
        base_url: Some(url.to_owned()),
        limits: limits_of_chat(talk.timeout),
        ..ModelSettings::new(model_string(&talk.model, url), key)
    }
}

/// Returns whom the coding agent hears in Nextcloud Talk.
pub(super) fn talk_coder(coder: &TalkCoder) -> Policy {
    Policy::new(People::Listed(at_nextcloud(&coder.users)), Places::Anywhere)
}

/// Returns the ids of users of Nextcloud, as Talk tells who says something.
fn at_nextcloud(users: &[String]) -> Vec<String> {
    users.iter().map(|user| format!("users/{user}")).collect()
}

/// Returns the coding agent's settings in Nextcloud Talk, if it is to work there.
fn coder_in_talk(config: &Config) -> Option<TalkCoder> {
    // A file that cannot be used is told where the bot would be served.
    Talk::read(config).ok().flatten()?.coder
}

/// Returns whether the server serves bots that only chat, those of the cloud or of Nextcloud Talk or exobot: neither an account nor
/// a model of the coding agent is set, nor is it to work in Nextcloud Talk.
pub(crate) fn only_chat_bots(config: &Config) -> bool {
    (config.cloud_bots.enabled || config.exobot.enabled || Talk::is_set_up(config))
        && config.all_accounts().next().is_none()
        && !has_model(config)
        && coder_in_talk(config).is_none()
}

/// Returns whether the server serves the Nextcloud Talk bot and nobody else.
pub(super) fn only_talk(config: &Config) -> bool {
    only_chat_bots(config) && !config.cloud_bots.enabled && !config.exobot.enabled
}

/// Returns what a server needs besides so that somebody reaches it in a room: an account, and its password or a session. A server for
/// the terminal alone runs without.
pub(crate) fn review_rooms(loaded: &Loaded) -> Mistakes {
    let (config, mut mistakes) = (&loaded.config, Mistakes::default());
    if only_chat_bots(config) {
        return mistakes;
    }
    if config.all_accounts().next().is_none() && coder_in_talk(config).is_none() {
        let mend = "Run `scripts/setup-synapse.sh`, or name the bot's account";
        mistakes.add("MATRIX_USER", None, Wrong::new("it is not set, so the server would be in no room", mend));
    }
    for (name, matrix, _) in config.all_accounts() {
        if matrix.password.is_none() && !has_session(&config.paths.state_dir, name) {
            let key =
                if name == FIRST_ACCOUNT { "MATRIX_PASSWORD".to_owned() } else { format!("accounts.{name}.password") };
            let what = format!("it is not set, and {} has no stored session to go on with", matrix.user);
            mistakes.add(&key, None, Wrong::new(what, format!("Write the password of {}", matrix.user)));
        }
    }
    mistakes
}

/// Returns whom the coding bot hears on an account, and in which rooms.
pub(super) fn policy(people: &config::People) -> Policy {
    let rooms = people.rooms.clone();
    let places = if rooms.is_empty() { Places::Anywhere } else { Places::Listed(rooms) };
    Policy::new(People::Listed(people.allowed.clone()), places)
}

/// Returns the settings of the model's client.
pub fn model_settings(config: &Config) -> ModelSettings {
    let key = config.llm.api_key.clone().unwrap_or_else(|| SecretString::from(""));
    let (idle, usual) = (config.llm.idle, llm::ModelLimits::default());
    ModelSettings {
        limits: llm::ModelLimits {
            idle,
            first_token: usual.first_token.max(idle),
            whole: usual.whole.max(idle),
            ..usual
        },
        base_url: config.llm.base_url.as_ref().map(ToString::to_string),
        vision: config.llm.facts.vision,
        context_window: config.llm.facts.context_window.map(NonZeroU64::get),
        ..ModelSettings::new(config.llm.model.clone(), key)
    }
}

/// Returns the gateway's policy. Fails only for settings that [`review`] has refused.
pub(super) fn gateway(config: &Config) -> Result<GatewayPolicy, BadPattern> {
    let hosts = AllowedHosts::parse(&config.sandbox.allowed_hosts)?;
    let limits = GatewayLimits { ask: config.sandbox.host_ask, ..GatewayLimits::default() };
    Ok(GatewayPolicy { allowed_hosts: hosts, limits })
}

/// Returns the coding agents' profiles.
fn profiles(config: &Config) -> Profiles {
    Profiles::new(config.profiles.iter().map(|profile| (&*profile.name, &profile.entries)))
}

/// Returns the coding agents' way to their models. It fails only for settings that [`review`] has refused.
pub(super) fn models(config: &Config, ledger: Ledger, inference: &Inference) -> Result<ModelDoor, BadUpstream> {
    let mut upstreams = Vec::new();
    let endpoint = endpoint(config).ok().filter(|endpoint| has_key(config, endpoint));
    let own = endpoint.as_ref().map(Endpoint::model);
    for (protocol, provider) in [(Protocol::Gemini, &config.gemini), (Protocol::OpenAi, &config.qwen)] {
        if provider.api_key.is_some() {
            let models = provider.models.iter().cloned().chain(chosen(config, protocol, own)).collect();
            upstreams.push(upstream(protocol, &Provider { models, ..provider.clone() })?);
        }
    }
    // The orchestrator's own model is for agents without a key, and for those whose own model fails.
    if let Some(endpoint) = &endpoint {
        let base = Url::parse(endpoint.base_url()).map_err(|_| BadUpstream::Address)?;
        for protocol in [Protocol::OpenAi, Protocol::Responses, Protocol::Messages] {
            let alone = protocol != Protocol::OpenAi || config.qwen.api_key.is_none();
            let chosen = chosen(config, protocol, own).into_iter().filter(|_| alone);
            let models = [endpoint.model().to_owned()].into_iter().chain(chosen).collect();
            upstreams.push(Upstream::new(protocol, &base, config.llm.api_key.clone(), models)?);
        }
    }
    let chosen = [Protocol::OpenAi, Protocol::Responses, Protocol::Messages].into_iter().flat_map(|protocol| {
        let own = is_local(config).then(|| config.llm.model.clone());
        let names = own.into_iter().chain(of_roles(config, protocol).filter(|model| is_of_registry(model)));
        names.map(move |name| Chosen::new(protocol, name.clone(), Arc::new(LocalModel::new(inference.clone(), name))))
    });
    Ok(ModelDoor::new(upstreams, config.sandbox.web_search, Some(ledger)).with_chosen(chosen.collect()))
}

/// Returns the ledger of what models use.
pub(super) fn ledger(config: &Config, store: Store) -> Ledger {
    let limits = DayLimits { room: config.limits.room_tokens, person: config.limits.user_tokens };
    Ledger::new(store, Rules { limits, prices: prices(config), admins: config.people.admins.clone() })
}

/// Returns who is who on each account.
pub(super) fn roles(config: &Config) -> Roles {
    let listed = |people: &config::People| Listed { users: people.allowed.clone(), admins: people.admins.clone() };
    let others = config.accounts.iter().map(|account| (account.name.clone(), listed(&account.people)));
    let in_talk = coder_in_talk(config).map(|coder| {
        let listed = Listed { users: at_nextcloud(&coder.users), admins: vec![] };
        (TALK_ACCOUNTS[1].to_owned(), listed)
    });
    let first = (FIRST_ACCOUNT.to_owned(), listed(&config.people));
    let accounts = [first].into_iter().chain(others).chain(in_talk).collect();
    Roles { accounts, local: vec![terminal::ROOMS.prefix] }
}

/// Returns what models cost. The orchestrator's model has two names: the operator's, and the one by which its provider and
/// the coding agents know it.
fn prices(config: &Config) -> Prices {
    let mut prices = config.prices.clone();
    if let Ok(endpoint) = endpoint(config) {
        let names = [config.llm.model.clone(), endpoint.model().to_owned()];
        if let Some(price) = names.iter().find_map(|name| prices.get(name).copied()) {
            for name in names {
                prices.entry(name).or_insert(price);
            }
        }
    }
    Prices::new(prices)
}

/// Returns the models of the roles whose agents use this API, without the orchestrator's own and those of the registry.
fn chosen(config: &Config, protocol: Protocol, own: Option<&str>) -> Vec<String> {
    of_roles(config, protocol).filter(|model| own != Some(model) && !is_of_registry(model)).collect()
}

/// Returns the models of the roles whose agents use this API.
fn of_roles(config: &Config, protocol: Protocol) -> impl Iterator<Item = String> {
    let profiles = profiles(config);
    let config::Agents { plan, implement, review } = &config.agents;
    let choices = [plan, implement, review].into_iter().flat_map(config::AgentRole::all);
    choices
        .filter(move |choice| profiles.of(&choice.agent).is_some_and(|agent| agent.protocol == protocol))
        .filter_map(|choice| choice.model.clone())
}

fn is_of_registry(model: &str) -> bool {
    model.starts_with(inference::PREFIX)
}

/// Returns the coding agents with their roles.
pub(super) fn agents(config: &Config, door: ModelDoor) -> CodingAgents {
    let roster = Roster::new(&config.agents, &profiles(config), |protocol| door.models(protocol));
    CodingAgents::new(roster, door)
}

/// Returns the coding agents that have a role and are not among the two in the image, each once.
pub(crate) fn other_agents(config: &Config) -> Vec<Arc<CodingAgent>> {
    let profiles = profiles(config);
    let config::Agents { plan, implement, review } = &config.agents;
    let names: BTreeSet<_> =
        [plan, implement, review].into_iter().flat_map(config::AgentRole::all).map(|choice| &*choice.agent).collect();
    let others = names.into_iter().filter(|name| !matches!(*name, "gemini" | "qwen"));
    others.filter_map(|name| profiles.of(name).cloned()).collect()
}

fn upstream(protocol: Protocol, provider: &Provider) -> Result<Upstream, BadUpstream> {
    Upstream::new(protocol, &provider.base_url, provider.api_key.clone(), provider.models.clone())
}

/// Returns how much a commit waits for the disk.
pub(super) fn durability(config: &Config) -> Durability {
    match config.paths.journal_sync {
        JournalSync::Normal => Durability::Normal,
        JournalSync::Full => Durability::Full,
    }
}

/// Returns the options of the sandboxes.
pub(super) fn sandboxes(config: &Config, instance: &str, clock: Clock) -> SandboxOptions {
    let sandbox = config.sandbox.clone();
    SandboxOptions {
        state_dir: config.paths.state_dir.clone(),
        ipc_dir: config.paths.ipc_base_dir.clone(),
        instance: instance.to_owned(),
        image: sandbox.image,
        podman_socket: sandbox.podman_socket,
        podman_path: sandbox.podman_path,
        runtime: runtime(config),
        memory: sandbox.memory,
        cpus: sandbox.cpus,
        pids: sandbox.pids,
        disk: sandbox.disk,
        idle: sandbox.idle,
        memory_total: memory_total(config),
        max_running: sandbox.max_running,
        host_disk_reserve: config.limits.host_disk_reserve,
        grace: config.limits.room_grace,
        clock,
        ca_bundle: sandbox.ca_bundle,
    }
}

/// Returns what runs the sandboxes' containers; `None`: what Podman's own settings say.
pub(super) fn runtime(config: &Config) -> Option<Runtime> {
    config.sandbox.runtime.map(|runtime| match runtime {
        SandboxRuntime::Runc => Runtime::Runc,
        SandboxRuntime::Crun => Runtime::Crun,
        SandboxRuntime::Runsc => Runtime::Runsc,
    })
}

/// Opens the environments of repositories, unless they are given no disk.
pub(super) fn environments(config: &Config, sandboxes: Sandboxes) -> io::Result<Option<Environments>> {
    let (bound, secrets) = (config.sandbox.environments, config.sandbox.setup_secrets.clone());
    let options = EnvironmentOptions { folder: environments_folder(config), bound, secrets };
    (bound > 0).then(|| Environments::open(sandboxes, options)).transpose()
}

/// Returns where environments of repositories are kept.
pub(super) fn environments_folder(config: &Config) -> PathBuf {
    config.paths.state_dir.join("environments")
}

/// Returns the settings with the built-in demo model in place of the configured one, also for coding agents.
pub(crate) fn with_demo_model(config: &Config, demo: &DemoModel) -> anyhow::Result<Config> {
    let mut config = config.clone();
    config.llm.model = format!("openai/{}", DemoModel::MODEL);
    config.llm.api_key = Some(SecretString::from("demo"));
    config.llm.base_url = Some(demo.base_url().parse()?);
    config.llm.facts = ModelFacts::default();
    (config.gemini.api_key, config.qwen.api_key) = (None, None);
    Ok(config)
}

/// Returns how much memory all sandboxes may use together, in bytes; no bound if the host's memory is unknown.
pub(super) fn memory_total(config: &Config) -> u64 {
    config.sandbox.memory_total.of(memory::of_host().unwrap_or(u64::MAX))
}

/// Returns the limits of the coding bot.
pub(super) fn allowance(config: &Config) -> Allowance {
    Allowance { turn: limits(config), at_once: config.limits.concurrent_turns }
}

/// Returns the limits of a turn.
fn limits(config: &Config) -> orchestrator::TurnLimits {
    orchestrator::TurnLimits {
        rounds: config.limits.agent_turns,
        time: config.limits.turn_timeout,
        tools: ToolLimits {
            command: config.limits.command_timeout,
            longest: config.limits.command_longest,
            coding: config.limits.coding_timeout,
            coding_idle: config.limits.coding_idle,
            approval: match config.limits.plan_approval {
                PlanApproval::Off => None,
                PlanApproval::Asker => Some(Answerer::Asker),
                PlanApproval::Second => Some(Answerer::Another),
            },
        },
        ..orchestrator::TurnLimits::default()
    }
}
