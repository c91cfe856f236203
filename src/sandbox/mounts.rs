//! What the host's mounts allow: whether Podman can set a hard disk limit on a container, which only XFS with project
//! quotas does (elsewhere `disk.rs` watches); and whether an image that Podman mounted as a volume is unmounted
//! everywhere when its container ends.

use std::{fs, io, path::Path};

use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MntFlags, MsFlags, mount, umount2},
};

const MOUNTS: &str = "/proc/self/mountinfo";

/// Returns whether everything under `directory` can have a quota of its own.
pub(super) fn quota(directory: &Path) -> io::Result<bool> {
    let directory = directory.canonicalize()?;
    Ok(holding(&fs::read_to_string(MOUNTS)?, &directory).is_some_and(|mount| mount.has_quota()))
}

/// Makes unmounts under `directory` spread to all mount namespaces. Podman starts a container with id ranges of its
/// own in a mount namespace of its own, and cleans up after it there. Where mounts are private, what it mounted on
/// the host would stay mounted: the container could not start again, and removing the volume would delete what is in
/// it. systemd makes all mounts shared; elsewhere `directory` is bound to itself and that mount made shared.
pub(super) fn share(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let directory = directory.canonicalize()?;
    // Two servers that start at the same time must not cover each other's mount.
    let _alone = Flock::lock(fs::File::open(&directory)?, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    if holding(&fs::read_to_string(MOUNTS)?, &directory).is_some_and(|mount| mount.propagates()) {
        return Ok(());
    }
    let nothing = None::<&str>;
    mount(Some(&directory), &directory, nothing, MsFlags::MS_BIND | MsFlags::MS_REC, nothing)?;
    mount(nothing, &directory, nothing, MsFlags::MS_SHARED | MsFlags::MS_REC, nothing)?;
    Ok(())
}

/// Unmounts what is mounted at `point`; returns `false` if nothing is.
pub(super) fn unmount(point: &Path) -> io::Result<bool> {
    let mounts = fs::read_to_string(MOUNTS)?;
    let mounted = holding(&mounts, point).is_some_and(|mount| Path::new(mount.point) == point);
    if mounted {
        umount2(point, MntFlags::MNT_DETACH)?;
    }
    Ok(mounted)
}

/// Returns the mount that holds `directory`.
fn holding<'a>(mountinfo: &'a str, directory: &Path) -> Option<Mount<'a>> {
    let holding = mountinfo.lines().filter_map(parse).filter(|mount| directory.starts_with(mount.point));
    // The deepest mount holds it; of several at one place, the last hides the others.
    holding.max_by_key(|mount| mount.point.len())
}

struct Mount<'a> {
    point: &'a str,
    /// The propagation fields: `shared:N`, `master:N`.
    spread: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl Mount<'_> {
    fn has_quota(&self) -> bool {
        self.kind == "xfs" && self.options.split(',').any(|option| matches!(option, "prjquota" | "pquota"))
    }

    /// Returns whether unmounts by Podman arrive here. A slave mount here (a systemd unit has its own namespace) is
    /// shared where Podman runs.
    fn propagates(&self) -> bool {
        self.spread.split(' ').any(|field| field.starts_with("shared:") || field.starts_with("master:"))
    }
}

/// Parses a line of `/proc/self/mountinfo`: six fields and some optional ones, a dash, type, source, options.
fn parse(line: &str) -> Option<Mount<'_>> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = mount.splitn(7, ' ');
    let point = fields.nth(4)?;
    let spread = fields.nth(1).unwrap_or_default();
    let mut file_system = file_system.split(' ');
    Some(Mount { point, spread, kind: file_system.next()?, options: file_system.nth(1)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
        40 27 8:1 / /var/lib/containers rw,relatime - xfs /dev/sda1 rw,attr2,inode64,prjquota\n\
        41 27 8:2 / /srv rw,relatime master:3 propagate_from:2 - xfs /dev/sda2 rw,attr2,noquota\n";

    #[test]
    fn only_xfs_with_project_quotas_has_them() {
        let has = |path: &str| holding(MOUNTS, Path::new(path)).unwrap().has_quota();
        assert!(has("/var/lib/containers/storage"));
        assert!(!has("/var/lib/containers2"), "a path is no text");
        assert!(!has("/srv/containers"));
        assert!(!has("/home"));
    }

    #[test]
    fn an_unmount_spreads_where_mounts_are_shared() {
        let spreads = |path: &str| holding(MOUNTS, Path::new(path)).unwrap().propagates();
        assert!(spreads("/home"));
        assert!(!spreads("/var/lib/containers/storage/volumes"), "private");
        assert!(spreads("/srv/volumes"), "shared where Podman is");
    }
}
