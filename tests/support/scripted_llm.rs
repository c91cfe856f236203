//! A scripted server of models on a real port, for tests of this process and of others. It speaks as OpenAI does in chats and in
//! responses, as Anthropic does and as Gemini does.
//!
//! ```ignore
//! let llm = ScriptedLlm::start().await;
//! llm.reply_calls(&[("run_command", json!({"command": "ls"}))]).reply_text("Two files.");
//! llm.when("room-7").reply_text("only for a conversation in which a user said `room-7`");
//! llm.reply(Reply::gemini_text("as Gemini streams it, or whole, as it is asked"));
//! // … LLM_BASE_URL = llm.base_url(), GEMINI_BASE_URL = llm.gemini_url() …
//! let second = llm.arrived(2).await; // waits for the second request and returns its body
//! ```
//! Replies are used up in the order in which they were added: each request takes the first unused one that fits it. It
//! runs in a thread with a runtime of its own, so that neither a blocking test nor a paused clock stops it.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri},
    response::Response,
    routing::{get, post},
    serve::ListenerExt,
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::replies::gemini_whole;
pub use super::replies::{End, Reply};

/// How long a test waits for what must come.
const WITHIN: Duration = Duration::from_secs(20);

type Fits = Box<dyn Fn(&Value) -> bool + Send + Sync>;
type Otherwise = Box<dyn Fn(&Value) -> Reply + Send + Sync>;

struct Line {
    fits: Fits,
    gate: Option<Arc<Notify>>,
    reply: Reply,
}

#[derive(Default)]
struct Shared {
    lines: Mutex<Vec<Line>>,
    otherwise: Mutex<Option<Otherwise>>,
    /// Path and query, headers, body.
    requests: Mutex<Vec<(String, HeaderMap, Value)>>,
    /// What it says it can be asked; nothing until it is told.
    listed: Mutex<Vec<String>>,
    /// Requests arrived, replies that the client did not wait for, connections.
    counts: watch::Sender<(usize, usize, usize)>,
}

/// The server; it ends when dropped.
pub struct ScriptedLlm {
    shared: Arc<Shared>,
    base_url: String,
    gemini_url: String,
    cancel: CancellationToken,
}

impl ScriptedLlm {
    /// Starts a server without any reply.
    #[expect(clippy::unused_async, reason = "starting a server reads as something one waits for")]
    pub async fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a non-blocking listener");
        let address = listener.local_addr().expect("an address");
        let (shared, cancel) = (Arc::new(Shared::default()), CancellationToken::new());
        let (state, stop) = (shared.clone(), cancel.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let counted = state.clone();
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener").tap_io(move |io| {
                    let _ = io.set_nodelay(true);
                    counted.counts.send_modify(|counts| counts.2 += 1);
                });
                let app = Router::new().route("/v1/chat/completions", post(answer));
                let app = app.route("/v1/responses", post(answer)).route("/v1/messages", post(answer));
                let app = app.route("/v1/models", get(list)).route("/v1beta/models", get(list));
                let app = app.route("/v1beta/models/{call}", post(answer));
                let app = app.layer(DefaultBodyLimit::disable()).with_state(state);
                tokio::select! {
                    _ = axum::serve(listener, app) => {}
                    () = stop.cancelled() => {}
                }
            });
        });
        let (base_url, gemini_url) = (format!("http://{address}/v1"), format!("http://{address}"));
        Self { shared, base_url, gemini_url, cancel }
    }

    /// What belongs into `GEMINI_BASE_URL`.
    pub fn gemini_url(&self) -> &str {
        &self.gemini_url
    }

    /// What belongs into `LLM_BASE_URL`.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Replies only to conversations in which a user's message contains `text`.
    pub fn when(&self, text: &str) -> Script<'_> {
        let text = text.to_owned();
        self.matching(move |request| user_texts(request).iter().any(|said| said.contains(&text)))
    }

    /// Replies only to requests that fit.
    pub fn matching(&self, fits: impl Fn(&Value) -> bool + Send + Sync + 'static) -> Script<'_> {
        Script { llm: self, fits: Arc::new(fits), gate: None }
    }

    /// Answers whatever no other reply fits. Without it such a request gets a 400 that says so.
    pub fn otherwise(&self, reply: impl Fn(&Value) -> Reply + Send + Sync + 'static) {
        *lock(&self.shared.otherwise) = Some(Box::new(reply));
    }

    /// Says that these models can be asked. Without it there is no such list.
    pub fn lists(&self, models: &[&str]) {
        *lock(&self.shared.listed) = models.iter().map(|&model| model.to_owned()).collect();
    }

    /// Adds a reply for any request; so do the methods below.
    pub fn reply(&self, reply: Reply) -> &Self {
        self.matching(|_| true).reply(reply);
        self
    }

    /// A plain answer.
    pub fn reply_text(&self, text: &str) -> &Self {
        self.reply(Reply::text(text))
    }

    /// Tool calls; arguments that are a JSON string are sent as that text, well-formed or not.
    pub fn reply_calls(&self, calls: &[(&str, Value)]) -> &Self {
        self.reply(Reply::calls(calls))
    }

    /// Events as they are.
    pub fn raw_sse(&self, sse: &str) -> &Self {
        self.reply(Reply::raw(sse))
    }

    /// Another status.
    pub fn status(&self, status: u16, headers: &[(&'static str, &str)], body: &str) -> &Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.reply(Reply::Status(status, headers, body.to_owned()))
    }

    /// No answer at all.
    pub fn hang(&self) -> &Self {
        self.reply(Reply::Hang)
    }

    /// The first `n` events of `reply`, then the connection breaks.
    pub fn cut_after(&self, n: usize, reply: Reply) -> &Self {
        self.reply(reply.first(n, End::Cut))
    }

    /// The first `n` events of `reply`, then silence.
    pub fn hang_after(&self, n: usize, reply: Reply) -> &Self {
        self.reply(reply.first(n, End::Open))
    }

    /// The bodies of all requests so far.
    pub fn requests(&self) -> Vec<Value> {
        lock(&self.shared.requests).iter().map(|(.., body)| body.clone()).collect()
    }

    /// The headers of request `n` (the first is 1).
    pub fn headers(&self, n: usize) -> HeaderMap {
        lock(&self.shared.requests)[n - 1].1.clone()
    }

    /// The path and query of request `n` (the first is 1).
    pub fn path(&self, n: usize) -> String {
        lock(&self.shared.requests)[n - 1].0.clone()
    }

    /// Waits for request `n` (the first is 1) and returns its body.
    pub async fn arrived(&self, n: usize) -> Value {
        self.wait(&format!("request {n}"), |counts| counts.0 >= n).await;
        lock(&self.shared.requests)[n - 1].2.clone()
    }

    /// Waits until clients have dropped `n` requests before their reply had ended.
    pub async fn cancelled(&self, n: usize) {
        self.wait(&format!("{n} dropped requests"), |counts| counts.1 >= n).await;
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.shared.counts.borrow().2
    }

    async fn wait(&self, what: &str, done: impl Fn(&(usize, usize, usize)) -> bool) {
        let mut counts = self.shared.counts.subscribe();
        let come = counts.wait_for(|counts| done(counts));
        let come = tokio::time::timeout(WITHIN, come).await;
        assert!(come.is_ok(), "the model never saw {what}; it had {} requests", self.requests().len());
    }
}

impl Drop for ScriptedLlm {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Replies for some requests only.
pub struct Script<'a> {
    llm: &'a ScriptedLlm,
    fits: Arc<dyn Fn(&Value) -> bool + Send + Sync>,
    gate: Option<Arc<Notify>>,
}

impl Script<'_> {
    /// Holds the next reply back until `gate` is notified once.
    pub fn after(mut self, gate: &Arc<Notify>) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// Adds a reply.
    pub fn reply(mut self, reply: Reply) -> Self {
        let fits = self.fits.clone();
        lock(&self.llm.shared.lines).push(Line {
            fits: Box::new(move |request| fits(request)),
            gate: self.gate.take(),
            reply,
        });
        self
    }

    /// A plain answer.
    pub fn reply_text(self, text: &str) -> Self {
        self.reply(Reply::text(text))
    }

    /// Tool calls.
    pub fn reply_calls(self, calls: &[(&str, Value)]) -> Self {
        self.reply(Reply::calls(calls))
    }
}

/// The texts of all users' messages of a request.
pub fn user_texts(request: &Value) -> Vec<String> {
    if let Some(contents) = request["contents"].as_array() {
        let users = contents.iter().filter(|content| content["role"] == "user");
        let parts = users.flat_map(|content| content["parts"].as_array().into_iter().flatten());
        return parts.filter_map(|part| part["text"].as_str().map(str::to_owned)).collect();
    }
    let messages = request["messages"].as_array().into_iter().flatten().filter(|message| message["role"] == "user");
    messages
        .map(|message| match &message["content"] {
            Value::String(text) => text.clone(),
            parts => parts
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|part| part["text"].as_str())
                .collect::<Vec<_>>()
                .join("\n"),
        })
        .collect()
}

/// The texts of the tools' results that a request carries.
pub fn results(request: &Value) -> Vec<&str> {
    let messages = request["messages"].as_array().into_iter().flatten();
    messages.filter(|message| message["role"] == "tool").filter_map(|message| message["content"].as_str()).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a reply that was not read to its end.
struct Unread(Arc<Shared>, bool);

impl Unread {
    fn read(&mut self) {
        self.1 = false;
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if self.1 {
            self.0.counts.send_modify(|counts| counts.1 += 1);
        }
    }
}

async fn list(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    let listed = lock(&shared.listed).clone();
    let mut response = Response::new(Body::empty());
    if listed.is_empty() {
        *response.status_mut() = StatusCode::NOT_FOUND;
    } else if uri.path() == "/v1/models" {
        let models: Vec<_> = listed.iter().map(|model| json!({"id": model, "object": "model"})).collect();
        *response.body_mut() = Body::from(json!({"object": "list", "data": models}).to_string());
    } else {
        let verbs = ["generateContent"];
        let of = |model: &String| json!({"name": format!("models/{model}"), "supportedGenerationMethods": verbs});
        let models: Vec<_> = listed.iter().map(of).collect();
        *response.body_mut() = Body::from(json!({"models": models}).to_string());
    }
    response
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    let path = uri.to_string();
    let body: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
    let line = if path.ends_with(":countTokens") {
        None
    } else {
        let mut lines = lock(&shared.lines);
        lines.iter().position(|line| (line.fits)(&body)).map(|at| lines.remove(at))
    };
    let (gate, reply) = match line {
        Some(line) => (line.gate, line.reply),
        None => (None, lock(&shared.otherwise).as_ref().map_or_else(unscripted, |reply| reply(&body))),
    };
    let counts = path.ends_with(":countTokens");
    let whole = path.ends_with(":generateContent");
    lock(&shared.requests).push((path, headers, body));
    shared.counts.send_modify(|counts| counts.0 += 1);
    let mut unread = Unread(shared, true);
    if let Some(gate) = gate {
        gate.notified().await;
    }
    let reply = match reply {
        _ if counts => Reply::labelled("application/json", r#"{"totalTokens":31}"#),
        Reply::Stream(events, End::Closed) if whole => Reply::labelled("application/json", gemini_whole(&events)),
        reply => reply,
    };
    match reply {
        Reply::Hang => std::future::pending().await,
        Reply::Status(status, headers, body) => {
            unread.read();
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            for (name, value) in headers {
                response
                    .headers_mut()
                    .insert(HeaderName::from_static(name), HeaderValue::from_str(&value).expect("a value"));
            }
            response
        }
        Reply::Bytes(label, pieces, pause) => {
            let pieces = stream::iter(pieces).then(move |piece| async move {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                Ok::<_, Infallible>(piece)
            });
            let last = stream::once(async move {
                unread.read();
                Ok(Vec::new())
            });
            let mut response = Response::new(Body::from_stream(pieces.chain(last)));
            response.headers_mut().insert("content-type", HeaderValue::from_static(label));
            response
        }
        Reply::Stream(events, end) => {
            let pieces = stream::iter(events.into_iter().map(Ok::<_, std::io::Error>));
            let last = stream::once(async move {
                if end == End::Open {
                    std::future::pending::<Infallible>().await;
                }
                // Without this pause hyper would throw away with the connection what it has not yet sent.
                tokio::task::yield_now().await;
                unread.read();
                if end == End::Cut { Err(std::io::Error::other("cut")) } else { Ok(String::new()) }
            });
            let mut response = Response::new(Body::from_stream(pieces.chain(last)));
            response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
            response
        }
    }
}

fn unscripted() -> Reply {
    Reply::Status(400, Vec::new(), r#"{"error":{"message":"the test has no reply for this request"}}"#.to_owned())
}
