//! What only libpod's own API tells about Podman: whether it is rootless, its cgroups, runtime and storage.
//!
//! The only file that uses podman-api, and only for `info` (`docs/adr/0001-two-podman-clients.md`). The fleet asks
//! once, to choose the user namespace; `doctor` asks to show it.

use std::{fmt, path::PathBuf, time::Duration};

use podman_api::Podman;
use serde::Serialize;
use tokio::time::timeout;

use super::engine::{Engine, EngineError};

/// How long Podman may take for the answer.
const LIMIT: Duration = Duration::from_secs(20);

/// The version of the kernel's control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Cgroups {
    /// The old hierarchies, one for each controller.
    V1,
    /// The unified hierarchy.
    V2,
}

impl fmt::Display for Cgroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// What Podman says about itself.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct EngineInfo {
    /// Podman's version.
    pub version: String,
    /// Whether it runs without root.
    pub rootless: bool,
    /// Which cgroups the machine has.
    pub cgroups: Cgroups,
    /// The controllers that Podman may use.
    pub controllers: Vec<String>,
    /// What makes cgroups: `systemd` or `cgroupfs`.
    pub cgroup_manager: String,
    /// The OCI runtime's name.
    pub runtime: String,
    /// The storage driver's name.
    pub storage_driver: String,
    /// The directory of images and writable layers.
    pub graph_root: PathBuf,
    /// The directory of volumes.
    pub volume_path: PathBuf,
    /// The file system under `graph_root`, as Podman names it.
    pub file_system: String,
    /// Whether seccomp filters are on.
    pub seccomp: bool,
    /// The kernel's release.
    pub kernel: String,
}

impl EngineInfo {
    /// Asks Podman.
    pub(crate) async fn ask(engine: &Engine) -> Result<Self, EngineError> {
        let doing = "tell about itself";
        let socket = engine.socket().await?;
        let podman = Podman::unix(&socket);
        let info = match timeout(LIMIT, podman.info()).await {
            Ok(Ok(info)) => info,
            Ok(Err(error)) => return Err(EngineError::Refused { doing, why: error.to_string() }),
            Err(_) => return Err(EngineError::TimedOut(doing)),
        };
        let host = info.host.ok_or_else(|| EngineError::Refused { doing, why: "it names no host".to_owned() })?;
        let store = info.store.ok_or_else(|| EngineError::Refused { doing, why: "it names no storage".to_owned() })?;
        let status = store.graph_status.unwrap_or_default();
        Ok(Self {
            version: info.version.and_then(|version| version.version).unwrap_or_default(),
            rootless: host.security.as_ref().and_then(|security| security.rootless).unwrap_or_default(),
            cgroups: if host.cgroup_version.as_deref() == Some("v2") { Cgroups::V2 } else { Cgroups::V1 },
            controllers: host.cgroup_controllers.unwrap_or_default(),
            cgroup_manager: host.cgroup_manager.unwrap_or_default(),
            runtime: base_name(&host.oci_runtime.and_then(|runtime| runtime.name).unwrap_or_default()),
            storage_driver: store.graph_driver_name.unwrap_or_default(),
            graph_root: store.graph_root.unwrap_or_default().into(),
            volume_path: store.volume_path.unwrap_or_default().into(),
            file_system: status.get("Backing Filesystem").cloned().unwrap_or_default(),
            seccomp: host.security.as_ref().and_then(|security| security.seccomp_enabled).unwrap_or_default(),
            kernel: host.kernel.unwrap_or_default(),
        })
    }

    /// Returns the settings of limits that this machine does not enforce; empty if it enforces all.
    pub(crate) fn unenforced(&self) -> Vec<&'static str> {
        const LIMITS: [(&str, &str); 3] =
            [("memory", "SANDBOX_MEMORY"), ("cpu", "SANDBOX_CPUS"), ("pids", "SANDBOX_PIDS")];
        // Rootless Podman silently ignores limits under cgroups v1.
        let none = self.rootless && self.cgroups == Cgroups::V1;
        LIMITS
            .iter()
            .filter(|(controller, _)| none || !self.controllers.iter().any(|have| have == controller))
            .map(|(_, setting)| *setting)
            .collect()
    }

    /// Returns whether the kernel counts each container's memory.
    pub(crate) fn counts_memory(&self) -> bool {
        !self.unenforced().contains(&"SANDBOX_MEMORY")
    }

    /// Returns whether each container can have id ranges of its own without a copy of its image. That needs root, and
    /// a kernel that maps ids on overlay mounts (5.19).
    pub(crate) fn maps_ids_for_free(&self) -> bool {
        let mut numbers = self.kernel.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok());
        let release = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        !self.rootless && self.storage_driver == "overlay" && release >= (5, 19)
    }
}

/// Returns a runtime's name, as which Podman gives the path where it was started with one.
fn base_name(runtime: &str) -> String {
    runtime.rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_known_by_its_name_also_where_podman_has_its_path() {
        assert_eq!((base_name("crun"), base_name("/state/runtime/runsc")), ("crun".to_owned(), "runsc".to_owned()));
    }

    fn info() -> EngineInfo {
        EngineInfo {
            version: "4.3.1".into(),
            rootless: false,
            cgroups: Cgroups::V1,
            controllers: ["cpu", "memory", "pids"].map(str::to_owned).into(),
            cgroup_manager: "cgroupfs".into(),
            runtime: "runc".into(),
            storage_driver: "overlay".into(),
            graph_root: "/var/lib/containers/storage".into(),
            volume_path: "/var/lib/containers/storage/volumes".into(),
            file_system: "extfs".into(),
            seccomp: true,
            kernel: "6.18.44-x".into(),
        }
    }

    #[test]
    fn tells_which_limits_hold() {
        assert!(info().unenforced().is_empty());
        let all = vec!["SANDBOX_MEMORY", "SANDBOX_CPUS", "SANDBOX_PIDS"];
        assert_eq!(EngineInfo { rootless: true, ..info() }.unenforced(), all);
        let delegated = EngineInfo {
            rootless: true,
            cgroups: Cgroups::V2,
            controllers: ["memory", "pids"].map(str::to_owned).into(),
            ..info()
        };
        assert_eq!(delegated.unenforced(), ["SANDBOX_CPUS"]);
    }

    #[test]
    fn tells_whether_ranges_cost_a_copy() {
        assert!(info().maps_ids_for_free());
        assert!(!EngineInfo { kernel: "5.15.0-91".into(), ..info() }.maps_ids_for_free());
        assert!(!EngineInfo { rootless: true, ..info() }.maps_ids_for_free());
    }
}
