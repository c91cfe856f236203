//! Checks the machine: free disk space, quotas of the file systems, open files, Landlock.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::statvfs::{Statvfs, statvfs};

use super::Check;
use crate::{config::Config, ops::settings, sandbox::Runtime, text};

pub(super) async fn check(config: &Config) -> Vec<Check> {
    let paths = [("disk of the state", config.paths.state_dir.as_path())];
    // A network file system may block.
    let config = config.clone();
    let disks = paths.map(|(name, path)| (name, path.to_owned()));
    let looked = tokio::task::spawn_blocking(move || {
        let mut checks: Vec<Check> = disks.iter().map(|(name, path)| disk(name, path, &config)).collect();
        checks.extend(open_files(&config));
        checks.push(landlock(settings::runtime(&config)));
        checks
    });
    looked.await.unwrap_or_default()
}

/// Reports the free space on the file system where `path` is or will be.
pub(super) fn disk(name: &'static str, path: &Path, config: &Config) -> Check {
    let existing = path.ancestors().find(|above| above.exists()).unwrap_or(path);
    let space = match statvfs(existing) {
        Ok(space) => space,
        Err(errno) => {
            return Check::bad(
                name,
                format!("{} cannot be looked at ({errno})", existing.display()),
                "Check the mount",
            );
        }
    };
    let free = free(&space);
    let reserve = config.limits.host_disk_reserve;
    let what = format!("{} free in {}", text::human_bytes(free), existing.display());
    if free < reserve {
        let what = format!("{what}, less than the reserve of {}: sandboxes may not write", text::human_bytes(reserve));
        return Check::bad(name, what, "Free some space, or lower HOST_DISK_RESERVE");
    }
    if free < reserve.saturating_add(config.sandbox.disk) {
        let what = format!(
            "{what}, not enough for one full sandbox ({}) above the reserve",
            text::human_bytes(config.sandbox.disk)
        );
        return Check::warning(name, what, "Free some space, or lower SANDBOX_DISK");
    }
    if space.files() > 0 && space.files_available() < space.files() / 50 {
        return Check::warning(name, format!("{what}, but hardly any inodes"), "Remove small files that nobody needs");
    }
    Check::good(name, what)
}

fn free(space: &Statvfs) -> u64 {
    space.blocks_available().saturating_mul(space.fragment_size())
}

/// A mounted file system, from `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Its type: `ext4`, `xfs` …
    pub kind: String,
    /// Whether it has quotas for directories (XFS project quotas).
    pub quota: bool,
}

/// Returns the file system that contains `path`.
pub(super) fn mount_of(path: &Path) -> Option<Mount> {
    let real = path.ancestors().find_map(|above| fs::canonicalize(above).ok())?;
    find_mount(&fs::read_to_string("/proc/self/mountinfo").ok()?, &real)
}

fn find_mount(mountinfo: &str, path: &Path) -> Option<Mount> {
    // `36 35 98:0 /root /mount/point rw,noatime shared:1 - ext4 /dev/root rw,errors=continue`
    let mounts = mountinfo.lines().filter_map(|line| {
        let (place, system) = line.split_once(" - ")?;
        let point = place.split(' ').nth(4)?.replace("\\040", " ");
        let mut system = system.split(' ');
        let kind = system.next()?.to_owned();
        let quota = kind == "xfs" && system.nth(1)?.split(',').any(|option| matches!(option, "prjquota" | "pquota"));
        path.starts_with(&point).then(|| (PathBuf::from(point).components().count(), Mount { kind, quota }))
    });
    // Of two mounts at one place the later one is visible.
    mounts.max_by_key(|(depth, _)| *depth).map(|(_, mount)| mount)
}

/// Checks the limit of open files, of which each room's connections need some.
fn open_files(config: &Config) -> Option<Check> {
    const NAME: &str = "open files";
    const PER_SANDBOX: u64 = 130;
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    let limit: u64 = line.split_whitespace().nth(3)?.parse().ok()?;
    let wanted = 256 + config.sandbox.max_running as u64 * PER_SANDBOX;
    Some(if limit < wanted {
        Check::warning(
            NAME,
            format!(
                "this process may open {limit}, and {} busy sandboxes can take {wanted}",
                config.sandbox.max_running
            ),
            "Raise the limit (`ulimit -n`, or LimitNOFILE= in the unit), or lower MAX_RUNNING_SANDBOXES",
        )
    } else {
        Check::good(NAME, format!("up to {limit}"))
    })
}

/// Checks for Landlock, without which nothing keeps a planning or reviewing coding agent from writing: in the kernel of the
/// sandboxes, which is the machine's or gVisor's.
fn landlock(runtime: Option<Runtime>) -> Check {
    const NAME: &str = "landlock";
    if runtime.is_some_and(|runtime| !runtime.has_landlock()) {
        return Check::warning(
            NAME,
            "gVisor cannot keep a command in a sandbox from writing, so no coding agent plans or reviews",
            "Set SANDBOX_RUNTIME to crun or runc if they shall; implementing works with gVisor, too",
        );
    }
    let Ok(modules) = fs::read_to_string("/sys/kernel/security/lsm") else {
        // In a container, or where nobody has mounted it.
        return Check::warning(
            NAME,
            "the kernel's security modules cannot be read here, so it is not known whether coding agents can plan and review",
            "`!sandbox` in a room tells, since it asks the kernel itself",
        );
    };
    if modules.trim().split(',').any(|module| module == "landlock") {
        Check::good(NAME, "a command in a sandbox can be kept from writing")
    } else {
        Check::warning(
            NAME,
            "the kernel cannot keep a command in a sandbox from writing, so no coding agent plans or reviews",
            "Start Linux 5.13 or later with `landlock` among the modules of the boot option `lsm=`",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 22 254:1 / /var/lib/containers rw shared:2 - xfs /dev/vdb rw,attr2,prjquota
31 22 254:2 / /var/lib/containers/with\\040blank rw - btrfs /dev/vdc rw
40 22 0:30 / /tmp rw - tmpfs tmpfs rw";

    #[test]
    fn finds_the_deepest_mount_and_its_quota() {
        let find = |path: &str| find_mount(MOUNTS, Path::new(path)).unwrap();
        assert_eq!(find("/home/x"), Mount { kind: "ext4".into(), quota: false });
        assert_eq!(find("/var/lib/containers/storage"), Mount { kind: "xfs".into(), quota: true });
        assert_eq!(find("/var/lib/containers/with blank/x").kind, "btrfs");
        assert_eq!(find("/tmpfile").kind, "ext4");
        assert_eq!(find_mount("garbage\n\n - \n", Path::new("/")), None);
        assert!(mount_of(Path::new("/proc")).is_some_and(|mount| mount.kind == "proc"));
    }
}
