//! Returns memory that the process no longer needs to the system.
//!
//! glibc gives threads that allocate at the same time an arena each, up to eight for each processor, and does not
//! return free memory in the middle of one: after a load the process stays as large as it ever was. So the number of
//! arenas is limited, large blocks are mapped by themselves and returned when freed, and the rest is returned now and
//! then.

/// The number of arenas. Threads that allocate at the same time may wait for each other, but few do.
const ARENAS: libc::c_int = 2;
/// The size in bytes from which a block is mapped by itself, and the free memory at the heap's end from which that is
/// returned. glibc would raise these limits whenever a large block is freed. A request to a model stays well below,
/// so its pages are reused.
const OWN_PAGES: libc::c_int = 4 << 20;

/// Sets the allocator's limits. Call it before any thread is started.
pub fn be_sparing() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt changes settings of the allocator, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, OWN_PAGES);
    }
}

/// Returns free memory to the system, which takes some milliseconds; returns the pages that the process has of its own
/// then. Blocks.
pub fn give_back() -> Option<u64> {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the locks that it needs.
    unsafe {
        libc::malloc_trim(0);
    }
    own()
}

/// Returns how many bytes of the process are in memory.
pub fn resident_bytes() -> Option<u64> {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    resident()?.checked_mul(u64::try_from(page).ok()?)
}

/// Returns how many pages of the process are in memory.
pub fn resident() -> Option<u64> {
    Some(pages()?.0)
}

/// Returns how many pages the process has of its own. Those of files, of which the program itself is the largest, say nothing
/// of what it has allocated.
pub fn own() -> Option<u64> {
    let (resident, of_files) = pages()?;
    resident.checked_sub(of_files)
}

/// Returns how many pages of the process are in memory, and how many of these are a file's.
fn pages() -> Option<(u64, u64)> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = pages.split(' ').skip(1).map(|number| number.parse().ok());
    Some((pages.next()??, pages.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_its_own_and_the_programs_file_is_not() {
        const BLOCK: usize = 64 << 20;
        // No system of ours has larger pages.
        const PAGE: usize = 64 << 10;
        let before = own().unwrap();
        let block = vec![1_u8; BLOCK];
        let after = own().unwrap();
        assert!(after >= before + (BLOCK / PAGE) as u64, "{before} {after}");
        assert!(block.iter().all(|&byte| byte == 1), "it was there until now");
        assert!(own().unwrap() < resident().unwrap(), "the program itself is in memory");
    }
}
