//! A command's tree of processes, as `/proc` shows it, and how it is ended when it does not want to.
//!
//! Since each command has a subreaper, whatever it starts stays below that process however often it forks. A tree that
//! forks faster than it can be killed is stopped first: a stopped process still holds its place under the limit of
//! processes, so nothing new can grow there. Signals go to whole process groups: that reaches a group at once, with all
//! that is just being forked in it. A group lies in one session, a command begins a session of its own, and so no group
//! holds processes of two commands. Called by the wardens, and by PID 1 for what a dead warden left.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
};

use crate::sys;

/// How often a tree is looked at before it counts as stopped: each time, all that is new in it is stopped.
const ROUNDS: usize = 40;

/// A living process of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pid: i32,
    parent: i32,
    group: i32,
    state: ProcessState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProcessState {
    Alive,
    Stopped,
    /// It only waits to be collected.
    Dead,
}

/// Returns the living processes below `root`.
pub(crate) fn below(root: i32) -> Vec<Process> {
    select(&table(), |process| process.parent == root)
}

/// Returns the living processes below PID 1 that are not below one of `wardens`, nor one of them.
pub(crate) fn strays(wardens: &[i32]) -> Vec<Process> {
    select(&table(), |process| process.parent == 1 && !wardens.contains(&process.pid))
}

/// Asks every process to end.
pub(crate) fn ask_to_end(processes: &[Process]) {
    signal(processes, libc::SIGTERM);
    // A stopped one would not hear it.
    signal(processes, libc::SIGCONT);
}

/// Ends all that `find` finds: first stops it, until nothing new is found, then kills it.
pub(crate) fn sweep(find: impl Fn() -> Vec<Process>) {
    let mut all = Vec::new();
    let mut told = HashSet::new();
    for _ in 0..ROUNDS {
        let found = find();
        let new: Vec<_> =
            found.iter().copied().filter(|it| it.state == ProcessState::Alive && told.insert(it.pid)).collect();
        all.extend(found);
        if new.is_empty() {
            break;
        }
        signal(&new, libc::SIGSTOP);
    }
    signal(&all, libc::SIGKILL);
}

fn signal(processes: &[Process], signal: i32) {
    for group in processes.iter().map(|process| process.group).filter(|group| *group > 1).collect::<BTreeSet<_>>() {
        sys::kill(-group, signal);
    }
    // One that has not begun its session yet is still in PID 1's group.
    for process in processes.iter().filter(|process| process.group <= 1) {
        sys::kill(process.pid, signal);
    }
}

/// Returns the living among the processes that are `top`, and all below them.
fn select(table: &[Process], top: impl Fn(&Process) -> bool) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in table {
        children.entry(process.parent).or_default().push(*process);
    }
    let mut found: Vec<Process> = table.iter().filter(|process| top(process)).copied().collect();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        // The kernel's table is read piece by piece: a process id that was used anew meanwhile must not make a circle.
        found.extend(children.remove(&process.pid).unwrap_or_default());
        next += 1;
    }
    found.retain(|process| process.state != ProcessState::Dead);
    found
}

fn table() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut line = [0; 512];
    entries
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
            // All that is wanted stands at the start, so one read will do.
            let length = sys::read(&file, &mut line).ok()?;
            parse(pid, &line[..length])
        })
        .collect()
}

/// Reads a line of `/proc/PID/stat`. The name in it may hold anything, also blanks and parentheses.
fn parse(pid: i32, stat: &[u8]) -> Option<Process> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = str::from_utf8(&stat[end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = match fields.next()? {
        "Z" | "X" => ProcessState::Dead,
        "T" => ProcessState::Stopped,
        _ => ProcessState::Alive,
    };
    Some(Process { pid, parent: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()?, state })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        Process { pid, parent, group: 7, state: ProcessState::Alive }
    }

    fn pids(table: &[Process], parent: i32) -> BTreeSet<i32> {
        select(table, |process| process.parent == parent).into_iter().map(|process| process.pid).collect()
    }

    #[test]
    fn a_line_is_read_whatever_the_program_calls_itself() {
        assert_eq!(parse(5, b"5 (a) S 1 (b)) S 3 7 7 0"), Some(process(5, 3)));
        assert_eq!(parse(5, b"5 (\xff) Z 1 7 7"), Some(Process { state: ProcessState::Dead, ..process(5, 1) }));
        assert_eq!(parse(5, b"5 () T 1 7 7"), Some(Process { state: ProcessState::Stopped, ..process(5, 1) }));
        assert_eq!(parse(5, b"5 (x)"), None);
        assert_eq!(parse(5, b""), None);
    }

    #[test]
    fn a_tree_is_found_whole_and_nothing_beside_it() {
        let table = [process(5, 3), process(3, 2), process(2, 1), process(9, 1), process(4, 2)];
        assert_eq!(pids(&table, 2), [3, 4, 5].into());
    }

    #[test]
    fn the_dead_are_passed_over_but_their_children_are_not() {
        let table = [Process { state: ProcessState::Dead, ..process(3, 2) }, process(4, 3)];
        assert_eq!(pids(&table, 2), [4].into());
    }

    #[test]
    fn a_circle_ends() {
        assert_eq!(pids(&[process(3, 4), process(4, 3)], 3), [3, 4].into());
    }
}
