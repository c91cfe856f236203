//! One room as the fleet knows it: its container and volume, the host's end of its connection, when it was used.
//!
//! Only state, no Podman: what brings a container to life is `life.rs`. Everything that changes a container happens
//! under its room's lock, so that two calls for one room share one start, while different rooms go in parallel.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::{
    sync::{Mutex as Lock, Notify},
    time::Instant,
};

use super::{
    Link, Sandbox,
    cgroup::{Cgroup, MemoryGroup},
    files::Record,
    hidden,
    id_range::IdRange,
    sockets,
};
use crate::{ids::Address, ipc::Watch};

/// One room's sandbox in the list of all.
#[derive(Clone, Debug, Serialize)]
pub struct SandboxSummary {
    /// Whose it is.
    #[serde(flatten)]
    pub address: Address,
    /// The container's name.
    pub name: String,
    /// Whether it runs.
    pub state: SandboxState,
    /// Seconds since it was used last, as far as this server knows.
    pub idle_seconds: u64,
}

impl fmt::Display for SandboxSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8}  {}  {}", self.state.as_str(), self.name, self.address)
    }
}

/// How a sandbox stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxState {
    /// It runs and answers.
    Running,
    /// It is being started or has not dialled back yet.
    Starting,
    /// It is frozen: by us until the host has disk again, or by somebody else.
    Paused,
    /// It starts when it is asked for.
    Stopped,
}

impl SandboxState {
    /// Returns the state in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A room, whether or not it has a container.
pub(super) struct Room {
    pub(super) address: Address,
    /// The directory of its socket, once somebody has asked for it.
    directory: Mutex<Option<PathBuf>>,
    /// What is known of its container and volume. The lock is held while they change.
    pub(super) container: Lock<Container>,
    /// The container's name, for those who must not wait for the lock.
    name: Mutex<Option<String>>,
    /// The host's end of the connection, while the container runs.
    link: Mutex<Option<Arc<Link>>>,
    /// Its events are taken, while the container runs.
    events: Mutex<Option<Watch>>,
    /// It counts among the running ones.
    running: AtomicBool,
    /// It is about to be stopped: whoever wants it waits for the lock.
    stopping: AtomicBool,
    /// We froze it for want of disk.
    frozen: AtomicBool,
    /// Podman said last that it is paused, whoever did that.
    paused: AtomicBool,
    last_used: Mutex<Instant>,
    /// Its PID 1 on the host, while it runs; 0: there is none.
    pid: AtomicU32,
    /// Where the kernel counts its memory, while it runs.
    memory: Mutex<Option<MemoryGroup>>,
    /// The memory that it used when it was looked at last, while it runs.
    pub(super) memory_used: AtomicU64,
    /// Its files were gone, and the model was not told yet.
    lost: AtomicBool,
    /// Rung when Podman tells of the end of its PID 1.
    pub(super) ended: Notify,
}

/// What is known of a room's container and volume.
#[derive(Default)]
pub(super) struct Container {
    /// Its name; `None`: there is no container.
    pub(super) name: Option<String>,
    /// The label that tells what it was made of.
    pub(super) spec: Option<String>,
    pub(super) volume: Option<RoomVolume>,
    /// What was written down of its files.
    pub(super) record: Option<Record>,
    /// Its files were made by the start that is under way.
    pub(super) fresh: bool,
    /// Its files could not be moved out of Podman's volume: not tried again by this server.
    pub(super) unmoved: bool,
}

/// A room's volume.
#[derive(Clone)]
pub(super) struct RoomVolume {
    pub(super) name: String,
    pub(super) mountpoint: PathBuf,
    /// The room's ids on the host as its label tells; `None`: made by rootless Podman.
    pub(super) ids: Option<IdRange>,
    /// The image that it is; `None`: its files lie in Podman's storage, as those of older servers did.
    pub(super) image: Option<PathBuf>,
}

impl Container {
    /// Returns the room's ids on the host; `None`: made by rootless Podman, or not chosen yet.
    pub(super) fn ids(&self) -> Option<IdRange> {
        let volume = || self.volume.as_ref().and_then(|volume| volume.ids);
        self.record.as_ref().map_or_else(volume, Record::ids)
    }

    /// Tells whether the room has, or had, files.
    pub(super) fn has_files(&self) -> bool {
        self.volume.is_some() || self.record.is_some()
    }

    /// Tells whether its files lie where a `prune` of Podman's reaches them, and may be moved.
    pub(super) fn is_to_be_moved(&self) -> bool {
        !self.unmoved && self.volume.as_ref().is_some_and(|volume| volume.image.is_none())
    }
}

impl Room {
    pub(super) fn new(address: Address) -> Self {
        Self {
            directory: Mutex::default(),
            address,
            container: Lock::default(),
            name: Mutex::default(),
            link: Mutex::default(),
            events: Mutex::default(),
            running: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            last_used: Mutex::new(Instant::now()),
            pid: AtomicU32::new(0),
            memory: Mutex::default(),
            memory_used: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            ended: Notify::new(),
        }
    }

    /// Returns the directory of the room's socket.
    pub(super) fn directory(&self, state_dir: &Path) -> PathBuf {
        locked(&self.directory).get_or_insert_with(|| sockets::directory(state_dir, &self.address)).clone()
    }

    /// Removes the directory of the room's socket; the next sandbox gets another one.
    pub(super) fn remove_directory(&self, state_dir: &Path) -> io::Result<()> {
        let directory = self.directory(state_dir);
        locked(&self.directory).take();
        sockets::remove(state_dir, &self.address, &directory)
    }

    /// Returns the live connection, for use: whoever stops idle ones sees it. `None`: the lock has to be waited for.
    pub(super) fn live(&self) -> Option<Sandbox> {
        self.touch(); // before the look at `stopping`: whoever stops it looks the other way round
        if self.stopping.load(Ordering::SeqCst) {
            return None;
        }
        self.connection()
    }

    /// Returns the live connection without using it. `None` also while nothing behind it can answer.
    pub(super) fn connection(&self) -> Option<Sandbox> {
        if self.is_held() {
            return None;
        }
        self.link().and_then(|link| link.current()).filter(Sandbox::is_connected)
    }

    /// Notes that it is used now.
    pub(super) fn touch(&self) {
        *locked(&self.last_used) = Instant::now();
    }

    /// Returns the time since it was used last.
    pub(super) fn idle(&self) -> Duration {
        locked(&self.last_used).elapsed()
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }

    pub(super) fn set_running(&self, running: bool) {
        self.running.store(running, Ordering::SeqCst);
    }

    /// Notes which process on the host is its PID 1, whose control group tells what the sandbox uses.
    pub(super) fn note_pid(&self, pid: Option<u32>) {
        self.pid.store(pid.unwrap_or_default(), Ordering::SeqCst);
        *locked(&self.memory) = pid.and_then(|pid| Cgroup::of(pid).ok()?.memory_group());
    }

    /// Returns the bytes that its processes have written so far.
    pub(super) fn written(&self) -> u64 {
        match self.pid.load(Ordering::SeqCst) {
            0 => 0,
            pid => hidden::written(pid),
        }
    }

    /// Tells whether open files are on their way between its processes.
    pub(super) fn sends_files(&self) -> bool {
        match self.pid.load(Ordering::SeqCst) {
            0 => false,
            pid => hidden::sends_files(pid),
        }
    }

    /// Tells whether the kernel takes no more writes to its workspace.
    pub(super) fn workspace_has_failed(&self) -> bool {
        match self.pid.load(Ordering::SeqCst) {
            0 => false,
            pid => hidden::workspace_has_failed(pid),
        }
    }

    pub(super) fn memory_group(&self) -> Option<MemoryGroup> {
        locked(&self.memory).clone()
    }

    pub(super) fn set_stopping(&self, stopping: bool) {
        self.stopping.store(stopping, Ordering::SeqCst);
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst)
    }

    pub(super) fn set_frozen(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
    }

    /// Tells whether nothing in it runs on for now, whoever froze it.
    pub(super) fn is_held(&self) -> bool {
        self.is_frozen() || self.paused.load(Ordering::SeqCst)
    }

    /// Notes whether the model has to be told that the room's files were gone; returns whether it had to be.
    pub(super) fn set_lost(&self, lost: bool) -> bool {
        self.lost.swap(lost, Ordering::SeqCst)
    }

    /// Returns the container's name, if there is one.
    pub(super) fn container_name(&self) -> Option<String> {
        locked(&self.name).clone()
    }

    /// Returns its line in the list; `None`: it has no container.
    pub(super) fn summary(&self) -> Option<SandboxSummary> {
        let state = if !self.is_running() {
            SandboxState::Stopped
        } else if self.is_held() {
            SandboxState::Paused
        } else if self.connection().is_some() {
            SandboxState::Running
        } else {
            SandboxState::Starting
        };
        let name = self.container_name()?;
        Some(SandboxSummary { address: self.address.clone(), name, state, idle_seconds: self.idle().as_secs() })
    }

    /// Notes which container there is, and what it was made of.
    pub(super) fn note_container(&self, container: &mut Container, found: Option<(&str, Option<&str>)>) {
        container.name = found.map(|(name, _)| name.to_owned());
        container.spec = found.and_then(|(_, spec)| spec).map(str::to_owned);
        locked(&self.name).clone_from(&container.name);
    }

    pub(super) fn link(&self) -> Option<Arc<Link>> {
        locked(&self.link).clone()
    }

    pub(super) fn set_link(&self, link: Link) {
        *locked(&self.link) = Some(Arc::new(link));
    }

    /// Notes that its events are taken.
    pub(super) fn set_events(&self, watch: Watch) {
        *locked(&self.events) = Some(watch);
    }

    /// Drops the host's end of the connection; what runs inside is not touched.
    pub(super) fn forget_link(&self) {
        locked(&self.events).take();
        if let Some(link) = locked(&self.link).take() {
            link.set_peer(None); // others may hold it a little longer
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
