//! The state of all rooms' sandboxes, and what each of them needs: Podman, the image, the gateway, the id ranges.
//!
//! This is state only. The modules that act on sandboxes (`life.rs`, `limit.rs`, `reconcile.rs`, `disk.rs` …) get the
//! fleet and know it; it knows none of them. The rest of the server sees [`Sandboxes`](super::Sandboxes).

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex as Lock, Notify, broadcast, mpsc, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ProxyKind, ProxyStream, SandboxError, embed,
    engine::{Engine, Image},
    engine_info::EngineInfo,
    files::Files,
    fixed,
    id_range::IdRanges,
    memory::Memory,
    options::SandboxOptions,
    queue::Queue,
    room::Room,
    runtime, seccomp, sockets,
};
use crate::{
    gateway::{self, Gateway},
    ids::{Address, digest},
    ipc::{Arrived, Ipc},
};

/// Proxied connections of a room that may wait for the gateway; then the sandbox has to wait.
const PROXIES: usize = 64;

/// Events that may wait to be taken; more stay in their files.
const EVENTS: usize = 64;

/// Notices that a receiver may have unread; then the oldest are lost.
const NOTICES: usize = 64;

/// How long taking over what exists may take: some hundred containers need seconds.
const ADOPTION_LIMIT: Duration = Duration::from_secs(30);

/// A Unix socket's path has at most 108 bytes with the final NUL; the rest of it is ours.
const LONGEST_STATE_DIR: usize = 107 - "/rooms/12345678/sock".len();

/// Something that a room should be told.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The room that is told, as one account knows it.
    pub address: Address,
    /// A sentence.
    pub text: String,
}

/// Whether the sandboxes of an earlier server were taken over.
pub(super) enum Adoption {
    /// Not yet.
    Pending,
    /// It failed; holds the reason.
    Failed(String),
    /// They were.
    Done,
}

/// The state of all sandboxes.
pub(super) struct Fleet {
    /// What the operator decided.
    pub(super) options: SandboxOptions,
    /// Podman.
    pub(super) engine: Engine,
    /// Serves the sandboxes' proxied connections.
    pub(super) gateway: Gateway,
    /// Reads the events of all sandboxes; `None` if the kernel has no inotify instance left.
    pub(super) ipc: Option<Ipc>,
    /// The receiver of events, until somebody takes it.
    pub(super) events: Mutex<Option<mpsc::Receiver<Arrived>>>,
    /// The path of sandboxd's binary, the same for all builds.
    pub(super) sandboxd: PathBuf,
    /// The path of the seccomp profile, which changes with its content.
    pub(super) seccomp: PathBuf,
    /// The directory of the files from `fixed.rs`.
    pub(super) fixed: PathBuf,
    /// All accounts' rooms that have, had or want a container or volume.
    rooms: Mutex<HashMap<Address, Arc<Room>>>,
    /// The workshops that are open, each with the room for which it works.
    workshops: Mutex<HashMap<Address, Address>>,
    /// Which rooms have which id ranges on the host.
    ids: Mutex<IdRanges>,
    /// The image, as last looked up.
    image: Mutex<Option<Image>>,
    /// What Podman said about itself.
    info: Mutex<Option<EngineInfo>>,
    /// The rooms that may keep a sandbox, once [`Sandboxes::keep_only`](super::Sandboxes::keep_only) was called.
    pub(super) existing: Mutex<Option<HashSet<Address>>>,
    /// Whether what exists was taken over; nothing is created before.
    pub(super) adoption: watch::Sender<Adoption>,
    /// Notified when a sandbox has stopped running.
    pub(super) freed: Notify,
    /// The memory that all sandboxes use.
    pub(super) memory: Memory,
    /// Held while files are counted for those who look on.
    pub(super) counting: Arc<Lock<()>>,
    /// The queue of starts that wait for a place.
    pub(super) queue: Queue,
    /// Where rooms' files lie.
    pub(super) files: Files,
    /// Whether Podman can set a quota on a container's writable layer.
    pub(super) quota: AtomicBool,
    /// Whether new rooms get an image rather than a directory.
    pub(super) images: AtomicBool,
    /// Whether unmounts spread from Podman's mount namespace to the host's.
    pub(super) mountable: AtomicBool,
    /// Whether Podman can mount a volume for events.
    pub(super) event_volumes: AtomicBool,
    /// Whether the host's free disk is below its reserve.
    disk_low: AtomicBool,
    notices: broadcast::Sender<Notice>,
    pub(super) tasks: TaskTracker,
    pub(super) cancel: CancellationToken,
}

impl Fleet {
    /// Makes the directories in the state directory and starts looking for Podman. No sandbox is known yet.
    pub(super) fn open(
        options: SandboxOptions,
        gateway: Gateway,
        cancel: CancellationToken,
    ) -> Result<Arc<Self>, SandboxError> {
        let tasks = TaskTracker::new();
        let sandboxd = prepare(&options.state_dir)?;
        let seccomp = seccomp::install(&options.state_dir, options.runtime)?;
        let fixed = fixed::install(&options.state_dir)?;
        let files = Files::open(&options.state_dir);
        let files = files.map_err(|source| SandboxError::Files { path: options.state_dir.clone(), source })?;
        let state = &options.state_dir;
        let passed = [state.clone(), state.join("rooms"), fixed.clone(), state.join("workspaces")];
        runtime::let_pass(options.runtime, &passed)
            .map_err(|source| SandboxError::Install { path: state.clone(), source })?;
        let (socket, podman) = (options.podman_socket.clone(), options.podman_path.clone());
        let engine = Engine::start(socket, podman, options.runtime, &options.state_dir, &tasks, cancel.clone());
        let memory = Memory::new(options.memory_total);
        let (ipc, arriving) = Ipc::start(EVENTS, &tasks, cancel.clone())
            .inspect_err(|error| {
                // The events are decoration, so that everything else is served without them.
                tracing::warn!(%error, "what programs in sandboxes tell is not shown: raise fs.inotify.max_user_instances");
            })
            .ok()
            .unzip();
        Ok(Arc::new(Self {
            options,
            engine,
            gateway,
            ipc,
            events: Mutex::new(arriving),
            sandboxd,
            seccomp,
            fixed,
            rooms: Mutex::default(),
            workshops: Mutex::default(),
            ids: Mutex::default(),
            image: Mutex::default(),
            info: Mutex::default(),
            existing: Mutex::default(),
            adoption: watch::Sender::new(Adoption::Pending),
            freed: Notify::new(),
            memory,
            counting: Arc::default(),
            queue: Queue::default(),
            files,
            quota: AtomicBool::new(false),
            images: AtomicBool::new(false),
            mountable: AtomicBool::new(false),
            event_volumes: AtomicBool::new(false),
            disk_low: AtomicBool::new(false),
            notices: broadcast::Sender::new(NOTICES),
            tasks,
            cancel,
        }))
    }

    /// Runs `task` until the fleet ends.
    pub(super) fn supervise(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            cancel.run_until_cancelled_owned(task).await;
        });
    }

    /// Waits until what exists was taken over. Fails at once if Podman is away or its answer was of no use.
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

    pub(super) fn workshops(&self) -> MutexGuard<'_, HashMap<Address, Address>> {
        self.workshops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the room as which a sandbox goes out: its own, or that for which a workshop works.
    pub(super) fn goes_out_as(&self, address: &Address) -> Address {
        self.workshops().get(address).unwrap_or(address).clone()
    }

    /// Returns the room, which need not be known yet.
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

    /// Returns the directory with the host's end of a room's socket.
    pub(super) fn directory(&self, room: &Room) -> PathBuf {
        room.directory(&self.options.state_dir)
    }

    /// Returns the proof by which the room's sandboxd is known where the kernel does not show its pid.
    pub(super) fn proof(&self, room: &Room) -> Result<String, SandboxError> {
        sockets::proof(&self.options.state_dir, &room.address)
            .map_err(|source| SandboxError::Socket { path: self.directory(room), source })
    }

    /// Returns the number from which this server's choice of id ranges starts.
    pub(super) fn id_seed(&self) -> u64 {
        u64::from_str_radix(&digest(&[&self.options.instance], 7), 16).unwrap_or_default()
    }

    /// Returns the image, which is looked up once between two reconciliations.
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

    /// Returns what Podman says about itself, asked once.
    pub(super) async fn info(&self) -> Result<EngineInfo, SandboxError> {
        if let Some(info) = self.info.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(info);
        }
        let info = EngineInfo::ask(&self.engine).await?;
        *self.info.lock().unwrap_or_else(PoisonError::into_inner) = Some(info.clone());
        Ok(info)
    }

    /// Returns the path of Podman if it is rootless: then rooms' files can only be reached in its user namespace.
    pub(super) async fn rootless(&self) -> Option<PathBuf> {
        let rootless = self.info().await.is_ok_and(|info| info.rootless);
        rootless.then(|| self.options.podman_path.clone())
    }

    /// Returns why images cannot be mounted here; `None` if they can.
    pub(super) fn unmountable(&self) -> Option<String> {
        let mountable = self.mountable.load(Ordering::SeqCst);
        (!mountable).then(|| "what Podman mounts here stays mounted".to_owned())
    }

    /// Sets whether the host's disk is below its reserve. No command starts while it is.
    pub(super) fn set_disk_low(&self, low: bool) {
        self.disk_low.store(low, Ordering::SeqCst);
    }

    /// Returns whether the host's disk is below its reserve.
    pub(super) fn is_disk_low(&self) -> bool {
        self.disk_low.load(Ordering::SeqCst)
    }

    /// Returns a receiver of the notices from now on.
    pub(super) fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// Sends a notice to the room, if anybody receives them. Called in a span of the room.
    pub(super) fn notify_room(&self, address: &Address, text: String) {
        tracing::warn!(%text, "a sandbox's room is told");
        let _ = self.notices.send(Notice { address: address.clone(), text }); // there may be no receiver
    }

    /// Returns the channel to which a room's link hands its proxied connections; the gateway serves each.
    pub(super) fn proxies(self: &Arc<Self>, address: &Address) -> mpsc::Sender<ProxyStream> {
        let (sender, mut receiver) = mpsc::channel(PROXIES);
        let (fleet, address) = (Arc::clone(self), address.clone());
        self.supervise(async move {
            while let Some(ProxyStream { kind, stream }) = receiver.recv().await {
                let kind = match kind {
                    ProxyKind::Web => gateway::ProxyKind::Web,
                    ProxyKind::Git => gateway::ProxyKind::Git,
                    ProxyKind::Models => gateway::ProxyKind::Models,
                    ProxyKind::GitHub => gateway::ProxyKind::GitHub,
                };
                let (gateway, address) = (fleet.gateway.clone(), address.clone());
                fleet.supervise(async move { gateway.serve(&address, kind, stream).await });
            }
        });
        sender
    }
}

/// Makes the directories in the state directory, and puts sandboxd at a path that is the same for all builds: a
/// container keeps its mounts for life, and so gets the newest sandboxd at its next start.
fn prepare(state_dir: &Path) -> Result<PathBuf, SandboxError> {
    if state_dir.as_os_str().len() > LONGEST_STATE_DIR {
        return Err(SandboxError::StateDirTooLong { path: state_dir.to_owned(), longest: LONGEST_STATE_DIR });
    }
    let built = embed::install(state_dir)?;
    let stable = state_dir.join("sandboxd");
    let failed = |path: &Path, source: io::Error| SandboxError::Install { path: path.to_owned(), source };
    let fresh = state_dir.join(format!("sandboxd.{}.tmp", crate::ids::random(4)));
    fs::hard_link(&built, &fresh).and_then(|()| fs::rename(&fresh, &stable)).map_err(|error| failed(&stable, error))?;
    // rename(2) does nothing if both names are the same file already.
    let _ = fs::remove_file(&fresh);

    // Closed to other users, because the sockets in it are open to all: the containers' roots have ids unknown to the
    // host.
    let rooms = state_dir.join("rooms");
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&rooms);
    let closed = made.and_then(|()| fs::set_permissions(&rooms, fs::Permissions::from_mode(0o700)));
    closed.map_err(|source| SandboxError::Socket { path: rooms.clone(), source })?;
    Ok(stable)
}
