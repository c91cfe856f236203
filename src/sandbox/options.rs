//! The operator's decisions about sandboxes. `ops::settings` fills this from the configuration.

use std::{path::PathBuf, time::Duration};

use super::runtime::Runtime;
use crate::clock::Clock;

/// What the fleet must be told. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// The state directory; rooms' sockets are in `rooms/` below it.
    pub state_dir: PathBuf,
    /// Where sandboxes' events are found on the host, each container's under its name (`IPC_BASE_DIR`).
    pub ipc_dir: PathBuf,
    /// The id of this server's installation, a label of every container and volume, so that two servers on one Podman
    /// keep apart.
    pub instance: String,
    /// The image of the sandboxes (`SANDBOX_IMAGE`).
    pub image: String,
    /// Podman's API socket (`PODMAN_SOCKET`); `None` for the usual places.
    pub podman_socket: Option<PathBuf>,
    /// The podman program (`PODMAN_PATH`), which starts the API service if no socket answers.
    pub podman_path: PathBuf,
    /// What runs the containers (`SANDBOX_RUNTIME`); `None`: what Podman's own settings say.
    pub runtime: Option<Runtime>,
    /// Memory of one sandbox, swap included (`SANDBOX_MEMORY`).
    pub memory: u64,
    /// Processors of one sandbox (`SANDBOX_CPUS`).
    pub cpus: f64,
    /// Processes and threads of one sandbox (`SANDBOX_PIDS`).
    pub pids: u32,
    /// Disk space of one sandbox: its files and its writable layer together (`SANDBOX_DISK`).
    pub disk: u64,
    /// How long an unused sandbox keeps running (`SANDBOX_IDLE_SECONDS`).
    pub idle: Duration,
    /// Memory that all sandboxes may use together (`SANDBOX_MEMORY_TOTAL`).
    pub memory_total: u64,
    /// How many may run at the same time (`MAX_RUNNING_SANDBOXES`).
    pub max_running: usize,
    /// Free disk space below which no sandbox may write (`HOST_DISK_RESERVE`).
    pub host_disk_reserve: u64,
    /// How long the files of a room that is gone are kept (`ROOM_GRACE_HOURS`).
    pub grace: Duration,
    /// The clock that dates when a room is found gone.
    pub clock: Clock,
    /// Certificates that sandboxes trust besides those of their image (`SANDBOX_CA_BUNDLE`).
    pub ca_bundle: Option<PathBuf>,
}
