//! All rooms' sandboxes: the way by which `tools`, `hub` and `ops` get one, list them, look into them and remove them.
//!
//! Holds what the parts beneath share. How one room's container comes to life is `room.rs`, who may run is `limit.rs`,
//! what else happens to containers is noticed by `reconcile.rs`, their disk is watched by `disk.rs`.

use std::{
    collections::{HashMap, HashSet},
    fmt, fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::{
    sync::{Notify, broadcast, mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use super::{
    ProxyKind, ProxyStream, Sandbox, SandboxError, disk, embed,
    engine::{Engine, Image},
    engine_info::EngineInfo,
    events,
    files::Files,
    fixed,
    id_range::IdRanges,
    life, limit,
    memory::Memory,
    name,
    observe::{self, Observation},
    options::SandboxOptions,
    reconcile,
    room::Room,
    seccomp,
};
use crate::{
    gateway::{self, Gateway},
    ids::{Address, digest},
    ipc::{Arrived, HookErrors, Ipc},
};

/// A room's proxied connections that wait to be served; beyond that the sandbox waits.
const PROXIES: usize = 64;

/// Events that wait to be taken; beyond that they stay in their files.
const EVENTS: usize = 64;

/// Notices that nobody took yet; beyond that the oldest are lost.
const NOTICES: usize = 64;

/// How long a shutdown waits for what is under way.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// How long what exists may take to be looked at: some hundred containers need seconds.
const ADOPTION_LIMIT: Duration = Duration::from_secs(30);

/// A path of a Unix socket has 108 bytes, the final NUL included; `rooms/`, 8 digits, `/sock` and two slashes are ours.
const LONGEST_STATE_DIR: usize = 107 - "/rooms/12345678/sock".len();

/// The fleet. Cheap to clone; one a state directory.
#[derive(Clone)]
pub struct Sandboxes {
    shared: Arc<Shared>,
}

/// Something that a room should be told.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Whom: the people of this account's room alone.
    pub address: Address,
    /// What: a sentence.
    pub text: String,
}

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

/// Whether what exists was taken over from the server before.
pub(super) enum Adoption {
    /// Podman was not asked yet.
    Pending,
    /// Podman's answer was no use; why.
    Failed(String),
    /// It was.
    Done,
}

/// What the parts of the fleet share.
pub(super) struct Shared {
    /// What the operator decided.
    pub(super) options: SandboxOptions,
    /// Podman.
    pub(super) engine: Engine,
    /// Serves proxied connections.
    gateway: Gateway,
    /// Takes what programs in sandboxes tell by files; `None`: the kernel has no watcher left for it.
    pub(super) ipc: Option<Ipc>,
    /// What it took, until somebody asks for it.
    events: Mutex<Option<mpsc::Receiver<Arrived>>>,
    /// sandboxd's binary, at a path that stays the same across builds.
    pub(super) sandboxd: PathBuf,
    /// Our seccomp profile, at a path that changes with it.
    pub(super) seccomp: PathBuf,
    /// The folder of the files that every sandbox gets in place of Podman's.
    pub(super) fixed: PathBuf,
    /// Every account's room that has, had or wants a container or volume.
    rooms: Mutex<HashMap<Address, Arc<Room>>>,
    /// Which ids on the host are whose.
    ids: Mutex<IdRanges>,
    /// The image, as last looked up.
    image: Mutex<Option<Image>>,
    /// What Podman said about itself.
    info: Mutex<Option<EngineInfo>>,
    /// The rooms that exist, once somebody who knows has said so.
    pub(super) existing: Mutex<Option<HashSet<Address>>>,
    /// Whether it is known what exists; nothing is created before.
    pub(super) adoption: watch::Sender<Adoption>,
    /// Rung when a sandbox stopped running.
    pub(super) freed: Notify,
    /// What all sandboxes use of memory.
    pub(super) memory: Memory,
    /// Those who want to start, in order of their coming.
    pub(super) queue: limit::Queue,
    /// Where rooms' files lie.
    pub(super) files: Files,
    /// Podman can set a hard limit on a container's writable layer.
    pub(super) quota: AtomicBool,
    /// A room's first files are an image.
    pub(super) images: AtomicBool,
    /// What Podman mounts, it also unmounts.
    pub(super) mountable: AtomicBool,
    /// Podman can mount a volume for a room's events.
    pub(super) event_volumes: AtomicBool,
    /// The host's disk is below its reserve.
    disk_low: AtomicBool,
    notices: broadcast::Sender<Notice>,
    pub(super) tasks: TaskTracker,
    pub(super) cancel: CancellationToken,
}

impl Sandboxes {
    /// Opens the fleet of the state directory: looks for Podman, adopts the sandboxes that run, and keeps watch. Comes
    /// back also where Podman is away; whatever needs it then says so until it answers.
    pub async fn open(
        options: SandboxOptions,
        gateway: Gateway,
        cancel: &CancellationToken,
    ) -> Result<Self, SandboxError> {
        let cancel = cancel.child_token();
        let tasks = TaskTracker::new();
        let sandboxd = prepare(&options.state_dir)?;
        let seccomp = seccomp::install(&options.state_dir)?;
        let fixed = fixed::install(&options.state_dir)?;
        events::open(&options.ipc_dir)
            .map_err(|source| SandboxError::Events { path: options.ipc_dir.clone(), source })?;
        let files = Files::open(&options.state_dir);
        let files = files.map_err(|source| SandboxError::Files { path: options.state_dir.clone(), source })?;
        let (socket, podman) = (options.podman_socket.clone(), options.podman_path.clone());
        let engine = Engine::start(socket, podman, &options.state_dir, &tasks, cancel.clone());
        let memory = Memory::new(options.memory_total);
        let (ipc, arriving) = Ipc::start(EVENTS, &tasks, cancel.clone())
            .inspect_err(|error| {
                // Nothing depends on them, so that all else is served.
                tracing::warn!(%error, "what programs in sandboxes tell is not shown: raise fs.inotify.max_user_instances");
            })
            .ok()
            .unzip();
        let shared = Arc::new(Shared {
            options,
            engine,
            gateway,
            ipc,
            events: Mutex::new(arriving),
            sandboxd,
            seccomp,
            fixed,
            rooms: Mutex::default(),
            ids: Mutex::default(),
            image: Mutex::default(),
            info: Mutex::default(),
            existing: Mutex::default(),
            adoption: watch::Sender::new(Adoption::Pending),
            freed: Notify::new(),
            memory,
            queue: limit::Queue::default(),
            files,
            quota: AtomicBool::new(false),
            images: AtomicBool::new(false),
            mountable: AtomicBool::new(false),
            event_volumes: AtomicBool::new(false),
            disk_low: AtomicBool::new(false),
            notices: broadcast::Sender::new(NOTICES),
            tasks,
            cancel,
        });
        shared.supervise(reconcile::run(Arc::clone(&shared)));
        shared.supervise(limit::sweep(Arc::clone(&shared)));
        shared.supervise(limit::hold_memory(Arc::clone(&shared)));
        shared.supervise(disk::run(Arc::clone(&shared)));
        shared.supervise(events::hold(Arc::clone(&shared)));
        if let Err(error) = shared.adoption().await {
            tracing::debug!(%error, "sandboxes are not usable yet"); // the cause was logged where it arose
        }
        Ok(Self { shared })
    }

    /// Returns the room's sandbox, ready for a command: created or started if need be. Calls for one room share one
    /// start; a start goes on when the caller goes away. Its lines of the log stand in the caller's span.
    pub async fn ensure(&self, address: &Address) -> Result<Sandbox, SandboxError> {
        let shared = &self.shared;
        if shared.disk_low.load(Ordering::SeqCst) {
            return Err(SandboxError::HostDiskLow);
        }
        let room = shared.room(address);
        if let Some(sandbox) = room.live() {
            return Ok(sandbox);
        }
        let start = life::start(Arc::clone(shared), room);
        let start = shared.cancel.clone().run_until_cancelled_owned(start);
        shared.tasks.spawn(start.in_current_span()).await.ok().flatten().unwrap_or(Err(SandboxError::ShuttingDown))
    }

    /// Returns what a model has to be told before it works on in a sandbox whose files were gone: once.
    pub async fn take_loss(&self, address: &Address) -> Option<SandboxError> {
        let room = self.shared.known(address).filter(|room| room.set_lost(false))?;
        let mut container = room.container.lock().await;
        if let Some(record) = &mut container.record {
            record.lost = false;
            if let Err(error) = self.shared.files.of(&room.address).note(record) {
                tracing::warn!(%error, "it cannot be noted that the model knows of its lost files");
            }
        }
        Some(SandboxError::FilesLost)
    }

    /// Returns the room's sandbox if it runs; starts none.
    pub async fn running(&self, address: &Address) -> Result<Option<Sandbox>, SandboxError> {
        self.shared.adoption().await?;
        Ok(self.shared.known(address).and_then(|room| room.connection()))
    }

    /// Lists the sandboxes, by account and room.
    pub async fn list(&self) -> Result<Vec<SandboxSummary>, SandboxError> {
        self.shared.adoption().await?;
        let mut list: Vec<_> = self.shared.rooms().values().filter_map(|room| room.summary()).collect();
        list.sort_by(|a, b| a.address.cmp(&b.address));
        Ok(list)
    }

    /// Finds the rooms that have files but no container any more, by the address or by the name that the sandbox had.
    pub async fn without_container(&self, named: &str) -> Result<Vec<Address>, SandboxError> {
        self.shared.adoption().await?;
        let mut found = Vec::new();
        for room in self.shared.all() {
            let Ok(container) = room.container.try_lock() else { continue }; // it is being started
            if container.name.is_some() || !container.has_files() {
                continue;
            }
            let names = name::candidates(&self.shared.options.instance, &room.address);
            let volume = container.volume.as_ref().map(|volume| volume.name.as_str());
            if room.address.to_string() == named || volume == Some(named) || volume.is_none() && names[0] == named {
                found.push(room.address.clone());
            }
        }
        Ok(found)
    }

    /// Looks at a sandbox from the host and from inside.
    pub async fn observe(&self, address: &Address) -> Result<Observation, SandboxError> {
        self.shared.adoption().await?;
        let room = self.shared.known(address).ok_or_else(|| SandboxError::NoSandbox(address.to_string()))?;
        observe::observe(&self.shared, &room).await
    }

    /// Removes a room's container, whatever it does, and its files too if `with_files`. None is no error.
    pub async fn remove(&self, address: &Address, with_files: bool) -> Result<(), SandboxError> {
        self.shared.adoption().await?;
        let Some(room) = self.shared.known(address) else { return Ok(()) };
        life::remove(&self.shared, &room, with_files).await
    }

    /// Says which rooms exist, of all accounts. At once and at every later look the containers of all others are removed,
    /// and their files after the grace. Until it is called, nothing is removed.
    pub async fn keep_only(&self, addresses: impl IntoIterator<Item = Address>) {
        *self.shared.existing.lock().unwrap_or_else(PoisonError::into_inner) = Some(addresses.into_iter().collect());
        reconcile::remove_gone(&self.shared).await;
    }

    /// Returns what rooms should be told from now on: that their disk is full, that they were paused.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.shared.notices.subscribe()
    }

    /// Returns what programs in sandboxes tell from now on, once: whoever asks first has it. While nobody takes it, it stays
    /// in the sandboxes' files.
    pub fn take_events(&self) -> Option<mpsc::Receiver<Arrived>> {
        self.shared.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for an event that somebody drops to see whether it arrives; `None`: no events are watched. Ask before it is sent.
    pub fn canary(&self, word: &str) -> Option<oneshot::Receiver<()>> {
        self.shared.ipc.as_ref()?.canary(word)
    }

    /// Returns what hooks in a room's sandbox have written down about themselves; `None`: it is not watched.
    pub fn hook_errors(&self, address: &Address) -> Option<HookErrors> {
        self.shared.ipc.as_ref()?.hook_errors(address)
    }

    /// Returns what Podman says about itself.
    pub async fn engine_info(&self) -> Result<EngineInfo, SandboxError> {
        Ok(EngineInfo::ask(&self.shared.engine).await?)
    }

    /// Compares what Podman has with what is known, as happens each minute by itself.
    pub async fn reconcile(&self) -> Result<(), SandboxError> {
        reconcile::reconcile(&self.shared).await
    }

    /// Ends the server's side. The containers run on, and are adopted by the next server.
    pub async fn shutdown(&self) {
        self.shared.cancel.cancel();
        self.shared.tasks.close();
        for room in self.shared.rooms().values() {
            room.forget_link();
        }
        if timeout(SHUTDOWN_LIMIT, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("some work on sandboxes did not end in time");
        }
    }
}

impl Shared {
    /// Runs `task` until the fleet ends.
    pub(super) fn supervise(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            cancel.run_until_cancelled_owned(task).await;
        });
    }

    /// Waits until it is known what exists. That Podman is away, or cannot be asked, is an error at once.
    pub(super) async fn adoption(&self) -> Result<(), SandboxError> {
        self.engine.reached().await?;
        let mut adoption = self.adoption.subscribe();
        let settled = adoption.wait_for(|adoption| !matches!(adoption, Adoption::Pending));
        match timeout(ADOPTION_LIMIT, settled).await {
            Ok(Ok(adoption)) => match &*adoption {
                Adoption::Failed(why) => Err(SandboxError::NotListed(why.clone())),
                Adoption::Done | Adoption::Pending => Ok(()),
            },
            Ok(Err(_)) => Err(SandboxError::ShuttingDown),
            Err(_) => Err(SandboxError::TimedOut { limit: ADOPTION_LIMIT, note: None }),
        }
    }

    pub(super) fn rooms(&self) -> MutexGuard<'_, HashMap<Address, Arc<Room>>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the room, known or not.
    pub(super) fn room(&self, address: &Address) -> Arc<Room> {
        Arc::clone(self.rooms().entry(address.clone()).or_insert_with(|| Arc::new(Room::new(address.clone()))))
    }

    /// Returns the room if it is known.
    pub(super) fn known(&self, address: &Address) -> Option<Arc<Room>> {
        self.rooms().get(address).map(Arc::clone)
    }

    /// Returns all rooms that are known.
    pub(super) fn all(&self) -> Vec<Arc<Room>> {
        self.rooms().values().map(Arc::clone).collect()
    }

    pub(super) fn ids(&self) -> MutexGuard<'_, IdRanges> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the host's end of a room's socket is.
    pub(super) fn directory(&self, room: &Room) -> PathBuf {
        room.directory(&self.options.state_dir)
    }

    /// Where the spread of id ranges starts for this server.
    pub(super) fn id_seed(&self) -> u64 {
        u64::from_str_radix(&digest(&[&self.options.instance], 7), 16).unwrap_or_default()
    }

    /// Returns the image, looked up at most once between two reconciliations.
    pub(super) async fn image(&self) -> Result<Image, SandboxError> {
        if let Some(image) = self.cached_image().clone() {
            return Ok(image);
        }
        self.look_up_image().await
    }

    /// Looks the image up anew.
    pub(super) async fn look_up_image(&self) -> Result<Image, SandboxError> {
        let found = self.engine.image(&self.options.image).await;
        *self.cached_image() = found.as_ref().ok().cloned();
        Ok(found?)
    }

    fn cached_image(&self) -> MutexGuard<'_, Option<Image>> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what Podman said about itself when it was asked first.
    pub(super) async fn info(&self) -> Result<EngineInfo, SandboxError> {
        if let Some(info) = self.info.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(info);
        }
        let info = EngineInfo::ask(&self.engine).await?;
        *self.info.lock().unwrap_or_else(PoisonError::into_inner) = Some(info.clone());
        Ok(info)
    }

    /// Returns Podman if it runs rootless: its user namespace alone may look into rooms' files then.
    pub(super) async fn rootless(&self) -> Option<PathBuf> {
        let rootless = self.info().await.is_ok_and(|info| info.rootless);
        rootless.then(|| self.options.podman_path.clone())
    }

    /// Returns why no image can be mounted here, if that is so.
    pub(super) fn unmountable(&self) -> Option<String> {
        let mountable = self.mountable.load(Ordering::SeqCst);
        (!mountable).then(|| "what Podman mounts here stays mounted".to_owned())
    }

    /// Says whether the host's disk is below its reserve: no command starts while it is.
    pub(super) fn set_disk_low(&self, low: bool) {
        self.disk_low.store(low, Ordering::SeqCst);
    }

    /// Tells the room something, if anybody listens. Called in a span of the room's.
    pub(super) fn tell(&self, address: &Address, text: String) {
        tracing::warn!(%text, "a sandbox's room is told");
        let _ = self.notices.send(Notice { address: address.clone(), text }); // nobody listening is no error
    }

    /// Returns where a room's link puts proxied connections, each of which is then served to its end.
    pub(super) fn proxies(self: &Arc<Self>, address: &Address) -> mpsc::Sender<ProxyStream> {
        let (sender, mut receiver) = mpsc::channel(PROXIES);
        let (shared, address) = (Arc::clone(self), address.clone());
        self.supervise(async move {
            while let Some(ProxyStream { kind, stream }) = receiver.recv().await {
                let kind = match kind {
                    ProxyKind::Web => gateway::ProxyKind::Web,
                    ProxyKind::Git => gateway::ProxyKind::Git,
                    ProxyKind::Models => gateway::ProxyKind::Models,
                };
                let (gateway, address) = (shared.gateway.clone(), address.clone());
                shared.supervise(async move { gateway.serve(&address, kind, stream).await });
            }
        });
        sender
    }
}

/// Makes the state directory's parts and puts sandboxd at a path that stays the same across builds: a container keeps
/// its mounts' sources for life, and gets the newest sandboxd when it next starts.
fn prepare(state_dir: &Path) -> Result<PathBuf, SandboxError> {
    if state_dir.as_os_str().len() > LONGEST_STATE_DIR {
        return Err(SandboxError::StateDirTooLong { path: state_dir.to_owned(), longest: LONGEST_STATE_DIR });
    }
    let built = embed::install(state_dir)?;
    let stable = state_dir.join("sandboxd");
    let failed = |path: &Path, source: io::Error| SandboxError::Install { path: path.to_owned(), source };
    let fresh = state_dir.join(format!("sandboxd.{}.tmp", crate::ids::random(4)));
    fs::hard_link(&built, &fresh).and_then(|()| fs::rename(&fresh, &stable)).map_err(|error| failed(&stable, error))?;
    // rename(2) does nothing where both names are one file already.
    let _ = fs::remove_file(&fresh);

    // Closed to other users of the host: the rooms' sockets in it are open to all, since containers' roots are strangers.
    let rooms = state_dir.join("rooms");
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&rooms);
    let closed = made.and_then(|()| fs::set_permissions(&rooms, fs::Permissions::from_mode(0o700)));
    closed.map_err(|source| SandboxError::Socket { path: rooms.clone(), source })?;
    Ok(stable)
}
