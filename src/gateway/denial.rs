//! Why the gateway says no, in the words that the sandbox reads.
//!
//! Pure. Every other file of the gateway speaks through it, so that a refusal has one plain sentence, names the host and
//! says what would open it. What only the operator may know (addresses, causes) is not in these words but in the log.

use std::net::IpAddr;

use hyper::StatusCode;

use super::{body::BadBody, head::BadHead, hosts::Host};

/// The header that tells a refusal from what a site has answered. `sandbox/screenshot.mjs` looks for it.
pub(super) const MARK: &str = "Matrix-Agent-Refusal";

/// A refusal. Its `Display` is the body of the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The host list does not have it.
    #[error(
        "The sandbox may not reach {0}: it is not among the allowed hosts. \
         The operator can open it by adding it to SANDBOX_ALLOWED_HOSTS."
    )]
    NotAllowed(Host),
    /// github.com by the web proxy.
    #[error(
        "The sandbox reaches github.com by git only, which goes another way: `git clone https://github.com/OWNER/REPO`. \
         Archives come from codeload.github.com, single files from raw.githubusercontent.com. \
         The operator can open all of it by adding github.com to SANDBOX_ALLOWED_HOSTS."
    )]
    GitHubByWeb,
    /// Another port than the two of the web.
    #[error("The sandbox may not reach port {1} of {0}: only HTTPS on port 443 and plain HTTP on port 80 are open.")]
    Port(Host, u16),
    /// An address that is never open.
    #[error("The sandbox may not reach {host}: it stands for {why}, which SANDBOX_ALLOWED_HOSTS cannot open.")]
    Address {
        /// The host that was asked for.
        host: Host,
        /// What it stands for; for the log only.
        address: IpAddr,
        /// Why the address is refused.
        why: &'static str,
    },
    /// The name has no address, or the resolver did not answer.
    #[error("The name {0} could not be resolved.")]
    Unresolved(Host),
    /// Nothing answered at the checked addresses.
    #[error("{0} does not answer: no connection within the time limit.")]
    Unreachable(Host),
    /// The upstream broke off or answered nonsense.
    #[error("{0} ended the connection without a usable answer.")]
    Broken(Host),
    /// The upstream is silent for too long.
    #[error("{0} took too long to answer.")]
    Silent(Host),
    /// Too many connections.
    #[error("Too many connections at once: the sandbox may have {0}. Try again when some have ended.")]
    Busy(usize),
    /// The head is none.
    #[error(transparent)]
    Head(#[from] BadHead),
    /// The body is none.
    #[error(transparent)]
    Body(#[from] BadBody),
    /// The head did not come in time.
    #[error("The request's head did not arrive within the time limit.")]
    Slow,
    /// A path where an absolute URI belongs.
    #[error("This is an HTTP proxy: it takes `CONNECT host:443` or `http://host/path`.")]
    NotAServer,
    /// A push to GitHub.
    #[error("The sandbox may only read from GitHub: pushes are refused, and nothing was sent.")]
    Push,
    /// Any other request to GitHub's route.
    #[error(
        "This way to GitHub is for git only, and only for cloning and fetching: `git clone https://github.com/OWNER/REPO`."
    )]
    NotARead,
    /// A repository that only somebody with a password sees.
    #[error("GitHub shows no public repository at {0}: it does not exist, or it is private.")]
    NoRepository(String),
    /// A redirect that leaves the route.
    #[error("GitHub answered with a redirect to another place, which is not followed.")]
    Redirect,
    /// The machine has no usable TLS roots.
    #[error(
        "The server cannot speak TLS: its certificate bundle could not be loaded. The operator finds the cause in the log."
    )]
    NoTls,
}

impl Denial {
    /// Returns the HTTP status that goes with it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotAllowed(_)
            | Self::GitHubByWeb
            | Self::Port(..)
            | Self::Address { .. }
            | Self::Push
            | Self::NotARead => StatusCode::FORBIDDEN,
            Self::Unresolved(_) | Self::Unreachable(_) | Self::Broken(_) | Self::Redirect | Self::NoTls => {
                StatusCode::BAD_GATEWAY
            }
            Self::Silent(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Head(BadHead::TooLarge) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Head(BadHead::Trace) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Head(BadHead::Expectation) => StatusCode::EXPECTATION_FAILED,
            Self::Head(_) | Self::Body(_) | Self::NotAServer => StatusCode::BAD_REQUEST,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::NoRepository(_) => StatusCode::NOT_FOUND,
        }
    }

    /// Returns the reason phrase. Of a refused CONNECT many clients show nothing else, so it carries the hint.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotAllowed(_) => "Host not in SANDBOX_ALLOWED_HOSTS",
            Self::GitHubByWeb => "github.com is open to git clone only",
            Self::Port(..) => "Only ports 443 and 80 are open",
            Self::Address { .. } => "Address never open to sandboxes",
            _ => self.status().canonical_reason().unwrap_or("Refused"),
        }
    }
}
