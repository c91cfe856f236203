//! Tells machines how the server is: `/healthz` whether it lives, `/readyz` whether it serves, `/metrics` what it has done.
//!
//! Only who sits at this machine may ask, and by a public name whoever asks by one that names these paths.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::State, routing::get};
use hyper::{Response, StatusCode, header};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::pulse::Pulse;
use crate::{
    chat::matrix::Serving,
    http::{Pages, told},
    memory,
    metrics::{self, Looked},
    sandbox::{SandboxState, Sandboxes},
    store::Store,
    strings::database,
};

/// How long a beat may take, and what else is asked.
const LIMIT: Duration = Duration::from_secs(5);
/// A beat counts this long, so that many who ask do not make work.
const FRESH: Duration = Duration::from_secs(1);

/// What the pages tell of.
pub(super) struct Status {
    store: Store,
    serving: Serving,
    /// `None` if no bot works in sandboxes.
    sandboxes: Option<Sandboxes>,
    /// When the last beat ended, and whether it came in time.
    beat: Mutex<Option<(Instant, bool)>>,
    cancel: CancellationToken,
}

impl Status {
    pub(super) fn new(
        store: Store,
        serving: Serving,
        sandboxes: Option<Sandboxes>,
        cancel: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { store, serving, sandboxes, beat: Mutex::default(), cancel })
    }

    /// Returns the pages.
    pub(super) fn pages(self: &Arc<Self>) -> [Pages; 3] {
        let pages = |path, router: Router<Arc<Self>>| Pages {
            path,
            private: true,
            largest: 0,
            router: router.with_state(Arc::clone(self)),
        };
        let health = |State(status): State<Arc<Self>>| async move { answer(status.lives().await, "It lives.") };
        let ready = |State(status): State<Arc<Self>>| async move { answer(status.ready().await, "It serves.") };
        let metrics = |State(status): State<Arc<Self>>| async move { status.metrics().await };
        [
            pages("/healthz", Router::new().route("/healthz", get(health))),
            pages("/readyz", Router::new().route("/readyz", get(ready))),
            pages("/metrics", Router::new().route("/metrics", get(metrics))),
        ]
    }

    /// Returns whether the runtime's workers and the store's writer do something.
    async fn lives(&self) -> Result<(), String> {
        let mut last = self.beat.lock().await;
        let fresh = last.filter(|(at, _)| at.elapsed() < FRESH);
        let (at, lives) = if let Some(known) = fresh {
            known
        } else {
            let beat = timeout(LIMIT, Pulse::new(self.store.clone()).beat()).await;
            (Instant::now(), matches!(beat, Ok(Ok(()))))
        };
        *last = Some((at, lives));
        if lives { Ok(()) } else { Err("The server hangs: its database or its runtime does not answer.".to_owned()) }
    }

    /// Returns whether people are served: all that they need is there.
    pub(super) async fn ready(&self) -> Result<(), String> {
        if self.cancel.is_cancelled() {
            return Err("The server is ending.".to_owned());
        }
        self.lives().await?;
        if !self.store.has_space() {
            return Err(database::FULL.to_owned());
        }
        let (synced, all, why) = self.serving.synced();
        if synced < all {
            let why = why.map_or_else(|| "no messages have come from there yet".to_owned(), |why| why.to_string());
            let away = all - synced;
            return Err(format!("{away} of {all} Matrix accounts do not follow their homeserver: {why}"));
        }
        if let Some(sandboxes) = &self.sandboxes {
            match timeout(LIMIT, sandboxes.list()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(format!("There are no sandboxes: {error}")),
                Err(_) => return Err("There are no sandboxes: Podman does not answer.".to_owned()),
            }
        }
        Ok(())
    }

    async fn metrics(&self) -> Response<Body> {
        let ready = self.ready().await.is_ok();
        let waiting = self.store.queued().await.ok().map(|queued| (queued.messages, queued.answers));
        metrics::look(Looked { ready, memory: memory::resident_bytes(), waiting });
        // Only if Podman answered a moment ago.
        if let Some(sandboxes) = self.sandboxes.as_ref().filter(|_| ready)
            && let Ok(list) = sandboxes.list().await
        {
            metrics::sandboxes(
                SandboxState::ALL
                    .map(|state| (state.as_str(), list.iter().filter(|sandbox| sandbox.state == state).count())),
            );
        }
        let mut response = Response::new(Body::from(metrics::text()));
        let kind = header::HeaderValue::from_static(metrics::CONTENT_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

fn answer(result: Result<(), String>, good: &str) -> Response<Body> {
    match result {
        Ok(()) => told(StatusCode::OK, good),
        Err(why) => told(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}
