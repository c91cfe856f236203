//! What is known of all rooms' sandboxes, and what is needed for each of them: Podman, the image, the gateway, the ids.
//!
//! Only state. Everything that acts on sandboxes (`life.rs`, `limit.rs`, `reconcile.rs`, `disk.rs` …) is given it and
//! knows it; it knows none of them. The rest of the server sees [`Sandboxes`](super::Sandboxes).

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
    sync::{Notify, broadcast, mpsc, watch},
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
    seccomp,
};
use crate::{
    gateway::{self, Gateway},
    ids::{Address, digest},
    ipc::{Arrived, Ipc},
};

/// A room's proxied connections that wait to be served; beyond that the sandbox waits.
const PROXIES: usize = 64;

/// Events that wait to be taken; beyond that they stay in their files.
const EVENTS: usize = 64;

/// Notices that nobody took yet; beyond that the oldest are lost.
const NOTICES: usize = 64;

/// How long what exists may take to be looked at: some hundred containers need seconds.
const ADOPTION_LIMIT: Duration = Duration::from_secs(30);

/// A path of a Unix socket has 108 bytes, the final NUL included; `rooms/`, 8 digits, `/sock` and two slashes are ours.
const LONGEST_STATE_DIR: usize = 107 - "/rooms/12345678/sock".len();

/// Something that a room should be told.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Whom: the people of this account's room alone.
    pub address: Address,
    /// What: a sentence.
    pub text: String,
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

/// The state of all sandboxes.
pub(super) struct Fleet {
    /// What the operator decided.
    pub(super) options: SandboxOptions,
    /// Podman.
    pub(super) engine: Engine,
    /// Serves proxied connections.
    gateway: Gateway,
    /// Takes what programs in sandboxes tell by files; `None`: the kernel has no watcher left for it.
    pub(super) ipc: Option<Ipc>,
    /// What it took, until somebody asks for it.
    pub(super) events: Mutex<Option<mpsc::Receiver<Arrived>>>,
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
    pub(super) queue: Queue,
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

impl Fleet {
    /// Makes the state directory's parts and starts to look for Podman. Nothing is known of any sandbox yet.
    pub(super) fn open(
        options: SandboxOptions,
        gateway: Gateway,
        cancel: CancellationToken,
    ) -> Result<Arc<Self>, SandboxError> {
        let tasks = TaskTracker::new();
        let sandboxd = prepare(&options.state_dir)?;
        let seccomp = seccomp::install(&options.state_dir)?;
        let fixed = fixed::install(&options.state_dir)?;
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
            ids: Mutex::default(),
            image: Mutex::default(),
            info: Mutex::default(),
            existing: Mutex::default(),
            adoption: watch::Sender::new(Adoption::Pending),
            freed: Notify::new(),
            memory,
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

    /// Returns whether the host's disk is below its reserve.
    pub(super) fn is_disk_low(&self) -> bool {
        self.disk_low.load(Ordering::SeqCst)
    }

    /// Returns what rooms should be told from now on.
    pub(super) fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// Tells the room something, if anybody listens. Called in a span of the room's.
    pub(super) fn notify_room(&self, address: &Address, text: String) {
        tracing::warn!(%text, "a sandbox's room is told");
        let _ = self.notices.send(Notice { address: address.clone(), text }); // nobody listening is no error
    }

    /// Returns where a room's link puts proxied connections, each of which is then served to its end.
    pub(super) fn proxies(self: &Arc<Self>, address: &Address) -> mpsc::Sender<ProxyStream> {
        let (sender, mut receiver) = mpsc::channel(PROXIES);
        let (fleet, address) = (Arc::clone(self), address.clone());
        self.supervise(async move {
            while let Some(ProxyStream { kind, stream }) = receiver.recv().await {
                let kind = match kind {
                    ProxyKind::Web => gateway::ProxyKind::Web,
                    ProxyKind::Git => gateway::ProxyKind::Git,
                    ProxyKind::Models => gateway::ProxyKind::Models,
                };
                let (gateway, address) = (fleet.gateway.clone(), address.clone());
                fleet.supervise(async move { gateway.serve(&address, kind, stream).await });
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
