//! How the parts are wired together: what `run` serves, and what other subcommands host if no server runs.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc,
    },
    task, time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use super::{
    admin::Admin,
    cloud_bots::CloudBots,
    control::{Control, administration_socket, control_socket},
    dashboard::{Dashboard, Running, Sources},
    exobot::ServedExobot,
    lock::Lock,
    pulse::Pulse,
    redeploy_told, settings,
    status::Status,
    talk, witness,
};
use crate::{
    audit::Audit,
    bots::{Administration, Administrator, Bot, Coder, Guests, LocalBot, Means, Neighbours, chat},
    chat::{
        matrix::{self, Login, Serving},
        terminal::{self, Terminal},
    },
    clock::Clock,
    config::{Config, Talk, Wrong, hears_nobody},
    environments::Environments,
    gateway::{Gateway, Network, models::ModelDoor},
    github::GitHub,
    http::HttpServer,
    hub::{Account, AccountHub, Keeper, Port, Retention},
    ids::{FIRST_ACCOUNT, RoomKey, span_of_account},
    inference::Inference,
    ipc::Arrived,
    ledger::Ledger,
    links::{DASHBOARD, Links},
    llm::Model,
    memory,
    pictures::Gallery,
    rights::Rights,
    sandbox::{Notice, Sandboxes},
    store::Store,
    tasks::{TaskRules, Tasks},
    tools,
    updates::Updates,
};

/// Deliveries, and files to fetch, that may be queued for a chat protocol.
const QUEUE: usize = 1024;
/// How often the process's memory is checked.
const GIVE_BACK: Duration = Duration::from_secs(20);
/// Memory is returned to the system when the process has this many times its smallest size so far.
const GROWN: f64 = 1.1;
/// How long running tasks may take to end at a shutdown.
const GRACE: Duration = Duration::from_secs(5);

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
        crate::config::make_private(&options.ipc_dir)?;
        let sandboxes = Sandboxes::open(options, gateway, &house.cancel).await?;
        house.environments = settings::environments(config, sandboxes.clone())?;
        house.sandboxes = Some(sandboxes);
        Ok(house)
    }

    /// The same for bots that work in no sandbox: Podman is not needed, and the coding bot cannot be among them.
    pub fn without_sandboxes(config: &Config, clock: Clock) -> anyhow::Result<Self> {
        let state_dir = config.paths.state_dir.clone();
        crate::config::make_private(&state_dir)?;
        let lock = Lock::take(&state_dir)?;
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
        let means = Means {
            ledger: self.ledger.clone(),
            rights: self.rights.clone(),
            sandboxes: self.sandboxes.clone()?,
            agents: settings::agents(config, self.models.clone()),
            environments: self.environments.clone(),
            github: self.github.clone(),
            updates: Updates::of(&self.state_dir).set_up(),
            model,
            gallery: self.gallery.clone(),
            local: self.local.clone(),
            neighbours: self.neighbours.clone(),
            administration: self.administration.clone(),
            links: self.links.clone(),
        };
        Some(Coder::new(means, settings::policy(&config.people), settings::allowance(config)))
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
        self.links = self.http.as_ref().map(|http| {
            let (secret, clock) = (self.store.secret(), self.store.clock().clone());
            Links::new(secret, clock, http.address(), &http.opening(DASHBOARD))
        });
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
            links: None,
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

    /// Serves the accounts. Clients can connect before any account was tried, and each account is served as soon as it
    /// can be. When it returns, open work of an earlier process is being resumed, and each account was tried once. One
    /// that cannot be served is logged and tried again.
    ///
    /// # Errors
    ///
    /// There are accounts with a login, and none of them can be served.
    pub async fn serve(mut self, accounts: Vec<Served>) -> anyhow::Result<Server> {
        let (tasks, cancel) = (&self.tasks.clone(), &self.cancel.clone());
        let (store, sandboxes) = (self.store.clone(), self.sandboxes.clone());
        let keeper = {
            let gallery = self.gallery.clone();
            Keeper::start(store, sandboxes.clone(), gallery, self.retention, tasks.clone(), cancel.clone()).await?
        };
        tasks.spawn(give_back(cancel.clone()));
        let admin: Arc<dyn Administrator> = Arc::new(Admin {
            accounts: keeper.accounts().clone(),
            ledger: self.ledger.clone(),
            rights: self.rights.clone(),
            sandboxes: sandboxes.clone(),
            since: time::Instant::now(),
        });
        self.administration.opens(admin.clone());
        tasks.spawn(self.rights.clone().watch(cancel.clone()));
        let bots = accounts
            .iter()
            .flat_map(|account| account.bots.iter().map(|bot| (account.name.clone(), bot.name().clone())));
        let of_talk = self.talk.iter().flat_map(talk::Listening::bots);
        self.local.serves(bots.chain(of_talk).collect());
        // The bots know each other before any of them hears anything, or takes up what it heard before.
        for Served { name, login, .. } in &accounts {
            self.neighbours.moves_in(name.clone(), login.iter().flat_map(Login::called));
        }
        let cloud_bots = match self.cloud_bots.take() {
            Some(config) => {
                let (inference, means) = (self.inference.clone(), self.means_of_chat());
                // Boxed because it is large.
                Some(Box::pin(CloudBots::start(config, inference, means, keeper.clone(), tasks, cancel.clone())).await)
            }
            None => None,
        };
        let exobot = match self.exobot.take() {
            Some(config) => {
                let means = self.means_of_chat();
                Some(Arc::new(
                    Box::pin(ServedExobot::start(
                        &config,
                        means,
                        &self.inference,
                        keeper.clone(),
                        tasks,
                        cancel.clone(),
                    ))
                    .await,
                ))
            }
            None => None,
        };
        let (mut logins, mut terminals_of, mut hubs) = (vec![], None, vec![]);
        for Served { name, bots, login, terminals } in accounts {
            let (at_terminals, from_terminals) = Port::new(terminal::ROOMS, QUEUE);
            let (in_rooms, from_rooms) = Port::new(matrix::ROOMS, QUEUE);
            let terminals = terminals && terminals_of.is_none();
            // Rows for rooms that are not served stay in the outbox.
            let ports = terminals.then_some(at_terminals).into_iter().chain(login.is_some().then_some(in_rooms));
            let account = Account { name, bots, ports: ports.collect(), rights: Some(self.rights.clone()) };
            let (store, keeper) = (self.store.clone(), keeper.clone());
            let hub = AccountHub::start(account, store, keeper, tasks.clone(), cancel.clone()).await?;
            if let Some(sandboxes) = &sandboxes {
                let passing = pass_on_notices(sandboxes.notices(), hub.clone(), cancel.clone());
                tasks.spawn(passing.instrument(hub.span()));
            }
            hubs.push(hub.clone());
            if terminals {
                let terminal = Terminal::default();
                let running = terminal.clone().run(from_terminals, hub.watch(), cancel.clone());
                tasks.spawn(running.instrument(hub.span()));
                terminals_of = Some((hub.clone(), terminal));
            }
            logins.extend(login.map(|login| (login, hub, from_rooms)));
        }
        let mut http = self.http.take();
        if let Some(talk) = self.talk.take() {
            let means = talk::Means { chat: self.means_of_chat(), keeper: keeper.clone(), rights: self.rights.clone() };
            let of_talk = talk.serve(means, http.as_mut(), tasks, cancel).await?;
            for hub in of_talk {
                if let Some(sandboxes) = &sandboxes {
                    let passing = pass_on_notices(sandboxes.notices(), hub.clone(), cancel.clone());
                    tasks.spawn(passing.instrument(hub.span()));
                }
                hubs.push(hub);
            }
        }
        let serving = Serving::new(logins.len());
        if let Some(mut http) = http {
            let status = Status::new(self.store.clone(), serving.clone(), sandboxes.clone(), cancel.clone());
            status.pages().into_iter().for_each(|pages| http.add(pages));
            if let Some(links) = self.links.clone() {
                let running = Running::default();
                for hub in &hubs {
                    tasks.spawn(running.clone().follow(hub.watch(), cancel.clone()));
                }
                let sources = Sources {
                    store: self.store.clone(),
                    status,
                    serving: serving.clone(),
                    sandboxes: sandboxes.clone(),
                    cloud_bots: cloud_bots.clone(),
                    exobot: exobot.clone(),
                    inference: self.inference.clone(),
                    limits: self.ledger.rules().limits,
                    running,
                    probed: Arc::default(),
                };
                http.add(Dashboard::new(sources, links).pages());
            }
            let (store, github, rights) = (self.store.clone(), self.github.clone(), self.rights.clone());
            let rules = self.task_rules.take();
            if let Some(issues) = rules.and_then(|rules| Tasks::new(store, github, rights, hubs.clone(), rules)) {
                http.add(issues.pages());
                tasks.spawn(issues.run(cancel.clone()));
            }
            tasks.spawn(http.serve(cancel.clone()));
        }
        if let Some(room) = self.audit_room.clone() {
            let clock = self.store.clock().clone();
            tasks.spawn(witness::run(self.audit.clone(), room, hubs.clone(), clock, cancel.clone()));
        }
        let updates = Updates::of(&self.state_dir);
        tasks.spawn(redeploy_told::run(updates, hubs.clone(), cancel.clone()));
        if let Some(events) = sandboxes.as_ref().and_then(Sandboxes::take_events) {
            tasks.spawn(show(events, hubs, cancel.clone()));
        }
        // Before the accounts, so that terminals do not wait for a homeserver that hangs.
        let control = Control {
            sandboxes: self.sandboxes.clone(),
            chat: terminals_of,
            cloud_bots: cloud_bots.clone(),
            exobot: exobot.clone(),
            admin: Some(admin),
            links: self.links.clone(),
        };
        self.listen(control, &control_socket(&self.state_dir))?;
        for (login, hub, inbox) in logins {
            let span = hub.span();
            let account = matrix::run(login, hub, inbox, serving.seat(), tasks.clone(), cancel.clone());
            // Each in a task of its own, so that an account does not wait for another one's homeserver. Boxed because
            // the SDK's futures are large.
            tasks.spawn(Box::pin(account).instrument(span));
        }
        if let Err(error) = serving.all_tried().await {
            self.shutdown().await;
            return Err(error.into());
        }
        if let Some(bots) = cloud_bots {
            bots.tried().await;
        }
        if let Some(exobot) = exobot {
            exobot.tried().await;
        }
        Ok(Server { house: self, serving })
    }

    /// Ends all tasks. The containers stay, and the next start takes them over.
    pub async fn shutdown(self) {
        self.cancel.cancel();
        self.tasks.close();
        self.clients.close();
        let ended = async { tokio::join!(self.tasks.wait(), self.clients.wait()) };
        if time::timeout(GRACE, ended).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        if let Some(sandboxes) = self.sandboxes {
            sandboxes.shutdown().await;
        }
        for socket in [control_socket(&self.state_dir), administration_socket(&self.state_dir)] {
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// A running server: a house with accounts.
pub struct Server {
    house: House,
    /// Tells when the last Matrix account cannot be served any more.
    serving: Serving,
}

impl Server {
    /// Starts everything that is configured; the Matrix accounts only with `rooms`.
    pub async fn start(config: &Config, rooms: bool, clock: Clock) -> anyhow::Result<Self> {
        for (name, _, people) in config.all_accounts().filter(|_| rooms) {
            if let Some(Wrong { what, mend }) = hears_nobody(name, people) {
                span_of_account(name).in_scope(|| tracing::warn!(mend, "{what}"));
            }
        }
        let mut house = House::open(config, clock).await?;
        if rooms {
            house.listen_http(config).await?;
            house.serve_cloud_bots(config);
            house.serve_exobot(config);
        }
        let model = settings::model(config, &house.inference)?;
        let Some(coder) = house.coder(config, model) else { return house.serve(vec![]).await };
        if rooms {
            house.listen_for_talk(config, Some(&coder)).await?;
        }
        let guests: Arc<dyn Bot> = Arc::new(house.guests());
        let first = Served {
            name: FIRST_ACCOUNT.to_owned(),
            bots: vec![Arc::new(coder.clone()), guests.clone()],
            login: settings::matrix_login(config).filter(|_| rooms),
            terminals: true,
        };
        let others = config.accounts.iter().filter(|_| rooms).map(|account| Served {
            name: account.name.clone(),
            bots: vec![Arc::new(coder.hearing(settings::policy(&account.people))), guests.clone()],
            login: Some(settings::login(config, &account.name, &account.matrix)),
            terminals: false,
        });
        house.serve([first].into_iter().chain(others).collect()).await
    }

    /// Starts the bots that only chat, those of the cloud and of Nextcloud Talk and exobot: without Podman, and without a model of
    /// the coding agent.
    pub async fn start_chat_bots(config: &Config, clock: Clock) -> anyhow::Result<Self> {
        let which = [
            ("the cloud bots", config.cloud_bots.enabled),
            ("exobot", config.exobot.enabled),
            ("the Nextcloud Talk bot", Talk::is_set_up(config)),
        ];
        let which: Vec<_> = which.into_iter().filter(|(_, is_served)| *is_served).map(|(which, _)| which).collect();
        let are = if which.len() > 1 || config.cloud_bots.enabled { "are" } else { "is" };
        let which = which.join(" and ");
        tracing::info!("only {which} {are} served: neither MATRIX_USER nor a model of the coding agent is set");
        let mut house = House::without_sandboxes(config, clock)?;
        house.watch_http(config).await?;
        house.serve_cloud_bots(config);
        house.serve_exobot(config);
        house.listen_for_talk(config, None).await?;
        house.serve(vec![]).await
    }

    /// Waits until the server cannot go on, and returns why. Never returns while it can.
    pub async fn failed(&self) -> anyhow::Error {
        self.serving.failed().await.into()
    }

    /// Returns what tells whether the server makes progress.
    pub fn pulse(&self) -> Pulse {
        Pulse::new(self.house.store.clone())
    }

    /// Ends all tasks: turns stay open and are resumed at the next start, containers stay.
    pub async fn shutdown(self) {
        self.house.shutdown().await;
    }
}

/// Returns memory to the system after a load.
async fn give_back(cancel: CancellationToken) {
    let mut least = f64::MAX;
    while cancel.run_until_cancelled(time::sleep(GIVE_BACK)).await.is_some() {
        let Some(before) = memory::resident() else { return };
        if before as f64 > least * GROWN
            && let Ok(Some(after)) = task::spawn_blocking(memory::give_back).await
        {
            least = after as f64;
        }
        least = least.min(before as f64);
    }
}

/// Passes the fleet's notices to the rooms of an account.
async fn pass_on_notices(mut notices: broadcast::Receiver<Notice>, hub: AccountHub, cancel: CancellationToken) {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            notice = notices.recv() => match notice {
                Ok(Notice { address, text }) if address.account == hub.account() => hub.show_notice(&address.room, text),
                // A notice for a room of another account.
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "rooms were not told all that happened to them"),
                Err(RecvError::Closed) => return,
            },
        }
    }
}

/// Passes events of programs in sandboxes to those who watch the rooms.
async fn show(mut events: mpsc::Receiver<Arrived>, hubs: Vec<AccountHub>, cancel: CancellationToken) {
    while let Some(Some(Arrived { address, event })) = cancel.run_until_cancelled(events.recv()).await {
        if let Some(hub) = hubs.iter().find(|hub| hub.account() == address.account) {
            hub.show_told(&address.room, event.line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, hub::Live, ids::Address, store::Durability};

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_notice_reaches_only_the_account_whose_sandbox_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db"), Durability::Normal, Clock::default()).unwrap();
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let gallery = Gallery::new(folder.path().join("pictures"));
        let keeper = Keeper::start(
            store.clone(),
            None,
            gallery,
            Retention { files: LIMIT, rows: LIMIT },
            tasks.clone(),
            cancel.clone(),
        )
        .await
        .unwrap();
        let (notices, _) = broadcast::channel(8);
        let mut watched = Vec::new();
        for (name, times) in [("coder", 1), ("talk", 2)] {
            let account = Account { name: name.into(), bots: vec![], ports: vec![], rights: None };
            let (store, keeper) = (store.clone(), keeper.clone());
            let hub = AccountHub::start(account, store, keeper, tasks.clone(), cancel.clone()).await.unwrap();
            watched.push((name, hub.watch(), times));
            tasks.spawn(pass_on_notices(notices.subscribe(), hub, cancel.clone()));
        }
        // The last event of each account shows that none of the others' came before.
        for account in ["talk", "gone", "coder", "talk"] {
            let address = Address { account: account.into(), room: "!r:x".into() };
            notices.send(Notice { address, text: format!("for {account}") }).unwrap();
        }
        for (name, mut watched, times) in watched {
            for _ in 0..times {
                let seen = time::timeout(LIMIT, watched.recv()).await.expect("a notice").unwrap();
                let text = format!("for {name}");
                assert_eq!((seen.address.account.as_str(), seen.live), (name, Live::Notice { text }));
            }
        }
        cancel.cancel();
        tasks.close();
        time::timeout(LIMIT, tasks.wait()).await.expect("all tasks end");
    }

    /// Returns a house in `folder`, and an account of this name at a homeserver; without a password it cannot log in.
    fn house(folder: &Path, name: &str, homeserver: &str, password: Option<&str>) -> (House, Served) {
        let sources = config::Sources {
            folders: vec![],
            ..config::Sources::new(std::collections::BTreeMap::new(), folder.to_owned(), true)
        };
        let mut config = config::load(&sources).config;
        config.paths.state_dir = folder.join("state");
        let login = Login {
            name: name.into(),
            homeserver: homeserver.into(),
            user: format!("@{name}:example.org"),
            password: password.map(|password| password.to_owned().into()),
            refused: None,
            state_dir: config.paths.state_dir.clone(),
            unsigned_devices: false,
            begun: None,
            watchdog: None,
        };
        let served = Served { name: name.into(), bots: vec![], login: Some(login), terminals: true };
        (House::without_sandboxes(&config, Clock::default()).unwrap(), served)
    }

    #[tokio::test]
    async fn terminals_do_not_wait_for_a_homeserver_that_hangs() {
        let folder = tempfile::tempdir().unwrap();
        let hangs = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", hangs.local_addr().unwrap());
        let (house, first) = house(folder.path(), FIRST_ACCOUNT, &address, Some("secret"));
        let (socket, cancel, tasks) = (control_socket(&house.state_dir), house.cancel.clone(), house.tasks.clone());
        let serving = house.serve(vec![first]);
        let asked = async {
            let asked = hangs.accept().await.unwrap();
            tokio::net::UnixStream::connect(&socket).await.expect("the control socket listens meanwhile");
            asked
        };
        tokio::select! {
            served = serving => panic!("the account was tried: {}", served.is_ok()),
            asked = time::timeout(LIMIT, asked) => drop(asked.expect("the homeserver is asked")),
        }
        cancel.cancel();
        tasks.close();
        time::timeout(LIMIT, tasks.wait()).await.expect("all tasks end");
    }

    #[tokio::test]
    async fn a_server_of_whose_accounts_none_can_be_served_does_not_start() {
        let folder = tempfile::tempdir().unwrap();
        let (house, first) = house(folder.path(), FIRST_ACCOUNT, "http://127.0.0.1:9", None);
        let socket = control_socket(&house.state_dir);
        let second = Login { name: "two".into(), ..first.login.clone().unwrap() };
        let second = Served { name: "two".into(), bots: vec![], login: Some(second), terminals: false };
        let started = time::timeout(LIMIT, house.serve(vec![first, second])).await.expect("it ends");
        let error = started.err().expect("no account has a password").to_string();
        assert!(error.contains("has to log in"), "{error}");
        assert!(!socket.exists());
    }
}
