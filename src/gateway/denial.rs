//! The gateway's refusals, in the words that the sandbox reads.
//!
//! Pure. All of the gateway refuses through it, so that a refusal is one plain sentence that names the host and says
//! what would allow it. Addresses and causes are for the operator: they are not in these words but in the log.

use std::net::IpAddr;

use hyper::StatusCode;

use super::{body::BadBody, head::BadHead, hosts::Host, pack::BadPack, push::BadPush};
use crate::{github::GitHubError, rights::Repository, text};

/// The header by which `sandbox/screenshot.mjs` tells a refusal from a site's own response.
pub(super) const MARK: &str = "Matrix-Agent-Refusal";

/// A refusal. Its `Display` is the body of the response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denial {
    /// The host is not in the list of allowed hosts.
    #[error(
        "The sandbox may not reach {0}: it is not among the allowed hosts. \
         The operator can open it by adding it to SANDBOX_ALLOWED_HOSTS."
    )]
    NotAllowed(Host),
    /// github.com was asked for through the web proxy.
    #[error(
        "The sandbox reaches github.com by git only, which goes another way: `git clone https://github.com/OWNER/REPO`. \
         Archives come from codeload.github.com, single files from raw.githubusercontent.com. \
         The operator can open all of it by adding github.com to SANDBOX_ALLOWED_HOSTS."
    )]
    GitHubByWeb,
    /// GitHub's API was asked for through the web proxy.
    #[error(
        "The sandbox reaches GitHub's API by gh only, which reads the repositories that are open to this room (`gh api repos/OWNER/REPO/…`); \
         git clones, fetches and pushes branches agent/…, and the tool `github` opens pull requests, comments and tells what the checks say."
    )]
    GitHubApi,
    /// `gh` wants something else than to read a repository.
    #[error(
        "gh only reads here, and by REST: `gh api repos/OWNER/REPO/…`, `gh run list`. The tool `github` opens pull requests, comments and \
         tells what the checks say; git clones, fetches and pushes."
    )]
    NotReading,
    /// `gh` wants to read a repository that is not open to the room.
    #[error(
        "gh may not read {0} here: the operator can add it to GITHUB_REPOS, or somebody who may writes `!grant {0} 2h` in the room."
    )]
    NotReadable(Repository),
    /// GitHub keeps what `gh` wants elsewhere.
    #[error(
        "GitHub keeps this elsewhere, where gh cannot go from here: so it is with whole logs and archives, and with repositories that \
         were renamed. The tool `github` tells what failed in a check; git fetches files."
    )]
    KeptElsewhere,
    /// `gh` has asked as often as it may.
    #[error("gh has asked GitHub {0} times within an hour, which is as often as it may. Go on with git, or later.")]
    ReadsUsedUp(u32),
    /// The port is neither 443 (CONNECT) nor 80.
    #[error("The sandbox may not reach port {1} of {0}: only HTTPS on port 443 and plain HTTP on port 80 are open.")]
    Port(Host, u16),
    /// The host leads to an address that is never allowed.
    #[error("The sandbox may not reach {host}: it stands for {why}, which SANDBOX_ALLOWED_HOSTS cannot open.")]
    Address {
        /// The host that was asked for.
        host: Host,
        /// The address, for the log only.
        address: IpAddr,
        /// Why the address is refused.
        why: &'static str,
    },
    /// The name has no address, or the resolver did not answer.
    #[error("The name {0} could not be resolved.")]
    Unresolved(Host),
    /// None of the checked addresses answered.
    #[error("{0} does not answer: no connection within the time limit.")]
    Unreachable(Host),
    /// The upstream broke the connection, or its response was invalid.
    #[error("{0} ended the connection without a usable answer.")]
    Broken(Host),
    /// The upstream was silent for too long.
    #[error("{0} took too long to answer.")]
    Silent(Host),
    /// The room has too many connections open; holds the limit.
    #[error("Too many connections at once: the sandbox may have {0}. Try again when some have ended.")]
    Busy(usize),
    /// The request's head is invalid.
    #[error(transparent)]
    Head(#[from] BadHead),
    /// The request's body is invalid.
    #[error(transparent)]
    Body(#[from] BadBody),
    /// The request's head did not arrive in time.
    #[error("The request's head did not arrive within the time limit.")]
    Slow,
    /// The request has a path where a proxy needs an absolute URI.
    #[error("This is an HTTP proxy: it takes `CONNECT host:443` or `http://host/path`.")]
    NotAServer,
    /// A push to a repository that is not granted.
    #[error(
        "The sandbox may not push to {0}, and nothing was sent: it is not among the repositories that may be pushed to \
         here. The operator can add it to GITHUB_REPOS, or somebody who may writes `!grant {0} push 2h` in the room."
    )]
    NotGranted(Repository),
    /// A push that nobody has said yes to.
    #[error(
        "The push was refused, and nothing was sent: nobody has allowed it. The tool `github` pushes and asks in the room; or \
         somebody who may writes `!grant {0} push 2h` there."
    )]
    NotPermitted(Repository),
    /// A push whose body is encoded, so that it cannot be looked through.
    #[error("A push may not be encoded (Content-Encoding), and nothing was sent: use git as it comes.")]
    Encoded,
    /// A push is too large; holds the limit in bytes.
    #[error("A push may have {} at most, and nothing was sent: push fewer commits at a time, or smaller files.", text::human_bytes(*.0 as u64))]
    LargePush(usize),
    /// A push that would set something else than the agents' own branches.
    #[error("The push was refused, and nothing was sent: {0}.")]
    Push(#[from] BadPush),
    /// A push that brings something that must not leave.
    #[error("The push was refused, and nothing was sent: {0}.")]
    Pack(#[from] BadPack),
    /// GitHub does not take the key, or does not let it do that.
    #[error(transparent)]
    Key(#[from] GitHubError),
    /// The request to GitHub is none of git's.
    #[error("This way to GitHub is for git only, to clone, fetch and push: `git clone https://github.com/OWNER/REPO`.")]
    NotGit,
    /// The repository is not public, or does not exist.
    #[error(
        "GitHub shows no public repository at {0}: it does not exist, or it is private and nobody here has opened it. The operator \
         opens private ones by GITHUB_REPOS, somebody who may by `!grant OWNER/REPO 2h` in the room."
    )]
    NoRepository(String),
    /// What is asked of a repository without a key is not answered.
    #[error("{0} does not show it without a key, and the server has none that is open to this room.")]
    NotPublic(Host),
    /// A redirect from GitHub leads elsewhere.
    #[error("GitHub answered with a redirect to another place, which is not followed.")]
    Redirect,
    /// The machine has no usable root certificates for TLS.
    #[error(
        "The server cannot speak TLS: its certificate bundle could not be loaded. The operator finds the cause in the log."
    )]
    NoTls,
}

impl Denial {
    /// Returns the HTTP status of the refusal.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NotAllowed(_)
            | Self::GitHubByWeb
            | Self::GitHubApi
            | Self::Port(..)
            | Self::Address { .. }
            | Self::NotGranted(_)
            | Self::NotPermitted(_)
            | Self::Push(_)
            | Self::Pack(_)
            | Self::Key(_)
            | Self::NotReading
            | Self::NotReadable(_)
            | Self::NotGit => StatusCode::FORBIDDEN,
            Self::ReadsUsedUp(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Encoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::LargePush(_) => StatusCode::PAYLOAD_TOO_LARGE,
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
            Self::NoRepository(_) | Self::NotPublic(_) | Self::KeptElsewhere => StatusCode::NOT_FOUND,
        }
    }

    /// Returns the reason phrase. Many clients show only this of a refused CONNECT, so it carries the hint.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NotAllowed(_) => "Host not in SANDBOX_ALLOWED_HOSTS",
            Self::GitHubByWeb => "github.com is open to git alone",
            Self::GitHubApi => "Open to gh alone; use git, and the tool github",
            Self::Port(..) => "Only ports 443 and 80 are open",
            Self::Address { .. } => "Address never open to sandboxes",
            _ => self.status().canonical_reason().unwrap_or("Refused"),
        }
    }
}
