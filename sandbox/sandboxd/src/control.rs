//! The control connection: dials the server, greets it, takes its requests and sends it events, and dials again when
//! the server is away. Knows no commands; called by the daemon's loop.

use std::{
    io, mem,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sandboxd::{
    frame,
    protocol::{self, Opening, ProxyKind, Request},
};

use crate::sys::{self, Epoll, Interest};

/// The time from a failed dial to the next: the first one, which doubles up to the second.
const REDIAL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// The time to the next dial after a server has declined the greeting: only another server would accept it.
const DECLINED: Duration = Duration::from_secs(5);
/// How long a server has to answer the greeting.
const GREETING: Duration = Duration::from_secs(5);
/// The most bytes of events that wait for the server; beyond that no requests are taken.
const FULL: usize = 1024 * 1024;

/// The connection and its state.
pub(crate) struct Control {
    path: PathBuf,
    hello: Vec<u8>,
    /// What shows the server that a connection is ours, if the kernel does not.
    proof: Option<String>,
    token: u64,
    /// What the connection is polled for.
    interest: Interest,
    state: Handshake,
    redial: Duration,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    sent: usize,
}

enum Handshake {
    /// No server is there; it is dialled again at this time.
    Away(Instant),
    /// The server was greeted, and has until this time to answer.
    Greeting(UnixStream, Instant),
    /// The server has accepted the greeting.
    Ready(UnixStream),
}

impl Control {
    /// Returns a connection that is not dialled yet; it is polled under `token`.
    pub(crate) fn new(path: &Path, boot_id: String, proof: Option<String>, token: u64) -> Self {
        let build = option_env!("SANDBOXD_BUILD").unwrap_or("unknown").to_owned();
        let hello = frame::encode(&Opening::Hello { protocol: protocol::SPOKEN, build, boot_id, proof: proof.clone() });
        Self {
            path: path.to_owned(),
            hello,
            proof,
            token,
            interest: Interest::Read,
            state: Handshake::Away(Instant::now()),
            redial: REDIAL.0,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
        }
    }

    /// Opens a connection to the server for one that a program made to a listener.
    pub(crate) fn open_proxy(&self, kind: ProxyKind) -> io::Result<UnixStream> {
        self.open(&Opening::Proxy { kind, proof: self.proof.clone() })
    }

    /// Opens another connection to the server, if there is one that accepted the greeting.
    pub(crate) fn open(&self, opening: &Opening) -> io::Result<UnixStream> {
        if !self.is_ready() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let stream = sys::connect(&self.path)?;
        let frame = frame::encode(opening);
        // A fresh socket's buffer takes a whole opening, or something is wrong with it.
        if sys::write(&stream, &frame)? == frame.len() { Ok(stream) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.state, Handshake::Ready(_))
    }

    /// Returns when [`Control::tick`] is to be called, if it is.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            Handshake::Away(at) | Handshake::Greeting(_, at) => Some(at),
            Handshake::Ready(_) => None,
        }
    }

    /// Dials if it is time to, and gives up a server that does not answer.
    pub(crate) fn tick(&mut self, now: Instant, epoll: &Epoll) {
        match &self.state {
            Handshake::Away(at) if now >= *at => match self.dial(epoll) {
                Ok(stream) => self.state = Handshake::Greeting(stream, now + GREETING),
                Err(_) => self.retry(now),
            },
            Handshake::Greeting(_, until) if now >= *until => self.retry(now),
            _ => {}
        }
    }

    fn dial(&self, epoll: &Epoll) -> io::Result<UnixStream> {
        let stream = sys::connect(&self.path)?;
        if sys::write(&stream, &self.hello)? != self.hello.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        epoll.add(&stream, Interest::Read, self.token)?;
        Ok(stream)
    }

    fn retry(&mut self, now: Instant) {
        self.leave(now + self.redial);
        self.redial = (self.redial * 2).min(REDIAL.1);
    }

    fn leave(&mut self, until: Instant) {
        self.state = Handshake::Away(until);
        self.interest = Interest::Read;
        self.incoming = Vec::new();
        self.outgoing = Vec::new();
        self.sent = 0;
    }

    /// Queues an event, which is dropped while no server listens.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        if self.is_ready() {
            self.outgoing.extend_from_slice(frame);
        }
    }

    /// Sends what is queued, as far as the server takes it, and sets what to poll for.
    pub(crate) fn flush(&mut self, epoll: &Epoll) {
        let (Handshake::Ready(stream) | Handshake::Greeting(stream, _)) = &self.state else { return };
        let mut broken = false;
        while self.sent < self.outgoing.len() {
            match sys::write(stream, &self.outgoing[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if sys::again(&error) => break,
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        let left = self.outgoing.len() - self.sent;
        let interest = match left {
            0 => Interest::Read,
            1..FULL => Interest::ReadWrite,
            _ => Interest::Write,
        };
        let told = interest == self.interest || epoll.modify(stream, interest, self.token).is_ok();
        if broken || !told {
            return self.retry(Instant::now());
        }
        self.interest = interest;
        if left == 0 {
            self.sent = 0;
            self.outgoing.clear();
            self.outgoing.shrink_to(64 * 1024);
        }
    }

    /// Reads what the server sent and returns the requests in it.
    pub(crate) fn receive(&mut self, scratch: &mut [u8]) -> Vec<Request> {
        let (Handshake::Ready(stream) | Handshake::Greeting(stream, _)) = &self.state else { return Vec::new() };
        let now = Instant::now();
        match sys::read(stream, scratch) {
            Ok(read @ 1..) => self.incoming.extend_from_slice(&scratch[..read]),
            Err(error) if sys::again(&error) => return Vec::new(),
            Ok(_) | Err(_) => {
                self.retry(now);
                return Vec::new();
            }
        }
        let mut requests = Vec::new();
        let mut taken = 0;
        loop {
            match frame::decode(&self.incoming[taken..], frame::TO_SANDBOXD) {
                Ok(None) => break,
                Ok(Some((request, length))) => {
                    taken += length;
                    match self.greeted(request, now) {
                        Some(request) => requests.push(request),
                        None if matches!(self.state, Handshake::Away(_)) => return requests,
                        None => {}
                    }
                }
                Err(_) => {
                    self.retry(now);
                    return requests;
                }
            }
        }
        self.incoming.drain(..taken);
        self.incoming.shrink_to(64 * 1024);
        requests
    }

    /// Acts on the answer to the greeting; passes on what comes after it.
    fn greeted(&mut self, request: Request, now: Instant) -> Option<Request> {
        let known = |version: u32| (protocol::SPOKEN.min..=protocol::SPOKEN.max).contains(&version);
        match (mem::replace(&mut self.state, Handshake::Away(now)), request) {
            (Handshake::Greeting(stream, _), Request::Welcome { protocol }) if known(protocol) => {
                self.redial = REDIAL.0;
                self.state = Handshake::Ready(stream);
                None
            }
            (Handshake::Greeting(..), Request::Refused { .. }) => {
                self.leave(now + DECLINED);
                None
            }
            (Handshake::Ready(stream), request) => {
                self.state = Handshake::Ready(stream);
                Some(request)
            }
            // A server does not say this here.
            (Handshake::Greeting(..) | Handshake::Away(_), _) => {
                self.retry(now);
                None
            }
        }
    }
}
