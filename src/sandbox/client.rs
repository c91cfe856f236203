//! A live connection to a room's sandboxd: requests out, events in, and who waits for which.
//!
//! Everything that waits ends when the connection does. Events that nobody asked for are ignored: the other end is not
//! trusted. Called by the fleet, which hands [`Sandbox`] to `tools`.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    io,
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use nix::sys::socket::{Shutdown, shutdown};
use sandboxd::{
    frame::{self, FrameError},
    protocol::{self, Event, Exit, KillCause, Request, Run, Running},
};
use tokio::{
    io::AsyncReadExt,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, oneshot},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    error::{FileProblem, SandboxError},
    link::{LinkState, Shared},
    process::{Command, Ended, Process, Stdin},
};
use crate::ids;

/// How long sandboxd has to confirm a kill before its container is ended.
const KILL_LIMIT: Duration = Duration::from_secs(1);
/// How long ending the container may then take.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How long any other answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of requests that wait for sandboxd to read them.
const UNSENT: usize = 4 * 1024 * 1024;
/// How long a file operation may take.
const FILE_LIMIT: Duration = Duration::from_mins(1);
/// The most that one read of a file brings.
const FILE_MAX: u64 = 64 * 1024 * 1024;
/// Runs sandboxd's own program as a command: its file applets.
const APPLET: &str = "/proc/self/exe";

/// One room's live connection. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox {
    connection: Arc<Connection>,
}

/// A command that runs in a sandbox.
pub type RunningCommand = Running;

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

/// What answers a request about one command.
pub(super) enum Reply {
    Ended(Box<protocol::Ended>),
    Attached { head: u64, omitted: u64 },
    Unknown { forgotten: bool },
    Failed(String),
}

/// What a waiter waits for; `Ended` answers them all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    /// The end of a command that it started.
    Start,
    /// The end of a command that runs.
    End,
    /// Whether a command runs.
    Attach,
}

#[derive(Default)]
struct Waiters {
    commands: HashMap<String, Vec<(Wants, oneshot::Sender<Reply>)>>,
    lists: Vec<oneshot::Sender<Vec<Running>>>,
    pings: HashMap<u64, oneshot::Sender<()>>,
    /// The connection has ended: nobody may begin to wait.
    closed: bool,
}

/// A connection's state, shared by its reader, its writer and all who wait.
pub(super) struct Connection {
    boot_id: String,
    build: String,
    link: Arc<Shared>,
    writer: OwnedWriteHalf,
    /// What the kernel did not take at once, for the writing task.
    unsent: Mutex<BytesMut>,
    unsent_grew: Notify,
    unsent_shrank: Notify,
    waiters: Mutex<Waiters>,
    pings: AtomicU64,
    cancel: CancellationToken,
}

impl Connection {
    /// A greeted connection; its reading half goes to [`Sandbox::serve`].
    pub(super) fn new(
        stream: UnixStream,
        boot_id: String,
        build: String,
        link: Arc<Shared>,
    ) -> (Arc<Self>, OwnedReadHalf) {
        let (reader, writer) = stream.into_split();
        let cancel = link.cancel.child_token();
        let connection = Self {
            boot_id,
            build,
            link,
            writer,
            unsent: Mutex::default(),
            unsent_grew: Notify::new(),
            unsent_shrank: Notify::new(),
            waiters: Mutex::default(),
            pings: AtomicU64::new(0),
            cancel,
        };
        (Arc::new(connection), reader)
    }

    pub(super) fn expect_stream(&self, nonce: &str) -> oneshot::Receiver<UnixStream> {
        self.link.expect(nonce)
    }

    pub(super) fn forget_stream(&self, nonce: &str) {
        self.link.forget(nonce);
    }

    /// Runs `work` beside the connection, at most as long as it lives.
    pub(super) fn supervise(&self, work: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        tokio::spawn(async move {
            cancel.run_until_cancelled(work).await;
        });
    }

    fn wait_for(&self, id: &str, wants: Wants) -> Result<oneshot::Receiver<Reply>, SandboxError> {
        let mut waiters = self.waiters();
        if waiters.closed {
            return Err(SandboxError::Disconnected);
        }
        let waiting = waiters.commands.entry(id.to_owned()).or_default();
        // Whoever went away while waiting leaves its place.
        waiting.retain(|(_, waiter)| !waiter.is_closed());
        if wants == Wants::Start && waiting.iter().any(|(wants, _)| *wants == Wants::Start) {
            return Err(SandboxError::Declined(format!("a command with the id {id} is running")));
        }
        let (sender, receiver) = oneshot::channel();
        waiting.push((wants, sender));
        Ok(receiver)
    }

    /// Sends a request: at once as far as the kernel takes it, so that no task has to wake first. Waits while too many
    /// bytes are unsent.
    async fn send(&self, request: &Request) -> Result<(), SandboxError> {
        let request = frame::encode(request);
        if request.len() > frame::TO_SANDBOXD {
            return Err(SandboxError::TooLarge(request.len()));
        }
        timeout(ANSWER_LIMIT, async {
            loop {
                let shrank = self.unsent_shrank.notified();
                if self.is_closed() {
                    return Err(SandboxError::Disconnected);
                }
                if self.try_send(&request) {
                    return Ok(());
                }
                shrank.await;
            }
        })
        .await
        .map_err(|_| SandboxError::TimedOut { limit: ANSWER_LIMIT, note: Some("it takes no requests".into()) })?
    }

    fn try_send(&self, request: &[u8]) -> bool {
        let mut unsent = self.unsent();
        if unsent.len() + request.len() > UNSENT {
            return false;
        }
        let sent = if unsent.is_empty() { self.writer.try_write(request).unwrap_or(0) } else { 0 };
        if sent < request.len() {
            unsent.extend_from_slice(&request[sent..]);
            self.unsent_grew.notify_one();
        }
        true
    }

    async fn write(&self) -> io::Result<()> {
        loop {
            self.unsent_grew.notified().await;
            while !self.unsent().is_empty() {
                self.writer.writable().await?;
                let mut unsent = self.unsent();
                match self.writer.try_write(&unsent) {
                    Ok(sent) => unsent.advance(sent),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
                self.unsent_shrank.notify_waiters();
            }
        }
    }

    fn unsent(&self) -> MutexGuard<'_, BytesMut> {
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        self.cancel.is_cancelled()
    }

    async fn read(&self, mut reader: OwnedReadHalf) -> Result<(), FrameError> {
        let mut buffer = BytesMut::with_capacity(8 * 1024);
        loop {
            while let Some((event, length)) = frame::decode(&buffer, frame::TO_SERVER)? {
                buffer.advance(length);
                self.dispatch(event);
            }
            match reader.read_buf(&mut buffer).await {
                Ok(read) if read > 0 => {}
                Ok(_) | Err(_) => return Ok(()),
            }
        }
    }

    fn dispatch(&self, event: Event) {
        let mut waiters = self.waiters();
        match event {
            Event::Ended(ended) => {
                if ended.survivors > 0 {
                    self.must_end(format!("{} processes of a command could not be ended", ended.survivors));
                }
                for (_, waiter) in waiters.commands.remove(&ended.id).unwrap_or_default() {
                    let _ = waiter.send(Reply::Ended(Box::new(ended.clone())));
                }
            }
            Event::Attached { id, head, omitted } => {
                waiters.answer(&id, &[Wants::Attach], || Reply::Attached { head, omitted });
            }
            Event::Unknown { id, forgotten } => {
                waiters.answer(&id, &[Wants::Attach, Wants::End], || Reply::Unknown { forgotten });
            }
            Event::Failed { id, why } => {
                waiters.answer(&id, &[Wants::Start], || Reply::Failed(plain(&why)));
            }
            Event::Commands { running } => {
                if !waiters.lists.is_empty() {
                    let _ = waiters.lists.remove(0).send(running);
                }
            }
            Event::Pong { n } => {
                if let Some(waiter) = waiters.pings.remove(&n) {
                    let _ = waiter.send(());
                }
            }
        }
    }

    fn must_end(&self, why: String) {
        tracing::warn!(%why, "the sandbox's container has to be ended");
        self.link.state.send_replace(LinkState::MustEnd(why));
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiters {
    fn answer(&mut self, id: &str, who: &[Wants], reply: impl Fn() -> Reply) {
        let Some(waiting) = self.commands.get_mut(id) else { return };
        for (_, waiter) in waiting.extract_if(.., |(wants, _)| who.contains(wants)) {
            let _ = waiter.send(reply());
        }
        if waiting.is_empty() {
            self.commands.remove(id);
        }
    }
}

impl Sandbox {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { connection }
    }

    /// Reads and writes until the connection ends. An error: what came was not sandboxd's.
    pub(super) async fn serve(&self, reader: OwnedReadHalf) -> Result<(), FrameError> {
        let connection = &self.connection;
        tokio::select! {
            ended = connection.read(reader) => ended,
            _ = connection.write() => Ok(()),
            () = connection.cancel.cancelled() => Ok(()),
        }
    }

    /// Ends the connection and everything that waits for it. Whoever is told so finds the link's state changed already.
    pub(super) fn finish(&self) {
        let connection = &self.connection;
        connection.cancel.cancel();
        // Whoever still holds this connection must not keep sandboxd from noticing its end.
        let _ = shutdown(connection.writer.as_ref().as_raw_fd(), Shutdown::Both);
        let mut waiters = connection.waiters();
        *waiters = Waiters { closed: true, ..Waiters::default() };
    }

    /// Ends the connection from this side.
    pub(super) fn close(&self) {
        self.connection.cancel.cancel();
    }

    pub(super) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.connection, &other.connection)
    }

    /// Returns the id of the container's boot: commands are known under one boot only.
    pub fn boot_id(&self) -> &str {
        &self.connection.boot_id
    }

    /// Returns which sandboxd it is.
    pub fn build(&self) -> &str {
        &self.connection.build
    }

    /// Tells whether the connection still stands.
    pub fn is_connected(&self) -> bool {
        !self.connection.is_closed()
    }

    /// Starts a command. Whether it could be started, its end tells ([`Exit::NotStarted`]).
    pub async fn spawn(&self, command: Command) -> Result<Process, SandboxError> {
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
            stdin: !matches!(command.stdin, Stdin::Null),
        };
        let reply = self.connection.wait_for(&command.id, Wants::Start)?;
        let process = Process::new(Arc::clone(&self.connection), command.id, nonce, reply, command.stdin);
        self.connection.send(&Request::Run(run)).await?;
        Ok(process)
    }

    /// Finds a command of this boot again.
    pub async fn lookup(&self, id: &str) -> Result<Lookup, SandboxError> {
        let nonce = ids::random(16);
        let end = self.connection.wait_for(id, Wants::End)?;
        let answer = self.connection.wait_for(id, Wants::Attach)?;
        let process = Process::new(Arc::clone(&self.connection), id.to_owned(), nonce.clone(), end, Stdin::Null);
        self.connection.send(&Request::Attach { id: id.to_owned(), nonce }).await?;
        Ok(match within(ANSWER_LIMIT, answer).await? {
            Reply::Attached { head, omitted } => Lookup::Running(process.with_gap(head, omitted)),
            Reply::Ended(ended) => Lookup::Ended((*ended).into()),
            Reply::Unknown { forgotten: true } => Lookup::Forgotten,
            Reply::Unknown { forgotten: false } => Lookup::Unknown,
            Reply::Failed(why) => return Err(SandboxError::Declined(why)),
        })
    }

    /// Ends a command with its whole tree. Returns when nothing of it runs any more.
    pub async fn kill(&self, id: &str) -> Result<(), SandboxError> {
        self.end(id, KillCause::Killed).await
    }

    /// As [`Sandbox::kill`], and says why. A command that has ended already, or never ran, is no error. If sandboxd does
    /// not confirm within a second, the container is ended.
    pub async fn end(&self, id: &str, cause: KillCause) -> Result<(), SandboxError> {
        let reply = self.connection.wait_for(id, Wants::End)?;
        self.connection.send(&Request::Kill { id: id.to_owned(), cause }).await?;
        match timeout(KILL_LIMIT, reply).await {
            Ok(Ok(Reply::Ended(ended))) if ended.survivors > 0 => {}
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(_)) => return Err(SandboxError::Disconnected),
            Err(_) => self.connection.must_end("a command did not end within a second of being killed".into()),
        }
        // With the container everything in it ends, and so does this connection.
        timeout(END_LIMIT, self.connection.cancel.cancelled()).await.map_err(|_| SandboxError::NotEnded)
    }

    /// Returns what runs, in order of its start.
    pub async fn running(&self) -> Result<Vec<RunningCommand>, SandboxError> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiters = self.connection.waiters();
            if waiters.closed {
                return Err(SandboxError::Disconnected);
            }
            waiters.lists.push(sender);
        }
        self.connection.send(&Request::List).await?;
        within(ANSWER_LIMIT, receiver).await
    }

    /// Asks for a sign of life and returns how long it took.
    pub async fn ping(&self) -> Result<Duration, SandboxError> {
        let n = self.connection.pings.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiters = self.connection.waiters();
            if waiters.closed {
                return Err(SandboxError::Disconnected);
            }
            waiters.pings.retain(|_, waiter| !waiter.is_closed());
            waiters.pings.insert(n, sender);
        }
        let asked = Instant::now();
        self.connection.send(&Request::Ping { n }).await?;
        within(ANSWER_LIMIT, receiver).await?;
        Ok(asked.elapsed())
    }

    /// Reads at most `limit` bytes of a file from `offset`, as the sandbox's user. A relative path starts at the
    /// workspace.
    pub async fn read_file(&self, path: &str, offset: u64, limit: u64) -> Result<FileSlice, SandboxError> {
        let limit = limit.min(FILE_MAX);
        let arguments = ["read", path, &offset.to_string(), &limit.to_string()];
        let command = file_command(format!("fs-{}", ids::random(8)), &arguments, Stdin::Null);
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
    /// the old content or the new, nothing between. `id` is the command's, so that it can be looked up.
    pub async fn write_file(&self, id: &str, path: &str, content: Bytes) -> Result<(), SandboxError> {
        let size = content.len().to_string();
        let command = file_command(id.to_owned(), &["write", path, &size], Stdin::Bytes(content));
        let ended = self.spawn(command).await?.wait().await?;
        file_result(path, ended)
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sandbox({})", self.boot_id())
    }
}

async fn within<T>(limit: Duration, answer: oneshot::Receiver<T>) -> Result<T, SandboxError> {
    match timeout(limit, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(SandboxError::Disconnected),
        Err(_) => Err(SandboxError::TimedOut { limit, note: None }),
    }
}

fn file_command(id: String, arguments: &[&str], stdin: Stdin) -> Command {
    let argv = [APPLET, "fs"].iter().chain(arguments).map(|argument| (*argument).to_owned()).collect();
    Command {
        id,
        argv,
        env: Vec::new(),
        cwd: String::new(),
        user: protocol::User::Agent,
        stdin,
        timeout: Some(FILE_LIMIT),
        background: false,
    }
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

/// Makes the sandbox's words fit for a sentence: one line, without control characters, of bounded length.
fn plain(text: &str) -> String {
    text.trim().chars().take(300).map(|symbol| if symbol.is_control() { ' ' } else { symbol }).collect()
}
