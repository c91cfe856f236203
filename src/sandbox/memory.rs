//! Memory: how much the sandboxes use together, and how much they may.
//!
//! Read from each container's control group, at most so often, and never asked of Podman: two small files a sandbox. Where
//! the kernel counts nothing for a container (rootless Podman under cgroups v1), each counts as much as it may take.
//! Called by `limit.rs`, which decides who runs, and by `doctor`.

use std::{
    fs,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{error::Short, room::Room};

/// What a sandbox counts as until it has been measured: a container's start with a first command takes less.
const STARTING: u64 = 16 << 20;

/// Figures are no older than this when somebody wants to start.
const FRESH: Duration = Duration::from_millis(100);

/// From here on the host is short of memory, whoever takes it: the percentage of the last ten seconds in which nothing on
/// it could go on for want of memory.
const STALLED: f64 = 10.0;

/// The memory of all sandboxes as it was seen last.
pub(super) struct Memory {
    /// What they may use together.
    bound: u64,
    /// The kernel counts for each container.
    counted: AtomicBool,
    /// The host is short of memory.
    stalled: AtomicBool,
    looked: Mutex<Option<Instant>>,
}

impl Memory {
    pub(super) fn new(bound: u64) -> Self {
        Self { bound, counted: AtomicBool::new(true), stalled: AtomicBool::new(false), looked: Mutex::default() }
    }

    /// Says whether the kernel counts each container's memory.
    pub(super) fn set_counted(&self, counted: bool) {
        self.counted.store(counted, Ordering::SeqCst);
    }

    /// Reads the figures of those that run, unless that was done a moment ago.
    pub(super) fn refresh(&self, running: &[Arc<Room>]) {
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.is_some_and(|looked| looked.elapsed() < FRESH) {
                return;
            }
            *looked = Some(Instant::now());
        }
        let pressure = fs::read_to_string("/proc/pressure/memory").unwrap_or_default(); // not every kernel tells
        self.stalled.store(stalled(&pressure), Ordering::SeqCst);
        for room in running {
            if let Some(used) = room.memory_group().and_then(|group| group.used()) {
                room.memory_used.store(used, Ordering::SeqCst);
            }
        }
    }

    /// Returns what `room` counts as before it was measured.
    pub(super) fn expected(&self, limit: u64) -> u64 {
        if self.counted.load(Ordering::SeqCst) { STARTING.min(limit) } else { limit }
    }

    /// Returns what the sandboxes may use together now. While the host is short of memory it is half: what others need
    /// must not be taken from them, and a few idle sandboxes are no reason to stop anybody.
    pub(super) fn bound(&self) -> u64 {
        if self.stalled.load(Ordering::SeqCst) { self.bound / 2 } else { self.bound }
    }

    /// Tells whether `more` fits beside what `others` use. The only one to run always fits.
    pub(super) fn room_for(&self, more: u64, others: &[Arc<Room>]) -> Result<(), Short> {
        if others.is_empty() {
            return Ok(());
        }
        let used = others.iter().map(|room| room.memory_used.load(Ordering::SeqCst)).fold(0, u64::saturating_add);
        let bound = self.bound();
        match used.saturating_add(more).saturating_sub(bound) {
            0 => Ok(()),
            missing => Err(Short { used, bound, missing }),
        }
    }
}

/// Reads `/proc/pressure/memory`.
fn stalled(pressure: &str) -> bool {
    let full = pressure.lines().find_map(|line| line.strip_prefix("full "));
    let average = full.and_then(|full| full.split(' ').find_map(|word| word.strip_prefix("avg10=")));
    average.and_then(|average| average.parse::<f64>().ok()).is_some_and(|average| average >= STALLED)
}

/// Returns the host's memory in bytes.
pub fn of_host() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Address;

    fn rooms(used: &[u64]) -> Vec<Arc<Room>> {
        let room = |used: &u64| {
            let room = Room::new(Address::of_first("!r:x"));
            room.memory_used.store(*used, Ordering::SeqCst);
            Arc::new(room)
        };
        used.iter().map(room).collect()
    }

    #[test]
    fn one_more_fits_as_long_as_all_together_stay_within_their_share() {
        let memory = Memory::new(100);
        let fits = |used: &[u64], more| memory.room_for(more, &rooms(used));
        assert_eq!(fits(&[30, 60], 10), Ok(()));
        assert_eq!(fits(&[30, 60], 11), Err(Short { used: 90, bound: 100, missing: 1 }));
        assert_eq!(fits(&[], 1000), Ok(()), "the only one always fits");
        memory.stalled.store(true, Ordering::SeqCst);
        assert_eq!(fits(&[30, 10], 10), Ok(()), "also on a host that is short of memory");
        assert_eq!(fits(&[30, 20], 10), Err(Short { used: 50, bound: 50, missing: 10 }));
    }

    #[test]
    fn what_the_kernel_does_not_count_is_taken_for_all_that_it_may_be() {
        let memory = Memory::new(1 << 40);
        assert_eq!(memory.expected(1 << 30), STARTING);
        assert_eq!(memory.expected(1 << 20), 1 << 20);
        memory.set_counted(false);
        assert_eq!(memory.expected(1 << 30), 1 << 30);
    }

    #[test]
    fn the_kernels_figures_are_understood() {
        let pressure =
            |full: &str| format!("some avg10=99.00 avg60=0.00 avg300=0.00 total=0\nfull avg10={full} avg60=50.00\n");
        assert!(stalled(&pressure("10.00")) && stalled(&pressure("73.21")));
        assert!(!stalled(&pressure("9.99")) && !stalled("") && !stalled("full nothing"));
        assert!(of_host().unwrap() > 1 << 20);
    }
}
