//! How much is in use and free on the file systems to which sandboxes write.

use std::{io, path::Path};

use nix::sys::statvfs::statvfs;

/// Bytes and inodes on the host's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) bytes: u64,
    pub(super) inodes: u64,
}

/// The least growth that is worth a count, so that a growing log file does not cause one each second.
pub(super) const STEP: Usage = Usage { bytes: 8 << 20, inodes: 1000 };

/// The file systems that sandboxes write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// In use.
    pub(super) used: Usage,
    /// What may still be written, on the fuller one.
    pub(super) free: Usage,
    /// The reserve of inodes: the same fraction of them as the reserve is of the bytes.
    pub(super) inode_reserve: u64,
}

/// Reads the space where writable layers and rooms' files are.
pub(super) fn space(graph_root: &Path, files: &Path, reserve: u64) -> io::Result<Space> {
    let ask = |path: &Path| -> io::Result<(u64, Space)> {
        let stat = statvfs(path)?;
        let unit = stat.fragment_size();
        let used = stat.blocks().saturating_sub(stat.blocks_free()) * unit;
        // A file system that makes inodes on demand reports none.
        let inodes = if stat.files() == 0 { u64::MAX } else { stat.files_available() };
        let part = u128::from(stat.files()) * u128::from(reserve) / u128::from((stat.blocks() * unit).max(1));
        let space = Space {
            used: Usage { bytes: used, inodes: stat.files().saturating_sub(stat.files_free()) },
            free: Usage { bytes: stat.blocks_available() * unit, inodes },
            inode_reserve: u64::try_from(part).unwrap_or(u64::MAX),
        };
        Ok((stat.filesystem_id(), space))
    };
    let (id, graph) = ask(graph_root)?;
    match ask(files) {
        Ok((other, files)) if other != id => {
            let used =
                Usage { bytes: graph.used.bytes + files.used.bytes, inodes: graph.used.inodes + files.used.inodes };
            let free = Usage {
                bytes: graph.free.bytes.min(files.free.bytes),
                inodes: graph.free.inodes.min(files.free.inodes),
            };
            Ok(Space { used, free, inode_reserve: graph.inode_reserve.min(files.inode_reserve) })
        }
        Ok(_) | Err(_) => Ok(graph),
    }
}

/// Fails if `bytes` more in `directory` would leave less than `reserve` bytes free.
pub(super) fn room_for(bytes: u64, directory: &Path, reserve: u64) -> io::Result<()> {
    let stat = statvfs(directory)?;
    if stat.blocks_available() * stat.fragment_size() >= bytes.saturating_add(reserve) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::StorageFull, "too little disk is free for a copy"))
}
