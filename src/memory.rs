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

/// Returns free memory to the system, which takes some milliseconds; returns the pages that the process has then.
/// Blocks.
pub fn give_back() -> Option<u64> {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the locks that it needs.
    unsafe {
        libc::malloc_trim(0);
    }
    resident()
}

/// Returns how many bytes of the process are in memory.
pub fn resident_bytes() -> Option<u64> {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    resident()?.checked_mul(u64::try_from(page).ok()?)
}

/// Returns how many pages of the process are in memory.
pub fn resident() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    pages.split(' ').nth(1)?.parse().ok()
}
