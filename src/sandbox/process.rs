//! A command, and the running process that it becomes, as the rest of the server sees them.
//!
//! A process's output arrives on a connection of its own, or, when it is short, together with its end. Knows the
//! connection only by what it registered there. Called by `tools` through [`super::Sandbox`].

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use sandboxd::protocol::{self, Exit, KillCause, SpoolFile, User};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::oneshot,
    time::{Instant, timeout, timeout_at},
};

use super::{
    connection::{ANSWER_LIMIT, Connection, Reply},
    error::SandboxError,
    kill,
};

/// What one read of a stream takes at most.
const CHUNK: usize = 256 * 1024;
/// The most bytes of a path, as in the kernel.
const PATH: usize = 4096;
/// The most files of a spool.
const SPOOL_FILES: usize = 2;
/// How long a stream may be silent after its command's end before it is given up.
const TAIL_LIMIT: Duration = Duration::from_secs(10);

/// How much longer than its own limit a command is waited for: sandboxd ends it at its time, and needs four seconds for
/// one that resists. A container that was paused ends nothing.
const OVERTIME: Duration = Duration::from_secs(10);

/// A command for a sandbox.
#[derive(Clone, Debug)]
pub struct Command {
    /// Unique in the room; the name by which it is found again after a crash.
    pub id: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Put on top of the default environment.
    pub env: Vec<(String, String)>,
    /// Where it runs; empty: the workspace.
    pub cwd: String,
    /// Whose rights it has.
    pub user: User,
    /// Its standard input.
    pub stdin: Stdin,
    /// Ended by sandboxd after this time, also while no server is there.
    pub timeout: Option<Duration>,
    /// Lives until its whole tree is gone.
    pub background: bool,
    /// The directories and files below which alone it and all that it starts may write; `None`: where its user may.
    pub writable: Option<Vec<String>>,
    /// Its streams are kept for a server that goes and comes back: its output (without standard error, of which only the end
    /// is kept) is read on from any byte ([`super::Sandbox::attach`], [`super::Sandbox::rest`]), and its input goes on.
    /// Only where the sandbox can ([`super::Sandbox::spools`]).
    pub spooled: bool,
}

/// A command's standard input.
#[derive(Clone, Debug)]
pub enum Stdin {
    /// `/dev/null`.
    Null,
    /// These bytes, then the end.
    Bytes(Bytes),
    /// What [`Process::write`] brings, until [`Process::close_stdin`].
    Stream,
    /// First some bytes, then what [`super::Sandbox::write`] brings. For a command that is spooled.
    Kept {
        /// The first bytes.
        begins: Bytes,
        /// It ends when for so long nothing was written to it and the command has written nothing.
        idle: Duration,
    },
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub exit: Exit,
    /// What it wrote.
    pub output: Captured,
}

/// What is kept of a command's output: standard output and standard error in their true order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Its start.
    pub head: Bytes,
    /// Its end, as far as it is not in `head`.
    pub tail: Bytes,
    /// The bytes between.
    pub omitted: u64,
    /// Where in the sandbox the whole is (its first 8 MiB), if something was omitted.
    pub log: Option<String>,
    /// Background children that were ended with it.
    pub ended_leftovers: u32,
    /// Where the output of a command that was spooled is.
    pub spooled: Option<Spooled>,
}

/// What is left of the output of a command that was spooled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spooled {
    /// The files in the sandbox that hold it, each with the place of its first byte: the oldest first.
    pub files: Vec<(String, u64)>,
    /// The bytes that it wrote.
    pub end: u64,
    /// The last bytes of its standard error.
    pub errors: Bytes,
}

/// A command that runs or has just ended. Dropping it does not end the command; its output is then only kept.
/// Standard input moves while [`Process::next`], [`Process::wait`] or [`Process::write`] is being awaited.
pub struct Process {
    id: String,
    nonce: String,
    connection: Arc<Connection>,
    /// Its end, when it comes.
    reply: oneshot::Receiver<Reply>,
    /// Its end, once it came.
    ended: Option<Result<Box<protocol::Ended>, Failure>>,
    output: Output,
    /// An attached process's gap: after so many bytes, so many are missing.
    gap: Option<(u64, u64)>,
    /// Bytes of output that came or are missing.
    written: u64,
    buffer: BytesMut,
    stdin: Input,
    /// When it is no longer waited for, whatever sandboxd does.
    deadline: Option<Instant>,
}

/// Where a process's output comes from.
enum Output {
    /// A stream that has not come and, for a short output, never will.
    Expected(oneshot::Receiver<UnixStream>),
    /// The stream.
    Streaming(OwnedReadHalf),
    /// Nothing more comes.
    Finished,
}

/// What becomes of a process's standard input.
enum Input {
    /// To be written when the stream comes.
    Waiting(Stdin),
    /// Open for [`Process::write`].
    Open(OwnedWriteHalf),
    /// Nothing more goes.
    Closed,
}

/// A failure in place of an end.
enum Failure {
    Disconnected,
    Declined(String),
    /// Its end did not come in time.
    Overdue,
}

/// What happened next to a process.
enum Step {
    Chunk(Bytes),
    Ended,
    Finished,
}

impl From<protocol::Ended> for Ended {
    fn from(ended: protocol::Ended) -> Self {
        let bounded = |mut bytes: Vec<u8>, limit| {
            bytes.truncate(limit);
            Bytes::from(bytes)
        };
        let plausible =
            |path: &String| path.starts_with('/') && path.len() <= PATH && !path.chars().any(char::is_control);
        Self {
            exit: ended.exit,
            output: Captured {
                head: bounded(ended.head.0, protocol::HEAD),
                tail: bounded(ended.tail.0, protocol::TAIL),
                omitted: ended.omitted,
                log: ended.log.filter(plausible),
                ended_leftovers: ended.leftovers,
                spooled: ended.spooled.map(|spooled| Spooled {
                    files: spooled
                        .files
                        .into_iter()
                        .take(SPOOL_FILES)
                        .filter(|file| plausible(&file.path))
                        .map(|SpoolFile { path, begin }| (path, begin))
                        .collect(),
                    end: spooled.end,
                    errors: bounded(spooled.errors.0, protocol::ERRORS),
                }),
            },
        }
    }
}

impl Process {
    /// A process whose request, with `nonce`, is about to be sent; its end will come as `reply`.
    pub(super) fn new(
        connection: Arc<Connection>,
        id: String,
        nonce: String,
        reply: oneshot::Receiver<Reply>,
        stdin: Stdin,
    ) -> Self {
        let output = Output::Expected(connection.expect_stream(&nonce));
        let stdin = Input::Waiting(stdin);
        Self {
            id,
            nonce,
            connection,
            reply,
            ended: None,
            output,
            gap: None,
            written: 0,
            buffer: BytesMut::new(),
            stdin,
            deadline: None,
        }
    }

    /// Waits for its end a little longer than `limit`, which is its own, and no longer: sandboxd may be unable to hold it
    /// to that.
    pub fn hold_to(&mut self, limit: Duration) {
        self.deadline = Instant::now().checked_add(limit + OVERTIME);
    }

    /// Notes where the kept output of an attached process has its gap.
    pub(super) fn with_gap(mut self, head: u64, omitted: u64) -> Self {
        self.gap = (omitted > 0).then_some((head, omitted));
        self
    }

    /// Notes that a spooled process's output comes from byte `from` on, of which `asked` was asked for. It comes from a later one
    /// where what lies between is lost, and from an earlier one where no more was written.
    pub(super) fn from(mut self, from: u64, asked: u64) -> Self {
        self.written = asked.min(from);
        self.gap = from.checked_sub(asked).filter(|missing| *missing > 0).map(|missing| (0, missing));
        self
    }

    /// Returns the command's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns how many bytes it had written up to what [`Process::next`] has returned, those included that an attached
    /// process was no longer there for.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Returns the next bytes of its output; `None` when there will be no more. May be dropped and called again.
    /// While it is not called, the command waits once the kernel's buffers are full.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.step().await {
                Step::Chunk(chunk) => return Some(chunk),
                Step::Ended => {}
                Step::Finished => return None,
            }
        }
    }

    /// Waits for its end. What it writes until then is read and dropped; the result keeps its start and end.
    pub async fn wait(mut self) -> Result<Ended, SandboxError> {
        loop {
            match self.ended.take() {
                Some(Ok(ended)) => return Ok((*ended).into()),
                Some(Err(Failure::Disconnected)) => return Err(SandboxError::Disconnected),
                Some(Err(Failure::Declined(why))) => return Err(SandboxError::Declined(why)),
                Some(Err(Failure::Overdue)) => return self.overdue().await,
                None if matches!(self.output, Output::Finished) => {
                    self.ended = Some(match within(self.deadline, &mut self.reply).await {
                        Some(reply) => end(reply.ok()),
                        None => Err(Failure::Overdue),
                    });
                }
                None => {
                    self.step().await;
                }
            }
        }
    }

    /// Writes to its standard input (with [`Stdin::Stream`]).
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), SandboxError> {
        if let Output::Expected(stream) = &mut self.output {
            let stream = within(self.deadline, stream).await.and_then(Result::ok);
            self.begin(stream);
        }
        let Input::Open(stdin) = &mut self.stdin else {
            return Err(SandboxError::Declined("the command's standard input is closed".into()));
        };
        let written = within(self.deadline, stdin.write_all(bytes)).await;
        written.and_then(Result::ok).ok_or(SandboxError::Disconnected)
    }

    /// Ends its standard input.
    pub async fn close_stdin(&mut self) -> Result<(), SandboxError> {
        self.write(&[]).await?;
        // Dropping this half shuts down its direction only.
        self.stdin = Input::Closed;
        Ok(())
    }

    /// Ends a command that sandboxd did not hold to its time, and says what keeps it from that.
    async fn overdue(mut self) -> Result<Ended, SandboxError> {
        if let Some(held) = self.connection.held().await {
            return Err(held);
        }
        kill::end(&self.connection, &self.id, KillCause::Killed).await?;
        let ended = match timeout(ANSWER_LIMIT, &mut self.reply).await {
            Ok(reply) => end(reply.ok()),
            Err(_) => Err(Failure::Disconnected),
        };
        match ended {
            Ok(ended) if ended.exit == Exit::Killed => Ok(protocol::Ended { exit: Exit::TimedOut, ..*ended }.into()),
            Ok(ended) => Ok((*ended).into()),
            Err(Failure::Declined(why)) => Err(SandboxError::Declined(why)),
            Err(Failure::Disconnected | Failure::Overdue) => Err(SandboxError::Disconnected),
        }
    }

    async fn step(&mut self) -> Step {
        let deadline = self.deadline.filter(|_| self.ended.is_none());
        if let Some(step) = within(deadline, self.advance()).await {
            return step;
        }
        self.ended = Some(Err(Failure::Overdue));
        self.output = Output::Finished;
        Step::Finished
    }

    async fn advance(&mut self) -> Step {
        match &mut self.output {
            Output::Finished => Step::Finished,
            Output::Streaming(stream) => {
                self.buffer.reserve(CHUNK);
                let read = if self.ended.is_some() {
                    timeout(TAIL_LIMIT, stream.read_buf(&mut self.buffer)).await.unwrap_or(Ok(0))
                } else {
                    tokio::select! {
                        biased;
                        reply = &mut self.reply => {
                            self.ended = Some(end(reply.ok()));
                            return Step::Ended;
                        }
                        read = stream.read_buf(&mut self.buffer) => read,
                    }
                };
                match read {
                    Ok(read) if read > 0 => Step::Chunk(self.take_chunk()),
                    // A broken stream ends like a whole one: how the command ended comes on the control connection.
                    Ok(_) | Err(_) => {
                        self.output = Output::Finished;
                        Step::Finished
                    }
                }
            }
            Output::Expected(stream) => match &self.ended {
                None => tokio::select! {
                    stream = stream => {
                        let stream = stream.ok();
                        self.begin(stream);
                        Step::Ended
                    }
                    reply = &mut self.reply => {
                        self.ended = Some(end(reply.ok()));
                        Step::Ended
                    }
                },
                Some(Ok(ended)) if ended.streamed => {
                    let stream = timeout(TAIL_LIMIT, stream).await.ok().and_then(Result::ok);
                    self.begin(stream);
                    Step::Ended
                }
                Some(ended) => {
                    let short = ended.as_ref().ok().and_then(|ended| captured(ended));
                    if let Ok(ended) = ended {
                        self.written += (ended.head.0.len() + ended.tail.0.len()) as u64 + ended.omitted;
                    }
                    self.output = Output::Finished;
                    short.map_or(Step::Finished, Step::Chunk)
                }
            },
        }
    }

    /// Takes the stream when it comes; without one (the connection ended) there is no more to expect.
    fn begin(&mut self, stream: Option<UnixStream>) {
        let Some((read, mut write)) = stream.map(UnixStream::into_split) else {
            self.output = Output::Finished;
            self.stdin = Input::Closed;
            return;
        };
        self.output = Output::Streaming(read);
        self.stdin = match std::mem::replace(&mut self.stdin, Input::Closed) {
            Input::Waiting(Stdin::Stream) => Input::Open(write),
            Input::Waiting(Stdin::Bytes(bytes)) => {
                self.connection.supervise(async move {
                    // A command may end without having read it all.
                    let _ = write.write_all(&bytes).await;
                });
                Input::Closed
            }
            Input::Waiting(Stdin::Null | Stdin::Kept { .. }) | Input::Open(_) | Input::Closed => Input::Closed,
        };
    }

    /// Takes what was read, and puts a note where output is missing.
    fn take_chunk(&mut self) -> Bytes {
        let mut rest = self.buffer.split();
        self.written += rest.len() as u64;
        match self.gap {
            None => {}
            Some((head, omitted)) if (rest.len() as u64) < head => {
                self.gap = Some((head - rest.len() as u64, omitted));
            }
            Some((head, omitted)) => {
                self.gap = None;
                self.written += omitted;
                let after = rest.split_off(head as usize);
                rest.extend_from_slice(gap_note(omitted).as_bytes());
                rest.extend_from_slice(&after);
            }
        }
        rest.freeze()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.connection.forget_stream(&self.nonce);
    }
}

/// Waits for `work` until `deadline`, if there is one. `None`: it was over first.
async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}

fn end(reply: Option<Reply>) -> Result<Box<protocol::Ended>, Failure> {
    match reply {
        Some(Reply::Ended(ended)) => Ok(ended),
        Some(Reply::Failed(why)) => Err(Failure::Declined(why)),
        Some(Reply::Attached { .. } | Reply::Written(_) | Reply::Unknown { .. }) | None => Err(Failure::Disconnected),
    }
}

/// The output of a command that ended before it needed a stream.
fn captured(ended: &protocol::Ended) -> Option<Bytes> {
    let mut all = BytesMut::from(&ended.head.0[..]);
    if ended.omitted > 0 {
        all.extend_from_slice(gap_note(ended.omitted).as_bytes());
    }
    all.extend_from_slice(&ended.tail.0);
    (!all.is_empty()).then(|| all.freeze())
}

/// Returns what stands where output is missing.
pub(super) fn gap_note(omitted: u64) -> String {
    format!("\n[… {omitted} bytes of earlier output were not kept …]\n")
}

#[cfg(test)]
mod tests {
    use sandboxd::blob::Blob;

    use super::*;

    #[test]
    fn a_log_file_s_path_is_believed_as_far_as_a_path_may_go() {
        let log = |log: String| {
            let ended = protocol::Ended {
                id: "x".into(),
                exit: Exit::Code(0),
                head: Blob(Vec::new()),
                tail: Blob(Vec::new()),
                omitted: 1,
                log: Some(log),
                leftovers: 0,
                survivors: 0,
                streamed: false,
                spooled: None,
            };
            Ended::from(ended).output.log
        };
        assert_eq!(log("/home/agent/x.log".into()).as_deref(), Some("/home/agent/x.log"));
        for hostile in [format!("/{}", "x".repeat(250_000)), "relative".into(), "/a\nb".into()] {
            assert_eq!(log(hostile), None);
        }
    }
}
