//! How the parts are put together: what `run` serves, and what the other commands host where no server runs.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use futures_util::future::join_all;
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc,
    },
    task, time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    control::{Control, control_socket},
    lock::Lock,
    pulse::Pulse,
    settings,
};
use crate::{
    bots::{Bot, Coder},
    chat::{
        matrix::{self, Login, Matrix, Serving, SessionError},
        terminal::{self, Terminal},
    },
    clock::Clock,
    config::Config,
    gateway::{Gateway, Network, models::ModelDoor},
    hub::{Account, AccountHub, Keeper, Port, Retention},
    ids::FIRST_ACCOUNT,
    ipc::Arrived,
    llm::Model,
    memory,
    pictures::Gallery,
    sandbox::{Notice, Sandboxes},
    store::Store,
};

/// Deliveries and files to fetch that may wait for a chat protocol.
const QUEUE: usize = 1024;
/// Between two looks at how much memory the process has.
const GIVE_BACK: Duration = Duration::from_secs(20);
/// So many times what it had at the least, and memory is given back.
const GROWN: f64 = 1.1;
/// What runs may take this long to end.
const GRACE: Duration = Duration::from_secs(5);

/// A state directory, its database and its sandboxes, owned by this process; without a chat.
pub struct House {
    store: Store,
    /// `None` where no bot works in one.
    sandboxes: Option<Sandboxes>,
    /// The coding agents' way to their models.
    models: ModelDoor,
    gallery: Gallery,
    retention: Retention,
    tasks: TaskTracker,
    cancel: CancellationToken,
    state_dir: PathBuf,
    _lock: Lock,
}

/// An account as it is to be served.
pub struct Served {
    /// Its name in the store.
    pub name: String,
    /// Who answers, in the order in which they are asked.
    pub bots: Vec<Arc<dyn Bot>>,
    /// How it gets into Matrix rooms, if it does.
    pub login: Option<Login>,
    /// Whether people at terminals reach it. They reach one account only, the first of which this is said.
    pub terminals: bool,
}

impl House {
    /// Takes the lock, opens the database and takes the sandboxes over.
    pub async fn open(config: &Config, clock: Clock) -> anyhow::Result<Self> {
        let mut house = Self::without_sandboxes(config, clock)?;
        house.models = settings::models(config, house.store.clone())?;
        let gateway = Gateway::new(settings::gateway(config)?, Network::system(), house.cancel.child_token());
        let gateway = gateway.with_models(house.models.clone());
        let options = settings::sandboxes(config, house.store.instance(), house.store.clock().clone());
        crate::config::make_private(&options.ipc_dir)?;
        house.sandboxes = Some(Sandboxes::open(options, gateway, &house.cancel).await?);
        Ok(house)
    }

    /// The same for bots that work in none: nothing of Podman is needed, and the coding bot cannot be one of them.
    pub fn without_sandboxes(config: &Config, clock: Clock) -> anyhow::Result<Self> {
        let state_dir = config.paths.state_dir.clone();
        crate::config::make_private(&state_dir)?;
        let lock = Lock::take(&state_dir)?;
        let store = Store::open(&config.paths.database(), settings::durability(config), clock)?;
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let retention = Retention { files: config.limits.room_grace, rows: config.limits.retention };
        let gallery = Gallery::new(config.paths.pictures());
        Ok(Self {
            store,
            sandboxes: None,
            models: ModelDoor::default(),
            gallery,
            retention,
            tasks,
            cancel,
            state_dir,
            _lock: lock,
        })
    }

    /// Returns the coding bot of this house, if it has sandboxes.
    pub fn coder(&self, config: &Config, model: Model) -> Option<Coder> {
        Some(Coder::new(
            self.store.clone(),
            self.sandboxes.clone()?,
            settings::agents(config, self.models.clone()),
            model,
            self.gallery.clone(),
            settings::policy(&config.people),
            settings::allowance(config),
        ))
    }

    /// Returns the store, for bots that keep something of their own.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Lets operators in through the control socket.
    pub fn administer(&self) -> anyhow::Result<()> {
        if let Some(mut events) = self.sandboxes.as_ref().and_then(Sandboxes::take_events) {
            // Nobody watches a room here, and a canary is heard only while events are taken.
            let ignore = async move { while events.recv().await.is_some() {} };
            self.tasks.spawn(self.cancel.clone().run_until_cancelled_owned(ignore));
        }
        self.listen(Control { sandboxes: self.sandboxes.clone(), chat: None })
    }

    fn listen(&self, control: Control) -> anyhow::Result<()> {
        let path = control_socket(&self.state_dir);
        let listener =
            Control::bind(&path).with_context(|| format!("The control socket {} cannot be made.", path.display()))?;
        self.tasks.spawn(control.serve(listener, self.tasks.clone(), self.cancel.clone()));
        Ok(())
    }

    /// Serves accounts side by side. When it returns, clients can connect, what an earlier process left is being taken up,
    /// and each account was tried once. One that cannot be served is told in the log and tried again.
    ///
    /// # Errors
    ///
    /// There are accounts with a login, and none of them can be served.
    pub async fn serve(self, accounts: Vec<Served>) -> anyhow::Result<Server> {
        let (tasks, cancel) = (&self.tasks, &self.cancel);
        let (store, sandboxes) = (self.store.clone(), self.sandboxes.clone());
        let keeper = {
            let gallery = self.gallery.clone();
            Keeper::start(store, sandboxes.clone(), gallery, self.retention, tasks.clone(), cancel.clone()).await?
        };
        tasks.spawn(give_back(cancel.clone()));
        let (mut logins, mut chat, mut hubs) = (vec![], None, vec![]);
        for Served { name, bots, login, terminals } in accounts {
            let (at_terminals, from_terminals) = Port::new(terminal::ROOMS, QUEUE);
            let (in_rooms, from_rooms) = Port::new(matrix::ROOMS, QUEUE);
            let terminals = terminals && chat.is_none();
            // What is to be sent to rooms that are not served stays in the outbox.
            let ports = terminals.then_some(at_terminals).into_iter().chain(login.is_some().then_some(in_rooms));
            let account = Account { name, bots, ports: ports.collect() };
            let (store, keeper) = (self.store.clone(), keeper.clone());
            let hub = AccountHub::start(account, store, keeper, tasks.clone(), cancel.clone()).await?;
            if let Some(sandboxes) = &sandboxes {
                tasks.spawn(pass_on_notices(sandboxes.notices(), hub.clone(), cancel.clone()));
            }
            hubs.push(hub.clone());
            if terminals {
                let terminal = Terminal::default();
                tasks.spawn(terminal.clone().run(from_terminals, hub.watch(), cancel.clone()));
                chat = Some((hub.clone(), terminal));
            }
            logins.extend(login.map(|login| (login, hub, from_rooms)));
        }
        if let Some(events) = sandboxes.as_ref().and_then(Sandboxes::take_events) {
            tasks.spawn(show(events, hubs, cancel.clone()));
        }
        let serving = Serving::new(logins.len());
        let opening = logins.into_iter().map(|(login, hub, inbox)| async {
            // Boxed: the SDK's futures are large, and these are a part of all that starts a server.
            (Box::pin(Matrix::open(login)).await, hub, inbox)
        });
        let mut opened = join_all(opening).await;
        if !opened.is_empty() && opened.iter().all(|(matrix, ..)| matrix.has_trouble()) {
            let (matrix, ..) = opened.swap_remove(0);
            self.shutdown().await;
            return Err(matrix.into_trouble().map_or_else(|| anyhow::anyhow!("No account can be served."), Into::into));
        }
        let (tell, failed) = mpsc::channel(1);
        for (matrix, hub, inbox) in opened {
            let (tell, serving, tracker, cancel) = (tell.clone(), serving.clone(), tasks.clone(), cancel.clone());
            tasks.spawn(async move {
                if let Err(error) = Box::pin(matrix.run(hub, inbox, serving, tracker, cancel)).await {
                    // Nobody waits for it while the program ends.
                    let _ = tell.try_send(error);
                }
            });
        }
        self.listen(Control { sandboxes: self.sandboxes.clone(), chat })?;
        Ok(Server { house: self, failed })
    }

    /// Ends what runs; the containers stay and are taken over at the next start.
    pub async fn shutdown(self) {
        self.cancel.cancel();
        self.tasks.close();
        if time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        if let Some(sandboxes) = self.sandboxes {
            sandboxes.shutdown().await;
        }
        let _ = std::fs::remove_file(control_socket(&self.state_dir));
    }
}

/// The whole: a house with people in it.
pub struct Server {
    house: House,
    /// The last Matrix session is lost for good.
    failed: mpsc::Receiver<SessionError>,
}

impl Server {
    /// Starts everything that is set up; Matrix accounts only with `rooms`.
    pub async fn start(config: &Config, model: Model, rooms: bool, clock: Clock) -> anyhow::Result<Self> {
        let house = House::open(config, clock).await?;
        let Some(coder) = house.coder(config, model) else { return house.serve(vec![]).await };
        let first = Served {
            name: FIRST_ACCOUNT.to_owned(),
            bots: vec![Arc::new(coder.clone())],
            login: settings::matrix_login(config).filter(|_| rooms),
            terminals: true,
        };
        let others = config.accounts.iter().filter(|_| rooms).map(|account| Served {
            name: account.name.clone(),
            bots: vec![Arc::new(coder.hearing(settings::policy(&account.people)))],
            login: Some(settings::login(config, &account.name, &account.matrix)),
            terminals: false,
        });
        house.serve([first].into_iter().chain(others).collect()).await
    }

    /// Waits until the server cannot go on by itself, and returns why. Pending for as long as it can.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.failed.recv().await {
            Some(error) => error.into(),
            // Without an account nothing of it can fail.
            None => std::future::pending().await,
        }
    }

    /// Returns what tells whether the server works.
    pub fn pulse(&self) -> Pulse {
        Pulse::new(self.house.store.clone())
    }

    /// Ends what runs: turns stay open and are resumed at the next start, containers stay.
    pub async fn shutdown(self) {
        self.house.shutdown().await;
    }
}

/// Gives back to the system, after a load, the memory that it took.
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

/// Brings what the fleet has to say to the rooms of an account.
async fn pass_on_notices(mut notices: broadcast::Receiver<Notice>, hub: AccountHub, cancel: CancellationToken) {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            notice = notices.recv() => match notice {
                Ok(Notice { address, text }) if address.account == hub.account() => hub.show_notice(&address.room, text),
                // Another account's people are none of this one's.
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "rooms were not told all that happened to them"),
                Err(RecvError::Closed) => return,
            },
        }
    }
}

/// Brings what programs in sandboxes tell to those who watch the rooms.
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
    use crate::{hub::Live, ids::Address, store::Durability};

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
            let account = Account { name: name.into(), bots: vec![], ports: vec![] };
            let (store, keeper) = (store.clone(), keeper.clone());
            let hub = AccountHub::start(account, store, keeper, tasks.clone(), cancel.clone()).await.unwrap();
            watched.push((name, hub.watch(), times));
            tasks.spawn(pass_on_notices(notices.subscribe(), hub, cancel.clone()));
        }
        // The last one for each account shows that nothing of the others' came before.
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
}
