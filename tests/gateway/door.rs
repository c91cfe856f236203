//! A gateway on a network of its own making: names, addresses and servers on loopback. The address check is the real
//! one, so names here resolve to documentation addresses (which it lets pass), and a route leads those to the servers.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use matrix_agent::{
    gateway::{AllowedHosts, Gateway, GatewayLimits, GatewayPolicy, Network, ProxyKind},
    ids::Address,
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub(crate) use crate::support::tls::Authority;

/// How long a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for something that must come.
pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    timeout(PATIENCE, what).await.expect("it did not come in time")
}

type Names = Arc<Mutex<HashMap<String, Vec<IpAddr>>>>;
type Routes = Arc<Mutex<HashMap<SocketAddr, SocketAddr>>>;

/// The gateway with the world behind it. Dropping it ends all its tasks.
pub(crate) struct Door {
    pub(crate) gateway: Gateway,
    pub(crate) cancel: CancellationToken,
    names: Names,
    routes: Routes,
    lookups: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Door {
    /// A gateway with these host patterns and limits.
    pub(crate) fn new(allowed: &[&str], limits: GatewayLimits) -> Self {
        Self::with_root(allowed, limits, None)
    }

    pub(crate) fn with_root(allowed: &[&str], limits: GatewayLimits, root: Option<&str>) -> Self {
        let (names, routes, lookups) = (Names::default(), Routes::default(), Arc::new(AtomicUsize::new(0)));
        let mut network = Network::system()
            .with_resolver({
                let (names, lookups) = (names.clone(), lookups.clone());
                move |name| {
                    lookups.fetch_add(1, Ordering::SeqCst);
                    let found = names.lock().unwrap().get(&name).cloned();
                    std::future::ready(found.ok_or_else(|| io::Error::other("no such name"))).boxed()
                }
            })
            .with_own(|address| address == IpAddr::from([203, 0, 113, 66]))
            .with_route({
                let routes = routes.clone();
                move |address| *routes.lock().unwrap().get(&address).unwrap_or(&address)
            });
        if let Some(root) = root {
            network = network.with_root(root);
        }
        let policy = GatewayPolicy { allowed_hosts: AllowedHosts::parse(allowed).unwrap(), limits };
        let cancel = CancellationToken::new();
        let gateway = Gateway::new(policy, network, cancel.clone());
        Self { gateway, cancel, names, routes, lookups, tasks: JoinSet::new() }
    }

    /// Makes a name resolve to these addresses from now on.
    pub(crate) fn name(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.names.lock().unwrap().insert(name.into(), addresses);
    }

    /// Makes a checked address lead to a server on loopback. Port 0 stands for whatever the URL says (git's client).
    pub(crate) fn route(&self, from: &str, to: SocketAddr) {
        self.routes.lock().unwrap().insert(from.parse().unwrap(), to);
    }

    /// How many names were looked up so far.
    pub(crate) fn lookups(&self) -> usize {
        self.lookups.load(Ordering::SeqCst)
    }

    /// A program's connection in the room `!room`.
    pub(crate) fn open(&mut self, kind: ProxyKind) -> UnixStream {
        self.open_in("!room", kind)
    }

    pub(crate) fn open_in(&mut self, room: &str, kind: ProxyKind) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (gateway, room) = (self.gateway.clone(), Address::of_first(room));
        self.tasks.spawn(async move { gateway.serve(&room, kind, theirs).await });
        ours
    }

    /// What sandboxd does: a TCP listener whose connections are forwarded.
    pub(crate) async fn listen(&mut self, kind: ProxyKind) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gateway = self.gateway.clone();
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut program, _)) = listener.accept().await {
                let (mut ours, theirs) = UnixStream::pair().unwrap();
                let gateway = gateway.clone();
                connections.spawn(async move {
                    let forward = tokio::io::copy_bidirectional(&mut program, &mut ours);
                    let room = Address::of_first("!room");
                    let _ = tokio::join!(gateway.serve(&room, kind, theirs), forward);
                });
            }
        });
        address
    }

    /// A server on loopback that hands each of its connections to `serve`.
    pub(crate) async fn server<F>(&mut self, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Server
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(stream));
            }
        });
        Server { address, accepted }
    }

    /// A server that collects what it gets, and answers each request's head with `answer`.
    pub(crate) async fn recorder(&mut self, answer: &'static [u8]) -> (Server, Recorded) {
        let recorded = Recorded::default();
        let record = recorded.clone();
        let server = self
            .server(move |mut stream| {
                let record = record.clone();
                async move {
                    let mut piece = [0; 4096];
                    while let Ok(length @ 1..) = stream.read(&mut piece).await {
                        record.0.lock().unwrap().extend_from_slice(&piece[..length]);
                        if piece[..length].windows(4).any(|window| window == b"\r\n\r\n") {
                            let _ = stream.write_all(answer).await;
                        }
                    }
                }
            })
            .await;
        (server, recorded)
    }
}

/// A server on loopback.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Server {
    /// How many connections it has had.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// What a recorder got.
#[derive(Clone, Default)]
pub(crate) struct Recorded(Arc<Mutex<Vec<u8>>>);

impl Recorded {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap()
    }
}

/// Sends `bytes` and returns all that comes back until the end.
pub(crate) async fn ask(stream: &mut UnixStream, bytes: &[u8]) -> String {
    // The other side may close before it has taken everything.
    let _ = stream.write_all(bytes).await;
    rest(stream).await
}

/// Returns all that comes until the end.
pub(crate) async fn rest(stream: &mut UnixStream) -> String {
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads up to and including `end`.
pub(crate) async fn until(stream: &mut UnixStream, end: &str) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        answer.push(soon(stream.read_u8()).await.unwrap_or_else(|_| {
            panic!("ended before {end:?}: {}", String::from_utf8_lossy(&answer));
        }));
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Opens a tunnel; panics if it is refused.
pub(crate) async fn connect(stream: &mut UnixStream, target: &str) {
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).await.unwrap();
    let answer = until(stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

pub(crate) const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Up: 1\r\n\r\nhello";

pub(crate) fn sni(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).unwrap()
}

/// A door to `pypi.org` at 203.0.113.1 with an echoing TLS server.
pub(crate) async fn door_to_tls(limits: GatewayLimits) -> (Door, Authority, Server) {
    let mut door = Door::new(&["pypi.org", "other.org"], limits);
    let authority = Authority::new();
    let acceptor = authority.acceptor("pypi.org");
    let server = door
        .server(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut asked = Vec::new();
                let _ = stream.read_to_end(&mut asked).await;
                asked.reverse();
                let _ = stream.write_all(&asked).await;
                let _ = stream.shutdown().await;
            }
        })
        .await;
    door.name("pypi.org", &["203.0.113.1"]);
    door.name("other.org", &["203.0.113.1"]);
    door.route("203.0.113.1:443", server.address);
    (door, authority, server)
}

/// A door to `deb.debian.org` at 203.0.113.2 with a plain server that answers `answer` to everything.
pub(crate) async fn door_to_http(answer: &'static [u8], limits: GatewayLimits) -> (Door, Server, Recorded) {
    let mut door = Door::new(&["deb.debian.org", "inside.org"], limits);
    let (server, recorded) = door.recorder(answer).await;
    door.name("deb.debian.org", &["203.0.113.2"]);
    door.route("203.0.113.2:80", server.address);
    (door, server, recorded)
}

/// A real ClientHello for `name`, in one record.
pub(crate) fn client_hello(authority: &Authority, name: &str) -> Vec<u8> {
    let mut client = rustls::ClientConnection::new(authority.client(true), sni(name)).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}
