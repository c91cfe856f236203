//! `POST /webhook/github`: an event is taken if GitHub has signed it and it is new, and confirmed once it is stored.

use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Response, StatusCode},
    routing::post,
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::{Tasks, event};
use crate::{
    crash,
    http::{Pages, told},
    ids,
    rights::Repository,
    store::Taken,
};

/// Where GitHub sends its events.
pub(super) const PATH: &str = "/webhook/github";
/// The most bytes of an event.
const LARGEST: usize = 1 << 20;
/// The longest id of a delivery.
const DELIVERY: usize = 80;

/// Checks GitHub's signatures.
pub(super) struct Secret(hmac::Key);

impl Secret {
    pub(super) fn new(secret: &SecretString) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes()))
    }

    /// Returns whether this is the signature of these bytes; how long that takes tells nothing.
    fn has_signed(&self, body: &[u8], signature: &str) -> bool {
        let tag = signature.strip_prefix("sha256=").and_then(ids::of_hex);
        tag.is_some_and(|tag| hmac::verify(&self.0, body, &tag).is_ok())
    }
}

/// Returns the page at which GitHub's events come.
pub(super) fn pages(tasks: Arc<Tasks>) -> Pages {
    let take = move |headers: HeaderMap, body: Bytes| {
        let tasks = tasks.clone();
        async move { tasks.take(&headers, &body).await }
    };
    Pages { path: PATH, private: false, largest: LARGEST, router: Router::new().route(PATH, post(take)) }
}

impl Tasks {
    async fn take(&self, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !self.secret.has_signed(body, header("x-hub-signature-256")) {
            tracing::warn!("an event for the webhook was not signed with GITHUB_WEBHOOK_SECRET");
            return told(StatusCode::UNAUTHORIZED, "The event is not signed with this server's secret.");
        }
        let (kind, delivery) = (header("x-github-event"), header("x-github-delivery"));
        if delivery.is_empty() || delivery.len() > DELIVERY {
            return told(StatusCode::BAD_REQUEST, "The event has no id of a delivery.");
        }
        let event = match event::read(kind, body, &self.rules.label) {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(kind, delivery, "a signed event cannot be read");
                return told(StatusCode::BAD_REQUEST, &format!("Nothing was done: {error}."));
            }
        };
        let listed = |event: &event::Event| {
            Repository::parse(event.repository()).is_some_and(|repository| self.github.lists(&repository))
        };
        let Some(event) = event.filter(listed) else {
            return told(StatusCode::OK, "There is nothing to do about it.");
        };
        let digest = ids::hex(&Sha256::digest(body));
        let names = vec![format!("body {digest}"), format!("delivery {delivery}")];
        let taken = match serde_json::to_value(&event) {
            Ok(event) => self.store.take_hook(names, event).await,
            Err(error) => Err(error.into()),
        };
        crash::point("hook-stored");
        match taken {
            Ok(Taken::New) => {
                tracing::info!(kind, delivery, repository = event.repository(), "an event of GitHub is taken");
                self.came.notify_one();
                told(StatusCode::ACCEPTED, "It is taken.")
            }
            Ok(Taken::Known) => {
                tracing::warn!(kind, delivery, "an event of GitHub came again");
                told(StatusCode::CONFLICT, "This event was taken before.")
            }
            Ok(Taken::Full) => told(StatusCode::SERVICE_UNAVAILABLE, "Too many events wait. Send it again later."),
            Err(error) => {
                tracing::error!(%error, "an event of GitHub cannot be stored");
                told(StatusCode::SERVICE_UNAVAILABLE, "It cannot be stored now. Send it again later.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_secret_has_signed_is_taken() {
        // The example of GitHub's own documentation.
        let secret = Secret::new(&SecretString::from("It's a Secret to Everybody"));
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(secret.has_signed(b"Hello, World!", signature));
        assert!(!secret.has_signed(b"Hello, World?", signature));
        for forged in
            ["", "sha256=", &signature.replace('7', "8"), &signature[7..], &signature.replace("256", "1"), "sha256=zz"]
        {
            assert!(!secret.has_signed(b"Hello, World!", forged), "{forged}");
        }
        assert!(!Secret::new(&SecretString::from("another")).has_signed(b"Hello, World!", signature));
    }
}
