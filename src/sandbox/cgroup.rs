//! Reads from the host's `/proc` and `/sys/fs/cgroup` which control-group limits hold for a process, and what it uses
//! of them. Knows cgroups v1 and v2; writes nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

const ROOT: &str = "/sys/fs/cgroup";

/// A v1 limit of at least this means "no limit": the kernel then shows the largest number of pages, in bytes.
const UNLIMITED: u64 = 1 << 60;

/// A process's control groups.
pub(super) enum Cgroup {
    /// The path in the unified hierarchy.
    V2 { root: PathBuf, path: PathBuf },
    /// The path in each controller's own hierarchy.
    V1 { root: PathBuf, controllers: Vec<(String, PathBuf)> },
}

/// A container's memory group: the files that tell what it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemoryGroup {
    usage: PathBuf,
    stat: PathBuf,
    /// The key in `memory.stat` for file pages that were not used lately.
    inactive: &'static str,
}

/// The limits of a control group that are in force; `None` where there is no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CgroupLimits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory used now.
    pub memory_used: Option<u64>,
    /// Processors.
    pub cpus: Option<f64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Processes and threads that exist now.
    pub pids_used: Option<u64>,
}

impl Cgroup {
    /// Finds the groups of the process `pid`.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        Ok(Self::parse(&text, Path::new(ROOT)))
    }

    fn parse(text: &str, root: &Path) -> Self {
        let mut unified = PathBuf::new();
        let mut controllers = Vec::new();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(names), Some(path)) = (fields.next(), fields.next()) else { continue };
            let path = path.trim_start_matches('/');
            if names.is_empty() {
                unified = PathBuf::from(path);
            }
            for name in names.split(',').filter(|name| !name.is_empty()) {
                controllers.push((name.to_owned(), PathBuf::from(path)));
            }
        }
        // A v1 host may have a unified line too, without controllers.
        if controllers.iter().any(|(name, _)| name == "memory" || name == "pids") {
            Self::V1 { root: root.to_owned(), controllers }
        } else {
            Self::V2 { root: root.to_owned(), path: unified }
        }
    }

    /// Reads the limits in force. crun puts PID 1 into a group below the one with the limits, so the tightest one of
    /// all groups above counts.
    pub(super) fn limits(&self) -> CgroupLimits {
        let (memory, used, cpus) = match self {
            Self::V2 { .. } => ("memory.max", "memory.current", "cpu.max"),
            Self::V1 { .. } => ("memory.limit_in_bytes", "memory.usage_in_bytes", "cpu.cfs_quota_us"),
        };
        let (memory, memory_used) = self.tightest("memory", memory, used);
        let (pids, pids_used) = self.tightest("pids", "pids.max", "pids.current");
        let cpus = self.ways_up("cpu").into_iter().filter_map(|group| {
            let quota = read(&group, cpus)?;
            match self {
                Self::V2 { .. } => quota.split_once(' ').and_then(|(quota, period)| ratio(quota, period)),
                Self::V1 { .. } => ratio(&quota, &read(&group, "cpu.cfs_period_us")?),
            }
        });
        CgroupLimits { memory, memory_used, cpus: cpus.min_by(f64::total_cmp), pids, pids_used }
    }

    /// Returns the tightest limit among the group and those above it, and the usage counted there. Without a limit
    /// there is no usage: it would be that of the whole machine.
    fn tightest(&self, controller: &str, limit: &str, used: &str) -> (Option<u64>, Option<u64>) {
        let limits = self.ways_up(controller).into_iter().filter_map(|group| {
            let limit = read(&group, limit)?.parse().ok().filter(|limit| *limit < UNLIMITED)?;
            Some((limit, read(&group, used).and_then(|used| used.parse().ok())))
        });
        limits.min_by_key(|(limit, _)| *limit).map_or((None, None), |(limit, used)| (Some(limit), used))
    }

    /// Returns the group whose limit bounds the process's memory; `None` if that group holds this server too, whose
    /// memory would be counted with it.
    pub(super) fn memory_group(&self) -> Option<MemoryGroup> {
        let ours = Self::of(std::process::id()).map(|ours| ours.ways_up("memory")).unwrap_or_default();
        let (limit, usage, inactive) = match self {
            Self::V2 { .. } => ("memory.max", "memory.current", "inactive_file"),
            Self::V1 { .. } => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        };
        let limited = |group: &PathBuf| {
            read(group, limit).and_then(|limit| limit.parse::<u64>().ok()).is_some_and(|limit| limit < UNLIMITED)
        };
        let group = self.ways_up("memory").into_iter().find(limited).filter(|group| !ours.contains(group))?;
        Some(MemoryGroup { usage: group.join(usage), stat: group.join("memory.stat"), inactive })
    }

    /// Returns the processes in the group, by their pids on the host.
    pub(super) fn processes(&self) -> Vec<u32> {
        let own = self.ways_up("pids").into_iter().next();
        let text = own.and_then(|group| read(&group, "cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Returns the group's directory and those above it.
    fn ways_up(&self, controller: &str) -> Vec<PathBuf> {
        let (directory, depth) = match self {
            Self::V2 { root, path } => (root.join(path), path.components().count()),
            Self::V1 { root, controllers } => {
                let Some((_, path)) = controllers.iter().find(|(name, _)| name == controller) else {
                    return Vec::new();
                };
                (root.join(controller).join(path), path.components().count())
            }
        };
        directory.ancestors().take(depth).map(Path::to_owned).collect()
    }
}

impl MemoryGroup {
    /// Returns the bytes in use, without the file pages that the kernel would drop first.
    pub(super) fn used(&self) -> Option<u64> {
        let usage: u64 = fs::read_to_string(&self.usage).ok()?.trim().parse().ok()?;
        let stat = fs::read_to_string(&self.stat).ok()?;
        let inactive = stat.lines().find_map(|line| line.split_once(' ').filter(|(name, _)| *name == self.inactive));
        Some(usage.saturating_sub(inactive.and_then(|(_, bytes)| bytes.parse().ok()).unwrap_or_default()))
    }
}

fn read(group: &Path, file: &str) -> Option<String> {
    fs::read_to_string(group.join(file)).ok().map(|text| text.trim().to_owned())
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
    fn version_2_keeps_all_in_one_directory_or_above_it() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "machine/x/memory.max", "1073741824\n");
        write(root.path(), "machine/x/memory.current", "4096\n");
        write(root.path(), "machine/x/container/memory.max", "max\n");
        write(root.path(), "machine/x/container/memory.current", "2048\n");
        write(root.path(), "machine/memory.max", "2147483648\n");
        write(root.path(), "machine/x/cpu.max", "150000 100000\n");
        write(root.path(), "machine/x/pids.max", "max\n");
        write(root.path(), "machine/x/container/cgroup.procs", "7\n9\n");
        let cgroup = Cgroup::parse("0::/machine/x/container\n", root.path());
        let limits =
            CgroupLimits { memory: Some(1 << 30), memory_used: Some(4096), cpus: Some(1.5), ..CgroupLimits::default() };
        assert_eq!(cgroup.limits(), limits);
        assert_eq!(cgroup.processes(), [7, 9]);
    }

    #[test]
    fn memory_in_use_is_what_the_kernel_cannot_just_drop() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "x/memory.max", "1073741824\n");
        write(root.path(), "x/memory.current", "5000\n");
        write(root.path(), "x/memory.stat", "anon 1000\ninactive_file 3000\nactive_file 10\n");
        write(root.path(), "x/container/memory.max", "max\n");
        let unified = Cgroup::parse("0::/x/container\n", root.path());
        assert_eq!(unified.memory_group().and_then(|group| group.used()), Some(2000));

        write(root.path(), "memory/p/memory.limit_in_bytes", "1073741824\n");
        write(root.path(), "memory/p/memory.usage_in_bytes", "5000\n");
        write(root.path(), "memory/p/memory.stat", "inactive_file 1\ntotal_inactive_file 4000\n");
        write(root.path(), "memory/free/memory.limit_in_bytes", "9223372036854771712\n");
        let of = |group: &str| Cgroup::parse(&format!("4:memory:/{group}\n"), root.path()).memory_group();
        assert_eq!(of("p").and_then(|group| group.used()), Some(1000));
        assert_eq!(of("free"), None, "rootless Podman under version 1 sets no limit, and nothing is counted");
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
        assert_eq!(limits, CgroupLimits { pids: Some(256), ..CgroupLimits::default() });
    }
}
