//! What the operator decides about sandboxes. A plain struct: `config` reads and checks the settings and fills it.

use std::{path::PathBuf, time::Duration};

use crate::clock::Clock;

/// Everything the fleet must be told. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// Where the server keeps its state; rooms' sockets lie in `rooms/` below it.
    pub state_dir: PathBuf,
    /// Where sandboxes' events are found on the host, each room's at its container's name (`IPC_BASE_DIR`).
    pub ipc_dir: PathBuf,
    /// Which server this is: written on every container and volume, so that two servers on one Podman keep apart.
    pub instance: String,
    /// The image that sandboxes are made of (`SANDBOX_IMAGE`).
    pub image: String,
    /// Podman's API socket (`PODMAN_SOCKET`); `None`: the usual places.
    pub podman_socket: Option<PathBuf>,
    /// Podman itself (`PODMAN_PATH`), to start its API service where no socket answers.
    pub podman_path: PathBuf,
    /// Memory of one sandbox, swap included (`SANDBOX_MEMORY`).
    pub memory: u64,
    /// Processors of one sandbox (`SANDBOX_CPUS`).
    pub cpus: f64,
    /// Processes and threads of one sandbox (`SANDBOX_PIDS`).
    pub pids: u32,
    /// Disk of one sandbox: its volume and its writable layer together (`SANDBOX_DISK`).
    pub disk: u64,
    /// How long an unused sandbox runs on (`SANDBOX_IDLE_SECONDS`).
    pub idle: Duration,
    /// Memory that all sandboxes may use together (`SANDBOX_MEMORY_TOTAL`).
    pub memory_total: u64,
    /// How many may run at once (`MAX_RUNNING_SANDBOXES`).
    pub max_running: usize,
    /// Free disk that the host keeps for itself (`HOST_DISK_RESERVE`).
    pub host_disk_reserve: u64,
    /// How long the files of a room that is gone are kept (`ROOM_GRACE_HOURS`).
    pub grace: Duration,
    /// Tells since when a room is gone.
    pub clock: Clock,
    /// Certificates that sandboxes trust besides their image's (`SANDBOX_CA_BUNDLE`).
    pub ca_bundle: Option<PathBuf>,
}
