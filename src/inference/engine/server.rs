//! What a running child is asked by HTTP: whether it answers, and to save and restore its conversation.

use std::time::Duration;

use reqwest::{
    Client, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::time;

use crate::net;

/// How long one look may take.
const LOOK: Duration = Duration::from_secs(2);
/// The pauses between looks: a small model is there at once, and a large one is not missed by long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// The one conversation that it has.
const SLOT: u32 = 0;

/// A child at its port. Cheap to clone.
#[derive(Clone)]
pub(super) struct Server {
    http: Client,
    address: String,
    key: SecretString,
}

impl Server {
    /// Returns the client for all children.
    pub(super) fn client() -> Result<Client, reqwest::Error> {
        net::client().no_proxy().build()
    }

    pub(super) fn new(http: Client, port: u16, key: SecretString) -> Self {
        Self { http, address: format!("http://127.0.0.1:{port}"), key }
    }

    /// Returns where the model's API is.
    pub(super) fn base_url(&self) -> String {
        format!("{}/v1", self.address)
    }

    pub(super) fn key(&self) -> &SecretString {
        &self.key
    }

    /// Waits until it answers: while it loads its model it refuses with 503, and before that nothing listens. Has no limit of
    /// its own.
    pub(super) async fn answers(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let asked = self.http.get(format!("{}/health", self.address)).timeout(LOOK).send().await;
            if asked.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return;
            }
            time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Has its conversation written to a file in its own folder, or read from there. Returns whether that was done.
    pub(super) async fn slot(&self, action: &'static str, file: &str, limit: Duration) -> bool {
        let Ok(mut bearer) = HeaderValue::from_str(&format!("Bearer {}", self.key.expose_secret())) else {
            return false;
        };
        bearer.set_sensitive(true);
        let asking = self
            .http
            .post(format!("{}/slots/{SLOT}?action={action}", self.address))
            .timeout(limit)
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, "application/json")
            .body(json!({ "filename": file }).to_string());
        match asking.send().await {
            Ok(answer) if answer.status().is_success() => true,
            Ok(answer) => {
                // An older server cannot do so, and then a wake reads the conversation once more.
                tracing::info!(
                    action,
                    status = answer.status().as_u16(),
                    "the model's server did not keep its conversation"
                );
                false
            }
            Err(error) => {
                tracing::info!(action, %error, "the model's server did not keep its conversation");
                false
            }
        }
    }
}
