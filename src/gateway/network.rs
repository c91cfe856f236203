//! From a host to a connection: resolves, checks every address, and dials the very addresses that were checked.
//!
//! It must not know HTTP or host lists. `web` dials with it; `git` gives it to its HTTP client as the resolver. Tests
//! can replace how names resolve, which addresses are this machine's own, and where a checked address is dialled, but
//! not the checks.

use std::{io, net::IpAddr, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{denial::Denial, hosts::Host};
use crate::net;

/// The most addresses that are tried of one name; the others are never dialled.
const MAX_ADDRESSES: usize = 16;

/// How long one attempt runs before the next one starts beside it (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);

type Resolve = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync;
type Own = dyn Fn(IpAddr) -> bool + Send + Sync;
type Route = dyn Fn(SocketAddr) -> SocketAddr + Send + Sync;

/// The network as the gateway sees it. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    resolve: Arc<Resolve>,
    /// Whether an address is this machine's own.
    own: Arc<Own>,
    /// Maps a checked address to the one that is dialled; the identity outside of tests.
    route: Arc<Route>,
    /// A root certificate, in PEM, that is trusted besides the machine's.
    root: Option<Arc<str>>,
}

impl Network {
    /// Returns the real network: the system's resolver, the machine's own addresses and certificates.
    pub fn system() -> Self {
        Self {
            resolve: Arc::new(|name| {
                async move {
                    let found = tokio::net::lookup_host((name, 0)).await?;
                    Ok(found.map(|address| address.ip()).collect())
                }
                .boxed()
            }),
            own: Arc::new(net::is_own),
            route: Arc::new(|address| address),
            root: None,
        }
    }

    /// Replaces the resolver.
    #[must_use]
    pub fn with_resolver<F>(mut self, resolve: F) -> Self
    where
        F: Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync + 'static,
    {
        self.resolve = Arc::new(resolve);
        self
    }

    /// Replaces the check for this machine's own addresses.
    #[must_use]
    pub fn with_own(mut self, own: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        self.own = Arc::new(own);
        self
    }

    /// Dials checked addresses elsewhere, since tests have no public ones.
    #[must_use]
    pub fn with_route(mut self, route: impl Fn(SocketAddr) -> SocketAddr + Send + Sync + 'static) -> Self {
        self.route = Arc::new(route);
        self
    }

    /// Trusts one more root certificate (PEM) where the gateway itself speaks TLS.
    #[must_use]
    pub fn with_root(mut self, pem: &str) -> Self {
        self.root = Some(pem.into());
        self
    }

    pub(super) fn root(&self) -> Option<&str> {
        self.root.as_deref()
    }

    /// Returns the addresses of `host`. All are checked, and one refused address refuses the host.
    ///
    /// `permit` is held until the resolver has really ended: the system's cannot be cancelled, so it runs on in a
    /// task after the limit, and the permits bound the number of such tasks.
    pub(super) async fn lookup(
        &self,
        host: &Host,
        limit: Duration,
        permit: impl Send + 'static,
    ) -> Result<Vec<IpAddr>, Denial> {
        let mut addresses = match host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                let resolving = (self.resolve)(name.clone());
                let resolving = tokio::spawn(async move {
                    let found = resolving.await;
                    drop(permit);
                    found
                });
                match timeout(limit, resolving).await {
                    Ok(Ok(Ok(addresses))) if !addresses.is_empty() => addresses,
                    _ => return Err(Denial::Unresolved(host.clone())),
                }
            }
        };
        for address in &addresses {
            let why = net::refusal(*address).or_else(|| (self.own)(*address).then_some("this server's own address"));
            if let Some(why) = why {
                return Err(Denial::Address { host: host.clone(), address: *address, why });
            }
        }
        let mut seen = Vec::new();
        addresses.retain(|address| !seen.contains(address) && (seen.push(*address), seen.len() <= MAX_ADDRESSES).1);
        Ok(addresses)
    }

    /// Returns where a checked address is dialled.
    pub(super) fn route(&self, address: SocketAddr) -> SocketAddr {
        (self.route)(address)
    }

    /// Connects to the first of the checked `addresses` that answers; returns that address too.
    pub(super) async fn dial(
        &self,
        host: &Host,
        addresses: &[IpAddr],
        port: u16,
        limit: Duration,
    ) -> Result<(TcpStream, IpAddr), Denial> {
        let attempt = |address: IpAddr| {
            let there = self.route(SocketAddr::new(address, port));
            async move {
                let stream = TcpStream::connect(there).await?;
                stream.set_nodelay(true)?;
                Ok(stream)
            }
        };
        match timeout(limit, race(&interleave(addresses), attempt)).await {
            Ok(Some(found)) => Ok(found),
            _ => Err(Denial::Unreachable(host.clone())),
        }
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

/// Alternates between IPv4 and IPv6, starting with the family of the first address.
fn interleave(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first = addresses.first().is_some_and(IpAddr::is_ipv4);
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for address in addresses {
        if address.is_ipv4() == first { &mut one } else { &mut other }.push(*address);
    }
    let longest = one.len().max(other.len());
    (0..longest).flat_map(|at| [one.get(at), other.get(at)]).flatten().copied().collect()
}

/// Starts the attempts one after another, each when the one before has failed or had [`HEAD_START`]; the first
/// success drops all others.
async fn race<T, F, A>(addresses: &[IpAddr], attempt: A) -> Option<(T, IpAddr)>
where
    F: Future<Output = io::Result<T>>,
    A: Fn(IpAddr) -> F,
{
    let mut waiting = addresses.iter().copied();
    let mut running = FuturesUnordered::new();
    let start = |address: IpAddr| {
        let attempt = attempt(address);
        async move { attempt.await.map(|stream| (stream, address)) }
    };
    running.push(start(waiting.next()?));
    loop {
        tokio::select! {
            ended = running.next() => match ended {
                Some(Ok(found)) => return Some(found),
                Some(Err(_)) => match waiting.next() {
                    Some(next) => running.push(start(next)),
                    None if running.is_empty() => return None,
                    None => {}
                },
                None => return None,
            },
            () = sleep(HEAD_START), if waiting.len() > 0 => {
                running.extend(waiting.next().map(start));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn network(answer: &[&str]) -> Network {
        let answer: Vec<IpAddr> = answer.iter().map(|text| at(text)).collect();
        Network::system()
            .with_resolver(move |_| std::future::ready(Ok(answer.clone())).boxed())
            .with_own(|address| address == at("203.0.113.66"))
    }

    async fn lookup(answer: &[&str]) -> Result<Vec<IpAddr>, Denial> {
        network(answer).lookup(&Host::Name("a.org".into()), Duration::from_secs(1), ()).await
    }

    #[tokio::test]
    async fn one_bad_address_spoils_the_name() {
        assert_eq!(lookup(&["203.0.113.1", "203.0.113.1"]).await, Ok(vec![at("203.0.113.1")]));
        for bad in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "fd00:ec2::254", "::ffff:1.1.1.1", "203.0.113.66"] {
            let denial = lookup(&["203.0.113.1", bad]).await.unwrap_err();
            assert!(matches!(&denial, Denial::Address { address, .. } if *address == at(bad)), "{bad}: {denial:?}");
            assert!(!denial.to_string().contains(bad), "the sandbox is not told where names lead inside");
        }
        assert_eq!(lookup(&[]).await, Err(Denial::Unresolved(Host::Name("a.org".into()))));
        // A refused address counts even if it is behind those that would be dialled.
        let many: Vec<String> = (1..=20).map(|last| format!("203.0.113.{last}")).chain(["10.0.0.1".into()]).collect();
        assert!(lookup(&many.iter().map(String::as_str).collect::<Vec<_>>()).await.is_err());
    }

    #[tokio::test]
    async fn an_address_written_out_is_checked_as_well() {
        let host = Host::Address(at("10.0.0.1"));
        assert!(network(&[]).lookup(&host, Duration::from_secs(1), ()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_resolver_ends_at_the_limit() {
        let network = Network::system().with_resolver(|_| pending().boxed());
        let denial = network.lookup(&Host::Name("a.org".into()), Duration::from_secs(5), ()).await.unwrap_err();
        assert!(matches!(denial, Denial::Unresolved(_)));
    }

    #[test]
    fn families_take_turns() {
        let list = ["2001:db8::1", "2001:db8::2", "203.0.113.1", "203.0.113.2", "203.0.113.3"].map(at);
        let turns = ["2001:db8::1", "203.0.113.1", "2001:db8::2", "203.0.113.2", "203.0.113.3"].map(at);
        assert_eq!(interleave(&list), turns);
        assert_eq!(interleave(&[]), Vec::<IpAddr>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn the_race_goes_round_dead_addresses() {
        let list = ["203.0.113.1", "203.0.113.2", "203.0.113.3"].map(at);
        let begun = tokio::time::Instant::now();
        let won = race(&list, |address| async move {
            match address.to_string().as_str() {
                "203.0.113.1" => pending().await,
                "203.0.113.2" => Err(io::Error::other("refused")),
                _ => Ok(()),
            }
        })
        .await;
        assert_eq!(won, Some(((), list[2])));
        assert_eq!(begun.elapsed(), HEAD_START);
        let lost: Option<((), _)> = race(&list, |_| async { Err(io::Error::other("refused")) }).await;
        assert_eq!(lost, None);
    }
}
