//! A server as it runs: its accounts, its bots, and what is at the network.

use std::{sync::Arc, time::Duration};

use tokio::time;
use tracing::Instrument;

use super::{
    House, Served,
    relays::{give_back, pass_on_notices, show},
};
use crate::{
    bots::{Administrator, Bot},
    chat::{
        matrix::{self, Login, Serving},
        terminal::{self, Terminal},
    },
    clock::Clock,
    config::{Config, Talk, Wrong, hears_nobody},
    http::HttpServer,
    hub::{Account, AccountHub, Accounts, Inbox, Keeper, Port},
    ids::{FIRST_ACCOUNT, span_of_account},
    ops::{
        admin::Admin,
        cloud_bots::CloudBots,
        control::Control,
        dashboard::{Dashboard, Running, Sources},
        exobot::ServedExobot,
        lines::Lines,
        pulse::Pulse,
        redeploy_told, settings,
        sockets::{administration_socket, control_socket},
        status::Status,
        talk, witness,
    },
    sandbox::Sandboxes,
    tasks::Tasks,
    updates::Updates,
};

/// Deliveries, and files to fetch, that may be queued for a chat protocol.
const QUEUE: usize = 1024;
/// How long running tasks may take to end at a shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// The bots that only chat in Matrix rooms, as they are served.
#[derive(Clone)]
struct ChatBots {
    cloud_bots: Option<CloudBots>,
    exobot: Option<Arc<ServedExobot>>,
}

/// An account whose rooms' actors run.
struct Begun {
    hub: AccountHub,
    /// Its login, with what is to be sent to its rooms.
    login: Option<(Login, Inbox)>,
    /// What terminals reach, if they reach this account.
    terminal: Option<Terminal>,
}

impl House {
    /// Serves the accounts. Clients can connect before any account was tried, and each account is served as soon as it
    /// can be. When it returns, open work of an earlier process is being resumed, and each account was tried once. One
    /// that cannot be served is logged and tried again.
    ///
    /// # Errors
    ///
    /// There are accounts with a login, and none of them can be served.
    pub async fn serve(mut self, accounts: Vec<Served>) -> anyhow::Result<Server> {
        let (tasks, cancel) = (self.tasks.clone(), self.cancel.clone());
        let keeper = {
            let (store, gallery) = (self.store.clone(), self.gallery.clone());
            let sandboxes = self.sandboxes.clone();
            Keeper::start(store, sandboxes, gallery, self.retention, tasks.clone(), cancel.clone()).await?
        };
        tasks.spawn(give_back(cancel.clone()));
        let admin = self.administrator(&keeper);
        self.administration.opens(admin.clone());
        tasks.spawn(self.rights.clone().watch(cancel.clone()));
        self.introduce(&accounts);
        let chat_bots = self.start_chat_bots(&keeper).await;
        let (mut logins, mut terminals_of, mut hubs, mut lines) = (vec![], None, vec![], Lines::default());
        for served in accounts {
            let Begun { hub, login, terminal } = self.begin(served, terminals_of.is_none(), &keeper).await?;
            terminals_of = terminals_of.or(terminal.map(|terminal| (hub.clone(), terminal)));
            logins.extend(login.map(|(login, inbox)| (login, lines.begin(hub.account()), hub.clone(), inbox)));
            hubs.push(hub);
        }
        let mut http = self.http.take();
        if let Some(talk) = self.talk.take() {
            let means = talk::Means { chat: self.means_of_chat(), keeper: keeper.clone(), rights: self.rights.clone() };
            for hub in talk.serve(means, http.as_mut(), &tasks, &cancel).await? {
                self.relay_notices(&hub);
                hubs.push(hub);
            }
        }
        let serving = Serving::new(logins.len());
        if let Some(http) = http {
            self.serve_http(http, keeper.accounts(), &hubs, &chat_bots, &serving);
        }
        if let Some(room) = self.audit_room.clone() {
            let clock = self.store.clock().clone();
            tasks.spawn(witness::run(self.audit.clone(), room, hubs.clone(), clock, cancel.clone()));
        }
        tasks.spawn(redeploy_told::run(Updates::of(&self.state_dir), hubs.clone(), cancel.clone()));
        if let Some(events) = self.sandboxes.as_ref().and_then(Sandboxes::take_events) {
            tasks.spawn(show(events, hubs, cancel.clone()));
        }
        // Before the accounts, so that terminals do not wait for a homeserver that hangs.
        let control = Control {
            sandboxes: self.sandboxes.clone(),
            chat: terminals_of,
            cloud_bots: chat_bots.cloud_bots.clone(),
            exobot: chat_bots.exobot.clone(),
            admin: Some(admin),
            lines,
            links: self.links.clone(),
            audit: self.audit.clone(),
        };
        self.listen(control, &control_socket(&self.state_dir))?;
        for (login, line, hub, inbox) in logins {
            let span = hub.span();
            let account = matrix::run(login, hub, inbox, serving.seat(), line, tasks.clone(), cancel.clone());
            // Each in a task of its own, so that an account does not wait for another one's homeserver. Boxed because
            // the SDK's futures are large.
            tasks.spawn(Box::pin(account).instrument(span));
        }
        if let Err(error) = serving.all_tried().await {
            self.shutdown().await;
            return Err(error.into());
        }
        if let Some(bots) = chat_bots.cloud_bots {
            bots.tried().await;
        }
        if let Some(exobot) = chat_bots.exobot {
            exobot.tried().await;
        }
        Ok(Server { house: self, serving })
    }

    /// Returns what carries administrators' orders out.
    fn administrator(&self, keeper: &Keeper) -> Arc<dyn Administrator> {
        Arc::new(Admin {
            accounts: keeper.accounts().clone(),
            ledger: self.ledger.clone(),
            rights: self.rights.clone(),
            sandboxes: self.sandboxes.clone(),
            since: time::Instant::now(),
        })
    }

    /// Lets the bots know each other before any of them hears anything, or takes up what it heard before.
    fn introduce(&self, accounts: &[Served]) {
        let bots = accounts
            .iter()
            .flat_map(|account| account.bots.iter().map(|bot| (account.name.clone(), bot.name().clone())));
        let of_talk = self.talk.iter().flat_map(talk::Listening::bots);
        self.local.serves(bots.chain(of_talk).collect());
        for Served { name, login, .. } in accounts {
            self.neighbours.moves_in(name.clone(), login.iter().flat_map(Login::called));
        }
    }

    /// Begins to serve the cloud bots and exobot, if they are to be served.
    async fn start_chat_bots(&mut self, keeper: &Keeper) -> ChatBots {
        let (tasks, cancel) = (&self.tasks, self.cancel.clone());
        let cloud_bots = match self.cloud_bots.take() {
            Some(config) => {
                let (inference, means) = (self.inference.clone(), self.means_of_chat());
                // Boxed because it is large, as the next one is.
                Some(Box::pin(CloudBots::start(config, inference, means, keeper.clone(), tasks, cancel.clone())).await)
            }
            None => None,
        };
        let exobot = match self.exobot.take() {
            Some(config) => {
                let (means, inference) = (self.means_of_chat(), &self.inference);
                let starting = ServedExobot::start(&config, means, inference, keeper.clone(), tasks, cancel);
                Some(Arc::new(Box::pin(starting).await))
            }
            None => None,
        };
        ChatBots { cloud_bots, exobot }
    }

    /// Starts the actors of an account's rooms. `terminals` says whether terminals may still reach it.
    async fn begin(&self, served: Served, terminals: bool, keeper: &Keeper) -> anyhow::Result<Begun> {
        let Served { name, bots, login, terminals: wanted } = served;
        let (tasks, cancel) = (&self.tasks, &self.cancel);
        let (at_terminals, from_terminals) = Port::new(terminal::ROOMS, QUEUE);
        let (in_rooms, from_rooms) = Port::new(matrix::ROOMS, QUEUE);
        let terminals = terminals && wanted;
        // Rows for rooms that are not served stay in the outbox.
        let ports = terminals.then_some(at_terminals).into_iter().chain(login.is_some().then_some(in_rooms));
        let account = Account { name, bots, ports: ports.collect(), rights: Some(self.rights.clone()) };
        let (store, keeper) = (self.store.clone(), keeper.clone());
        let hub = AccountHub::start(account, store, keeper, tasks.clone(), cancel.clone()).await?;
        self.relay_notices(&hub);
        let terminal = terminals.then(|| {
            let terminal = Terminal::default();
            let running = terminal.clone().run(from_terminals, hub.watch(), cancel.clone());
            tasks.spawn(running.instrument(hub.span()));
            terminal
        });
        Ok(Begun { hub, login: login.map(|login| (login, from_rooms)), terminal })
    }

    /// Lets the account's rooms read what happens to their sandboxes.
    fn relay_notices(&self, hub: &AccountHub) {
        if let Some(sandboxes) = &self.sandboxes {
            let passing = pass_on_notices(sandboxes.notices(), hub.clone(), self.cancel.clone());
            self.tasks.spawn(passing.instrument(hub.span()));
        }
    }

    /// Serves what is there for machines and people that look at the server, and GitHub's webhook.
    fn serve_http(
        &mut self,
        mut http: HttpServer,
        accounts: &Accounts,
        hubs: &[AccountHub],
        chat_bots: &ChatBots,
        serving: &Serving,
    ) {
        let (tasks, cancel) = (self.tasks.clone(), self.cancel.clone());
        let status = Status::new(self.store.clone(), serving.clone(), self.sandboxes.clone(), cancel.clone());
        status.pages().into_iter().for_each(|pages| http.add(pages));
        if let Some(links) = self.links.clone() {
            let running = Running::default();
            tasks.spawn(running.clone().follow(accounts.watch(), cancel.clone()));
            let sources = Sources {
                store: self.store.clone(),
                accounts: accounts.clone(),
                status,
                serving: serving.clone(),
                sandboxes: self.sandboxes.clone(),
                cloud_bots: chat_bots.cloud_bots.clone(),
                exobot: chat_bots.exobot.clone(),
                inference: self.inference.clone(),
                limits: self.ledger.rules().limits,
                running,
                probed: Arc::default(),
            };
            http.add(Dashboard::new(sources, links).pages());
        }
        let (store, github, rights) = (self.store.clone(), self.github.clone(), self.rights.clone());
        let rules = self.task_rules.take();
        if let Some(issues) = rules.and_then(|rules| Tasks::new(store, github, rights, hubs.to_vec(), rules)) {
            http.add(issues.pages());
            tasks.spawn(issues.run(cancel.clone()));
        }
        tasks.spawn(http.serve(cancel));
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    const LIMIT: Duration = Duration::from_secs(10);

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
