//! The last steps before a command's own program runs: its descriptors, its user, its directory, and the exec.
//!
//! All that can be prepared is prepared before the fork; what goes wrong after it is told through a pipe that closes
//! when the program starts. Called by a command's warden.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    fs, io,
    os::fd::RawFd,
};

use sandboxd::protocol::{Run, User};

use crate::{account::Account, sys, wall};

/// The directory of commands that name none.
pub(crate) const WORKSPACE: &str = "/workspace";
/// The score by which the kernel, when memory runs out, ends commands rather than sandboxd.
const OOM_SCORE: &[u8] = b"500";
/// How far commands stand back behind sandboxd and their wardens. Where each container has a cgroup, it counts only
/// within it, and decides whether the process that ends a fork bomb gets to run beside it (measured: with 10 it took
/// five times as long).
const NICENESS: i32 = 19;

/// A command that is ready to be started.
pub(crate) struct Launch {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// Where its program may lie, in the order of the search.
    programs: Vec<CString>,
    directory: CString,
    user: User,
    /// The places where alone it may write; `None`: wherever its user may.
    writable: Option<Vec<String>>,
}

/// The step that failed after the fork.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Step {
    Setup = 1,
    Directory = 2,
    Program = 3,
    Wall = 4,
}

impl Launch {
    /// Prepares a command; the error is a sentence about it.
    pub(crate) fn new(run: &Run, environment: &BTreeMap<String, String>) -> Result<Self, String> {
        let string = |text: &str| CString::new(text).map_err(|_| "it contains a NUL byte".to_owned());
        let Some(program) = run.argv.first().filter(|program| !program.is_empty()) else {
            return Err("it names no program".to_owned());
        };
        let programs = if program.contains('/') {
            vec![string(program)?]
        } else {
            let path = environment.get("PATH").map_or("", String::as_str);
            let directories = path.split(':').filter(|directory| !directory.is_empty());
            directories.map(|directory| string(&format!("{directory}/{program}"))).collect::<Result<_, _>>()?
        };
        let environment = environment.iter().filter(|(name, _)| !name.is_empty() && !name.contains('='));
        Ok(Self {
            arguments: run.argv.iter().map(|argument| string(argument)).collect::<Result<_, _>>()?,
            environment: environment
                .map(|(name, value)| string(&format!("{name}={value}")))
                .collect::<Result<_, _>>()?,
            programs,
            directory: string(if run.cwd.is_empty() { WORKSPACE } else { &run.cwd })?,
            user: run.user,
            writable: run.writable.clone(),
        })
    }

    /// Starts the command and returns its pid. `streams` are its standard input, output and error. `report` gets a few
    /// bytes if its program does not come to run.
    pub(crate) fn start(&self, account: &Account, streams: [RawFd; 3], report: RawFd) -> io::Result<i32> {
        let [input, output, errors] = streams;
        match sys::fork()? {
            sys::Fork::Parent(pid) => Ok(pid),
            sys::Fork::Child => {
                // From here on the report is descriptor 3.
                let (step, error) = match sys::keep_for_exec(&[input, output, errors, report]) {
                    Ok(()) => self.become_command(account),
                    Err(error) => (Step::Setup, error),
                };
                let mut message = vec![step as u8];
                message.extend(error.raw_os_error().unwrap_or(libc::EINVAL).to_le_bytes());
                let _ = sys::write(&3, &message);
                sys::quit(127)
            }
        }
    }

    /// Makes this process the command; returns only if that went wrong.
    fn become_command(&self, account: &Account) -> (Step, io::Error) {
        sys::start_session(NICENESS);
        // If this fails, the command is only as likely to be chosen as sandboxd itself.
        let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE);
        if let Err(error) = sys::forbid_new_privileges() {
            return (Step::Setup, error);
        }
        // This comes before it becomes its user, who may not open every place that is named.
        if let Some(writable) = &self.writable
            && let Err(error) = wall::write_only_below(writable)
        {
            return (Step::Wall, error);
        }
        if self.user == User::Agent
            && let Err(error) = sys::become_user(account.uid, account.gid, &account.groups)
        {
            return (Step::Setup, error);
        }
        sys::end_with_parent();
        if let Err(error) = sys::change_directory(&self.directory) {
            return (Step::Directory, error);
        }
        sys::release_signals();
        let mut worst = io::Error::from_raw_os_error(libc::ENOENT);
        for program in &self.programs {
            let error = sys::exec(program, &self.arguments, &self.environment);
            match error.raw_os_error() {
                // Not there: the next directory may have it.
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                // There, but not for us; told if no other directory has it.
                Some(libc::EACCES) => worst = error,
                _ => return (Step::Program, error),
            }
        }
        (Step::Program, worst)
    }

    /// Returns what a report means, as a sentence.
    pub(crate) fn explain(&self, report: &[u8]) -> String {
        let error = report.get(1..5).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_le_bytes);
        let system = io::Error::from_raw_os_error(error);
        // A name may be as long as a request; the sentence has to fit into an answer.
        let name = |text: &CStr| text.to_string_lossy().chars().take(200).collect::<String>();
        let program = self.arguments.first().map(|program| name(program)).unwrap_or_default();
        let directory = name(&self.directory);
        match (report.first(), error) {
            (Some(step), libc::ENOENT) if *step == Step::Directory as u8 => {
                format!("the directory {directory} does not exist")
            }
            (Some(step), libc::ENOTDIR) if *step == Step::Directory as u8 => format!("{directory} is not a directory"),
            (Some(step), _) if *step == Step::Directory as u8 => {
                format!("the directory {directory} cannot be entered: {system}")
            }
            (Some(step), libc::ENOENT) if *step == Step::Program as u8 => {
                format!("the program {program} was not found (or the interpreter in its first line was not)")
            }
            (Some(step), libc::EACCES) if *step == Step::Program as u8 => format!("{program} is not executable"),
            (Some(step), libc::ENOEXEC) if *step == Step::Program as u8 => {
                format!("{program} is no program for this machine (a script needs a first line like #!/bin/sh)")
            }
            (Some(step), libc::E2BIG) if *step == Step::Program as u8 => {
                "its arguments and environment are too long: put them into a file".to_owned()
            }
            (Some(step), _) if *step == Step::Wall as u8 => {
                format!("{program} was not started: the kernel cannot keep it from writing (it has no Landlock)")
            }
            _ => format!("{program} could not be started: {system}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(argv: &[&str]) -> Run {
        Run { argv: argv.iter().map(|argument| (*argument).to_owned()).collect(), ..Run::default() }
    }

    fn environment() -> BTreeMap<String, String> {
        [("PATH", "/usr/bin::/bin"), ("A=B", "c"), ("", "d")].map(|(name, value)| (name.into(), value.into())).into()
    }

    #[test]
    fn a_bare_name_is_searched_and_a_path_is_not() {
        let launch = Launch::new(&run(&["ls", "-l"]), &environment()).unwrap();
        assert_eq!(launch.programs, [c"/usr/bin/ls".to_owned(), c"/bin/ls".to_owned()]);
        assert_eq!(launch.environment, [c"PATH=/usr/bin::/bin".to_owned()]);
        assert_eq!(launch.directory.to_str(), Ok(WORKSPACE));
        assert_eq!(Launch::new(&run(&["./ls"]), &environment()).unwrap().programs, [c"./ls".to_owned()]);
    }

    #[test]
    fn what_cannot_be_run_is_said() {
        assert_eq!(Launch::new(&run(&[]), &environment()).err().as_deref(), Some("it names no program"));
        assert_eq!(Launch::new(&run(&["a\0b"]), &environment()).err().as_deref(), Some("it contains a NUL byte"));
    }
}
