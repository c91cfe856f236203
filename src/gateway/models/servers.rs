//! Who answers a request: the one upstream that has its model, or servers one after another, of which somebody else knows
//! which there are.
//!
//! Called by `serve`. Where a server does not answer, or says that it cannot now, the next one is asked with the same request;
//! once the sandbox has heard of an answer it is that one's.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::{HeaderMap, Response, StatusCode};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{
    Protocol, inspect,
    refusal::Refusal,
    route::Route,
    upstream::{self, Upstream},
};
use crate::{
    gateway::{GatewayLimits, denial::Denial},
    ids::digest,
};

/// The most clients that are kept for one model's servers.
const MOST_CLIENTS: usize = 32;

/// Chooses the servers of a model anew for each request.
pub trait Servers: Send + Sync {
    /// Begins with a request.
    fn begin(&self) -> Box<dyn Choice + '_>;
}

/// The choice for one request.
pub trait Choice: Send {
    /// Returns who answers, at first and after each one that has `failed` in these words; `None` if that was the last. If nobody
    /// can be asked at all, the sentence says why.
    fn next<'a>(&'a mut self, failed: Option<&'a str>) -> BoxFuture<'a, Option<Result<Server, String>>>;
}

/// A server that answers as long as its guard is kept.
pub struct Server {
    /// What `/chat/completions` follows.
    pub base: Url,
    /// Its key, if it needs one.
    pub key: Option<SecretString>,
    /// The model by the name that it has there.
    pub model: String,
    /// Dropped once it has answered.
    pub guard: Box<dyn Send>,
}

/// A model whose server is chosen for each request.
pub struct Chosen {
    pub(super) protocol: Protocol,
    /// The name by which agents ask for it.
    pub(super) model: String,
    servers: Arc<dyn Servers>,
    /// The upstreams that its servers are, each with a digest of where it leads and what it sends.
    made: Mutex<Vec<(String, Arc<Upstream>)>>,
}

/// Who may answer a request.
pub(super) enum Line<'d> {
    One(Option<Arc<Upstream>>),
    Several { chosen: &'d Chosen, choice: Box<dyn Choice + 'd> },
}

/// Whoever is asked now.
struct Next {
    upstream: Arc<Upstream>,
    /// The model's name there, if it is another one than was asked for.
    model: Option<String>,
    guard: Option<Box<dyn Send>>,
}

/// An answer whose head is there.
pub(super) struct Answered {
    pub(super) upstream: Arc<Upstream>,
    pub(super) status: StatusCode,
    pub(super) answer: Response<reqwest::Body>,
    /// The body, if it is a failure.
    pub(super) failure: Option<Bytes>,
    /// Held until the answer is over.
    pub(super) guard: Option<Box<dyn Send>>,
}

impl Chosen {
    /// A model of this name, asked in this way at whichever of its servers is chosen.
    pub fn new(protocol: Protocol, model: String, servers: Arc<dyn Servers>) -> Self {
        Self { protocol, model, servers, made: Mutex::default() }
    }

    pub(super) fn line(&self) -> Line<'_> {
        Line::Several { chosen: self, choice: self.servers.begin() }
    }

    fn upstream(&self, base: &Url, key: Option<SecretString>) -> Result<Arc<Upstream>, Refusal> {
        let secret = key.as_ref().map(SecretString::expose_secret).unwrap_or_default();
        let which = digest(&[base.as_str(), secret], 16);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, upstream)) = made.iter().find(|(known, _)| *known == which) {
            return Ok(Arc::clone(upstream));
        }
        let upstream = Upstream::new(self.protocol, base, key, vec![self.model.clone()])
            .map_err(|bad| Refusal::NoServer(format!("The model's server cannot be asked: {bad}")))?;
        let upstream = Arc::new(upstream);
        if made.len() >= MOST_CLIENTS {
            made.remove(0);
        }
        made.push((which, Arc::clone(&upstream)));
        Ok(upstream)
    }
}

impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chosen").field("protocol", &self.protocol).field("model", &self.model).finish_non_exhaustive()
    }
}

impl Line<'_> {
    async fn next(&mut self, failed: Option<&str>) -> Option<Result<Next, Refusal>> {
        match self {
            Self::One(upstream) => upstream.take().map(|upstream| Ok(Next { upstream, model: None, guard: None })),
            Self::Several { chosen, choice } => {
                let next = match choice.next(failed).await? {
                    Ok(Server { base, key, model, guard }) => chosen.upstream(&base, key).map(|upstream| Next {
                        upstream,
                        model: Some(model),
                        guard: Some(guard),
                    }),
                    Err(why) => Err(Refusal::NoServer(why)),
                };
                Some(next)
            }
        }
    }

    /// Sends a request that was looked into to one after another, until one answers; `to` is told of each.
    pub(super) async fn ask(
        &mut self,
        route: &Route,
        headers: &HeaderMap,
        body: &Bytes,
        limits: &GatewayLimits,
        mut to: impl FnMut(&Arc<Upstream>),
    ) -> Result<Answered, Refusal> {
        let (mut last, mut failed) = (None, None);
        while let Some(next) = self.next(failed.as_deref()).await {
            let Next { upstream, model, guard } = next?;
            to(&upstream);
            let body = model.map_or_else(|| Ok(body.clone()), |model| renamed(body, &model))?;
            let answered = match upstream.ask(route, headers, body, limits).await {
                Ok(answer) => {
                    let (status, mut answer) = upstream::clean(answer);
                    let failure = if status.is_success() { None } else { Some(upstream.failure(&mut answer).await) };
                    Ok(Answered { upstream, status, answer, failure, guard })
                }
                Err(refusal) => Err(refusal),
            };
            let Some(why) = passing(&answered) else { return answered };
            // Whoever is asked next must not wait for what this one holds.
            last = Some(answered.map(|answered| Answered { guard: None, ..answered }));
            failed = Some(why);
        }
        last.unwrap_or_else(|| Err(Refusal::NoServer("Nobody is left to ask.".to_owned())))
    }
}

/// Returns why another server may answer where this one did not; `None` if it would fare alike.
fn passing(answered: &Result<Answered, Refusal>) -> Option<String> {
    match answered {
        Ok(Answered { status, failure: Some(body), .. })
            if *status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() =>
        {
            Some(upstream::cause(body))
        }
        Err(refusal @ Refusal::Denied(Denial::Unreachable(_) | Denial::Silent(_) | Denial::Broken(_))) => {
            Some(refusal.to_string())
        }
        _ => None,
    }
}

/// Puts another name in the place of the model's, and leaves every other byte as it is.
fn renamed(body: &Bytes, model: &str) -> Result<Bytes, Refusal> {
    #[derive(Deserialize)]
    struct Named<'b> {
        // Only what is written without escapes can be borrowed, and stands in the body as it is.
        model: &'b str,
    }
    let text = str::from_utf8(body).unwrap_or_default();
    let Named { model: old } = serde_json::from_str(text)
        .map_err(|error| Refusal::Malformed(format!("its model cannot be read at {}", inspect::place(&error))))?;
    let at = old.as_ptr() as usize - text.as_ptr() as usize;
    let new = serde_json::Value::from(model).to_string();
    let parts = [&text[..at - 1], &new, &text[at + old.len() + 1..]];
    Ok(parts.concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_name_is_exchanged_and_nothing_else() {
        let body = br#"{ "messages":[{"content":"model \"a\"" }], "model" : "localbot/a","x":1}"#;
        let renamed = |body: &[u8]| renamed(&Bytes::copy_from_slice(body), "b\"c.gguf");
        let found = renamed(body).unwrap();
        assert_eq!(
            str::from_utf8(&found).unwrap(),
            r#"{ "messages":[{"content":"model \"a\"" }], "model" : "b\"c.gguf","x":1}"#
        );
        assert!(renamed(br#"{"model": "\u0061"}"#).is_err(), "its place in the body is not known");
    }
}
