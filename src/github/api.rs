//! GitHub's REST API: one request and its answer, bounded in time and size.
//!
//! Knows no act and decides nothing. A request that only reads is sent again where no answer came; any other is sent once. By
//! GraphQL it is only read.

use std::{sync::OnceLock, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{HeaderMap, Method, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::error::GitHubError;
use crate::{backoff::Backoff, net, rights::Repository, text};

/// How long one request may take, its answer's body included.
const LIMIT: Duration = Duration::from_secs(30);
/// The most bytes of an answer.
const MOST: usize = 8 * 1024 * 1024;
/// How often something is read until it is given up, and the pauses between.
const READS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The usual type of an answer.
const JSON: &str = "application/vnd.github+json";
/// The API's version that is spoken.
const VERSION: &str = "2022-11-28";
/// Where GraphQL is asked.
pub(super) const GRAPHQL: &str = "/graphql";

/// Where the API is.
pub(super) struct Api {
    base: String,
    /// Made at first use: it loads the machine's certificates.
    client: OnceLock<Option<reqwest::Client>>,
}

/// What GitHub has answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Null if it is no JSON.
    pub(super) body: Value,
}

/// The same as it came.
pub(super) struct RawAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// Returns the body of a success, and else why it is none; `now` in milliseconds since 1970.
    pub(super) fn good(self, repository: &Repository, now: i64) -> Result<Value, GitHubError> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        Err(GitHubError::of(repository, self.status, &self.headers, &self.body, now))
    }
}

impl Api {
    pub(super) fn new(base: &str) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), client: OnceLock::new() }
    }

    /// Asks, with a token or a signed name; `path` begins with a slash.
    ///
    /// # Errors
    ///
    /// No whole answer came: what became of the request is not known.
    pub(super) async fn ask(
        &self,
        token: &SecretString,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, GitHubError> {
        let RawAnswer { status, headers, body } = self.ask_raw(token, method, path, JSON, body).await?;
        Ok(Answer { status, headers, body: serde_json::from_slice(&body).unwrap_or_default() })
    }

    /// The same with an answer of any type, which `accept` asks for.
    pub(super) async fn ask_raw(
        &self,
        token: &SecretString,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<&Value>,
    ) -> Result<RawAnswer, GitHubError> {
        let tries = if method == Method::GET || path == GRAPHQL { READS } else { 1 };
        let mut pauses = Backoff::new(PAUSE, LONGEST_PAUSE);
        let mut tried = 0;
        loop {
            tried += 1;
            let answer = timeout(LIMIT, self.ask_once(token, method.clone(), path, accept, body)).await;
            let answer = answer.unwrap_or_else(|_| Err(GitHubError::Lost("no answer in time".to_owned())));
            let is_over = !matches!(&answer, Err(GitHubError::Lost(_)))
                && !matches!(&answer, Ok(answer) if answer.status.is_server_error());
            if is_over || tried == tries {
                return answer;
            }
            sleep(pauses.next_pause()).await;
        }
    }

    async fn ask_once(
        &self,
        token: &SecretString,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<&Value>,
    ) -> Result<RawAnswer, GitHubError> {
        let lost = |error: &reqwest::Error| {
            // The error's own text holds the address, its causes' do not.
            let cause = text::one_line(&text::root_cause(error), 100);
            tracing::warn!(%cause, "GitHub's API failed");
            GitHubError::Lost(
                if error.is_connect() { "it cannot be reached" } else { "the connection broke" }.to_owned(),
            )
        };
        let mut request = self
            .client()?
            .request(method, format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", token.expose_secret()))
            .header(header::ACCEPT, accept)
            .header("x-github-api-version", VERSION);
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let response = request.send().await.map_err(|error| lost(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut whole = BytesMut::new();
        let mut body = Limited::new(reqwest::Body::from(response), MOST);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    GitHubError::TooLarge
                } else {
                    GitHubError::Lost("its answer broke off".to_owned())
                }
            })?;
            if let Ok(data) = frame.into_data() {
                whole.extend_from_slice(&data);
            }
        }
        Ok(RawAnswer { status, headers, body: whole.freeze() })
    }

    fn client(&self) -> Result<&reqwest::Client, GitHubError> {
        let made = self.client.get_or_init(|| match net::client().build() {
            Ok(client) => Some(client),
            Err(error) => {
                tracing::error!(cause = %text::root_cause(&error), "no client for GitHub's API");
                None
            }
        });
        made.as_ref().ok_or_else(|| GitHubError::Lost("the server cannot speak TLS".to_owned()))
    }
}
