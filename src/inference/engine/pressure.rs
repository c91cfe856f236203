//! Whether this machine is short of memory or processors, by what the kernel says of it.

use std::{fs, thread};

use super::Pressure;

/// Returns what this machine is short of: it uses `percent` of it or more, where `own` threads of ours were busy lately. Reads two small files of the kernel,
/// which takes microseconds. A machine that does not say is short of nothing.
pub(super) fn now(percent: u32, own: usize) -> Option<Pressure> {
    let (memory, load) = (fs::read_to_string("/proc/meminfo").ok()?, fs::read_to_string("/proc/loadavg").ok()?);
    let processors = thread::available_parallelism().map_or(1, usize::from);
    of(&memory, &load, f64::from(percent) / 100.0, processors, own)
}

/// The same by the files' texts. What the model's own threads do is no pressure: otherwise each answer would forbid the next.
fn of(memory: &str, load: &str, full: f64, processors: usize, own: usize) -> Option<Pressure> {
    if used(memory).is_some_and(|used| used >= full) {
        return Some(Pressure::Memory);
    }
    let load: f64 = load.split(' ').next()?.parse().ok()?;
    let others = load - own as f64;
    (others >= full * processors as f64).then_some(Pressure::Load)
}

/// Returns which part of the memory is used and could not be given back.
fn used(memory: &str) -> Option<f64> {
    let field = |name: &str| -> Option<f64> {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let (total, available) = (field("MemTotal")?, field("MemAvailable")?);
    (total > 0.0).then(|| 1.0 - available / total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(available: u64) -> String {
        format!("MemTotal:        1000000 kB\nMemFree:           10000 kB\nMemAvailable:   {available} kB\n")
    }

    #[test]
    fn a_machine_is_short_from_85_percent_on_and_its_own_work_does_not_count() {
        for (available, load, own, short) in [
            (150_001, "0.10 0.20 0.30 1/100 999\n", 0, None),
            (150_000, "0.10 0.20 0.30 1/100 999\n", 0, Some(Pressure::Memory)),
            (500_000, "3.39 0.20 0.30 1/100 999\n", 0, None),
            (500_000, "3.40 0.20 0.30 1/100 999\n", 0, Some(Pressure::Load)),
            (500_000, "6.00 0.20 0.30 1/100 999\n", 3, None),
            (500_000, "6.40 0.20 0.30 1/100 999\n", 3, Some(Pressure::Load)),
            (10_000, "9.00 0.20 0.30 1/100 999\n", 0, Some(Pressure::Memory)),
        ] {
            assert_eq!(of(&memory(available), load, 0.85, 4, own), short, "{available} {load} {own}");
        }
    }

    #[test]
    fn a_machine_that_does_not_say_is_short_of_nothing() {
        for (memory, load) in [("", ""), ("MemTotal: 0 kB\nMemAvailable: 0 kB\n", "?"), ("MemTotal: x kB", "1.0")] {
            assert_eq!(of(memory, load, 0.85, 8, 0), None);
        }
    }
}
