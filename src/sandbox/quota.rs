//! Whether Podman can set a hard limit on the disk of a container and of a volume: only XFS with project quotas lets
//! it. Reads the host's mounts; asks nobody. Where there is no quota, `disk.rs` watches.

use std::{fs, io, path::Path};

/// Tells whether everything under `directory` can have a quota of its own.
pub(super) fn available(directory: &Path) -> io::Result<bool> {
    let directory = directory.canonicalize()?;
    Ok(has_quota(&fs::read_to_string("/proc/self/mountinfo")?, &directory))
}

/// Finds the mount that holds `directory` and looks at its type and options.
fn has_quota(mountinfo: &str, directory: &Path) -> bool {
    let holding = mountinfo.lines().filter_map(parse).filter(|mount| directory.starts_with(mount.point));
    // The deepest one; of several at one place, the last hides the others.
    let mount = holding.max_by_key(|mount| mount.point.len());
    mount.is_some_and(|mount| {
        mount.kind == "xfs" && mount.options.split(',').any(|option| matches!(option, "prjquota" | "pquota"))
    })
}

struct Mount<'a> {
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

/// Reads a line of `/proc/self/mountinfo`: six fields and some optional ones, a dash, type, source, options.
fn parse(line: &str) -> Option<Mount<'_>> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut file_system = file_system.split(' ');
    Some(Mount { point: mount.split(' ').nth(4)?, kind: file_system.next()?, options: file_system.nth(1)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
        40 27 8:1 / /var/lib/containers rw,relatime - xfs /dev/sda1 rw,attr2,inode64,prjquota\n\
        41 27 8:2 / /srv rw,relatime - xfs /dev/sda2 rw,attr2,noquota\n";

    #[test]
    fn only_xfs_with_project_quotas_has_them() {
        let has = |path: &str| has_quota(MOUNTS, Path::new(path));
        assert!(has("/var/lib/containers/storage"));
        assert!(!has("/var/lib/containers2"), "a path is no text");
        assert!(!has("/srv/containers"));
        assert!(!has("/home"));
    }
}
