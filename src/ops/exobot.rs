//! Serves exobot: an account of its own, whose model is a child of this process.

use std::{fmt, net::IpAddr, path::PathBuf, sync::Arc, thread, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use super::{engaging::Speaker, settings};
use crate::{
    bots::{
        chat::{ChatBot, Means, Source},
        exobot::{self, Enabled, Sleeper},
    },
    chat::matrix::{self, Line, Serving},
    config::{CloudBots, Config, Exobot, ExobotAccount, Wrong, make_private},
    http::{HttpServer, Names},
    hub::{Account, AccountHub, Keeper, Port},
    inference::{
        Inference,
        engine::{Binary, Engine, Options, Standing},
    },
    store::RoomCounts,
    text,
};

/// How long a start waits for its first try.
const FIRST_TRY: Duration = Duration::from_secs(20);
/// Deliveries, and files to fetch, that may be queued for its account.
const QUEUE: usize = 256;

/// Why exobot cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unserved {
    /// Nothing serves its model.
    #[error("neither LLAMA_SERVER_BIN nor LLAMA_SERVER_IMAGE is set: exobot needs a llama-server of yours")]
    NoServer,
    /// Both do.
    #[error("LLAMA_SERVER_BIN and LLAMA_SERVER_IMAGE are both set: keep one of them")]
    TwoServers,
    /// It has none.
    #[error("MODEL_PATH is not set: exobot needs a GGUF file of yours")]
    NoModel,
    /// It is to ask a model of the registry and to serve one of its own.
    #[error(
        "EXOBOT_MODEL is set beside LLAMA_SERVER_BIN, LLAMA_SERVER_IMAGE or MODEL_PATH: keep the one or the others"
    )]
    TwoModels,
    /// Its account is another bot's.
    #[error("{0} is the account of the cloud bot `{1}`: give exobot an account of its own")]
    Taken(String, String),
}

/// exobot, as far as it is served.
pub(super) enum ServedExobot {
    /// It is.
    Running(Running),
    /// It is not; with why.
    Refused(String),
}

/// What is served.
pub(super) struct Running {
    user: String,
    hub: AccountHub,
    serving: Serving,
    engine: Engine,
}

/// How exobot stands, as operators see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ShownExobot {
    /// Its Matrix account; none if it is not served.
    pub user: Option<String>,
    /// Whether it has a session.
    pub served: bool,
    /// What its account does, or why it does nothing.
    pub account: String,
    /// What its model does; none if it is not served.
    pub model: Option<String>,
}

impl fmt::Display for ShownExobot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(user) = &self.user else { return write!(f, "exobot is not served: {}", self.account) };
        write!(f, "{user}: {}", self.account)?;
        self.model.iter().try_for_each(|model| write!(f, "\n{model}"))
    }
}

impl ServedExobot {
    /// Begins its account and its engine. What speaks against that is told in the log: the others are served.
    pub(super) async fn start(
        config: &Config,
        means: Means,
        inference: &Inference,
        keeper: Keeper,
        tasks: &TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        match start(config, means, inference, keeper, tasks, cancel).await {
            Ok(running) => Self::Running(running),
            Err(error) => {
                tracing::error!("exobot is not served: {error:#}");
                Self::Refused(format!("{error:#}"))
            }
        }
    }

    /// Waits until its account was tried once, or takes long.
    pub(super) async fn tried(&self) {
        if let Self::Running(Running { serving, .. }) = self
            && time::timeout(FIRST_TRY, serving.all_tried()).await.is_err()
        {
            tracing::warn!("exobot's account could not be tried in time; it is tried further");
        }
    }

    /// Returns how it stands.
    pub(super) async fn shown(&self) -> ShownExobot {
        let counts = match self {
            Self::Running(running) => running.hub.room_counts().await.unwrap_or_default(),
            Self::Refused(_) => RoomCounts::default(),
        };
        self.shown_with(&counts)
    }

    /// Returns how it stands, for somebody who knows in how many rooms it is.
    pub(super) fn shown_with(&self, counts: &RoomCounts) -> ShownExobot {
        let Running { user, hub, serving, engine } = match self {
            Self::Running(running) => running,
            Self::Refused(why) => {
                return ShownExobot { user: None, served: false, account: why.clone(), model: None };
            }
        };
        let rooms = counts.of(hub.account());
        let (served, account) = match serving.standing() {
            matrix::Standing::Served => (true, format!("serves {rooms} rooms")),
            matrix::Standing::Beginning => (false, "begins".to_owned()),
            matrix::Standing::Away(error) => (false, error.to_string()),
        };
        let takes = |expected: Option<Duration>| {
            expected
                .map_or_else(String::new, |expected| format!(" (that takes about {})", text::human_duration(expected)))
        };
        let does = match engine.standing() {
            Standing::Asleep(expected) => format!("sleeps until it is asked; then it wakes{}", takes(expected)),
            Standing::Waking(expected) => format!("is waking up{}", takes(expected)),
            Standing::Up => "is awake".to_owned(),
            Standing::Failed(failure) => format!("has failed: {failure}"),
        };
        let model = Some(format!("Its model, {}, {does}", engine.label()));
        ShownExobot { user: Some(user.clone()), served, account, model }
    }
}

async fn start(
    config: &Config,
    means: Means,
    inference: &Inference,
    keeper: Keeper,
    tasks: &TaskTracker,
    cancel: CancellationToken,
) -> anyhow::Result<Running> {
    let account = ExobotAccount::read(config)?;
    if config.cloud_bots.enabled
        && let Some(bot) = CloudBots::read(config).bots.into_iter().find(|bot| bot.user == account.user)
    {
        return Err(Unserved::Taken(bot.user, bot.name).into());
    }
    let engine = engine(config, means.store.instance(), inference, tasks, cancel.clone())?;
    if config.exobot.ui {
        serve_page(&config.exobot, engine.clone(), tasks, cancel.clone()).await;
    }
    let chat = settings::exobot(config, &account);
    let policy = chat.policy.clone();
    let source: Arc<dyn Source> = Arc::new(Sleeper::new(engine.clone()));
    let bot = ChatBot::new(chat, Arc::clone(&source), means.clone());
    let (port, inbox) = Port::new(matrix::ROOMS, QUEUE);
    let (login, serving) = (settings::exobot_login(config, &account), Serving::of_one_spared());
    let name = ExobotAccount::NAME.to_owned();
    if config.exobot.cross {
        means.neighbours.moves_in_to_talk(name.clone(), login.called());
    } else {
        means.neighbours.moves_in(name.clone(), login.called());
    }
    let served = Account { name, bots: vec![Arc::new(bot)], ports: vec![port], rights: None };
    let hub = AccountHub::start(served, means.store, keeper, tasks.clone(), cancel.clone()).await?;
    let Exobot { interject, seed, revive, cross, .. } = config.exobot;
    let enabled = Enabled { interject, seed, revive, cross };
    if enabled.any() {
        let speaking = Speaker::new(hub.clone(), source, policy, enabled).run();
        tasks.spawn(cancel.clone().run_until_cancelled_owned(speaking.instrument(hub.span())));
    }
    let running = matrix::run(login, hub.clone(), inbox, serving.seat(), Line::default(), tasks.clone(), cancel);
    // Boxed because the SDK's futures are large.
    tasks.spawn(Box::pin(running).instrument(hub.span()));
    Ok(Running { user: account.user, hub, serving, engine })
}

/// Returns what serves its model: a child of its own, or the registry.
fn engine(
    config: &Config,
    instance: &str,
    inference: &Inference,
    tasks: &TaskTracker,
    cancel: CancellationToken,
) -> anyhow::Result<Engine> {
    if let Some(name) = registry_model(config)? {
        let label = name.trim_start_matches("localbot/");
        return Ok(Engine::elsewhere(settings::exobot_model(name, inference), label, tasks, cancel));
    }
    let options = options(config, instance)?;
    make_private(&options.folder)?;
    Ok(Engine::start(options, tasks, cancel)?)
}

/// Serves the page to chat with its model, if it may be served. The bot is served without it, too.
async fn serve_page(settings: &Exobot, engine: Engine, tasks: &TaskTracker, cancel: CancellationToken) {
    if let Some(Wrong { what, mend }) = settings.page_refused() {
        return tracing::error!(mend, "exobot's page is not served: {what}");
    }
    let own = settings.ui_listen.ip();
    let own = (!own.is_unspecified()).then(|| match own {
        IpAddr::V4(own) => own.to_string(),
        IpAddr::V6(own) => format!("[{own}]"),
    });
    let names = match Names::parse(settings.ui_public.iter().chain(&own)) {
        Ok(names) => names,
        Err(error) => return tracing::error!(%error, "exobot's page is not served: EXOBOT_UI_HOST_PUBLIC is no name"),
    };
    match HttpServer::bind(settings.ui_listen, names).await {
        Ok(mut server) => {
            server.add(exobot::pages(engine));
            tracing::info!(address = %server.address(), "exobot's page is served");
            tasks.spawn(server.serve(cancel));
        }
        Err(error) => {
            let address = settings.ui_listen;
            tracing::error!(%address, %error, "exobot's page is not served: set EXOBOT_UI_LISTEN to a port that is free");
        }
    }
}

/// Returns where its engine keeps what it needs.
pub(super) fn folder(config: &Config) -> PathBuf {
    config.paths.state_dir.join("exobot")
}

/// Returns the model of the registry that it asks, if it is to ask one.
///
/// # Errors
///
/// It is to serve one of its own, too.
pub(super) fn registry_model(config: &Config) -> Result<Option<&str>, Unserved> {
    let Exobot { binary, image, model, registry_model, .. } = &config.exobot;
    match registry_model {
        Some(_) if binary.is_some() || image.is_some() || model.is_some() => Err(Unserved::TwoModels),
        name => Ok(name.as_deref()),
    }
}

/// Returns what its engine is made of.
///
/// # Errors
///
/// A setting without which there is none is missing.
pub(super) fn options(config: &Config, instance: &str) -> Result<Options, Unserved> {
    let Exobot { binary, image, model, idle, keep_warm, pressure, .. } = config.exobot.clone();
    let binary = match (binary, image) {
        (Some(path), None) => Binary::Native(path),
        (None, Some(image)) => {
            let podman = config.sandbox.podman_path.clone();
            Binary::Image { image, podman, name: format!("matrix-agent-exobot-{instance}") }
        }
        (None, None) => return Err(Unserved::NoServer),
        (Some(_), Some(_)) => return Err(Unserved::TwoServers),
    };
    // The answer of another bot should not wait for this one's: a processor is left, where there are several.
    let threads = thread::available_parallelism().map_or(1, usize::from).saturating_sub(1).max(1);
    let model = model.ok_or(Unserved::NoModel)?;
    Ok(Options { binary, model, folder: folder(config), idle: (!keep_warm).then_some(idle), threads, pressure })
}
