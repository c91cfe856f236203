//! How the parts are put together: what `run` serves, and what the other commands host where no server runs.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    sync::{broadcast::error::RecvError, oneshot},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    control::{Control, control_socket},
    lock::Lock,
    pulse::Pulse,
    settings,
};
use crate::{
    bots::Coder,
    chat::{
        matrix::{self, Matrix, SessionError},
        terminal::{self, Terminal},
    },
    clock::Clock,
    config::Config,
    gateway::{Gateway, Network},
    hub::{Account, AccountHub, Inbox, Keeper, Port},
    llm::Model,
    pictures::Gallery,
    sandbox::Sandboxes,
    store::Store,
};

/// Deliveries and live events that may wait for the chat protocol.
const QUEUE: usize = 1024;
/// What runs may take this long to end.
const GRACE: Duration = Duration::from_secs(5);

/// A state directory, its database and its sandboxes, owned by this process; without a chat.
pub struct House {
    store: Store,
    sandboxes: Sandboxes,
    tasks: TaskTracker,
    cancel: CancellationToken,
    state_dir: PathBuf,
    _lock: Lock,
}

impl House {
    /// Takes the lock, opens the database and takes the sandboxes over.
    pub async fn open(config: &Config, clock: Clock) -> anyhow::Result<Self> {
        let state_dir = config.paths.state_dir.clone();
        crate::config::make_private(&state_dir)?;
        let lock = Lock::take(&state_dir)?;
        let store = Store::open(&config.paths.database(), settings::durability(config), clock)?;
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let gateway = Gateway::new(settings::gateway(config)?, Network::system(), cancel.child_token());
        let options = settings::sandboxes(config, store.instance());
        let sandboxes = Sandboxes::open(options, gateway, &cancel).await?;
        Ok(Self { store, sandboxes, tasks, cancel, state_dir, _lock: lock })
    }

    /// Lets operators in through the control socket.
    pub fn administer(&self) -> anyhow::Result<()> {
        self.listen(Control { sandboxes: self.sandboxes.clone(), chat: None })
    }

    fn listen(&self, control: Control) -> anyhow::Result<()> {
        let path = control_socket(&self.state_dir);
        let listener =
            Control::bind(&path).with_context(|| format!("The control socket {} cannot be made.", path.display()))?;
        self.tasks.spawn(control.serve(listener, self.tasks.clone(), self.cancel.clone()));
        Ok(())
    }

    /// Serves a Matrix account; tells when it cannot go on by itself.
    fn serve_rooms(&self, matrix: Matrix, hub: AccountHub, inbox: Inbox) -> oneshot::Receiver<SessionError> {
        let (tell, failed) = oneshot::channel();
        let (tasks, cancel) = (self.tasks.clone(), self.cancel.clone());
        self.tasks.spawn(async move {
            if let Err(error) = Box::pin(matrix.run(hub, inbox, tasks, cancel)).await {
                // Nobody waits for it while the program ends.
                let _ = tell.send(error);
            }
        });
        failed
    }

    /// Ends what runs; the containers stay and are taken over at the next start.
    pub async fn shutdown(self) {
        self.cancel.cancel();
        self.tasks.close();
        if time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        self.sandboxes.shutdown().await;
        let _ = std::fs::remove_file(control_socket(&self.state_dir));
    }
}

/// The whole: a house with people in it.
pub struct Server {
    house: House,
    /// The Matrix session is lost for good.
    failed: oneshot::Receiver<SessionError>,
}

impl Server {
    /// Starts everything; the Matrix account only with `rooms`. When it returns, clients can connect and what an earlier
    /// process left is being taken up.
    pub async fn start(config: &Config, model: Model, rooms: bool, clock: Clock) -> anyhow::Result<Self> {
        let house = House::open(config, clock).await?;
        let (tasks, cancel) = (house.tasks.clone(), house.cancel.clone());
        let coder = Coder::new(
            house.store.clone(),
            house.sandboxes.clone(),
            model,
            Gallery::new(config.paths.pictures()),
            settings::policy(config),
            settings::allowance(config),
        );
        let sandboxes = Some(house.sandboxes.clone());
        let grace = config.limits.room_grace;
        let keeper = Keeper::start(house.store.clone(), sandboxes, grace, tasks.clone(), cancel.clone()).await?;
        let (at_terminals, from_terminals) = Port::new(terminal::ROOMS, QUEUE);
        let (in_rooms, from_rooms) = Port::new(matrix::ROOMS, QUEUE);
        let mut ports = vec![at_terminals];
        let login = settings::matrix(config).filter(|_| rooms);
        // What is to be sent to rooms that are not served stays in the outbox.
        ports.extend(login.is_some().then_some(in_rooms));
        let account = Account { name: settings::FIRST_ACCOUNT.to_owned(), bots: vec![Arc::new(coder)], ports };
        let hub = AccountHub::start(account, house.store.clone(), keeper, tasks, cancel.clone()).await?;
        let failed = match login {
            Some(login) => {
                // Boxed: the SDK's futures are large, and this one is a part of all that starts a server.
                let matrix = Box::pin(Matrix::open(login)).await?;
                house.serve_rooms(matrix, hub.clone(), from_rooms)
            }
            None => oneshot::channel().1,
        };
        let terminal = Terminal::default();
        house.tasks.spawn(terminal.clone().run(from_terminals, hub.watch(), cancel));
        house.tasks.spawn(tell(house.sandboxes.clone(), hub.clone(), house.cancel.clone()));
        house.listen(Control { sandboxes: house.sandboxes.clone(), chat: Some((hub, terminal)) })?;
        Ok(Self { house, failed })
    }

    /// Waits until the server cannot go on by itself, and returns why. Pending for as long as it can.
    pub async fn failed(&mut self) -> anyhow::Error {
        match (&mut self.failed).await {
            Ok(error) => error.into(),
            // Without an account nothing of it can fail.
            Err(_) => std::future::pending().await,
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

/// Brings what the fleet has to say to the rooms.
async fn tell(sandboxes: Sandboxes, hub: AccountHub, cancel: CancellationToken) {
    let mut notices = sandboxes.notices();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            notice = notices.recv() => match notice {
                Ok(notice) => hub.tell(&notice.room, notice.text),
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "rooms were not told all that happened to them"),
                Err(RecvError::Closed) => return,
            },
        }
    }
}
