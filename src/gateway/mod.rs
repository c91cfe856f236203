//! The only way out of a sandbox, which has no network of its own. sandboxd forwards its programs' connections to the
//! room's socket, and each of them ends here, in the server's process, which knows the room by its socket.
//!
//! What arrives is hostile. The gateway must not know chats, the meaning of models' requests, containers or turns; it
//! knows rooms by their address only. `sandbox` calls [`Gateway::serve`] for each connection. A new kind of traffic
//! is a variant of [`ProxyKind`] and a file beside `web`, `git` and `models`.
//!
//! Security invariants:
//! - No address is dialled that was not checked after resolution (`network`, `net::refusal`), but for those of
//!   models' servers, which are the operator's choice (`models`).
//! - No head of a request goes out as it came: HTTP is parsed and written anew (`head`, `body`, `exchange`); of TLS the
//!   server name is compared first (`hello`, `tunnel`).
//! - No key comes in, and none that a sandbox sends goes out (`git`, `models`).
//! - No path, query or header is logged: they carry secrets.

mod audit;
mod body;
mod cloning;
mod denial;
mod downstream;
mod exchange;
mod gh;
mod git;
pub mod head;
pub mod hello;
mod hosts;
pub mod models;
mod network;
pub mod pack;
mod public;
pub mod push;
mod rooms;
mod tunnel;
mod waiting;
mod web;

use std::{fmt, sync::Arc, time::Duration};

use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use self::{
    audit::Audit,
    git::Client,
    models::ModelDoor,
    rooms::{RefusedHosts, Rooms, Slot},
};
pub use self::{body::BadBody, body::Decoded, body::Decoder, hosts::AllowedHosts, network::Network};
pub(crate) use self::{denial::Denial, hosts::BadPattern, hosts::Host};
use crate::{github::GitHub, ids::Address, rights::Rights};

/// The protocol of a forwarded connection. sandboxd names it in the connection's first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyKind {
    /// An HTTP proxy: CONNECT, and plain HTTP with absolute URIs.
    Web,
    /// git's smart HTTP under `/github.com/`.
    Git,
    /// Requests of coding agents to their models.
    Models,
    /// Requests of `gh` to GitHub's API.
    GitHub,
}

impl fmt::Display for ProxyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Web => "web",
            Self::Git => "git",
            Self::Models => "models",
            Self::GitHub => "github",
        })
    }
}

/// What sandboxes may do, the same for every room.
#[derive(Clone, Debug)]
pub struct GatewayPolicy {
    /// The hosts that the web proxy allows.
    pub allowed_hosts: AllowedHosts,
    /// Bounds in number and time.
    pub limits: GatewayLimits,
}

impl GatewayPolicy {
    /// Returns a policy with these hosts and the default limits.
    pub fn new(allowed_hosts: AllowedHosts) -> Self {
        Self { allowed_hosts, limits: GatewayLimits::default() }
    }
}

/// The gateway's bounds. They bound its memory too: a web or git connection buffers at most 256 KiB; the bodies of
/// requests to models have a bound of their own (`models`).
#[derive(Clone, Debug)]
pub struct GatewayLimits {
    /// Connections that one account's room may have open at the same time.
    pub per_room: usize,
    /// Connections that all rooms together may have open at the same time; each takes up to two file descriptors.
    pub overall: usize,
    /// Name lookups that one room may have running at the same time.
    pub lookups_per_room: usize,
    /// How long a name may take to resolve.
    pub resolve: Duration,
    /// How long connecting may take, over all addresses of a host.
    pub connect: Duration,
    /// How long a request's head, or a ClientHello, may take from its first byte.
    pub head: Duration,
    /// How long a connection may wait for its next request.
    pub keep_alive: Duration,
    /// How long nothing may move in either direction before the connection is closed.
    pub idle: Duration,
    /// How long a connection to a host that is not allowed may wait until somebody in the room has opened it; with zero
    /// nobody is asked.
    pub ask: Duration,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            per_room: 64,
            overall: 512,
            lookups_per_room: 8,
            resolve: Duration::from_secs(5),
            connect: Duration::from_secs(10),
            head: Duration::from_secs(10),
            keep_alive: Duration::from_mins(1),
            idle: Duration::from_mins(5),
            ask: Duration::from_mins(1),
        }
    }
}

/// The gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
    models: ModelDoor,
    github: GitHub,
    rights: Option<Rights>,
}

struct Inner {
    policy: GatewayPolicy,
    network: Network,
    rooms: Rooms,
    client: Client,
    cancel: CancellationToken,
}

/// What the gateway's modules need to serve one connection.
struct Link<'a> {
    address: &'a Address,
    policy: &'a GatewayPolicy,
    network: &'a Network,
    client: &'a Client,
    /// The operator's key, and for which repositories.
    github: &'a GitHub,
    slot: &'a Slot,
    audit: Audit,
    /// Ends what outlives the connection.
    cancel: &'a CancellationToken,
    /// Who may allow more than the policy does; `None`: nobody.
    rights: Option<&'a Rights>,
}

impl Gateway {
    /// Returns a gateway with this policy, without models. All its connections end when `cancel` is cancelled.
    pub fn new(policy: GatewayPolicy, network: Network, cancel: CancellationToken) -> Self {
        let rooms = Rooms::new(policy.limits.per_room, policy.limits.overall, policy.limits.lookups_per_room);
        let client = Client::new(network.clone(), &policy.limits);
        let inner = Arc::new(Inner { policy, network, rooms, client, cancel });
        Self { inner, models: ModelDoor::default(), github: GitHub::default(), rights: None }
    }

    /// Adds the operator's key for GitHub; without it, public repositories are read and nothing is pushed.
    #[must_use]
    pub fn with_github(mut self, github: GitHub) -> Self {
        self.github = github;
        self
    }

    /// Adds the way to models; without it, requests to models are refused.
    #[must_use]
    pub fn with_models(mut self, models: ModelDoor) -> Self {
        self.models = models;
        self
    }

    /// Returns hosts that a room was refused because they are not allowed, as far as they are remembered.
    pub fn refused_hosts(&self, address: &Address) -> Vec<String> {
        self.inner.rooms.refused_hosts(address)
    }

    /// Lets people open more than the policy does; without it, nothing is granted.
    #[must_use]
    pub fn with_rights(mut self, rights: Rights) -> Self {
        self.rights = Some(rights);
        self
    }

    /// Serves one forwarded connection to its end. Failures are told to the sandbox and logged.
    pub async fn serve(&self, address: &Address, kind: ProxyKind, stream: UnixStream) {
        self.serve_in_span(address, kind, stream).instrument(address.span()).await;
    }

    async fn serve_in_span(&self, address: &Address, kind: ProxyKind, stream: UnixStream) {
        let (mut reader, mut writer) = downstream::split(stream, self.inner.policy.limits.idle);
        let slot = match self.enter(address, kind) {
            Ok(slot) => slot,
            Err(busy) => {
                // Writing the refusal must not occupy for long what it was refused for.
                let _ = tokio::time::timeout(Duration::from_secs(1), writer.refuse(&busy, false)).await;
                return;
            }
        };
        let link = self.link(address, kind, &slot);
        let serving = async {
            match kind {
                ProxyKind::Web => web::serve(&link, reader, writer).await,
                ProxyKind::Git => git::serve(&link, &mut reader, &mut writer).await,
                ProxyKind::Models => models::serve(&self.models, &link, &mut reader, &mut writer).await,
                ProxyKind::GitHub => gh::serve(&link, &mut reader, &mut writer).await,
            }
        };
        tokio::select! {
            () = self.inner.cancel.cancelled() => {}
            () = serving => {}
        }
    }

    /// Tells whether a room may clone a repository (`https://…`) now, as git in its sandbox would be told. Asks nobody in the room.
    pub(crate) async fn may_clone(&self, address: &Address, url: &str) -> Result<(), Denial> {
        let checking = async {
            let slot = self.enter(address, ProxyKind::Git)?;
            let link = self.link(address, ProxyKind::Git, &slot);
            cloning::check(&link, url).await.inspect_err(|denial| link.audit.denied(denial))
        };
        checking.instrument(address.span()).await
    }

    /// Takes a slot for a connection of a room.
    fn enter(&self, address: &Address, kind: ProxyKind) -> Result<Slot, Denial> {
        self.inner.rooms.enter(address).ok_or_else(|| {
            let busy = Denial::Busy(self.inner.policy.limits.per_room);
            Audit { kind, noted: None, refused: RefusedHosts::default() }.denied(&busy);
            busy
        })
    }

    fn link<'a>(&'a self, address: &'a Address, kind: ProxyKind, slot: &'a Slot) -> Link<'a> {
        let Inner { policy, network, client, cancel, .. } = &*self.inner;
        let rights = self.rights.as_ref();
        let noted = rights.map(|rights| (address.clone(), rights.clone()));
        let audit = Audit { kind, noted, refused: slot.refused.clone() };
        Link { address, policy, network, client, github: &self.github, slot, audit, cancel, rights }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("policy", &self.inner.policy).finish_non_exhaustive()
    }
}
