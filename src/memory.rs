//! The memory that the process has taken from the system and does not need any more.
//!
//! glibc gives each thread that allocates at the same time as others an arena, up to eight for each processor, and never
//! gives back what is free in the middle of one: after a load the process stays as large as it ever was. So there are few
//! arenas, large pieces are the system's at once when they are freed, and the rest is given back now and then.

/// Arenas. Threads that allocate at the same time wait for each other a little; there are few that do.
const ARENAS: libc::c_int = 2;
/// Bytes from which on a piece has pages of its own, and that may be free at the heap's end. glibc would raise these limits
/// whenever a large piece is freed. A request to a model stays well below: its pages are not taken anew for each one.
const OWN_PAGES: libc::c_int = 4 << 20;

/// Tells the allocator how to be sparing. Call it before any thread is started.
pub fn be_sparing() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt changes numbers of the allocator, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, OWN_PAGES);
    }
}

/// Gives back to the system what is free, which takes some milliseconds; returns what the process has then. Blocks.
pub fn give_back() -> Option<u64> {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes the locks that it needs.
    unsafe {
        libc::malloc_trim(0);
    }
    resident()
}

/// Returns how many pages of the process are in memory.
pub fn resident() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    pages.split(' ').nth(1)?.parse().ok()
}
