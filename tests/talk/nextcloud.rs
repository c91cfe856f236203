//! A scripted Nextcloud with Talk's API for bots, on a real port: it checks every signature as the documentation says, takes messages
//! of a length of its own, and shuts out who asks too often where it is not known. It signs webhooks as the real one does.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use aws_lc_rs::hmac;
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Json, Response},
    routing::{get, post},
};
use matrix_agent::ids;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// The secret that bot and Nextcloud share.
pub(super) const SECRET: &str = "the-secret-that-bot-and-nextcloud-share-0123456789";

/// A message that the bot has sent.
#[derive(Clone, Debug)]
pub(super) struct Posted {
    pub(super) conversation: String,
    pub(super) text: String,
    pub(super) reply_to: Option<u64>,
    pub(super) reference: String,
}

#[derive(Default)]
struct Script {
    posted: Vec<Posted>,
    /// Conversation, message, reaction.
    reactions: Vec<(String, u64, String)>,
    /// Requests of any kind to the bots' API.
    asked: usize,
    /// How often what it can do was asked.
    capabilities: usize,
    /// Whether it does not know the bot, so that it answers 401, and 429 after some of these.
    unknown: bool,
    refused: usize,
    /// Whether messages with a message to which they reply are refused.
    lost_parents: bool,
    lost_answers: bool,
    /// Whether a page stands in the way of messages, with this status.
    page: Option<u16>,
    /// What the bot was given.
    features: u64,
    /// The most characters of a message.
    max_length: usize,
    /// The lengths that were too long.
    too_long: Vec<usize>,
    /// What is wrong with a request.
    faults: Vec<String>,
}

/// The server; it ends when dropped.
pub(super) struct Nextcloud {
    script: Arc<Mutex<Script>>,
    url: String,
    cancel: CancellationToken,
}

fn lock(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Nextcloud {
    pub(super) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Script { features: 3, max_length: 32_000, ..Script::default() };
        let (script, cancel) = (Arc::new(Mutex::new(script)), CancellationToken::new());
        let (state, stop) = (script.clone(), cancel.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let bots = "/ocs/v2.php/apps/spreed/api/v1/bot";
                let app = Router::new()
                    .route("/ocs/v2.php/cloud/capabilities", get(capabilities))
                    .route(&format!("{bots}/ask-features"), post(features))
                    .route(&format!("{bots}/{{token}}/message"), post(message))
                    .route(&format!("{bots}/{{token}}/reaction/{{message}}"), post(reaction))
                    .with_state(state);
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    _ = axum::serve(listener, app) => {}
                    () = stop.cancelled() => {}
                }
            });
        });
        Self { script, url, cancel }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The messages so far, after a look that no request was wrong.
    pub(super) fn posted(&self) -> Vec<Posted> {
        let script = lock(&self.script);
        assert!(script.faults.is_empty(), "{:?}", script.faults);
        script.posted.clone()
    }

    pub(super) fn reactions(&self) -> Vec<(String, u64, String)> {
        lock(&self.script).reactions.clone()
    }

    pub(super) fn asked(&self) -> usize {
        lock(&self.script).asked
    }

    pub(super) fn capabilities_asked(&self) -> usize {
        lock(&self.script).capabilities
    }

    pub(super) fn too_long(&self) -> Vec<usize> {
        lock(&self.script).too_long.clone()
    }

    /// Does not know the bot from now on, or knows it again.
    pub(super) fn forget(&self, unknown: bool) {
        lock(&self.script).unknown = unknown;
    }

    /// Answers messages with a page from now on, or takes them again.
    pub(super) fn shows_page(&self, status: Option<u16>) {
        lock(&self.script).page = status;
    }

    /// Takes messages and answers that it has failed from now on, or says the truth again.
    pub(super) fn loses_answers(&self, lost: bool) {
        lock(&self.script).lost_answers = lost;
    }

    pub(super) fn lose_parents(&self) {
        lock(&self.script).lost_parents = true;
    }

    pub(super) fn takes_at_most(&self, characters: usize) {
        lock(&self.script).max_length = characters;
    }

    pub(super) fn gives(&self, features: u64) {
        lock(&self.script).features = features;
    }
}

impl Drop for Nextcloud {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn capabilities(State(script): State<Arc<Mutex<Script>>>) -> Json<Value> {
    let mut script = lock(&script);
    script.capabilities += 1;
    Json(json!({"ocs": {"meta": {"status": "ok"}, "data": {"capabilities": {"spreed": {
        "features": ["audio", "bots-v1", "bot-features-api"],
        "config": {"chat": {"max-length": script.max_length}},
    }}}}}))
}

/// Returns why a request is refused: it is not signed over this text, or the bot is not known.
fn refused(script: &mut Script, headers: &HeaderMap, signed: &str) -> Option<Response> {
    script.asked += 1;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let random = header("x-nextcloud-talk-bot-random");
    if header("ocs-apirequest") != "true" || header("content-type") != "application/json" {
        script.faults.push(format!("{headers:?}"));
    }
    if random.len() < 32 || header("x-nextcloud-talk-bot-signature") != signature(SECRET, random, signed.as_bytes()) {
        script.faults.push(format!("it is not signed over {signed:?}"));
        return Some(answer(StatusCode::UNAUTHORIZED));
    }
    if !script.unknown {
        return None;
    }
    script.refused += 1;
    Some(answer(if script.refused > 2 { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::UNAUTHORIZED }))
}

async fn message(
    State(script): State<Arc<Mutex<Script>>>,
    Path(conversation): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut script = lock(&script);
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = body["message"].as_str().unwrap_or_default().to_owned();
    if let Some(refused) = refused(&mut script, &headers, &text) {
        return refused;
    }
    if let Some(status) = script.page {
        let status = StatusCode::from_u16(status).unwrap();
        return (status, [("location", "/login"), ("content-type", "text/html")], "<html>Welcome</html>")
            .into_response();
    }
    if text.trim().is_empty() || script.lost_parents && body["replyTo"].is_u64() {
        return answer(StatusCode::BAD_REQUEST);
    }
    if text.chars().count() > script.max_length {
        script.too_long.push(text.chars().count());
        return answer(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let reference = body["referenceId"].as_str().unwrap_or_default().to_owned();
    script.posted.push(Posted { conversation, text, reply_to: body["replyTo"].as_u64(), reference });
    answer(if script.lost_answers { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::CREATED })
}

async fn reaction(
    State(script): State<Arc<Mutex<Script>>>,
    Path((conversation, message)): Path<(String, u64)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut script = lock(&script);
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let reaction = body["reaction"].as_str().unwrap_or_default().to_owned();
    if let Some(refused) = refused(&mut script, &headers, &reaction) {
        return refused;
    }
    script.reactions.push((conversation, message, reaction));
    answer(StatusCode::CREATED)
}

async fn features(State(script): State<Arc<Mutex<Script>>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut script = lock(&script);
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if let Some(refused) = refused(&mut script, &headers, body["token"].as_str().unwrap_or_default()) {
        return refused;
    }
    Json(json!({"ocs": {"meta": {"status": "ok"}, "data": {"features": script.features}}})).into_response()
}

/// Answers as Talk does: the status, and nothing that tells more.
fn answer(status: StatusCode) -> Response {
    (status, Json(json!({"ocs": {"meta": {}, "data": null}}))).into_response()
}

/// Signs as Nextcloud and its bots do.
pub(super) fn signature(secret: &str, random: &str, signed: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    ids::hex(hmac::sign(&key, &[random.as_bytes(), signed].concat()).as_ref())
}

/// Where the bot's webhook is, and how Nextcloud tells it something.
#[derive(Clone, Copy)]
pub(super) struct Webhook(pub(super) u16);

impl Webhook {
    /// Tells something, signed; returns the status, or 0 if no answer came.
    pub(super) fn tell(self, activity: &Value) -> u16 {
        let (random, body) = (ids::random(32), activity.to_string());
        self.send(&random, &signature(SECRET, &random, body.as_bytes()), body.as_bytes())
    }

    /// Sends a request as it is; returns the status, or 0 if no answer came.
    pub(super) fn send(self, random: &str, signature: &str, body: &[u8]) -> u16 {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.0)) else { return 0 };
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        // As through a proxy, under a name that nobody has told the server.
        let head = format!(
            "POST /webhook HTTP/1.1\r\nHost: bot.example.com\r\nX-Forwarded-For: 203.0.113.9\r\nX-Nextcloud-Talk-Random: {random}\r\n\
             X-Nextcloud-Talk-Signature: {signature}\r\nX-Nextcloud-Talk-Backend: https://cloud.example.com/\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        // The server may refuse before it has read all.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        let mut told = Vec::new();
        let _ = stream.read_to_end(&mut told);
        let told = String::from_utf8_lossy(&told);
        told.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }
}

/// A message, as Nextcloud tells of it.
pub(super) fn said(conversation: &str, id: u64, who: &str, text: &str) -> Value {
    json!({
        "type": "Create",
        "actor": {"type": "Person", "id": who, "name": "Somebody", "talkParticipantType": "3"},
        "object": {
            "type": "Note", "id": id.to_string(), "name": "message",
            "content": json!({"message": text, "parameters": []}).to_string(),
            "mediaType": "text/markdown",
        },
        "target": {"type": "Collection", "id": conversation, "name": "world"},
    })
}

/// The same as a reply to something that a bot of this name has said.
pub(super) fn replied(conversation: &str, id: u64, who: &str, text: &str, bot: &str, parent: &str) -> Value {
    let mut activity = said(conversation, id, who, text);
    activity["object"]["inReplyTo"] = json!({
        "actor": {"type": "Application", "id": "bots/bot-a78f46", "name": bot},
        "object": {
            "type": "Note", "id": "900", "name": "message",
            "content": json!({"message": parent, "parameters": {}}).to_string(),
        },
    });
    activity
}

/// That the bot was added to a conversation (`Join`) or removed from it (`Leave`).
pub(super) fn moved(kind: &str, conversation: &str) -> Value {
    json!({
        "type": kind,
        "actor": {"type": "Application", "id": "bots/bot-a78f46", "name": "Halo"},
        "object": {"type": "Collection", "id": conversation, "name": "world"},
    })
}
