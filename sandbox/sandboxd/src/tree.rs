//! A command's tree of processes, as `/proc` shows it, and how it is ended when it does not want to.
//!
//! Since each command has a subreaper, whatever it starts stays below that process however often it forks. A tree that
//! forks faster than it can be killed is stopped first: a stopped process still holds its place under the limit of
//! processes, so nothing new can grow there. Called by the wardens, and by PID 1 for what a dead warden left.

use std::{collections::HashMap, fs};

use crate::sys;

/// How often a tree is looked at before it counts as stopped: each time, all that is new in it is stopped.
const ROUNDS: usize = 40;

/// A process of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    parent: i32,
    /// It has ended and only waits to be collected.
    dead: bool,
}

/// Returns the living processes below `root`.
pub(crate) fn below(root: i32) -> Vec<i32> {
    select(&table(), |process| process.parent == root)
}

/// Returns the living processes below PID 1 that are not below one of `wardens`, nor one of them.
pub(crate) fn strays(wardens: &[i32]) -> Vec<i32> {
    select(&table(), |process| process.parent == 1 && !wardens.contains(&process.pid))
}

/// Asks every process to end.
pub(crate) fn ask_to_end(processes: &[i32]) {
    for pid in processes {
        sys::kill(*pid, libc::SIGTERM);
        // A stopped one would not hear it.
        sys::kill(*pid, libc::SIGCONT);
    }
}

/// Ends all that `find` finds: first stops it, until nothing new is found, then kills it.
pub(crate) fn sweep(find: impl Fn() -> Vec<i32>) {
    let mut stopped = Vec::new();
    for _ in 0..ROUNDS {
        let new: Vec<_> = find().into_iter().filter(|pid| !stopped.contains(pid)).collect();
        if new.is_empty() {
            break;
        }
        for pid in &new {
            sys::kill(*pid, libc::SIGSTOP);
        }
        stopped.extend(new);
    }
    for pid in stopped {
        sys::kill(pid, libc::SIGKILL);
    }
}

/// Returns the living among the processes that are `top`, and all below them.
fn select(table: &[Process], top: impl Fn(&Process) -> bool) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<&Process>> = HashMap::new();
    for process in table {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found: Vec<&Process> = table.iter().filter(|process| top(process)).collect();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        // The kernel's table is read piece by piece: a number that was given anew meanwhile must not make a circle.
        found.extend(children.remove(&process.pid).unwrap_or_default());
        next += 1;
    }
    found.into_iter().filter(|process| !process.dead).map(|process| process.pid).collect()
}

fn table() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
        })
        .collect()
}

/// Reads a line of `/proc/PID/stat`. The name in it may hold anything, also blanks and parentheses.
fn parse(pid: i32, stat: &[u8]) -> Option<Process> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(&stat[end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    Some(Process { pid, parent: fields.next()?.parse().ok()?, dead: matches!(state, "Z" | "X") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        Process { pid, parent, dead: false }
    }

    #[test]
    fn a_line_is_read_whatever_the_program_calls_itself() {
        assert_eq!(parse(7, b"7 (a) S 1 (b)) S 3 7 7 0"), Some(process(7, 3)));
        assert_eq!(parse(7, b"7 (\xff) Z 1 7"), Some(Process { dead: true, ..process(7, 1) }));
        assert_eq!(parse(7, b"7 (x)"), None);
        assert_eq!(parse(7, b""), None);
    }

    #[test]
    fn a_tree_is_found_whole_and_nothing_beside_it() {
        let table = [process(5, 3), process(3, 2), process(2, 1), process(9, 1), process(4, 2)];
        let mut found = select(&table, |process| process.parent == 2);
        found.sort_unstable();
        assert_eq!(found, [3, 4, 5]);
    }

    #[test]
    fn the_dead_are_passed_over_but_their_children_are_not() {
        let table = [Process { dead: true, ..process(3, 2) }, process(4, 3)];
        assert_eq!(select(&table, |process| process.parent == 2), [4]);
    }

    #[test]
    fn a_circle_ends() {
        let found = select(&[process(3, 4), process(4, 3)], |process| process.parent == 3);
        assert!(found.contains(&3) && found.contains(&4));
    }
}
