//! How the parts are wired together: what `run` serves, and what other subcommands host if no server runs.

mod relays;
mod serve;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{control::Control, lines::Lines, lock::Lock, settings, sockets::administration_socket, talk};
use crate::{
    audit::Audit,
    bots::{Administration, Bot, Coder, Guests, LocalBot, Means, Neighbours, chat},
    chat::matrix::Login,
    clock::Clock,
    config::Config,
    environments::Environments,
    gateway::{Gateway, Network, models::ModelDoor},
    github::GitHub,
    http::HttpServer,
    hub::Retention,
    ids::RoomKey,
    inference::Inference,
    ledger::Ledger,
    links::{DASHBOARD, Links},
    llm::Model,
    orchestrator::Orchestrator,
    pictures::Gallery,
    rights::Rights,
    sandbox::Sandboxes,
    store::{self, Store},
    tasks::TaskRules,
    tools::{self, LargeFiles},
    updates::Updates,
};

pub use serve::Server;

/// A state directory with its database and sandboxes, owned by this process; without chat protocols.
pub struct House {
    store: Store,
    /// `None` if no bot works in sandboxes.
    sandboxes: Option<Sandboxes>,
    /// What repositories need to be worked on; `None`: nothing is set up for them.
    environments: Option<Environments>,
    /// The tokens of all who ask models.
    ledger: Ledger,
    /// Who may allow what.
    rights: Rights,
    /// The coding agents' way to their models.
    models: ModelDoor,
    github: GitHub,
    /// The operator's own inference servers.
    inference: Inference,
    /// What carries the `/lb` commands out.
    local: LocalBot,
    /// The bots of all accounts, by the names by which they are called.
    neighbours: Neighbours,
    /// The way of bots to whoever runs the server.
    administration: Administration,
    gallery: Gallery,
    audit: Audit,
    /// The room that is told how far the audit log has come.
    audit_room: Option<RoomKey>,
    retention: Retention,
    /// Makes links to the dashboard, if there is an HTTP server.
    links: Option<Links>,
    /// The HTTP server, if one is set up, until it serves.
    http: Option<HttpServer>,
    /// The settings by which cloud bots are served, if they are.
    cloud_bots: Option<Box<Config>>,
    /// The Nextcloud Talk bot, if there is one, until it is served.
    talk: Option<talk::Listening>,
    /// The settings by which exobot is served, if it is.
    exobot: Option<Box<Config>>,
    /// By which rules issues become tasks, if they do.
    task_rules: Option<TaskRules>,
    tasks: TaskTracker,
    /// Who is served by the control socket.
    clients: TaskTracker,
    cancel: CancellationToken,
    state_dir: PathBuf,
    _lock: Lock,
}

/// An account that is to be served.
pub struct Served {
    /// Its name in the store, which must not change.
    pub name: String,
    /// Its bots, in the order in which they are asked.
    pub bots: Vec<Arc<dyn Bot>>,
    /// Its Matrix login, if it has one.
    pub login: Option<Login>,
    /// Whether terminals reach it. They reach one account only, the first with this set.
    pub terminals: bool,
}

impl House {
    /// Takes the lock, opens the database and takes over the sandboxes.
    ///
    /// # Errors
    ///
    /// Another process owns the state directory, a path cannot be used, or the database cannot be opened. Podman may
    /// be away.
    pub async fn open(config: &Config, clock: Clock) -> anyhow::Result<Self> {
        Self::open_in(config, clock, Network::system(), |github| github).await
    }

    /// The same in another world: on a `network` of its own, and with the way to GitHub that `github` makes of the configured
    /// one. For tests of the whole, which have both on this machine.
    pub async fn open_in(
        config: &Config,
        clock: Clock,
        network: Network,
        github: impl FnOnce(GitHub) -> GitHub,
    ) -> anyhow::Result<Self> {
        let mut house = Self::without_sandboxes(config, clock)?;
        house.rights.load().await?;
        house.models = settings::models(config, house.ledger.clone(), &house.inference)?;
        for (address, call, state) in house.store.calls_under_way().await? {
            house.models.expect(&address, &tools::key_in_use(&call, state));
        }
        let gateway = Gateway::new(settings::gateway(config)?, network, house.cancel.child_token());
        house.github = github(settings::github(config, house.store.clock().clone())?);
        let gateway = gateway.with_models(house.models.clone()).with_github(house.github.clone());
        let gateway = gateway.with_rights(house.rights.clone());
        let options = settings::sandboxes(config, house.store.instance(), house.store.clock().clone());
        config.paths.make_ipc()?;
        let sandboxes = Sandboxes::open(options, gateway, &house.cancel).await?;
        house.environments = settings::environments(config, sandboxes.clone())?;
        house.sandboxes = Some(sandboxes);
        Ok(house)
    }

    /// The same for bots that work in no sandbox: Podman is not needed, and the coding bot cannot be among them.
    pub fn without_sandboxes(config: &Config, clock: Clock) -> anyhow::Result<Self> {
        let state_dir = config.paths.state_dir.clone();
        config.paths.make_state()?;
        let lock = Lock::take(&state_dir)?;
        refuse_copy(&config.paths.database())?;
        let store = Store::open(&config.paths.database(), settings::durability(config), clock)?;
        let audit = Audit::open(&config.paths.audit(), store.clock().clone())?;
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let retention = Retention { files: config.limits.room_grace, rows: config.limits.retention };
        let gallery = Gallery::new(config.paths.pictures());
        let inference = Inference::new(config.paths.localbot_dir.clone(), tasks.clone(), cancel.child_token())?;
        Ok(Self {
            local: LocalBot::new(inference.clone(), store.clone()),
            inference,
            ledger: settings::ledger(config, store.clone()),
            rights: Rights::new(store.clone(), settings::roles(config)).with_audit(audit.clone()),
            neighbours: Neighbours::default(),
            administration: Administration::default(),
            store,
            sandboxes: None,
            environments: None,
            models: ModelDoor::default(),
            github: GitHub::default(),
            gallery,
            audit,
            audit_room: config.audit_room.as_deref().map(RoomKey::from),
            retention,
            links: None,
            http: None,
            cloud_bots: None,
            talk: None,
            exobot: None,
            task_rules: None,
            tasks,
            clients: TaskTracker::new(),
            cancel,
            state_dir,
            _lock: lock,
        })
    }

    /// Returns the coding bot of this house; `None` without sandboxes.
    pub fn coder(&self, config: &Config, model: Model) -> Option<Coder> {
        let orchestrator = Orchestrator {
            store: self.store.clone(),
            ledger: self.ledger.clone(),
            rights: self.rights.clone(),
            sandboxes: self.sandboxes.clone()?,
            agents: settings::agents(config, self.models.clone()),
            environments: self.environments.clone(),
            github: self.github.clone(),
            updates: Updates::of(&self.state_dir).set_up(),
            model,
            gallery: self.gallery.clone(),
            large: LargeFiles::default(),
            limits: settings::turn_limits(config),
        };
        let means = Means {
            orchestrator,
            at_once: config.limits.concurrent_turns,
            local: self.local.clone(),
            neighbours: self.neighbours.clone(),
            administration: self.administration.clone(),
            links: self.links.clone(),
        };
        Some(Coder::new(means, settings::policy(&config.people)))
    }

    /// Returns the bot that takes `/lbn` from guests; it stands behind the coding bot on its account.
    pub fn guests(&self) -> Guests {
        Guests::new(self.local.clone())
    }

    /// Listens for HTTP, if the settings say so; it is served with the accounts, and GitHub's webhook there if that is set up.
    ///
    /// # Errors
    ///
    /// The address cannot be listened at, or the webhook's secret cannot be read.
    pub async fn listen_http(&mut self, config: &Config) -> anyhow::Result<()> {
        self.watch_http(config).await?;
        self.task_rules = settings::tasks(config)?;
        Ok(())
    }

    /// Listens for HTTP for those who watch the server, if the settings say so.
    async fn watch_http(&mut self, config: &Config) -> anyhow::Result<()> {
        self.http = settings::http(config).await?;
        if let Some(http) = &self.http {
            let (secrets, time) = (config.paths.secrets(), self.store.lasting().clone());
            crate::config::make_private(&secrets)?;
            let links = Links::open(&secrets, time, http.address(), &http.opening(DASHBOARD));
            self.links = Some(links.with_context(|| format!("The dashboard has no key in {}.", secrets.display()))?);
        }
        Ok(())
    }

    /// Serves the cloud bots besides, if the settings say so.
    pub fn serve_cloud_bots(&mut self, config: &Config) {
        self.cloud_bots = config.cloud_bots.enabled.then(|| Box::new(config.clone()));
    }

    /// Listens for Nextcloud, if its file says so; the bot is served with the accounts, and `coder` in its conversations there. A file
    /// that cannot be used is told in the log, and the others are served.
    ///
    /// # Errors
    ///
    /// The address cannot be listened at.
    pub async fn listen_for_talk(&mut self, config: &Config, coder: Option<&Coder>) -> anyhow::Result<()> {
        let shared = self.http.as_ref().map(HttpServer::address);
        self.talk = talk::Listening::begin(config, coder, shared).await?;
        Ok(())
    }

    /// Serves exobot besides, if the settings say so.
    pub fn serve_exobot(&mut self, config: &Config) {
        self.exobot = config.exobot.enabled.then(|| Box::new(config.clone()));
    }

    /// Returns the store, for bots with data of their own.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the sandboxes; `None` if no bot works in any.
    pub(super) fn sandboxes(&self) -> Option<&Sandboxes> {
        self.sandboxes.as_ref()
    }

    /// Returns the operator's own inference servers.
    pub(super) fn inference(&self) -> &Inference {
        &self.inference
    }

    /// Returns what chat bots of this house work with.
    pub fn means_of_chat(&self) -> chat::Means {
        chat::Means { store: self.store.clone(), gallery: self.gallery.clone(), neighbours: self.neighbours.clone() }
    }

    /// Serves operators only, on a socket of their own.
    pub fn administer(&self) -> anyhow::Result<()> {
        if let Some(mut events) = self.sandboxes.as_ref().and_then(Sandboxes::take_events) {
            // Nobody watches a room here, but a canary arrives only while events are taken.
            let ignore = async move { while events.recv().await.is_some() {} };
            self.tasks.spawn(self.cancel.clone().run_until_cancelled_owned(ignore));
        }
        let control = Control {
            sandboxes: self.sandboxes.clone(),
            chat: None,
            cloud_bots: None,
            exobot: None,
            admin: None,
            lines: Lines::default(),
            links: None,
            audit: self.audit.clone(),
        };
        self.listen(control, &administration_socket(&self.state_dir))
    }

    /// Returns whether somebody is served by the control socket.
    pub fn is_asked(&self) -> bool {
        !self.clients.is_empty()
    }

    /// Waits until nobody is.
    pub async fn unasked(&self) {
        self.clients.close();
        self.clients.wait().await;
    }

    fn listen(&self, control: Control, path: &Path) -> anyhow::Result<()> {
        let listener =
            Control::bind(path).with_context(|| format!("The control socket {} cannot be made.", path.display()))?;
        self.tasks.spawn(control.serve(listener, self.clients.clone(), self.cancel.clone()));
        Ok(())
    }
}

/// Refuses a database that is a copy of one with which another server works now: it would take that one's sandboxes for its own.
fn refuse_copy(database: &Path) -> anyhow::Result<()> {
    if let Some(home) = store::copied_from(database)
        && let Some(pid) = Lock::owner(&home)
    {
        bail!(
            "{} is a copy of the database in {}, with which another matrix-agent (process {pid}) works: both would take the same \
             sandboxes for their own. Stop that one first.",
            database.display(),
            home.display()
        );
    }
    Ok(())
}
