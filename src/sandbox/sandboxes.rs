//! All rooms' sandboxes as the rest of the server uses them: `tools`, `hub` and `ops` get one here, list them, look into
//! them and remove them.
//!
//! Hands each wish to the part that fulfils it. How one room's container comes to life is `life.rs`, who may run is
//! `limit.rs`, what else happens to containers is noticed by `reconcile.rs`, their disk is watched by `disk.rs`; what all
//! of these know is `fleet.rs`.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Sandbox, SandboxError, disk, events,
    fleet::{Fleet, Notice},
    life, limit, name,
    observe::{self, Observation},
    options::SandboxOptions,
    reconcile,
    room::SandboxSummary,
};
use crate::{
    gateway::Gateway,
    ids::Address,
    ipc::{Arrived, HookErrors, RunEnded},
};

/// How long a shutdown waits for what is under way.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// All rooms' sandboxes. Cheap to clone; one a state directory.
#[derive(Clone)]
pub struct Sandboxes {
    fleet: Arc<Fleet>,
}

impl Sandboxes {
    /// Opens the fleet of the state directory: looks for Podman, adopts the sandboxes that run, and keeps watch. Comes
    /// back also where Podman is away; whatever needs it then says so until it answers.
    pub async fn open(
        options: SandboxOptions,
        gateway: Gateway,
        cancel: &CancellationToken,
    ) -> Result<Self, SandboxError> {
        events::open(&options.ipc_dir)
            .map_err(|source| SandboxError::Events { path: options.ipc_dir.clone(), source })?;
        let fleet = Fleet::open(options, gateway, cancel.child_token())?;
        fleet.supervise(reconcile::run(Arc::clone(&fleet)));
        fleet.supervise(limit::sweep(Arc::clone(&fleet)));
        fleet.supervise(limit::hold_memory(Arc::clone(&fleet)));
        fleet.supervise(disk::run(Arc::clone(&fleet)));
        fleet.supervise(events::hold(Arc::clone(&fleet)));
        if let Err(error) = fleet.adoption().await {
            tracing::debug!(%error, "sandboxes are not usable yet"); // the cause was logged where it arose
        }
        Ok(Self { fleet })
    }

    /// Returns the room's sandbox, ready for a command: created or started if need be. Calls for one room share one
    /// start; a start goes on when the caller goes away. Its lines of the log stand in the caller's span.
    pub async fn ensure(&self, address: &Address) -> Result<Sandbox, SandboxError> {
        let fleet = &self.fleet;
        if fleet.is_disk_low() {
            return Err(SandboxError::HostDiskLow);
        }
        let room = fleet.room(address);
        if let Some(sandbox) = room.live() {
            return Ok(sandbox);
        }
        let start = life::start(Arc::clone(fleet), room);
        let start = fleet.cancel.clone().run_until_cancelled_owned(start);
        fleet.tasks.spawn(start.in_current_span()).await.ok().flatten().unwrap_or(Err(SandboxError::ShuttingDown))
    }

    /// Returns what a model has to be told before it works on in a sandbox whose files were gone: once.
    pub async fn take_loss(&self, address: &Address) -> Option<SandboxError> {
        let room = self.fleet.known(address).filter(|room| room.set_lost(false))?;
        let mut container = room.container.lock().await;
        if let Some(record) = &mut container.record {
            record.lost = false;
            if let Err(error) = self.fleet.files.of(&room.address).note(record) {
                tracing::warn!(%error, "it cannot be noted that the model knows of its lost files");
            }
        }
        Some(SandboxError::FilesLost)
    }

    /// Returns the room's sandbox if it runs; starts none.
    pub async fn running(&self, address: &Address) -> Result<Option<Sandbox>, SandboxError> {
        self.fleet.adoption().await?;
        Ok(self.fleet.known(address).and_then(|room| room.connection()))
    }

    /// Lists the sandboxes, by account and room.
    pub async fn list(&self) -> Result<Vec<SandboxSummary>, SandboxError> {
        self.fleet.adoption().await?;
        let mut list: Vec<_> = self.fleet.rooms().values().filter_map(|room| room.summary()).collect();
        list.sort_by(|a, b| a.address.cmp(&b.address));
        Ok(list)
    }

    /// Finds the rooms that have files but no container any more, by the address or by the name that the sandbox had.
    pub async fn without_container(&self, named: &str) -> Result<Vec<Address>, SandboxError> {
        self.fleet.adoption().await?;
        let mut found = Vec::new();
        for room in self.fleet.all() {
            let Ok(container) = room.container.try_lock() else { continue }; // it is being started
            if container.name.is_some() || !container.has_files() {
                continue;
            }
            let names = name::candidates(&self.fleet.options.instance, &room.address);
            let volume = container.volume.as_ref().map(|volume| volume.name.as_str());
            if room.address.to_string() == named || volume == Some(named) || volume.is_none() && names[0] == named {
                found.push(room.address.clone());
            }
        }
        Ok(found)
    }

    /// Looks at a sandbox from the host and from inside.
    pub async fn observe(&self, address: &Address) -> Result<Observation, SandboxError> {
        self.fleet.adoption().await?;
        let room = self.fleet.known(address).ok_or_else(|| SandboxError::NoSandbox(address.to_string()))?;
        observe::observe(&self.fleet, &room).await
    }

    /// Removes a room's container, whatever it does, and its files too if `with_files`. None is no error.
    pub async fn remove(&self, address: &Address, with_files: bool) -> Result<(), SandboxError> {
        self.fleet.adoption().await?;
        let Some(room) = self.fleet.known(address) else { return Ok(()) };
        life::remove(&self.fleet, &room, with_files).await
    }

    /// Says which rooms exist, of all accounts. At once and at every later look the containers of all others are removed,
    /// and their files after the grace. Until it is called, nothing is removed.
    pub async fn keep_only(&self, addresses: impl IntoIterator<Item = Address>) {
        *self.fleet.existing.lock().unwrap_or_else(PoisonError::into_inner) = Some(addresses.into_iter().collect());
        reconcile::remove_gone(&self.fleet).await;
    }

    /// Returns what rooms should be told from now on: that their disk is full, that they were paused.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.fleet.notices()
    }

    /// Returns what programs in sandboxes tell from now on, once: whoever asks first has it. While nobody takes it, it stays
    /// in the sandboxes' files.
    pub fn take_events(&self) -> Option<mpsc::Receiver<Arrived>> {
        self.fleet.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for an event that somebody drops to see whether it arrives; `None`: no events are watched. Ask before it is sent.
    pub fn canary(&self, word: &str) -> Option<oneshot::Receiver<()>> {
        self.fleet.ipc.as_ref()?.canary(word)
    }

    /// Tells a room that a coding agent's run has ended, unless a hook of the agent has done so.
    pub fn run_ended(&self, address: &Address, run: RunEnded) {
        if let Some(ipc) = &self.fleet.ipc {
            ipc.run_ended(address, run);
        }
    }

    /// Returns what hooks in a room's sandbox have written down about themselves; `None`: it is not watched.
    pub fn hook_errors(&self, address: &Address) -> Option<HookErrors> {
        self.fleet.ipc.as_ref()?.hook_errors(address)
    }

    /// Compares what Podman has with what is known, as happens each minute by itself.
    pub async fn reconcile(&self) -> Result<(), SandboxError> {
        reconcile::reconcile(&self.fleet).await
    }

    /// Ends the server's side. The containers run on, and are adopted by the next server.
    pub async fn shutdown(&self) {
        self.fleet.cancel.cancel();
        self.fleet.tasks.close();
        for room in self.fleet.rooms().values() {
            room.forget_link();
        }
        if timeout(SHUTDOWN_LIMIT, self.fleet.tasks.wait()).await.is_err() {
            tracing::warn!("some work on sandboxes did not end in time");
        }
    }
}
