//! How much memory the sandboxes use together, and how much they may.
//!
//! The usage is read from each container's control group, two small files a sandbox and only so often; Podman is not
//! asked. Where the kernel does not count for each container (rootless Podman under cgroups v1), each counts with its
//! whole limit.

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

/// What a sandbox counts as before it is measured; a container's start with a first command takes less.
const STARTING: u64 = 16 << 20;

/// How old the figures may be when a sandbox is to start.
const FRESH: Duration = Duration::from_millis(100);

/// The host is short of memory from this percentage on: the part of the last ten seconds in which all tasks were
/// stalled for memory (`full avg10` in `/proc/pressure/memory`).
const STALLED: f64 = 10.0;

/// The memory of all sandboxes as last measured.
pub(super) struct Memory {
    /// Bytes that they may use together.
    bound: u64,
    /// Whether the kernel counts for each container.
    counted: AtomicBool,
    /// Whether the host is short of memory.
    stalled: AtomicBool,
    looked: Mutex<Option<Instant>>,
}

impl Memory {
    pub(super) fn new(bound: u64) -> Self {
        Self { bound, counted: AtomicBool::new(true), stalled: AtomicBool::new(false), looked: Mutex::default() }
    }

    /// Sets whether the kernel counts for each container.
    pub(super) fn set_counted(&self, counted: bool) {
        self.counted.store(counted, Ordering::SeqCst);
    }

    /// Measures the sandboxes that run, unless the figures are fresh.
    pub(super) fn refresh(&self, running: &[Arc<Room>]) {
        {
            let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.is_some_and(|looked| looked.elapsed() < FRESH) {
                return;
            }
            *looked = Some(Instant::now());
        }
        let pressure = fs::read_to_string("/proc/pressure/memory").unwrap_or_default(); // not every kernel has it
        self.stalled.store(stalled(&pressure), Ordering::SeqCst);
        for room in running {
            if let Some(used) = room.memory_group().and_then(|group| group.used()) {
                room.memory_used.store(used, Ordering::SeqCst);
            }
        }
    }

    /// Returns the bytes that a sandbox with this limit counts as before it is measured.
    pub(super) fn expected(&self, limit: u64) -> u64 {
        if self.counted.load(Ordering::SeqCst) { STARTING.min(limit) } else { limit }
    }

    /// Returns the bytes that the sandboxes may use together now. While the host is short of memory this is half:
    /// other programs need theirs, yet a few idle sandboxes are no reason to stop any.
    pub(super) fn bound(&self) -> u64 {
        if self.stalled.load(Ordering::SeqCst) { self.bound / 2 } else { self.bound }
    }

    /// Checks whether `more` bytes fit beside what `others` use. A sandbox that would be the only one always fits.
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

/// Returns whether `/proc/pressure/memory` shows that the host is short of memory.
fn stalled(pressure: &str) -> bool {
    let full = pressure.lines().find_map(|line| line.strip_prefix("full "));
    let average = full.and_then(|full| full.split(' ').find_map(|word| word.strip_prefix("avg10=")));
    average.and_then(|average| average.parse::<f64>().ok()).is_some_and(|average| average >= STALLED)
}

/// Returns the host's memory in bytes.
pub(crate) fn of_host() -> Option<u64> {
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
