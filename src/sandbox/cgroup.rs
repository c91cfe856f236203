//! What the kernel's control groups say about a process: the limits that are in force, and what is used of them.
//! Reads `/proc` and `/sys/fs/cgroup` of the host, both versions; writes nothing. Called by `observe.rs` and `disk.rs`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

const ROOT: &str = "/sys/fs/cgroup";

/// From here on a limit of version 1 means none: it shows the largest number of pages in bytes.
const UNLIMITED: u64 = 1 << 60;

/// A process's control groups.
pub(super) enum Cgroup {
    /// The directory in the unified hierarchy.
    V2(PathBuf),
    /// The path below each controller's own hierarchy.
    V1(Vec<(String, PathBuf)>),
}

/// Limits in force. `None`: there is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory used now.
    pub memory_used: Option<u64>,
    /// Processors.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Processes and threads now.
    pub pids_used: Option<u64>,
}

impl Cgroup {
    /// Finds the groups of the process `pid`.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        Ok(Self::parse(&text, Path::new(ROOT)))
    }

    fn parse(text: &str, root: &Path) -> Self {
        let mut unified = root.to_owned();
        let mut controllers = Vec::new();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(names), Some(path)) = (fields.next(), fields.next()) else { continue };
            let path = path.trim_start_matches('/');
            if names.is_empty() {
                unified = root.join(path);
            }
            for name in names.split(',').filter(|name| !name.is_empty()) {
                controllers.push((name.to_owned(), root.join(name).join(path)));
            }
        }
        // Under version 1 there may be a unified line too, without controllers.
        if controllers.iter().any(|(name, _)| name == "memory" || name == "pids") {
            Self::V1(controllers)
        } else {
            Self::V2(unified)
        }
    }

    /// Reads the limits in force.
    pub(super) fn limits(&self) -> Limits {
        let number = |text: Option<String>| text?.trim().parse::<u64>().ok().filter(|number| *number < UNLIMITED);
        match self {
            Self::V2(_) => Limits {
                memory: number(self.read("memory", "memory.max")),
                memory_used: number(self.read("memory", "memory.current")),
                cpus: self.read("cpu", "cpu.max").and_then(|text| {
                    let (quota, period) = text.trim().split_once(' ')?;
                    ratio(quota, period)
                }),
                pids: number(self.read("pids", "pids.max")),
                pids_used: number(self.read("pids", "pids.current")),
            },
            Self::V1(_) => Limits {
                memory: number(self.read("memory", "memory.limit_in_bytes")),
                memory_used: number(self.read("memory", "memory.usage_in_bytes")),
                cpus: self.read("cpu", "cpu.cfs_quota_us").and_then(|quota| {
                    let period = self.read("cpu", "cpu.cfs_period_us")?;
                    ratio(quota.trim(), period.trim())
                }),
                pids: number(self.read("pids", "pids.max")),
                pids_used: number(self.read("pids", "pids.current")),
            },
        }
    }

    /// Returns the processes in the group, by their pids on the host.
    pub(super) fn processes(&self) -> Vec<u32> {
        let text = self.read("pids", "cgroup.procs").unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn read(&self, controller: &str, file: &str) -> Option<String> {
        let directory = match self {
            Self::V2(directory) => directory,
            Self::V1(controllers) => &controllers.iter().find(|(name, _)| name == controller)?.1,
        };
        fs::read_to_string(directory.join(file)).ok()
    }
}

/// Returns quota over period; `None`: no quota (`max`, or -1 in version 1).
fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (quota, period): (u32, u32) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| f64::from(quota) / f64::from(period))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn version_2_keeps_all_in_one_directory() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "machine/x/memory.max", "1073741824\n");
        write(root.path(), "machine/x/memory.current", "4096\n");
        write(root.path(), "machine/x/cpu.max", "150000 100000\n");
        write(root.path(), "machine/x/pids.max", "max\n");
        write(root.path(), "machine/x/cgroup.procs", "7\n9\n");
        let cgroup = Cgroup::parse("0::/machine/x\n", root.path());
        let limits = Limits { memory: Some(1 << 30), memory_used: Some(4096), cpus: Some(1.5), ..Limits::default() };
        assert_eq!(cgroup.limits(), limits);
        assert_eq!(cgroup.processes(), [7, 9]);
    }

    #[test]
    fn version_1_has_a_hierarchy_for_each_controller() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "memory/p/x/memory.limit_in_bytes", "9223372036854771712\n");
        write(root.path(), "cpu/p/x/cpu.cfs_quota_us", "-1\n");
        write(root.path(), "cpu/p/x/cpu.cfs_period_us", "100000\n");
        write(root.path(), "pids/p/x/pids.max", "256\n");
        let text = "4:memory:/p/x\n2:cpu,cpuacct:/p/x\n8:pids:/p/x\n1:name=systemd:/p/x\n0::/p/x\n";
        let limits = Cgroup::parse(text, root.path()).limits();
        assert_eq!(limits, Limits { pids: Some(256), ..Limits::default() });
    }
}
