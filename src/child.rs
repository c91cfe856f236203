//! Starts the server's child processes: Podman and the like. The only place that does, so that none inherits the
//! server's environment, which holds keys and passwords, and which for a child can be read in `/proc`.
//!
//! Most children live no longer than a request; [`Tied`] is one that serves for as long as we do, and no longer.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::unix::process::CommandExt,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::{Pid, getpid, getppid},
};
use tokio::{
    process::{ChildStderr, Command},
    sync::{oneshot, watch},
};

/// Variables that a program may need to find its files, to reach the network, and for its language.
const PASSED: [&str; 22] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TZ",
    "TMPDIR",
    // Rootless Podman asks systemd for its cgroups there.
    "DBUS_SESSION_BUS_ADDRESS",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "ftp_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "STORAGE_DRIVER",
    "STORAGE_OPTS",
];

/// Prefixes of further such variables.
const PASSED_PREFIXES: [&str; 3] = ["XDG_", "CONTAINERS_", "LC_"];

/// Returns a command that starts `program` with only these variables, without input; the child is killed when its
/// handle is dropped.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(env::vars_os().filter(|(name, _)| name.to_str().is_some_and(passes)));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// A child in a process group of its own, which ends with this process, however that ends. Dropped, it is killed with all
/// of its group.
#[derive(Debug)]
pub(crate) struct Tied {
    pid: Pid,
    /// Whether its number may be another process's by now.
    reaped: Arc<Mutex<bool>>,
    ended: watch::Receiver<Option<ExitStatus>>,
    errors: Option<ChildStderr>,
}

/// What becomes of a child when this process is gone, however it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AtOurEnd {
    /// The signal that the child gets at once, from the kernel; SIGKILL if `None`.
    pub(crate) signal: Option<Signal>,
    /// A command that ends what has left its process group, such as a container; empty for none.
    pub(crate) then: Vec<OsString>,
}

/// Kills a process group once its standard input ends, which it does with us, and runs what it was given besides. The kernel's signal
/// reaches the child alone: a script that does not `exec` leaves its program behind.
const GUARDIAN: &str = "trap '' TERM INT HUP; read -r end; kill -KILL \"-$1\"; shift; [ $# = 0 ] || exec \"$@\"";

/// What is known of a child that has just been started: its number and, if that was piped, its standard error.
type Started = io::Result<(Pid, Option<std::process::ChildStderr>)>;

impl Tied {
    /// Starts a program that ends when this process is gone, also by `kill -9`, with all of its group.
    pub(crate) async fn start(command: Command, at_our_end: AtOurEnd) -> io::Result<Self> {
        let (mut command, us) = (command.into_std(), getpid());
        let signal = at_our_end.signal.unwrap_or(Signal::SIGKILL);
        command.process_group(0);
        // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                prctl::set_pdeathsig(signal)?;
                // We may have ended before that was asked for, and then no signal comes.
                if getppid() == us { Ok(()) } else { Err(Errno::ECHILD.into()) }
            });
        }
        let (started, is_started) = oneshot::channel();
        let (tell, ended) = watch::channel(None);
        let reaped = Arc::new(Mutex::new(false));
        let noted = Arc::clone(&reaped);
        // The kernel's signal comes with the end of the *thread* that has started the child. One of the runtime's may end at
        // any time, so this one has nothing else to do and waits for the child.
        let attend = move || attend(command, &at_our_end.then, started, &tell, &noted);
        thread::Builder::new().name("child".to_owned()).spawn(attend)?;
        let gone = |_| io::Error::other("the thread that starts programs has ended");
        let (pid, errors) = is_started.await.map_err(gone)??;
        let mut child = Self { pid, reaped, ended, errors: None };
        child.errors = errors.map(ChildStderr::from_std).transpose()?;
        Ok(child)
    }

    /// Returns its standard error, once, if that was piped.
    pub(crate) fn take_errors(&mut self) -> Option<ChildStderr> {
        self.errors.take()
    }

    /// Sends a signal to it and all of its group, if it has not ended.
    pub(crate) fn signal(&self, signal: Signal) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reaped {
            // It may have ended just now, and then the signal reaches nobody.
            let _ = killpg(self.pid, signal);
        }
    }

    /// Waits until it has ended; returns how, if the system knows. May be dropped and called again.
    pub(crate) async fn ended(&mut self) -> Option<ExitStatus> {
        self.ended.wait_for(Option::is_some).await.map_or(None, |status| *status)
    }
}

impl Drop for Tied {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// Starts a child, and waits until it has ended. Blocks.
fn attend(
    mut command: std::process::Command,
    then: &[OsString],
    started: oneshot::Sender<Started>,
    tell: &watch::Sender<Option<ExitStatus>>,
    reaped: &Mutex<bool>,
) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return drop(started.send(Err(error))),
    };
    let pid = Pid::from_raw(child.id().cast_signed());
    let errors = child.stderr.take();
    let guardian = guard(pid, then);
    if let Err(error) = &guardian {
        tracing::warn!(%error, "what a child starts would outlive a server that is killed");
    }
    if started.send(Ok((pid, errors))).is_err() {
        // Whoever wanted it is gone.
        let _ = killpg(pid, Signal::SIGKILL);
    }
    // It is only looked at: as long as it is not reaped, its number is no other process's.
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
    let mut reaped = reaped.lock().unwrap_or_else(PoisonError::into_inner);
    // What it has started and left behind.
    let _ = killpg(pid, Signal::SIGKILL);
    let status = child.wait();
    *reaped = true;
    if let Ok(mut guardian) = guardian {
        // Before its number may be another group's.
        let _ = guardian.kill();
        let _ = guardian.wait();
    }
    tell.send_replace(status.ok());
}

/// Starts the one that ends a group and what `then` ends, once this process is gone.
fn guard(group: Pid, then: &[OsString]) -> io::Result<std::process::Child> {
    let mut guardian = command("/bin/sh").into_std();
    guardian.args(["-c", GUARDIAN, "guardian", &group.to_string()]).args(then).process_group(0);
    guardian.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

fn passes(name: &str) -> bool {
    PASSED.contains(&name) || PASSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_setting_of_ours_is_passed_on() {
        for name in ["LLM_API_KEY", "MATRIX_PASSWORD", "GITHUB_TOKEN", "STATE_DIR", "PODMAN_PATH"] {
            assert!(!passes(name), "{name}");
        }
        for name in ["AWS_SECRET_ACCESS_KEY", "NOTIFY_SOCKET", "LD_PRELOAD", "RUST_LOG", "SSH_AUTH_SOCK"] {
            assert!(!passes(name), "{name}");
        }
        for name in ["PATH", "XDG_RUNTIME_DIR", "CONTAINERS_CONF", "https_proxy"] {
            assert!(passes(name), "{name}");
        }
    }

    const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

    /// Starts a shell script whose standard error is read; returns it with the first line there.
    async fn script(script: &str) -> (Tied, String) {
        use tokio::io::{AsyncBufReadExt, BufReader};

        let mut command = command("/bin/sh");
        command.args(["-c", script]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = Tied::start(command, AtOurEnd::default()).await.unwrap();
        let mut line = String::new();
        let mut read = BufReader::new(child.take_errors().unwrap());
        tokio::time::timeout(LIMIT, read.read_line(&mut line)).await.expect("a line").unwrap();
        (child, line.trim().to_owned())
    }

    /// Waits until a process is gone, or dead and not yet reaped by whoever has taken it over.
    fn until_gone(pid: &str) {
        let stat = format!("/proc/{pid}/stat");
        let is_gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        let end = std::time::Instant::now() + LIMIT;
        while !is_gone() {
            assert!(std::time::Instant::now() < end, "{pid} lives on");
            thread::yield_now();
        }
    }

    async fn ended(child: &mut Tied) -> Option<ExitStatus> {
        tokio::time::timeout(LIMIT, child.ended()).await.expect("it ends")
    }

    #[tokio::test]
    async fn a_tied_child_tells_how_it_ended_and_takes_its_group_along() {
        use std::os::unix::process::ExitStatusExt;

        let (mut child, grandchild) = script("sleep 1000 & echo $! >&2; exit 7").await;
        assert_eq!(ended(&mut child).await.and_then(|status| status.code()), Some(7));
        until_gone(&grandchild);
        // To signal what has ended does no harm, and to ask again tells the same.
        child.signal(Signal::SIGKILL);
        assert_eq!(ended(&mut child).await.and_then(|status| status.code()), Some(7));

        let (mut child, _) = script("echo >&2; sleep 1000").await;
        child.signal(Signal::SIGTERM);
        assert_eq!(ended(&mut child).await.and_then(|status| status.signal()), Some(libc::SIGTERM));
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_told() {
        let error = Tied::start(command("/no/such/program"), AtOurEnd::default()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    /// Says to this program's own tests that they are the process which is killed.
    const VICTIM: &str = "MATRIX_AGENT_TIED_VICTIM";

    /// The part of the process that is killed; of no meaning by itself.
    #[tokio::test]
    async fn a_process_with_a_tied_child_waits_to_be_killed() {
        if env::var_os(VICTIM).is_some() {
            // As a script that starts its program without `exec`.
            let (_child, line) = script("sleep 1000 & echo $$ $! >&2; wait").await;
            #[expect(clippy::print_stdout, reason = "whoever kills this one reads it")]
            {
                println!("child {line}");
            }
            std::future::pending::<()>().await;
        }
    }

    #[test]
    fn a_tied_child_does_not_outlive_us_when_we_are_killed() {
        use std::io::{BufRead, BufReader};

        let mut us = std::process::Command::new(env::current_exe().unwrap())
            .args(["--exact", "child::tests::a_process_with_a_tied_child_waits_to_be_killed", "--nocapture"])
            .env(VICTIM, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(us.stdout.take().unwrap()).lines().map_while(Result::ok);
        let pids = said.find_map(|line| Some(line.split_once("child ")?.1.to_owned())).expect("their numbers");
        us.kill().unwrap();
        us.wait().unwrap();
        for pid in pids.split(' ') {
            until_gone(pid);
        }
    }
}
