//! Requests to inference servers: bounded in time and size, and whatever comes back is one of a few faults.

use std::{fmt, time::Duration};

use reqwest::{
    Client, Method, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::time;

use super::entries::Endpoint;
use crate::{net, strings::localbot, text};

/// The largest answer in bytes.
const LARGEST: usize = 4 << 20;
/// The most characters of a server's own words.
const WORDS: usize = 160;

/// The client for all inference servers. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Http {
    client: Client,
    /// For servers on this machine, which no proxy reaches.
    direct: Client,
}

/// Why a server has not answered as it should; for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No connection, or it broke; the cause in a few words.
    Unreachable(String),
    /// Nothing came in time.
    Slow(Duration),
    /// The server refuses; with its own words.
    Status(u16, String),
    /// It is a web page.
    WebPage,
    /// It is no JSON, or not what it should be.
    NoJson,
    /// It is larger than any answer.
    TooMuch,
    /// The endpoint's key cannot be read.
    Key(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) | Self::Key(why) => f.write_str(why),
            Self::Slow(limit) => f.write_str(&localbot::no_answer_within(*limit)),
            Self::Status(status, words) => f.write_str(&localbot::status(*status, words)),
            Self::WebPage => f.write_str(localbot::WEB_PAGE),
            Self::NoJson => f.write_str(localbot::NO_JSON),
            Self::TooMuch => f.write_str(localbot::TOO_MUCH),
        }
    }
}

impl Http {
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        let client = || net::client().connect_timeout(Duration::from_secs(5));
        Ok(Self { client: client().build()?, direct: client().no_proxy().build()? })
    }

    /// Asks for JSON at a path.
    pub(super) async fn get(&self, endpoint: &Endpoint, path: &str, limit: Duration) -> Result<Value, Fault> {
        self.json(Method::GET, endpoint, path, None, limit).await
    }

    /// Sends JSON to a path, and returns the JSON that comes back.
    pub(super) async fn post(
        &self,
        endpoint: &Endpoint,
        path: &str,
        body: &Value,
        limit: Duration,
    ) -> Result<Value, Fault> {
        self.json(Method::POST, endpoint, path, Some(body), limit).await
    }

    async fn json(
        &self,
        method: Method,
        endpoint: &Endpoint,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Value, Fault> {
        let key = endpoint.key().map_err(|error| Fault::Key(error.to_string()))?;
        let client = if is_loopback(&endpoint.url) { &self.direct } else { &self.client };
        let mut request = client.request(method, format!("{}{path}", endpoint.url));
        if let Some(key) = &key {
            let bearer = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()));
            let mut bearer = bearer.map_err(|_| Fault::Key(localbot::BAD_KEY.to_owned()))?;
            bearer.set_sensitive(true);
            request = request.header(AUTHORIZATION, bearer);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let answer = async {
            let mut answer = request.send().await.map_err(|error| unreachable(&error))?;
            let (status, mut bytes) = (answer.status(), Vec::new());
            while let Some(piece) = answer.chunk().await.map_err(|error| unreachable(&error))? {
                bytes.extend_from_slice(&piece);
                if bytes.len() > LARGEST {
                    return Err(Fault::TooMuch);
                }
            }
            Ok((status, bytes))
        };
        let (status, bytes) = time::timeout(limit, answer).await.map_err(|_| Fault::Slow(limit))??;
        let value = serde_json::from_slice::<Value>(&bytes);
        if !status.is_success() {
            let words = value.map(|value| words(&value)).unwrap_or_default();
            // A server may repeat the key that it refuses.
            let key = key.as_ref().map(ExposeSecret::expose_secret).filter(|key| !key.is_empty());
            let words = key.map_or_else(|| words.clone(), |key| words.replace(key, "…"));
            return Err(Fault::Status(status.as_u16(), text::one_line(&words, WORDS)));
        }
        value.map_err(|_| if looks_like_a_page(&bytes) { Fault::WebPage } else { Fault::NoJson })
    }
}

/// Returns the words of a refusal.
fn words(value: &Value) -> String {
    let said = [&value["error"]["message"], &value["error"], &value["message"], &value["detail"]];
    said.into_iter().find_map(Value::as_str).unwrap_or_default().to_owned()
}

fn looks_like_a_page(bytes: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).trim_start().to_lowercase();
    start.starts_with("<!doctype") || start.starts_with("<html") || start.starts_with("<?xml")
}

/// Returns the innermost cause in a few words, without the number that Linux has for it.
fn unreachable(error: &reqwest::Error) -> Fault {
    if error.is_timeout() {
        return Fault::Unreachable(localbot::NO_CONNECTION.to_owned());
    }
    let cause = text::root_cause(error);
    let cause = cause.split(" (os error").next().unwrap_or_default();
    Fault::Unreachable(text::one_line(cause, 120))
}

/// Returns whether an address is this machine's.
fn is_loopback(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
