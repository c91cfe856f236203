//! One room's socket: takes the connections that the room's sandboxd dials, and nobody else's.
//!
//! A connection counts only if its peer is the container's PID 1 as the kernel tells it. Where a runtime hides the
//! sandbox's processes from the kernel, it counts if it shows the proof that PID 1 alone was given ([`Link::demand`]).
//! Even then nothing it says is believed: frames are bounded, waits have limits, the number of connections that have not said yet what they are
//! is bounded, and a fault is this room's alone. Knows no Podman: whoever runs the container says which pid to expect
//! ([`Link::set_peer`]) and ends the container when told to ([`LinkState::MustEnd`]). Called by the fleet.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use sandboxd::{
    frame,
    protocol::{self, Opening, ProxyKind, Range, Request},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument;

use super::{
    client::Sandbox,
    connection::{Common, Connection, Holder},
    error::SandboxError,
};
use crate::strings::sandboxes as words;

/// Connections of one room that have not said yet what they are.
const PENDING: usize = 64;
/// Proxied connections of one room that wait until somebody takes them.
const WAITING: usize = 256;
/// How long a pending connection waits until the room's PID 1 is known.
const PEER_LIMIT: Duration = Duration::from_secs(10);
/// After so many strangers the room's socket rests for so long: a process that connects in a loop costs the host no more
/// than some hundred connections in a second, and sandboxd, which stands in the same queue, waits an instant.
const STRANGERS: u32 = 32;
const STRANGERS_PAUSE: Duration = Duration::from_millis(50);
/// Where strangers are known only by what they say, each keeps its place among the pending for so long, which costs the host
/// no more.
const STRANGER_KEPT: Duration = Duration::from_millis(100);
/// How long it may take to say what it is.
const OPENING_LIMIT: Duration = Duration::from_secs(5);

/// One room's end of the connection to its sandboxd. Ends its tasks and removes the socket when dropped.
pub struct Link {
    inner: Arc<LinkInner>,
    path: PathBuf,
    _guard: DropGuard,
}

/// How a room's connection stands.
#[derive(Clone)]
pub enum LinkState {
    /// Nobody has dialled, or the connection ended; sandboxd redials by itself within a second.
    Waiting,
    /// sandboxd is there.
    Connected(Sandbox),
    /// It is not to be spoken with, for the reason given. A good greeting clears this.
    Fault(String),
    /// A command could not be ended: the container has to be.
    MustEnd(String),
}

/// A connection that a program in the sandbox made to one of sandboxd's listeners.
pub struct ProxyStream {
    /// Which listener.
    pub kind: ProxyKind,
    /// Its raw bytes.
    pub stream: UnixStream,
}

/// What the accepting task, the connections and the link's owner share.
struct LinkInner {
    /// The pid that may connect.
    peer: watch::Sender<Option<u32>>,
    /// What a connection has to show in place of that pid, which then only tells whether the container runs.
    proof: OnceLock<String>,
    /// How the connection stands.
    state: watch::Sender<LinkState>,
    /// Where proxied connections go.
    proxies: mpsc::Sender<ProxyStream>,
    /// Room for those that wait to go there.
    waiting: Semaphore,
    /// Why the last stranger was turned away: told when nobody better comes.
    turned_away: Mutex<Option<String>>,
    /// What the connections know of the link.
    common: Arc<Common>,
}

impl Link {
    /// Makes the socket in `dir`, which must exist, and takes connections from then on. A socket left by an earlier
    /// server is replaced; the directory never is, since the container's mount pins it.
    pub fn bind(
        dir: &Path,
        proxies: mpsc::Sender<ProxyStream>,
        cancel: &CancellationToken,
    ) -> Result<Self, SandboxError> {
        let path = dir.join(protocol::SOCKET);
        let failed = |source| SandboxError::Socket { path: path.clone(), source };
        let listener = listen(&path).map_err(failed)?;
        let cancel = cancel.child_token();
        let common = Common { cancel: cancel.clone(), ..Common::default() };
        let inner = Arc::new(LinkInner {
            peer: watch::Sender::new(None),
            proof: OnceLock::new(),
            state: watch::Sender::new(LinkState::Waiting),
            proxies,
            waiting: Semaphore::new(WAITING),
            turned_away: Mutex::default(),
            common: Arc::new(common),
        });
        tokio::spawn(accept(listener, Arc::clone(&inner)).in_current_span());
        Ok(Self { inner, path, _guard: cancel.drop_guard() })
    }

    /// Says whom to ask when sandboxd does not answer in time. The first one stays.
    pub fn ask_when_silent(&self, holder: Holder) {
        let _ = self.inner.common.holder.set(holder);
    }

    /// Lets connections in by this proof, whatever pid the kernel tells. Called before any pid is set; the first one stays.
    pub fn demand(&self, proof: String) {
        let _ = self.inner.proof.set(proof);
    }

    /// Says which process may connect: the container's PID 1, by its pid on the host. Connections wait until this is
    /// known. `None` when the container has stopped: a live connection is dropped.
    pub fn set_peer(&self, pid: Option<u32>) {
        // Podman says 0 of a container that does not run.
        let pid = pid.filter(|pid| *pid != 0);
        let before = *self.inner.peer.borrow();
        if before == pid {
            return;
        }
        // What the last one did is forgotten before the new one is let in: its connection may wait already, and what it
        // does must stay.
        self.inner.turned_away().take();
        self.inner.state.send_if_modified(|state| match state {
            LinkState::Connected(sandbox) if before.is_some() => {
                sandbox.connection().close();
                *state = LinkState::Waiting;
                true
            }
            LinkState::Fault(_) | LinkState::MustEnd(_) => {
                *state = LinkState::Waiting;
                true
            }
            LinkState::Connected(_) | LinkState::Waiting => false,
        });
        self.inner.peer.send_replace(pid);
    }

    /// Waits at most `limit` for sandboxd's greeting. A fault fails at once, with its sentence.
    pub async fn connected(&self, limit: Duration) -> Result<Sandbox, SandboxError> {
        let mut states = self.inner.state.subscribe();
        let wait = states.wait_for(|state| match state {
            LinkState::Connected(sandbox) => sandbox.is_connected(),
            LinkState::Fault(_) => true,
            LinkState::Waiting | LinkState::MustEnd(_) => false,
        });
        match timeout(limit, wait).await {
            Ok(Ok(state)) => match &*state {
                LinkState::Connected(sandbox) => Ok(sandbox.clone()),
                LinkState::Fault(why) => Err(SandboxError::Fault(why.clone())),
                LinkState::Waiting | LinkState::MustEnd(_) => Err(SandboxError::Disconnected),
            },
            Ok(Err(_)) => Err(SandboxError::Disconnected),
            Err(_) => Err(SandboxError::TimedOut { limit, note: self.inner.turned_away().clone() }),
        }
    }

    /// Returns the live connection, if there is one.
    pub fn current(&self) -> Option<Sandbox> {
        match &*self.inner.state.borrow() {
            LinkState::Connected(sandbox) if sandbox.is_connected() => Some(sandbox.clone()),
            _ => None,
        }
    }

    /// Returns a receiver of every change.
    pub fn watch(&self) -> watch::Receiver<LinkState> {
        self.inner.state.subscribe()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Already gone, or the room's directory is: either way nothing is left to remove.
        let _ = fs::remove_file(&self.path);
    }
}

impl LinkInner {
    fn turned_away(&self) -> MutexGuard<'_, Option<String>> {
        self.turned_away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a connection comes from another process than the one that may connect. While nobody knows which
    /// that is, nobody is turned away.
    fn turns_away(&self, stream: &UnixStream, expected: Option<u32>) -> bool {
        let peer = stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok());
        if self.proof.get().is_some() || expected.is_none() || (peer.is_some() && peer == expected) {
            return false;
        }
        self.tell_of_stranger(peer, expected);
        true
    }

    /// Returns whether an opening comes from another process than the one that was given the proof. The nonce of a stream is
    /// one in itself.
    fn is_strangers(&self, opening: &Opening) -> bool {
        let (Some(proof), Opening::Hello { proof: shown, .. } | Opening::Proxy { proof: shown, .. }) =
            (self.proof.get(), opening)
        else {
            return false;
        };
        shown.as_ref().is_none_or(|shown| verify_slices_are_equal(shown.as_bytes(), proof.as_bytes()).is_err())
    }

    fn tell_of_stranger(&self, peer: Option<u32>, expected: Option<u32>) {
        let why = words::NOT_PID_1;
        tracing::warn!(?peer, ?expected, "{why}");
        *self.turned_away() = Some(why.to_owned());
    }

    fn fault(&self, why: String) {
        tracing::warn!(%why, "sandbox link fault");
        self.state.send_if_modified(|state| match state {
            LinkState::Connected(_) | LinkState::MustEnd(_) => false,
            LinkState::Waiting | LinkState::Fault(_) => {
                *state = LinkState::Fault(why);
                true
            }
        });
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    // The container's root is a stranger on the host (its own user namespace): only a socket open to all lets it
    // connect. The parents of the room's directory are closed to all others, and the peer's pid is checked.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

async fn accept(listener: UnixListener, link: Arc<LinkInner>) {
    let pending = Arc::new(Semaphore::new(PENDING));
    let cancel = link.common.cancel.clone();
    let serve = async {
        let mut strangers = 0;
        loop {
            // Beyond the bound they queue in the kernel, whose own bound makes sandboxd dial again later.
            let Ok(permit) = Arc::clone(&pending).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) if link.turns_away(&stream, *link.peer.borrow()) => {
                    strangers += 1;
                    if strangers % STRANGERS == 0 {
                        tokio::time::sleep(STRANGERS_PAUSE).await;
                    }
                }
                Ok((stream, _)) => {
                    let (link, cancel) = (Arc::clone(&link), link.common.cancel.clone());
                    let greeted = async move {
                        cancel.run_until_cancelled(greet(stream, permit, link)).await;
                    };
                    tokio::spawn(greeted.in_current_span());
                }
                Err(error) => {
                    // Out of descriptors, mostly: others have to finish first.
                    tracing::warn!(%error, "a sandbox's connection cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    cancel.run_until_cancelled(serve).await;
}

/// Finds out what a new connection is, and gives it to whom it is for.
async fn greet(mut stream: UnixStream, permit: OwnedSemaphorePermit, link: Arc<LinkInner>) {
    let mut expected = link.peer.subscribe();
    let expected = match timeout(PEER_LIMIT, expected.wait_for(Option::is_some)).await {
        Ok(Ok(expected)) => *expected,
        Ok(Err(_)) | Err(_) => return,
    };
    if link.turns_away(&stream, expected) {
        return;
    }
    let read = timeout(OPENING_LIMIT, read_opening(&mut stream)).await;
    let opening = match (read, link.proof.get()) {
        (Ok(Ok(opening)), _) if !link.is_strangers(&opening) => opening,
        (Ok(Err(error)), None) if error.kind() == io::ErrorKind::InvalidData => {
            return link.fault(words::not_sandboxd(&error.to_string()));
        }
        // It hung up or said nothing: it will dial again.
        (_, None) => return,
        (_, Some(_)) => {
            link.tell_of_stranger(None, expected);
            return tokio::time::sleep(STRANGER_KEPT).await;
        }
    };
    match opening {
        Opening::Hello { protocol, build, boot_id, proof: _ } => {
            drop(permit);
            control(stream, protocol, build, boot_id, link).await;
        }
        Opening::Stream { nonce } => link.common.streams.deliver(&nonce, stream),
        Opening::Proxy { kind, proof: _ } => {
            drop(permit);
            // These wait by themselves: if the gateway is slow, that must not keep sandboxd from coming back.
            let Ok(_waiting) = link.waiting.try_acquire() else {
                return tracing::warn!(?kind, "too many of a sandbox's connections wait for the gateway");
            };
            // Nobody takes any more when the room is being given up.
            let _ = link.proxies.send(ProxyStream { kind, stream }).await;
        }
    }
}

async fn read_opening(stream: &mut UnixStream) -> io::Result<Opening> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut prefix = [0; frame::PREFIX];
    stream.read_exact(&mut prefix).await?;
    let mut body = vec![0; frame::body_length(prefix, frame::OPENING).map_err(invalid)?];
    stream.read_exact(&mut body).await?;
    frame::message(&body).map_err(invalid)
}

async fn control(mut stream: UnixStream, theirs: Range, build: String, boot_id: String, link: Arc<LinkInner>) {
    let Some(version) = protocol::SPOKEN.common(theirs) else {
        let refused = frame::encode(&Request::Refused { supported: protocol::SPOKEN });
        let _ = timeout(OPENING_LIMIT, stream.write_all(&refused)).await;
        let ours = protocol::SPOKEN;
        return link.fault(words::other_protocol((theirs.min, theirs.max), (ours.min, ours.max)));
    };
    let welcome = frame::encode(&Request::Welcome { protocol: version });
    if !matches!(timeout(OPENING_LIMIT, stream.write_all(&welcome)).await, Ok(Ok(()))) {
        return;
    }
    tracing::debug!(%boot_id, %build, version, "sandboxd connected");
    let (connection, reader) = Connection::new(stream, boot_id, build, version, Arc::clone(&link.common));
    let _finish = Finish(Arc::clone(&connection));
    let before = link.state.send_replace(LinkState::Connected(Sandbox::new(Arc::clone(&connection))));
    if let LinkState::Connected(before) = before {
        before.connection().close();
    }
    let end_asked = async {
        let why = connection.end_asked().await;
        link.state.send_replace(LinkState::MustEnd(why));
        std::future::pending().await
    };
    let ended = tokio::select! {
        ended = connection.serve(reader) => ended,
        never = end_asked => never,
    };
    let ours = link.state.send_if_modified(|state| match state {
        LinkState::Connected(current) if Arc::ptr_eq(current.connection(), &connection) => {
            *state = connection.why_end().map_or(LinkState::Waiting, LinkState::MustEnd);
            true
        }
        _ => false,
    });
    if let (true, Err(error)) = (ours, ended) {
        link.fault(words::not_sandboxd(&error.to_string()));
    }
}

/// Finishes a connection however its task ends: one that is cancelled together with its link runs to no end of its own,
/// and sandboxd would wait for ever for a connection that somebody still holds.
struct Finish(Arc<Connection>);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.finish();
    }
}
