//! How the parts are put together: what `run` serves, and what the other commands host where no server runs.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    control::{Control, control_socket},
    lock::Lock,
    settings,
};
use crate::{
    bots::Coder,
    chat::terminal::Terminal,
    clock::Clock,
    config::Config,
    gateway::{Gateway, Network},
    hub::{Hub, Port},
    llm::Model,
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
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        let state_dir = config.paths.state_dir.clone();
        crate::config::make_private(&state_dir)?;
        let lock = Lock::take(&state_dir)?;
        let store = Store::open(&config.paths.database(), settings::durability(config), Clock::default())?;
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
}

impl Server {
    /// Starts everything. When it returns, clients can connect and what an earlier process left is being taken up.
    pub async fn start(config: &Config, model: Model) -> anyhow::Result<Self> {
        let house = House::open(config).await?;
        let coder = Coder::new(house.store.clone(), house.sandboxes.clone(), model, settings::limits(config));
        let (deliveries, delivered) = mpsc::channel(QUEUE);
        let (live, seen) = mpsc::channel(QUEUE);
        let terminal = Terminal::default();
        house.tasks.spawn(terminal.clone().dispatch(delivered, seen, house.cancel.clone()));
        let (fetches, _) = mpsc::channel(QUEUE);
        let port = Port { deliveries, live, fetches };
        let (tasks, cancel) = (house.tasks.clone(), house.cancel.clone());
        let hub = Hub::start(house.store.clone(), coder, port, tasks, cancel).await?;
        house.tasks.spawn(tell(house.sandboxes.clone(), hub.clone(), house.cancel.clone()));
        house.listen(Control { sandboxes: house.sandboxes.clone(), chat: Some((hub, terminal)) })?;
        Ok(Self { house })
    }

    /// Ends what runs: turns stay open and are resumed at the next start, containers stay.
    pub async fn shutdown(self) {
        self.house.shutdown().await;
    }
}

/// Brings what the fleet has to say to the rooms.
async fn tell(sandboxes: Sandboxes, hub: Hub, cancel: CancellationToken) {
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
