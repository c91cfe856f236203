//! Stands between the bot and its homeserver and does what networks and bad homeservers do: loses answers, delays them,
//! replaces them, changes what is in them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode},
    response::Response,
};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::rig::Rig;

/// A request of the bot.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its path with the query.
    pub path: String,
    /// Its body.
    pub body: Bytes,
}

impl Asked {
    /// Whether it is a sync.
    pub fn is_sync(&self) -> bool {
        self.path.starts_with("/_matrix/client/v3/sync")
    }

    /// Whether it sends an event of the timeline.
    pub fn is_send(&self) -> bool {
        self.method == Method::PUT && self.path.contains("/send/m.room.")
    }
}

/// What becomes of a request.
pub enum Fault {
    /// The homeserver never gets it; this is the answer.
    Answer(u16, String),
    /// The homeserver never gets it; the answer leads there.
    Redirect(String),
    /// The homeserver does it, and its answer is lost on the way.
    Lost,
    /// The homeserver gets it once this is rung.
    Held(Arc<Notify>),
    /// The homeserver does it, and its answer is changed.
    Changed(Box<dyn FnOnce(&mut Value) + Send>),
}

impl Fault {
    /// Changes the homeserver's answer.
    pub fn change(how: impl FnOnce(&mut Value) + Send + 'static) -> Self {
        Self::Changed(Box::new(how))
    }
}

type Rule = Box<dyn FnMut(&Asked) -> Option<Fault> + Send>;
type Change = Box<dyn FnMut(&mut Value) + Send>;

struct Shared {
    upstream: String,
    http: reqwest::Client,
    rule: Mutex<Option<Rule>>,
    syncs: Mutex<Option<Change>>,
    asked: watch::Sender<Vec<Asked>>,
}

/// A proxy; it ends when dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    cancel: CancellationToken,
}

impl Proxy {
    /// Puts a proxy before the homeserver of a bot that is not started yet.
    pub fn before(rig: &mut Rig) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            upstream: rig.get("MATRIX_HOMESERVER").unwrap(),
            http: matrix_agent::net::client().no_proxy().build().unwrap(),
            rule: Mutex::default(),
            syncs: Mutex::default(),
            asked: watch::Sender::default(),
        });
        rig.set("MATRIX_HOMESERVER", &url);
        let app = Router::new().fallback(carry).with_state(shared.clone());
        let cancel = CancellationToken::new();
        let stop = cancel.clone().cancelled_owned();
        tokio::spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            tokio::select! {
                served = axum::serve(listener, app) => served.unwrap(),
                () = stop => {}
            }
        });
        Self { shared, cancel }
    }

    /// From now on `rule` decides about each request; none is a request that goes through as it is.
    pub fn rule(&self, rule: impl FnMut(&Asked) -> Option<Fault> + Send + 'static) {
        *locked(&self.shared.rule) = Some(Box::new(rule));
    }

    /// From now on `change` is made of each answer to a sync, also to the one that the homeserver holds at this moment, which
    /// a rule is too late for.
    pub fn change_syncs(&self, change: impl FnMut(&mut Value) + Send + 'static) {
        *locked(&self.shared.syncs) = Some(Box::new(change));
    }

    /// From now on all goes through.
    pub fn heal(&self) {
        *locked(&self.shared.rule) = None;
        *locked(&self.shared.syncs) = None;
    }

    /// Waits until `n` of all requests so far fit.
    pub async fn asked(&self, n: usize, fits: impl Fn(&Asked) -> bool) {
        let mut asked = self.shared.asked.subscribe();
        let came = asked.wait_for(|asked| asked.iter().filter(|asked| fits(asked)).count() >= n);
        let came = tokio::time::timeout(super::rig::LIMIT, came).await.is_ok_and(|came| came.is_ok());
        assert!(came, "the bot did not ask {n} times");
    }

    /// How many of all requests so far fit.
    pub fn count(&self, fits: impl Fn(&Asked) -> bool) -> usize {
        self.shared.asked.borrow().iter().filter(|asked| fits(asked)).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn carry(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let asked = Asked { method: head.method.clone(), path, body };
    let is_sync = asked.is_sync();
    let fault = locked(&shared.rule).as_mut().and_then(|rule| rule(&asked));
    shared.asked.send_modify(|all| all.push(asked.clone()));
    let mut change = None;
    let mut lost = false;
    match fault {
        None => {}
        Some(Fault::Answer(status, body)) => return answer(status, body.into()),
        Some(Fault::Redirect(to)) => {
            let mut response = answer(302, Bytes::new());
            response.headers_mut().insert("location", to.parse().unwrap());
            return response;
        }
        Some(Fault::Lost) => lost = true,
        Some(Fault::Held(until)) => until.notified().await,
        Some(Fault::Changed(how)) => change = Some(how),
    }
    let mut request = shared.http.request(asked.method, format!("{}{}", shared.upstream, asked.path)).body(asked.body);
    for name in ["authorization", "content-type"] {
        if let Some(value) = head.headers.get(name) {
            request = request.header(name, value);
        }
    }
    let Ok(response) = request.send().await else { return broken() };
    let status = response.status().as_u16();
    let Ok(mut body) = response.bytes().await else { return broken() };
    if lost {
        return broken();
    }
    if let Some(change) = change {
        body = changed(&body, change);
    }
    if is_sync && let Some(change) = locked(&shared.syncs).as_mut() {
        body = changed(&body, change);
    }
    answer(status, body)
}

fn changed(body: &[u8], change: impl FnOnce(&mut Value)) -> Bytes {
    let mut value = serde_json::from_slice(body).unwrap_or(Value::Null);
    change(&mut value);
    value.to_string().into()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(status: u16, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

/// An answer whose connection breaks off.
fn broken() -> Response {
    let nothing = futures_util::stream::once(async { Err::<Bytes, _>(std::io::Error::other("lost")) });
    Response::new(Body::from_stream(nothing))
}
