//! One connection of a coding agent: requests one after another, each checked by itself, counted and sent on.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{self, HeaderValue},
};
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{
    Entry, Failure, ModelDoor, Protocol, SPACE_UNIT, Tokens,
    inspect::{self, Asked},
    refusal::Refusal,
    route::{self, Route, Verb},
    servers::Answered,
    upstream::{Upstream, cause},
    usage::{Scan, Tap},
};
use crate::{
    gateway::{
        GatewayLimits, Link,
        audit::{Audit, ModelCall},
        denial::Denial,
        downstream::{Gone, Manner, Reader, Writer},
        head::{Framing, Head},
    },
    ledger::{BYTES_PER_TOKEN, Refused, Reservation},
};

/// The most bytes of a request's body: a million tokens of text and some pictures.
const MAX_BODY: usize = 32 * 1024 * 1024;

/// Why a request came to no whole answer.
enum Stop {
    /// It is refused, which is to be told.
    Refused(Refusal),
    /// Nobody is left to tell, or nothing can be told any more.
    Gone,
}

impl<R: Into<Refusal>> From<R> for Stop {
    fn from(refusal: R) -> Self {
        Self::Refused(refusal.into())
    }
}

/// Serves one connection to its end.
pub(in crate::gateway) async fn serve(door: &ModelDoor, link: &Link<'_>, reader: &mut Reader, writer: &mut Writer) {
    let limits = &link.policy.limits;
    let mut quiet = limits.head;
    while let Some(head) = reader.head(quiet, limits.head).await {
        quiet = limits.keep_alive;
        writer.next();
        let (shape, ended) = match &head {
            Ok(head) => {
                let request = Request { door, limits, head };
                (route::shape(head), request.serve(link, reader, writer).await)
            }
            Err(denial) => {
                link.audit.denied(denial);
                (Protocol::OpenAi, Err(Stop::Refused(denial.clone().into())))
            }
        };
        match ended {
            Ok(true) => {}
            Ok(false) | Err(Stop::Gone) => return,
            Err(Stop::Refused(refusal)) => {
                let manner = Manner { head_only: false, http11: true, keep_alive: false };
                // The connection ends here; a sandbox that does not read the words has none.
                if writer.respond(refusal.answer(shape), manner).await.is_ok() {
                    writer.end().await;
                    reader.linger().await;
                }
                return;
            }
        }
    }
}

/// One request whose head is there.
struct Request<'a> {
    door: &'a ModelDoor,
    limits: &'a GatewayLimits,
    head: &'a Head,
}

impl Request<'_> {
    /// Returns whether the connection may go on.
    async fn serve(&self, link: &Link<'_>, reader: &mut Reader, writer: &mut Writer) -> Result<bool, Stop> {
        let admitted = match route::read(self.head) {
            Ok((route, token)) => self.door.entry(link.address, token).await.map(|entry| (route, entry)),
            Err(refusal) => Err(refusal),
        };
        let (route, entry) = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => {
                link.audit.refused(None, refusal.reason());
                return Err(refusal.into());
            }
        };
        let mut call = Call {
            audit: &link.audit,
            reservation: None,
            entry: &entry,
            route: &route,
            to: None,
            asked: 0,
            status: 0,
            scan: None,
            answered: writer.meter(),
            begun: Instant::now(),
        };
        let ended = tokio::select! {
            biased;
            () = entry.void.cancelled() => Err(Stop::Gone),
            ended = self.exchange(&mut call, reader, writer) => ended,
        };
        if let Err(Stop::Refused(refusal)) = &ended {
            let nobody = matches!(refusal, Refusal::NoServer(_));
            if call.to.is_some() || nobody {
                // It was sent, or would have been, so this is the upstream's failure.
                call.status = refusal.status().as_u16();
                entry.saw(|seen| fail(seen, refusal.status().as_u16(), refusal.to_string()));
            }
            if call.to.is_none() {
                link.audit.refused(Some(&entry.grant), refusal.reason());
                entry.saw(|seen| {
                    seen.refusal = Some(refusal.to_string());
                    if matches!(refusal, Refusal::Ledger(Refused::Over(_))) {
                        seen.over.clone_from(&seen.refusal);
                    }
                });
            }
        }
        ended
    }

    async fn exchange<'c>(
        &'c self,
        call: &mut Call<'c>,
        reader: &mut Reader,
        writer: &mut Writer,
    ) -> Result<bool, Stop> {
        let (route, entry) = (call.route, call.entry);
        let manner = Manner::of(self.head);
        if let Route::List(protocol) = route {
            if !matches!(self.head.framing, Framing::None | Framing::Length(0)) {
                return Err(Refusal::Method.into());
            }
            let list = list(*protocol, &self.door.models(*protocol));
            return writer.respond(list, manner).await.map_err(|Gone| Stop::Gone);
        }
        let mut space = Space::new(&self.door.inner.space, &entry.space);
        let body = self.body(&mut space, reader, writer).await?;
        let Asked { model: named, answer } = inspect::read(route.protocol(), &body, self.door.inner.web)?;
        let model = model(route, named)?;
        let mut line = self.door.line(route.protocol(), &model)?;
        if let Some(ledger) = &self.door.inner.ledger {
            let (asked, answer) = match route {
                Route::Gemini { verb: Verb::Count, .. } | Route::MessagesCount => (0, Some(0)),
                _ => (body.len() as u64 / BYTES_PER_TOKEN, answer),
            };
            let reservation = ledger.reserve(entry.grant.spender(&model), asked, answer).await?;
            if let Some(warning) = reservation.warnings.last() {
                entry.saw(|seen| seen.warning = Some(warning.clone()));
            }
            call.reservation = Some(reservation);
        }
        call.asked = body.len();
        entry.saw(|seen| seen.requests += 1);
        let answering = async {
            let to = |upstream: &Arc<Upstream>| call.to = Some((Arc::clone(upstream), model.clone()));
            let answered = line.ask(route, &self.head.headers, &body, self.limits, to).await?;
            // Whatever else it holds is held until the answer is over.
            let Answered { upstream, status, answer, failure, guard: _held } = answered;
            call.status = status.as_u16();
            if status == StatusCode::NOT_FOUND {
                let known = upstream.known(&model, self.limits).await;
                if !known.is_empty() {
                    return Err(Refusal::NotThere { host: upstream.host().clone(), asked: model, known }.into());
                }
            }
            if let Some(body) = failure {
                entry.saw(|seen| fail(seen, status.as_u16(), cause(&body)));
                return writer.respond(answer.map(|_| Full::from(body)), manner).await.map_err(|Gone| Stop::Gone);
            }
            let events = answer.headers().get(header::CONTENT_TYPE).is_some_and(is_events);
            let scan = call.scan.insert(Scan::new(route.protocol(), events));
            let sign = || entry.saw(|seen| seen.heard += 1);
            let answered = writer.respond(answer.map(|body| Tap::new(body, scan, sign)), manner).await;
            match (&answered, scan.broken) {
                (Ok(_), _) => entry.saw(|seen| seen.failures = 0),
                (Err(Gone), true) => {
                    let broken = Denial::Broken(upstream.host().clone());
                    entry.saw(|seen| fail(seen, broken.status().as_u16(), broken.to_string()));
                }
                // Whoever asked would have been noticed to be away.
                (Err(Gone), false) => {
                    let silent = Denial::Silent(upstream.host().clone());
                    entry.saw(|seen| fail(seen, silent.status().as_u16(), silent.to_string()));
                }
            }
            answered.map_err(|Gone| Stop::Gone)
        };
        tokio::select! {
            biased;
            // An answer that nobody waits for any more costs tokens all the same.
            () = reader.hang_up() => Err(Stop::Gone),
            answered = answering => answered,
        }
    }

    /// Reads the body, which is looked into as a whole before any of it goes out.
    async fn body(&self, space: &mut Space, reader: &mut Reader, writer: &mut Writer) -> Result<Bytes, Stop> {
        if self.head.headers.contains_key(header::CONTENT_ENCODING) {
            return Err(Refusal::Compressed.into());
        }
        if matches!(self.head.framing, Framing::Length(length) if length > MAX_BODY as u64) {
            return Err(Refusal::TooLarge(MAX_BODY).into());
        }
        if self.head.expects_continue {
            writer.raw(b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(|Gone| Stop::Gone)?;
        }
        let read = reader.whole(self.head.framing, |length| space.grow(length));
        Ok(timeout(self.limits.idle, read).await.map_err(|_| Denial::Slow)??)
    }
}

/// The model that is meant. Gemini's stands in the path, and may stand in the body again.
pub(super) fn model(route: &Route, named: Option<String>) -> Result<String, Refusal> {
    match (route, named) {
        (Route::Gemini { model, .. }, None) => Ok(model.clone()),
        (Route::Gemini { model, .. }, Some(named)) if *model == named => Ok(named),
        (Route::Chat | Route::Responses | Route::Messages | Route::MessagesCount, Some(named)) => Ok(named),
        (Route::Gemini { .. }, Some(_)) => Err(Refusal::Malformed("it names another model than its address".into())),
        (_, None) | (Route::List(_), _) => Err(Refusal::Malformed("it names no model".into())),
    }
}

fn is_events(kind: &HeaderValue) -> bool {
    kind.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream")
}

/// The models as each protocol lists them.
fn list(protocol: Protocol, models: &[String]) -> Response<Full<Bytes>> {
    let body = match protocol {
        Protocol::OpenAi | Protocol::Responses | Protocol::Messages => {
            let models: Vec<Value> = models
                .iter()
                .map(|model| json!({"id": model, "object": "model", "created": 0, "owned_by": "matrix-agent"}))
                .collect();
            json!({"object": "list", "data": models})
        }
        Protocol::Gemini => {
            let models: Vec<Value> = models
                .iter()
                .map(|model| {
                    let verbs = ["generateContent", "countTokens"];
                    json!({"name": format!("models/{model}"), "displayName": model, "supportedGenerationMethods": verbs})
                })
                .collect();
            json!({"models": models})
        }
    };
    let mut response = Response::new(Full::from(body.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Notes a failure. Only what may pass by itself counts in a row.
fn fail(seen: &mut super::Seen, status: u16, cause: String) {
    if status == 429 || status >= 500 {
        seen.failures = seen.failures.saturating_add(1);
    }
    seen.failure = Some(Failure { status, cause });
}

/// Room for one body, given back when dropped.
struct Space {
    all: Arc<Semaphore>,
    own: Arc<Semaphore>,
    held: Vec<OwnedSemaphorePermit>,
    /// Bytes that are paid for, and that are used.
    paid: usize,
    used: usize,
}

impl Space {
    fn new(all: &Arc<Semaphore>, own: &Arc<Semaphore>) -> Self {
        Self { all: Arc::clone(all), own: Arc::clone(own), held: Vec::new(), paid: 0, used: 0 }
    }

    /// Takes so many bytes more. It never waits: two bodies that wait for each other's room would do so for ever.
    fn grow(&mut self, length: usize) -> Result<(), Refusal> {
        self.used += length;
        if self.used > MAX_BODY {
            return Err(Refusal::TooLarge(MAX_BODY));
        }
        while self.paid < self.used {
            for space in [&self.own, &self.all] {
                self.held.push(Arc::clone(space).try_acquire_owned().map_err(|_| Refusal::Crowded)?);
            }
            self.paid += SPACE_UNIT;
        }
        Ok(())
    }
}

/// A request of somebody who has a pass. Dropping it counts its tokens and writes the log's line, however it has ended.
struct Call<'a> {
    audit: &'a Audit,
    /// What is held for it, from when it is sent.
    reservation: Option<Reservation>,
    entry: &'a Entry,
    route: &'a Route,
    /// Where it was sent, and to which model there; `None` where it was not.
    to: Option<(Arc<Upstream>, String)>,
    /// Bytes of its body.
    asked: usize,
    /// The answer's status; 0 without one.
    status: u16,
    scan: Option<Scan>,
    /// Bytes of the answer's body.
    answered: Arc<AtomicU64>,
    begun: Instant,
}

impl Call<'_> {
    fn tokens(&mut self) -> Tokens {
        match self.scan.take() {
            _ if matches!(self.route, Route::Gemini { verb: Verb::Count, .. } | Route::MessagesCount) => {
                Tokens::default()
            }
            Some(scan) => scan.tokens(self.asked),
            // Cut before the answer began: the prompt was read all the same.
            None if self.status == 0 => Scan::new(self.route.protocol(), true).tokens(self.asked),
            None => Tokens::default(),
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let tokens = self.tokens();
        if let Some(reservation) = self.reservation.take() {
            // What nobody was asked costs nothing.
            reservation.settle(if self.to.is_some() { tokens } else { Tokens::default() });
        }
        let Some((upstream, model)) = &self.to else { return };
        self.entry.saw(|seen| {
            seen.tokens += tokens;
            *seen.by_model.entry(model.clone()).or_default() += tokens;
        });
        self.audit.model_call(&ModelCall {
            grant: &self.entry.grant,
            host: upstream.host(),
            port: upstream.port(),
            model,
            status: self.status,
            tokens,
            asked: self.asked,
            answered: self.answered.load(Ordering::Relaxed),
            took: self.begun.elapsed(),
        });
    }
}
