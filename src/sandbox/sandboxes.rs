//! All rooms' sandboxes as the rest of the server uses them: get one, list, observe and remove them.
//!
//! Hands each request to the module that does it: `life.rs` starts a room's container, `limit.rs` decides which may
//! run, `reconcile.rs` notices what happens to containers otherwise, `disk.rs` watches their disk use. `fleet.rs` is
//! the state that all of these share.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::{self, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Sandbox, SandboxError, counting, disk, events,
    fleet::{Fleet, Notice},
    life, limit, name,
    observe::{self, Observation},
    options::SandboxOptions,
    reconcile,
    room::SandboxSummary,
    workshop::Workshop,
};
use crate::{
    clock::Clock,
    gateway::{Denial, Gateway},
    ids::Address,
    ipc::{Arrived, HookErrors, RunEnded},
};

/// How long a shutdown waits for running tasks.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// How long somebody who wants a sandbox while the server ends waits to be dropped.
const ENDING: Duration = Duration::from_secs(5);

/// What sandboxes may use at most: each of them, and all together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SandboxLimits {
    /// Bytes of memory of one.
    pub memory: u64,
    /// Processors of one.
    pub cpus: f64,
    /// Processes and threads of one.
    pub pids: u32,
    /// Bytes on the disk of one.
    pub disk: u64,
    /// How many may run.
    pub running: usize,
    /// Bytes of memory of all that run.
    pub memory_total: u64,
}

/// All rooms' sandboxes. Cheap to clone; one for each state directory.
#[derive(Clone)]
pub struct Sandboxes {
    fleet: Arc<Fleet>,
}

impl Sandboxes {
    /// Opens the fleet of a state directory: looks for Podman, adopts running sandboxes, and starts the watches.
    /// Succeeds also while Podman is away; calls then fail with a sentence until it answers.
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
            tracing::debug!(%error, "sandboxes are not usable yet"); // the cause is in the log already
        }
        Ok(Self { fleet })
    }

    /// Returns the room's sandbox, ready for a command; creates or starts it if need be. Calls for one room share one
    /// start, which goes on if the callers are dropped. Its log lines carry the caller's span.
    ///
    /// # Errors
    ///
    /// Podman is away or refuses, the image does not exist, no place becomes free, the host's disk is low, somebody
    /// has paused the sandbox, or its sandboxd does not greet.
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
        let started = fleet.tasks.spawn(start.in_current_span()).await;
        let started = started.ok().flatten().unwrap_or(Err(SandboxError::ShuttingDown));
        if matches!(started, Err(SandboxError::ShuttingDown)) {
            // Whoever waits is dropped in a moment. Until then it gets no answer, which might be written down as what a
            // call came to that the next server takes up.
            time::sleep(ENDING).await;
        }
        started
    }

    /// Opens a workshop for a room.
    pub fn workshop(&self, address: &Address) -> Workshop {
        Workshop::open(&self.fleet, address)
    }

    /// Returns the id of the image of which sandboxes are made, which changes with its content.
    pub async fn image_id(&self) -> Result<String, SandboxError> {
        Ok(self.fleet.image().await?.id)
    }

    /// Returns, once, what a model must be told before it works on in a sandbox whose files were lost.
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

    /// Returns the clock of all sandboxes.
    pub fn clock(&self) -> &Clock {
        &self.fleet.options.clock
    }

    /// Returns the room's sandbox if it runs; never starts it.
    pub async fn running(&self, address: &Address) -> Result<Option<Sandbox>, SandboxError> {
        self.fleet.adoption().await?;
        Ok(self.fleet.known(address).and_then(|room| room.connection()))
    }

    /// Returns the room's sandbox if this server is connected to it.
    pub fn connected(&self, address: &Address) -> Option<Sandbox> {
        self.fleet.known(address)?.connection()
    }

    /// Lists the sandboxes, ordered by account and room.
    pub async fn list(&self) -> Result<Vec<SandboxSummary>, SandboxError> {
        self.fleet.adoption().await?;
        let mut list: Vec<_> = self.fleet.rooms().values().filter_map(|room| room.summary()).collect();
        list.sort_by(|a, b| a.address.cmp(&b.address));
        Ok(list)
    }

    /// Has the files of those counted whose counts are old, one after the other. Returns at once; the list has the counts as they come.
    pub(crate) fn count_files(&self) {
        counting::refresh(&self.fleet);
    }

    /// Returns what sandboxes may use at most.
    pub fn limits(&self) -> SandboxLimits {
        let options = &self.fleet.options;
        SandboxLimits {
            memory: options.memory,
            cpus: options.cpus,
            pids: options.pids,
            disk: options.disk,
            running: options.max_running,
            memory_total: options.memory_total,
        }
    }

    /// Returns the rooms that have files but no container, found by their address or by the sandbox's former name.
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

    /// Observes a sandbox from the host and from inside.
    pub async fn observe(&self, address: &Address) -> Result<Observation, SandboxError> {
        self.fleet.adoption().await?;
        let room = self.fleet.known(address).ok_or_else(|| SandboxError::NoSandbox(address.to_string()))?;
        observe::observe(&self.fleet, &room).await
    }

    /// Removes a room's container, whatever its state, and its files if `with_files`. It is no error if there is
    /// none.
    pub async fn remove(&self, address: &Address, with_files: bool) -> Result<(), SandboxError> {
        self.fleet.adoption().await?;
        let Some(room) = self.fleet.known(address) else { return Ok(()) };
        life::remove(&self.fleet, &room, with_files).await
    }

    /// Sets which rooms of all accounts exist. Now and at every later comparison the containers of all other rooms
    /// are removed, and their files after the grace period. Before the first call nothing is removed.
    pub async fn keep_only(&self, addresses: impl IntoIterator<Item = Address>) {
        *self.fleet.existing.lock().unwrap_or_else(PoisonError::into_inner) = Some(addresses.into_iter().collect());
        reconcile::remove_gone(&self.fleet).await;
    }

    /// Returns hosts that programs in the room's sandbox were refused because they are not allowed.
    pub fn refused_hosts(&self, address: &Address) -> Vec<String> {
        self.fleet.gateway.refused_hosts(address)
    }

    /// Tells whether a room may clone a repository (`https://…`) now; `Err`: why git in its sandbox could not.
    pub(crate) async fn may_clone(&self, address: &Address, url: &str) -> Result<(), Denial> {
        self.fleet.gateway.may_clone(address, url).await
    }

    /// Returns a receiver of notices for rooms: that a disk is full, that a sandbox was paused.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.fleet.notices()
    }

    /// Returns the receiver of events from programs in sandboxes; `None` if somebody has it already. Events that
    /// nobody receives stay in the sandboxes' files.
    pub fn take_events(&self) -> Option<mpsc::Receiver<Arrived>> {
        self.fleet.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for an event with `word`, which tests whether events arrive; `None` if no events are watched. Call it
    /// before the event is written.
    pub fn canary(&self, word: &str) -> Option<oneshot::Receiver<()>> {
        self.fleet.ipc.as_ref()?.canary(word)
    }

    /// Tells a room that a coding agent's run has ended, unless a hook of the agent has done so.
    pub fn run_ended(&self, address: &Address, run: RunEnded) {
        if let Some(ipc) = &self.fleet.ipc {
            ipc.run_ended(address, run);
        }
    }

    /// Returns the last errors that hooks in a room's sandbox have logged; `None` if its events are not watched.
    pub fn hook_errors(&self, address: &Address) -> Option<HookErrors> {
        self.fleet.ipc.as_ref()?.hook_errors(address)
    }

    /// Compares what is known with what Podman has, which also happens each minute.
    pub async fn reconcile(&self) -> Result<(), SandboxError> {
        reconcile::reconcile(&self.fleet).await
    }

    /// Ends the server's side. The containers keep running, and the next server adopts them.
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
