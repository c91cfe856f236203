//! The page on which operators look on: rooms, turns as they run, bots, sandboxes, tokens, grants, failures, and the log of a turn.
//!
//! Whoever asks needs a pass ([`crate::links`]): `matrix-agent dashboard` prints a link with one, the page exchanges it for a cookie.
//! A pass to one turn opens that turn's log alone. Nothing can be changed here. What is shown is gathered at most once a second, however
//! many look, and on a connection of its own.
//!
//! `gather.rs` asks everybody, `sections.rs` and `log.rs` write the markup (`html.rs`), `running.rs` follows the turns.

mod gather;
mod html;
mod log;
mod running;
mod sections;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    routing::{get, post},
};
use futures_util::stream;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderValue},
};
use serde_json::{Map, Value, json};
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time::{self, Instant},
};

pub(super) use self::{gather::Sources, running::Running};
use self::{html::Html, sections::Section};
use crate::{
    http::{Pages, part_of_page, told},
    ids::TurnId,
    links::{DASHBOARD, Links, Opens},
};

/// The most bytes of what is sent here: a pass.
const LARGEST: usize = 1024;
/// How long what was gathered is shown.
const FRESH: Duration = Duration::from_secs(1);
/// Browsers that may follow at the same time.
const FOLLOWERS: usize = 8;
/// After so long without news a comment is sent, so that no proxy takes the stream for dead.
const ALIVE: Duration = Duration::from_secs(10);
/// The cookies of those who have come in, and of those who may see one turn.
const SESSION: &str = "matrix_agent_session";
const TURN: &str = "matrix_agent_turn";

/// The dashboard.
pub(super) struct Dashboard {
    sources: Sources,
    links: Links,
    /// What was gathered last, and when.
    gathered: Mutex<Option<(Instant, Arc<Vec<Section>>)>>,
    followers: Arc<Semaphore>,
}

impl Dashboard {
    pub(super) fn new(sources: Sources, links: Links) -> Arc<Self> {
        Arc::new(Self { sources, links, gathered: Mutex::default(), followers: Arc::new(Semaphore::new(FOLLOWERS)) })
    }

    /// Returns the pages.
    pub(super) fn pages(self: &Arc<Self>) -> Pages {
        let file =
            |kind, text: &'static str| get(move || async move { part_of_page(StatusCode::OK, kind, text.into()) });
        let router = Router::new()
            .route(DASHBOARD, get(overview))
            .route("/dashboard/enter", post(enter))
            .route("/dashboard/live", get(follow))
            .route("/dashboard/turn/{turn}", get(turn))
            .route("/dashboard/page.css", file("text/css; charset=utf-8", include_str!("ui/page.css")))
            .route("/dashboard/page.js", file("text/javascript; charset=utf-8", include_str!("ui/page.js")))
            .route("/dashboard/icon.svg", file("image/svg+xml", include_str!("ui/icon.svg")))
            .with_state(Arc::clone(self));
        Pages { path: DASHBOARD, private: true, largest: LARGEST, router }
    }

    /// Returns whether a browser has come in.
    fn has_come_in(&self, headers: &HeaderMap) -> bool {
        cookie(headers, SESSION).is_some_and(|pass| self.links.check(Opens::All, pass).is_some())
    }

    /// Returns what there is to see, as it was a second ago at most.
    async fn sections(&self) -> Arc<Vec<Section>> {
        let mut gathered = self.gathered.lock().await;
        if let Some((_, known)) = gathered.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Arc::clone(known);
        }
        let sections = Arc::new(sections::of(&self.sources.gather().await));
        *gathered = Some((Instant::now(), Arc::clone(&sections)));
        sections
    }
}

/// Shows everything, to whoever has come in; to others how one comes in.
async fn overview(State(dashboard): State<Arc<Dashboard>>, headers: HeaderMap) -> Response<Body> {
    if !dashboard.has_come_in(&headers) {
        return page(StatusCode::UNAUTHORIZED, &sections::entrance());
    }
    let mut body = Html::default();
    body.raw(
        "<header><h1>matrix-agent</h1><p id=\"link\" role=\"status\">as it was when the page was loaded</p></header>",
    );
    body.raw("<main>");
    for section in dashboard.sections().await.iter() {
        section.whole(&mut body);
    }
    body.raw("</main>");
    page(StatusCode::OK, &body)
}

/// Exchanges a pass for a cookie.
async fn enter(State(dashboard): State<Arc<Dashboard>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let pass = std::str::from_utf8(&body).ok().and_then(|body| body.trim().strip_prefix("pass=")).unwrap_or_default();
    let links = &dashboard.links;
    let (to, cookie) = if links.check(Opens::Entrance, pass).is_some() {
        (DASHBOARD.to_owned(), set_cookie(SESSION, &links.pass(Opens::All, ""), DASHBOARD, Opens::All, &headers))
    } else if let Some(turn) = links.check(Opens::Turn, pass) {
        let path = format!("{DASHBOARD}/turn/{turn}");
        (path.clone(), set_cookie(TURN, pass, &path, Opens::Turn, &headers))
    } else {
        return page(StatusCode::FORBIDDEN, &sections::refused());
    };
    let mut response = part_of_page(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", Body::empty());
    let values = [(header::LOCATION, HeaderValue::try_from(to)), (header::SET_COOKIE, HeaderValue::try_from(cookie))];
    for (name, value) in values {
        let Ok(value) = value else { return told(StatusCode::BAD_REQUEST, "The link is none of this server's.") };
        response.headers_mut().insert(name, value);
    }
    response
}

/// Shows the log of one turn, to whoever has come in or has a pass to it.
async fn turn(State(dashboard): State<Arc<Dashboard>>, Path(turn): Path<String>, headers: HeaderMap) -> Response<Body> {
    let own = cookie(&headers, TURN).and_then(|pass| dashboard.links.check(Opens::Turn, pass));
    let all = dashboard.has_come_in(&headers);
    if !all && own.as_ref() != Some(&turn) {
        return page(StatusCode::UNAUTHORIZED, &sections::entrance());
    }
    match dashboard.sources.turn(&TurnId(turn)).await {
        Ok(Some(shown)) => page(StatusCode::OK, &log::of(&shown, all)),
        Ok(None) => page(StatusCode::NOT_FOUND, &sections::gone()),
        Err(error) => {
            tracing::warn!(%error, "a turn's log cannot be read for the dashboard");
            told(StatusCode::SERVICE_UNAVAILABLE, "The log cannot be read now. Try again later.")
        }
    }
}

/// Tells a page what has changed since it was loaded, for as long as it is open.
async fn follow(State(dashboard): State<Arc<Dashboard>>, headers: HeaderMap) -> Response<Body> {
    if !dashboard.has_come_in(&headers) {
        return told(StatusCode::UNAUTHORIZED, "The pass has expired. Ask `matrix-agent dashboard` for another link.");
    }
    let pass = cookie(&headers, SESSION).unwrap_or_default().to_owned();
    let Ok(place) = Arc::clone(&dashboard.followers).try_acquire_owned() else {
        return told(StatusCode::SERVICE_UNAVAILABLE, "Too many pages are open. Close one of them.");
    };
    let follower = Follower { dashboard, pass, seen: Vec::new(), _place: place };
    let stream = stream::unfold(follower, |mut follower| async move {
        let event = follower.news().await;
        // A page that stays open outlasts neither its pass nor a signing out.
        follower.dashboard.links.check(Opens::All, &follower.pass)?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    part_of_page(StatusCode::OK, "text/event-stream", Body::from_stream(stream))
}

/// A page that is open.
struct Follower {
    dashboard: Arc<Dashboard>,
    /// By which it was let in.
    pass: String,
    /// What it was told last.
    seen: Vec<Section>,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    /// Waits until something has changed, and returns that as an event; after a while without news, a sign of life.
    async fn news(&mut self) -> Bytes {
        let until = Instant::now() + ALIVE;
        let mut changed = self.dashboard.sources.changes();
        loop {
            let now = self.dashboard.sections().await;
            let fresh: Map<String, Value> = now
                .iter()
                .filter(|section| !self.seen.contains(section))
                .map(|section| (section.id.to_owned(), json!(section.inner.as_str())))
                .collect();
            if !fresh.is_empty() {
                self.seen.clone_from(&now);
                return Bytes::from(format!("event: news\ndata: {}\n\n", Value::from(fresh)));
            }
            if Instant::now() >= until {
                return Bytes::from_static(b": it goes on\n\n");
            }
            // What changes at once is told at once, as far as it may be gathered anew.
            time::sleep(FRESH).await;
            let _ = time::timeout(FRESH, changed.changed()).await;
        }
    }
}

/// Returns the value of a cookie.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';')).find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

fn set_cookie(name: &str, pass: &str, path: &str, opens: Opens, headers: &HeaderMap) -> String {
    // A browser that came by TLS says so in its `Origin`; it keeps the cookie from plain HTTP then.
    let by_tls = headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let secure = if by_tls { "; Secure" } else { "" };
    format!("{name}={pass}; Path={path}; Max-Age={}; HttpOnly; SameSite=Strict{secure}", opens.lasts().as_secs())
}

/// Returns a page with this content.
fn page(status: StatusCode, body: &Html) -> Response<Body> {
    let mut whole = Html::default();
    whole.raw(include_str!("ui/head.html")).add(body).raw("</body></html>\n");
    part_of_page(status, "text/html; charset=utf-8", Body::from(whole.as_str().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others_and_only_by_its_whole_name() {
        let headers = |value| HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(value))]);
        assert_eq!(cookie(&headers("a=b; matrix_agent_turn=t.1; c=d"), TURN), Some("t.1"));
        assert_eq!(cookie(&headers("x_matrix_agent_turn=t.1; matrix_agent_turn_x=2"), TURN), None);
    }

    #[test]
    fn the_files_of_the_page_are_small() {
        let files = [include_str!("ui/page.css"), include_str!("ui/page.js"), include_str!("ui/icon.svg")];
        let size = files.iter().map(|file| file.len()).sum::<usize>() + include_str!("ui/head.html").len();
        assert!(size < 12 << 10, "{size} bytes");
    }
}
