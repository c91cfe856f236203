//! The gateway's log, and its lines of the audit log: one for each decision, with host, port, address, verdict and bytes, in the span of the
//! room; for models also the agent's run and its tokens.
//!
//! It must not be given paths, queries, headers or bodies: they may carry secrets. Used by `web`, `tunnel`, `git` and
//! `models`.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{ProxyKind, denial::Denial, hosts::Host, models::grant::Grant, rooms::RefusedHosts};
use crate::{audit::Deed, ids::Address, ledger::Tokens, rights::Rights};

/// Writes the log of one connection.
pub(super) struct Audit {
    pub(super) kind: ProxyKind,
    /// The room, and who notes what was done there; `None`: nobody.
    pub(super) noted: Option<(Address, Rights)>,
    /// Takes the hosts that are refused.
    pub(super) refused: RefusedHosts,
}

impl Audit {
    /// Logs a refusal.
    pub(super) fn denied(&self, denial: &Denial) {
        let (host, port, address) = match denial {
            Denial::NotAllowed(host)
            | Denial::Unresolved(host)
            | Denial::Unreachable(host)
            | Denial::Broken(host)
            | Denial::Silent(host) => (Some(host), None, None),
            Denial::Port(host, port) => (Some(host), Some(*port), None),
            Denial::Address { host, address, .. } => (Some(host), None, Some(*address)),
            _ => (None, None, None),
        };
        let quiet = matches!(denial, Denial::NotAllowed(host) if host.is_browser_noise());
        if let Denial::NotAllowed(host) = denial
            && !quiet
        {
            self.refused.note(host);
        }
        if let Some((at, rights)) = self.noted.as_ref().filter(|_| !quiet) {
            let about = host.map(ToString::to_string).or_else(|| self.at_github(denial)).unwrap_or_default();
            rights.note(at, Deed::new("host", about, format!("refused: {}", Why(denial))));
        }
        let host = host.map(tracing::field::display);
        let address = address.map(tracing::field::display);
        let (kind, why) = (self.kind, Why(denial));
        if quiet {
            tracing::debug!(%kind, host, port, address, verdict = "denied", %why, "gateway");
        } else {
            tracing::info!(%kind, host, port, address, verdict = "denied", %why, "gateway");
        }
    }

    /// Returns the host of a request that needs not name it, since it can only be GitHub's.
    fn at_github(&self, denial: &Denial) -> Option<String> {
        let host = match (denial, self.kind) {
            (Denial::GitHubByWeb, _) | (_, ProxyKind::Git) => "github.com",
            (Denial::GitHubApi, _) | (_, ProxyKind::GitHub) => "api.github.com",
            _ => return None,
        };
        Some(host.to_owned())
    }

    /// Logs that a request to a model was refused, and to whose grant it belongs, if that is known.
    pub(super) fn refused(&self, grant: Option<&Grant>, why: &'static str) {
        let kind = self.kind;
        let turn = grant.map(|grant| tracing::field::display(&grant.turn));
        let agent = grant.map(|grant| grant.agent.as_str());
        tracing::info!(%kind, turn, agent, verdict = "denied", why, "gateway");
    }

    /// Logs a request to a model that was forwarded, once it has ended.
    pub(super) fn model_call(&self, call: &ModelCall<'_>) {
        let kind = self.kind;
        let ModelCall { grant: Grant { turn, agent, .. }, host, port, model, status, tokens, .. } = call;
        let Tokens { input, cached, output } = tokens;
        let (sent, received) = (call.asked, call.answered);
        let millis = call.took.as_millis() as u64;
        tracing::info!(
            %kind, %turn, agent, %host, port, model, verdict = "allowed", status, input, cached, output, sent, received,
            millis, "gateway"
        );
    }

    /// Starts the record of a connection that was allowed; it is logged when the record is dropped.
    pub(super) fn allowed(&self, host: &Host, port: u16, address: Option<IpAddr>) -> Passage {
        let kind = self.kind;
        let shown = address.map(tracing::field::display);
        tracing::debug!(%kind, %host, port, address = shown, verdict = "allowed", "gateway: begins");
        Passage {
            kind,
            noted: self.noted.clone(),
            host: host.clone(),
            port,
            dialled: address,
            begun: Instant::now(),
            verdict: "allowed",
            up: Arc::default(),
            down: Arc::default(),
        }
    }
}

/// A denial as the operator's log has it: without anything that the sandbox has sent.
struct Why<'a>(&'a Denial);

impl std::fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Denial::Address { why, .. } => write!(f, "resolves to {why}"),
            // The name of a repository is part of a path, which is never logged.
            Denial::NoRepository(_) => f.write_str("no public repository"),
            Denial::NotGranted(_) => f.write_str("push not granted"),
            Denial::NotReadable(_) => f.write_str("reading not granted"),
            // Written by us, with no more of the sandbox's than how a finding begins.
            Denial::Push(why) => why.fmt(f),
            Denial::Pack(why) => why.fmt(f),
            Denial::Key(why) => why.fmt(f),
            other => f.write_str(other.reason()),
        }
    }
}

/// A request to a model that was forwarded.
pub(super) struct ModelCall<'a> {
    pub(super) grant: &'a Grant,
    pub(super) host: &'a Host,
    pub(super) port: u16,
    /// The model's name, one of those that are configured.
    pub(super) model: &'a str,
    /// The HTTP status; 0 if no response came.
    pub(super) status: u16,
    pub(super) tokens: Tokens,
    /// Bytes of the request's body, and of the response's.
    pub(super) asked: usize,
    pub(super) answered: u64,
    pub(super) took: Duration,
}

/// A connection that was allowed.
pub(super) struct Passage {
    kind: ProxyKind,
    noted: Option<(Address, Rights)>,
    host: Host,
    port: u16,
    dialled: Option<IpAddr>,
    begun: Instant,
    verdict: &'static str,
    /// Bytes from the sandbox and to it, counted while they flow.
    pub(super) up: Arc<AtomicU64>,
    /// See `up`.
    pub(super) down: Arc<AtomicU64>,
}

impl Passage {
    /// Counts with counters that exist already.
    pub(super) fn metered(mut self, (up, down): (Arc<AtomicU64>, Arc<AtomicU64>)) -> Self {
        (self.up, self.down) = (up, down);
        self
    }

    /// Notes why the gateway closed the connection after it had been allowed.
    pub(super) fn closed(&mut self, verdict: &'static str) {
        self.verdict = verdict;
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let Self { kind, host, port, verdict, noted, .. } = self;
        if let Some((at, rights)) = noted {
            rights.note(at, Deed::new("host", format!("{host}:{port}"), *verdict));
        }
        let address = self.dialled.map(tracing::field::display);
        let (sent, received) = (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed));
        let millis = self.begun.elapsed().as_millis() as u64;
        tracing::info!(%kind, %host, port, address, verdict, sent, received, millis, "gateway");
    }
}
