//! A room's sandbox as `tools` use it: commands and files, each a few requests on the connection to its sandboxd.

use std::{fmt, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use sandboxd::{
    blob::Blob,
    protocol::{self, Exit, KillCause, Request, Run, Running, Spool},
};
use tokio::time::Instant;

use super::{
    connection::{Connection, Reply, Wants, plain},
    error::{FileProblem, SandboxError},
    kill,
    process::{Command, Ended, Process, Stdin},
};
use crate::ids;

/// How long a file operation may take.
const FILE_LIMIT: Duration = Duration::from_mins(1);
/// The most that one read of a file brings.
const FILE_MAX: u64 = 64 * 1024 * 1024;
/// The most bytes of names that a directory's listing brings, and of one name.
const LIST_MAX: usize = 1024 * 1024;
const NAME_MAX: usize = 256;
/// Runs sandboxd's own program as a command: its applets.
const APPLET: &str = "/proc/self/exe";

/// One room's live connection. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox {
    connection: Arc<Connection>,
}

/// A command that runs in a sandbox.
pub(crate) type RunningCommand = Running;

/// What became of a command.
pub enum Lookup {
    /// It runs; its kept output comes first, then what it writes from now on.
    Running(Process),
    /// It ended.
    Ended(Ended),
    /// It ran and ended under this boot, too many commands ago for its result to be kept.
    Forgotten,
    /// It was never started under this boot.
    Unknown,
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSlice {
    /// What was asked for, as far as the file goes.
    pub bytes: Bytes,
    /// The size of the whole file.
    pub size: u64,
}

impl Sandbox {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { connection }
    }

    /// Returns what it asks through.
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Returns the id of the container's boot: commands are known under one boot only.
    pub fn boot_id(&self) -> &str {
        self.connection.boot_id()
    }

    /// Returns which sandboxd it is.
    pub fn build(&self) -> &str {
        self.connection.build()
    }

    /// Tells whether its sandboxd can keep a command's streams for a server that goes and comes back. An older one cannot,
    /// and a container keeps that for as long as it runs.
    pub fn spools(&self) -> bool {
        self.connection.version() >= protocol::SPOOL_SINCE
    }

    /// Tells whether the connection still stands.
    pub fn is_connected(&self) -> bool {
        !self.connection.is_closed()
    }

    /// Starts a command. Whether it could be started, its end tells ([`Exit::NotStarted`]).
    pub async fn spawn(&self, command: Command) -> Result<Process, SandboxError> {
        let spool = self.spool(&command)?;
        if command.id.len() > protocol::ID_LIMIT {
            return Err(SandboxError::Declined(format!("a command's id has at most {} bytes", protocol::ID_LIMIT)));
        }
        let nonce = ids::random(16);
        let run = Run {
            id: command.id.clone(),
            nonce: nonce.clone(),
            argv: command.argv,
            env: command.env,
            cwd: command.cwd,
            user: command.user,
            timeout_ms: command.timeout.map(|limit| limit.as_millis() as u64),
            background: command.background,
            stdin: spool.is_none() && !matches!(command.stdin, Stdin::Null),
            writable: command.writable,
            spool,
        };
        let reply = self.connection.wait_for(&command.id, Wants::Start)?;
        let mut process = Process::new(Arc::clone(&self.connection), command.id, nonce, reply, command.stdin);
        if let Some(limit) = command.timeout {
            process.hold_to(limit);
        }
        self.connection.send(&Request::Run(run)).await?;
        Ok(process)
    }

    /// Returns what sandboxd is asked to keep of a command, if it is one whose streams are kept.
    fn spool(&self, command: &Command) -> Result<Option<Spool>, SandboxError> {
        let declined = |why: &str| Err(SandboxError::Declined(why.to_owned()));
        let (input, idle) = match (&command.stdin, command.spooled) {
            (Stdin::Kept { .. }, false) => return declined("its standard input can only be kept if it is spooled"),
            (_, false) => return Ok(None),
            (_, true) if !self.spools() => return Err(SandboxError::Older),
            (Stdin::Stream, true) => {
                return declined("it is spooled, so its standard input does not come on its stream");
            }
            (Stdin::Null, true) => (Bytes::new(), None),
            (Stdin::Bytes(bytes), true) => (bytes.clone(), None),
            (Stdin::Kept { begins, idle }, true) => (begins.clone(), Some(*idle)),
        };
        if input.len() > protocol::INPUT_LIMIT {
            return Err(SandboxError::TooLarge(input.len()));
        }
        let idle_ms = idle.map(|idle| idle.as_millis() as u64);
        Ok(Some(Spool { input: Blob(input.to_vec()), open: idle.is_some(), idle_ms }))
    }

    /// Finds a command of this boot again.
    pub async fn lookup(&self, id: &str) -> Result<Lookup, SandboxError> {
        Ok(self.attach(id, None).await?.0)
    }

    /// As [`Sandbox::lookup`], and asks for the output of a command that is spooled from byte `from` on. Returns also
    /// whether it comes from there: that of others comes from its beginning, as far as it was kept.
    pub async fn attach(&self, id: &str, from: Option<u64>) -> Result<(Lookup, bool), SandboxError> {
        let nonce = ids::random(16);
        let end = self.connection.wait_for(id, Wants::End)?;
        let answer = self.connection.wait_for(id, Wants::Attach)?;
        let process = Process::new(Arc::clone(&self.connection), id.to_owned(), nonce.clone(), end, Stdin::Null);
        let from = from.filter(|_| self.spools());
        self.connection.send(&Request::Attach { id: id.to_owned(), nonce, from }).await?;
        let found = match self.connection.answer(answer).await? {
            Reply::Attached { from: Some(begin), .. } => {
                return Ok((Lookup::Running(process.from(begin, from.unwrap_or(begin))), true));
            }
            Reply::Attached { head, omitted, from: None } => Lookup::Running(process.with_gap(head, omitted)),
            Reply::Ended(ended) => Lookup::Ended((*ended).into()),
            Reply::Unknown { forgotten: true } => Lookup::Forgotten,
            Reply::Unknown { forgotten: false } | Reply::Written(_) => Lookup::Unknown,
            Reply::Failed(why) => return Err(SandboxError::Declined(why)),
        };
        Ok((found, false))
    }

    /// Ends a command with its whole tree. Returns when nothing of it runs any more.
    pub async fn kill(&self, id: &str) -> Result<(), SandboxError> {
        self.end(id, KillCause::Killed).await
    }

    /// As [`Sandbox::kill`], and says why. A command that has ended already, or never ran, is no error. If sandboxd does
    /// not confirm within a second, the container is ended.
    pub async fn end(&self, id: &str, cause: KillCause) -> Result<(), SandboxError> {
        kill::end(&self.connection, id, cause).await
    }

    /// Returns what runs, in order of its start.
    pub async fn running(&self) -> Result<Vec<RunningCommand>, SandboxError> {
        let list = self.connection.wait_for_list()?;
        self.connection.send(&Request::List).await?;
        self.connection.answer(list).await
    }

    /// Asks for a sign of life and returns how long it took.
    pub async fn ping(&self) -> Result<Duration, SandboxError> {
        let (n, pong) = self.connection.wait_for_pong()?;
        let asked = Instant::now();
        self.connection.send(&Request::Ping { n }).await?;
        self.connection.answer(pong).await?;
        Ok(asked.elapsed())
    }

    /// Has the agent try to make a user namespace of its own, and returns why it could not; `None` if it could.
    pub async fn try_user_namespace(&self) -> Result<Option<String>, SandboxError> {
        self.probe(&["probe"], None).await
    }

    /// Lets a command that may write nowhere write into the workspace, and returns why it could not; `None` if it could.
    pub async fn try_to_write(&self) -> Result<Option<String>, SandboxError> {
        self.probe(&["probe", "write"], Some(Vec::new())).await
    }

    async fn probe(&self, arguments: &[&str], writable: Option<Vec<String>>) -> Result<Option<String>, SandboxError> {
        let command = applet(format!("probe-{}", ids::random(8)), arguments, Stdin::Null);
        let ended = self.spawn(Command { writable, ..command }).await?.wait().await?;
        let told = plain(&String::from_utf8_lossy(&ended.output.head));
        match ended.exit {
            Exit::Code(0) => Ok((!told.is_empty()).then_some(told)),
            // A sandboxd from before there was the probe, or a kernel without Landlock.
            _ => Err(SandboxError::Declined(told)),
        }
    }

    /// Reads at most `limit` bytes of a file from `offset`, as the sandbox's user. A relative path starts at the
    /// workspace.
    pub async fn read_file(&self, path: &str, offset: u64, limit: u64) -> Result<FileSlice, SandboxError> {
        let limit = limit.min(FILE_MAX);
        let arguments = ["fs", "read", path, &offset.to_string(), &limit.to_string()];
        let command = applet(format!("fs-{}", ids::random(8)), &arguments, Stdin::Null);
        let mut process = self.spawn(command).await?;
        let mut bytes = BytesMut::new();
        while let Some(chunk) = process.next().await {
            // Eight more for the size that comes first; beyond that it is not what was asked for.
            if bytes.len() + chunk.len() > limit as usize + 8 {
                return Err(SandboxError::Declined("it sent more than was asked for".into()));
            }
            bytes.extend_from_slice(&chunk);
        }
        file_result(path, process.wait().await?)?;
        let Some((size, _)) = bytes.split_first_chunk::<8>() else { return Err(SandboxError::Disconnected) };
        let size = u64::from_be_bytes(*size);
        bytes.advance(8);
        // What the kernel makes up as it is read, as in /proc, has no size.
        if (bytes.len() as u64) < size.saturating_sub(offset).min(limit) {
            let problem = FileProblem::Other("it did not come whole: it changed, or the connection broke".into());
            return Err(SandboxError::File { path: plain(path), problem });
        }
        Ok(FileSlice { bytes: bytes.freeze(), size })
    }

    /// Writes a whole file as the sandbox's user: parents are made, an existing file's mode is kept, and a reader sees
    /// the old content or the new, nothing between. `id` is the command's, so that it can be looked up. Returns where the
    /// file is if a link led there.
    pub async fn write_file(&self, id: &str, path: &str, content: Bytes) -> Result<Option<String>, SandboxError> {
        let size = content.len().to_string();
        let command = applet(id.to_owned(), &["fs", "write", path, &size], Stdin::Bytes(content));
        let ended = self.spawn(command).await?.wait().await?;
        let there = link_target(&ended);
        file_result(path, ended)?;
        Ok(there)
    }

    /// Returns the names in a directory; `None` if there are too many to tell.
    pub async fn list_directory(&self, path: &str) -> Result<Option<Vec<String>>, SandboxError> {
        let arguments = ["fs", "list", path, &LIST_MAX.to_string()];
        let mut process = self.spawn(applet(format!("fs-{}", ids::random(8)), &arguments, Stdin::Null)).await?;
        let mut bytes = BytesMut::new();
        while let Some(chunk) = process.next().await {
            if bytes.len() + chunk.len() > LIST_MAX {
                return Err(SandboxError::Declined("it sent more than was asked for".into()));
            }
            bytes.extend_from_slice(&chunk);
        }
        file_result(path, process.wait().await?)?;
        // A name takes at most so many bytes: if one more had fitted, there was none.
        let whole = bytes.len() + NAME_MAX < LIST_MAX;
        let names = bytes[..].split(|byte| *byte == 0).skip(1);
        Ok(whole.then(|| names.filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect()))
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sandbox({})", self.boot_id())
    }
}

fn applet(id: String, arguments: &[&str], stdin: Stdin) -> Command {
    let argv = [APPLET].iter().chain(arguments).map(|argument| (*argument).to_owned()).collect();
    Command {
        id,
        argv,
        env: Vec::new(),
        cwd: String::new(),
        user: protocol::User::Agent,
        stdin,
        timeout: Some(FILE_LIMIT),
        background: false,
        writable: None,
        spooled: false,
    }
}

/// Returns where a link led a write that has ended.
fn link_target(ended: &Ended) -> Option<String> {
    let there = String::from_utf8_lossy(&ended.output.head);
    (ended.exit == Exit::Code(0) && there.starts_with('/')).then(|| plain(&there))
}

fn file_result(path: &str, ended: Ended) -> Result<(), SandboxError> {
    let problem = match ended.exit {
        Exit::Code(0) => return Ok(()),
        Exit::Code(protocol::FILE_NOT_FOUND) => FileProblem::NotFound,
        Exit::Code(protocol::FILE_IS_DIRECTORY) => FileProblem::IsDirectory,
        Exit::Code(protocol::FILE_NOT_REGULAR) => FileProblem::NotRegular,
        Exit::Code(protocol::FILE_DENIED) => FileProblem::Denied,
        Exit::Code(protocol::FILE_NO_SPACE) | Exit::DiskFull => FileProblem::NoSpace,
        Exit::Code(_) => FileProblem::Other(plain(&String::from_utf8_lossy(&ended.output.head))),
        Exit::NotStarted(why) => FileProblem::Other(plain(&why)),
        Exit::TimedOut => FileProblem::Other("the operation took too long".into()),
        Exit::Killed | Exit::Signal(_) => FileProblem::Other("the operation was ended".into()),
        Exit::OutOfMemory => FileProblem::Other("the sandbox is out of memory".into()),
    };
    Err(SandboxError::File { path: plain(path), problem })
}
