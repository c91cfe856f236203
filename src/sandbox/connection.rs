//! The control connection to a room's sandboxd: requests out, events in, and who waits for which.
//!
//! Everything that waits ends when the connection does. Events that nobody asked for are ignored: the other end is not
//! trusted. Kept by the link, of which it knows only [`Common`]; [`Sandbox`](super::client::Sandbox) asks through it.

use std::{
    collections::HashMap,
    future::Future,
    io,
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, BytesMut};
use futures_util::future::BoxFuture;
use nix::sys::socket::{Shutdown, shutdown};
use sandboxd::{
    frame::{self, FrameError},
    protocol::{Event, Request, Running, Written},
};
use tokio::{
    io::AsyncReadExt,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, oneshot, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{error::SandboxError, streams::Streams};

/// How long sandboxd may take to answer, or to take a request.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of requests that wait for sandboxd to read them.
const UNSENT: usize = 4 * 1024 * 1024;

/// Looks whether the container is held from outside, frozen for instance, so that nothing in it can answer; says so then.
pub(crate) type Holder = Box<dyn Fn() -> BoxFuture<'static, Option<SandboxError>> + Send + Sync>;

/// What all connections of one link have in common.
#[derive(Default)]
pub(super) struct Common {
    /// Streams that were asked for and have not come.
    pub(super) streams: Streams,
    /// Whoever runs the container, to be asked when nothing answers.
    pub(super) holder: OnceLock<Holder>,
    /// Ends all tasks of the link.
    pub(super) cancel: CancellationToken,
}

/// What answers a request about one command.
pub(super) enum Reply {
    Ended(Box<sandboxd::protocol::Ended>),
    Attached { head: u64, omitted: u64, from: Option<u64> },
    Written(Written),
    Unknown { forgotten: bool },
    Failed(String),
}

/// What a waiter waits for; `Ended` answers them all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wants {
    /// The end of a command that it started.
    Start,
    /// The end of a command that runs.
    End,
    /// Whether a command runs.
    Attach,
    /// What becomes of the write with this number.
    Write(u64),
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
    version: u32,
    common: Arc<Common>,
    writer: OwnedWriteHalf,
    /// What the kernel did not take at once, for the writing task.
    unsent: Mutex<BytesMut>,
    unsent_grew: Notify,
    unsent_shrank: Notify,
    waiters: Mutex<Waiters>,
    /// Numbers of pings and writes.
    numbers: AtomicU64,
    /// Why the container has to be ended, once it has to be.
    must_end: watch::Sender<Option<String>>,
    cancel: CancellationToken,
}

impl Connection {
    /// A greeted connection; its reading half goes to [`Self::serve`].
    pub(super) fn new(
        stream: UnixStream,
        boot_id: String,
        build: String,
        version: u32,
        common: Arc<Common>,
    ) -> (Arc<Self>, OwnedReadHalf) {
        let (reader, writer) = stream.into_split();
        let cancel = common.cancel.child_token();
        let connection = Self {
            boot_id,
            build,
            version,
            common,
            writer,
            unsent: Mutex::default(),
            unsent_grew: Notify::new(),
            unsent_shrank: Notify::new(),
            waiters: Mutex::default(),
            numbers: AtomicU64::new(0),
            must_end: watch::Sender::new(None),
            cancel,
        };
        (Arc::new(connection), reader)
    }

    /// Returns the id of the container's boot.
    pub(super) fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// Returns which sandboxd it is.
    pub(super) fn build(&self) -> &str {
        &self.build
    }

    /// Returns the version of the protocol that both ends speak.
    pub(super) fn version(&self) -> u32 {
        self.version
    }

    pub(super) fn expect_stream(&self, nonce: &str) -> oneshot::Receiver<UnixStream> {
        self.common.streams.expect(nonce)
    }

    pub(super) fn forget_stream(&self, nonce: &str) {
        self.common.streams.forget(nonce);
    }

    /// Runs `work` beside the connection, at most as long as it lives.
    pub(super) fn supervise(&self, work: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        let supervised = async move {
            cancel.run_until_cancelled(work).await;
        };
        tokio::spawn(supervised.in_current_span());
    }

    /// Begins to wait for what becomes of a command.
    pub(super) fn wait_for(&self, id: &str, wants: Wants) -> Result<oneshot::Receiver<Reply>, SandboxError> {
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

    /// Returns a number that this connection has not used.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Begins to wait for the next list of commands.
    pub(super) fn wait_for_list(&self) -> Result<oneshot::Receiver<Vec<Running>>, SandboxError> {
        let (sender, receiver) = oneshot::channel();
        let mut waiters = self.waiters();
        if waiters.closed {
            return Err(SandboxError::Disconnected);
        }
        waiters.lists.push(sender);
        Ok(receiver)
    }

    /// Begins to wait for the answer to a ping; returns also the number that it must carry.
    pub(super) fn wait_for_pong(&self) -> Result<(u64, oneshot::Receiver<()>), SandboxError> {
        let n = self.number();
        let (sender, receiver) = oneshot::channel();
        let mut waiters = self.waiters();
        if waiters.closed {
            return Err(SandboxError::Disconnected);
        }
        waiters.pings.retain(|_, waiter| !waiter.is_closed());
        waiters.pings.insert(n, sender);
        Ok((n, receiver))
    }

    /// Sends a request: at once as far as the kernel takes it, so that no task has to wake first. Waits while too many
    /// bytes are unsent.
    pub(super) async fn send(&self, request: &Request) -> Result<(), SandboxError> {
        let request = frame::encode(request);
        if request.len() > frame::TO_SANDBOXD {
            return Err(SandboxError::TooLarge(request.len()));
        }
        let sent = timeout(ANSWER_LIMIT, async {
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
        .await;
        let Ok(sent) = sent else {
            let note = Some("it takes no requests".into());
            return Err(self.held().await.unwrap_or(SandboxError::TimedOut { limit: ANSWER_LIMIT, note }));
        };
        sent
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

    /// Tells whether it has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Waits for its end.
    pub(super) async fn closed(&self) {
        self.cancel.cancelled().await;
    }

    /// Ends it from this side.
    pub(super) fn close(&self) {
        self.cancel.cancel();
    }

    /// Reads and writes until it ends. An error: what came was not sandboxd's.
    pub(super) async fn serve(&self, reader: OwnedReadHalf) -> Result<(), FrameError> {
        tokio::select! {
            ended = self.read(reader) => ended,
            _ = self.write() => Ok(()),
            () = self.closed() => Ok(()),
        }
    }

    /// Ends it and everything that waits for it. Whoever is told so finds the link's state changed already.
    pub(super) fn finish(&self) {
        self.close();
        // Whoever still holds it must not keep sandboxd from noticing its end.
        let _ = shutdown(self.writer.as_ref().as_raw_fd(), Shutdown::Both);
        *self.waiters() = Waiters { closed: true, ..Waiters::default() };
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
            Event::Attached { id, head, omitted, from } => {
                waiters.answer(&id, |wants| wants == Wants::Attach, || Reply::Attached { head, omitted, from });
            }
            Event::Written { id, n, how } => {
                waiters.answer(&id, |wants| wants == Wants::Write(n), || Reply::Written(how));
            }
            Event::Unknown { id, forgotten } => {
                waiters.answer(&id, |wants| wants != Wants::Start, || Reply::Unknown { forgotten });
            }
            Event::Failed { id, why } => {
                waiters.answer(&id, |wants| wants == Wants::Start, || Reply::Failed(plain(&why)));
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

    /// Asks whether the container is held from outside, so that nothing in it can answer.
    pub(super) async fn held(&self) -> Option<SandboxError> {
        timeout(ANSWER_LIMIT, self.common.holder.get()?()).await.ok().flatten()
    }

    /// Waits for an answer of sandboxd's for its usual time, and tells what keeps it from answering.
    pub(super) async fn answer<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, SandboxError> {
        match timeout(ANSWER_LIMIT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(SandboxError::Disconnected),
            Err(_) => Err(self.held().await.unwrap_or(SandboxError::TimedOut { limit: ANSWER_LIMIT, note: None })),
        }
    }

    /// Asks for the container's end: nothing less ends what runs in it.
    pub(super) fn must_end(&self, why: String) {
        tracing::warn!(%why, "the sandbox's container has to be ended");
        self.must_end.send_replace(Some(why));
    }

    /// Returns why the container has to be ended; `None`: nobody has asked for that.
    pub(super) fn why_end(&self) -> Option<String> {
        self.must_end.borrow().clone()
    }

    /// Waits until somebody asks for the container's end, and returns why.
    pub(super) async fn end_asked(&self) -> String {
        let mut must_end = self.must_end.subscribe();
        loop {
            if let Some(why) = must_end.borrow_and_update().clone() {
                return why;
            }
            if must_end.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiters {
    fn answer(&mut self, id: &str, who: impl Fn(Wants) -> bool, reply: impl Fn() -> Reply) {
        let Some(waiting) = self.commands.get_mut(id) else { return };
        for (_, waiter) in waiting.extract_if(.., |(wants, _)| who(*wants)) {
            let _ = waiter.send(reply());
        }
        if waiting.is_empty() {
            self.commands.remove(id);
        }
    }
}

/// Makes the sandbox's words fit for a sentence: one line, without control characters, of bounded length.
pub(super) fn plain(text: &str) -> String {
    text.trim().chars().take(300).map(|symbol| if symbol.is_control() { ' ' } else { symbol }).collect()
}
