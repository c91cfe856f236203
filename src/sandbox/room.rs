//! A room in the fleet: its container and volume, the host's end of its connection, and when it was used.
//!
//! This is state only; `life.rs` starts containers. Whatever changes a container does so under its room's lock, so
//! that two calls for one room share one start, while different rooms go on in parallel.

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
    silence::Silence,
    sockets,
};
use crate::{ids::Address, ipc::Watch, text};

/// A room's sandbox as it is listed.
#[derive(Clone, Debug, Serialize)]
pub struct SandboxSummary {
    /// The account and room to which it belongs.
    #[serde(flatten)]
    pub address: Address,
    /// The container's name.
    pub name: String,
    /// Its state.
    pub state: SandboxState,
    /// Seconds since it was last used, as far as this server knows.
    pub idle_seconds: u64,
    /// Bytes of memory that it used when that was looked at last, while it runs.
    pub memory_used: Option<u64>,
    /// Bytes that it took on the disk when its files were counted last.
    pub disk_used: Option<u64>,
}

impl fmt::Display for SandboxSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8}  {}  {}", self.state.as_str(), self.name, text::shown_name(&self.address.to_string()))
    }
}

/// The state of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxState {
    /// It runs and answers.
    Running,
    /// It is being started, or its sandboxd has not connected yet.
    Starting,
    /// It is frozen: by this server until the host has disk space again, or by somebody else.
    Paused,
    /// It does not run; its next use starts it.
    Stopped,
}

impl SandboxState {
    /// All states.
    pub(crate) const ALL: [Self; 4] = [Self::Running, Self::Starting, Self::Paused, Self::Stopped];

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
    /// The directory of its socket, once it was asked for.
    directory: Mutex<Option<PathBuf>>,
    /// Its container and volume. The lock is held while they change.
    pub(super) container: Lock<Container>,
    /// The container's name, for callers that must not wait for the lock.
    name: Mutex<Option<String>>,
    /// The host's end of the connection, while the container runs.
    link: Mutex<Option<Arc<Link>>>,
    /// Watches its events while the container runs.
    events: Mutex<Option<Watch>>,
    /// Whether it counts as running.
    running: AtomicBool,
    /// Whether it is about to be stopped; then callers wait for the lock.
    stopping: AtomicBool,
    /// Whether this server froze it for want of disk space.
    frozen: AtomicBool,
    /// Whether it was paused when Podman last said so, by whomever.
    paused: AtomicBool,
    last_used: Mutex<Instant>,
    /// How long its sandboxd has not said what runs in it, though it was asked.
    silence: Mutex<Silence>,
    /// The host's pid of its PID 1 while it runs, else 0.
    pid: AtomicU32,
    /// Its memory control group while it runs.
    memory: Mutex<Option<MemoryGroup>>,
    /// The memory that it used when last measured, in bytes.
    pub(super) memory_used: AtomicU64,
    /// When its files were counted last, and the bytes that they took.
    disk: Mutex<Option<Counted>>,
    /// Whether its files were lost and the model has not been told yet.
    lost: AtomicBool,
    /// Notified when Podman reports the end of its PID 1.
    pub(super) ended: Notify,
}

/// A count of a room's files.
#[derive(Clone, Copy, Debug)]
struct Counted {
    at: Instant,
    bytes: Option<u64>,
}

/// What is known of a room's container and volume.
#[derive(Default)]
pub(super) struct Container {
    /// The container's name; `None` if there is none.
    pub(super) name: Option<String>,
    /// The container's spec label: a digest of all that it was made with.
    pub(super) spec: Option<String>,
    pub(super) volume: Option<RoomVolume>,
    /// The record of its files.
    pub(super) record: Option<Record>,
    /// Whether the running start has made its files.
    pub(super) fresh: bool,
    /// Whether its files could not be moved out of Podman's volume; this server does not try again.
    pub(super) unmoved: bool,
}

/// A room's volume.
#[derive(Clone)]
pub(super) struct RoomVolume {
    pub(super) name: String,
    pub(super) mountpoint: PathBuf,
    /// The room's ids on the host, from its label; `None` if rootless Podman made it.
    pub(super) ids: Option<IdRange>,
    /// The image that it mounts; `None` if its files are in Podman's storage, as those of older servers were.
    pub(super) image: Option<PathBuf>,
}

impl Container {
    /// Returns the room's ids on the host; `None` with rootless Podman, or before they are chosen.
    pub(super) fn ids(&self) -> Option<IdRange> {
        let volume = || self.volume.as_ref().and_then(|volume| volume.ids);
        self.record.as_ref().map_or_else(volume, Record::ids)
    }

    /// Returns whether the room has or had files.
    pub(super) fn has_files(&self) -> bool {
        self.volume.is_some() || self.record.is_some()
    }

    /// Returns whether its files are in Podman's storage, where a `prune` reaches them, and may be moved.
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
            silence: Mutex::default(),
            pid: AtomicU32::new(0),
            memory: Mutex::default(),
            memory_used: AtomicU64::new(0),
            disk: Mutex::default(),
            lost: AtomicBool::new(false),
            ended: Notify::new(),
        }
    }

    /// Returns the directory of the room's socket.
    pub(super) fn directory(&self, state_dir: &Path) -> PathBuf {
        locked(&self.directory).get_or_insert_with(|| sockets::directory(state_dir, &self.address)).clone()
    }

    /// Removes the directory of the room's socket; the next sandbox gets another.
    pub(super) fn remove_directory(&self, state_dir: &Path) -> io::Result<()> {
        let directory = self.directory(state_dir);
        locked(&self.directory).take();
        sockets::remove(state_dir, &self.address, &directory)
    }

    /// Returns the live connection and marks the room as used. `None` means that the caller has to wait for the lock.
    pub(super) fn live(&self) -> Option<Sandbox> {
        self.touch(); // before reading `stopping`; a stop sets that first and then reads the last use
        if self.stopping.load(Ordering::SeqCst) {
            return None;
        }
        self.connection()
    }

    /// Returns the live connection without marking the room as used. `None` also while it is frozen.
    pub(super) fn connection(&self) -> Option<Sandbox> {
        if self.is_held() {
            return None;
        }
        self.link().and_then(|link| link.current()).filter(Sandbox::is_connected)
    }

    /// Marks it as used now.
    pub(super) fn touch(&self) {
        *locked(&self.last_used) = Instant::now();
    }

    /// Notes whether its sandboxd has answered a question, and returns for how long it has answered none; see [`Silence::note`].
    pub(super) fn silent(&self, answered: bool, apart: Duration) -> Duration {
        locked(&self.silence).note(answered, Instant::now(), apart)
    }

    /// Returns the time since it was last used.
    pub(super) fn idle(&self) -> Duration {
        locked(&self.last_used).elapsed()
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }

    pub(super) fn set_running(&self, running: bool) {
        self.running.store(running, Ordering::SeqCst);
    }

    /// Notes the pid of its PID 1, from whose control group its usage is read.
    pub(super) fn note_pid(&self, pid: Option<u32>) {
        self.pid.store(pid.unwrap_or_default(), Ordering::SeqCst);
        *locked(&self.memory) = pid.and_then(|pid| Cgroup::of(pid).ok()?.memory_group());
    }

    /// Returns the bytes that its processes have written.
    pub(super) fn written(&self) -> u64 {
        match self.pid.load(Ordering::SeqCst) {
            0 => 0,
            pid => hidden::written(pid),
        }
    }

    /// Returns whether open files are being passed between its processes.
    pub(super) fn sends_files(&self) -> bool {
        match self.pid.load(Ordering::SeqCst) {
            0 => false,
            pid => hidden::sends_files(pid),
        }
    }

    /// Returns whether the kernel refuses writes to its workspace since the disk has failed.
    pub(super) fn workspace_has_failed(&self) -> bool {
        match self.pid.load(Ordering::SeqCst) {
            0 => false,
            pid => hidden::workspace_has_failed(pid),
        }
    }

    pub(super) fn memory_group(&self) -> Option<MemoryGroup> {
        locked(&self.memory).clone()
    }

    /// Notes a count of its files; `None` if that has failed, which leaves the last one.
    pub(super) fn note_disk(&self, bytes: Option<u64>) {
        let mut disk = locked(&self.disk);
        let bytes = bytes.or(disk.and_then(|counted| counted.bytes));
        *disk = Some(Counted { at: Instant::now(), bytes });
    }

    /// Returns how long ago its files were counted.
    pub(super) fn disk_counted(&self) -> Option<Duration> {
        locked(&self.disk).map(|counted| counted.at.elapsed())
    }

    /// Returns the bytes that it took on the disk when its files were counted last.
    pub(super) fn disk_used(&self) -> Option<u64> {
        locked(&self.disk).and_then(|counted| counted.bytes)
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

    /// Returns whether it is frozen, by whomever.
    pub(super) fn is_held(&self) -> bool {
        self.is_frozen() || self.paused.load(Ordering::SeqCst)
    }

    /// Sets whether the model must be told that the room's files were lost; returns the earlier value.
    pub(super) fn set_lost(&self, lost: bool) -> bool {
        self.lost.swap(lost, Ordering::SeqCst)
    }

    /// Returns the container's name, if there is one.
    pub(super) fn container_name(&self) -> Option<String> {
        locked(&self.name).clone()
    }

    /// Returns its line in the list; `None` if it has no container.
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
        let used = self.memory_used.load(Ordering::SeqCst);
        let memory_used = Some(used).filter(|used| *used > 0 && self.is_running());
        let idle_seconds = self.idle().as_secs();
        let disk_used = self.disk_used();
        Some(SandboxSummary { address: self.address.clone(), name, state, idle_seconds, memory_used, disk_used })
    }

    /// Sets which container there is, and its spec label.
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

    /// Keeps the watch of its events.
    pub(super) fn set_events(&self, watch: Watch) {
        *locked(&self.events) = Some(watch);
    }

    /// Drops the host's end of the connection; nothing inside is touched.
    pub(super) fn forget_link(&self) {
        locked(&self.events).take();
        if let Some(link) = locked(&self.link).take() {
            link.set_peer(None); // other owners may keep the link a little longer
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
