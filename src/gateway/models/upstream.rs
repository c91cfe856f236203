//! Whom the models are asked of: the operator's addresses and keys, and what goes along with a request.
//!
//! An upstream is the operator's choice, so its address is not checked: a model on the same machine is one. Where it leads by
//! a redirect is not followed. Called by `serve`.

use std::{error::Error, sync::OnceLock, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    Protocol,
    refusal::Refusal,
    route::{Route, is_model},
};
use crate::{
    gateway::{GatewayLimits, Host, denial::Denial},
    metrics::MODELS,
    net, text,
};

/// What goes along to an upstream from a client. Everything else stays here, above all keys and cookies.
const REQUEST_LINES: [HeaderName; 4] = [
    header::ACCEPT,
    HeaderName::from_static("anthropic-beta"),
    HeaderName::from_static("anthropic-version"),
    HeaderName::from_static("x-dashscope-cachecontrol"),
];

/// What comes back.
const ANSWER_LINES: [HeaderName; 5] = [
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::RETRY_AFTER,
    HeaderName::from_static("x-request-id"),
];

/// The most bytes of an error that are passed on.
const MAX_FAILURE: usize = 64 * 1024;
/// How long the rest of an error may take once its head is there, and the list of an upstream's models.
const FAILURE_LIMIT: Duration = Duration::from_secs(10);
/// The most bytes of that list, and the most of its names that are told.
const MAX_LIST: usize = 1024 * 1024;
const MOST_KNOWN: usize = 12;
/// The most characters of a failure's cause.
const MAX_CAUSE: usize = 200;

/// An address, its key and its models.
#[derive(Debug)]
pub struct Upstream {
    pub(super) protocol: Protocol,
    base: String,
    host: Host,
    port: u16,
    key: Option<SecretString>,
    /// The header that carries the key.
    header: Option<(HeaderName, HeaderValue)>,
    /// The names as its API takes them, the usual one first.
    pub(super) models: Vec<String>,
    /// Made at first use: it loads the machine's certificates.
    client: OnceLock<Result<reqwest::Client, Denial>>,
}

/// Why an upstream cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUpstream {
    /// No address of a server, or more than that.
    #[error("the address of a model's server is `http://` or `https://`, a host and a path, without user and query")]
    Address,
    /// Characters that no header carries.
    #[error("the key holds characters that no key has; copy it again")]
    Key,
    /// A name that cannot stand in a path.
    #[error("a Gemini model's name has letters, digits, `-`, `_` and `.` only")]
    Model,
}

impl Upstream {
    /// `base` is what `/chat/completions` follows (OpenAI), or `/v1beta` (Gemini).
    pub fn new(
        protocol: Protocol,
        base: &Url,
        key: Option<SecretString>,
        models: Vec<String>,
    ) -> Result<Self, BadUpstream> {
        for model in &models {
            MODELS.add(model);
        }
        let plain = matches!(base.scheme(), "http" | "https")
            && base.username().is_empty()
            && base.password().is_none()
            && base.query().is_none()
            && base.fragment().is_none();
        let host = base.host_str().and_then(Host::parse).filter(|_| plain).ok_or(BadUpstream::Address)?;
        let port = base.port_or_known_default().ok_or(BadUpstream::Address)?;
        if protocol == Protocol::Gemini && !models.iter().all(|model| is_model(model)) {
            return Err(BadUpstream::Model);
        }
        let header = key.as_ref().map(SecretString::expose_secret).filter(|key| !key.is_empty()).map(|key| {
            let (name, value) = match protocol {
                // Others that take its messages take them with the key that they take elsewhere.
                Protocol::Messages if is_anthropic(&host) => (HeaderName::from_static("x-api-key"), key.to_owned()),
                Protocol::OpenAi | Protocol::Responses | Protocol::Messages => {
                    (header::AUTHORIZATION, format!("Bearer {key}"))
                }
                Protocol::Gemini => (HeaderName::from_static("x-goog-api-key"), key.to_owned()),
            };
            let mut value = HeaderValue::try_from(value).map_err(|_| BadUpstream::Key)?;
            value.set_sensitive(true);
            Ok((name, value))
        });
        let header = header.transpose()?;
        let base = base.as_str().trim_end_matches('/').to_owned();
        Ok(Self { protocol, base, host, port, key, header, models, client: OnceLock::new() })
    }

    fn client(&self, limits: &GatewayLimits) -> Result<&reqwest::Client, Denial> {
        let made = self.client.get_or_init(|| {
            let mut client = net::client()
                .connect_timeout(limits.connect)
                .read_timeout(limits.idle)
                .pool_max_idle_per_host(limits.per_room);
            let local = match &self.host {
                Host::Name(name) => name == "localhost",
                Host::Address(address) => address.is_loopback(),
            };
            if local {
                // No proxy stands between this machine and itself.
                client = client.no_proxy();
            }
            client.build().map_err(|error| {
                tracing::error!(%error, cause = error.source().map(tracing::field::display), "no client for models");
                Denial::NoTls
            })
        });
        made.as_ref().map_err(Clone::clone)
    }

    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Sends a request that was looked into, and waits for the answer's head.
    pub(super) async fn ask(
        &self,
        route: &Route,
        headers: &HeaderMap,
        body: Bytes,
        limits: &GatewayLimits,
    ) -> Result<reqwest::Response, Refusal> {
        let mut request = self.client(limits)?.post(format!("{}{}", self.base, route.path()));
        for name in REQUEST_LINES {
            for value in headers.get_all(&name) {
                request = request.header(name.clone(), value.clone());
            }
        }
        request = request.header(header::CONTENT_TYPE, "application/json");
        if let Some((name, value)) = &self.header {
            request = request.header(name.clone(), value.clone());
        }
        let response = match timeout(limits.idle, request.body(body).send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.failed(&error).into()),
            Err(_) => return Err(Denial::Silent(self.host.clone()).into()),
        };
        if response.status().is_redirection() || response.status().is_informational() {
            return Err(Refusal::Redirect(self.host.clone()));
        }
        Ok(response)
    }

    /// Asks which models there are, and returns those whose names are most like `asked`; none if it does not say, or if
    /// `asked` is one of them.
    pub(super) async fn known(&self, asked: &str, limits: &GatewayLimits) -> Vec<String> {
        let listed = async {
            let mut request =
                self.client(limits).ok()?.get(format!("{}{}", self.base, Route::List(self.protocol).path()));
            if let Some((name, value)) = &self.header {
                request = request.header(name.clone(), value.clone());
            }
            let response: Response<reqwest::Body> = request.send().await.ok()?.error_for_status().ok()?.into();
            let body = Limited::new(response.into_body(), MAX_LIST).collect().await.ok()?.to_bytes();
            Some(names(self.protocol, &serde_json::from_slice(&body).ok()?))
        };
        let mut known = timeout(FAILURE_LIMIT, listed).await.ok().flatten().unwrap_or_default();
        if known.iter().any(|known| known == asked) {
            return Vec::new();
        }
        let alike = |name: &String| name.bytes().zip(asked.bytes()).take_while(|(one, other)| one == other).count();
        known.sort_by_key(|name| std::cmp::Reverse(alike(name)));
        known.truncate(MOST_KNOWN);
        known
    }

    fn failed(&self, error: &reqwest::Error) -> Denial {
        // The error's own words have the URL, its causes' have not.
        let causes = text::causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ");
        tracing::warn!(host = %self.host, %causes, "gateway: a model's server failed");
        match () {
            () if error.is_connect() => Denial::Unreachable(self.host.clone()),
            () if error.is_timeout() => Denial::Silent(self.host.clone()),
            () => Denial::Broken(self.host.clone()),
        }
    }

    /// Reads an error whole: what the provider says of a key may hold the key.
    pub(super) async fn failure(&self, response: &mut Response<reqwest::Body>) -> Bytes {
        let body = std::mem::take(response.body_mut());
        let read = Limited::new(body, MAX_FAILURE).collect();
        let Ok(Ok(body)) = timeout(FAILURE_LIMIT, read).await else { return Bytes::new() };
        let body = body.to_bytes();
        let Some(key) = self.key.as_ref().map(SecretString::expose_secret).filter(|key| !key.is_empty()) else {
            return body;
        };
        let text = String::from_utf8_lossy(&body);
        if text.contains(key) { text.replace(key, "[key]").into() } else { body }
    }
}

fn is_anthropic(host: &Host) -> bool {
    matches!(host, Host::Name(name) if name == "api.anthropic.com")
}

/// Returns the names in a list of models that can be asked to write something.
fn names(protocol: Protocol, list: &Value) -> Vec<String> {
    let (models, name) = if protocol == Protocol::Gemini { (&list["models"], "name") } else { (&list["data"], "id") };
    let writes = |model: &&Value| {
        let verbs = model["supportedGenerationMethods"].as_array();
        verbs.is_none_or(|verbs| verbs.iter().any(|verb| verb == "generateContent"))
    };
    let models = models.as_array().into_iter().flatten().filter(writes);
    let names = models.filter_map(|model| model[name].as_str()).map(|name| name.trim_start_matches("models/"));
    names.filter(|name| is_model(name.rsplit('/').next().unwrap_or_default())).map(str::to_owned).collect()
}

/// The upstream's own words about a failure, in one line.
pub(super) fn cause(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    // Gemini's streams tell an error as a list of one.
    let told = json.as_ref().map(|json| json.get(0).unwrap_or(json)).and_then(|json| {
        let error = json.get("error").unwrap_or(json);
        error.as_str().or_else(|| error.get("message")?.as_str())
    });
    let line = told.map_or_else(
        || text::one_line(String::from_utf8_lossy(body).as_ref(), MAX_CAUSE),
        |told| text::one_line(told, MAX_CAUSE),
    );
    if line.is_empty() { "it gave no reason".to_owned() } else { line }
}

/// Leaves on an answer only what is for the client.
pub(super) fn clean(response: reqwest::Response) -> (StatusCode, Response<reqwest::Body>) {
    let mut response: Response<reqwest::Body> = response.into();
    let from = std::mem::take(response.headers_mut());
    for name in ANSWER_LINES {
        for value in from.get_all(&name) {
            response.headers_mut().append(name.clone(), value.clone());
        }
    }
    (response.status(), response)
}
