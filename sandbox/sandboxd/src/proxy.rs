//! The way out: listens inside the container, and carries each connection to the server, whose gateway decides about
//! it. While the server is away, new connections are held for a while. Knows nothing of what it carries; called by the
//! daemon's loop.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    os::{
        fd::{AsRawFd, RawFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    time::{Duration, Instant},
};

use sandboxd::protocol::{GH_SOCKET, MODELS_PORT, ProxyKind};

use crate::{
    control::Control,
    sys::{self, Epoll, Interest},
};

/// Where `HTTP_PROXY` points.
pub(crate) const WEB_PORT: u16 = 3128;
/// Where git's `insteadOf` points.
pub(crate) const GIT_PORT: u16 = 3129;
/// The listeners on ports: a new route is a new row.
const PORTS: [(ProxyKind, u16); 3] =
    [(ProxyKind::Web, WEB_PORT), (ProxyKind::Git, GIT_PORT), (ProxyKind::Models, MODELS_PORT)];
/// The listeners on abstract Unix sockets.
const SOCKETS: [(ProxyKind, &str); 1] = [(ProxyKind::GitHub, GH_SOCKET)];

/// The most connections at the same time; more wait in the kernel.
const CONNECTIONS: usize = 256;
/// How long a connection is held while the server is away.
const HELD: Duration = Duration::from_mins(1);
/// How soon a dial that the server had no room for is tried again.
const RETRY: Duration = Duration::from_millis(20);
/// How many bytes of a connection are carried before the others have their turn.
const TURN: usize = 256 * 1024;

/// The listeners and all they have accepted.
pub(crate) struct Proxies {
    listeners: Vec<(ProxyKind, Listener)>,
    /// The listeners are polled under this and the tokens after it, connections under those from `first` on: an even
    /// one for the client's side, the next for the server's.
    first_listener: u64,
    first: u64,
    next: u64,
    pairs: BTreeMap<u64, Pair>,
    /// Connections that have had their turn and are not done.
    unfinished: Vec<u64>,
    retry: Option<Instant>,
    accepting: bool,
}

enum Listener {
    Port(TcpListener),
    Socket(UnixListener),
}

/// A program's connection.
enum Client {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    fn on_port(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        Ok(Self::Port(listener))
    }

    fn on_socket(name: &str) -> io::Result<Self> {
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        listener.set_nonblocking(true)?;
        Ok(Self::Socket(listener))
    }

    /// Takes a connection, which does not block.
    fn accept(&self) -> io::Result<Client> {
        match self {
            Self::Port(listener) => {
                let (client, _) = listener.accept()?;
                client.set_nonblocking(true)?;
                client.set_nodelay(true)?;
                Ok(Client::Tcp(client))
            }
            Self::Socket(listener) => {
                let (client, _) = listener.accept()?;
                client.set_nonblocking(true)?;
                Ok(Client::Unix(client))
            }
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Port(listener) => listener.as_raw_fd(),
            Self::Socket(listener) => listener.as_raw_fd(),
        }
    }
}

impl Client {
    /// Tells the program that no more comes.
    fn shut(&self) -> io::Result<()> {
        match self {
            Self::Tcp(client) => client.shutdown(Shutdown::Write),
            Self::Unix(client) => client.shutdown(Shutdown::Write),
        }
    }
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(client) => client.as_raw_fd(),
            Self::Unix(client) => client.as_raw_fd(),
        }
    }
}

/// A client's connection, and the one to the server that carries it.
struct Pair {
    kind: ProxyKind,
    client: Client,
    server: Option<UnixStream>,
    /// When it is given up if there is no server.
    until: Instant,
    /// From the client to the server.
    up: Flow,
    /// From the server to the client.
    down: Flow,
}

/// One direction. It holds bytes only when their receiver is slower than their sender.
#[derive(Default)]
struct Flow {
    waiting: Vec<u8>,
    /// Whether the source may have more.
    readable: bool,
    /// Whether the destination may take more.
    writable: bool,
    /// Whether the source has ended.
    ended: bool,
    /// Whether the destination has been told.
    shut: bool,
}

impl Proxies {
    /// Listens on every port and socket of the tables.
    pub(crate) fn new(epoll: &Epoll, first_listener: u64, first: u64) -> io::Result<Self> {
        let mut listeners = Vec::new();
        let ports = PORTS.iter().map(|(kind, port)| (*kind, Listener::on_port(*port)));
        let sockets = SOCKETS.iter().map(|(kind, name)| (*kind, Listener::on_socket(name)));
        for (kind, listener) in ports.chain(sockets) {
            let listener = listener?;
            epoll.add(&listener, Interest::Read, first_listener + listeners.len() as u64)?;
            listeners.push((kind, listener));
        }
        Ok(Self {
            listeners,
            first_listener,
            first,
            next: first,
            pairs: BTreeMap::new(),
            unfinished: Vec::new(),
            retry: None,
            accepting: true,
        })
    }

    /// Returns when [`Proxies::tick`] is to be called, if it is.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if !self.unfinished.is_empty() {
            return Some(Instant::now());
        }
        let held = self.pairs.values().filter(|pair| pair.server.is_none());
        held.map(|pair| pair.until).chain(self.retry).min()
    }

    /// Acts on a listener or a connection that is ready.
    pub(crate) fn ready(&mut self, ready: sys::Ready, control: &Control, epoll: &Epoll, scratch: &mut [u8]) {
        if ready.token < self.first {
            self.accept((ready.token - self.first_listener) as usize, control, epoll);
            return;
        }
        let number = ready.token & !1;
        let Some(pair) = self.pairs.get_mut(&number) else { return };
        let (from, to) =
            if ready.token == number { (&mut pair.up, &mut pair.down) } else { (&mut pair.down, &mut pair.up) };
        from.readable |= ready.readable;
        to.writable |= ready.writable;
        self.carry(number, scratch);
        self.update_listeners(epoll);
    }

    /// Goes on with what could not be finished, dials for those that are held, and gives up on the oldest of them.
    pub(crate) fn tick(&mut self, now: Instant, control: &Control, epoll: &Epoll, scratch: &mut [u8]) {
        for number in std::mem::take(&mut self.unfinished) {
            self.carry(number, scratch);
        }
        if self.retry.is_some_and(|retry| now >= retry) {
            self.dial_held(control, epoll);
        }
        self.pairs.retain(|_, pair| pair.server.is_some() || now < pair.until);
        self.update_listeners(epoll);
    }

    /// Dials for all connections that are held.
    pub(crate) fn dial_held(&mut self, control: &Control, epoll: &Epoll) {
        self.retry = None;
        if !control.is_ready() {
            return;
        }
        for (number, pair) in self.pairs.iter_mut().filter(|(_, pair)| pair.server.is_none()) {
            match control.open_proxy(pair.kind) {
                Ok(server) => {
                    let polled = epoll
                        .add(&server, Interest::Edge, number + 1)
                        .and_then(|()| epoll.add(&pair.client, Interest::Edge, *number));
                    pair.server = Some(server);
                    if polled.is_err() {
                        pair.until = Instant::now();
                        pair.server = None;
                    }
                }
                // A server that has no room may have some soon.
                Err(_) => self.retry = Some(Instant::now() + RETRY),
            }
        }
    }

    fn accept(&mut self, listener: usize, control: &Control, epoll: &Epoll) {
        let Some((kind, listener)) = self.listeners.get(listener) else { return };
        if self.pairs.len() < CONNECTIONS
            && let Ok(client) = listener.accept()
        {
            let until = Instant::now() + HELD;
            let (up, down) = (Flow::default(), Flow::default());
            self.pairs.insert(self.next, Pair { kind: *kind, client, server: None, until, up, down });
            self.next += 2;
            self.dial_held(control, epoll);
        }
        self.update_listeners(epoll);
    }

    /// Accepts connections only while there is room for them.
    fn update_listeners(&mut self, epoll: &Epoll) {
        let room = self.pairs.len() < CONNECTIONS;
        if room != self.accepting {
            self.accepting = room;
            for (place, (_, listener)) in self.listeners.iter().enumerate() {
                let interest = if room { Interest::Read } else { Interest::Nothing };
                // Fails only for a listener that is not polled, and all are.
                let _ = epoll.modify(listener, interest, self.first_listener + place as u64);
            }
        }
    }

    fn carry(&mut self, number: u64, scratch: &mut [u8]) {
        let Some(pair) = self.pairs.get_mut(&number) else { return };
        let Some(server) = &pair.server else { return };
        let client = &pair.client;
        let up = pair.up.carry(client, server, || server.shutdown(Shutdown::Write), scratch);
        let down = pair.down.carry(server, client, || client.shut(), scratch);
        match (up, down) {
            (Ok(_), Ok(_)) if pair.up.shut && pair.down.shut => drop(self.pairs.remove(&number)),
            (Ok(up), Ok(down)) => {
                if up || down {
                    self.unfinished.push(number);
                }
            }
            _ => drop(self.pairs.remove(&number)),
        }
    }
}

impl Flow {
    /// Carries what can be carried now; tells whether there may be more at once.
    fn carry(
        &mut self,
        source: &impl AsRawFd,
        destination: &impl AsRawFd,
        shut: impl Fn() -> io::Result<()>,
        scratch: &mut [u8],
    ) -> io::Result<bool> {
        let mut carried = 0;
        while carried < TURN {
            if self.writable && !self.waiting.is_empty() {
                match sys::write(destination, &self.waiting) {
                    Ok(written) => drop(self.waiting.drain(..written)),
                    Err(error) if sys::again(&error) => self.writable = false,
                    Err(error) => return Err(error),
                }
            }
            if !self.waiting.is_empty() {
                if self.writable {
                    continue;
                }
                return Ok(false);
            }
            self.waiting = Vec::new();
            if self.ended {
                if !self.shut {
                    self.shut = true;
                    // The other side may have closed before; then it needs not be told.
                    let _ = shut();
                }
                return Ok(false);
            }
            if !self.readable {
                return Ok(false);
            }
            match sys::read(source, scratch) {
                Ok(0) => self.ended = true,
                Ok(read) => {
                    carried += read;
                    self.waiting.extend_from_slice(&scratch[..read]);
                }
                Err(error) if sys::again(&error) => self.readable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
