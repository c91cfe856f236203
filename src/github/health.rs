//! What GitHub says of the operator's key, for whoever wants to know before it is needed.

use std::future::ready;

use futures_util::{StreamExt, stream};
use hyper::{HeaderMap, Method};
use jiff::civil::Date;

use super::{GitHub, GitHubError, Key, Repository, api::Answer};

/// The most repositories that are looked at.
const MOST: usize = 10;
/// How many are looked at at the same time.
const AT_ONCE: usize = 4;

/// What GitHub says of the operator's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHealth {
    /// Whose it is: a person's login, or the App's name.
    pub name: String,
    /// Whether it may change workflows, which run with more rights than it has itself.
    pub workflows: bool,
    /// The day on which it ends, in UTC, if it does.
    pub ends: Option<Date>,
    /// Listed repositories that it cannot be used for, and why.
    pub closed: Vec<(Repository, GitHubError)>,
}

impl GitHub {
    /// Looks whether GitHub takes the key, what it may do, and whether the listed repositories are open to it, ten of them
    /// at most.
    ///
    /// # Errors
    ///
    /// There is no key, or GitHub does not take it, or does not answer.
    pub async fn key_health(&self) -> Result<KeyHealth, GitHubError> {
        let inner = &self.inner;
        let answer = match &inner.key {
            None => return Err(GitHubError::NoKey),
            Some(Key::Token(token)) => inner.api.ask(token, Method::GET, "/user", None).await?,
            Some(Key::App(app)) => app.about(&inner.api, &inner.clock).await?,
        };
        if answer.status.as_u16() == 401 {
            return Err(GitHubError::BadKey);
        }
        if !answer.status.is_success() {
            return Err(GitHubError::Lost(format!("status {}", answer.status.as_u16())));
        }
        let name = answer.body["login"].as_str().or_else(|| answer.body["name"].as_str());
        let name = name.ok_or(GitHubError::Strange)?.to_owned();
        let looks = inner.listed.whole_names().take(MOST).map(|repository| async move {
            let failed = self.default_branch(&repository).await.err();
            failed.map(|error| (repository, error))
        });
        let closed = stream::iter(looks).buffered(AT_ONCE).filter_map(ready).collect().await;
        Ok(KeyHealth { name, workflows: may_write_workflows(&answer), ends: ends(&answer.headers), closed })
    }
}

/// An App's permissions stand in what it says of itself, a classic token's in a header. Of a fine-grained token nothing tells.
fn may_write_workflows(answer: &Answer) -> bool {
    let scopes = answer.headers.get("x-oauth-scopes").and_then(|scopes| scopes.to_str().ok()).unwrap_or_default();
    scopes.split(',').any(|scope| scope.trim() == "workflow") || answer.body["permissions"]["workflows"] == "write"
}

fn ends(headers: &HeaderMap) -> Option<Date> {
    headers.get("github-authentication-token-expiration")?.to_str().ok()?.get(..10)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use hyper::{StatusCode, header::HeaderName};
    use serde_json::{Value, json};

    use super::*;

    fn answer(headers: &[(&'static str, &str)], body: Value) -> Answer {
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value")));
        Answer { status: StatusCode::OK, headers: headers.collect(), body }
    }

    #[test]
    fn a_key_tells_what_it_may_and_when_it_ends() {
        for (scopes, may) in [("repo, workflow", true), ("repo", false), ("", false), ("repo, workflows", false)] {
            assert_eq!(may_write_workflows(&answer(&[("x-oauth-scopes", scopes)], json!({}))), may, "{scopes}");
        }
        for (permissions, may) in [(json!({"workflows": "write"}), true), (json!({"contents": "write"}), false)] {
            assert_eq!(may_write_workflows(&answer(&[], json!({ "permissions": permissions }))), may);
        }
        let header = "github-authentication-token-expiration";
        for (value, day) in [("2026-12-31 08:00:00 UTC", Some("2026-12-31")), ("soon", None), ("2026-13-01 x", None)] {
            let day = day.map(|day| day.parse().expect("a day"));
            assert_eq!(ends(&answer(&[(header, value)], json!({})).headers), day, "{value}");
        }
    }
}
