//! The one HTTP server: who may ask for what, by which name, in bounded time and memory.
//!
//! Whoever has pages gives them as [`Pages`]; nothing here knows what they are for, and nothing here logs anybody in. It speaks
//! plain HTTP, for a proxy on the same machine that speaks TLS with the world.

mod names;
mod places;

use std::{convert::Infallible, fmt, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http_body_util::{BodyExt, Limited};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

pub use self::names::{BadName, Names};
use self::{
    names::{Opens, is_below, is_local, name_of},
    places::{Place, Places},
};
use crate::text;

/// Connections at the same time. One more takes the place of that which has longest sent no whole request.
const CONNECTIONS: usize = 128;
/// How long a request's head may take to come, also after the request before it on the same connection.
const HEAD: Duration = Duration::from_secs(10);
/// How long its body may take to come.
const BODY: Duration = Duration::from_secs(20);
/// How long its pages may take to begin an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// The most bytes of a head.
const HEAD_BYTES: usize = 16 * 1024;
/// How long the requests under way have when the server ends.
const GRACE: Duration = Duration::from_secs(2);
/// The pause after a connection that the system could not accept.
const PAUSE: Duration = Duration::from_millis(200);
/// Headers by which a proxy says that it passes on what somebody else asks for.
const PASSED_ON: [&str; 4] = ["x-forwarded-for", "x-forwarded-host", "forwarded", "via"];

/// What a browser lets the page do: speak with this server and nobody else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'self'; frame-ancestors 'none'";

/// Pages, or an interface of another kind.
#[derive(Clone, Debug)]
pub struct Pages {
    /// The path at and below which they are: `/webhook/github`.
    pub path: &'static str,
    /// Whether a public name opens them only where it names their path, not by opening all.
    pub private: bool,
    /// The most bytes of a request's body. A larger one is refused before it is read.
    pub largest: usize,
    /// What answers, by whole paths. It gets bodies that were read whole; its own may come as a stream, however long.
    pub router: Router,
}

/// The address cannot be listened at.
#[derive(Debug, thiserror::Error)]
#[error("HTTP cannot be served at {address} ({cause}); set {setting} to an address of this machine that is free")]
pub struct NotBound {
    address: SocketAddr,
    cause: io::Error,
    setting: &'static str,
}

impl NotBound {
    /// Returns it with the name of another setting from which the address is.
    #[must_use]
    pub fn of(self, setting: &'static str) -> Self {
        Self { setting, ..self }
    }
}

/// The server, before it serves.
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    names: Names,
    pages: Vec<Pages>,
}

impl HttpServer {
    /// Listens, so that nobody is turned away from now on; answers come with [`HttpServer::serve`].
    ///
    /// # Errors
    ///
    /// The address is not this machine's, or is taken.
    pub async fn bind(address: SocketAddr, names: Names) -> Result<Self, NotBound> {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address, names, pages: Vec::new() })
        };
        bound.await.map_err(|cause| NotBound { address, cause, setting: "HTTP_LISTEN" })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the public names that open private pages at this path.
    pub fn opening(&self, path: &str) -> Vec<String> {
        self.names.opening(path)
    }

    /// Adds pages. Of two with paths below each other, the longer path has what is below it.
    pub fn add(&mut self, pages: Pages) {
        self.pages.push(pages);
    }

    /// Serves until `cancel`; then requests under way are answered, for a moment.
    pub async fn serve(self, cancel: CancellationToken) {
        let Self { listener, address, names, mut pages } = self;
        pages.sort_by_key(|pages| std::cmp::Reverse(pages.path.len()));
        tracing::info!(%address, "HTTP is served");
        let (site, places, connections) =
            (Arc::new(Site { names, pages }), Places::new(CONNECTIONS), TaskTracker::new());
        loop {
            let next = async {
                let accepted = listener.accept().await?;
                Ok::<_, io::Error>((accepted, places.take().await))
            };
            match cancel.run_until_cancelled(next).await {
                None => break,
                Some(Ok(((stream, peer), place))) => {
                    connections.spawn(serve_one(Arc::clone(&site), stream, peer, place, cancel.clone()));
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
        drop(listener);
        connections.close();
        connections.wait().await;
    }
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer").field("address", &self.address).field("names", &self.names).finish_non_exhaustive()
    }
}

async fn serve_one(site: Arc<Site>, stream: TcpStream, peer: SocketAddr, place: Place, cancel: CancellationToken) {
    let (site, place) = (&*site, &place);
    let service =
        service_fn(move |request| async move { Ok::<_, Infallible>(site.answer(request, peer, place).await) });
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    let mut connection = pin!(protocol.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = place.lost() => return tracing::debug!("an HTTP connection gave way to another one"),
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // What is cut off then is told nothing, and asks again.
            timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection broke");
    }
}

/// What is served.
struct Site {
    names: Names,
    /// Those with the longest paths first.
    pages: Vec<Pages>,
}

impl Site {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr, place: &Place) -> Response<Body> {
        let path = request.uri().path();
        let pages = self.pages.iter().find(|pages| is_below(path, pages.path));
        if let Err((status, why)) = self.opened(&request, peer, pages.is_some_and(|pages| pages.private)) {
            return refusal(status, &why);
        }
        let Some(pages) = pages else {
            return refusal(StatusCode::NOT_FOUND, "There is nothing at this path.");
        };
        match whole(request, pages.largest).await {
            Err((status, why)) => refusal(status, &why),
            Ok(request) => {
                let _held = place.answering();
                let answer = pages.router.clone().oneshot(request);
                match timeout(ANSWER, answer).await {
                    Ok(Ok(response)) => response,
                    Ok(Err(never)) => match never {},
                    Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "The server is too slow now. Try again later."),
                }
            }
        }
    }

    /// Returns whether the name by which the server is asked opens the path, and nobody else's page asks.
    fn opened(&self, request: &Request<Incoming>, peer: SocketAddr, private: bool) -> Result<(), (StatusCode, String)> {
        let asked = asked_by(request);
        let Some(name) = asked.as_deref().and_then(name_of) else {
            return Err((StatusCode::BAD_REQUEST, "The request does not name one host.".to_owned()));
        };
        if !request.method().is_safe() && is_foreign(request.headers(), asked.as_deref().unwrap_or_default()) {
            return Err((StatusCode::FORBIDDEN, "Another site's page may not change anything here.".to_owned()));
        }
        // Whoever sits at this machine, unless a proxy speaks for somebody else: that may have passed on any name.
        if is_local(&name) && peer.ip().to_canonical().is_loopback() && !is_passed_on(request.headers()) {
            return Ok(());
        }
        match self.names.opens(&name, request.uri().path(), private) {
            Opens::Path => Ok(()),
            Opens::Others => Err((StatusCode::NOT_FOUND, "There is nothing at this path under this name.".to_owned())),
            Opens::Nothing => {
                let name = text::one_line(&name, 80);
                let why = format!("`{name}` is none of this server's names. The operator lists them in HTTP_NAMES.");
                Err((StatusCode::MISDIRECTED_REQUEST, why))
            }
        }
    }
}

/// Returns the host that a request names, if it names one.
fn asked_by(request: &Request<Incoming>) -> Option<String> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(host.to_str().ok()?.to_owned()),
        (Some(_), Some(_)) => return None,
        (None, _) => None,
    };
    request.uri().authority().map(ToString::to_string).or(host)
}

/// Returns whether a browser says that the page of another site, or of another port, has sent this to `asked`.
fn is_foreign(headers: &HeaderMap, asked: &str) -> bool {
    let plain = |host: &str| {
        let usual = host.strip_suffix(":443").or_else(|| host.strip_suffix(":80"));
        usual.unwrap_or(host).to_ascii_lowercase()
    };
    headers.get_all(header::ORIGIN).iter().any(|origin| {
        let host = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
        host.is_none_or(|host| plain(host) != plain(asked))
    })
}

fn is_passed_on(headers: &HeaderMap) -> bool {
    PASSED_ON.iter().any(|name| headers.contains_key(*name))
}

/// Reads a request's body, up to `largest` bytes.
async fn whole(request: Request<Incoming>, largest: usize) -> Result<Request<Body>, (StatusCode, String)> {
    let too_large = || {
        let most = text::human_bytes(largest as u64);
        (StatusCode::PAYLOAD_TOO_LARGE, format!("The request is too large: {most} is the limit here."))
    };
    let (parts, body) = request.into_parts();
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > largest as u64) {
        return Err(too_large());
    }
    match timeout(BODY, Limited::new(body, largest).collect()).await {
        Ok(Ok(read)) => Ok(Request::from_parts(parts, Body::from(read.to_bytes()))),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "The request broke off.".to_owned())),
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "The request did not come in time.".to_owned())),
    }
}

/// Returns a page, or a file or an answer that belongs to one, of this kind (`Content-Type`): the browser lets it speak with this server
/// alone, and keeps nothing.
pub fn part_of_page(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fixed: [(HeaderName, &'static str); 5] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // By `no-referrer` a browser would send a form with `Origin: null`, which is refused.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Returns an answer that is a plain sentence.
pub fn told(status: StatusCode, sentence: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{sentence}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Returns an answer after which nothing more is read from the connection.
fn refusal(status: StatusCode, sentence: &str) -> Response<Body> {
    let mut response = told(status, sentence);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests;
